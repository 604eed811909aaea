//! Removing images, and collecting what nothing leads to any more.
//!
//! Reachable is what an entry of `index.json` leads to. Layers that containers or a build cache need are the caller's to
//! name; those that a living process holds are never removed. Nothing is removed if a document of an image that stays
//! cannot be read, since then it is not known what it needs.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{FileType, FlockOperation};
use rustix::io::Errno;
use serde_json::Value;

use crate::commit::entry_name;
use crate::document;
use crate::download;
use crate::error::{Cannot, Error, Result};
use crate::find::{Listed, parse_index};
use crate::layer::{self, random_id};
use crate::outgoing;
use crate::reference::{Digest, Reference};
use crate::store::{Store, blob_path};
use crate::tree;

/// What a removal took away.
#[derive(Clone, Debug, Default)]
pub struct Removed {
    /// Names that lead nowhere now.
    pub untagged: Vec<Reference>,
    /// Ids of images that are gone.
    pub deleted: Vec<Digest>,
    /// Ids of unpacked layers that are gone.
    pub layers: Vec<String>,
    /// Blobs that are gone.
    pub blobs: Vec<Digest>,
    /// Bytes of those blobs.
    pub bytes: u64,
}

/// What images lead to.
#[derive(Default)]
pub(crate) struct Reach {
    pub blobs: BTreeSet<Digest>,
    pub chains: BTreeSet<Digest>,
}

impl Reach {
    pub(crate) fn add(&mut self, listed: &Listed) {
        self.blobs.extend(listed.blobs.iter().cloned());
        for image in &listed.images {
            self.chains.extend(document::chain_ids(&image.diff_ids));
        }
    }
}

/// What a removal takes out of the index.
#[derive(Default)]
struct Leaving {
    names: Vec<Reference>,
    /// The digests of the entries that have one of the names.
    listed: BTreeSet<Digest>,
    /// Those of them that have no other name, and the ids of their images.
    last: BTreeSet<Digest>,
    ids: Vec<Digest>,
}

impl Store {
    /// Removes a name, and the image with what only it needs when that was its last one. By id all its names go, if there
    /// is one only or with `force`. `keep` gives the ids of layers that containers or a build cache need, and is asked with the
    /// store's lock. Of an image that cannot be read only the name is removed; `check` finds what that leaves.
    ///
    /// # Errors
    /// No such image; an id that has several names, without `force`; another image cannot be read, so that it is not known
    /// what it needs; that of `keep`.
    pub fn remove<E: From<Error>>(
        &self,
        name: &str,
        force: bool,
        keep: impl FnOnce() -> std::result::Result<BTreeSet<String>, E>,
    ) -> std::result::Result<Removed, E> {
        let _lock = self.lock()?;
        let keep = keep()?;
        Ok(self.remove_locked(name, force, &keep)?)
    }

    fn remove_locked(&self, name: &str, force: bool, keep: &BTreeSet<String>) -> Result<Removed> {
        let wanted = match self.wanted(name, force) {
            Ok(wanted) => wanted,
            Err(error @ (Error::NotFound { .. } | Error::InUse { .. } | Error::Ambiguous { .. })) => {
                return Err(error);
            }
            Err(error) => return self.remove_damaged(name, error),
        };
        let mut removed = Removed { untagged: wanted.names.clone(), ..Removed::default() };
        let forget = |entries: &mut Vec<Value>| {
            entries.retain(|entry| {
                let named = entry_name(entry).is_some_and(|name| wanted.names.contains(&name));
                let ours = |listed: &Digest| entry["digest"] == listed.as_str();
                !(wanted.last.iter().any(ours) || (named && wanted.listed.iter().any(ours)))
            });
        };
        if wanted.last.is_empty() {
            self.change_index(forget)?;
            return Ok(removed);
        }
        // Asked before anything is changed, since it fails if another image cannot be read.
        let others = self.reach(&wanted.last)?;
        let candidates = self.reach_of(&wanted.last)?;
        match self.change_index(forget) {
            // A new index needs room for itself. The trees give it: they can be made again if it fails once more.
            Err(error) if error.is_full() => {
                self.sweep_layers(&others, Some(&candidates), keep, &mut removed)?;
                self.change_index(forget)?;
            }
            result => result?,
        }
        removed.deleted = wanted.ids;
        self.sweep_layers(&others, Some(&candidates), keep, &mut removed)?;
        self.sweep_blobs(&others, Some(&candidates), &mut removed)?;
        Ok(removed)
    }

