//! The verbs for a container that exists.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use hull_runtime::Class;
use hull_runtime::cgroup::{Cgroup, Host};
use hull_runtime::hooks;
use hull_runtime::state::{self, Folder, State, Status};
use hull_sys::{process, signal};
use serde_json::{Value, json};

use super::Shape;
use super::log::Log;
use crate::report::Report;

const SIGKILL: i32 = 9;

fn say(text: &str) -> Result<i32, Report> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map(|()| 0).map_err(|error| Report::host("write to standard output", error))
}

/// The container, its record and what it does now.
pub fn find(root: &Path, id: &str) -> Result<(Folder, State, Status), Report> {
    let folder = Folder::open(root, id)?;
    let state = folder.state()?;
    let status = folder.status(&state)?;
    Ok((folder, state, status))
}

/// What the specification calls the state, with runc's additions.
fn told(state: &State, status: Status) -> Value {
    json!({
        "ociVersion": state.oci_version, "id": state.id, "status": status.word(), "bundle": state.bundle,
        "pid": if status == Status::Stopped { 0 } else { state.pid }, "rootfs": state.rootfs,
        "created": state.created, "annotations": state.annotations, "owner": "",
    })
}

/// `state`.
pub fn state(root: &Path, id: &str) -> Result<i32, Report> {
    let (_, state, status) = find(root, id)?;
    let text = serde_json::to_string_pretty(&told(&state, status));
    say(&format!("{}\n", text.map_err(|error| Report::host("tell the state", error))?))
}

/// `start`.
pub fn start(root: &Path, id: &str, log: &Log) -> Result<i32, Report> {
    let (folder, state, status) = find(root, id)?;
    match status {
        Status::Created => {
            hull_runtime::start::start(folder.as_fd())?;
            if let Err(report) = poststart(&state, log) {
                // It is not to run without them (runtime-spec, runtime.md "Lifecycle"); it may have ended by itself.
                let _ = kill(root, id, "KILL", false);
                return Err(report);
            }
        }
        Status::Stopped => return Err(Report::usage("cannot start a container that has stopped", None)),
        _ => return Err(Report::usage("cannot start an already running container", None)),
    }
    Ok(0)
}

/// What is to be run when the command runs.
pub fn poststart(state: &State, log: &Log) -> Result<(), Report> {
    let about = state.about();
    if hooks::poststart_decides(&state.oci_version) {
        return Ok(hooks::run(&state.poststart, &about, "running", state.pid)?);
    }
    log.warn(hooks::run_all(&state.poststart, &about, "running", state.pid));
    Ok(())
}

/// `kill`.
pub fn kill(root: &Path, id: &str, signal: &str, all: bool) -> Result<i32, Report> {
    let (_, state, status) = find(root, id)?;
    let number = signal::parse(signal).map_err(|_| Report::usage(format!("unknown signal {signal:?}"), None))?;
    let doing = || format!("send signal {number} to container {id}");
    if all && number == SIGKILL {
        return Ok(groups(&state)?.kill_all().map(|()| 0)?);
    }
    if all {
        for pid in groups(&state)?.processes()? {
            let sent = process::pidfd_open(pid).and_then(|pidfd| process::pidfd_send_signal(pidfd.as_fd(), number));
            match sent {
                Err(error) if error.errno() == hull_sys::Errno::SRCH => {}
                other => other.map_err(|error| Report::host(doing(), error))?,
            }
        }
        return Ok(0);
    }
    match state::init(&state)? {
        Some(init) if status != Status::Stopped => {
            process::pidfd_send_signal(init.as_fd(), number).map_err(|error| Report::host(doing(), error))?;
            if number == SIGKILL && matches!(status, Status::Paused | Status::Created) {
                // v1 lets a frozen process die only when it thaws.
                groups(&state)?.thaw()?;
            }
            Ok(0)
        }
        _ => Err(Report::usage("container not running", None)),
    }
}

/// `delete`.
pub fn delete(root: &Path, id: &str, force: bool, log: &Log) -> Result<i32, Report> {
    match Folder::open(root, id) {
        Err(error) if force && error.class == Class::NotFound => Ok(0),
        folder => {
            log.warn(folder?.delete(force)?);
            Ok(0)
        }
    }
}

/// `pause` and `resume`.
pub fn pause(root: &Path, id: &str, stop: bool) -> Result<i32, Report> {
    let (_, state, status) = find(root, id)?;
    let groups = groups(&state)?;
    match (stop, status) {
        (true, Status::Running | Status::Created) => groups.freeze()?,
        (false, Status::Paused) => groups.thaw()?,
        (true, _) => return Err(Report::usage(format!("container not running: {}", status.word()), None)),
        (false, _) => return Err(Report::usage("container not paused", None)),
    }
    Ok(0)
}

/// The control groups of a container.
pub fn groups(state: &State) -> Result<Cgroup, Report> {
    Ok(Cgroup::open(&Host::detect()?, &state.groups)?)
}

/// `list`.
pub fn list(root: &Path, format: Shape, quiet: bool) -> Result<i32, Report> {
    let mut all = Vec::new();
    for id in Folder::ids(root)? {
        match find(root, &id) {
            Ok((_, state, status)) => all.push((state, status)),
            // Deleted meanwhile, or not to be read: the others are told all the same.
            Err(report) => eprintln!("hull-oci: {id}: {}", report.message()),
        }
    }
    if quiet {
        return say(&all.iter().map(|(state, _)| format!("{}\n", state.id)).collect::<String>());
    }
    if format == Shape::Json {
        let list: Vec<Value> = all.iter().map(|(state, status)| told(state, *status)).collect();
        return say(&format!("{}\n", Value::from(list)));
    }
    let row = |cells: [&str; 6]| {
        let padded: Vec<String> = cells.iter().map(|cell| format!("{cell:<11} ")).collect();
        format!("{}\n", padded.concat().trim_end())
    };
    let mut text = row(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    for (state, status) in &all {
        let pid = if *status == Status::Stopped { 0 } else { state.pid };
        let bundle = state.bundle.display().to_string();
        text += &row([&state.id, &pid.to_string(), status.word(), &bundle, &state.created, "root"]);
    }
    say(&text)
}

/// `ps`: the lines of ps(1) that are about the container's processes.
pub fn ps(root: &Path, id: &str, format: Shape, arguments: &[String]) -> Result<i32, Report> {
    let (_, state, _) = find(root, id)?;
    let pids = groups(&state)?.processes()?;
    if format == Shape::Json {
        return say(&format!("{}\n", Value::from(pids)));
    }
    let all = ["-ef".to_owned()];
    let arguments = if arguments.is_empty() { &all[..] } else { arguments };
    let output = Command::new("ps").args(arguments).output().map_err(|error| Report::host("run ps", error))?;
    if !output.status.success() {
        return Err(Report::host("run ps", String::from_utf8_lossy(&output.stderr).trim_end()));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| Report::host("run ps", "its output has no column PID"))?;
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse::<i32>().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    let rows: String = lines.filter(ours).map(|line| format!("{line}\n")).collect();
    say(&format!("{head}\n{rows}"))
}
