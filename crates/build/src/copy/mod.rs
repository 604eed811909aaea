//! Copying into a step's root file system.
//!
//! The root is an image's and not trusted: the destination is resolved inside it, to a handle, and everything below is
//! done beside descriptors, without following symlinks. Rules as in BuildKit: a folder's contents are copied; an
//! existing file is replaced, never written through; a file where a folder must go, or a symlink, is an error; owners are 0:0 unless `--chown` says otherwise;
//! hard links among the copied files stay hard links; modes, times, file capabilities and `user.` attributes are kept.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_sys::fs::{self, Stat};
use hull_sys::path::Root;
use hull_sys::{Errno, Error, Result};
use rustix::fs::{FileType, OFlags, Timespec, Timestamps, XattrFlags};

use crate::context::Found;
use crate::walk::{self, Entry, Filter, Visitor, read_link};

/// Symlinks followed at the end of a destination, as many as the kernel does.
const MAX_LINKS: usize = 40;

/// How the copies look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits instead of the files' own.
    pub mode: Option<u32>,
}

/// Makes the folder `path` (absolute in the root) and those above it; new ones get mode 0755 and the owner.
/// Returns whether it was made.
///
/// # Errors
/// The failed call.
pub fn make_folders(root: &Root, path: &Path, uid: u32, gid: u32) -> Result<bool> {
    let mut above: Vec<&Path> = path.ancestors().filter(|path| path.parent().is_some()).collect();
    above.reverse();
    let mut missing = Vec::new();
    for folder in above {
        // Below a missing folder everything is missing.
        if !missing.is_empty() || is_missing(root, folder)? {
            missing.push(folder);
        }
    }
    if missing.is_empty() {
        return match FileType::from_raw_mode(fs::fstat(root.resolve(path)?.as_fd())?.st_mode) {
            FileType::Directory => Ok(false),
            _ => Err(Error::new("mkdirat", format!("{:?}", path.display().to_string()), Errno::NOTDIR)),
        };
    }
    root.mkdir_all(path, 0o755)?;
    for folder in missing.iter().filter(|_| (uid, gid) != (0, 0)) {
        fs::chown_handle(root.resolve(folder)?.as_fd(), uid, gid)?;
    }
    Ok(true)
}

fn is_missing(root: &Root, path: &Path) -> Result<bool> {
    match root.resolve(path) {
        Ok(_) => Ok(false),
        Err(error) if error.errno() == Errno::NOENT => Ok(true),
        Err(error) => Err(error),
    }
}

/// Copies into one root.
pub struct Copier<'a> {
    root: &'a Root,
    look: Look,
    /// Files with several names, by device and inode: where the first of them was copied to.
    links: HashMap<(u64, u64), (OwnedFd, CString)>,
    /// The folders entered, the innermost last, with what is left to do to them.
    folders: Vec<(OwnedFd, Stat)>,
    /// The path now being copied, for messages.
    pub current: PathBuf,
}

impl<'a> Copier<'a> {
    /// A copier into `root`.
    pub fn new(root: &'a Root, look: Look) -> Self {
        Self { root, look, links: HashMap::new(), folders: Vec::new(), current: PathBuf::new() }
    }

    /// Copies one source to `dest` (absolute; with `/` at the end, or `into`, it is a folder to copy into).
    ///
    /// # Errors
    /// The failed call; [`Copier::current`] is the file it happened at.
    pub fn copy(&mut self, found: &Found, filter: &Filter<'_>, dest: &str, into: bool) -> Result<()> {
        self.current = PathBuf::from(&found.path);
        if found.is_folder() {
            return self.contents(found, filter, dest);
        }
        let (folder, name) = self.place(dest, into, found.name())?;
        self.write_file(folder.as_fd(), &name, found.handle.as_fd(), &found.stat)
    }

    /// Writes a file whose content is given.
    ///
    /// # Errors
    /// The failed call.
    pub fn inline(&mut self, name: &str, body: &str, dest: &str, into: bool) -> Result<()> {
        self.current = PathBuf::from(name);
        let (folder, name) = self.place(dest, into, name)?;
        let file = self.create(folder.as_fd(), &name)?;
        write_all(file.as_fd(), body.as_bytes())?;
        self.finish_file(file.as_fd(), 0o644)
    }

