//! The mounts of a container that are the host's: criu neither saves nor makes them, it binds at a restore what it is told.
//!
//! Each has a name, which is where the container has it. A bind that takes along what is mounted below its source has a name
//! for each of those.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_sys::fs::{self, CWD};
use hull_sys::ns::Namespaces;
use hull_sys::path::Root;
use rustix::fs::{AtFlags, StatxFlags};

use super::rpc::ExternalMount;
use crate::cgroup::View;
use crate::error::{Doing, Error, Result};
use crate::mounts;
use crate::plan::{MountStep, Plan, What};

/// A mount table of some thousand lines has not a tenth of this.
const LARGEST: usize = 16 << 20;
/// `STATX_ATTR_MOUNT_ROOT` of statx(2).
const MOUNT_ROOT: u64 = 0x2000;

/// A line of mountinfo: number, place and kind of file system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mounted {
    id: u64,
    place: PathBuf,
    kind: String,
}

fn table(path: &str) -> Result<Vec<Mounted>> {
    let doing = || format!("read {path}");
    let c_path = CString::new(path).map_err(|error| Error::invalid(doing(), error))?;
    let text = fs::read_file(CWD, &c_path, LARGEST).doing(doing)?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// Pure. Source: proc_pid_mountinfo(5).
fn parse(text: &str) -> Vec<Mounted> {
    let line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ');
        let (id, place) = (fields.next()?.parse().ok()?, fields.nth(3)?);
        let place = crate::cgroup::unescape(place).into();
        Some(Mounted { id, place, kind: after.split(' ').next()?.to_owned() })
    };
    text.lines().filter_map(line).collect()
}

/// Of the container whose first process is `pid`: what criu is not to look into, with its names.
pub(super) fn at_dump(plan: &Plan, pid: i32) -> Result<Vec<ExternalMount>> {
    let doing = || "look at the container's mounts".to_owned();
    let path = CString::new(format!("/proc/{pid}/root")).map_err(|error| Error::invalid(doing(), error))?;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let root = Root::from_fd(fs::openat(CWD, &path, flags, 0).doing(doing)?);
    let table = table(&format!("/proc/{pid}/mountinfo"))?;
    let mut found = BTreeMap::new();
    for step in &plan.mounts {
        let recursive = match step.what {
            What::Bind { recursive, .. } => recursive,
            What::Cgroup if !plan.namespaces.has(Namespaces::CGROUP) => true,
            _ => continue,
        };
        let Some(place) = place(&root, &step.destination, &table) else { continue };
        let own = |mount: &&Mounted| !is_made_later(plan, step, &mount.place);
        let below = |mount: &&Mounted| mount.place == place || recursive && mount.place.starts_with(&place);
        // Of a view of the control groups criu can make the tmpfs, not what is on it.
        let kind = |mount: &&Mounted| !matches!(step.what, What::Cgroup) || mount.kind.starts_with("cgroup");
        let all = table.iter().filter(below).filter(own).filter(kind);
        found.extend(all.map(|mount| (mount.place.clone(), mount.place.clone())));
    }
    Ok(external(found))
}

/// Where the mount is that the container has at `path`; none if it has unmounted it.
fn place(root: &Root, path: &Path, table: &[Mounted]) -> Option<PathBuf> {
    let handle = root.resolve(path).ok()?;
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    let about = rustix::fs::statx(&handle, c"", flags, StatxFlags::MNT_ID).ok()?;
    let is_mount = about.stx_attributes.bits() & MOUNT_ROOT != 0;
    let found = table.iter().find(|mount| mount.id == about.stx_mnt_id).filter(|_| is_mount)?;
    (found.place != Path::new("/")).then(|| found.place.clone())
}

/// Whether what is mounted at `place` belongs to a step that comes after `step` and is nearer.
fn is_made_later(plan: &Plan, step: &MountStep, place: &Path) -> bool {
    let nearer = |other: &MountStep| {
        other.destination != step.destination
            && other.destination.starts_with(&step.destination)
            && place.starts_with(&other.destination)
    };
    plan.mounts.iter().any(nearer)
}

