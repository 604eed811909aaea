//! The container's groups on this host: made, joined, asked, removed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_sys::fs::{self, CWD};
use hull_sys::{Errno, bpf};
use rustix::fs::{FlockOperation, flock};

use super::clear::{collect_members, kill_tree, remove_all};
use super::devices;
use super::group::{Group, c_path, inherit_cpuset, is_v1_cpuset, make_parents, refuse_members, refused};
use super::host::{Hierarchy, Host, Version};
use super::limits::Write;
use super::pending::{Pending, Rest, Unmade};
use super::place::Place;
use crate::error::{Doing, Error, Result};

/// v1's file of the threads in a group.
const TASKS: &str = "tasks";

/// The groups of one container; they are removed when this is dropped.
#[derive(Debug)]
pub struct Cgroup {
    pub(super) groups: Vec<Group>,
    removed: bool,
    /// Where the unified hierarchy is mounted, for a container that is in no group of its own.
    unified: Option<PathBuf>,
    /// Those that are not there yet.
    pub(super) pending: Option<Pending>,
}

impl Cgroup {
    /// Makes the groups at `place` and sets the limits; those of a unit are systemd's to make, once the process is there.
    ///
    /// # Errors
    /// The file that refused a value, with the value; a group at a given path that holds processes already.
    pub fn create(host: &Host, place: &Place, writes: &[Write]) -> Result<Self> {
        let mut cgroup = Self::begin(host, place, writes)?;
        if !cgroup.wants_process() {
            cgroup.complete()?;
        }
        Ok(cgroup)
    }

    /// The same, without v1's groups, which [`Cgroup::complete`] makes: a process is not born in them, so there may be one
    /// that has something else to do meanwhile.
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    pub fn begin(host: &Host, place: &Place, writes: &[Write]) -> Result<Self> {
        let mut cgroup = Self { groups: Vec::new(), removed: false, unified: None, pending: None };
        if let Place::Unit(unit, more) = place {
            let (host, unit) = (host.clone(), unit.clone());
            let unmade = Unmade { host, unit, more: more.clone(), writes: writes.to_vec(), owner: None };
            (cgroup.removed, cgroup.pending) = (true, Some(Pending::Unit(unmade)));
            return Ok(cgroup);
        }
        let (v2, v1): (Vec<_>, Vec<_>) =
            place.hierarchies(host, writes).into_iter().partition(|hierarchy| hierarchy.version == Version::V2);
        for hierarchy in v2 {
            cgroup.make(hierarchy, place)?;
        }
        let is_v1 = |write: &Write| host.hierarchy(write).is_some_and(|found| found.version == Version::V1);
        let (later, now): (Vec<Write>, Vec<Write>) = writes.iter().cloned().partition(is_v1);
        cgroup.set_all(host, &now)?;
        cgroup.guard_devices(&now)?;
        if !v1.is_empty() {
            let hierarchies = v1.into_iter().cloned().collect();
            cgroup.pending =
                Some(Pending::V1(Rest { host: host.clone(), place: place.clone(), writes: later, hierarchies }));
        }
        Ok(cgroup)
    }

    /// Makes what [`Cgroup::begin`] has left. If that fails it is still left, but for what was made.
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    pub fn complete(&mut self) -> Result<()> {
        let rest = match self.pending.take() {
            Some(Pending::V1(rest)) => rest,
            other => {
                self.pending = other;
                return Ok(());
            }
        };
        let made = rest.hierarchies.iter().try_for_each(|hierarchy| self.make(hierarchy, &rest.place));
        let made = made.and_then(|()| self.set_all(&rest.host, &rest.writes));
        if made.is_err() {
            self.pending = Some(Pending::V1(rest));
        }
        made
    }

    /// Whether all groups are there.
    pub fn is_whole(&self) -> bool {
        self.pending.is_none()
    }

