//! The container's groups on this host: made, joined, emptied, removed.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_sys::fs::{self, CWD};
use hull_sys::{Errno, bpf, process};
use rustix::fs::{FlockOperation, OFlags, flock};

use super::devices;
use super::host::{Hierarchy, Host, Version};
use super::limits::Write;
use super::place::Place;
use crate::error::{Doing, Error, Result};

/// How long processes that were killed may take to be gone before a group is reported as busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// One group in one hierarchy.
#[derive(Debug)]
struct Group {
    hierarchy: Hierarchy,
    path: PathBuf,
    folder: OwnedFd,
}

/// The groups of one container; they are removed when this is dropped.
#[derive(Debug)]
pub struct Cgroup {
    groups: Vec<Group>,
    removed: bool,
}

impl Cgroup {
    /// Makes the groups at `place` and sets the limits.
    ///
    /// # Errors
    /// The file that refused a value, with the value; a group at a given path that holds processes already.
    pub fn create(host: &Host, place: &Place, writes: &[Write]) -> Result<Self> {
        let mut cgroup = Self { groups: Vec::new(), removed: false };
        for hierarchy in place.hierarchies(host, writes) {
            cgroup.make(hierarchy, place)?;
        }
        // Device lines are many, and all go to the same two files.
        let mut open: Option<(&str, OwnedFd)> = None;
        for write in writes {
            let group = cgroup.group(host, write)?;
            let unified = group.hierarchy.version == Version::V2;
            if unified && write.controller == "devices" {
                continue;
            }
            if unified && !write.controller.is_empty() {
                group.enable(&write.controller)?;
            }
            let file = match open.take() {
                Some((name, file)) if name == write.file && write.controller == "devices" => file,
                _ => group.open(&write.file).map_err(|error| group.refused(&write.file, &write.value, error))?,
            };
            fs::write(file.as_fd(), write.value.as_bytes())
                .map_err(|error| group.refused(&write.file, &write.value, error))?;
            open = Some((&write.file, file));
        }
        drop(open);
        cgroup.guard_devices(writes)?;
        Ok(cgroup)
    }

    /// The groups of a container that was created before, as far as they are there. They stay when this is dropped.
    ///
    /// # Errors
    /// One cannot be opened.
    pub fn open(host: &Host, paths: &[PathBuf]) -> Result<Self> {
        let mut groups = Vec::new();
        for path in paths {
            let Some(hierarchy) = host.hierarchies.iter().find(|hierarchy| path.starts_with(&hierarchy.mount)) else {
                continue;
            };
            match fs::openat(CWD, &c_path(path), OFlags::RDONLY | OFlags::DIRECTORY, 0) {
                Err(error) if error.errno() == Errno::NOENT => {}
                other => {
                    let folder = other.doing(|| format!("open the control group {}", path.display()))?;
                    groups.push(Group { hierarchy: hierarchy.clone(), path: path.clone(), folder });
                }
            }
        }
        Ok(Self { groups, removed: true })
    }

    /// Leaves the groups to the container, which outlives this process.
    pub fn keep(mut self) {
        self.removed = true;
    }

    /// Whether the container's processes are stopped where they are.
    ///
    /// # Errors
    /// The group that says so cannot be read.
    pub fn is_frozen(&self) -> Result<bool> {
        for group in &self.groups {
            let v1 = group.hierarchy.controllers.iter().any(|name| name == "freezer");
            if v1 && group.hierarchy.version == Version::V1 {
                return Ok(group.get("freezer.state")?.trim() != "THAWED");
            }
        }
        let unified = self.groups.iter().find(|group| group.hierarchy.version == Version::V2);
        unified.map_or(Ok(false), |group| Ok(group.get("cgroup.events")?.lines().any(|line| line == "frozen 1")))
    }

    /// The group in which `write` is done.
    fn group(&self, host: &Host, write: &Write) -> Result<&Group> {
        let hierarchy = host.hierarchy(write);
        let found = self.groups.iter().find(|group| hierarchy.is_some_and(|own| own.mount == group.hierarchy.mount));
        found.ok_or_else(|| {
            Error::invalid(format!("set {}", write.file), format!("no {} controller", write.controller))
        })
    }

