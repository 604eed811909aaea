//! What can be written on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use hull_build::BuildOptions;
use hull_engine::RunOptions;
use hull_engine::options::{self, Bind, Network, Seccomp, Source, Tmpfs, Ulimit};
use hull_image::{Platform, Reference};

use crate::check::CheckArgs;
use crate::containers::{self, PsArgs};
use crate::demo::DemoArgs;
use crate::explain::Explain;
use crate::images::args::{
    HistoryArgs, ImageCommand, ImportArgs, InspectArgs, ListArgs, LoadArgs, RemoveArgs, SaveArgs, TagArgs,
};
use crate::images::df::DfArgs;
use crate::images::gc::GcArgs;
use crate::login::{LoginArgs, LogoutArgs};
use crate::manifest::ManifestCommand;
use crate::pull::{BuildPolicy, Policy, PullArgs};
use crate::push::PushArgs;
use crate::registry::RegistryArgs;
use crate::report::Report;
use crate::search::SearchArgs;
use crate::verify::VerifyArgs;

/// Runs and explains Linux containers: processes with a restricted view, another root and limits.
#[derive(Parser)]
#[command(name = "hull", version, disable_help_subcommand = true, disable_version_flag = true)]
pub struct Cli {
    /// Folder of the images
    #[arg(long, global = true, value_name = "DIR", env = "HULL_ROOT", default_value = "/var/lib/hull")]
    pub root: PathBuf,
    /// Folder of what a reboot ends
    #[arg(long, global = true, value_name = "DIR", env = "HULL_RUNROOT", default_value = "/run/hull")]
    pub runroot: PathBuf,
    /// Print the version
    #[arg(long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub command: Command,
}

const RUN_USAGE: &str = "hull run [OPTIONS] IMAGE [COMMAND]...\n       \
    hull run [OPTIONS] --rootfs DIR [--] COMMAND...\n       \
    hull run [OPTIONS] -f DOCKERFILE [-C DIR] [--] [COMMAND]...";

// Only the verb that is called is built.
#[derive(Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// Show a host and a container side by side, each line checked
    Demo(Box<DemoArgs>),
    /// Remove images and steps of the build cache that nothing uses, by age and size
    Gc(GcArgs),
    /// Show what an image was made by
    History(HistoryArgs),
    /// Work with images
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// List images
    Images(ListArgs),
    /// Make an image of a root file system's archive
    Import(ImportArgs),
    /// Tell about this hull and this machine
    Info,
    /// Show all that is known of images
    Inspect(InspectArgs),
    /// Take in images from an archive
    Load(LoadArgs),
    /// Keep name and password for a registry
    Login(LoginArgs),
    /// Forget name and password for a registry
    Logout(LogoutArgs),
    /// Work with lists of images for several platforms
    Manifest {
        #[command(subcommand)]
        command: ManifestCommand,
    },
    /// The verbs of an OCI runtime, runc's: what containerd, Docker and Podman call (also by the name hull-oci)
    #[command(disable_help_flag = true)]
    Oci {
        /// A verb and its arguments; --help lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<std::ffi::OsString>,
    },
    /// List containers
    Ps(PsArgs),
    /// Download images
    Pull(PullArgs),
    /// Upload an image to a registry
    Push(PushArgs),
    /// Remove containers
    Rm {
        /// Kill those that run
        #[arg(short, long)]
        force: bool,
        /// Names or ids
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Remove images
    Rmi(RemoveArgs),
    /// Run a command in a new container
    #[command(alias = "run-rootfs", disable_help_flag = true, override_usage = RUN_USAGE)]
    Run(Box<RunArgs>),
    /// Write images to an archive
    Save(SaveArgs),
    /// Look for repositories of a registry
    Search(SearchArgs),
    /// Look after this machine
    System {
        #[command(subcommand)]
        command: SystemCommand,
    },
    /// Give an image one more name
    Tag(TagArgs),
    /// Tell what this process sees of where it is, and whether that is as expected
    Verify(Box<VerifyArgs>),
    /// Print the version
    Version,
}

#[derive(Subcommand)]
pub enum SystemCommand {
    /// Report what is damaged or left over; exit status 1 if there is something
    Check(CheckArgs),
    /// Show what images, containers and the build cache take on the disk
    Df(DfArgs),
}

