//! Mounts as objects: a file system or a bind is made detached, held by a descriptor, and attached by a move.
//!
//! Sources: `fsopen(2)`, `fsconfig(2)`, `fsmount(2)`, `open_tree(2)`, `move_mount(2)`, `mount_setattr(2)`,
//! `pivot_root(2)`. A detached mount that nobody attaches disappears with its last descriptor.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::CWD;
pub use rustix::mount::{
    FsMountFlags, FsPickFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use crate::call::{Arg, Result, call};
use crate::classic;

/// `fsopen(2)`: a context in which a file system of the type `name` is configured.
pub fn fsopen(name: &CStr) -> Result<OwnedFd> {
    let flags = rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC;
    call("fsopen", &[Arg::cstr(name), Arg::Flags(&flags)], || rustix::mount::fsopen(name, flags))
}

/// `fsconfig(2)` with `FSCONFIG_SET_STRING`.
pub fn fsconfig_string(fs: BorrowedFd<'_>, key: &CStr, value: &CStr) -> Result<()> {
    let args = [Arg::fd(&fs), Arg::Text("FSCONFIG_SET_STRING"), Arg::cstr(key), Arg::cstr(value), Arg::Int(0)];
    call("fsconfig", &args, || rustix::mount::fsconfig_set_string(fs, key, value))
}

/// `fsconfig(2)` with `FSCONFIG_SET_FLAG`.
pub fn fsconfig_flag(fs: BorrowedFd<'_>, key: &CStr) -> Result<()> {
    let args = [Arg::fd(&fs), Arg::Text("FSCONFIG_SET_FLAG"), Arg::cstr(key), Arg::Text("NULL"), Arg::Int(0)];
    call("fsconfig", &args, || rustix::mount::fsconfig_set_flag(fs, key))
}

/// `fsconfig(2)` with `FSCONFIG_SET_FD`.
pub fn fsconfig_fd(fs: BorrowedFd<'_>, key: &CStr, value: BorrowedFd<'_>) -> Result<()> {
    let args = [Arg::fd(&fs), Arg::Text("FSCONFIG_SET_FD"), Arg::cstr(key), Arg::Text("NULL"), Arg::fd(&value)];
    call("fsconfig", &args, || rustix::mount::fsconfig_set_fd(fs, key, value))
}

/// `fsconfig(2)` with `FSCONFIG_CMD_CREATE`: the superblock comes to be.
pub fn fsconfig_create(fs: BorrowedFd<'_>) -> Result<()> {
    let args = [Arg::fd(&fs), Arg::Text("FSCONFIG_CMD_CREATE"), Arg::Text("NULL"), Arg::Text("NULL"), Arg::Int(0)];
    call("fsconfig", &args, || rustix::mount::fsconfig_create(fs))
}

/// `fsmount(2)`: a detached mount of what was configured, with `attributes`.
pub fn fsmount(fs: BorrowedFd<'_>, attributes: MountAttrFlags) -> Result<OwnedFd> {
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    call("fsmount", &[Arg::fd(&fs), Arg::Flags(&flags), Arg::Flags(&attributes)], || {
        rustix::mount::fsmount(fs, flags, attributes)
    })
}

/// `open_tree(2)`; with `OPEN_TREE_CLONE` a detached copy of the mount at `path`.
pub fn open_tree(dir: BorrowedFd<'_>, path: &CStr, flags: OpenTreeFlags) -> Result<OwnedFd> {
    if classic::in_use() {
        return classic::open_tree(dir, path, flags);
    }
    let result = open_tree_itself(dir, path, flags);
    if classic::missing(&result) { classic::open_tree(dir, path, flags) } else { result }
}

/// Whether mounts can be made that are in no mount namespace. Known once the first was tried.
pub fn can_detach() -> bool {
    !classic::in_use()
}

/// The call itself, and nothing in its place.
pub(crate) fn open_tree_itself(dir: BorrowedFd<'_>, path: &CStr, flags: OpenTreeFlags) -> Result<OwnedFd> {
    let flags = flags | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    call("open_tree", &[Arg::fd(&dir), Arg::cstr(path), Arg::Flags(&flags)], || {
        rustix::mount::open_tree(dir, path, flags)
    })
}

/// `move_mount(2)` of the detached mount `from` onto the file or folder that `onto` is a handle of.
///
/// Neither side is a path, so nothing can be exchanged between the look and the mount.
pub fn attach(from: BorrowedFd<'_>, onto: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(from, c"", onto, c"", flags)
}

/// `move_mount(2)`.
pub fn move_mount(
    from: BorrowedFd<'_>,
    from_path: &CStr,
    to: BorrowedFd<'_>,
    to_path: &CStr,
    flags: MoveMountFlags,
) -> Result<()> {
    let args = [Arg::fd(&from), Arg::cstr(from_path), Arg::fd(&to), Arg::cstr(to_path), Arg::Flags(&flags)];
    call("move_mount", &args, || rustix::mount::move_mount(from, from_path, to, to_path, flags))
}

/// The arguments of `mount_setattr(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MountAttr {
    /// Attributes to set, `MOUNT_ATTR_*`.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`; 0 leaves it.
    pub propagation: u64,
    /// With `MOUNT_ATTR_IDMAP`: the user namespace's descriptor.
    pub userns_fd: u64,
}

impl MountAttr {
    /// `MOUNT_ATTR_IDMAP` with the mappings of the user namespace `users`.
    pub fn idmap(users: BorrowedFd<'_>) -> Self {
        const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
        Self { set: MOUNT_ATTR_IDMAP, userns_fd: users.as_raw_fd() as u64, ..Self::default() }
    }
}

