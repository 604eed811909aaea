//! What takes room in a store, who needs it, and when it was last used.
//!
//! Sizes are those on the disk, as `du(1)` counts them: a file's blocks, once for all of its names. A layer's last use is
//! the time of its folder, which is set by whoever stands on it; that of an image is its highest layer's, or when it came
//! if that was later or the image is not unpacked.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hull_sys::threads::side_by_side;
use rustix::fs::{FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use crate::document;
use crate::error::{Cannot, Error, Result};
use crate::find::{Image, Listed, parse_index};
use crate::layer::Layer;
use crate::reference::{Digest, Reference};
use crate::store::{Store, blob_path};
use crate::tree;

/// Something that takes room.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A file in `blobs/`.
    Blob(Digest),
    /// A folder in `layers/`, by its id.
    Layer(String),
}

/// What the index lists under one digest: an image, or images for several platforms.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The digest.
    pub listed: Digest,
    /// Its names.
    pub names: Vec<Reference>,
    /// Its images, each with what it needs.
    pub images: Vec<(Image, BTreeSet<Thing>)>,
    /// All that it needs.
    pub things: BTreeSet<Thing>,
    /// Since when nobody has used it.
    pub last_used: SystemTime,
}

/// All of a store.
#[derive(Debug, Default)]
pub struct Usage {
    /// Bytes on the disk.
    pub sizes: BTreeMap<Thing, u64>,
    /// When each unpacked layer was last used, by its id.
    pub layers: BTreeMap<String, SystemTime>,
    /// What the index lists, in its order.
    pub entries: Vec<Entry>,
    /// Why others of it cannot be read; what those need is not known.
    pub damaged: Vec<Error>,
}

impl Usage {
    /// Bytes on the disk of all of these together.
    pub fn size<'a>(&self, things: impl IntoIterator<Item = &'a Thing>) -> u64 {
        things.into_iter().filter_map(|thing| self.sizes.get(thing)).sum()
    }
}

impl Store {
    /// What is in the store now. What comes or goes meanwhile is there or not.
    ///
    /// # Errors
    /// The store cannot be read; of an image that is said in the answer.
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        for digest in self.blobs()? {
            let path = CString::new(blob_path(&digest)).unwrap_or_default();
            if let Some(stat) = there(tree::lstat(self.dir(), &path)).cannot("read", format!("the blob {digest}"))? {
                usage.sizes.insert(Thing::Blob(digest), blocks(&stat));
            }
        }
        let folder = self.folder(c"layers")?;
        let names = tree::names(folder.as_fd()).cannot("list", "the layers")?;
        let sizes = side_by_side(&names, 2, |name| measure(folder.as_fd(), name, &mut HashSet::new(), 0));
        for (name, size) in names.iter().zip(sizes) {
            let id = name.to_string_lossy().into_owned();
            let size = size.cannot("measure", format!("the layer {id}"))?;
            let stat = there(tree::lstat(folder.as_fd(), name)).cannot("read", format!("the layer {id}"))?;
            if let Some(stat) = stat.filter(|stat| tree::file_type(stat) == FileType::Directory) {
                usage.layers.insert(id.clone(), modified(&stat));
                usage.sizes.insert(Thing::Layer(id), size);
            }
        }
        self.add_entries(folder.as_fd(), &mut usage)?;
        Ok(usage)
    }

    fn add_entries(&self, layers: BorrowedFd<'_>, usage: &mut Usage) -> Result<()> {
        let data = self.index()?;
        let index = parse_index(&data)?;
        for (digest, listed) in self.all_listed(&index, |_| true) {
            match listed.and_then(|listed| self.entry(layers, digest, listed, usage)) {
                Ok(found) => usage.entries.push(found),
                Err(error) => usage.damaged.push(error),
            }
        }
        Ok(())
    }

    fn entry(&self, layers: BorrowedFd<'_>, digest: &str, listed: Listed, usage: &Usage) -> Result<Entry> {
        let mut last_used = SystemTime::UNIX_EPOCH;
        let mut images = Vec::with_capacity(listed.images.len());
        for image in listed.images {
            let chains = document::chain_ids(&image.diff_ids);
            let unpacked = self.named(layers, &chains.iter().cloned().collect())?;
            let unpacked = unpacked.iter().map(|name| name.to_string_lossy().into_owned());
            let unpacked: BTreeSet<String> = unpacked.filter(|id| usage.layers.contains_key(id)).collect();
            let top = chains.last().map(|top| self.named(layers, &BTreeSet::from([top.clone()]))).transpose()?;
            let used =
                top.unwrap_or_default().iter().filter_map(|name| usage.layers.get(&*name.to_string_lossy())).max();
            let path = CString::new(blob_path(&image.manifest)).unwrap_or_default();
            let came =
                there(tree::lstat(self.dir(), &path)).cannot("read", format!("the blob {}", image.manifest))?;
            last_used =
                last_used.max(used.copied().unwrap_or(last_used)).max(came.map_or(last_used, |stat| modified(&stat)));
            let mut things: BTreeSet<Thing> = unpacked.into_iter().map(Thing::Layer).collect();
            things.extend([image.id.clone(), image.manifest.clone(), image.listed.clone()].map(Thing::Blob));
            for layer in &image.layers {
                things.insert(Thing::Blob(layer.digest()?));
            }
            images.push((image, things));
        }
        let mut things: BTreeSet<Thing> = images.iter().flat_map(|(_, things)| things.iter().cloned()).collect();
        things.extend(listed.blobs.into_iter().map(Thing::Blob));
        let names = images.first().map(|(image, _)| image.names.clone()).unwrap_or_default();
        Ok(Entry { listed: digest.parse()?, names, images, things, last_used })
    }

    /// Whether a living process stands on a layer. One that begins to at this moment may take it for one that is being
    /// removed, and makes another.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn is_held(&self, id: &str) -> Result<bool> {
        let name = CString::new(id).unwrap_or_default();
        let shown = || format!("the layer {id}");
        let Some(folder) =
            there(tree::open_folder(self.folder(c"layers")?.as_fd(), &name)).cannot("open", shown())?
        else {
            return Ok(false);
        };
        match rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error).cannot("lock", shown()),
        }
    }
}