    /// What `name` wants to be removed. Needs the lock.
    fn wanted(&self, name: &str, force: bool) -> Result<Leaving> {
        let image = self.find(name)?.ok_or_else(|| Error::NotFound { name: name.to_owned() })?;
        let by_name = name.parse::<Reference>().ok().filter(|name| image.names.contains(name));
        if by_name.is_none() && image.names.len() > 1 && !force {
            let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
            let why = format!("it has several names ({}); remove them, or force it", names.join(", "));
            return Err(Error::InUse { name: name.to_owned(), why });
        }
        // A name may lead to an image for each of several platforms.
        let images = if by_name.is_some() { self.find_all(name)? } else { vec![image.clone()] };
        let names = by_name.map_or_else(|| image.names.clone(), |name| vec![name]);
        let mut leaving = Leaving { names, ..Leaving::default() };
        for image in images {
            if image.names.iter().all(|name| leaving.names.contains(name)) {
                leaving.last.insert(image.listed.clone());
                leaving.ids.push(image.id);
            }
            leaving.listed.insert(image.listed);
        }
        Ok(leaving)
    }

    /// Takes the name, or the digest that the index lists, of an image that cannot be read out of the index. `error` is
    /// the answer if there is no such entry.
    fn remove_damaged(&self, name: &str, error: Error) -> Result<Removed> {
        let reference = name.parse::<Reference>().ok();
        let ours =
            |entry: &Value| entry["digest"] == name || entry_name(entry).is_some_and(|own| Some(own) == reference);
        let mut removed = Removed::default();
        let mut found = false;
        self.change_index(|entries| {
            entries.retain(|entry| {
                found |= ours(entry);
                removed.untagged.extend(entry_name(entry).filter(|_| ours(entry)));
                !ours(entry)
            });
        })?;
        if found { Ok(removed) } else { Err(error) }
    }

    /// Takes what has these digests out of the index, and removes every blob and unpacked layer that nothing in it leads to.
    /// `keep` gives the ids of layers that containers or a build cache need, and is asked with the store's lock.
    ///
    /// # Errors
    /// An image that stays cannot be read, so that it is not known what it needs; nothing is removed then. That of `keep`.
    pub fn gc<E: From<Error>>(
        &self,
        leaving: &BTreeSet<Digest>,
        keep: impl FnOnce() -> std::result::Result<BTreeSet<String>, E>,
    ) -> std::result::Result<Removed, E> {
        let _lock = self.lock()?;
        let keep = keep()?;
        Ok(self.gc_locked(leaving, &keep)?)
    }

    fn gc_locked(&self, leaving: &BTreeSet<Digest>, keep: &BTreeSet<String>) -> Result<Removed> {
        let staging = self.folder(c"staging")?;
        layer::sweep(staging.as_fd(), false)?;
        download::sweep_all(self, false)?;
        let mut removed = Removed::default();
        let reach = self.reach(leaving)?;
        if !leaving.is_empty() {
            let leaves = |entry: &Value| leaving.iter().any(|digest| entry["digest"] == digest.as_str());
            self.change_index(|entries| entries.retain(|entry| !leaves(entry)))?;
        }
        self.sweep_layers(&reach, None, keep, &mut removed)?;
        self.sweep_blobs(&reach, None, &mut removed)?;
        Ok(removed)
    }

    /// Removes those unpacked layers of `ids` that no image leads to, no process holds, and that are not in what `keep` gives,
    /// which is asked with the store's lock. Beside an image that cannot be read none is removed.
    ///
    /// # Errors
    /// The kernel's; that of `keep`.
    pub fn remove_layers<E: From<Error>>(
        &self,
        ids: &BTreeSet<String>,
        keep: impl FnOnce() -> std::result::Result<BTreeSet<String>, E>,
    ) -> std::result::Result<(), E> {
        let _lock = self.lock()?;
        let keep = keep()?;
        let Ok(reach) = self.reach(&BTreeSet::new()) else { return Ok(()) };
        let folder = self.folder(c"layers")?;
        let used = self.used_layers(folder.as_fd(), &reach)?;
        for id in ids.iter().filter(|id| !used.contains(*id) && !keep.contains(*id)) {
            self.remove_layer(folder.as_fd(), &CString::new(id.as_str()).unwrap_or_default())?;
        }
        Ok(())
    }

    /// What all entries of the index lead to, but those with the digests `without`.
    fn reach(&self, without: &BTreeSet<Digest>) -> Result<Reach> {
        self.reach_where(|digest| !without.iter().any(|without| without.as_str() == digest))
    }

    /// What these entries lead to.
    fn reach_of(&self, listed: &BTreeSet<Digest>) -> Result<Reach> {
        self.reach_where(|digest| listed.iter().any(|listed| listed.as_str() == digest))
    }

    fn reach_where(&self, wanted: impl Fn(&str) -> bool) -> Result<Reach> {
        let data = self.index()?;
        let index = parse_index(&data)?;
        let mut reach = Reach::default();
        for (_, listed) in self.all_listed(&index, wanted) {
            reach.add(&listed?);
        }
        Ok(reach)
    }

