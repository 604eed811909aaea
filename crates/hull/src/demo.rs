//! `hull demo`: a host and a container side by side, each line checked.
//!
//! The container is made by `hull run` itself: this program executes itself with a command that anybody could type. In
//! the container it is `hull verify`, which tells what it sees and then stays until it was looked at from outside.
//! `table` holds what it told against what was asked for.

mod image;
mod table;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hull_engine::options::{self, Network, Tmpfs};
use hull_engine::{Engine, profile};

use crate::explain::Explain;
use crate::report::Report;
use crate::verify::{Expect, Facts, Most, SCHEMA, Told, namespace_inode};

// The flags of `hull demo`: what its container is asked to be.
#[derive(clap::Args)]
pub struct DemoArgs {
    /// Host name
    #[arg(long, value_name = "NAME", default_value = "container")]
    hostname: String,
    /// Scratch file system in memory
    #[arg(long, value_name = "TARGET[:OPTIONS]", default_value = "/mytemp")]
    tmpfs: String,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "N", default_value_t = 20, allow_negative_numbers = true)]
    pids_limit: i64,
    /// Most memory
    #[arg(short, long, value_name = "SIZE", default_value = "64m")]
    memory: String,
    /// none or host
    #[arg(long, alias = "net", value_name = "NETWORK", default_value = "none")]
    network: String,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Tell each stage and system call, as text, json or html, to standard error or a file
    #[arg(long, value_name = "FORMAT[:FILE]", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    explain: Option<Explain>,
}

/// A container's process: what it told, and what the host's /proc shows of the same process meanwhile.
struct Seen {
    inside: Facts,
    outside: table::Outside,
}

/// Exit status 0 if all that was asked of the container holds, 1 if not; the run's own if there was none.
///
/// # Errors
/// A flag that means nothing; the store, the container or /proc failed.
pub fn demo(engine: &Engine, store: &hull_image::Store, args: &DemoArgs) -> Result<i32, Report> {
    let host = Facts::read(&[])?;
    let asked = args.asked(&host)?;
    let name = image::ready(engine, store)?;
    let seen = match contain(engine, args, &asked, &name)? {
        Ok(seen) => seen,
        // What went wrong was told already.
        Err(status) => return Ok(status),
    };
    let lines = table::compare(&host, &seen.inside, &seen.outside, &asked);
    let told = table::render(&lines, &by_hand(engine, args, &name));
    std::io::stdout().write_all(told.as_bytes()).map_err(|error| Report::host("write to standard output", error))?;
    Ok(i32::from(!lines.iter().all(table::Line::holds)))
}

impl DemoArgs {
    /// The flags of `hull run`.
    fn flags(&self) -> Vec<String> {
        let mut all = vec!["--hostname".to_owned(), self.hostname.clone()];
        all.extend(["--tmpfs".to_owned(), self.tmpfs.clone()]);
        all.extend(["--pids-limit".to_owned(), self.pids_limit.to_string()]);
        all.extend(["--memory".to_owned(), self.memory.clone()]);
        all.extend(["--security-opt".to_owned(), "no-new-privileges".to_owned()]);
        if self.network != "none" {
            all.extend(["--network".to_owned(), self.network.clone()]);
        }
        all.extend(self.read_only.then(|| "--read-only".to_owned()));
        all
    }

    /// What must hold then. Where nothing of its own was asked for, the host's is what it must have.
    fn asked(&self, host: &Facts) -> Result<Expect, Report> {
        let own_network = Network::parse(&self.network)? == Network::None;
        let (own_ns, shared_ns) = host.namespaces.iter().map(|(kind, inode)| (kind.clone(), *inode)).partition(
            |(kind, _): &(String, u64)| match kind.as_str() {
                "net" => own_network,
                kind => ["mnt", "pid", "uts", "ipc", "cgroup"].contains(&kind),
            },
        );
        let available = hull_runtime::caps::available().map_err(hull_engine::Error::from)?;
        let capabilities = options::capabilities(&[], &[], false, available)?;
        Ok(Expect {
            hostname: Some(self.hostname.clone()),
            pid: Some(1),
            own_proc: true,
            own_ns,
            shared_ns,
            user: Some((0, 0)),
            uid_map: host.uid_map.clone(),
            gid_map: host.gid_map.clone(),
            read_only: self.read_only,
            tmpfs: vec![Tmpfs::parse(&self.tmpfs)?.target],
            masked: profile::masked().into_iter().map(PathBuf::from).collect(),
            read_only_path: profile::READ_ONLY.map(PathBuf::from).to_vec(),
            interface: if own_network { vec!["lo".to_owned()] } else { host.interfaces.clone() },
            capabilities: Some(capabilities),
            bounding: Some(capabilities),
            seccomp: Some(2),
            no_new_privs: true,
            pids_limit: Some(Most(u64::try_from(self.pids_limit).ok())),
            memory: Some(Most(u64::try_from(options::memory(&self.memory)?).ok())),
        })
    }
}

