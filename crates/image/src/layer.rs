//! Unpacked layers and the folders they are made in.
//!
//! A layer is a folder `layers/<id>` with the tree in `diff` (overlay's upper form) and a small `layer.json`. Its id is
//! its chain id if it was unpacked, random if a build made it; then a symlink with the chain id leads to it once it is
//! known. It is made in `staging/` and becomes visible by one rename. Both kinds of folder are locked by their holder
//! (`flock(2)` on the folder itself), so nobody removes what is in use and a dead process holds nothing.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::document::Descriptor;
use crate::error::{Cannot, Error, Result};
use crate::reference::hex;
use crate::{tree, vfs};

const META: &CStr = c"layer.json";
const META_MAX: usize = 64 << 10;
/// How long what a killed process forked may take to end.
const DYING: Duration = Duration::from_secs(5);

/// An unpacked layer. While a value of it lives, in any process, the layer is not removed.
#[derive(Clone, Debug)]
pub struct Layer {
    id: Arc<str>,
    diff: Arc<Path>,
    folder: Arc<OwnedFd>,
}

impl Layer {
    /// Opens `layers/<id>` below `layers`; none if it is not there or about to be removed.
    pub(crate) fn open(root: &Path, layers: BorrowedFd<'_>, id: &str) -> Result<Option<Layer>> {
        let shown = || format!("the layer {id}");
        let name = CString::new(id).map_err(|_| Error::document(shown(), "its id has a NUL"))?;
        let folder = match tree::open_folder(layers, &name) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error).cannot("open", shown()),
        };
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error).cannot("lock", shown()),
        }
        // Between the open and the lock a collector may have taken it away.
        let held = rustix::fs::fstat(&folder).cannot("read", shown())?;
        match tree::lstat(layers, &name) {
            Ok(named) if (named.st_ino, named.st_dev) == (held.st_ino, held.st_dev) => {}
            _ => return Ok(None),
        }
        Ok(Some(Layer::held(root, id, folder)))
    }

    pub(crate) fn held(root: &Path, id: &str, folder: OwnedFd) -> Layer {
        let diff = root.join("layers").join(id).join("diff");
        Layer { id: id.into(), diff: diff.into(), folder: Arc::new(folder) }
    }

    /// Its name in the store, good for a cache record or a container's list of layers in use.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The tree's path on the host, in overlay's upper form.
    pub fn diff(&self) -> &Path {
        &self.diff
    }

    /// The tree as a descriptor, opened for reading.
    pub fn tree(&self) -> Result<OwnedFd> {
        tree::open_folder(self.folder.as_fd(), c"diff").cannot("open", format!("the layer {}", self.id))
    }

    pub(crate) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    pub(crate) fn meta(&self) -> Result<Meta> {
        Meta::read(self.folder.as_fd())
    }

    /// Whether this boot made it. A `layer.json` that is missing or not whole is one that a crash of the machine took.
    pub(crate) fn is_trusted(&self) -> Result<bool> {
        match self.meta() {
            Ok(meta) => Ok(!meta.is_lost()?),
            Err(Error::Document { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn set_meta(&self, meta: &Meta) -> Result<()> {
        meta.write(self.folder.as_fd())
    }
}

/// What is known of a layer beside its tree.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// The digest of the plain archive, once there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<String>,
    /// The archive in the blob store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob: Option<Descriptor>,
    /// The boot that made the tree. Trees are not synced to disk and are only trusted during that boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The layer below, for the reader of a store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

impl Meta {
    pub(crate) fn read(folder: BorrowedFd<'_>) -> Result<Meta> {
        let data = match hull_sys::fs::read_file(folder, META, META_MAX) {
            Ok(data) => data,
            Err(error) if error.errno() == Errno::NOENT => return Ok(Meta::default()),
            Err(error) => return Err(std::io::Error::from(error)).cannot("read", "a layer's layer.json"),
        };
        serde_json::from_slice(&data).map_err(|error| Error::document("layer.json of a layer", error.to_string()))
    }

    pub(crate) fn write(&self, folder: BorrowedFd<'_>) -> Result<()> {
        let data = serde_json::to_vec(self).map_err(|error| Error::document("layer.json", error.to_string()))?;
        let temporary = c"layer.json.new";
        write_new(folder, temporary, &data)?;
        rustix::fs::renameat(folder, temporary, folder, META).cannot("write", "a layer's layer.json")
    }

    /// Not made in this boot, and never synced.
    pub(crate) fn is_lost(&self) -> Result<bool> {
        Ok(self.boot.as_ref() != Some(&boot_id()?))
    }
}

pub(crate) fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path).cannot("read", path)?.trim().to_owned())
}

