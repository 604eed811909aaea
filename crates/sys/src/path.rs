//! Paths inside a root that we do not trust, resolved once, to a handle.
//!
//! A thin layer over `pathrs`: symlinks and `..` are resolved as a process with that root would see them
//! (`openat2(2)` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`, or its descriptor-by-descriptor fallback). Each
//! resolution is one event of the trace, however many calls it took.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pathrs::error::ErrorKind;
use pathrs::flags::OpenFlags;
use pathrs::{InodeType, RootRef};
use rustix::io::Errno;

use crate::call::{Error, Result};
use crate::trace;

/// A folder that is the root of everything resolved through it.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// The folder `dir` as a root.
    pub fn from_fd(dir: OwnedFd) -> Self {
        Self(dir)
    }

    /// The handle of an existing file or folder, symlinks followed inside the root.
    pub fn resolve(&self, path: &Path) -> Result<OwnedFd> {
        self.walk("resolve", path, |root| root.resolve(path).map(OwnedFd::from))
    }

    /// As [`Root::resolve`], but a symlink at the end is the answer, not followed.
    pub fn resolve_nofollow(&self, path: &Path) -> Result<OwnedFd> {
        self.walk("resolve_nofollow", path, |root| root.resolve_nofollow(path).map(OwnedFd::from))
    }

    /// Opens an existing regular file or folder for reading, without ever blocking on a FIFO.
    pub fn open_read(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OpenFlags::O_RDONLY | OpenFlags::O_NONBLOCK | OpenFlags::O_NOCTTY;
        self.walk("open_subpath", path, |root| root.open_subpath(path, flags).map(OwnedFd::from))
    }

    /// The folder at `path`; missing ones are made with `mode`, also through symlinks that stay in the root.
    pub fn mkdir_all(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        let permissions = std::fs::Permissions::from_mode(mode);
        self.walk("mkdir_all", path, |root| root.mkdir_all(path, &permissions).map(OwnedFd::from))
    }

    /// Makes an empty regular file unless there is one, and gives its handle.
    pub fn make_file(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        let permissions = std::fs::Permissions::from_mode(mode);
        let flags = OpenFlags::O_RDONLY | OpenFlags::O_NONBLOCK | OpenFlags::O_NOCTTY;
        self.walk("create_file", path, |root| root.create_file(path, flags, &permissions).map(OwnedFd::from))
    }

    /// What the symlink at `path` says.
    pub fn readlink(&self, path: &Path) -> Result<PathBuf> {
        self.walk("readlink", path, |root| root.readlink(path))
    }

    /// Makes a symlink at `path` that says `target`.
    pub fn symlink(&self, path: &Path, target: &Path) -> Result<()> {
        self.walk("create_symlink", path, |root| root.create(path, &InodeType::Symlink(target.to_owned())))
    }

    /// Removes what is at `path`, a folder with all that is in it.
    pub fn remove_all(&self, path: &Path) -> Result<()> {
        self.walk("remove_all", path, |root| root.remove_all(path))
    }

    fn walk<T>(
        &self,
        operation: &'static str,
        path: &Path,
        body: impl FnOnce(RootRef<'_>) -> std::result::Result<T, pathrs::error::Error>,
    ) -> Result<T> {
        let pending = if trace::enabled() { trace::begin_walk(operation, &path.display().to_string()) } else { None };
        let result = body(RootRef::from_fd(self.0.as_fd())).map_err(|error| errno(&error));
        if let Some(pending) = pending {
            pending.end(result.as_ref().map(|_| 0).map_err(|errno| *errno));
        }
        result.map_err(|errno| Error::new(operation, format!("{:?}", path.display().to_string()), errno))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The kernel's answer inside a `pathrs` error. A refused escape counts as `EXDEV`, which is what `openat2(2)` says of
/// one.
fn errno(error: &pathrs::error::Error) -> Errno {
    match error.kind() {
        ErrorKind::OsError(Some(code)) => Errno::from_raw_os_error(code),
        ErrorKind::InvalidArgument => Errno::INVAL,
        ErrorKind::NotImplemented => Errno::NOSYS,
        _ => Errno::XDEV,
    }
}
