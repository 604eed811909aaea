//! `mount(2)` in place of detached mounts, for where the kernel, or a filter in front of it, has none.
//!
//! What would be detached is mounted in a small tmpfs in a mount namespace that only this process is in, and is moved from
//! there. The container's process inherits that namespace instead of a copy, because only who is in it may move its
//! mounts; its parent leaves it right after the clone ([`crate::ns`]). What this cannot do is an error with the name of
//! the call that is missing: ids that are mapped, and a user namespace, which has to have made its own mount namespace.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, FileType, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags};

use crate::call::{Arg, Error, Result, call};
use crate::mount::{self, MountAttr};
use crate::ns::{self, Namespaces};
use crate::{fs, trace};

/// A folder that is there wherever there is a procfs; what is below it nobody needs.
const FOLDER: &CStr = c"/proc/fs";

static IN_USE: AtomicBool = AtomicBool::new(false);
/// Whether nobody but us, and a child to be, is in our mount namespace.
static ALONE: AtomicBool = AtomicBool::new(false);
/// Whether a child is to be in the same mount namespace as we are.
static LENDS: AtomicBool = AtomicBool::new(false);
/// The tmpfs. By its descriptor, for the container's procfs covers the folder in between.
static SCRATCH: Mutex<Option<OwnedFd>> = Mutex::new(None);
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Whether one of the calls was missing.
pub(crate) fn in_use() -> bool {
    IN_USE.load(Ordering::Relaxed)
}

/// Notes that a call is missing, if that is what `result` says.
pub(crate) fn missing<T>(result: &Result<T>) -> bool {
    let missing = matches!(result, Err(error) if error.errno() == Errno::NOSYS);
    if missing {
        IN_USE.store(true, Ordering::Relaxed);
    }
    missing
}

/// Whether the next child is to be cloned into our own mount namespace, which we leave then by [`leave`].
pub(crate) fn lends() -> bool {
    LENDS.load(Ordering::Relaxed)
}

/// In a child: whether it has a mount namespace of its own.
pub(crate) fn born(alone: bool) {
    LENDS.store(false, Ordering::Relaxed);
    if alone {
        ALONE.store(true, Ordering::Relaxed);
    }
}

/// Leaves our mount namespace to the child that was cloned into it.
pub(crate) fn leave() -> Result<()> {
    ns::unshare(Namespaces::MOUNT)?;
    if scratch().take().is_some() {
        // Copies of all that was made for the child.
        mount::umount2(FOLDER, UnmountFlags::DETACH)?;
    }
    Ok(())
}

fn scratch() -> MutexGuard<'static, Option<OwnedFd>> {
    // There is one thread, and what it leaves in there is whole.
    SCRATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A new place to mount on.
