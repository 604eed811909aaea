//! A caller who is not root becomes root of a user namespace, and everything else goes on as ever, inside of it.
//!
//! The namespace is the container's own, so nothing about the container is different; only this process is in it too, with
//! a copy of the host's mounts that it may lend from. One id is mapped by the process itself. Ranges are somebody's to
//! give: newuidmap(1) and newgidmap(1) do where /etc/subuid and /etc/subgid say so, and they have to be called from
//! outside. Sources: `user_namespaces(7)`, `newuidmap(1)`, `subuid(5)`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use hull_sys::fs::{self, CWD};
use hull_sys::ns::{self, Fork, Namespaces};
use hull_sys::sync::{self, Line};
use hull_sys::{Errno, mount, process, trace};

use crate::error::{Doing, Error, Result};
use crate::join;
use crate::plan::{IdMap, Isolation};

/// Makes the new user namespace of `namespaces` this process's own, with root's id in it, and takes it out of what is
/// still to be made.
///
/// # Errors
/// There is to be none, the kernel or the administrator does not allow it, or the ids are not the caller's to map.
pub fn enter(namespaces: &mut Isolation) -> Result<()> {
    if !namespaces.new.contains(Namespaces::USER) {
        let cause = "only root can without a user namespace: the specification has no new one";
        return Err(
            Error::invalid("create the container", cause).hint("`hull oci spec --rootless` writes one that has")
        );
    }
    trace::stage(
        "become root inside",
        "The caller is not root. In a user namespace of its own it is, over nothing but what it makes there.",
    );
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let one = |map: &IdMap, id: u32| matches!(*map.0, [(_, outside, 1)] if outside == id);
    let doing = || "enter a user namespace".to_owned();
    if one(&namespaces.uids, uid) && one(&namespaces.gids, gid) {
        unshare().doing(doing)?;
        // Without this nobody may map a group: by leaving one somebody could gain what is denied to it.
        fs::write_file(CWD, c"/proc/self/setgroups", b"deny").doing(doing)?;
        join::write_id_maps(namespaces, process::getpid())?;
    } else {
        let helper = Helper::new(namespaces).doing(doing)?;
        unshare().doing(doing)?;
        helper.map()?;
    }
    namespaces.new = namespaces.new.without(Namespaces::USER);
    (namespaces.uids, namespaces.gids) = (IdMap::default(), IdMap::default());
    join::become_root_inside()
}

/// Makes the host's mounts lendable to root of a user namespace: those of a mount namespace of somebody else's are not.
///
/// # Errors
/// The kernel does not allow it.
pub fn own_mounts() -> Result<()> {
    match mount::clone_tree(c"/", false) {
        Err(error) if error.errno() == Errno::PERM => {
            ns::unshare(Namespaces::MOUNT).doing(|| "enter a mount namespace".to_owned())
        }
        // Whatever else is wrong with it, the rights are there.
        _ => Ok(()),
    }
}

/// Makes the user namespace of a container's first process this process's own, if it is another.
///
/// # Errors
/// It is not the caller's.
pub fn join(init: BorrowedFd<'_>) -> Result<()> {
    ns::setns_process(init, Namespaces::USER).doing(|| "join the container's user namespace".to_owned())?;
    join::become_root_inside()
}

/// Whether groups cannot be set in our user namespace: mapped without the rights to that, it denies it for ever.
///
/// # Errors
/// The kernel does not say.
pub fn groups_are_fixed() -> Result<bool> {
    let text =
        fs::read_file(CWD, c"/proc/self/setgroups", 64).doing(|| "look whether groups can be set".to_owned())?;
    Ok(text.trim_ascii_end() == b"deny")
}

/// The mounts as well: only those of a namespace that is ours can be lent from.
fn unshare() -> hull_sys::Result<()> {
    ns::unshare(Namespaces::USER.with(Namespaces::MOUNT))
}

/// A process that stays outside and maps ids for this one.
struct Helper {
    process: OwnedFd,
    line: Line,
}

impl Helper {
    fn new(namespaces: &Isolation) -> hull_sys::Result<Self> {
        let (ours, theirs) = sync::pair()?;
        let pid = process::getpid();
        match ns::clone3(Namespaces::default(), None)? {
            Fork::Parent { pidfd, .. } => Ok(Self { process: pidfd, line: ours }),
            Fork::Child => {
                drop(ours);
                // Without the word its parent has given up, and without a listener it has ended.
                if theirs.receive().is_ok_and(|(message, _)| message == b"map") {
                    let message =
                        map(pid, namespaces).map_or_else(|error| error.to_message(), |()| b"mapped".to_vec());
                    let _ = theirs.send(&message, None);
                }
                process::exit_now(0)
            }
        }
    }

    fn map(self) -> Result<()> {
        let doing = || "map the ids of the user namespace".to_owned();
        self.line.send(b"map", None).doing(doing)?;
        let (message, _) = self.line.receive().doing(doing)?;
        process::wait(self.process.as_fd(), true).doing(doing)?;
        if message == b"mapped" { Ok(()) } else { Err(Error::from_message(&message)) }
    }
}

fn map(pid: i32, namespaces: &Isolation) -> Result<()> {
    for (program, map, file) in
        [("newuidmap", &namespaces.uids, "/etc/subuid"), ("newgidmap", &namespaces.gids, "/etc/subgid")]
    {
        let words = map.0.iter().flat_map(|(inside, outside, size)| [inside, outside, size].map(u32::to_string));
        let mut command = Command::new(program);
        let output = command.arg(pid.to_string()).args(words).stdin(Stdio::null()).output();
        let doing = || format!("map the ids of the user namespace by {program}");
        let output = output.map_err(|error| Error::setup(doing(), error).hint("install the package uidmap"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
            return Err(Error::setup(doing(), said).hint(format!("{file} says which ids a user may map")));
        }
    }
    Ok(())
}
