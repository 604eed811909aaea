//! The clone, and what has to be around it when namespaces are joined.
//!
//! | namespace | who enters it, and when |
//! |---|---|
//! | all new | one clone3 makes them; the cgroup namespace follows by unshare, once the process is in its group |
//! | PID by path, time with offsets | only children are born into it: the parent says so before the clone and takes it back after |
//! | others by path | the child joins them, first thing |
//! | all of a running container (exec) | PID in the parent around the clone, the rest by the child with one setns on the first process's pidfd, the user namespace among them |
//! | user by path; user new, another by path; PID or time where we may not go back (without root) | one process more, which joins what its rights allow, then the user namespace, then the rest, and clones the container's as its sibling |
//!
//! The last row: whoever is in a user namespace cannot join what belongs to the host, and the namespaces of the clone
//! belong to the user namespace of the cloner; without that, /proc could not be mounted in a new PID namespace.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use hull_sys::fs::{self, CWD};
use hull_sys::mount;
use hull_sys::ns::{self, Fork, Namespaces};
use hull_sys::sync::Line;
use hull_sys::{Errno, cred, process, sched, trace};
use rustix::fs::OFlags;

use crate::error::{Doing, Error, Result};
use crate::plan::{Isolation, Join, Plan, word};

/// The namespaces to join, opened.
pub(crate) struct Joins {
    list: Vec<(Namespaces, OwnedFd)>,
    /// Whether another process stands between the parent and the container's.
    pub(crate) through: bool,
}

