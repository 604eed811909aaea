//! Namespaces: entered by a clone, left by an unshare, joined by setns.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::call::{Arg, Error, Result, call, join};
use crate::{classic, fs, process, sync, trace};

/// The namespaces of `namespaces(7)`, as their `CLONE_NEW*` bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Namespaces(pub u64);

impl Namespaces {
    /// Mount points (`mount_namespaces(7)`).
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    /// Process numbers (`pid_namespaces(7)`).
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    /// Host and domain name (`uts_namespaces(7)`).
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// System V IPC and POSIX message queues (`ipc_namespaces(7)`).
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// Interfaces, routes, sockets (`network_namespaces(7)`).
    pub const NETWORK: Self = Self(libc::CLONE_NEWNET as u64);
    /// The root of the cgroup view (`cgroup_namespaces(7)`).
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    /// User and group ids, capabilities (`user_namespaces(7)`).
    pub const USER: Self = Self(libc::CLONE_NEWUSER as u64);
    /// Boot and monotonic clock (`time_namespaces(7)`).
    pub const TIME: Self = Self(0x80);

    const NAMES: [(Self, &'static str); 8] = [
        (Self::USER, "CLONE_NEWUSER"),
        (Self::MOUNT, "CLONE_NEWNS"),
        (Self::PID, "CLONE_NEWPID"),
        (Self::UTS, "CLONE_NEWUTS"),
        (Self::IPC, "CLONE_NEWIPC"),
        (Self::NETWORK, "CLONE_NEWNET"),
        (Self::CGROUP, "CLONE_NEWCGROUP"),
        (Self::TIME, "CLONE_NEWTIME"),
    ];

    /// Whether all of `other` are in here.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (flag, name) in Self::NAMES {
            if self.contains(flag) {
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        if separator.is_empty() { f.write_str("0") } else { Ok(()) }
    }
}

/// The two returns of [`clone3`].
#[derive(Debug)]
pub enum Fork {
    /// In the new process.
    Child,
    /// In the caller: the child's process id as the caller sees it, and its descriptor.
    Parent {
        /// Process id in the caller's PID namespace.
        pid: i32,
        /// `pidfd_open(2)`'s kind of descriptor.
        pidfd: OwnedFd,
    },
}

struct CloneText {
    namespaces: Namespaces,
    cgroup: Option<i32>,
    sibling: bool,
}

impl fmt::Display for CloneText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{flags=CLONE_PIDFD")?;
        if self.cgroup.is_some() {
            f.write_str("|CLONE_INTO_CGROUP")?;
        }
        if self.sibling {
            f.write_str("|CLONE_PARENT")?;
        }
        if !self.namespaces.is_empty() {
            write!(f, "|{}", self.namespaces)?;
        }
        f.write_str(if self.sibling { ", exit_signal=0" } else { ", exit_signal=SIGCHLD" })?;
        match self.cgroup {
            Some(fd) => write!(f, ", cgroup={fd}}}"),
            None => f.write_str("}"),
        }
    }
}

