//! Folders by descriptor: opening, listing and removing trees without a path ever being resolved twice.
//!
//! All names are single components and no symlink is followed. What is made of a tree (layers, archives, exports)
//! is said elsewhere.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, Result};

/// How a folder is opened: for reading, never through a symlink.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens the folder `name` in `dir`; a symlink or another file is `ENOTDIR`.
pub(crate) fn open_folder(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    rustix::fs::openat(dir, name, FOLDER, Mode::empty())
}

/// The status of `name` in `dir` itself, not of what a symlink says.
pub(crate) fn lstat(dir: BorrowedFd<'_>, name: &CStr) -> Result<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The permission and set-id bits.
pub(crate) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// The names in a folder, sorted by their bytes, without `.` and `..`.
pub(crate) fn names(dir: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes `name` in `dir`, a folder with everything in it; what is not there is fine.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    remove_folder(dir, name)
}

/// A loop and not a recursion: the depth of a hostile tree must not be the depth of our stack.
///
/// At most [`HELD`] descriptors are held on the way down; below that a folder is moved up to the top first.
fn remove_folder(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let top = open_folder(dir, name)?;
    let mut moved = 0u64;
    loop {
        let left = empty(&top, &mut moved)?;
        if !left {
            break;
        }
    }
    drop(top);
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// Descriptors held at once while a tree is removed.
const HELD: usize = 64;

/// One pass over `top`; true if folders that lay too deep were moved into it, so that another pass is needed.
fn empty(top: &OwnedFd, moved: &mut u64) -> Result<bool> {
    let mut again = false;
    let mut stack = vec![(top.try_clone().map_err(io)?, names(top.as_fd())?)];
    loop {
        let depth = stack.len();
        let Some((folder, left)) = stack.last_mut() else { break };
        let Some(name) = left.pop() else {
            stack.pop();
            // Its own name is still on the parent's list and is removed as an empty folder now.
            continue;
        };
        match rustix::fs::unlinkat(&*folder, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        match rustix::fs::unlinkat(&*folder, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        if depth >= HELD {
            park(folder.as_fd(), &name, top, moved)?;
            again = true;
            continue;
        }
        let child = open_folder(folder.as_fd(), &name)?;
        let inside = names(child.as_fd())?;
        left.push(name);
        stack.push((child, inside));
    }
    Ok(again)
}

/// Moves a folder that lies deep to the top, under a name that is free there.
fn park(folder: BorrowedFd<'_>, name: &CStr, top: &OwnedFd, moved: &mut u64) -> Result<()> {
    loop {
        *moved += 1;
        let parking = CString::new(format!(".hull-remove-{moved}")).map_err(|_| Errno::INVAL)?;
        match rustix::fs::renameat_with(folder, name, top, &parking, rustix::fs::RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            result => return result,
        }
    }
}

/// The errno of a standard-library error.
pub(crate) fn io(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// `/proc/self/fd/N`, for the extended-attribute calls that have no `*at` form. The link is the kernel's own and
/// leads to the inode that the descriptor holds, whatever its path has become.
pub(crate) fn magic(fd: BorrowedFd<'_>, name: Option<&CStr>) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes();
    if let Some(name) = name {
        path.push(b'/');
        path.extend_from_slice(name.to_bytes());
    }
    path
}

/// The extended attributes at a path that does not follow symlinks at its end, sorted by name.
pub(crate) fn xattrs(dir: BorrowedFd<'_>, name: &CStr) -> Result<Vec<(CString, Vec<u8>)>> {
    let path = magic(dir, Some(name));
    let length = match rustix::fs::llistxattr_query(path.as_slice()) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(length) => length,
        Err(error) => return Err(error),
    };
    let mut list = vec![0u8; length];
    let length = rustix::fs::llistxattr(path.as_slice(), list.as_mut_slice())?;
    list.truncate(length);
    let mut found = Vec::new();
    for key in list.split_inclusive(|byte| *byte == 0) {
        let key = CStr::from_bytes_with_nul(key).map_err(|_| Errno::INVAL)?;
        // The kernel's bound on a value is 64 KiB.
        let mut value = vec![0u8; 65536];
        match rustix::fs::lgetxattr(path.as_slice(), key, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                found.push((key.to_owned(), value));
            }
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
