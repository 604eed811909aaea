//! The change of the root, from the host's tree to the container's.
//!
//! | mount namespace | the root is attached | and becomes `/` by |
//! |---|---|---|
//! | new | on top of the old `/`, below which lookups do not see it | pivot_root, or chroot where that is impossible |
//! | the caller's, or joined | in a folder of the container's own, for all who share the namespace | chroot |
//!
//! In the last row pivot_root would take the root away from everybody else. What was mounted there stays until [`detach`].

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hull_sys::fs::{self, CWD};
use hull_sys::mount::{self, MountAttr, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags};
use hull_sys::ns::{self, Fork, Namespaces};
use hull_sys::path::Root;
use hull_sys::{Errno, process, trace};

use crate::error::{Doing, Error, Result};
use crate::join;
use crate::mounts;
use crate::plan::{Join, Plan};

/// A mount table of some thousand lines has not a tenth of this.
const LARGEST: usize = 16 << 20;

/// Attaches the detached mount `root`. `place` is for a mount namespace that is not new.
pub(crate) fn attach(plan: &Plan, root: OwnedFd, place: Option<&Path>) -> Result<Root> {
    trace::stage(
        "cut the tree off from the host",
        "Before anything is attached: no mount made here may show up outside. What is lent to the container can still be \
         told of mounts that the host makes on it, if that is wanted.",
    );
    let attached = if is_shared(plan) { in_place(&root, place) } else { on_top(&root) };
    attached.map(|()| Root::from_fd(root))
}

/// Whether others are in the container's mount namespace.
pub(crate) fn is_shared(plan: &Plan) -> bool {
    !plan.namespaces.new.contains(Namespaces::MOUNT)
}

fn on_top(root: &OwnedFd) -> Result<()> {
    mount::set_propagation(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .doing(|| "cut the mount tree off".to_owned())?;
    // A path that always exists. Lookups still start at the old root below it, until the pivot.
    move_to(root.as_fd(), c"/").doing(|| "attach the root file system".to_owned())
}

fn in_place(root: &OwnedFd, place: Option<&Path>) -> Result<()> {
    let doing = || "attach the root file system".to_owned();
    let place =
        place.ok_or_else(|| Error::invalid(doing(), "there is no place for it in a shared mount namespace"))?;
    let path = CString::new(place.as_os_str().as_bytes()).map_err(|error| Error::invalid(doing(), error))?;
    match move_to(root.as_fd(), &path) {
        Err(error) if error.errno() == Errno::NOENT => {
            let cause = format!("the mount namespace that it joins has no {}", place.display());
            return Err(Error::invalid(doing(), cause));
        }
        other => other.doing(doing)?,
    }
    // Below a shared mount it has become one.
    mounts::make_private(root.as_fd()).doing(doing)
}

/// Lays a mount over a folder.
pub(crate) fn move_to(mount: BorrowedFd<'_>, over: &CStr) -> hull_sys::Result<()> {
    mount::move_mount(mount, c"", CWD, over, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// The new root becomes `/`, and the host's tree is gone from this namespace, or at least out of reach.
pub(crate) fn enter(root: &Root, plan: &Plan) -> Result<()> {
    match (is_shared(plan), plan.pivot) {
        (true, _) => look_from(root)?,
        (false, true) => pivot(root)?,
        (false, false) => stay_on_top(root)?,
    }
    let doing = || "change the root".to_owned();
    process::chdir(c"/").doing(doing)?;
    if let Some((propagation, recursive)) = plan.root_propagation {
        // After the pivot, which does not move a shared mount.
        let attr = MountAttr { propagation, ..MountAttr::default() };
        mount::mount_setattr(CWD, c"/", recursive, attr).doing(|| "set the propagation of the root".to_owned())?;
    }
    if plan.read_only_root {
        let attr = MountAttr { set: u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()), ..MountAttr::default() };
        mount::mount_setattr(CWD, c"/", false, attr).doing(|| "make the root read-only".to_owned())?;
    }
    Ok(())
}

fn pivot(root: &Root) -> Result<()> {
    trace::stage(
        "change the root",
        "pivot_root exchanges the root mount itself and the old one is then detached; chroot would only move where \
         lookups begin, and a privileged process can walk back out of that.",
    );
    let doing = || "change the root".to_owned();
    process::fchdir(root.as_fd()).doing(doing)?;
    // Both names are ".": the old root ends up stacked on the new one and is detached from there.
    match mount::pivot_root(c".", c".") {
        Err(error) if error.errno() == Errno::INVAL => {
            let hint = "the host's root may be an initial ramfs, which cannot be left; --no-pivot is for that";
            Err(Error::setup(doing(), error).hint(hint))
        }
        other => other.doing(doing),
    }?;
    mount::umount2(c".", UnmountFlags::DETACH).doing(doing)
}

/// For a host whose root is the initial ramfs, which nothing can be exchanged with: the new root stays on top of it. Whoever
/// walks up from there comes back to the top.
fn stay_on_top(root: &Root) -> Result<()> {
    trace::stage(
        "change the root",
        "Without pivot_root the host's tree stays below the new root. Its views of processes and devices go first: a user \
         namespace may mount its own only where a whole one is in sight already.",
    );
    let doing = || "change the root".to_owned();
    for path in views_outside(root)? {
        match mount::umount2(&path, UnmountFlags::DETACH) {
            // A mount that belongs to another user namespace cannot be taken away, but be covered.
            Err(error) if matches!(error.errno(), Errno::INVAL | Errno::PERM) => {
                let cover = mounts::tmpfs(&[(c"mode", c"0")], MountAttrFlags::MOUNT_ATTR_RDONLY).doing(doing)?;
                move_to(cover.as_fd(), &path).doing(doing)?;
            }
            Err(error) if error.errno() == Errno::NOENT => {}
            other => other.doing(doing)?,
        }
    }
    look_from(root)
}

/// Lookups begin at the root from now on.
fn look_from(root: &Root) -> Result<()> {
    let doing = || "change the root".to_owned();
    process::fchdir(root.as_fd()).doing(doing)?;
    process::chroot(c".").doing(doing)
}

/// Where a procfs or sysfs is mounted outside of the new root, the last ones first.
fn views_outside(root: &Root) -> Result<Vec<CString>> {
    let doing = || "look for the host's views of processes".to_owned();
    let read = |path: &str| -> Result<String> {
        let path = CString::new(path).unwrap_or_default();
        let data = fs::read_file(CWD, &path, LARGEST).doing(doing)?;
        Ok(String::from_utf8_lossy(&data).into_owned())
    };
    let about = read(&format!("/proc/self/fdinfo/{}", root.as_fd().as_raw_fd()))?;
    let id = about.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(|id| id.trim().to_owned());
    let id = id.ok_or_else(|| Error::setup(doing(), "the kernel does not tell which mount the root is"))?;
    let table = read("/proc/self/mountinfo")?;
    Ok(outside(&table, &id))
}

/// The same from the text of mountinfo, in which the root is the mount `id`. Pure.
fn outside(table: &str, id: &str) -> Vec<CString> {
    let mounts: Vec<(&str, &str, &str, &str)> = table
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let fields: Vec<&str> = before.split(' ').collect();
            Some((*fields.first()?, *fields.get(1)?, *fields.get(4)?, after.split(' ').next()?))
        })
        .collect();
    let mut inside = BTreeSet::from([id]);
    // A parent may be listed after what is mounted on it.
    while mounts.iter().any(|(own, parent, ..)| inside.contains(parent) && inside.insert(own)) {}
    let view = |mount: &&(&str, &str, &str, &str)| matches!(mount.3, "proc" | "sysfs") && !inside.contains(mount.0);
    mounts.iter().rev().filter(view).filter_map(|mount| CString::new(mount.2).ok()).collect()
}