    /// Whether v1's are made while the process does something else.
    pub(crate) fn is_being_made(&self) -> bool {
        matches!(self.pending, Some(Pending::V1(_)))
    }

    /// The groups of a container that was created before, as far as they are there. They stay when this is dropped.
    ///
    /// # Errors
    /// One cannot be opened.
    pub fn open(host: &Host, paths: &[PathBuf]) -> Result<Self> {
        let mut groups = Vec::new();
        for path in paths {
            match Group::open_at(host, path) {
                Some(Err(error)) if error.errno() == Errno::NOENT => {}
                Some(group) => groups.push(group.doing(|| format!("open the control group {}", path.display()))?),
                None => {}
            }
        }
        Ok(Self { groups, removed: true, unified: None, pending: None })
    }

    /// The groups at `paths`, for a further process. They stay when this is dropped.
    ///
    /// # Errors
    /// One is not there, or cannot be opened.
    pub fn enter(host: &Host, paths: &[PathBuf]) -> Result<Self> {
        let open = |path: &PathBuf| {
            Group::open_at(host, path)
                .map(|group| group.doing(|| format!("enter the control group {}", path.display())))
        };
        let groups = paths.iter().filter_map(open).collect::<Result<_>>()?;
        Ok(Self { groups, removed: true, unified: None, pending: None })
    }

    /// No groups: the container stays in those of its starter.
    pub fn none(host: &Host) -> Self {
        let unified = host.hierarchies.iter().find(|hierarchy| hierarchy.version == Version::V2 && host.unified());
        let unified = unified.map(|hierarchy| hierarchy.mount.clone());
        Self { groups: Vec::new(), removed: true, unified, pending: None }
    }

    /// Gives the container's group to `owner`, who may then make groups below it. v1's groups are nobody's to give: their
    /// controllers do not hold what is below to the limits above.
    pub(crate) fn give_to(&mut self, owner: u32) -> Result<()> {
        match &mut self.pending {
            Some(Pending::Unit(unit)) => unit.owner = Some(owner),
            Some(Pending::V1(_)) => {}
            None if self.groups.iter().any(|group| group.hierarchy.version == Version::V1) => {}
            None => self.groups.iter().try_for_each(|group| group.give_to(owner))?,
        }
        Ok(())
    }

    /// Leaves the groups to the container, which outlives this process.
    pub fn keep(mut self) {
        self.removed = true;
    }

    /// The group in which `write` is done.
    pub(super) fn group(&self, host: &Host, write: &Write) -> Result<&Group> {
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
        let name = c_path(&path);
        let made = match fs::mkdirat(CWD, &name, 0o755) {
            Err(error) if given && error.errno() == Errno::NOENT => {
                make_parents(hierarchy, &path)?;
                fs::mkdirat(CWD, &name, 0o755)
            }
            other => other,
        };
        let own = match made {
            // Whoever gave the path may have made the group, too; then nobody else may be in it.
            Err(error) if given && error.errno() == Errno::EXIST => {
                refuse_members(&path)?;
                false
            }
            other => other.map(|()| true).doing(doing)?,
        };
        self.groups.push(Group::at(hierarchy, path.clone(), own));
        let Some(group) = self.groups.last() else { return Ok(()) };
        if !given {
            // Whoever finds the group can tell by the lock that it is in use, without knowing whose it is. One at a given path
            // is in a record.
            let folder = group.folder().doing(doing)?;
            flock(folder, FlockOperation::NonBlockingLockShared).map_err(|error| Error::setup(doing(), error))?;
        }
        if is_v1_cpuset(hierarchy) && own {
            inherit_cpuset(&path)?;
        }
        if given && hierarchy.version == Version::V2 {
            // The clone wants it, and has no words for why not.
            group.folder().doing(doing)?;
            // For the sake of what is only counted. What is limited is enabled again, and then a failure is told.
            hierarchy.controllers.iter().for_each(|controller| drop(group.enable(controller)));
        }
        Ok(())
    }