// The flags of `hull build`.
#[derive(Args)]
pub struct BuildArgs {
    /// The Dockerfile, relative to the current folder; DIR/Dockerfile if not given
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Name the image
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<String>,
    /// Also write the image's file system to a folder
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Folder that COPY takes from; the current one if not given
    #[arg(short = 'C', long, value_name = "DIR", conflicts_with = "folder")]
    context: Option<PathBuf>,
    /// Value of an ARG, or the caller's variable of that name
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Stage to build; the last one if not given
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Label of the image
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Make every step anew
    #[arg(long)]
    no_cache: bool,
    /// Ask the registries of the images that the Dockerfile names: missing (the default), always (also without a value) or
    /// never
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_value = "missing",
        default_missing_value = "always",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub pull: BuildPolicy,
    /// Platform to build for: this machine's
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Option<String>,
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// Tell nothing but the image's id
    #[arg(short, long)]
    pub quiet: bool,
    /// Tell each stage and system call, as text, json or html, to standard error or a file
    #[arg(long, value_name = "FORMAT[:FILE]", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub explain: Option<Explain>,
    /// Print the plan and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// As --context
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl BuildArgs {
    /// The options that the builder takes.
    ///
    /// # Errors
    /// A value that means nothing.
    pub fn options(&self) -> Result<BuildOptions, Report> {
        let mut build_args = Vec::new();
        for given in &self.build_arg {
            match (given.split_once('='), std::env::var(given)) {
                (Some((name, value)), _) => build_args.push((name.to_owned(), value.to_owned())),
                (None, Ok(value)) => build_args.push((given.clone(), value)),
                (None, Err(_)) => {}
            }
        }
        let labels = self.label.iter().map(|label| {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            (name.to_owned(), value.to_owned())
        });
        if let Some(text) = self.platform.as_deref().filter(|text| !text.is_empty()) {
            let (wanted, host) = (text.parse::<Platform>()?, Platform::host());
            if wanted != host {
                let message =
                    format!("--platform {wanted} is not supported yet: hull builds for {host}, where it runs");
                return Err(Report::usage(message, None).with_code(1));
            }
        }
        let tag = |name: &String| {
            let wrong = |error| Report::usage(format!("--tag {name:?}: {error}"), None);
            name.parse::<Reference>().map_err(wrong)
        };
        Ok(BuildOptions {
            dockerfile: self.file.clone(),
            context: self.context.clone().or_else(|| self.folder.clone()).unwrap_or_else(|| ".".into()),
            tags: self.tag.iter().map(tag).collect::<Result<_, _>>()?,
            output: self.output.clone(),
            build_args,
            target: self.target.clone(),
            labels: labels.collect(),
            no_cache: self.no_cache,
        })
    }
}

/// What `hull run` is to run in.
pub enum Wanted {
    /// A folder or an image of the store.
    Source(Source),
    /// An image that is to be built first.
    Build(Box<BuildOptions>),
}

// The flags of `hull run`; the meaning of their values is in `hull_engine::options`.
#[derive(Args)]
pub struct RunArgs {
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
    /// Folder that is the root file system
    #[arg(long, value_name = "DIR", conflicts_with_all = ["file", "context"])]
    rootfs: Option<PathBuf>,
    /// Build this Dockerfile and run the image
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Folder that the Dockerfile's COPY takes from; the current one if not given
    #[arg(short = 'C', long, value_name = "DIR")]
    context: Option<PathBuf>,
    /// Program that gets the command as its arguments, in place of the image's
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Name the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Host name
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Set an environment variable, or pass on the caller's
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User and group, names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Bind mount
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]")]
    volume: Vec<String>,
    /// Bind mount or tmpfs
    #[arg(long, value_name = "type=bind|tmpfs,target=DIR[,...]")]
    mount: Vec<String>,
    /// Scratch file system in memory
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Most memory
    #[arg(short, long, value_name = "SIZE", allow_negative_numbers = true)]
    memory: Option<String>,
    /// Most memory and swap together; -1 for no limit
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    memory_swap: Option<String>,
    /// Processors' time
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    cpus: Option<String>,
    /// Processors that may be used
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Resource limit of the process
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Add a capability
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// All capabilities and devices of the host, no filter, nothing masked or read-only
    #[arg(long)]
    privileged: bool,
    /// Run an init as process 1: it reaps what ends and passes signals on to the command
    #[arg(long)]
    init: bool,
    /// seccomp=unconfined|builtin|FILE, apparmor=unconfined|PROFILE, no-new-privileges
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// none (the default) or host
    #[arg(long, alias = "net", value_name = "NETWORK")]
    network: Option<String>,
    /// Platform to take of an image for several
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Option<String>,
    /// Ask the image's registry: missing (the default), always or never
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "missing",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub pull: Policy,
    #[command(flatten)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    later: Later,
    /// Tell each stage and system call, as text, json or html, to standard error or a file
    #[arg(long, value_name = "FORMAT[:FILE]", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub explain: Option<Explain>,
    /// Print the plan and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Image, unless --rootfs or --file says what to run in; then the command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

// Docker's flags that hull does not have yet: known, so that each is an error which says so.
#[derive(Args)]
struct Later {
    #[arg(short, long, hide = true)]
    detach: bool,
    #[arg(short, long, hide = true, value_name = "PORTS")]
    publish: Vec<String>,
    #[arg(long, hide = true, value_name = "ADDRESS")]
    dns: Vec<String>,
}

impl Later {
    /// # Errors
    /// One of them was given.
    fn refuse(&self) -> Result<(), Report> {
        let network = "use --network host: the command then has the host's own ports and name servers";
        let given = [
            (
                self.detach,
                "--detach",
                "leave it out: the container runs in the foreground; the shell's & puts it behind",
            ),
            (!self.publish.is_empty(), "--publish", network),
            (!self.dns.is_empty(), "--dns", network),
        ];
        match given.iter().find(|(given, ..)| *given) {
            Some((_, flag, hint)) => Err(Report::usage(format!("{flag} is not supported yet"), Some(hint))),
            None => Ok(()),
        }
    }
}

impl RunArgs {
    /// What to run in; takes the image's name off the command.
    ///
    /// # Errors
    /// Nothing says so.
    pub fn wanted(&mut self) -> Result<Wanted, Report> {
        // An unknown flag ends up in front of the command, and the -- behind it, which clap takes away otherwise.
        let dashes = std::env::args_os().filter(|argument| argument == "--").count();
        let behind = self.command.iter().filter(|word| *word == "--").count() == dashes;
        if let Some(flag) = self.command.first().filter(|word| word.starts_with('-') && behind) {
            return Err(Report::usage(format!("unknown flag: {flag}"), Some("hull run --help")));
        }
        if let Some(folder) = self.rootfs.take() {
            return Ok(Wanted::Source(Source::Folder(folder)));
        }
        if self.file.is_some() || self.context.is_some() {
            let context = self.context.take().unwrap_or_else(|| ".".into());
            let options = BuildOptions { dockerfile: self.file.take(), context, ..BuildOptions::default() };
            return Ok(Wanted::Build(Box::new(options)));
        }
        if self.command.is_empty() {
            let hint = "hull run IMAGE, hull run --rootfs DIR -- COMMAND, or hull run -f Dockerfile";
            return Err(Report::usage("nothing was given to run", Some(hint)));
        }
        Ok(Wanted::Source(Source::Image(self.command.remove(0))))
    }