    fn make(&mut self, hierarchy: &Hierarchy, place: &Place) -> Result<()> {
        let path = place.folder(hierarchy);
        let doing = || format!("make the control group {}", path.display());
        let given = matches!(place, Place::Path(_));
        if given {
            make_parents(hierarchy, &path)?;
        }
        match fs::mkdirat(CWD, &c_path(&path), 0o755) {
            // Whoever gave the path may have made the group, too; then nobody else may be in it.
            Err(error) if given && error.errno() == Errno::EXIST => refuse_members(&path)?,
            other => other.doing(doing)?,
        }
        let folder = fs::openat(CWD, &c_path(&path), OFlags::RDONLY | OFlags::DIRECTORY, 0).doing(doing)?;
        // Whoever finds the group can tell by the lock that it is in use, without knowing whose it is.
        flock(&folder, FlockOperation::NonBlockingLockShared).map_err(|error| Error::setup(doing(), error))?;
        let group = Group { hierarchy: hierarchy.clone(), path, folder };
        if is_v1_cpuset(hierarchy) {
            inherit_cpuset(&group.path)?;
        }
        if given && hierarchy.version == Version::V2 {
            // For the sake of what is only counted. What is limited is enabled again, and then a failure is told.
            hierarchy.controllers.iter().for_each(|controller| drop(group.enable(controller)));
        }
        self.groups.push(group);
        Ok(())
    }

    /// On v2 the device lines are one program, which the kernel asks at each open and mknod.
    fn guard_devices(&self, writes: &[Write]) -> Result<()> {
        let lines = writes.iter().filter(|write| write.controller == "devices");
        let has_v1 = |group: &Group| group.hierarchy.controllers.iter().any(|name| name == "devices");
        if lines.clone().next().is_none() || self.groups.iter().any(has_v1) {
            return Ok(());
        }
        let Some(group) = self.groups.iter().find(|group| group.hierarchy.version == Version::V2) else {
            return Err(Error::setup("limit devices", "no group to attach the program to"));
        };
        let doing = || format!("limit devices in {}", group.path.display());
        let hint =
            "device rules of cgroup v2 are a BPF program, which takes CAP_SYS_ADMIN or CAP_BPF with CAP_NET_ADMIN";
        let advise = |error| Error::setup(doing(), error).hint(hint);
        let program = bpf::load_device_program(&devices::program(lines)).map_err(advise)?;
        bpf::attach_device_program(group.folder.as_fd(), program.as_fd()).map_err(advise)
    }

