//! What can be written on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use hull_engine::RunOptions;
use hull_engine::options::{self, Bind, Network, Seccomp, Tmpfs, Ulimit};

use crate::explain::Explain;
use crate::report::Report;

/// Runs and explains Linux containers: processes with a restricted view, another root and limits.
#[derive(Parser)]
#[command(name = "hull", disable_help_subcommand = true, disable_version_flag = true)]
pub struct Cli {
    /// Folder of what a reboot ends.
    #[arg(long, global = true, value_name = "DIR", env = "HULL_RUNROOT", default_value = "/run/hull")]
    pub runroot: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run a command in a new container
    #[command(alias = "run-rootfs", disable_help_flag = true)]
    Run(Box<RunArgs>),
    /// Look after this machine
    System {
        #[command(subcommand)]
        command: SystemCommand,
    },
    /// Print the version
    Version,
}

#[derive(Subcommand)]
pub enum SystemCommand {
    /// Report what a killed hull has left; exit status 1 if there is something
    Check {
        /// Remove it
        #[arg(long)]
        repair: bool,
    },
}

/// The flags of `hull run`; the meaning of their values is in `hull_engine::options`.
#[derive(Args)]
pub struct RunArgs {
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
    /// Folder that is the root file system
    #[arg(long, value_name = "DIR")]
    rootfs: PathBuf,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Remove the container when it has ended; without it hull would keep a record, which is not supported yet
    #[arg(long)]
    rm: bool,
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
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Most memory and swap together; -1 for no limit
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    memory_swap: Option<String>,
    /// Processors' time
    #[arg(long, value_name = "NUMBER")]
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
    /// seccomp=unconfined, no-new-privileges
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// none (the default) or host
    #[arg(long, alias = "net", value_name = "NETWORK")]
    network: Option<String>,
    /// Tell each stage and system call, as text or json, to standard error or a file
    #[arg(long, value_name = "FORMAT[:FILE]", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub explain: Option<Explain>,
    /// Print the plan and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl RunArgs {
    /// The options that the engine takes.
    ///
    /// # Errors
    /// A value that means nothing or is not supported yet.
    pub fn options(self) -> Result<RunOptions, Report> {
        let capabilities = options::capabilities(&self.cap_add, &self.cap_drop)?;
        let mut all = RunOptions {
            env: environment(&self.env, &self.env_file)?,
            rootfs: self.rootfs,
            command: self.command,
            interactive: self.interactive,
            tty: self.tty,
            hostname: self.hostname,
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
            capabilities: Some(capabilities),
            seccomp: Seccomp::Default,
            no_new_privileges: false,
            network: self.network.as_deref().map(Network::parse).transpose()?.unwrap_or_default(),
        };
        all.memory_swap = self.memory_swap.as_deref().map(|text| swap(text, all.memory)).transpose()?;
        for option in &self.security_opt {
            security(&mut all, option)?;
        }
        if all.command.is_empty() {
            return Err(Report::usage("no command was given", Some("hull run --rootfs DIR -- COMMAND")));
        }
        if all.workdir.as_ref().is_some_and(|folder| !folder.is_absolute()) {
            return Err(Report::usage("--workdir: the folder is absolute", None));
        }
        Ok(all)
    }
}

fn pids(limit: i64) -> Result<i64, Report> {
    if limit < -1 {
        return Err(Report::usage(format!("--pids-limit {limit}: a limit is positive, or -1 for none"), None));
    }
    Ok(limit)
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
        ("no-new-privileges", "" | "true") => options.no_new_privileges = true,
        ("no-new-privileges", "false") => options.no_new_privileges = false,
        _ => return Err(Report::usage(format!("--security-opt {option:?} is not supported yet"), None)),
    }
    Ok(())
}

/// `--env-file` first, then `--env`, so that the nearer word wins. A bare name takes the caller's value, if any.
fn environment(entries: &[String], files: &[PathBuf]) -> Result<Vec<String>, Report> {
    let mut all = Vec::new();
    let mut add = |entry: &str| -> Result<(), Report> {
        if entry.starts_with('=') || entry.is_empty() {
            return Err(Report::usage(format!("--env {entry:?}: it has no name"), None));
        }
        match (entry.contains('='), std::env::var(entry)) {
            (true, _) => all.push(entry.to_owned()),
            (false, Ok(value)) => all.push(format!("{entry}={value}")),
            (false, Err(_)) => {}
        }
        Ok(())
    };
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Report::usage(format!("cannot read {}: {error}", file.display()), None))?;
        for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            add(line)?;
        }
    }
    entries.iter().try_for_each(|entry| add(entry))?;
    Ok(all)
}
