//! runc's command line: what containerd, Docker and Podman call. `hull oci …`, or `hull-oci …` and `runc …` by name.
//!
//! Verbs, flags and shapes of output are those of runc's man pages. A failure has the exit status 1 and is a line of the
//! log, in the file of `--log` or on standard error.

mod caller;
mod checkpoint;
mod create;
mod events;
mod exec;
mod features;
mod groups;
mod handover;
mod inherited;
mod log;
mod manage;
mod notify;
mod restore;
mod spec;
mod spelling;
mod update;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::report::Report;
use caller::Caller;

/// An OCI runtime: containers from bundles, as runc's command line has them
#[derive(Parser)]
#[command(name = "hull-oci", disable_help_subcommand = true, disable_version_flag = true, subcommand_required = true)]
#[command(arg_required_else_help = true)]
// As runc takes it: Podman says --leave-running twice.
#[command(args_override_self = true)]
pub struct Oci {
    /// Folder of the containers' state; /run/hull-oci if not given, for others than root hull-oci in $XDG_RUNTIME_DIR
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where errors go as well, standard error if not given
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Shape of a line of the log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: log::Format,
    /// Tell every system call in the log
    #[arg(long)]
    debug: bool,
    /// Let systemd make the control groups
    #[arg(long)]
    systemd_cgroup: bool,
    /// Whether the caller is not root: auto, true or false
    #[arg(long, value_name = "MODE", default_value = "auto")]
    rootless: Rootless,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rootless {
    Auto,
    True,
    False,
}

#[derive(Subcommand)]
#[command(defer = true)]
enum Verb {
    /// Save a running container's processes with criu
    Checkpoint(Box<checkpoint::CheckpointArgs>),
    /// Create a container; its command waits for `start`
    Create(CreateArgs),
    /// Remove what there is of a container
    Delete {
        /// Also one that has not ended, and no failure if there is none
        #[arg(short, long)]
        force: bool,
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Run a further command in a container
    Exec(ExecArgs),
    /// Tell what a container uses, and when its memory is at its end, until it has ended
    Events {
        /// Time between two looks, like 5s or 1m30s
        #[arg(long, value_name = "TIME", default_value = "5s", value_parser = events::duration)]
        interval: std::time::Duration,
        /// One look, at once
        #[arg(long)]
        stats: bool,
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Send a signal to a container's first process
    Kill {
        /// To all of its processes
        #[arg(short, long)]
        all: bool,
        #[arg(value_name = "ID")]
        id: String,
        #[arg(default_value = "SIGTERM", value_name = "SIGNAL")]
        signal: String,
    },
    /// List containers
    List {
        /// Shape of the list
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        format: Shape,
        /// Only ids
        #[arg(short, long)]
        quiet: bool,
    },
    /// Stop all processes of a container where they are
    Pause {
        #[arg(value_name = "ID")]
        id: String,
    },
    /// List the processes of a container
    Ps {
        /// Shape of the list
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        format: Shape,
        #[arg(value_name = "ID")]
        id: String,
        /// Arguments for ps(1)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<String>,
    },
    /// Bring a container back from what `checkpoint` has saved
    Restore(Box<restore::RestoreArgs>),
    /// Let a paused container go on
    Resume {
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Create a container, start it and wait for its end
    Run {
        #[command(flatten)]
        create: CreateArgs,
        /// Do not wait
        #[arg(short, long)]
        detach: bool,
        /// Do not delete it in the end
        #[arg(long)]
        keep: bool,
        /// Leave orphans of a container without a PID namespace to somebody else
        #[arg(long)]
        no_subreaper: bool,
    },
    /// Let the command of a created container run
    Start {
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Tell what of the specification is performed
    Features,
    /// Write a config.json to begin with
    Spec(spec::SpecArgs),
    /// Tell a container's state
    State {
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Change the limits of a container
    Update(Box<update::UpdateArgs>),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    Table,
    Json,
}

// What create and run take.
#[derive(Args)]
struct CreateArgs {
    /// Folder with config.json; the current one if not given
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    #[command(flatten)]
    handover: Handover,
    /// Lay the root over the host's instead of pivot_root, for an initial ramfs
    #[arg(long)]
    no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    #[arg(value_name = "ID")]
    id: String,
}

// What every verb that makes a process takes.
#[derive(Args)]
struct Handover {
    /// Socket that gets the terminal's descriptor
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// Socket that gets the process's pidfd
    #[arg(long, value_name = "PATH")]
    pidfd_socket: Option<PathBuf>,
    /// File for the number of the process
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Pass on this many descriptors from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
}

#[derive(Args)]
struct ExecArgs {
    #[command(flatten)]
    handover: Handover,
    /// Working directory in the container
    #[arg(long, value_name = "PATH")]
    cwd: Option<PathBuf>,
    /// Add or replace a variable of the environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// With a terminal of the container's
    #[arg(short, long)]
    tty: bool,
    /// Who the command is
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Further groups
    #[arg(short = 'g', long, value_name = "GID", allow_negative_numbers = true)]
    additional_gids: Vec<i64>,
    /// File with the process as the specification describes it, instead of a command and flags
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Do not wait
    #[arg(short, long)]
    detach: bool,
    /// SELinux label of the command
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile of the command
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// No exec may gain privileges
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    no_new_privs: Option<bool>,
    /// Add a capability
    #[arg(short, long, value_name = "CAPABILITY")]
    cap: Vec<String>,
    /// Be in a group below the container's, of all hierarchies or of one
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    cgroup: Vec<String>,
    /// Also in a container that is paused
    #[arg(long)]
    ignore_paused: bool,
    /// The container, and the command with its arguments
    #[arg(trailing_var_arg = true, required = true, value_names = ["ID", "COMMAND"])]
    words: Vec<String>,
}

/// Does what `arguments` say, the program's name first. Gives the exit status; what there is to say has been said.
pub fn oci(arguments: Vec<OsString>) -> i32 {
    if matches!(arguments.get(1).and_then(|word| word.to_str()), Some("--version" | "-v")) {
        print!("{}", version());
        return 0;
    }
    let arguments = spelling::usual(arguments);
    let oci = match Oci::try_parse_from(&arguments) {
        Ok(oci) => oci,
        Err(error) if error.exit_code() == 0 => {
            // Nobody may be reading any more.
            let _ = error.print();
            return 0;
        }
        Err(error) => {
            let text = error.render().to_string();
            let said = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
            // Whoever calls with a log shows its users what is in there.
            return match given(&arguments, "--log") {
                Some(file) => log::Log::new(Some(file.into()), format(&arguments)).fatal(&Report::usage(said, None)),
                None => {
                    eprintln!("hull-oci: {said}");
                    1
                }
            };
        }
    };
    match started(oci) {
        Ok(status) => status,
        Err(report) => {
            eprintln!("hull-oci: {}", report.message());
            1
        }
    }
}

/// From here on failures are told in the log.
fn started(mut oci: Oci) -> Result<i32, Report> {
    // A bundle becomes the current folder, and nothing else is relative to it.
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).map_err(|error| Report::host(format!("use {}", path.display()), error))
    };
    oci.root = oci.root.map(absolute).transpose()?;
    oci.log = oci.log.map(absolute).transpose()?;
    if let Verb::Create(CreateArgs { handover, .. })
    | Verb::Run { create: CreateArgs { handover, .. }, .. }
    | Verb::Exec(ExecArgs { handover, .. }) = &mut oci.verb
    {
        handover.pid_file = handover.pid_file.take().map(absolute).transpose()?;
    }
    match &mut oci.verb {
        Verb::Checkpoint(args) => args.criu.absolute(absolute)?,
        Verb::Restore(args) => {
            args.criu.absolute(absolute)?;
            args.pid_file = args.pid_file.take().map(absolute).transpose()?;
        }
        _ => {}
    }
    let log = log::Log::new(oci.log.clone(), oci.log_format);
    let exec = matches!(oci.verb, Verb::Exec(_));
    let result = if oci.debug { log.explained(|| perform(oci, &log)) } else { perform(oci, &log) };
    Ok(result.unwrap_or_else(|report| {
        let status = log.fatal(&report);
        if exec { exec::FAILED } else { status }
    }))
}

/// In runc's shape, which Docker reads: a line with the word `version`, `commit:` and `spec:`.
fn version() -> String {
    // Said by `make build`; a build without git has none.
    let commit = option_env!("HULL_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.map(|commit| format!("commit: {commit}\n")).unwrap_or_default();
    format!("hull-oci version {}\n{commit}spec: {}\n", env!("CARGO_PKG_VERSION"), hull_runtime::spec::VERSION)
}

/// The value of a global option on a command line that is wrong elsewhere.
fn given(arguments: &[OsString], option: &str) -> Option<String> {
    let mut words = arguments.iter().map(|word| word.to_string_lossy());
    words
        .find_map(|word| match word.strip_prefix(option)? {
            "" => Some(None),
            rest => rest.strip_prefix('=').map(|value| Some(value.to_owned())),
        })?
        .or_else(|| words.next().map(|word| word.into_owned()))
}

fn format(arguments: &[OsString]) -> log::Format {
    let word = given(arguments, "--log-format");
    word.and_then(|word| log::Format::from_str(&word, true).ok()).unwrap_or(log::Format::Text)
}

/// What a verb that makes a process is told besides its own arguments.
struct Call<'a> {
    root: &'a Path,
    caller: Caller,
    /// Whether systemd makes the groups.
    systemd: bool,
    log: &'a log::Log,
}

fn perform(oci: Oci, log: &log::Log) -> Result<i32, Report> {
    let caller = Caller::look(oci.rootless)?;
    let root = oci.root.map_or_else(Caller::root, Ok)?;
    // A bundle's folder becomes the current one.
    let root =
        &std::path::absolute(&root).map_err(|error| Report::host(format!("find {}", root.display()), error))?;
    let call = Call { root, caller, systemd: oci.systemd_cgroup, log };
    match oci.verb {
        Verb::Checkpoint(args) => checkpoint::checkpoint(&call, &args),
        Verb::Restore(args) => restore::restore(&call, &args),
        Verb::Create(args) => create::create(&call, &args).map(|()| 0),
        Verb::Run { create, detach: true, .. } => create::run_detached(&call, &create),
        Verb::Run { create, keep, no_subreaper, .. } => create::run(&call, &create, keep, !no_subreaper),
        Verb::Exec(args) => exec::exec(&call, &args).map_err(|report| report.within("exec failed")),
        Verb::Start { id } => manage::start(root, &id, log),
        Verb::Features => features::features(),
        Verb::Spec(args) => spec::spec(&args),
        Verb::State { id } => manage::state(root, &id),
        Verb::Delete { force, id } => manage::delete(root, &id, force, log),
        Verb::Events { interval, stats, id } => events::events(root, &id, interval, stats),
        Verb::Kill { all, id, signal } => manage::kill(root, &id, &signal, all),
        Verb::List { format, quiet } => manage::list(root, format, quiet),
        Verb::Pause { id } => manage::pause(root, &id, true),
        Verb::Resume { id } => manage::pause(root, &id, false),
        Verb::Update(args) => update::update(root, &args),
        Verb::Ps { format, id, arguments } => manage::ps(root, &id, format, &arguments),
    }
}