/// Writes a file of ours, replacing what an interrupted writer left under the name.
pub(crate) fn write_new(dir: BorrowedFd<'_>, name: &CStr, data: &[u8]) -> Result<File> {
    let shown = || format!("{} in the store", name.to_string_lossy());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).cannot("create", shown())?;
    let mut file = File::from(file);
    file.write_all(data).cannot("write", shown())?;
    Ok(file)
}

/// 128 random bits as a name.
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0u8; 16];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).cannot("make", "a random id")?;
    Ok(hex(&bytes))
}

/// A folder below `staging/` in which something is made: an overlay's upper and work folder, or an unpacking layer.
///
/// Removed on drop unless the store adopts it. After a `SIGKILL` the next writer removes it.
#[derive(Debug)]
pub struct Staging {
    id: String,
    upper: PathBuf,
    work: PathBuf,
    /// `staging/` and this folder in it, locked; none once adopted.
    held: Option<(OwnedFd, OwnedFd)>,
    /// What was copied here, where no overlay tells what a step changed.
    before: Option<vfs::Before>,
}

impl Staging {
    /// Makes a new one. `staging` is the store's `staging/`, which this takes.
    pub(crate) fn new(root: &Path, staging: OwnedFd) -> Result<Staging> {
        let verb = "make";
        let object = "a staging folder";
        let id = random_id()?;
        let name = CString::new(id.as_str()).unwrap_or_default();
        // Shared with other makers; a sweeper waits for none and passes while somebody is between these two calls.
        rustix::fs::flock(&staging, FlockOperation::LockShared).cannot(verb, object)?;
        rustix::fs::mkdirat(&staging, &name, Mode::from_raw_mode(0o700)).cannot(verb, object)?;
        let folder = tree::open_folder(staging.as_fd(), &name).cannot(verb, object)?;
        rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).cannot(verb, object)?;
        rustix::fs::flock(&staging, FlockOperation::Unlock).cannot(verb, object)?;
        let path = root.join("staging").join(&id);
        let made = Staging {
            id,
            upper: path.join("diff"),
            work: path.join("work"),
            held: Some((staging, folder)),
            before: None,
        };
        for (name, mode) in [(c"diff", 0o755), (c"work", 0o700)] {
            rustix::fs::mkdirat(made.folder()?, name, Mode::from_raw_mode(mode)).cannot(verb, object)?;
            let folder = tree::open_folder(made.folder()?, name).cannot(verb, object)?;
            rustix::fs::fchmod(&folder, Mode::from_raw_mode(mode)).cannot(verb, object)?;
        }
        Ok(made)
    }

    /// Its name, and the id of the layer that it may become.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The upper folder on the host.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// Overlay's work folder on the host.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Both, for [`crate::Store::mount`].
    pub fn as_upper(&self) -> crate::rootfs::Upper<'_> {
        crate::rootfs::Upper { upper: &self.upper, work: &self.work }
    }

    pub(crate) fn folder(&self) -> Result<BorrowedFd<'_>> {
        let gone = || Error::document("staging folder", "it was adopted already");
        self.held.as_ref().map(|(_, folder)| folder.as_fd()).ok_or_else(gone)
    }

    pub(crate) fn tree(&self) -> Result<OwnedFd> {
        tree::open_folder(self.folder()?, c"diff").cannot("open", "a staging folder")
    }

    pub(crate) fn set_before(&mut self, before: vfs::Before) {
        self.before = Some(before);
    }

    /// Leaves what a layer is to have: the changes alone.
    pub(crate) fn reduce(&mut self) -> Result<()> {
        self.before.take().map_or(Ok(()), |before| before.reduce(&self.tree()?))
    }

    /// Moves the whole folder to `layers/<name>`; gives it back as it is if there is one already.
    pub(crate) fn become_layer(mut self, layers: BorrowedFd<'_>, name: &str) -> Result<Option<OwnedFd>> {
        tree::remove(self.folder()?, c"work").cannot("remove", "a layer's work folder")?;
        let Some((staging, folder)) = self.held.take() else { return Ok(None) };
        let from = CString::new(self.id.as_str()).unwrap_or_default();
        let to = CString::new(name).unwrap_or_default();
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&staging, &from, layers, &to, flags) {
            Ok(()) => {
                rustix::fs::flock(&folder, FlockOperation::LockShared).cannot("lock", format!("the layer {name}"))?;
                Ok(Some(folder))
            }
            Err(error) => {
                self.held = Some((staging, folder));
                match error {
                    Errno::EXIST => Ok(None),
                    error => Err(error).cannot("make", format!("the layer {name}")),
                }
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Some((staging, folder)) = self.held.take() {
            let name = CString::new(self.id.as_str()).unwrap_or_default();
            // Nobody to tell it to; what stays is a leftover that the next writer or `check` removes.
            let _ = tree::remove(staging.as_fd(), &name);
            drop(folder);
        }
    }
}

