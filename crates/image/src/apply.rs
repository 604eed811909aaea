//! Applying a layer archive below a root descriptor, into overlay's upper form.
//!
//! The archive is hostile. Every operation takes one name in a parent that is held by descriptor and never follows a
//! symlink at that name; a parent that is a symlink is resolved once, inside the root (`RESOLVE_IN_ROOT`), as Docker
//! does. Whiteouts become character devices 0:0 and opaque folders carry `trusted.overlay.opaque`, which the mount of
//! `rootfs` understands. Reading and checking headers is the business of `archive`, digests that of `stream`.
//!
//! Sources: image specification `layer.md`; the kernel's `filesystems/overlayfs.rst`.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::archive::{Archive, Entry, Kind};
use crate::error::{Error, Result};
use crate::sparse::Region;
use crate::tree;

/// The attribute that hides everything below a folder in lower layers.
pub(crate) const OPAQUE: &CStr = c"trusted.overlay.opaque";
const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
/// Descriptors of parents kept open; deeper trees are walked again.
const HELD: usize = 64;

/// How a parent is held: a place for `*at` calls, nothing that could be read.
const HANDLE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Applies all entries of `archive` to the folder `root`. `lowers` are the trees below, topmost first: a folder that
/// the archive only implies gets its mode, owner and time from them.
pub(crate) fn apply<R: BufRead>(archive: &mut Archive<R>, root: &OwnedFd, lowers: &[OwnedFd]) -> Result<()> {
    let mut target = Target::new(root, lowers);
    target.inherit_root()?;
    while let Some(entry) = archive.next()? {
        target.entry(&entry, archive)?;
    }
    target.finish().map(drop)
}

/// The folders that an archive only implied, by their paths; the root is the empty one.
pub(crate) type Implied = BTreeSet<Vec<u8>>;

/// The same while nothing is known of the layers below: what the archive only implied is given back, for [`settle`].
pub(crate) fn apply_alone<R: BufRead>(archive: &mut Archive<R>, root: &OwnedFd) -> Result<Implied> {
    let mut target = Target::new(root, &[]);
    target.implied.insert(Vec::new());
    while let Some(entry) = archive.next()? {
        target.entry(&entry, archive)?;
    }
    target.finish()
}

