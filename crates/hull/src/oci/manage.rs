//! The verbs for a container that exists.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use hull_runtime::Class;
use hull_runtime::cgroup::{Cgroup, Host};
use hull_runtime::hooks;
use hull_runtime::passwd;
use hull_runtime::state::{self, Folder, State, Status};
use hull_sys::threads::side_by_side;
use hull_sys::{process, signal};
use serde::Serialize;

use super::Shape;
use super::log::Log;
use super::notify::Proxy;
use crate::report::Report;

const SIGKILL: i32 = 9;

pub(super) fn say(text: &str) -> Result<i32, Report> {
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

/// What the specification calls the state, with runc's additions, in runc's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'static str,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    annotations: &'a HashMap<String, String>,
    owner: &'a str,
}

fn told(state: &State, status: Status) -> Told<'_> {
    Told {
        oci_version: &state.oci_version,
        id: &state.id,
        pid: if status == Status::Stopped { 0 } else { state.process.pid },
        status: status.word(),
        bundle: &state.bundle,
        rootfs: &state.rootfs,
        created: &state.created,
        annotations: &state.annotations,
        owner: "",
    }
}

impl Told<'_> {
    fn into_json(self) -> Result<String, Report> {
        serde_json::to_string(&self).map_err(|error| Report::host("tell the state", error))
    }
}

/// A list as runc's language writes it: `null` for one without anything in it.
fn array(items: &[impl Display]) -> String {
    match items {
        [] => "null\n".to_owned(),
        items => format!("[{}]\n", items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
    }
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
            let notice = Proxy::open(folder.path())?.zip(state::init(&state)?);
            hull_runtime::start::start(folder.as_fd())?;
            if let Err(report) = poststart(&state, log) {
                // It is not to run without them (runtime-spec, runtime.md "Lifecycle"); it may have ended by itself.
                let _ = kill(root, id, "KILL", false);
                return Err(report);
            }
            if let Some((proxy, init)) = notice {
                proxy.until_ready(init.as_fd(), state.process.pid)?;
            }
        }
        Status::Stopped => return Err(Report::usage("cannot start a container that has stopped", None)),
        Status::Paused => return Err(Report::usage("cannot start a container in the paused state", None)),
        _ => return Err(Report::usage("cannot start an already running container", None)),
    }
    Ok(0)
}

/// What is to be run when the command runs.
pub fn poststart(state: &State, log: &Log) -> Result<(), Report> {
    let about = state.about();
    if hooks::poststart_decides(&state.oci_version) {
        return Ok(hooks::run(&state.poststart, &about, "running", state.process.pid)?);
    }
    log.warn(hooks::run_all(&state.poststart, &about, "running", state.process.pid));
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
            if number == SIGKILL && status == Status::Paused {
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
    // Of the host, and only for its names; who has none there is told by his number.
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = Folder::ids(root)?;
    let look = |id: &String| {
        find(root, id).and_then(|(folder, state, status)| Ok((state, status, name_of(folder.owner()?, &passwd))))
    };
    let mut all = Vec::new();
    for (id, found) in ids.iter().zip(side_by_side(&ids, WORTH, look)) {
        match found {
            Ok(one) => all.push(one),
            // Deleted meanwhile, or not to be read: the others are told all the same.
            Err(report) => eprintln!("hull-oci: {id}: {}", report.message()),
        }
    }
    if quiet {
        return say(&all.iter().map(|(state, ..)| format!("{}\n", state.id)).collect::<String>());
    }
    if format == Shape::Json {
        let one =
            |(state, status, owner): &(State, Status, String)| Told { owner, ..told(state, *status) }.into_json();
        return say(&array(&all.iter().map(one).collect::<Result<Vec<_>, _>>()?));
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(all.iter().map(|(state, status, owner)| {
        let pid = if *status == Status::Stopped { 0 } else { state.process.pid };
        let bundle = state.bundle.display().to_string();
        let (id, created) = (state.id.clone(), state.created.clone());
        [id, pid.to_string(), status.word().to_owned(), bundle, created, owner.clone()]
    }));
    say(&table(&rows))
}

/// A thread costs about as much as looking at two containers.
const WORTH: usize = 16;

/// The name of a user in the text of a passwd.
fn name_of(uid: u32, passwd: &str) -> String {
    let entry = passwd::entries(passwd).find(|fields| fields[2].parse() == Ok(uid));
    entry.map_or_else(|| format!("#{uid}"), |fields| fields[0].to_owned())
}

/// runc's table: a column is twelve characters wide, or three more than what is in it; the last one as it comes.
fn table(rows: &[[String; 6]]) -> String {
    let longest = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(|column| (longest(column) + 3).max(12)).collect();
    let padded = |row: &[String; 6]| -> String {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.chain([format!("{}\n", row[5])]).collect()
    };
    rows.iter().map(padded).collect()
}

/// `ps`: the lines of ps(1) that are about the container's processes.
pub fn ps(root: &Path, id: &str, format: Shape, arguments: &[String]) -> Result<i32, Report> {
    let (_, state, _) = find(root, id)?;
    let pids = groups(&state)?.processes()?;
    if format == Shape::Json {
        return say(&array(&pids));
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