/// `clone3(2)`: a copy of this process in new namespaces, with a pidfd, and on cgroup v2 born inside `cgroup`.
///
/// # Errors
/// The kernel's, and `EBUSY` if this process has more than one thread: the copy would hold locks of threads that it
/// does not have.
pub fn clone3(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork> {
    fork(namespaces, cgroup, false)
}

/// As [`clone3`], with `CLONE_PARENT`: the new process is a child of our parent, a sibling of ours.
///
/// For a process that was itself cloned and so has one thread; it may not see its own /proc any more.
///
/// # Errors
/// The kernel's.
pub fn clone_sibling(namespaces: Namespaces) -> Result<Fork> {
    fork(namespaces, None, true)
}

fn fork(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>, sibling: bool) -> Result<Fork> {
    if !(classic::lends() && namespaces.contains(Namespaces::MOUNT)) {
        let fork = copy(namespaces, cgroup, sibling)?;
        if matches!(fork, Fork::Child) {
            classic::born(namespaces.contains(Namespaces::MOUNT));
        }
        return Ok(fork);
    }
    if sibling || namespaces.contains(Namespaces::USER) {
        return Err(Error::new("open_tree", "OPEN_TREE_CLONE for a container with a user namespace", Errno::NOSYS));
    }
    // The child gets our mount namespace, and begins when we have left it.
    let (ours, theirs) = sync::pair()?;
    match copy(namespaces.without(Namespaces::MOUNT), cgroup, false)? {
        Fork::Child => {
            drop(ours);
            classic::born(true);
            theirs.receive()?;
            Ok(Fork::Child)
        }
        Fork::Parent { pid, pidfd } => {
            drop(theirs);
            if let Err(error) = classic::leave() {
                const SIGKILL: i32 = 9;
                // It waits, and has nothing that would outlive it.
                let _ = process::pidfd_send_signal(pidfd.as_fd(), SIGKILL);
                let _ = process::wait(pidfd.as_fd(), true);
                return Err(error);
            }
            drop(ours);
            Ok(Fork::Parent { pid, pidfd })
        }
    }
}

fn copy(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>, sibling: bool) -> Result<Fork> {
    const CLONE_PIDFD: u64 = 0x1000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let text = CloneText { namespaces, cgroup: cgroup.map(|fd| fd.as_raw_fd()), sibling };
    let args = [Arg::Show(&text), Arg::Int(size_of::<libc::clone_args>() as i64)];
    if !sibling && threads() != Some(1) {
        return Err(Error::new("clone3", join(&args), Errno::BUSY));
    }
    let mut pidfd: i32 = -1;
    // SAFETY: clone_args is plain data for which zero means "not used".
    let mut clone: libc::clone_args = unsafe { std::mem::zeroed() };
    clone.flags = namespaces.0 | CLONE_PIDFD;
    clone.pidfd = (&raw mut pidfd) as u64;
    if sibling {
        // The exit signal is then that of the caller, and naming one is an error.
        clone.flags |= libc::CLONE_PARENT as u64;
    } else {
        clone.exit_signal = libc::SIGCHLD as u64;
    }
    let plain = clone.flags | clone.exit_signal;
    if let Some(cgroup) = cgroup {
        clone.flags |= CLONE_INTO_CGROUP;
        clone.cgroup = cgroup.as_raw_fd() as u64;
    }
    let result = cloned("clone3", &args, || {
        // SAFETY: without CLONE_VM the child gets a copy of the address space, and this process has one thread, so the
        // copy is whole; the structure lives on this stack and has the size given.
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut clone, size_of::<libc::clone_args>()) }
    });
    let result = match result {
        // Docker's filter, for one, has it look missing.
        Err(error) if error.errno() == Errno::NOSYS => cloned("clone", &[Arg::Show(&text)], || {
            // SAFETY: as above; without a stack of its own the child goes on on its copy of ours.
            unsafe { libc::syscall(libc::SYS_clone, plain, 0, &raw mut pidfd, 0, 0) }
        })
        .inspect(|pid| {
            if let (0, Some(cgroup)) = (pid, cgroup) {
                enter_group(cgroup);
            }
        }),
        other => other,
    };
    match result? {
        0 => Ok(Fork::Child),
        // SAFETY: the kernel wrote a new descriptor that nobody else owns.
        pid => Ok(Fork::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// What [`copy`] could not do at the clone: without it the process must not go on, and nobody hears it yet.
fn enter_group(cgroup: BorrowedFd<'_>) {
    if fs::write_file(cgroup, c"cgroup.procs", b"0").is_err() {
        process::exit_now(1);
    }
}

/// A call that comes back twice.
fn cloned(name: &'static str, args: &[Arg<'_>], body: impl FnOnce() -> i64) -> Result<i64> {
    let pending = if trace::enabled() { trace::begin(name, args) } else { None };
    let result = process::check(body());
    if let Ok(0) = result {
        // The record belongs to the parent, who alone sees both sides of the call.
        trace::set_role(trace::Role::Child);
        return Ok(0);
    }
    if let Some(pending) = pending {
        pending.end(result);
    }
    result.map_err(|errno| Error::new(name, join(args), errno))
}

/// How many threads this process has: /proc/self/task has a link for each, and two of its own.
pub(crate) fn threads() -> Option<u64> {
    let stat = rustix::fs::stat(c"/proc/self/task").ok()?;
    stat.st_nlink.checked_sub(2)
}

/// `unshare(2)`.
pub fn unshare(namespaces: Namespaces) -> Result<()> {
    call("unshare", &[Arg::Show(&namespaces)], || {
        // SAFETY: only namespaces are unshared here, never the descriptor table that Rust's owners rely on.
        crate::process::check(i64::from(unsafe { libc::unshare(namespaces.0 as i32) })).map(drop)
    })
}

/// `setns(2)` with a process, or one namespace: joins those of its namespaces that are named, all at once. Where `process` is its folder in
/// /proc, as it is without `pidfd_open(2)`, one after the other, those of its user namespace last.
pub fn setns_process(process: BorrowedFd<'_>, kinds: Namespaces) -> Result<()> {
    let names = [
        (Namespaces::MOUNT, c"ns/mnt"),
        (Namespaces::PID, c"ns/pid"),
        (Namespaces::UTS, c"ns/uts"),
        (Namespaces::IPC, c"ns/ipc"),
        (Namespaces::NETWORK, c"ns/net"),
        (Namespaces::CGROUP, c"ns/cgroup"),
        (Namespaces::TIME, c"ns/time"),
        (Namespaces::USER, c"ns/user"),
    ];
    let result = setns(process, kinds);
    if !matches!(&result, Err(error) if error.errno() == Errno::INVAL) {
        return result;
    }
    let wanted = names.into_iter().filter(|(kind, _)| kinds.contains(*kind));
    let opened = wanted.map(|(kind, name)| Ok((kind, fs::openat(process, name, rustix::fs::OFlags::RDONLY, 0)?)));
    let opened = match opened.collect::<Result<Vec<_>>>() {
        // It is no folder: what the kernel said was meant.
        Err(error) if error.errno() == Errno::NOTDIR => return result,
        other => other?,
    };
    // What the rights here allow; the rest takes those in the user namespace.
    let user = |kind: &Namespaces| *kind == Namespaces::USER;
    let rest: Vec<_> =
        opened.iter().filter(|(kind, file)| user(kind) || setns(file.as_fd(), *kind).is_err()).collect();
    let (first, then): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(kind, _)| user(kind));
    first.into_iter().chain(then).try_for_each(|(kind, file)| setns(file.as_fd(), *kind))
}

