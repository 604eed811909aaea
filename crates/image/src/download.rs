//! The files of blobs on their way: named by their digests, locked by their writers, read again from the beginning.
//!
//! They lie in `downloads/` of the store and become blobs by a rename, or stay until somebody goes on with them. What their
//! bytes mean is the business of `receive`.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Cannot, Error, Result};
use crate::reference::Digest;
use crate::store::Store;
use crate::tree;

const DOWNLOADS: &CStr = c"downloads";
/// How long what an interrupted pull left waits for the next one.
const STALE: Duration = Duration::from_secs(7 * 86400);

/// Bytes after which the disk is told to begin with them, so that the sync in the end has little left to wait for.
const WRITE_OUT: u64 = 8 << 20;

/// One file, locked. The lock goes with it.
#[derive(Debug)]
pub(crate) struct Download {
    pub folder: OwnedFd,
    pub name: CString,
    pub file: File,
    /// The bytes that were there when it was opened.
    pub have: u64,
}

impl Download {
    /// Opens and locks the download of `digest`, waiting for whoever has it.
    pub(crate) fn open(folder: &OwnedFd, digest: &Digest, waiting: impl FnOnce()) -> Result<Self> {
        let name = CString::new(format!("{}-{}", digest.algorithm(), digest.hex())).unwrap_or_default();
        let file = lock(folder.as_fd(), &name, waiting)?;
        let folder = rustix::io::fcntl_dupfd_cloexec(folder, 0).cannot("open", "the folder of downloads")?;
        let have = file.metadata().cannot("read", "a download")?.len();
        Ok(Self { folder, name, file, have })
    }

    /// Begins anew.
    pub(crate) fn empty(&mut self) -> Result<()> {
        self.file.set_len(0).cannot("empty", "a download")?;
        self.have = 0;
        Ok(())
    }

    /// Waits until it is on the disk. One that cannot be written is removed: the kernel tells of such a failure once, and whoever
    /// went on with the file would take it for whole.
    pub(crate) fn sync(&self, digest: &Digest) -> Result<()> {
        self.file.sync_data().cannot("sync", format!("the blob {digest}")).inspect_err(|_| {
            // The first failure says more.
            let _ = self.remove();
        })
    }

    /// Removes it.
    pub(crate) fn discard(self) -> Result<()> {
        self.remove()
    }

    fn remove(&self) -> Result<()> {
        match rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).cannot("remove", "a download"),
        }
    }
}

/// The folder of downloads of a store, cleared of what nobody goes on with any more.
pub(crate) fn folder(store: &Store) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(store.dir(), DOWNLOADS, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).cannot("make", "the folder of downloads"),
    }
    let folder = store.folder(DOWNLOADS)?;
    sweep(folder.as_fd(), Some(STALE), false)?;
    Ok(folder)
}

/// The bytes of a download: first those that are there, then the rest, of which a copy is kept.
pub(crate) struct Source<'a, R> {
    pub file: &'a File,
    pub at: u64,
    pub have: u64,
    pub size: u64,
    pub rest: R,
    pub interrupted: &'a mut bool,
    /// Up to where the disk was told to begin.
    pub written_out: u64,
}

impl<R> Source<'_, R> {
    fn write_out(&mut self) {
        // It is only a hint: the sync before the blob gets its name has the last word.
        let _ = hull_sys::fs::begin_write_out(self.file.as_fd(), self.written_out, self.at - self.written_out);
        self.written_out = self.at;
    }
}

impl<R: Read> Read for Source<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at < self.have {
            let most = usize::try_from(self.have - self.at).unwrap_or(usize::MAX).min(buffer.len());
            let length = self.file.read_at(&mut buffer[..most], self.at)?;
            self.at += length as u64;
            return Ok(length);
        }
        if self.at == self.size && self.have == self.size {
            return Ok(0);
        }
        let length = self.rest.read(buffer).inspect_err(|_| *self.interrupted = true)?;
        if self.at + length as u64 > self.size {
            let why = format!("more than the {} bytes that its descriptor says", self.size);
            return Err(std::io::Error::other(Error::archive(why)));
        }
        self.file
            .write_all_at(&buffer[..length], self.at)
            .map_err(|source| Error::Io { verb: "write", object: "the layer's blob".to_owned(), source })
            .map_err(std::io::Error::other)?;
        self.at += length as u64;
        if self.at - self.written_out >= WRITE_OUT || self.at == self.size {
            self.write_out();
        }
        Ok(length)
    }
}

/// A blob that was received, from its beginning.
pub(crate) enum Again<'a> {
    Download(&'a File, u64),
    Stored(File),
}

impl Read for Again<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Again::Stored(file) => file.read(buffer),
            Again::Download(file, at) => {
                let length = file.read_at(buffer, *at)?;
                *at += length as u64;
                Ok(length)
            }
        }
    }
}

/// Opens and locks a download, waiting for whoever has it.
fn lock(folder: BorrowedFd<'_>, name: &CString, waiting: impl FnOnce()) -> Result<File> {
    let mut waiting = Some(waiting);
    let (verb, object) = ("lock", "a download");
    loop {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600)).cannot(verb, object)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                if let Some(waiting) = waiting.take() {
                    waiting();
                }
                rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
                    .cannot(verb, object)?;
            }
            Err(error) => return Err(error).cannot(verb, object),
        }
        // Whoever held it before may have moved it to the blobs, or removed it.
        let held = rustix::fs::fstat(&file).cannot(verb, object)?;
        match tree::lstat(folder, name) {
            Ok(named) if (named.st_ino, named.st_dev) == (held.st_ino, held.st_dev) => return Ok(File::from(file)),
            _ => {}
        }
    }
}

/// Removes all downloads that nobody works on; gives their names. With `dry` it only looks.
pub(crate) fn sweep_all(store: &Store, dry: bool) -> Result<Vec<String>> {
    match tree::open_folder(store.dir(), DOWNLOADS) {
        Ok(folder) => sweep(folder.as_fd(), None, dry),
        Err(Errno::NOENT) => Ok(Vec::new()),
        Err(error) => Err(error).cannot("open", "the folder of downloads"),
    }
}

/// Removes downloads that nobody works on, those older than `age` only if given; gives their names. With `dry` it only looks.
fn sweep(folder: BorrowedFd<'_>, age: Option<Duration>, dry: bool) -> Result<Vec<String>> {
    let object = "what is left of a download";
    let mut swept = Vec::new();
    for name in tree::names(folder).cannot("list", object)? {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(folder, &name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error).cannot("open", object),
        };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let modified = file.metadata().and_then(|metadata| metadata.modified()).cannot("read", object)?;
        if age.is_some_and(|age| modified.elapsed().is_ok_and(|elapsed| elapsed < age)) {
            continue;
        }
        if !dry {
            tree::remove(folder, &name).cannot("remove", object)?;
        }
        swept.push(name.to_string_lossy().into_owned());
    }
    Ok(swept)
}
