//! `tmpcopyup`: a tmpfs begins with what the image has in its place.
//!
//! The image is hostile: nothing is opened through a symlink, and only folders, regular files and symlinks are copied.
//! Both trees are walked by handles.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use hull_sys::fs;
use hull_sys::{Errno, Error, Result};
use rustix::fs::{Dir, FileType, OFlags};

/// Deeper than any folder of an image that is meant well.
const DEEPEST: u32 = 256;

/// Copies what is in the folder `from` (a handle, also of `O_PATH`) into the empty folder `to`, with modes and owners. The
/// mode of `to` itself stays, which an option of its mount has set.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mode = fs::fstat(to)?.st_mode & 0o7777;
    folder(from, to, DEEPEST)?;
    fs::fchmod(fs::openat(to, c".", OFlags::RDONLY | OFlags::DIRECTORY, 0)?.as_fd(), mode)
}

fn folder(from: BorrowedFd<'_>, to: BorrowedFd<'_>, left: u32) -> Result<()> {
    if left == 0 {
        return Err(Error::new("openat", "a folder too deep to be copied", Errno::NAMETOOLONG));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let from = fs::openat(from, c".", flags, 0)?;
    let to = fs::openat(to, c".", flags, 0)?;
    for entry in entries(from.as_fd())? {
        one(from.as_fd(), to.as_fd(), &entry, left)?;
    }
    let stat = fs::fstat(from.as_fd())?;
    finish(to.as_fd(), &stat)
}

fn entries(folder: BorrowedFd<'_>) -> Result<Vec<std::ffi::CString>> {
    let failed = |errno| Error::new("getdents64", "", errno);
    let mut names = Vec::new();
    for entry in Dir::read_from(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, left: u32) -> Result<()> {
    let stat = fs::lstatat(from, name)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            fs::mkdirat(to, name, 0o700)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            folder(fs::openat(from, name, flags, 0)?.as_fd(), fs::openat(to, name, flags, 0)?.as_fd(), left - 1)
        }
        FileType::RegularFile => {
            let source = fs::openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let made = fs::openat(to, name, flags, 0o600)?;
            fs::copy_all(source.as_fd(), made.as_fd())?;
            finish(made.as_fd(), &fs::fstat(source.as_fd())?)
        }
        FileType::Symlink => {
            let link = fs::readlinkat(from, name)?;
            fs::symlinkat(&link, to, name)?;
            fs::chownat(to, name, stat.st_uid, stat.st_gid)
        }
        // Devices, FIFOs and sockets are not content.
        _ => Ok(()),
    }
}

/// Owner before mode, for a change of owner clears set-id bits.
fn finish(file: BorrowedFd<'_>, stat: &fs::Stat) -> Result<()> {
    fs::chown_handle(file, stat.st_uid, stat.st_gid)?;
    fs::fchmod(file, stat.st_mode & 0o7777)
}
