//! A root file system as a plain folder: what `build -o DIR` leaves.
//!
//! It merges into what is there, as BuildKit's local exporter does: folders stay with what else is in them, everything
//! else is replaced. No symlink is followed on either side, so neither an image nor an old export decides where
//! something is written. Ends when the tree is copied; syncing is the caller's affair.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::apply::{OPAQUE, is_whiteout};
use crate::error::{Cannot, Error, Result};
use crate::tree;

/// The deepest tree: as deep as a path can be.
const DEPTH_MAX: usize = 2048;

/// Copies the tree `root` into the folder `dest`, which is made if it is not there: owners, modes, times, hard links,
/// extended attributes, devices.
///
/// # Errors
/// The kernel's, with the name of the file; `dest` that is not a folder.
pub fn export(root: BorrowedFd<'_>, dest: &Path) -> Result<()> {
    let shown = || format!("the folder {}", dest.display());
    match std::fs::create_dir_all(dest) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error).cannot("make", shown()),
        _ => {}
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let to = rustix::fs::open(dest, flags, Mode::empty()).cannot("open", shown())?;
    let from = tree::open_folder(root, c".").cannot("open", "the root file system")?;
    let stat = rustix::fs::fstat(&from).cannot("read", "the root file system")?;
    let mut export = Export { root: to.as_fd(), layer: false, links: HashMap::new(), buffer: Vec::new() };
    export.folder(&from, &to, &mut Vec::new(), 0)?;
    finish_folder(&from, &to, &stat).cannot("write", shown())
}

/// Copies the folder of a layer over what the layers below it left in `to`: a mark takes away what it hides.
pub(crate) fn lay(layer: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let stat = rustix::fs::fstat(layer).cannot("read", "a layer")?;
    let mut export = Export { root: to.as_fd(), layer: true, links: HashMap::new(), buffer: Vec::new() };
    export.folder(layer, to, &mut Vec::new(), 0)?;
    finish_folder(layer, to, &stat).cannot("write", "a copy of layers")
}

/// The attributes that go along: not overlay's marks, which no mounted overlay shows.
fn attributes(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Vec<(CString, Vec<u8>)>> {
    let mut all = tree::xattrs(dir, name)?;
    all.retain(|(key, _)| !key.to_bytes().starts_with(b"trusted.overlay."));
    Ok(all)
}

fn is_opaque(folder: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(tree::xattrs(folder.as_fd(), c".")?.iter().any(|(key, value)| key.as_c_str() == OPAQUE && value == b"y"))
}

fn clear(folder: &OwnedFd) -> rustix::io::Result<()> {
    tree::names(folder.as_fd())?.iter().try_for_each(|name| tree::remove(folder.as_fd(), name))
}

struct Export<'a> {
    root: BorrowedFd<'a>,
    /// Whether what is copied is a layer's own folder, with overlay's marks.
    layer: bool,
    /// Where the first name of an inode with several went.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl Export<'_> {
    fn folder(&mut self, from: &OwnedFd, to: &OwnedFd, path: &mut Vec<u8>, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Error::document(shown(path), "it lies too deep"));
        }
        for name in tree::names(from.as_fd()).cannot("list", shown(path))? {
            let length = path.len();
            path.extend_from_slice(name.to_bytes());
            let stat = tree::lstat(from.as_fd(), &name).cannot("read", shown(path))?;
            if tree::file_type(&stat) == FileType::Directory {
                let source = tree::open_folder(from.as_fd(), &name).cannot("open", shown(path))?;
                let target = enter(to.as_fd(), &name).cannot("make", shown(path))?;
                if self.layer && is_opaque(&source).cannot("read", shown(path))? {
                    clear(&target).cannot("empty", shown(path))?;
                }
                path.push(b'/');
                self.folder(&source, &target, path, depth + 1)?;
                finish_folder(&source, &target, &stat).cannot("write", shown(path))?;
            } else {
                self.entry(from.as_fd(), to.as_fd(), &name, path, &stat).cannot("export", shown(path))?;
            }
            path.truncate(length);
        }
        Ok(())
    }

    /// Everything that is not a folder.
    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        stat: &Stat,
    ) -> rustix::io::Result<()> {
        tree::remove(to, name)?;
        if self.layer && is_whiteout(stat) {
            return Ok(());
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                return self.link(first, to, name);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        let kind = tree::file_type(stat);
        match kind {
            FileType::RegularFile => return self.file(from, to, name, stat),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&target, to, name)?;
            }
            // A socket is nothing without the process behind it.
            FileType::Socket => return Ok(()),
            _ => rustix::fs::mknodat(to, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)?,
        }
        let (uid, gid) = owner(stat);
        rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != FileType::Symlink {
            let handle =
                rustix::fs::openat(to, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let mode = Mode::from_raw_mode(tree::permissions(stat));
            rustix::fs::chmodat(rustix::fs::CWD, tree::magic(handle.as_fd(), None), mode, AtFlags::empty())?;
        }
        for (key, value) in attributes(from, name)? {
            rustix::fs::lsetxattr(tree::magic(to, Some(name)), &key, &value, XattrFlags::empty())?;
        }
        rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// A further name of an inode that was copied already; the way to the first name has no symlink or ends in an error.
    fn link(&self, first: &[u8], to: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
        let (folder, base) = match first.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&first[..slash], &first[slash + 1..]),
            None => (b".".as_slice(), first),
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat2(self.root, folder, flags, Mode::empty(), resolve)?;
        let base = CString::new(base).map_err(|_| Errno::INVAL)?;
        rustix::fs::linkat(&folder, &base, to, name, AtFlags::empty())
    }

    fn file(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> rustix::io::Result<()> {
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from, name, read, Mode::empty())?;
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(to, name, write, Mode::from_raw_mode(0o600))?;
        copy(&source, &target, &mut self.buffer)?;
        let (uid, gid) = owner(stat);
        rustix::fs::fchown(&target, uid, gid)?;
        for (key, value) in attributes(from, name)? {
            rustix::fs::fsetxattr(&target, &key, &value, XattrFlags::empty())?;
        }
        rustix::fs::fchmod(&target, Mode::from_raw_mode(tree::permissions(stat)))?;
        rustix::fs::futimens(&target, &times(stat))
    }
}

/// The kernel copies where it can (a reflink on file systems that have them); between file systems it is read and written.
fn copy(from: &OwnedFd, to: &OwnedFd, buffer: &mut Vec<u8>) -> rustix::io::Result<()> {
    loop {
        match rustix::fs::copy_file_range(from, None, to, None, 1 << 30) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => break,
            Err(error) => return Err(error),
        }
    }
    // Also after a copy that said it was whole: of some file systems the kernel copies nothing and says so.
    buffer.resize(1 << 20, 0);
    loop {
        let length = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer[..]))?;
        if length == 0 {
            return Ok(());
        }
        let mut data = &buffer[..length];
        while !data.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(to, data))?;
            data = &data[written..];
        }
    }
}

/// The folder `name` in `to`; what else has the name gives way.
fn enter(to: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            if tree::file_type(&tree::lstat(to, name)?) != FileType::Directory {
                tree::remove(to, name)?;
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            }
        }
        Err(error) => return Err(error),
    }
    tree::open_folder(to, name)
}

fn finish_folder(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(to, uid, gid)?;
    for (key, value) in attributes(from.as_fd(), c".")? {
        rustix::fs::fsetxattr(to, &key, &value, XattrFlags::empty())?;
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(tree::permissions(stat)))?;
    rustix::fs::futimens(to, &times(stat))
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

fn shown(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(path))
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