    fn contents(&mut self, found: &Found, filter: &Filter<'_>, dest: &str) -> Result<()> {
        let path = Path::new(dest);
        let made = make_folders(self.root, path, self.look.uid, self.look.gid)?;
        let folder = self.root.open_read(path)?;
        // A folder that comes to be by this copy is like the source; one named with a slash, or an old one, is not.
        if made && !dest.ends_with('/') {
            fs::fchmod(folder.as_fd(), self.look.mode.unwrap_or(found.stat.st_mode & 0o7777))?;
        }
        self.folders = vec![(folder, found.stat)];
        let handle = fs::openat(found.handle.as_fd(), c".", OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        let copied = walk::contents(handle, filter, self);
        self.folders.clear();
        copied
    }

    /// The folder and the name that a single file goes to.
    fn place(&self, dest: &str, into: bool, name: &str) -> Result<(OwnedFd, CString)> {
        if into || dest.ends_with('/') {
            make_folders(self.root, Path::new(dest), self.look.uid, self.look.gid)?;
            return self.split(&Path::new(dest).join(name));
        }
        match self.root.resolve(Path::new(dest)) {
            Ok(handle) if kind_of(handle.as_fd())? == FileType::Directory => self.split(&Path::new(dest).join(name)),
            Ok(_) => self.split(Path::new(dest)),
            Err(error) if error.errno() == Errno::NOENT => {
                if let Some(parent) = Path::new(dest).parent() {
                    make_folders(self.root, parent, self.look.uid, self.look.gid)?;
                }
                self.split(Path::new(dest))
            }
            Err(error) => Err(error),
        }
    }

    /// Splits a path into the folder's handle and a name that is no symlink: one at the end is followed in the root.
    fn split(&self, path: &Path) -> Result<(OwnedFd, CString)> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let shown = || format!("{:?}", path.display().to_string());
            let name = path.file_name().ok_or_else(|| Error::new("openat", shown(), Errno::ISDIR))?;
            let name =
                crate::context::c_path(Path::new(name)).map_err(|_| Error::new("openat", shown(), Errno::INVAL))?;
            let parent = path.parent().unwrap_or(Path::new("/")).to_owned();
            let folder = self.root.resolve(&parent)?;
            match fs::lstatat(folder.as_fd(), &name) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    let target = read_link(folder.as_fd(), &name)?;
                    path = parent.join(Path::new(std::ffi::OsStr::new(&*target.to_string_lossy())));
                }
                Ok(_) => return Ok((folder, name)),
                Err(error) if error.errno() == Errno::NOENT => return Ok((folder, name)),
                Err(error) => return Err(error),
            }
        }
        Err(Error::new("openat", format!("{:?}", path.display().to_string()), Errno::LOOP))
    }

    /// A new, empty file in place of whatever had that name.
    fn create(&self, folder: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
        remove_file(folder, name)?;
        fs::openat(folder, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, 0o600)
    }

    fn write_file(&mut self, folder: BorrowedFd<'_>, name: &CStr, file: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
        let identity = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 {
            if let Some((first_folder, first)) = self.links.get(&identity) {
                remove_file(folder, name)?;
                return fs::linkat(first_folder.as_fd(), first, folder, name);
            }
            let again = fs::openat(folder, c".", OFlags::PATH | OFlags::DIRECTORY, 0)?;
            self.links.insert(identity, (again, name.to_owned()));
        }
        let copy = self.create(folder, name)?;
        copy_data(file, copy.as_fd(), stat.st_size as u64)?;
        self.finish_file(copy.as_fd(), stat.st_mode & 0o7777)?;
        // After the change of owner, which drops a file's capabilities.
        for (name, value) in attributes(file)? {
            rustix::fs::fsetxattr(copy.as_fd(), &*name, &value, XattrFlags::empty())
                .map_err(|errno| Error::new("fsetxattr", format!("{:?}", name.to_string_lossy()), errno))?;
        }
        set_times(copy.as_fd(), stat)
    }

    fn finish_file(&self, file: BorrowedFd<'_>, mode: u32) -> Result<()> {
        fs::chown_handle(file, self.look.uid, self.look.gid)?;
        fs::fchmod(file, self.look.mode.unwrap_or(mode))
    }

    fn top(&self) -> Result<BorrowedFd<'_>> {
        let top = self.folders.last().map(|(folder, _)| folder.as_fd());
        top.ok_or_else(|| Error::new("openat", "", Errno::BADF))
    }
}