    /// The options that the engine takes.
    ///
    /// # Errors
    /// A value that means nothing or is not supported yet.
    pub fn options(self, source: Source) -> Result<RunOptions, Report> {
        self.later.refuse()?;
        let available = hull_runtime::caps::available().map_err(hull_engine::Error::from)?;
        let capabilities = options::capabilities(&self.cap_add, &self.cap_drop, self.privileged, available)?;
        let mut all = RunOptions {
            env: environment(&self.env, &self.env_file)?,
            source,
            name: self.name.as_deref().map(containers::name).transpose()?,
            remove: self.rm,
            entrypoint: self.entrypoint,
            command: self.command,
            interactive: self.interactive,
            tty: self.tty,
            // Docker's way to say that it is not given.
            hostname: self.hostname.filter(|name| !name.is_empty()),
            workdir: self.workdir,
            user: self.user,
            binds: self.volume.iter().map(|text| Bind::parse(text)).collect::<Result<_, _>>()?,
            tmpfs: self.tmpfs.iter().map(|text| Tmpfs::parse(text)).collect::<Result<_, _>>()?,
            read_only: self.read_only,
            pids_limit: self.pids_limit.map(pids).transpose()?,
            memory: self.memory.as_deref().map(options::memory).transpose()?,
            memory_swap: None,
            cpu_quota: self.cpus.as_deref().map(options::cpus).transpose()?,
            cpuset: self.cpuset_cpus,
            ulimits: self.ulimit.iter().map(|text| Ulimit::parse(text)).collect::<Result<_, _>>()?,
            privileged: self.privileged,
            capabilities: Some(capabilities),
            seccomp: Seccomp::Default,
            apparmor: None,
            init: self.init,
            no_new_privileges: false,
            network: self.network.as_deref().map(Network::parse).transpose()?.unwrap_or_default(),
            platform: self.platform.as_deref().map(platform).transpose()?,
        };
        all.memory_swap = self.memory_swap.as_deref().map(|text| swap(text, all.memory)).transpose()?;
        for text in &self.mount {
            match options::parse_mount(text)? {
                options::AnyMount::Bind(bind) => all.binds.push(bind),
                options::AnyMount::Tmpfs(tmpfs) => all.tmpfs.push(tmpfs),
            }
        }
        options::distinct_targets(&all)?;
        for option in &self.security_opt {
            security(&mut all, option)?;
        }
        if all.workdir.as_ref().is_some_and(|folder| !folder.is_absolute()) {
            return Err(Report::usage("--workdir: the folder is absolute", None));
        }
        Ok(all)
    }
}

fn platform(text: &str) -> Result<Platform, Report> {
    text.parse().map_err(|error: hull_image::Error| Report::usage(error.to_string(), None))
}

fn pids(limit: i64) -> Result<i64, Report> {
    if limit < -1 {
        return Err(Report::usage(format!("--pids-limit {limit}: a limit is positive, or -1 for none"), None));
    }
    // 0 is Docker's other word for none.
    Ok(if limit == 0 { -1 } else { limit })
}

fn swap(text: &str, memory: Option<i64>) -> Result<i64, Report> {
    let Some(memory) = memory else {
        return Err(Report::usage("--memory-swap needs --memory: it is both together", None));
    };
    if text == "-1" {
        return Ok(-1);
    }
    let value = options::bytes("--memory-swap", text)?;
    if value < memory {
        return Err(Report::usage(format!("--memory-swap {text} is less than --memory: it is both together"), None));
    }
    Ok(value)
}

fn security(options: &mut RunOptions, option: &str) -> Result<(), Report> {
    match option.split_once(['=', ':']).map_or((option, ""), |(key, value)| (key, value)) {
        ("seccomp", "unconfined") => options.seccomp = Seccomp::Unconfined,
        ("seccomp", "builtin") => options.seccomp = Seccomp::Builtin,
        ("seccomp", name) if !name.is_empty() => {
            let text = std::fs::read(name)
                .map_err(|error| Report::usage(format!("cannot read the seccomp profile {name}: {error}"), None))?;
            options.seccomp = Seccomp::Profile { name: name.to_owned(), text };
        }
        // Without a profile of ours nothing is to be taken off.
        ("apparmor", "unconfined") => options.apparmor = None,
        ("apparmor", profile) if !profile.is_empty() => options.apparmor = Some(profile.to_owned()),
        ("no-new-privileges", "" | "true") => options.no_new_privileges = true,
        ("no-new-privileges", "false") => options.no_new_privileges = false,
        _ => return Err(Report::usage(format!("--security-opt {option:?} is not supported yet"), None)),
    }
    Ok(())
}

/// `--env-file` first, then `--env`, so that the nearer word wins. A bare name takes the caller's value, if any.
fn environment(entries: &[String], files: &[PathBuf]) -> Result<Vec<String>, Report> {
    let mut all = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Report::usage(format!("cannot read {}: {error}", path.display()), None))?;
        for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let name = line.split('=').next().unwrap_or(line);
            if name.contains(char::is_whitespace) {
                let message = format!("--env-file {}: the name {name:?} has a blank in it", path.display());
                return Err(Report::usage(message, None));
            }
            all.extend(variable(line)?);
        }
    }
    for entry in entries {
        all.extend(variable(entry)?);
    }
    Ok(all)
}

/// `NAME=VALUE`; of a bare `NAME` the caller's value, none if there is none.
fn variable(entry: &str) -> Result<Option<String>, Report> {
    let wrong = |why| Report::usage(format!("--env {entry:?}: {why}"), None);
    if entry.starts_with('=') || entry.is_empty() {
        return Err(wrong("it has no name"));
    }
    if entry.contains('=') {
        return Ok(Some(entry.to_owned()));
    }
    match std::env::var(entry) {
        Ok(value) => Ok(Some(format!("{entry}={value}"))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(wrong("the caller's value is not UTF-8 text")),
    }
}