/// The command line that does the same, for a reader to type.
fn by_hand(engine: &Engine, args: &DemoArgs, image: &str) -> Vec<String> {
    let program = std::env::args().next().unwrap_or_else(|| "hull".to_owned());
    let mut all = vec![program];
    for (flag, variable, value, usual) in [
        ("--root", "HULL_ROOT", &engine.root, "/var/lib/hull"),
        ("--runroot", "HULL_RUNROOT", &engine.runroot, "/run/hull"),
    ] {
        if value != Path::new(usual) && std::env::var_os(variable).is_none() {
            all.extend([flag.to_owned(), value.display().to_string()]);
        }
    }
    all.extend(["run".to_owned(), "--rm".to_owned()]);
    all.extend(args.flags());
    all.extend([image, image::PROGRAM, "verify"].map(str::to_owned));
    all
}

/// Runs the container. If it was never there, the exit status of the run, which has told why.
fn contain(engine: &Engine, args: &DemoArgs, asked: &Expect, image: &str) -> Result<Result<Seen, i32>, Report> {
    let mut run = Command::new("/proc/self/exe");
    run.arg0("hull").arg("--root").arg(&engine.root).arg("--runroot").arg(&engine.runroot);
    run.args(["run", "--rm", "-i"]).args(args.flags());
    run.args(args.explain.as_ref().map(|explain| format!("--explain={explain}")));
    run.args([image, image::PROGRAM, "verify", "--format", "json", "--wait"]);
    // What it does not look at it cannot tell of.
    asked.tmpfs.iter().for_each(|path| _ = run.arg("--tmpfs").arg(path));
    let failed = |error| Report::host("run the demo's container", error);
    let mut child = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let seen = listen(&mut child);
    // The container's program waits for this.
    drop(child.stdin.take());
    let status = child.wait().map_err(failed)?;
    match (seen?, status.code()) {
        (Some(seen), _) => Ok(Ok(seen)),
        (None, Some(code @ 1..)) => Ok(Err(code)),
        (None, _) => Err(Report::host("run the demo's container", format!("it told nothing: {status}"))),
    }
}

/// Hears what the container's program tells, and looks at the program while it waits. None if it told nothing.
fn listen(child: &mut Child) -> Result<Option<Seen>, Report> {
    const LONGEST: u64 = 16 << 20;
    let failed = |error| Report::host("hear from the demo's container", error);
    let mut json = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).take(LONGEST).read_line(&mut json).map_err(failed)?;
    }
    if json.is_empty() {
        return Ok(None);
    }
    let told: Told = serde_json::from_str(&json)
        .map_err(|error| Report::host("understand what the demo's container tells", error))?;
    if told.v != SCHEMA {
        let cause = format!("it is of version {}, not {SCHEMA}", told.v);
        return Err(Report::host("understand what the demo's container tells", cause));
    }
    let outside = look(&told.facts)?;
    Ok(Some(Seen { inside: told.facts, outside }))
}

/// The container's first process in the host's /proc, found by its PID namespace.
fn look(inside: &Facts) -> Result<table::Outside, Report> {
    let cannot = |cause: &dyn std::fmt::Display| Report::host("find the container's process in /proc", cause);
    let wanted = inside.namespaces.get("pid").copied();
    for entry in std::fs::read_dir("/proc").map_err(|error| cannot(&error))?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        // Others come and go while this goes through the list.
        let namespace = |kind: &str| namespace_inode(&entry.path().join("ns").join(kind)).ok();
        if wanted.is_none() || namespace("pid") != wanted {
            continue;
        }
        let namespaces = inside.namespaces.keys().filter_map(|kind| Some((kind.clone(), namespace(kind)?)));
        return Ok(table::Outside { pid, namespaces: namespaces.collect() });
    }
    Err(cannot(&"no process is in its PID namespace"))
}