    /// Removes unpacked layers that `reach` does not have, of `candidates` only if given. Needs the lock.
    fn sweep_layers(
        &self,
        reach: &Reach,
        candidates: Option<&Reach>,
        keep: &BTreeSet<String>,
        removed: &mut Removed,
    ) -> Result<()> {
        let folder = self.folder(c"layers")?;
        let names = match candidates {
            Some(candidates) => self.named(folder.as_fd(), &candidates.chains)?,
            None => tree::names(folder.as_fd()).cannot("list", "the layers")?,
        };
        let used = self.used_layers(folder.as_fd(), reach)?;
        for name in names {
            let id = name.to_string_lossy();
            if used.contains(id.as_ref()) || keep.contains(id.as_ref()) {
                continue;
            }
            if self.remove_layer(folder.as_fd(), &name)? {
                removed.layers.push(id.into_owned());
            }
        }
        Ok(())
    }

    /// The same with blobs.
    fn sweep_blobs(&self, reach: &Reach, candidates: Option<&Reach>, removed: &mut Removed) -> Result<()> {
        let all = candidates.is_none().then(|| self.blobs()).transpose()?;
        let blobs = candidates.map(|candidates| &candidates.blobs).or(all.as_ref());
        for digest in blobs.into_iter().flat_map(|blobs| blobs.difference(&reach.blobs)) {
            if let Some(size) = self.remove_blob(digest)? {
                removed.bytes += size;
                removed.blobs.push(digest.clone());
            }
        }
        Ok(())
    }

    /// The names in `layers/` that chain ids lead over: links and the folders at their ends.
    pub(crate) fn named(&self, layers: BorrowedFd<'_>, chains: &BTreeSet<Digest>) -> Result<Vec<CString>> {
        let mut names = Vec::new();
        for chain in chains {
            match rustix::fs::readlinkat(layers, chain.hex(), Vec::new()) {
                Ok(target) => names.extend([CString::new(chain.hex()).unwrap_or_default(), target]),
                Err(Errno::INVAL) => names.push(CString::new(chain.hex()).unwrap_or_default()),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).cannot("find", format!("the layer {chain}")),
            }
        }
        names.retain(|name| !name.to_bytes().contains(&b'/') && !name.to_bytes().starts_with(b"."));
        Ok(names)
    }

    pub(crate) fn used_layers(&self, layers: BorrowedFd<'_>, reach: &Reach) -> Result<BTreeSet<String>> {
        let names = self.named(layers, &reach.chains)?;
        Ok(names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect())
    }

    /// Removes a link or an unpacked layer; false if a process holds it. First it goes to `staging/`, so that a removal
    /// that is cut short never leaves half a layer.
    pub(crate) fn remove_layer(&self, layers: BorrowedFd<'_>, name: &CStr) -> Result<bool> {
        let shown = || format!("the layer {}", name.to_string_lossy());
        let Ok(stat) = tree::lstat(layers, name) else { return Ok(false) };
        if tree::file_type(&stat) != FileType::Directory {
            tree::remove(layers, name).cannot("remove", shown())?;
            return Ok(true);
        }
        let folder = tree::open_folder(layers, name).cannot("open", shown())?;
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error).cannot("lock", shown()),
        }
        let staging = self.folder(c"staging")?;
        let away = CString::new(random_id()?).unwrap_or_default();
        rustix::fs::renameat(layers, name, &staging, &away).cannot("remove", shown())?;
        tree::remove(staging.as_fd(), &away).cannot("remove", shown())?;
        Ok(true)
    }

    /// Removes a folder on the store's file system with everything in it. It goes to `staging/` first, so that one rename
    /// takes it away from where it was, and what a kill leaves of it is swept later.
    ///
    /// # Errors
    /// It is not there, lies on another file system, or something in it cannot be removed.
    pub fn discard(&self, path: &Path) -> Result<()> {
        let shown = || path.display().to_string();
        let staging = self.folder(c"staging")?;
        let away = CString::new(random_id()?).unwrap_or_default();
        rustix::fs::renameat(rustix::fs::CWD, path, &staging, &away).cannot("remove", shown())?;
        tree::remove(staging.as_fd(), &away).cannot("remove", shown())
    }

    pub(crate) fn blobs(&self) -> Result<BTreeSet<Digest>> {
        let mut blobs = BTreeSet::new();
        let folder = self.folder(c"blobs")?;
        for algorithm in tree::names(folder.as_fd()).cannot("list", "the blobs")? {
            let Ok(inside) = tree::open_folder(folder.as_fd(), &algorithm) else { continue };
            for name in tree::names(inside.as_fd()).cannot("list", "the blobs")? {
                // What has no digest's name is somebody else's.
                let text = format!("{}:{}", algorithm.to_string_lossy(), name.to_string_lossy());
                blobs.extend(text.parse::<Digest>());
            }
        }
        Ok(blobs)
    }

    pub(crate) fn remove_blob(&self, digest: &Digest) -> Result<Option<u64>> {
        let size = match self.blob(digest, None) {
            Ok((_, size)) => size,
            Err(Error::MissingBlob { .. }) => return Ok(None),
            Err(_) => 0,
        };
        let path = CString::new(blob_path(digest)).unwrap_or_default();
        tree::remove(self.dir(), &path).cannot("remove", format!("the blob {digest}"))?;
        outgoing::forget(self, digest)?;
        Ok(Some(size))
    }
}