    /// On v2 the device lines are one program, which the kernel asks at each open and mknod.
    pub(super) fn guard_devices(&self, writes: &[Write]) -> Result<()> {
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
        group.folder().and_then(|folder| bpf::attach_device_program(folder, program.as_fd())).map_err(advise)
    }

    /// The v2 group to be born in (`CLONE_INTO_CGROUP`).
    pub fn birth(&self) -> Option<BorrowedFd<'_>> {
        let v2 = self.groups.iter().find(|group| group.hierarchy.version == Version::V2)?;
        v2.folder().ok()
    }

    /// Puts this process, which has one thread, into all groups; one that was born in the v2 group is there already.
    ///
    /// 0 is whoever writes it. A thread that moves itself alone takes no lock; every other write waits now and then for a
    /// grace period, 6 to 24 ms, because it stops all forks of the machine (`cgroup_procs_write_start` in the kernel's
    /// `cgroup.c`). v2 has no such way: there it is the clone that joins.
    pub fn join(&self, born_inside: bool) -> Result<()> {
        self.groups.iter().try_for_each(|group| match group.hierarchy.version {
            Version::V1 => group.set(TASKS, "0"),
            Version::V2 if born_inside => Ok(()),
            Version::V2 => group.set("cgroup.procs", "0"),
        })
    }

    /// The files of v1's groups by which a process joins them, opened: that takes the parent the time that the child still
    /// needs for other things.
    pub(crate) fn doors(&self) -> Result<Vec<OwnedFd>> {
        let v1 = self.groups.iter().filter(|group| group.hierarchy.version == Version::V1);
        v1.map(|group| group.open(TASKS).map_err(|error| group.refused(TASKS, "0", error))).collect()
    }

    /// Puts this process into v1's groups that its parent has made meanwhile, by their [`Cgroup::doors`].
    pub(crate) fn join_through(&self, doors: &[OwnedFd]) -> Result<()> {
        let folders: Vec<_> = self.pending.iter().flat_map(Pending::folders).collect();
        if folders.len() != doors.len() {
            // As when this process may have no more open files.
            let cause = format!("{} of {} files came through", doors.len(), folders.len());
            return Err(Error::setup("join the control groups", cause));
        }
        folders.iter().zip(doors).try_for_each(|((_, path), door)| {
            fs::write(door.as_fd(), b"0").map_err(|error| refused(path, TASKS, "0", error))
        })
    }

    /// What a cgroup mount of the container shows. In a hybrid layout it is in both, and the controllers are on v1.
    pub fn view(&self) -> View {
        let made = self.groups.iter().map(|group| (&group.hierarchy, group.path.clone()));
        let pending = self.pending.iter().flat_map(Pending::folders);
        let (v1, v2): (Vec<_>, Vec<_>) =
            made.chain(pending).partition(|(hierarchy, _)| hierarchy.version == Version::V1);
        match v2.first().map(|(hierarchy, _)| &hierarchy.mount).or(self.unified.as_ref()) {
            Some(mount) if v1.is_empty() => View::Unified(mount.clone()),
            _ => View::V1(v1.into_iter().map(|(hierarchy, path)| (hierarchy.controllers.clone(), path)).collect()),
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

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        // Only reached when the creation failed, whose error is the one to tell; `system check` finds a remainder.
        let own = self.groups.iter().filter(|group| group.own).map(|group| group.path.as_path());
        if self.is_whole() {
            let _ = remove_all(own);
            return;
        }
        // Nobody of ours has been in them: who is, is somebody else who was given the same path.
        own.for_each(|path| drop(fs::unlinkat(CWD, &c_path(path), true)));
    }
}

/// Where the groups at `place` will be, there or not.
pub fn folders(host: &Host, place: &Place, writes: &[Write]) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        place.hierarchies(host, writes).into_iter().map(|hierarchy| place.folder(hierarchy)).collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests;