fn place(folder: bool) -> Result<CString> {
    if !ALONE.swap(true, Ordering::Relaxed) {
        trace::stage(
            "make room for mounts",
            "This kernel, or a filter in front of it, has no detached mounts: they are made in a mount namespace of our own.",
        );
        ns::unshare(Namespaces::MOUNT)?;
        // What the host mounts later is still told, as it is to a container in a copy of its namespace.
        mount::set_propagation(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        LENDS.store(true, Ordering::Relaxed);
    }
    let mut scratch = scratch();
    if scratch.is_none() {
        raw(c"hull", FOLDER, c"tmpfs", MountFlags::empty(), c"size=1m,mode=700")?;
        *scratch = Some(fs::openat(CWD, FOLDER, OFlags::PATH | OFlags::DIRECTORY, 0)?);
    }
    let dir = scratch.as_ref().map_or(CWD, AsFd::as_fd);
    let name = text(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
    match folder {
        true => fs::mkdirat(dir, &name, 0o700)?,
        false => drop(fs::openat(dir, &name, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, 0o600)?),
    }
    Ok(named(dir, &name))
}

fn text(text: String) -> CString {
    // Made of numbers and of what were C strings.
    CString::new(text).unwrap_or_default()
}

/// A path to what `dir` and `path` mean together.
fn named(dir: BorrowedFd<'_>, path: &CStr) -> CString {
    let below = path.to_string_lossy();
    match (dir.as_raw_fd() == CWD.as_raw_fd(), below.is_empty()) {
        (true, _) => path.to_owned(),
        (false, true) => text(format!("/proc/self/fd/{}", dir.as_raw_fd())),
        (false, false) => text(format!("/proc/self/fd/{}/{below}", dir.as_raw_fd())),
    }
}

fn raw(source: &CStr, target: &CStr, kind: &CStr, flags: MountFlags, data: &CStr) -> Result<()> {
    let args = [Arg::cstr(source), Arg::cstr(target), Arg::cstr(kind), Arg::Prefixed("MS_", &flags), Arg::cstr(data)];
    call("mount", &args, || rustix::mount::mount(source, target, kind, flags, data))
}

/// In place of `open_tree(2)`.
pub(crate) fn open_tree(dir: BorrowedFd<'_>, path: &CStr, flags: OpenTreeFlags) -> Result<OwnedFd> {
    let source = named(dir, path);
    if !flags.contains(OpenTreeFlags::OPEN_TREE_CLONE) {
        return fs::openat(CWD, &source, OFlags::PATH, 0);
    }
    // By a handle, so that what is looked at is what is mounted.
    let handle = fs::openat(CWD, &source, OFlags::PATH, 0)?;
    let folder = FileType::from_raw_mode(fs::fstat(handle.as_fd())?.st_mode) == FileType::Directory;
    let target = place(folder)?;
    // After the namespace may have become another, in which the handle's mount is not.
    let source = if path.is_empty() && !lends() { named(handle.as_fd(), c"") } else { source };
    let recursive = if flags.contains(OpenTreeFlags::AT_RECURSIVE) { MountFlags::REC } else { MountFlags::empty() };
    raw(&source, &target, c"", MountFlags::BIND | recursive, c"")?;
    let made = fs::openat(CWD, &target, OFlags::PATH, 0)?;
    let (seen, there) = (fs::fstat(handle.as_fd())?, fs::fstat(made.as_fd())?);
    if (seen.st_dev, seen.st_ino) != (there.st_dev, there.st_ino) {
        return Err(Error::new(
            "open_tree",
            format!("{}, exchanged meanwhile", source.to_string_lossy()),
            Errno::AGAIN,
        ));
    }
    Ok(made)
}

/// In place of `fsopen(2)`, `fsconfig(2)` and `fsmount(2)`.
pub(crate) fn new_filesystem(
    kind: &CStr,
    source: Option<&CStr>,
    options: &[(CString, Option<CString>)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let target = place(true)?;
    let words: Vec<String> = options
        .iter()
        .map(|(key, value)| match value {
            // A label with categories, which fsconfig(2) wants without.
            Some(value) if key.to_bytes().ends_with(b"context") => {
                format!("{}=\"{}\"", key.to_string_lossy(), value.to_string_lossy())
            }
            Some(value) => format!("{}={}", key.to_string_lossy(), value.to_string_lossy()),
            None => key.to_string_lossy().into_owned(),
        })
        .collect();
    let flags = flags_of(u64::from(attributes.bits()), MountFlags::empty());
    raw(source.unwrap_or(c"none"), &target, kind, flags, &text(words.join(",")))?;
    fs::openat(CWD, &target, OFlags::PATH, 0)
}

/// `MOUNT_ATTR_*` as the flags of `mount(2)`, on top of `others`.
fn flags_of(attributes: u64, others: MountFlags) -> MountFlags {
    let mut flags = others;
    for (attribute, flag) in [
        (0x1, MountFlags::RDONLY),
        (0x2, MountFlags::NOSUID),
        (0x4, MountFlags::NODEV),
        (0x8, MountFlags::NOEXEC),
        (0x10, MountFlags::NOATIME),
        (0x20, MountFlags::STRICTATIME),
        (0x80, MountFlags::NODIRATIME),
        (0x0020_0000, MountFlags::from_bits_retain(256)),
    ] {
        flags.set(flag, flags.contains(flag) || attributes & attribute != 0);
    }
    flags
}

/// In place of `mount_setattr(2)`.
pub(crate) fn mount_setattr(dir: BorrowedFd<'_>, path: &CStr, recursive: bool, attr: MountAttr) -> Result<()> {
    let target = named(dir, path);
    if attr.userns_fd != 0 {
        return Err(Error::new("mount_setattr", format!("{attr}"), Errno::NOSYS));
    }
    if attr.set | attr.clear != 0 {
        change(&target, attr)?;
        if recursive {
            below(&target)?.iter().try_for_each(|mounted| change(mounted, attr))?;
        }
    }
    if attr.propagation != 0 {
        let all = if recursive { MountPropagationFlags::REC } else { MountPropagationFlags::empty() };
        mount::set_propagation(&target, MountPropagationFlags::from_bits_retain(attr.propagation as u32) | all)?;
    }
    Ok(())
}

fn change(target: &CStr, attr: MountAttr) -> Result<()> {
    let now = rustix::fs::statvfs(target).map_err(|errno| Error::new("statfs", format!("{target:?}"), errno))?;
    // ST_* and MS_* are the same bits for these.
    let kept = MountFlags::from_bits_retain(now.f_flag.bits() as u32 & (1 | 2 | 4 | 8 | 256 | 1024 | 2048))
        .difference(flags_of(attr.clear, MountFlags::empty()));
    // Each of the three times is set whole.
    let times = MountFlags::NOATIME | MountFlags::STRICTATIME;
    let kept = if attr.clear & 0x70 != 0 { kept.difference(times) } else { kept };
    let flags = flags_of(attr.set, kept);
    let args = [
        Arg::Text("NULL"),
        Arg::cstr(target),
        Arg::Text("NULL"),
        Arg::Prefixed("MS_", &flags),
        Arg::Text("REMOUNT|BIND"),
    ];
    call("mount", &args, || rustix::mount::mount_remount(target, MountFlags::BIND | flags, c""))
}

/// The mounts below the one at `target`, by their paths.
fn below(target: &CStr) -> Result<Vec<CString>> {
    let handle = fs::openat(CWD, target, OFlags::PATH, 0)?;
    let info = fs::read_file(CWD, &text(format!("/proc/self/fdinfo/{}", handle.as_raw_fd())), 4096)?;
    let id =
        String::from_utf8_lossy(&info).lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    let id: u64 = id.ok_or_else(|| Error::new("read", "fdinfo", Errno::IO))?;
    let table = fs::read_file(CWD, c"/proc/self/mountinfo", 16 << 20)?;
    let (mut parents, mut found) = (vec![id], Vec::new());
    // A mount comes after the one that it is on.
    for line in table.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let number = |at: usize| fields.get(at).and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
        if let (Some(id), Some(parent), Some(path)) = (number(0), number(1), fields.get(4)) {
            if parents.contains(&parent) {
                parents.push(id);
                found.push(unescaped(path));
            }
        }
    }
    Ok(found)
}

/// A path of mountinfo(5), where a blank is `\040`.
fn unescaped(path: &[u8]) -> CString {
    let (mut plain, mut rest) = (Vec::with_capacity(path.len()), path);
    while let Some((first, more)) = rest.split_first() {
        let octal = more.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match (first, octal) {
            (b'\\', Some(byte)) => (plain.push(byte), rest = &more[3..]).1,
            _ => (plain.push(*first), rest = more).1,
        }
    }
    CString::new(std::ffi::OsStr::from_bytes(&plain).as_bytes()).unwrap_or_default()
}