/// Waits, not for long, until nobody is left of processes that were killed: what they forked holds their locks for a moment more.
pub(crate) fn settle(staging: BorrowedFd<'_>) -> Result<()> {
    let end = Instant::now() + DYING;
    while Instant::now() < end && any_dying(staging)? {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Whether a folder is locked by a process that has ended.
fn any_dying(staging: BorrowedFd<'_>) -> Result<bool> {
    let object = "what is left in the staging folder";
    // As a sweeper: no maker is between its two calls while a lock is tried.
    if rustix::fs::flock(staging, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    let mut dying = false;
    for name in tree::names(staging).cannot("list", object)? {
        let Ok(folder) = tree::open_folder(staging, &name) else { continue };
        let locked = rustix::fs::flock(&folder, FlockOperation::NonBlockingLockShared).is_err();
        dying |= locked && !lives(&folder).cannot("read", "/proc/locks")?;
    }
    rustix::fs::flock(staging, FlockOperation::Unlock).cannot("unlock", object)?;
    Ok(dying)
}

/// Whether the process that locked the folder is there: a lock is shown with the one that took it (`proc_locks(5)`), also if
/// only its children have it any more.
fn lives(folder: &OwnedFd) -> std::io::Result<bool> {
    let inode = rustix::fs::fstat(folder)?.st_ino.to_string();
    let locks = std::fs::read_to_string("/proc/locks")?;
    // `1: FLOCK  ADVISORY  WRITE PID MAJOR:MINOR:INODE START END`
    let holder = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let ours = fields.get(1) == Some(&"FLOCK") && fields.get(5)?.rsplit(':').next() == Some(&*inode);
        fields.get(4).filter(|_| ours).map(|pid| (*pid).to_owned())
    });
    let Some(pid) = holder else { return Ok(false) };
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return Ok(false) };
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    Ok(state.is_some_and(|state| !state.starts_with(['Z', 'X'])))
}

/// Removes what dead processes left in `staging/`; gives the names. With `dry` it only looks.
pub(crate) fn sweep(staging: BorrowedFd<'_>, dry: bool) -> Result<Vec<String>> {
    let object = "what is left in the staging folder";
    let names = tree::names(staging).cannot("list", object)?;
    let mut swept = Vec::new();
    if names.is_empty() {
        return Ok(swept);
    }
    match rustix::fs::flock(staging, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(swept),
        Err(error) => return Err(error).cannot("lock", object),
    }
    for name in names {
        let Ok(folder) = tree::open_folder(staging, &name) else {
            // Not a folder, so not one of ours that lives; a file cannot be locked as one.
            if !dry {
                tree::remove(staging, &name).cannot("remove", object)?;
            }
            swept.push(name.to_string_lossy().into_owned());
            continue;
        };
        if rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        if !dry {
            tree::remove(staging, &name).cannot("remove", object)?;
        }
        swept.push(name.to_string_lossy().into_owned());
    }
    rustix::fs::flock(staging, FlockOperation::Unlock).cannot("unlock", object)?;
    Ok(swept)
}