    /// The v2 group to be born in (`CLONE_INTO_CGROUP`).
    pub fn birth(&self) -> Option<BorrowedFd<'_>> {
        self.groups.iter().find(|group| group.hierarchy.version == Version::V2).map(|group| group.folder.as_fd())
    }

    /// Puts this process, which has one thread, into all groups; one that was born in the v2 group is there already.
    ///
    /// 0 is whoever writes it. A thread that moves itself alone takes no lock; every other write waits now and then for a
    /// grace period, 6 to 24 ms, because it stops all forks of the machine (`cgroup_procs_write_start` in the kernel's
    /// `cgroup.c`). v2 has no such way: there it is the clone that joins.
    pub fn join(&self, born_inside: bool) -> Result<()> {
        self.groups.iter().try_for_each(|group| match group.hierarchy.version {
            Version::V1 => group.set("tasks", "0"),
            Version::V2 if born_inside => Ok(()),
            Version::V2 => group.set("cgroup.procs", "0"),
        })
    }

    /// What a cgroup mount of the container shows. In a hybrid layout it is in both, and the controllers are on v1.
    pub fn view(&self) -> View {
        let v1 = self.groups.iter().filter(|group| group.hierarchy.version == Version::V1);
        let all: Vec<_> = v1.map(|group| (group.hierarchy.controllers.clone(), group.path.clone())).collect();
        let unified = self.groups.iter().find(|group| group.hierarchy.version == Version::V2);
        match unified {
            Some(group) if all.is_empty() => View::Unified(group.hierarchy.mount.clone()),
            _ => View::V1(all),
        }
    }

    /// Stops every process of the container where it is.
    ///
    /// # Errors
    /// There is no freezer here, or the processes do not stop within five seconds.
    pub fn freeze(&self) -> Result<()> {
        self.freezer(true)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// As [`Cgroup::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.freezer(false)
    }

    fn freezer(&self, stop: bool) -> Result<()> {
        let doing = if stop { "freeze the container" } else { "thaw the container" };
        let v1 = |group: &&Group| group.hierarchy.controllers.iter().any(|name| name == "freezer");
        let v2 = |group: &&Group| group.hierarchy.version == Version::V2;
        // Whichever group really holds the processes: in a hybrid layout that is v1's freezer.
        let (group, file, value, look, wanted) = match self.groups.iter().find(v1) {
            Some(group) if group.hierarchy.version == Version::V1 => {
                let state = if stop { "FROZEN" } else { "THAWED" };
                (group, "freezer.state", state, "freezer.state", state)
            }
            _ => {
                let group = self.groups.iter().find(v2).ok_or_else(|| {
                    Error::invalid(doing, "it is in no group with a freezer")
                        .hint("join v1's freezer hierarchy as well")
                })?;
                let wanted = if stop { "frozen 1" } else { "frozen 0" };
                (group, "cgroup.freeze", if stop { "1" } else { "0" }, "cgroup.events", wanted)
            }
        };
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(100);
        loop {
            // v1 may need to be told again while processes are being born.
            group.set(file, value)?;
            if group.get(look)?.lines().any(|line| line == wanted) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::setup(
                    doing,
                    format!("{} does not become {wanted:?}", group.path.join(look).display()),
                ));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Kills every process of the container, nested groups included.
    ///
    /// # Errors
    /// A group cannot be read, or a process not be killed.
    pub fn kill_all(&self) -> Result<()> {
        self.groups.iter().try_for_each(|group| kill_tree(&group.path))
    }

    /// The numbers of the processes in the container's groups, nested ones included, sorted.
    ///
    /// # Errors
    /// A group cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut all = Vec::new();
        for group in &self.groups {
            collect_members(&group.path, &mut all)?;
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// What the files of the groups show now: use and limits.
    ///
    /// # Errors
    /// A file that is there cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        let value = |names: [&str; 2]| -> Result<Option<u64>> {
            for (group, name) in self.groups.iter().flat_map(|group| names.map(|name| (group, name))) {
                match group.get(name) {
                    // `max` and v1's almost endless number both mean that there is no limit.
                    Ok(text) => return Ok(text.trim().parse().ok().filter(|value| *value < ENDLESS)),
                    Err(error) if error.cause.contains("ENOENT") => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(None)
        };
        Ok(Stats {
            memory: value(["memory.current", "memory.usage_in_bytes"])?,
            memory_limit: value(["memory.max", "memory.limit_in_bytes"])?,
            pids: value(["pids.current", "pids.current"])?,
            pids_limit: value(["pids.max", "pids.max"])?,
        })
    }

    /// The folders, for the record.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.groups.iter().map(|group| group.path.as_path())
    }

    /// Removes the groups. Processes that are still inside are killed first.
    ///
    /// # Errors
    /// A group that stays busy for five seconds.
    pub fn remove(mut self) -> Result<()> {
        self.removed = true;
        remove_all(self.groups.iter().map(|group| group.path.as_path()))
    }
}

/// The hierarchies that a container is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// The unified one, mounted on the host at this folder.
    Unified(PathBuf),
    /// Those of v1: the controllers of each, and the folder of the container's group on the host.
    V1(Vec<(Vec<String>, PathBuf)>),
}

/// What a container uses and may use; `None` where there is no such file, or no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of memory in use.
    pub memory: Option<u64>,
    /// Bytes of memory at most.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Processes and threads at most.
    pub pids_limit: Option<u64>,
}

/// v1 writes "no limit" as the largest multiple of a page below 2^63.
const ENDLESS: u64 = 0x7fff_ffff_ffff_0000;

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.removed {
            // Only reached when the creation failed, whose error is the one to tell; `system check` finds a remainder.
            let _ = remove_all(self.groups.iter().map(|group| group.path.as_path()));
        }
    }
}

impl Group {
    fn set(&self, file: &str, value: &str) -> Result<()> {
        let written = self.open(file).and_then(|open| fs::write(open.as_fd(), value.as_bytes()));
        written.map_err(|error| self.refused(file, value, error))
    }

    fn open(&self, file: &str) -> hull_sys::Result<OwnedFd> {
        let name = CString::new(file).unwrap_or_default();
        fs::openat(self.folder.as_fd(), &name, OFlags::WRONLY | OFlags::NOFOLLOW, 0)
    }