/// Opens the namespaces that the container joins, where the host's paths still mean something.
pub(crate) fn open(plan: &Plan) -> Result<Joins> {
    let mut list = Vec::with_capacity(plan.namespaces.joined.len());
    for join in &plan.namespaces.joined {
        let file = open_one(join)?;
        if join.kind == Namespaces::MOUNT && !mount::can_detach() {
            let cause = "open_tree(2) is not there (ENOSYS), and no mount can be brought into it otherwise";
            return Err(Error::invalid(format!("join the mount namespace {}", join.path.display()), cause));
        }
        let ours = is_ours(join.kind, file.as_fd()).doing(|| "look at a namespace".to_owned())?;
        if ours {
            refuse_changes(plan, join.kind)?;
        }
        // The kernel refuses to join the user namespace that one is in.
        if !(ours && join.kind == Namespaces::USER) {
            list.push((join.kind, file));
        }
    }
    let user = list.iter().any(|(kind, _)| *kind == Namespaces::USER);
    let through = user || plan.namespaces.new.contains(Namespaces::USER) && !list.is_empty();
    let pid = list.iter().any(|(kind, _)| *kind == Namespaces::PID);
    let around = [(Namespaces::PID, pid), (Namespaces::TIME, plan.namespaces.new.contains(Namespaces::TIME))];
    let stuck = || -> Result<bool> {
        for (kind, _) in around.into_iter().filter(|(_, changes)| *changes) {
            if !can_return(kind)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    Ok(Joins { through: through || stuck()?, list })
}

/// Opens one, and looks whether it is what it is said to be.
pub(crate) fn open_one(join: &Join) -> Result<OwnedFd> {
    let doing = || format!("join the {} namespace {}", word(join.kind), join.path.display());
    let path = CString::new(join.path.as_os_str().as_bytes()).map_err(|error| Error::invalid(doing(), error))?;
    let file = fs::openat(CWD, &path, OFlags::RDONLY | OFlags::NONBLOCK, 0).doing(doing)?;
    match ns::kind(file.as_fd()) {
        Ok(kind) if kind == join.kind => Ok(file),
        Ok(kind) => Err(Error::invalid(doing(), format!("it is a {} namespace", word(kind)))),
        Err(error) if error.errno() == Errno::NOTTY => Err(Error::invalid(doing(), "it is no namespace")),
        Err(error) => Err(Error::setup(doing(), error)),
    }
}

fn is_ours(kind: Namespaces, file: BorrowedFd<'_>) -> hull_sys::Result<bool> {
    let own = own(kind)?;
    let (own, other) = (fs::fstat(own.as_fd())?, fs::fstat(file)?);
    Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
}

fn own(kind: Namespaces) -> hull_sys::Result<OwnedFd> {
    fs::openat(CWD, own_path(kind), OFlags::RDONLY, 0)
}

fn own_path(kind: Namespaces) -> &'static CStr {
    match kind {
        Namespaces::MOUNT => c"/proc/self/ns/mnt",
        Namespaces::PID => c"/proc/self/ns/pid",
        Namespaces::UTS => c"/proc/self/ns/uts",
        Namespaces::IPC => c"/proc/self/ns/ipc",
        Namespaces::NETWORK => c"/proc/self/ns/net",
        Namespaces::CGROUP => c"/proc/self/ns/cgroup",
        Namespaces::USER => c"/proc/self/ns/user",
        _ => c"/proc/self/ns/time",
    }
}

/// A path may lead to a namespace of the host's own; what the plan would change there is the host's.
fn refuse_changes(plan: &Plan, kind: Namespaces) -> Result<()> {
    let sysctl = plan.sysctl.iter().find(|sysctl| sysctl.owner == kind);
    let named = match kind {
        Namespaces::UTS if plan.hostname.is_some() => Some("set the host name".to_owned()),
        Namespaces::UTS if plan.domainname.is_some() => Some("set the domain name".to_owned()),
        Namespaces::NETWORK if !plan.net_devices.is_empty() => {
            Some("move the network devices of linux.netDevices".to_owned())
        }
        _ => sysctl.map(|sysctl| format!("set the sysctl {}", sysctl.name.to_string_lossy())),
    };
    match named {
        Some(doing) => {
            Err(Error::invalid(doing, format!("the {} namespace that it joins is the host's", word(kind))))
        }
        None => Ok(()),
    }
}

/// Whether we may go back to our own namespace once our children are born into another one.
fn can_return(kind: Namespaces) -> Result<bool> {
    let doing = || format!("look at our own {} namespace", word(kind));
    let own = own(kind).doing(doing)?;
    // Which changes nothing now.
    match ns::setns(own.as_fd(), kind) {
        Err(error) if error.errno() == Errno::PERM => Ok(false),
        other => other.map(|()| true).doing(doing),
    }
}

const ALL: [Namespaces; 8] = [
    Namespaces::USER,
    Namespaces::MOUNT,
    Namespaces::PID,
    Namespaces::UTS,
    Namespaces::IPC,
    Namespaces::NETWORK,
    Namespaces::CGROUP,
    Namespaces::TIME,
];

/// The namespaces of process `pid` that are not ours. Those that are the same must not be joined: the kernel refuses it
/// of the user namespace, and for others it asks for rights that we may only have inside.
pub(crate) fn others(pid: i32) -> Result<Namespaces> {
    let mut all = Namespaces::default();
    for kind in ALL {
        let doing = || format!("look at the {} namespace of process {pid}", word(kind));
        let own = match fs::stat_at(CWD, own_path(kind)) {
            // A kernel that does not have this kind.
            Err(error) if error.errno() == Errno::NOENT => continue,
            other => other.doing(doing)?,
        };
        let name = own_path(kind).to_string_lossy().replace("/proc/self/", "");
        let theirs = match fs::stat_at(CWD, &proc_file(pid, &name)) {
            // One that ends gives up its namespaces before it is gone.
            Err(error) if matches!(error.errno(), Errno::NOENT | Errno::SRCH) => {
                return Err(Error::invalid("join the container", "its first process is ending"));
            }
            other => other.doing(doing)?,
        };
        if (own.st_dev, own.st_ino) != (theirs.st_dev, theirs.st_ino) {
            all = all.with(kind);
        }
    }
    Ok(all)
}

/// Clones a process into the PID namespace of the one that `init` stands for if it is among `namespaces`, on v2 inside a
/// group, to run on the processors `affinity`.
pub(crate) fn clone_beside(
    init: BorrowedFd<'_>,
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    affinity: Option<&[u64]>,
) -> Result<Fork> {
    let mut around = Around::default();
    let other = namespaces.contains(Namespaces::PID);
    let fork = around
        .lend(affinity)
        .and_then(|()| if other { around.visit(Namespaces::PID, init) } else { Ok(()) })
        .and_then(|()| ns::clone3(Namespaces::default(), cgroup).doing(|| "clone the process".to_owned()));
    match fork {
        Ok(Fork::Child) => Ok(Fork::Child),
        other => around.take_back().and(other),
    }
}

/// Clones the container's process, directly or through another one.
pub(crate) fn clone(
    plan: &Plan,
    joins: &Joins,
    cgroup: Option<BorrowedFd<'_>>,
    ends: (&Line, &Line),
) -> Result<Fork> {
    let doing = || "clone the container's process".to_owned();
    if !joins.through {
        let around = Around::set_up(plan, joins)?;
        let fork = ns::clone3(at_clone(&plan.namespaces), cgroup).doing(doing);
        return match fork {
            Ok(Fork::Child) => Ok(Fork::Child),
            other => around.take_back().and(other),
        };
    }
    let (ours, theirs) = ends;
    match ns::clone3(Namespaces::default(), None).doing(doing)? {
        Fork::Child => match step(plan, joins) {
            Ok(Fork::Child) => Ok(Fork::Child),
            Ok(Fork::Parent { pid, pidfd }) => {
                // If the parent is gone the container's process finds out by itself.
                let _ = theirs.send(format!("cloned {pid}").as_bytes(), Some(pidfd.as_fd()));
                process::exit_now(0)
            }
            Err(error) => {
                let _ = theirs.send(&error.to_message(), None);
                process::exit_now(1)
            }
        },
        Fork::Parent { pidfd: step, .. } => {
            let (message, pidfd) = ours.receive().doing(doing)?;
            process::wait(step.as_fd(), true).doing(doing)?;
            let text = String::from_utf8_lossy(&message);
            match (text.strip_prefix("cloned ").and_then(|pid| pid.parse().ok()), pidfd) {
                (Some(pid), Some(pidfd)) => Ok(Fork::Parent { pid, pidfd }),
                _ => Err(Error::from_message(&message)),
            }
        }
    }
}

/// The new namespaces that the clone makes.
fn at_clone(namespaces: &Isolation) -> Namespaces {
    let early = namespaces.new.without(Namespaces::CGROUP).without(Namespaces::TIME);
    late(namespaces).into_iter().fold(early, Namespaces::without)
}

/// Those of them whose files belong to whoever makes the namespace: before a process is root of its user namespace that is
/// nobody there. They are message queues, and what /sys and /proc/net show of a network.
fn late(namespaces: &Isolation) -> Vec<Namespaces> {
    let own = |kind: &Namespaces| namespaces.has(Namespaces::USER) && namespaces.new.contains(*kind);
    [Namespaces::IPC, Namespaces::NETWORK].into_iter().filter(own).collect()
}

/// Makes those, by the container's process as root of its user namespace.
pub(crate) fn unshare_late(namespaces: &Isolation) -> Result<()> {
    let doing = |kind| format!("make the {} namespace", word(kind));
    late(namespaces).into_iter().try_for_each(|kind| ns::unshare(kind).doing(|| doing(kind)))
}

/// The process in between: joins everything and clones its sibling, which is the container's.
fn step(plan: &Plan, joins: &Joins) -> Result<Fork> {
    // With the host's rights what they allow, with those in the user namespace the rest.
    unshare_time(&plan.namespaces)?;
    let rest: Vec<&(Namespaces, OwnedFd)> = joins
        .list
        .iter()
        .filter(|(kind, file)| *kind != Namespaces::USER && ns::setns(file.as_fd(), *kind).is_err())
        .collect();
    for (kind, file) in joins.list.iter().filter(|(kind, _)| *kind == Namespaces::USER).chain(rest) {
        ns::setns(file.as_fd(), *kind).doing(|| format!("join the {} namespace", word(*kind)))?;
    }
    ns::clone_sibling(at_clone(&plan.namespaces)).doing(|| "clone the container's process".to_owned())
}

/// Children are born into a new time namespace once one of these is unshared; its clocks stand still after that.
fn unshare_time(namespaces: &Isolation) -> Result<()> {
    if !namespaces.new.contains(Namespaces::TIME) {
        return Ok(());
    }
    ns::unshare(Namespaces::TIME).doing(|| "make the time namespace".to_owned())?;
    if !namespaces.clocks.is_empty() {
        fs::write_file(CWD, c"/proc/self/timens_offsets", namespaces.clocks.as_bytes())
            .doing(|| format!("set the offsets of the clocks ({})", namespaces.clocks.trim().replace('\n', ", ")))?;
    }
    Ok(())
}

/// What the parent changes for its next child only: how it was before.
#[derive(Default)]
struct Around {
    namespaces: Vec<(Namespaces, OwnedFd)>,
    affinity: Option<Vec<u64>>,
}

impl Around {
    fn set_up(plan: &Plan, joins: &Joins) -> Result<Self> {
        let mut around = Self::default();
        let result = around.change(plan, joins);
        match result {
            Ok(()) => Ok(around),
            Err(error) => around.take_back().and(Err(error)),
        }
    }

    fn change(&mut self, plan: &Plan, joins: &Joins) -> Result<()> {
        if plan.namespaces.new.contains(Namespaces::TIME) {
            self.remember(Namespaces::TIME)?;
            unshare_time(&plan.namespaces)?;
        }
        let pid = joins.list.iter().find(|(kind, _)| *kind == Namespaces::PID);
        pid.map_or(Ok(()), |(kind, file)| self.join(*kind, file.as_fd()))
    }

    fn remember(&mut self, kind: Namespaces) -> Result<()> {
        self.namespaces.push((kind, own(kind).doing(|| format!("look at our own {} namespace", word(kind)))?));
        Ok(())
    }

    /// The same where we stay if we may not go back, for who has no other child.
    fn visit(&mut self, kind: Namespaces, file: BorrowedFd<'_>) -> Result<()> {
        if can_return(kind)? {
            return self.join(kind, file);
        }
        ns::setns_process(file, kind).doing(|| format!("join the {} namespace", word(kind)))
    }

    fn join(&mut self, kind: Namespaces, file: BorrowedFd<'_>) -> Result<()> {
        self.remember(kind)?;
        ns::setns_process(file, kind).doing(|| format!("join the {} namespace", word(kind)))
    }

    fn lend(&mut self, affinity: Option<&[u64]>) -> Result<()> {
        let Some(processors) = affinity else { return Ok(()) };
        self.affinity = Some(sched::affinity().doing(|| "look at our own processors".to_owned())?);
        sched::set_affinity(processors).doing(|| "set execCPUAffinity.initial".to_owned())
    }

    fn take_back(self) -> Result<()> {
        if let Some(processors) = &self.affinity {
            sched::set_affinity(processors).doing(|| "go back to our own processors".to_owned())?;
        }
        self.namespaces.iter().try_for_each(|(kind, file)| {
            ns::setns(file.as_fd(), *kind).doing(|| format!("go back to our own {} namespace", word(*kind)))
        })
    }
}

/// The child's first step: joins what the clone did not put it in.
pub(crate) fn enter(plan: &Plan, joins: &Joins) -> Result<()> {
    if joins.through {
        return Ok(());
    }
    for (kind, file) in joins.list.iter().filter(|(kind, _)| *kind != Namespaces::PID) {
        ns::setns(file.as_fd(), *kind).doing(|| format!("join the {} namespace", word(*kind)))?;
    }
    debug_assert!(!plan.namespaces.joins(Namespaces::USER) || joins.list.is_empty());
    Ok(())
}

/// Whether parent and child may work at the same time: the child keeps its rights and the host's tree in view until it has
/// built its own, and has no more to ask of the parent than what that does by itself. Not while somebody is told what
/// happens, which is better told in one line.
pub(crate) fn parent_helps(plan: &Plan, joins: &Joins) -> bool {
    plan.namespaces.joined.is_empty()
        && !joins.through
        // Nobody but its makers can look at the process.
        && plan.namespaces.new.contains(Namespaces::PID)
        && plan.namespaces.new.contains(Namespaces::MOUNT)
        && !plan.namespaces.has(Namespaces::USER)
        && plan.net_devices.is_empty()
        && !trace::enabled()
}

/// Whether the parent has something to do for the child that has to be done first.
pub(crate) fn waits_for_parent(plan: &Plan) -> bool {
    plan.namespaces.has(Namespaces::USER) || plan.process.oom_score_adj.is_some()
}

/// Writes who is who in the new user namespace of process `pid`. The parent's to do: only it has rights over the ids
/// outside.
pub(crate) fn write_id_maps(namespaces: &Isolation, pid: i32) -> Result<()> {
    for (name, map) in [("uid_map", &namespaces.uids), ("gid_map", &namespaces.gids)] {
        let path = proc_file(pid, name);
        let text = map.to_string();
        fs::write_file(CWD, &path, text.as_bytes())
            .doing(|| format!("map the ids of the user namespace ({name}: {})", text.trim().replace('\n', ", ")))?;
    }
    Ok(())
}

/// Whether the user namespace that process `pid` joined has the mappings that the specification says.
pub(crate) fn check_id_maps(namespaces: &Isolation, pid: i32) -> Result<()> {
    for (name, map) in [("uid_map", &namespaces.uids), ("gid_map", &namespaces.gids)] {
        let doing = || format!("join the user namespace: read its {name}");
        let path = proc_file(pid, name);
        let text = String::from_utf8_lossy(&fs::read_file(CWD, &path, 64 << 10).doing(doing)?).into_owned();
        let there: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let ours = map.to_string();
        let wanted: Vec<Vec<&str>> = ours.lines().map(|line| line.split_whitespace().collect()).collect();
        if !map.is_empty() && there != wanted {
            let cause = format!("the specification's mappings are {wanted:?} and the namespace's {there:?}");
            return Err(Error::invalid("join the user namespace", cause));
        }
    }
    Ok(())
}

/// A file of /proc about a child of ours; its number cannot be anybody else's before we have waited for it.
pub(crate) fn proc_file(pid: i32, name: &str) -> CString {
    CString::new(format!("/proc/{pid}/{name}")).unwrap_or_default()
}

/// Sets how willingly the kernel kills a process for its memory, this one or the child `pid`. For whoever sees the host's
/// /proc: in a user namespace the file is somebody else's, and lowering the value takes rights on the host.
pub(crate) fn set_oom_score(pid: Option<i32>, adjustment: i32) -> Result<()> {
    let value = adjustment.to_string();
    let file = pid.map_or(c"/proc/self/oom_score_adj".to_owned(), |pid| proc_file(pid, "oom_score_adj"));
    fs::write_file(CWD, &file, value.as_bytes()).doing(|| format!("set oom_score_adj to {value}"))
}

/// Root inside a user namespace: until then the process is nobody there and can make no file.
pub(crate) fn become_root_inside() -> Result<()> {
    let doing = || "become root in the user namespace".to_owned();
    cred::setresgid(0).doing(doing)?;
    cred::setresuid(0).doing(doing)
}