/// Gives the folders that [`apply_alone`] had to invent what the layers below say of them.
pub(crate) fn settle(root: &OwnedFd, implied: &Implied, lowers: &[OwnedFd]) -> Result<()> {
    let target = Target::new(root, lowers);
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for path in implied {
        let failed = |errno: Errno| Error::entry(path, std::io::Error::from(errno));
        if path.is_empty() {
            target.inherit_root()?;
            continue;
        }
        match rustix::fs::openat2(root, path.as_slice(), flags, Mode::empty(), resolve) {
            Ok(folder) => {
                if let Some(lower) = target.lower(path).map_err(failed)? {
                    inherit(&folder, &lower).map_err(failed)?;
                }
            }
            // A later entry took its place.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

struct Target<'a> {
    root: &'a OwnedFd,
    lowers: &'a [OwnedFd],
    /// The last parent's path with its handles. Emptied whenever a folder or symlink is replaced.
    stack: Vec<(Vec<u8>, Option<OwnedFd>)>,
    /// Times of folders, set at the end because making a file in a folder changes them.
    folders: Vec<(Vec<u8>, (i64, u32))>,
    implied: Implied,
}

impl<'a> Target<'a> {
    fn new(root: &'a OwnedFd, lowers: &'a [OwnedFd]) -> Self {
        Self { root, lowers, stack: Vec::new(), folders: Vec::new(), implied: Implied::new() }
    }

    fn entry<R: BufRead>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<()> {
        let path = components(&entry.path)?;
        let Some((base, parents)) = path.split_last() else {
            if entry.kind != Kind::Folder {
                return Err(Error::entry(&entry.path, "the root is a folder and stays one"));
            }
            return self.root_entry(entry);
        };
        if path.iter().any(|part| part.starts_with(WHITEOUT_META)) && *base != b".wh..wh..opq" {
            // Bookkeeping of AUFS (`.wh..wh.plnk`, `.wh..wh.aufs`), meaningless elsewhere; Docker leaves it out too.
            return Ok(());
        }
        if parents.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err(Error::entry(&entry.path, "it lies below a whiteout"));
        }
        let base = cstring(&entry.path, base)?;
        let failed = |errno: Errno| Error::entry(&entry.path, std::io::Error::from(errno));
        if let Some(name) = base.to_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(entry, parents, name);
        }
        match entry.kind {
            Kind::Folder => self.folder(entry, &path, &base),
            Kind::File => {
                let file = self.place(entry, parents, &base, |parent| {
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    rustix::fs::openat(parent, &base, flags, Mode::from_raw_mode(0o600))
                })?;
                fill(&file, entry, archive)?;
                own(&file, entry).and_then(|()| rustix::fs::futimens(&file, &times(entry.mtime))).map_err(failed)
            }
            Kind::Link => self.link(entry, parents, &base),
            Kind::Symlink => {
                let target = cstring(&entry.path, &entry.link)?;
                self.place(entry, parents, &base, |parent| rustix::fs::symlinkat(&target, parent, &base))?;
                self.own_name(entry, parents, &base)
            }
            Kind::Char if matches!(entry.device, (0, 0 | 1)) => self.whiteout(entry, parents, base.to_bytes()),
            Kind::Char | Kind::Block | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::Char => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                self.place(entry, parents, &base, |parent| {
                    rustix::fs::mknodat(parent, &base, kind, Mode::from_raw_mode(0o600), device)
                })?;
                self.own_name(entry, parents, &base)
            }
        }
    }

    /// Makes something new at a name with `make`; what this layer put there before gives way.
    fn place<T>(
        &mut self,
        entry: &Entry,
        parents: &[&[u8]],
        base: &CStr,
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let failed = |errno: Errno| Error::entry(&entry.path, std::io::Error::from(errno));
        let parent = self.parent(&entry.path, parents)?;
        match make(parent) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(failed),
        }
        let old = tree::lstat(parent, base).map_err(failed)?;
        tree::remove(parent, base).map_err(failed)?;
        if matches!(tree::file_type(&old), FileType::Directory | FileType::Symlink) {
            self.stack.clear();
        }
        make(self.parent(&entry.path, parents)?).map_err(failed)
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        own(self.root, entry).map_err(|errno| Error::entry(&entry.path, std::io::Error::from(errno)))?;
        self.implied.remove(&Vec::new());
        self.folders.push((Vec::new(), entry.mtime));
        Ok(())
    }

    fn folder(&mut self, entry: &Entry, path: &[&[u8]], base: &CStr) -> Result<()> {
        let failed = |errno: Errno| Error::entry(&entry.path, std::io::Error::from(errno));
        let parents = &path[..path.len() - 1];
        let parent = self.parent(&entry.path, parents)?;
        let mut hidden = false;
        if let Ok(old) = tree::lstat(parent, base) {
            hidden = is_whiteout(&old);
            if tree::file_type(&old) != FileType::Directory {
                tree::remove(parent, base).map_err(failed)?;
                self.stack.clear();
            }
        }
        let parent = self.parent(&entry.path, parents)?;
        match rustix::fs::mkdirat(parent, base, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        }
        let made = tree::open_folder(parent, base).map_err(failed)?;
        if hidden {
            opaque(made.as_fd()).map_err(failed)?;
        }
        own(&made, entry).map_err(failed)?;
        let whole = path.join(&b'/');
        self.implied.remove(&whole);
        self.folders.push((whole, entry.mtime));
        self.push(base.to_bytes(), made);
        Ok(())
    }

    fn link(&mut self, entry: &Entry, parents: &[&[u8]], base: &CStr) -> Result<()> {
        let target = components(&entry.link)?;
        let Some((name, folders)) = target.split_last() else {
            return Err(Error::entry(&entry.path, "a hard link to the root"));
        };
        if *name == base.to_bytes() && folders == parents {
            return Err(Error::entry(&entry.path, "a hard link to itself"));
        }
        let name = cstring(&entry.path, name)?;
        let missing = || Error::entry(&entry.path, "the target of the hard link is not in this layer");
        // Duplicated, because finding the link's own parent moves the cache.
        let from = rustix::io::fcntl_dupfd_cloexec(self.walk(&entry.path, folders, false)?.ok_or_else(missing)?, 0)
            .map_err(|errno| Error::entry(&entry.path, std::io::Error::from(errno)))?;
        let stat = tree::lstat(from.as_fd(), &name).map_err(|_| missing())?;
        if is_whiteout(&stat) {
            return Err(missing());
        }
        self.place(entry, parents, base, |parent| rustix::fs::linkat(&from, &name, parent, base, AtFlags::empty()))
    }

    /// Hides a name of lower layers. What this layer itself has there stays: a whiteout is about lower layers only.
    fn whiteout(&mut self, entry: &Entry, parents: &[&[u8]], name: &[u8]) -> Result<()> {
        let failed = |errno: Errno| Error::entry(&entry.path, std::io::Error::from(errno));
        let parent = self.parent(&entry.path, parents)?;
        if name == b".wh..opq" {
            return opaque_handle(parent).map_err(failed);
        }
        if matches!(name, b"" | b"." | b"..") {
            return Err(Error::entry(&entry.path, "a whiteout without a name"));
        }
        let name = cstring(&entry.path, name)?;
        match make_whiteout(parent, &name) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(failed),
        }
        let old = tree::lstat(parent, &name).map_err(failed)?;
        if tree::file_type(&old) == FileType::Directory {
            let folder = tree::open_folder(parent, &name).map_err(failed)?;
            opaque(folder.as_fd()).map_err(failed)?;
        }
        Ok(())
    }

    /// Owner, attributes, mode and time of what is no file or folder, at its name.
    fn own_name(&mut self, entry: &Entry, parents: &[&[u8]], base: &CStr) -> Result<()> {
        let parent = self.parent(&entry.path, parents)?;
        let set = || {
            let (uid, gid) = owner(entry);
            rustix::fs::chownat(parent, base, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            let handle =
                rustix::fs::openat(parent, base, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            if entry.kind != Kind::Symlink {
                let path = tree::magic(handle.as_fd(), None);
                rustix::fs::chmodat(rustix::fs::CWD, path, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
            }
            for (name, value) in kept(entry) {
                rustix::fs::lsetxattr(tree::magic(parent, Some(base)), name, value, XattrFlags::empty())?;
            }
            rustix::fs::utimensat(parent, base, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        };
        set().map_err(|errno| Error::entry(&entry.path, std::io::Error::from(errno)))
    }

    /// The handle of a parent folder; what is missing on the way is made.
    fn parent(&mut self, entry: &[u8], path: &[&[u8]]) -> Result<BorrowedFd<'_>> {
        self.walk(entry, path, true)?.ok_or_else(|| Error::entry(entry, "its parent is not a folder"))
    }

    fn walk(&mut self, entry: &[u8], path: &[&[u8]], create: bool) -> Result<Option<BorrowedFd<'_>>> {
        let mut common = self.stack.iter().zip(path).take_while(|((held, _), part)| held == *part).count();
        if common > 0 && self.stack[common - 1].1.is_none() {
            common = 0;
        }
        self.stack.truncate(common);
        for depth in common..path.len() {
            let part = cstring(entry, path[depth])?;
            let found = self.step(entry, &path[..=depth], &part, create)?;
            match found {
                Some(handle) => self.push(path[depth], handle),
                None => return Ok(None),
            }
        }
        Ok(Some(self.top()))
    }

    fn top(&self) -> BorrowedFd<'_> {
        self.stack.last().and_then(|(_, handle)| handle.as_ref()).map_or(self.root.as_fd(), AsFd::as_fd)
    }

    fn push(&mut self, name: &[u8], handle: OwnedFd) {
        self.stack.push((name.to_vec(), Some(handle)));
        if self.stack.len() > HELD {
            let old = self.stack.len() - HELD - 1;
            self.stack[old].1 = None;
        }
    }

    /// One step down from the top of the stack.
    fn step(&mut self, entry: &[u8], path: &[&[u8]], part: &CStr, create: bool) -> Result<Option<OwnedFd>> {
        let failed = |errno: Errno| Error::entry(entry, std::io::Error::from(errno));
        let top = self.top();
        match rustix::fs::openat(top, part, HANDLE, Mode::empty()) {
            Ok(handle) => return Ok(Some(handle)),
            Err(Errno::NOENT) if create => return self.implied(path, part, false).map(Some).map_err(failed),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(failed(error)),
        }
        let stat = tree::lstat(top, part).map_err(failed)?;
        if tree::file_type(&stat) == FileType::Symlink {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            return match rustix::fs::openat2(self.root, path.join(&b'/'), flags, Mode::empty(), resolve) {
                Ok(handle) => Ok(Some(handle)),
                Err(Errno::NOENT | Errno::NOTDIR) if !create => Ok(None),
                Err(Errno::NOENT) => Err(Error::entry(entry, "a parent is a symlink to nowhere in this layer")),
                Err(error) => Err(failed(error)),
            };
        }
        if is_whiteout(&stat) && create {
            tree::remove(top, part).map_err(failed)?;
            return self.implied(path, part, true).map(Some).map_err(failed);
        }
        Ok(None)
    }

    /// Makes a folder that the archive has no entry for, as the layers below have it or else 0755 and root's.
    fn implied(&mut self, path: &[&[u8]], part: &CStr, hidden: bool) -> rustix::io::Result<OwnedFd> {
        let top = self.top();
        rustix::fs::mkdirat(top, part, Mode::from_raw_mode(0o700))?;
        let made = tree::open_folder(top, part)?;
        if hidden {
            opaque(made.as_fd())?;
        } else if let Some(lower) = self.lower(&path.join(&b'/'))? {
            inherit(&made, &lower)?;
            return Ok(made);
        }
        rustix::fs::fchown(&made, Some(Uid::ROOT), Some(Gid::ROOT))?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
        if !hidden {
            self.implied.insert(path.join(&b'/'));
        }
        Ok(made)
    }

    /// The folder at `path` in the topmost layer below that has the path.
    fn lower(&self, path: &[u8]) -> rustix::io::Result<Option<OwnedFd>> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for lower in self.lowers {
            match rustix::fs::openat2(lower, path, HANDLE, Mode::empty(), resolve) {
                Ok(handle) => return Ok(Some(handle)),
                Err(Errno::NOENT) => {}
                // Something else than a folder hides whatever is further down.
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn inherit_root(&self) -> Result<()> {
        let Some(lower) = self.lowers.first() else { return Ok(()) };
        inherit(self.root, lower).map_err(|errno| Error::entry(b"/", std::io::Error::from(errno)))
    }

    fn finish(mut self) -> Result<Implied> {
        for (path, time) in std::mem::take(&mut self.folders) {
            let parts = components(&path)?;
            let Some((base, parents)) = parts.split_last() else {
                rustix::fs::futimens(self.root, &times(time))
                    .map_err(|errno| Error::entry(b"/", std::io::Error::from(errno)))?;
                continue;
            };
            let base = cstring(&path, base)?;
            let Some(parent) = self.walk(&path, parents, false)? else { continue };
            match tree::open_folder(parent, &base).and_then(|folder| rustix::fs::futimens(&folder, &times(time))) {
                // A later entry put something else in its place.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(Error::entry(&path, std::io::Error::from(errno))),
            }
        }
        Ok(self.implied)
    }
}

/// The parts of an entry's name. A leading slash and `.` mean nothing; `..` is refused wherever it stands.
fn components(path: &[u8]) -> Result<Vec<&[u8]>> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&b"..".as_slice()) {
        return Err(Error::entry(path, "its name leads upwards"));
    }
    Ok(parts)
}