/// `setns(2)`: joins the namespace that `namespace` is a descriptor of; `kind` guards against another kind.
pub fn setns(namespace: BorrowedFd<'_>, kind: Namespaces) -> Result<()> {
    call("setns", &[Arg::fd(&namespace), Arg::Show(&kind)], || {
        // SAFETY: setns has no memory arguments.
        crate::process::check(i64::from(unsafe { libc::setns(namespace.as_raw_fd(), kind.0 as i32) })).map(drop)
    })
}

/// `NS_GET_NSTYPE` of `ioctl_ns(2)`: which kind of namespace a descriptor of one is.
///
/// # Errors
/// `ENOTTY` if it is none.
pub fn kind(namespace: BorrowedFd<'_>) -> Result<Namespaces> {
    const NS_GET_NSTYPE: u64 = 0xb703;
    let answer = call("ioctl", &[Arg::fd(&namespace), Arg::Text("NS_GET_NSTYPE")], || {
        // SAFETY: this request has no argument.
        crate::process::check(i64::from(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) }))
    })?;
    Ok(Namespaces(answer as u64))
}

/// `sethostname(2)`.
pub fn sethostname(name: &CStr) -> Result<()> {
    let bytes = name.to_bytes();
    call("sethostname", &[Arg::cstr(name), Arg::Int(bytes.len() as i64)], || rustix::system::sethostname(bytes))
}

/// `setdomainname(2)`.
pub fn setdomainname(name: &CStr) -> Result<()> {
    let bytes = name.to_bytes();
    call("setdomainname", &[Arg::cstr(name), Arg::Int(bytes.len() as i64)], || rustix::system::setdomainname(bytes))
}
