//! Layers as one plain folder, where the kernel mounts no overlay (`vfs`, as others call it): a copy of all of them.
//!
//! A copy is whole and takes the time and the room of one. What a build's step changed in it becomes a layer by the
//! difference to what was there before: the changed files stay, deleted names get overlay's marks, all else goes.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{FileType, Stat, Timespec, Timestamps};

use crate::apply;
use crate::error::{Cannot, Result};
use crate::layer::Layer;
use crate::tree;

/// Before Linux 6.13 a file's times advance with the clock's tick, at most 10 ms; what is changed within the same tick as
/// it was copied would look unchanged.
const TICK: Duration = Duration::from_millis(20);

/// Copies `layers` (lowest first) into the empty folder `to`.
///
/// # Errors
/// The kernel's, with the name of the file.
pub(crate) fn copy(layers: &[Layer], to: &OwnedFd) -> Result<()> {
    layers.iter().try_for_each(|layer| crate::export::lay(&layer.tree()?, to))
}

/// By what a change of a file is seen: no call sets back the time of the last change of an inode.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    inode: u64,
    changed: (i64, u64),
    size: i64,
}

impl Mark {
    fn of(stat: &Stat) -> Self {
        Self { inode: stat.st_ino, changed: (stat.st_ctime, stat.st_ctime_nsec), size: stat.st_size }
    }
}

/// The names of each folder of a tree, with their marks.
#[derive(Debug)]
pub(crate) struct Before(HashMap<Vec<u8>, BTreeMap<CString, Mark>>);

impl Before {
    /// What is in `tree` now, before anybody changes it.
    pub(crate) fn of(tree: &OwnedFd) -> Result<Self> {
        let before = Self::look(tree)?;
        std::thread::sleep(TICK);
        Ok(before)
    }

    fn look(tree: &OwnedFd) -> Result<Self> {
        let mut all = Self(HashMap::new());
        all.folder(tree, Vec::new()).cannot("read", "a copy of layers")?;
        Ok(all)
    }

    fn folder(&mut self, folder: &OwnedFd, path: Vec<u8>) -> rustix::io::Result<()> {
        let mut marks = BTreeMap::new();
        for name in tree::names(folder.as_fd())? {
            let stat = tree::lstat(folder.as_fd(), &name)?;
            if tree::file_type(&stat) == FileType::Directory {
                self.folder(&tree::open_folder(folder.as_fd(), &name)?, below(&path, &name))?;
            }
            marks.insert(name, Mark::of(&stat));
        }
        self.0.insert(path, marks);
        Ok(())
    }

    /// Leaves in `tree` what has changed since, in overlay's upper form.
    pub(crate) fn reduce(&self, tree: &OwnedFd) -> Result<()> {
        // All of it is looked at first: to remove one name of a file changes the others.
        let now = Self::look(tree)?;
        self.difference(&now, tree, &[]).cannot("keep", "what has changed in a copy of layers").map(drop)
    }

    /// Whether anything of the folder has to stay.
    fn difference(&self, now: &Self, folder: &OwnedFd, path: &[u8]) -> rustix::io::Result<bool> {
        let none = BTreeMap::new();
        let (old, new) = (self.0.get(path).unwrap_or(&none), now.0.get(path).unwrap_or(&none));
        let stat = rustix::fs::fstat(folder)?;
        let mut stays = false;
        for (name, mark) in new {
            let known = old.get(name);
            let is_folder = tree::file_type(&tree::lstat(folder.as_fd(), name)?) == FileType::Directory;
            let kept = match known {
                Some(known) if is_folder && known.inode == mark.inode => {
                    let own = tree::open_folder(folder.as_fd(), name)?;
                    self.difference(now, &own, &below(path, name))? || known != mark
                }
                Some(_) if is_folder => {
                    apply::opaque(tree::open_folder(folder.as_fd(), name)?.as_fd())?;
                    true
                }
                _ => known != Some(mark),
            };
            if !kept {
                tree::remove(folder.as_fd(), name)?;
            }
            stays |= kept;
        }
        for gone in old.keys().filter(|name| !new.contains_key(*name)) {
            apply::make_whiteout(folder.as_fd(), gone)?;
            stays = true;
        }
        let time = |tv_sec, nanos: u64| Timespec { tv_sec, tv_nsec: nanos as _ };
        let last_access = time(stat.st_atime, stat.st_atime_nsec);
        let last_modification = time(stat.st_mtime, stat.st_mtime_nsec);
        rustix::fs::futimens(folder, &Timestamps { last_access, last_modification })?;
        Ok(stays)
    }
}

fn below(path: &[u8], name: &CStr) -> Vec<u8> {
    [path, name.to_bytes(), b"/"].concat()
}

#[cfg(test)]
#[path = "vfs_tests.rs"]
mod tests;