fn cstring(entry: &[u8], name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| Error::entry(entry, "its name has a NUL"))
}

/// Writes an entry's data; between the regions of a file with holes nothing is written.
fn fill<R: BufRead>(file: &OwnedFd, entry: &Entry, archive: &mut Archive<R>) -> Result<()> {
    let failed = |errno: Errno| Error::entry(&entry.path, std::io::Error::from(errno));
    let whole = [Region { at: 0, length: entry.size }];
    let regions = entry.regions.as_deref().unwrap_or(&whole);
    if entry.regions.is_some() {
        rustix::fs::ftruncate(file, entry.size).map_err(failed)?;
    }
    for Region { mut at, mut length } in regions.iter().copied() {
        while length > 0 {
            let chunk = archive.chunk()?;
            let most = usize::try_from(length).unwrap_or(usize::MAX).min(chunk.len());
            let written =
                rustix::io::retry_on_intr(|| rustix::io::pwrite(file, &chunk[..most], at)).map_err(failed)?;
            archive.used(written);
            at += written as u64;
            length -= written as u64;
        }
    }
    Ok(())
}

/// Owner first, since it clears set-id bits and capabilities; the mode last.
fn own(file: &OwnedFd, entry: &Entry) -> rustix::io::Result<()> {
    let (uid, gid) = owner(entry);
    rustix::fs::fchown(file, uid, gid)?;
    for (name, value) in kept(entry) {
        rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())?;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

/// The attributes an image may set: not those that steer overlay, nor the host's SELinux label.
fn kept(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    let refused = |name: &[u8]| {
        name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") || name == b"security.selinux"
    };
    entry.xattrs.iter().map(|(name, value)| (&name[..], &value[..])).filter(move |(name, _)| !refused(name))
}

fn inherit(folder: &OwnedFd, lower: &OwnedFd) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(lower)?;
    rustix::fs::fchown(folder, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(folder, Mode::from_raw_mode(tree::permissions(&stat)))
}

/// The mark goes through the descriptor's magic link where the descriptor is `O_PATH`.
fn opaque_handle(folder: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::fs::setxattr(tree::magic(folder, None), OPAQUE, b"y", XattrFlags::empty())
}

pub(crate) fn opaque(folder: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(folder, OPAQUE, b"y", XattrFlags::empty())
}

/// The mark where the kernel keeps 0:0 to itself, as it does on an overlay. No device has a number below the major 0.
const OTHER_WHITEOUT: u64 = 1;

/// Marks the name `name` as deleted: overlay's character device 0:0, or hull's own 0:1 where that is refused.
pub(crate) fn make_whiteout(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    let make = |device| rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), device);
    match make(0) {
        Err(Errno::PERM) => make(OTHER_WHITEOUT),
        result => result,
    }
}

/// Whether it is the mark of a deleted name, in a layer's own folder.
pub fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    tree::file_type(stat) == FileType::CharacterDevice && stat.st_rdev <= OTHER_WHITEOUT
}

pub(crate) fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