impl Visitor for Copier<'_> {
    fn enter(&mut self, entry: &Entry<'_>, _folder: BorrowedFd<'_>) -> Result<()> {
        entry.path.clone_into(&mut self.current);
        let top = self.top()?;
        match fs::mkdirat(top, entry.name, 0o700) {
            Ok(()) => {}
            Err(error) if error.errno() == Errno::EXIST => {}
            Err(error) => return Err(error),
        }
        let folder = fs::openat(top, entry.name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, 0)?;
        self.finish_file(folder.as_fd(), entry.stat.st_mode & 0o7777)?;
        self.folders.push((folder, *entry.stat));
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        match self.folders.pop() {
            Some((folder, stat)) => set_times(folder.as_fd(), &stat),
            None => Ok(()),
        }
    }

    fn file(&mut self, entry: &Entry<'_>, file: BorrowedFd<'_>) -> Result<()> {
        entry.path.clone_into(&mut self.current);
        let top = self.top()?.try_clone_to_owned().map_err(|_| Error::new("fcntl", "", Errno::MFILE))?;
        self.write_file(top.as_fd(), entry.name, file, entry.stat)
    }

    fn link(&mut self, entry: &Entry<'_>, target: &CStr) -> Result<()> {
        entry.path.clone_into(&mut self.current);
        let top = self.top()?;
        remove_file(top, entry.name)?;
        fs::symlinkat(target, top, entry.name)?;
        fs::chownat(top, entry.name, self.look.uid, self.look.gid)
    }

    fn special(&mut self, entry: &Entry<'_>) -> Result<()> {
        entry.path.clone_into(&mut self.current);
        let top = self.top()?;
        remove_file(top, entry.name)?;
        let device = entry.stat.st_rdev;
        let number = (rustix::fs::major(device), rustix::fs::minor(device));
        fs::mknodat(top, entry.name, entry.kind(), self.look.mode.unwrap_or(entry.stat.st_mode & 0o7777), number)?;
        fs::chownat(top, entry.name, self.look.uid, self.look.gid)
    }
}

fn kind_of(handle: BorrowedFd<'_>) -> Result<FileType> {
    Ok(FileType::from_raw_mode(fs::fstat(handle)?.st_mode))
}

fn remove_file(folder: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    match fs::unlinkat(folder, name, false) {
        Err(error) if error.errno() == Errno::NOENT => Ok(()),
        other => other,
    }
}

fn write_all(file: BorrowedFd<'_>, mut data: &[u8]) -> Result<()> {
    while !data.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(file, data))
            .map_err(|errno| Error::new("write", "", errno))?;
        data = &data[count..];
    }
    Ok(())
}

/// All data of one file into another, inside the kernel where it can (shared blocks on btrfs and xfs).
fn copy_data(from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64) -> Result<()> {
    const AT_ONCE: usize = 1 << 30;
    let (mut read, mut written) = (0u64, 0u64);
    while read < size {
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), AT_ONCE) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            // Two file systems that do not know each other: through our hands.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) if written == 0 => break,
            Err(errno) => return Err(Error::new("copy_file_range", "", errno)),
        }
    }
    let mut buffer = Vec::new();
    loop {
        // Also after the kernel's copy: files of /proc and the like have a size of 0 and content all the same.
        if buffer.is_empty() {
            buffer.resize((size.saturating_sub(read) as usize).clamp(4 << 10, 256 << 10), 0);
        }
        let count = rustix::io::retry_on_intr(|| rustix::io::pread(from, &mut buffer[..], read))
            .map_err(|errno| Error::new("pread64", "", errno))?;
        if count == 0 {
            return Ok(());
        }
        let mut data = &buffer[..count];
        while !data.is_empty() {
            let done = rustix::io::retry_on_intr(|| rustix::io::pwrite(to, data, read))
                .map_err(|errno| Error::new("pwrite64", "", errno))?;
            read += done as u64;
            data = &data[done..];
        }
    }
}

fn set_times(file: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
    let time = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::futimens(file, &times).map_err(|errno| Error::new("utimensat", "", errno))
}

/// The extended attributes that a copy keeps: file capabilities and `user.`; the others belong to the file system
/// or the host's security module.
pub(crate) fn attributes(file: BorrowedFd<'_>) -> Result<Vec<(CString, Vec<u8>)>> {
    let wrong = |call| move |errno| Error::new(call, "", errno);
    let mut names = vec![0u8; 1 << 10];
    let length = loop {
        match rustix::fs::flistxattr(file, &mut names[..]) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Ok(length) => break length,
            Err(Errno::RANGE) if names.len() < 64 << 10 => names.resize(64 << 10, 0),
            Err(errno) => return Err(wrong("flistxattr")(errno)),
        }
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name != b"security.capability" && !name.starts_with(b"user.") {
            continue;
        }
        let Ok(name) = CString::new(name) else { continue };
        let mut value = vec![0u8; 64 << 10];
        let length = rustix::fs::fgetxattr(file, &*name, &mut value[..]).map_err(wrong("fgetxattr"))?;
        value.truncate(length);
        found.push((name, value));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