impl Layer {
    /// Says that the layer is used now, by which a collection knows what nobody has used for long.
    pub fn touch(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        // On a store that is read-only nothing is collected either.
        let _ = rustix::fs::futimens(self.folder(), &Timestamps { last_access: now, last_modification: now });
    }
}

/// Bytes on the disk of a folder with all that is in it; 0 if it is not there.
///
/// # Errors
/// The kernel's.
pub fn disk_usage(path: &Path) -> Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = there(rustix::fs::open(path, flags, Mode::empty())).cannot("measure", path.display())?;
    let Some(folder) = folder else { return Ok(0) };
    let own = rustix::fs::fstat(&folder).cannot("measure", path.display())?;
    let inside = measure_inside(folder.as_fd(), &mut HashSet::new(), 0).cannot("measure", path.display())?;
    Ok(blocks(&own) + inside)
}

/// The deepest tree: as deep as a path can be.
const DEPTH_MAX: usize = 2048;

fn measure(
    dir: BorrowedFd<'_>,
    name: &CString,
    seen: &mut HashSet<(u64, u64)>,
    depth: usize,
) -> rustix::io::Result<u64> {
    let Some(stat) = there(tree::lstat(dir, name))? else { return Ok(0) };
    let is_folder = tree::file_type(&stat) == FileType::Directory;
    if !is_folder && stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) {
        return Ok(0);
    }
    let inside = match is_folder.then(|| there(tree::open_folder(dir, name))).transpose()?.flatten() {
        Some(folder) => measure_inside(folder.as_fd(), seen, depth + 1)?,
        None => 0,
    };
    Ok(blocks(&stat) + inside)
}

fn measure_inside(dir: BorrowedFd<'_>, seen: &mut HashSet<(u64, u64)>, depth: usize) -> rustix::io::Result<u64> {
    if depth > DEPTH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    tree::names(dir)?.iter().map(|name| measure(dir, name, seen, depth)).sum()
}

fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or_default() * 512
}

fn modified(stat: &Stat) -> SystemTime {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::new(seconds, u32::try_from(stat.st_mtime_nsec).unwrap_or_default())
}

/// None for what is not there, or not any more.
fn there<T>(result: rustix::io::Result<T>) -> rustix::io::Result<Option<T>> {
    match result {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_measured_as_du_measures_it() {
        let temp = tempfile::Builder::new().prefix("hull-test-").tempdir().expect("a folder");
        std::fs::create_dir_all(temp.path().join("a/b")).expect("a folder");
        std::fs::write(temp.path().join("a/b/file"), vec![1; 100_000]).expect("a file");
        std::fs::hard_link(temp.path().join("a/b/file"), temp.path().join("a/again")).expect("a name");
        std::fs::File::create(temp.path().join("sparse")).and_then(|file| file.set_len(1 << 30)).expect("a file");
        let du = std::process::Command::new("du").args(["-s", "-B1"]).arg(temp.path()).output().expect("du");
        let du = String::from_utf8_lossy(&du.stdout).split('\t').next().and_then(|size| size.parse::<u64>().ok());
        assert_eq!(Some(disk_usage(temp.path()).expect("a size")), du);
        assert_eq!(disk_usage(&temp.path().join("none")).expect("a size"), 0);
    }
}
