//! Paths inside a root that we do not trust, resolved once, to a handle.
//!
//! Symlinks and `..` are resolved as a process with that root would see them. What exists is one `openat2(2)` with
//! `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`. What has to be made on the way, and every walk where there is no
//! `openat2`, is `pathrs`'s, which then goes descriptor by descriptor. Each resolution is one event of the trace,
//! however many calls it took.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pathrs::error::ErrorKind;
use pathrs::flags::OpenFlags;
use pathrs::{InodeType, RootRef};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
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
        self.open("resolve", path, OFlags::PATH, |root| root.resolve(path).map(OwnedFd::from))
    }

    /// As [`Root::resolve`], but a symlink at the end is the answer, not followed.
    pub fn resolve_nofollow(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        self.open("resolve_nofollow", path, flags, |root| root.resolve_nofollow(path).map(OwnedFd::from))
    }

    /// Opens an existing regular file or folder for reading, without ever blocking on a FIFO.
    pub fn open_read(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OpenFlags::O_RDONLY | OpenFlags::O_NONBLOCK | OpenFlags::O_NOCTTY;
        self.open("open_subpath", path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, |root| {
            root.open_subpath(path, flags).map(OwnedFd::from)
        })
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

    /// Opens what exists; `otherwise` does it where the kernel, or a filter in front of it, has no `openat2`.
    fn open(
        &self,
        operation: &'static str,
        path: &Path,
        flags: OFlags,
        otherwise: impl FnOnce(RootRef<'_>) -> std::result::Result<OwnedFd, pathrs::error::Error>,
    ) -> Result<OwnedFd> {
        self.event(operation, path, || match open_in_root(self.0.as_fd(), path, flags) {
            // Step by step is checked by a procfs, and a container may have none.
            Err(errno @ (Errno::NOSYS | Errno::PERM)) if rustix::fs::stat("/proc/self/fd").is_err() => Err(errno),
            Err(Errno::NOSYS | Errno::PERM) => {
                otherwise(RootRef::from_fd(self.0.as_fd())).map_err(|error| errno(&error))
            }
            other => other,
        })
    }

    fn walk<T>(
        &self,
        operation: &'static str,
        path: &Path,
        body: impl FnOnce(RootRef<'_>) -> std::result::Result<T, pathrs::error::Error>,
    ) -> Result<T> {
        self.event(operation, path, || body(RootRef::from_fd(self.0.as_fd())).map_err(|error| errno(&error)))
    }

    fn event<T>(
        &self,
        operation: &'static str,
        path: &Path,
        body: impl FnOnce() -> std::result::Result<T, Errno>,
    ) -> Result<T> {
        let pending = if trace::enabled() { trace::begin_walk(operation, &path.display().to_string()) } else { None };
        let result = body();
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

/// How often a walk is begun again that a rename or mount somewhere has disturbed; `pathrs`'s number, which leaves an
/// attacker who does nothing else one chance in a thousand to make it fail.
const TRIES: u32 = 128;

fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = || openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), how);
    let disturbed = |answer: &std::result::Result<_, Errno>| matches!(answer, Err(Errno::AGAIN | Errno::INTR));
    (1..TRIES).map(|_| open()).find(|answer| !disturbed(answer)).unwrap_or_else(open)
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::seccomp::{SockFilter, set_filter};

    /// Where each path leads: the inode, or why it leads nowhere.
    fn answers(root: &Root) -> Vec<(String, std::result::Result<u64, Errno>)> {
        let inode = |answer: Result<OwnedFd>| match answer {
            Ok(file) => Ok(rustix::fs::fstat(file).unwrap().st_ino),
            Err(error) => Err(error.errno()),
        };
        let mut all = Vec::new();
        for path in [
            "/",
            "/a/file",
            "/out/file",
            "out/file",
            "../file",
            "/up/a/file",
            "/../file",
            "/loop",
            "/missing/x",
            "/a/file/x",
            "/magic",
        ] {
            all.push((format!("resolve {path}"), inode(root.resolve(Path::new(path)))));
            all.push((format!("resolve_nofollow {path}"), inode(root.resolve_nofollow(Path::new(path)))));
            all.push((format!("open_read {path}"), inode(root.open_read(Path::new(path)))));
        }
        all
    }

    /// `openat2` answers `errno` in this thread from here on.
    fn without_openat2(errno: Errno) {
        let one = |code, jt, jf, k| SockFilter { code, jt, jf, k };
        let program = [
            one(0x20, 0, 0, 0),
            one(0x15, 0, 1, libc::SYS_openat2 as u32),
            one(0x06, 0, 0, libc::SECCOMP_RET_ERRNO | errno.raw_os_error() as u32),
            one(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        crate::cred::no_new_privs().unwrap();
        set_filter(&program, 0).unwrap();
        let call = rustix::fs::openat2(rustix::fs::CWD, "/", OFlags::PATH, Mode::empty(), ResolveFlags::empty());
        assert_eq!(call.unwrap_err(), errno);
    }

    #[test]
    fn a_walk_ends_at_the_same_place_without_openat2_and_never_outside() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("root");
        fs::create_dir_all(inside.join("a")).unwrap();
        fs::write(inside.join("a/file"), "inside").unwrap();
        fs::write(folder.path().join("file"), "outside").unwrap();
        symlink("/..", inside.join("up")).unwrap();
        symlink(folder.path(), inside.join("out")).unwrap();
        symlink("loop", inside.join("loop")).unwrap();
        symlink("/proc/self/fd/0", inside.join("magic")).unwrap();
        let root = || Root::from_fd(fs::File::open(&inside).unwrap().into());

        let with = answers(&root());
        let outside = rustix::fs::stat(folder.path().join("file")).unwrap().st_ino;
        assert!(with.iter().all(|(_, answer)| *answer != Ok(outside)));
        assert!(with.iter().filter(|(_, answer)| answer.is_ok()).count() >= 10, "{with:#?}");
        for errno in [Errno::NOSYS, Errno::PERM] {
            let root = root();
            let without = std::thread::spawn(move || {
                without_openat2(errno);
                answers(&root)
            });
            assert_eq!(without.join().unwrap(), with);
        }
    }
}