fn external(found: BTreeMap<PathBuf, PathBuf>) -> Vec<ExternalMount> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    found.into_iter().map(|(key, value)| ExternalMount { key: text(key), value: text(value) }).collect()
}

/// For a container that is to be restored below `root`: what of the host's each name stands for. Places that are missing in
/// the root are made, as a creation makes them.
pub(super) fn at_restore(plan: &Plan, root: BorrowedFd<'_>, view: &View) -> Result<Vec<ExternalMount>> {
    let doing = || "look for the places of mounts".to_owned();
    let base = own_path(root).doing(doing)?;
    let root = Root::from_fd(root.try_clone_to_owned().map_err(|error| Error::setup(doing(), error))?);
    let host = table("/proc/self/mountinfo")?;
    let mut found = BTreeMap::new();
    for (index, step) in plan.mounts.iter().enumerate() {
        let place = prepare(&root, &base, plan, index)?;
        match &step.what {
            What::Bind { source, recursive } => {
                let doing = || format!("mount {} at {}", source.display(), step.destination.display());
                let source = std::fs::canonicalize(source).map_err(|error| Error::setup(doing(), error))?;
                let below = host.iter().filter(|mount| *recursive && mount.place != source);
                found.extend(below.filter_map(|mount| {
                    let rest = mount.place.strip_prefix(&source).ok()?;
                    Some((place.join(rest), mount.place.clone()))
                }));
                found.insert(place, source);
            }
            What::Cgroup if !plan.namespaces.has(Namespaces::CGROUP) => match view {
                View::Unified(folder) => drop(found.insert(place, folder.clone())),
                View::V1(all) => found.extend(all.iter().map(|(controllers, folder)| {
                    let name = controllers.join(",");
                    (place.join(name.trim_start_matches("name=")), folder.clone())
                })),
            },
            _ => {}
        }
    }
    Ok(external(found))
}

/// Where a step's mount will be in the container. In the root the place is made if it is missing; on an earlier mount it is
/// there, with all else that this has.
fn prepare(root: &Root, base: &Path, plan: &Plan, index: usize) -> Result<PathBuf> {
    let step = &plan.mounts[index];
    let covered = plan.mounts[..index]
        .iter()
        .any(|other| other.destination != step.destination && step.destination.starts_with(&other.destination));
    if covered || matches!(step.what, What::Remount { .. }) {
        return Ok(step.destination.clone());
    }
    let doing = || format!("make the place {}", step.destination.display());
    let folder = match &step.what {
        What::Bind { source, .. } => std::fs::metadata(source).is_ok_and(|found| found.is_dir()),
        _ => true,
    };
    let handle: OwnedFd = mounts::target(root, &step.destination, folder).doing(doing)?;
    let path = own_path(handle.as_fd()).doing(doing)?;
    // A link of the image may have led elsewhere, inside the root.
    Ok(path.strip_prefix(base).map_or_else(|_| step.destination.clone(), |rest| Path::new("/").join(rest)))
}

/// The path of what a descriptor is for, as the kernel has it.
fn own_path(of: BorrowedFd<'_>) -> hull_sys::Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let link = CString::new(format!("/proc/self/fd/{}", of.as_raw_fd())).unwrap_or_default();
    let path = fs::readlinkat(CWD, &link)?;
    Ok(std::ffi::OsString::from_vec(path.into_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_has_number_place_and_kind() {
        let text = "41 33 0:5 /x /a\\040b rw,nosuid shared:7 master:3 - tmpfs none rw\nbroken\n42 41 8:1 / / rw - ext4 /dev/sda rw\n";
        let mount = |id, place: &str, kind: &str| Mounted { id, place: place.into(), kind: kind.into() };
        assert_eq!(parse(text), [mount(41, "/a b", "tmpfs"), mount(42, "/", "ext4")]);
    }
}