/// Takes away what is mounted at `place`, in the mount namespace `joined` if the container joined one.
///
/// # Errors
/// It cannot be taken away.
pub(crate) fn detach(place: &Path, joined: Option<&Join>) -> Result<()> {
    let doing = || format!("unmount {}", place.display());
    let path = CString::new(place.as_os_str().as_bytes()).map_err(|error| Error::invalid(doing(), error))?;
    let Some(join) = joined else { return unmount(&path).doing(doing) };
    // Gone with all that was in it, if it cannot be opened. Its number may be another's by now, which has nothing there.
    let Ok(namespace) = join::open_one(join) else { return Ok(()) };
    match ns::clone3(Namespaces::default(), None).doing(doing)? {
        Fork::Child => {
            let done = ns::setns(namespace.as_fd(), Namespaces::MOUNT).and_then(|()| unmount(&path));
            process::exit_now(i32::from(done.is_err()))
        }
        Fork::Parent { pidfd, .. } => match process::wait(pidfd.as_fd(), true).doing(doing)? {
            Some(process::Ended::Exited(0)) => Ok(()),
            _ => Err(Error::setup(doing(), format!("it is still there in {}", join.path.display()))),
        },
    }
}

fn unmount(path: &CStr) -> hull_sys::Result<()> {
    loop {
        match mount::umount2(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there.
            Err(error) if matches!(error.errno(), Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_in_the_new_root_are_not_the_hosts() {
        let table = "20 1 0:5 / /proc rw - proc proc rw\n21 1 0:6 / /sys rw - sysfs sysfs rw\n\
                     33 31 0:5 / /proc rw - proc proc rw\n31 1 8:1 /root / rw - ext4 /dev/sda rw\n\
                     34 33 0:5 /sys /proc/sys ro - proc proc rw\n22 20 0:5 /sys /proc/sys ro - proc proc rw\n";
        assert_eq!(outside(table, "31"), [c"/proc/sys".to_owned(), c"/sys".to_owned(), c"/proc".to_owned()]);
    }
}
