//! Ending what is in a group, and the group with it.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_sys::fs::{self, CWD};
use hull_sys::{Errno, process};
use rustix::fs::{FlockOperation, flock};

use super::group::c_path;
use super::host::Host;
use crate::error::{Doing, Error, Result};

/// How long processes that were killed may take to be gone before a group is reported as busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Kills what is in the groups and removes them, deepest first.
pub(super) fn remove_all<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<()> {
    let mut first = Ok(());
    for path in paths {
        let result = remove_tree(path);
        if first.is_ok() {
            first = result;
        }
    }
    first
}

/// Removes one group with all groups below it.
fn remove_tree(path: &Path) -> Result<()> {
    let doing = || format!("remove the control group {}", path.display());
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(200);
    loop {
        match fs::unlinkat(CWD, &c_path(path), true) {
            Ok(()) => return Ok(()),
            Err(error) if error.errno() == Errno::NOENT => return Ok(()),
            Err(error) if error.errno() != Errno::BUSY || Instant::now() > deadline => {
                return Err(Error::setup(doing(), error));
            }
            Err(_) => {}
        }
        kill_tree(path)?;
        for below in subgroups(path) {
            remove_tree(&below)?;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn subgroups(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let folder = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.flatten().filter(folder).map(|entry| entry.path()).collect()
}

/// Kills what is in a group and below it: at once where the kernel can (v2, 5.14), else one by one, frozen so that
/// none can fork meanwhile where there is a freezer.
pub(super) fn kill_tree(path: &Path) -> Result<()> {
    let file = path.join("cgroup.kill");
    match fs::write_file(CWD, &c_path(&file), b"1") {
        Ok(()) => return Ok(()),
        Err(error) if error.errno() == Errno::NOENT => {}
        Err(error) => return Err(Error::setup(format!("write \"1\" to {}", file.display()), error)),
    }
    let freezer = path.join("freezer.state");
    let frozen = freezer.exists() && fs::write_file(CWD, &c_path(&freezer), b"FROZEN").is_ok();
    let result = kill_each(path);
    if frozen {
        // A frozen process dies when it thaws.
        fs::write_file(CWD, &c_path(&freezer), b"THAWED").doing(|| format!("thaw {}", path.display()))?;
    }
    result
}

fn kill_each(path: &Path) -> Result<()> {
    subgroups(path).iter().try_for_each(|below| kill_each(below))?;
    kill_members(path)
}

pub(super) fn collect_members(path: &Path, all: &mut Vec<i32>) -> Result<()> {
    let procs = path.join("cgroup.procs");
    match fs::read_file(CWD, &c_path(&procs), 16 << 20) {
        Ok(list) => all.extend(String::from_utf8_lossy(&list).lines().filter_map(|line| line.parse::<i32>().ok())),
        Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NODEV) => return Ok(()),
        Err(error) => return Err(Error::setup(format!("read {}", procs.display()), error)),
    }
    subgroups(path).iter().try_for_each(|below| collect_members(below, all))
}

fn kill_members(path: &Path) -> Result<()> {
    let procs = path.join("cgroup.procs");
    let list = match fs::read_file(CWD, &c_path(&procs), 16 << 20) {
        Ok(list) => list,
        Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NODEV) => return Ok(()),
        Err(error) => return Err(Error::setup(format!("read {}", procs.display()), error)),
    };
    for pid in String::from_utf8_lossy(&list).lines().filter_map(|line| line.parse::<i32>().ok()) {
        // Between the look and the kill the number may have ended and be somebody else's: a descriptor first, then
        // a second look whether that process is in the group.
        let Ok(pidfd) = process::pidfd_open(pid) else { continue };
        let again = std::fs::read_to_string(&procs).unwrap_or_default();
        if again.lines().any(|line| line.parse() == Ok(pid)) {
            match process::pidfd_send_signal(pidfd.as_fd(), 9) {
                Err(error) if error.errno() != Errno::SRCH => {
                    return Err(Error::setup(format!("kill process {pid} in {}", path.display()), error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// All groups of containers (`hull-…`) below the parents in which hull makes them.
pub fn leftovers(host: &Host) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = host
        .hierarchies
        .iter()
        .flat_map(|hierarchy| subgroups(&hierarchy.mount.join(&hierarchy.parent)))
        .filter(|path| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"hull-")))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Kills what is in a group, nested ones included; one that is not there has nothing in it.
///
/// # Errors
/// A process cannot be killed.
pub fn kill_leftover(path: &Path) -> Result<()> {
    if path.exists() { kill_tree(path) } else { Ok(()) }
}

/// Whether nobody holds the group any more: its maker locks it for as long as it lives.
pub fn is_abandoned(path: &Path) -> bool {
    let folder = std::fs::File::open(path);
    folder.is_ok_and(|folder| flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// Removes a group that [`leftovers`] found, killing what is still in it.
///
/// # Errors
/// It stays busy for five seconds.
pub fn remove_leftover(path: &Path) -> Result<()> {
    remove_tree(path)
}
