//! What a container could leave on the host, found in the kernel's own files and never by asking hull.
//!
//! Everything is told apart by marks: the name of the test's folder, and the ids of the containers that were made in
//! it. A thing without one of them is somebody else's, so tests can look while others run beside them.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::{entries, groups};

/// How a test's own things are known.
#[derive(Clone, Debug)]
pub struct Marks {
    /// The test's folder. Its last component is in no other path.
    pub folder: PathBuf,
    /// Ids of containers.
    pub ids: BTreeSet<String>,
}

/// One thing that should not be there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// A mount on the host: its line in mountinfo(5).
    Mount(String),
    /// A namespace that a mount keeps: the same.
    Namespace(String),
    /// A mount in another mount namespace, and a process that is in it.
    Elsewhere(i32, String),
    /// A control group.
    Group(PathBuf),
    /// A process, and by what it is known.
    Process(i32, String),
    /// A file of hull's.
    State(PathBuf),
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Left::Mount(line) => write!(f, "mount: {line}"),
            Left::Namespace(line) => write!(f, "namespace: {line}"),
            Left::Elsewhere(pid, line) => write!(f, "mount in the namespace of process {pid}: {line}"),
            Left::Group(path) => write!(f, "control group: {}", path.display()),
            Left::Process(pid, why) => write!(f, "process {pid}: {why}"),
            Left::State(path) => write!(f, "state: {}", path.display()),
        }
    }
}

impl Marks {
    fn name(&self) -> &str {
        self.folder.file_name().and_then(|name| name.to_str()).expect("the folder has a name")
    }

    fn are_in(&self, text: &str) -> bool {
        text.contains(self.name()) || self.ids.iter().any(|id| text.contains(id))
    }

    /// Mounts, namespaces, control groups and processes.
    ///
    /// # Panics
    /// /proc/self/mountinfo cannot be read.
    pub fn on_the_host(&self) -> BTreeSet<Left> {
        let own = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let mut all: BTreeSet<Left> = own.lines().filter(|line| self.are_in(line)).map(mount).collect();
        all.extend(groups("").into_iter().filter(|path| self.are_in(&path.to_string_lossy())).map(Left::Group));
        let mut seen: BTreeSet<PathBuf> = mount_namespace("self").into_iter().collect();
        for pid in processes().filter(|pid| *pid != std::process::id() as i32) {
            all.extend(self.of_process(pid).map(|why| Left::Process(pid, why)));
            if mount_namespace(pid).is_some_and(|namespace| seen.insert(namespace)) {
                let elsewhere = |line: &&str| self.are_in(line) && !own.contains(*line);
                let told = |line: &str| Left::Elsewhere(pid, line.to_owned());
                all.extend(read(pid, "mountinfo").lines().filter(elsewhere).map(told));
            }
        }
        all
    }

    /// By what a process is known as one of this test's; none if it is not.
    fn of_process(&self, pid: i32) -> Option<String> {
        // One that has ended is its parent's to wait for, and a killed hull is no parent any more.
        if read(pid, "stat").rsplit(')').next()?.starts_with(" Z") {
            return None;
        }
        // A hull has the test's folder in its environment, and a container's process its id in its group.
        let known = ["cgroup", "environ"].into_iter().find(|file| self.are_in(&read(pid, file)))?;
        Some(format!("{}, by its {known}", read(pid, "cmdline").trim()))
    }
}

fn read(pid: i32, file: &str) -> String {
    // It may end at any moment, and then it is not there.
    let data = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&data).replace('\0', " ")
}

fn mount_namespace(pid: impl fmt::Display) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

fn mount(line: &str) -> Left {
    if line.contains(" - nsfs ") { Left::Namespace(line.to_owned()) } else { Left::Mount(line.to_owned()) }
}

/// The numbers of all processes.
pub fn processes() -> impl Iterator<Item = i32> {
    entries(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok())
}

/// What is in a folder of runtime state beyond empty folders and locks: nothing, when no container lives.
pub fn state(folder: &Path) -> BTreeSet<Left> {
    let mut found = BTreeSet::new();
    for name in entries(folder) {
        let path = folder.join(&name);
        if path.is_dir() && !path.is_symlink() {
            found.extend(state(&path));
        } else if !["lock", ".lock"].contains(&name.as_str()) {
            found.insert(Left::State(path));
        }
    }
    found
}

impl Left {
    /// Takes it away, so that a test that fails does not stay on the host.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear(&self) -> std::io::Result<()> {
        match self {
            Left::Mount(line) | Left::Namespace(line) => {
                let target = line.split(' ').nth(4).unwrap_or_default();
                Ok(unmount(target, UnmountFlags::DETACH)?)
            }
            Left::Group(path) => clear_group(path),
            Left::Process(pid, _) => {
                let pid = Pid::from_raw(*pid).ok_or(std::io::ErrorKind::InvalidInput)?;
                match kill_process(pid, Signal::KILL) {
                    Err(rustix::io::Errno::SRCH) => Ok(()),
                    result => Ok(result?),
                }
            }
            // The one ends with its last process, which is not told from somebody else's by a mount; the other is in
            // the test's folder, which goes as a whole.
            Left::Elsewhere(..) | Left::State(_) => Ok(()),
        }
    }
}

pub(crate) fn clear_group(path: &Path) -> std::io::Result<()> {
    for below in entries(path).iter().map(|name| path.join(name)).filter(|path| path.is_dir()) {
        clear_group(&below)?;
    }
    for _ in 0..100 {
        for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
            if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                // It may be gone already; the removal below tells whether all are.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        match fs::remove_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            result => return result,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::remove_dir(path)
}