struct Attributes(u64);

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = MountAttrFlags::from_bits_retain(self.0 as u32);
        write!(f, "{}", Arg::Flags(&known))
    }
}

impl fmt::Display for MountAttr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{set={}, clear={}", Attributes(self.set), Attributes(self.clear))?;
        if self.propagation != 0 {
            let flags = MountPropagationFlags::from_bits_retain(self.propagation as u32);
            write!(f, ", propagation={}", Arg::Prefixed("MS_", &flags))?;
        }
        if self.userns_fd != 0 {
            write!(f, ", userns_fd={}", self.userns_fd)?;
        }
        f.write_str("}")
    }
}

/// `mount_setattr(2)` on the mount at `path`, or with `AT_EMPTY_PATH` on `dir` itself; `AT_RECURSIVE` for all below.
pub fn mount_setattr(dir: BorrowedFd<'_>, path: &CStr, recursive: bool, attr: MountAttr) -> Result<()> {
    if classic::in_use() {
        return classic::mount_setattr(dir, path, recursive, attr);
    }
    let result = mount_setattr_itself(dir, path, recursive, attr);
    if classic::missing(&result) { classic::mount_setattr(dir, path, recursive, attr) } else { result }
}

/// Finds out whether there is such a call, before something is made that only it could change.
pub(crate) fn look_for_setattr() {
    // Of no mount: the answer is an error either way.
    let _ = classic::missing(&mount_setattr_itself(CWD, c"/proc/self/exe/none", false, MountAttr::default()));
}

/// The call itself, and nothing in its place.
pub(crate) fn mount_setattr_itself(dir: BorrowedFd<'_>, path: &CStr, recursive: bool, attr: MountAttr) -> Result<()> {
    const AT_RECURSIVE: i32 = 0x8000;
    let (mut flags, mut names) = (0, Vec::new());
    for (given, flag, name) in
        [(path.is_empty(), libc::AT_EMPTY_PATH, "AT_EMPTY_PATH"), (recursive, AT_RECURSIVE, "AT_RECURSIVE")]
    {
        if given {
            flags |= flag;
            names.push(name);
        }
    }
    let text = if names.is_empty() { "0".to_owned() } else { names.join("|") };
    let args =
        [Arg::fd(&dir), Arg::cstr(path), Arg::Text(&text), Arg::Show(&attr), Arg::Int(size_of::<MountAttr>() as i64)];
    call("mount_setattr", &args, || {
        // SAFETY: the path is terminated, and the structure has the size that is given with it.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                dir.as_raw_fd(),
                path.as_ptr(),
                flags,
                &raw const attr,
                size_of::<MountAttr>(),
            )
        };
        crate::process::check(result).map(drop)
    })
}

/// Changes what the mounts of this namespace, from `path` on, tell their peers and are told by them.
///
/// # Errors
/// `mount(2)`'s.
pub fn set_propagation(path: &CStr, flags: MountPropagationFlags) -> Result<()> {
    let args =
        [Arg::Text("NULL"), Arg::cstr(path), Arg::Text("NULL"), Arg::Prefixed("MS_", &flags), Arg::Text("NULL")];
    call("mount", &args, || rustix::mount::mount_change(path, flags))
}

/// `umount2(2)`.
pub fn umount2(path: &CStr, flags: UnmountFlags) -> Result<()> {
    call("umount2", &[Arg::cstr(path), Arg::Prefixed("MNT_", &flags)], || rustix::mount::unmount(path, flags))
}

/// `pivot_root(2)`.
pub fn pivot_root(new_root: &CStr, put_old: &CStr) -> Result<()> {
    call("pivot_root", &[Arg::cstr(new_root), Arg::cstr(put_old)], || rustix::process::pivot_root(new_root, put_old))
}

/// A new file system as a detached mount: the four calls of the mount interface in their order.
///
/// `options` are strings (`size=64m` as `("size", Some("64m"))`) and flags (`("nr_inodes", None)`).
pub fn new_filesystem(
    kind: &CStr,
    source: Option<&CStr>,
    options: &[(CString, Option<CString>)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    if classic::in_use() {
        return classic::new_filesystem(kind, source, options, attributes);
    }
    let context = fsopen(kind);
    if classic::missing(&context) {
        return classic::new_filesystem(kind, source, options, attributes);
    }
    let context = context?;
    if let Some(source) = source {
        fsconfig_string(context.as_fd(), c"source", source)?;
    }
    configure(context.as_fd(), options)?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), attributes)
}

/// Changes the file system of a mount: `fspick(2)` and `fsconfig(2)`.
pub fn reconfigure(mounted: BorrowedFd<'_>, options: &[(CString, Option<CString>)]) -> Result<()> {
    let flags = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
    let context = call("fspick", &[Arg::fd(&mounted), Arg::Str(b""), Arg::Flags(&flags)], || {
        rustix::mount::fspick(mounted, c"", flags)
    })?;
    configure(context.as_fd(), options)?;
    let args =
        [Arg::fd(&context), Arg::Text("FSCONFIG_CMD_RECONFIGURE"), Arg::Text("NULL"), Arg::Text("NULL"), Arg::Int(0)];
    call("fsconfig", &args, || rustix::mount::fsconfig_reconfigure(context.as_fd()))
}

fn configure(context: BorrowedFd<'_>, options: &[(CString, Option<CString>)]) -> Result<()> {
    options.iter().try_for_each(|(key, value)| match value {
        Some(value) => fsconfig_string(context, key, value),
        None => fsconfig_flag(context, key),
    })
}

/// A detached copy of the mount at a host path, `recursive` with everything mounted below it.
pub fn clone_tree(path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags)
}
