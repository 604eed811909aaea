//! Whether two trees are the same: names, kinds, modes, owners, times, attributes, and every byte.
//!
//! The times of folders are left out: an archive need not name a folder, which then is as old as its unpacking.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::apply::{OPAQUE, is_whiteout};
use crate::error::{Cannot, Error, Result};
use crate::tree;

/// The deepest tree: as deep as a path can be.
const DEPTH_MAX: usize = 2048;

/// The path of the first entry in which `is` differs from `should`; none if they are the same.
///
/// # Errors
/// The kernel's.
pub(crate) fn difference(is: BorrowedFd<'_>, should: BorrowedFd<'_>) -> Result<Option<String>> {
    let mut path = Vec::new();
    let differs = folders(is, should, &mut path, 0)?;
    Ok(differs.then(|| String::from_utf8_lossy(&path).into_owned()))
}

/// Leaves `path` at what differs.
fn folders(is: BorrowedFd<'_>, should: BorrowedFd<'_>, path: &mut Vec<u8>, depth: usize) -> Result<bool> {
    if depth > DEPTH_MAX {
        return Err(Error::entry(path, "the tree is too deep"));
    }
    let shown = format!("the layer's folder {:?}", String::from_utf8_lossy(path));
    let names = tree::names(is).cannot("list", &shown)?;
    let wanted = tree::names(should).cannot("list", &shown)?;
    for name in &wanted {
        let length = path.len();
        path.push(b'/');
        path.extend_from_slice(name.to_bytes());
        if names.binary_search(name).is_err() || entries(is, should, name, path, depth)? {
            return Ok(true);
        }
        path.truncate(length);
    }
    for name in names.iter().filter(|name| wanted.binary_search(name).is_err()) {
        // A socket has no place in an archive, so a step's own tree may have one that what is unpacked has not.
        let stat = tree::lstat(is, name).cannot("read", format!("the layer's {name:?}"))?;
        if tree::file_type(&stat) != FileType::Socket {
            path.push(b'/');
            path.extend_from_slice(name.to_bytes());
            return Ok(true);
        }
    }
    Ok(false)
}

fn entries(
    is: BorrowedFd<'_>,
    should: BorrowedFd<'_>,
    name: &CStr,
    path: &mut Vec<u8>,
    depth: usize,
) -> Result<bool> {
    let text = format!("the layer's {:?}", String::from_utf8_lossy(path));
    let shown = || &text;
    let a = tree::lstat(is, name).cannot("read", shown())?;
    let b = tree::lstat(should, name).cannot("read", shown())?;
    if is_whiteout(&a) && is_whiteout(&b) {
        return Ok(false);
    }
    let kind = tree::file_type(&a);
    if traits(&a) != traits(&b) || (kind != FileType::Directory && inode(&a) != inode(&b)) {
        return Ok(true);
    }
    if xattrs(is, name).cannot("read", shown())? != xattrs(should, name).cannot("read", shown())? {
        return Ok(true);
    }
    match kind {
        FileType::Directory => {
            let a = tree::open_folder(is, name).cannot("open", shown())?;
            let b = tree::open_folder(should, name).cannot("open", shown())?;
            folders(a.as_fd(), b.as_fd(), path, depth + 1)
        }
        FileType::Symlink => {
            let a = rustix::fs::readlinkat(is, name, Vec::new()).cannot("read", shown())?;
            Ok(a != rustix::fs::readlinkat(should, name, Vec::new()).cannot("read", shown())?)
        }
        FileType::RegularFile => content_differs(is, should, name).cannot("read", shown()),
        _ => Ok(false),
    }
}

/// What every kind of entry has.
fn traits(stat: &Stat) -> (u32, u32, u32) {
    (stat.st_mode, stat.st_uid, stat.st_gid)
}

/// What all but folders have: size, device, names, time.
fn inode(stat: &Stat) -> (i64, u64, u64, i64) {
    (stat.st_size, stat.st_rdev, stat.st_nlink, stat.st_mtime)
}

/// What a layer has: of overlay's own attributes only that a folder is opaque, the others are how a tree came to be.
fn xattrs(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Vec<(CString, Vec<u8>)>> {
    let mut xattrs = tree::xattrs(dir, name)?;
    xattrs.retain(|(name, _)| !name.to_bytes().starts_with(b"trusted.overlay.") || name.as_c_str() == OPAQUE);
    Ok(xattrs)
}

fn content_differs(is: BorrowedFd<'_>, should: BorrowedFd<'_>, name: &CStr) -> std::io::Result<bool> {
    let open = |dir: BorrowedFd<'_>| {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(dir, name, flags, Mode::empty()).map(File::from)
    };
    let (mut a, mut b) = (open(is)?, open(should)?);
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let length = a.read(&mut left)?;
        if length == 0 {
            return Ok(b.read(&mut right)? != 0);
        }
        match b.read_exact(&mut right[..length]) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(true),
            result => result?,
        }
        if left[..length] != right[..length] {
            return Ok(true);
        }
    }
}