    fn refused(&self, file: &str, value: &str, error: hull_sys::Error) -> Error {
        let doing = format!("write {value:?} to {}", self.path.join(file).display());
        Error::setup(doing, error).hint(advice(file))
    }

    fn get(&self, file: &str) -> Result<String> {
        let name = CString::new(file).unwrap_or_default();
        let data = fs::read_file(self.folder.as_fd(), &name, 16 << 20)
            .doing(|| format!("read {}", self.path.join(file).display()))?;
        Ok(String::from_utf8_lossy(&data).into_owned())
    }

    /// Lets `controller` through to this group, from the root of the hierarchy down.
    fn enable(&self, controller: &str) -> Result<()> {
        let mut at = self.hierarchy.mount.clone();
        let below = self.path.strip_prefix(&self.hierarchy.mount).unwrap_or(Path::new("")).to_owned();
        for step in below.components() {
            let file = at.join("cgroup.subtree_control");
            let doing = || format!("enable the {controller} controller in {}", file.display());
            let on = fs::read_file(CWD, &c_path(&file), 4096).doing(doing)?;
            if !String::from_utf8_lossy(&on).split_whitespace().any(|name| name == controller) {
                let value = format!("+{controller}");
                fs::write_file(CWD, &c_path(&file), value.as_bytes()).map_err(|error| {
                    Error::setup(doing(), error).hint(
                        "a group that holds processes cannot pass controllers on; start hull in a leaf of its own, \
                         as `systemd-run --scope -p Delegate=yes` makes one",
                    )
                })?;
            }
            at.push(step);
        }
        Ok(())
    }
}

fn is_v1_cpuset(hierarchy: &Hierarchy) -> bool {
    hierarchy.version == Version::V1 && hierarchy.controllers.iter().any(|name| name == "cpuset")
}

/// v1 gives a new cpuset neither processors nor memory nodes, and then nothing can join it.
fn inherit_cpuset(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(file), path.join(file));
        let value = fs::read_file(CWD, &c_path(&from), 64 << 10).doing(|| format!("read {}", from.display()))?;
        fs::write_file(CWD, &c_path(&to), value.trim_ascii_end()).doing(|| format!("write {}", to.display()))?;
    }
    Ok(())
}

/// Makes the groups above `path` that are missing. They stay when the container's own is removed.
fn make_parents(hierarchy: &Hierarchy, path: &Path) -> Result<()> {
    let mut missing: Vec<&Path> =
        path.ancestors().skip(1).take_while(|above| above.starts_with(&hierarchy.mount) && !above.exists()).collect();
    missing.reverse();
    for above in missing {
        match fs::mkdirat(CWD, &c_path(above), 0o755) {
            // Somebody else was faster.
            Err(error) if error.errno() == Errno::EXIST => {}
            other => other.doing(|| format!("make the control group {}", above.display()))?,
        }
        if is_v1_cpuset(hierarchy) {
            inherit_cpuset(above)?;
        }
    }
    Ok(())
}

fn refuse_members(path: &Path) -> Result<()> {
    let mut members = Vec::new();
    collect_members(path, &mut members)?;
    match members.first() {
        None => Ok(()),
        Some(pid) => {
            let cause = format!("it holds processes already, such as {pid}");
            Err(Error::invalid(format!("use the control group {}", path.display()), cause))
        }
    }
}

fn advice(file: &str) -> String {
    match file {
        "memory.memsw.limit_in_bytes" => "this kernel may not account swap; leave --memory-swap out".to_owned(),
        _ => format!(
            "the kernel does not take this value for {file} here; a container without its limit is not started"
        ),
    }
}

fn c_path(path: &Path) -> CString {
    // The parts come from the mount table and from ids, none of which can hold a NUL.
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// Kills what is in the groups and removes them, deepest first.
fn remove_all<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<()> {
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
fn kill_tree(path: &Path) -> Result<()> {
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

fn collect_members(path: &Path, all: &mut Vec<i32>) -> Result<()> {
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

/// Where the groups at `place` will be, there or not.
pub fn folders(host: &Host, place: &Place, writes: &[Write]) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        place.hierarchies(host, writes).into_iter().map(|hierarchy| place.folder(hierarchy)).collect();
    all.sort();
    all
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

#[cfg(test)]
mod tests;
