//! Checking a store: every blob against its name, every image against its parts, every tree against what its record and
//! its blob say; and what is left over.
//!
//! Bytes are read without the writers' lock, since that takes long; a blob or a tree that looks wrong is looked at once more
//! with it, and what others need is asked for with it: builds and pulls go on meanwhile, and what they make stays. What cannot be read at all may be whole, and stays.
//! A repair takes away what is wrong and nothing else: a damaged blob, the images that cannot be used without it with
//! their names, a tree that is made again from its blob at its next use. Then nothing leads to what only those needed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use crate::collect::Reach;
use crate::compare;
use crate::document::{self, Index};
use crate::download;
use crate::error::{Cannot, Error, Result};
use crate::find::{Image, name_of, parse_index};
use crate::layer::{self, Layer, Meta, Staging};
use crate::reference::Digest;
use crate::store::Store;
use crate::stream::{self, Wanted};
use crate::tree;

/// A file among the blobs that is none may be one that another tool is just writing; after this time it is not.
const STRAY: Duration = Duration::from_secs(86400);

/// How a store is checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Removes what is wrong or left over.
    pub repair: bool,
    /// Reads every blob and compares its digest, and every tree and compares it with its blob.
    pub verify: bool,
}

/// What others need of a store.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Ids of the layers that containers and the build cache need. Without it no layer counts as left over.
    pub keep: Option<BTreeSet<String>>,
    /// Those of them that containers stand on: a damaged one stays, for its container would miss it more than what it lacks.
    pub pinned: BTreeSet<String>,
}

/// A class of things that are wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FindingKind {
    /// A staging folder of a process that died.
    Staging,
    /// A part of a blob whose download was interrupted.
    Download,
    /// A blob that no image leads to.
    UnusedBlob,
    /// A file among the blobs that is none.
    Stray,
    /// An unpacked layer that no image, container or cache leads to, or that a crash of the machine cut short.
    UnusedLayer,
    /// A link to a layer that is gone.
    DanglingLink,
    /// A blob that is not what its name says.
    DamagedBlob,
    /// An unpacked layer that is not what its record or its blob says.
    DamagedLayer,
    /// An unpacked layer that could not be compared with its blob.
    Unread,
    /// An image that lacks a part, or whose documents cannot be read.
    BrokenImage,
}

/// One thing that is wrong with a store. Prints as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its class.
    pub kind: FindingKind,
    /// Which one it is.
    pub what: String,
    /// It is gone now.
    pub repaired: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FindingKind::Staging => "staging folder left by a process that ended",
            FindingKind::Download => "interrupted download",
            FindingKind::UnusedBlob => "blob that no image uses",
            FindingKind::Stray => "file among the blobs that is none",
            FindingKind::UnusedLayer => "layer that nothing uses",
            FindingKind::DanglingLink => "link to a layer that is gone",
            FindingKind::DamagedBlob => "damaged blob",
            FindingKind::DamagedLayer => "damaged layer",
            FindingKind::Unread => "layer that cannot be compared with its blob",
            FindingKind::BrokenImage => "image that cannot be used",
        };
        write!(f, "{kind}: {}{}", self.what, if self.repaired { " (removed)" } else { "" })
    }
}

/// What reading all bytes brought up: digests of blobs; ids of layers, each with an image that has it and its place there.
#[derive(Default)]
struct Suspects {
    blobs: BTreeSet<Digest>,
    layers: BTreeMap<String, (Image, usize)>,
    unread: Vec<String>,
}

/// A check under way, with the lock.
struct Check<'a> {
    store: &'a Store,
    options: CheckOptions,
    needs: Needs,
    /// Blobs that are not what they should be.
    damaged: BTreeSet<Digest>,
    findings: Vec<Finding>,
}

impl Store {
    /// Looks for what is damaged or left over, and takes it away if that is asked for. `needs` is asked with the store's lock.
    ///
    /// # Errors
    /// A store that cannot be read at all; what others need is not to be known. Everything else is a finding.
    pub fn check<E: From<Error>>(
        &self,
        options: CheckOptions,
        needs: impl FnOnce() -> std::result::Result<Needs, E>,
    ) -> std::result::Result<Vec<Finding>, E> {
        let suspects = if options.verify { self.suspects()? } else { Suspects::default() };
        let _lock = self.lock()?;
        let needs = needs()?;
        let mut check = Check { store: self, options, needs, damaged: BTreeSet::new(), findings: Vec::new() };
        check.leftovers()?;
        check.blobs(&suspects.blobs)?;
        let reach = check.images()?;
        check.unused_blobs(reach.as_ref())?;
        check.layers(reach.as_ref(), &suspects.layers)?;
        for what in suspects.unread {
            check.found(FindingKind::Unread, what, false);
        }
        Ok(check.findings)
    }

    /// Reads all that there is, without the lock.
    fn suspects(&self) -> Result<Suspects> {
        let mut suspects = Suspects::default();
        for digest in self.blobs()? {
            if self.check_blob(&digest).is_err() {
                suspects.blobs.insert(digest);
            }
        }
        let mut seen = BTreeSet::new();
        let folder = self.folder(c"layers")?;
        // An image that cannot be read is told by its documents; what it needs cannot be compared.
        for image in self.list()?.0 {
            let mut below = Vec::new();
            for (n, chain) in document::chain_ids(&image.diff_ids).iter().enumerate() {
                // Without the trees below there is nothing that a folder without an entry of its own could be like.
                let Some(layer) = self.by_chain(folder.as_fd(), chain)? else { break };
                if seen.insert(chain.clone()) {
                    match self.difference(&image, n, &layer, &below) {
                        Ok(why) => {
                            suspects.layers.extend(why.map(|_| (layer.id().to_owned(), (image.clone(), n))));
                        }
                        // On a full disk, say, where what is left over is to be told all the same.
                        Err(error) => suspects.unread.push(format!("{}: {error}", layer.id())),
                    }
                }
                below.push(layer);
            }
        }
        Ok(suspects)
    }

    /// In what a tree is not what its blob says. A blob that cannot be used is told by itself.
    fn difference(&self, image: &Image, n: usize, layer: &Layer, below: &[Layer]) -> Result<Option<String>> {
        // Not swept on the way as for a writer: what is left over is to be told.
        let staging = Staging::new(self.root(), self.folder(c"staging")?)?;
        match self.unpack_into(&staging, &image.layers[n], &image.diff_ids[n], below) {
            Err(error @ Error::Io { .. }) => return Err(error),
            Err(_) => return Ok(None),
            Ok(()) => {}
        }
        let Ok(is) = layer.tree() else { return Ok(Some("its tree is missing".to_owned())) };
        let differs = compare::difference(is.as_fd(), staging.tree()?.as_fd())?;
        Ok(differs.map(|path| format!("{path:?} is not what its blob has")))
    }

    fn check_blob(&self, digest: &Digest) -> Result<()> {
        let (file, size) = self.blob(digest, None)?;
        let is = stream::digest_of(file, Wanted { blob: Some(digest), size: Some(size), ..Wanted::default() })?;
        if is == *digest {
            return Ok(());
        }
        Err(Error::Mismatch { digest: digest.to_string(), why: format!("its content has the digest {is}") })
    }

    /// Files among the blobs without a digest's name that nobody has written to for a day, as paths below the store.
    fn strays(&self) -> Result<Vec<CString>> {
        let mut strays = Vec::new();
        let folder = self.folder(c"blobs")?;
        for algorithm in tree::names(folder.as_fd()).cannot("list", "the blobs")? {
            let Ok(inside) = tree::open_folder(folder.as_fd(), &algorithm) else { continue };
            for name in tree::names(inside.as_fd()).cannot("list", "the blobs")? {
                let text = format!("{}:{}", algorithm.to_string_lossy(), name.to_string_lossy());
                let Ok(stat) = tree::lstat(inside.as_fd(), &name) else { continue };
                let written = SystemTime::UNIX_EPOCH + Duration::from_secs(stat.st_mtime.unsigned_abs());
                if text.parse::<Digest>().is_err() && written.elapsed().is_ok_and(|age| age > STRAY) {
                    let path = [b"blobs/", algorithm.to_bytes(), b"/", name.to_bytes()].concat();
                    strays.extend(CString::new(path));
                }
            }
        }
        Ok(strays)
    }
}

impl Check<'_> {
    fn found(&mut self, kind: FindingKind, what: String, repaired: bool) {
        self.findings.push(Finding { kind, what, repaired });
    }

    /// What processes left that have ended.
    fn leftovers(&mut self) -> Result<()> {
        let repair = self.options.repair;
        let staging = self.store.folder(c"staging")?;
        layer::settle(staging.as_fd())?;
        for name in layer::sweep(staging.as_fd(), !repair)? {
            self.found(FindingKind::Staging, name, repair);
        }
        for name in download::sweep_all(self.store, !repair)? {
            self.found(FindingKind::Download, name, repair);
        }
        Ok(())
    }

    /// Blobs that are not what their names say, and files that are no blobs.
    fn blobs(&mut self, suspects: &BTreeSet<Digest>) -> Result<()> {
        for digest in suspects {
            match self.store.check_blob(digest) {
                Ok(()) | Err(Error::MissingBlob { .. }) => {}
                // What cannot be read now may be whole.
                Err(error @ Error::Io { .. }) => self.found(FindingKind::DamagedBlob, error.to_string(), false),
                Err(error) => {
                    let repaired = self.options.repair && self.store.remove_blob(digest)?.is_some();
                    self.found(FindingKind::DamagedBlob, error.to_string(), repaired);
                    self.damaged.insert(digest.clone());
                }
            }
        }
        for path in self.store.strays()? {
            let shown = path.to_string_lossy().escape_debug().to_string();
            if self.options.repair {
                tree::remove(self.store.dir(), &path).cannot("remove", &shown)?;
            }
            self.found(FindingKind::Stray, shown, self.options.repair);
        }
        Ok(())
    }

    /// Images that lack a part; with a repair their entries leave the index. Gives what the others lead to; none if one that
    /// stays cannot be read.
    fn images(&mut self) -> Result<Option<Reach>> {
        let (mut reach, mut leaving, mut known, mut unread) = (Reach::default(), BTreeSet::new(), true, false);
        let data = self.store.index()?;
        let index = parse_index(&data)?;
        let mut seen = BTreeSet::new();
        for entry in index.manifests.iter().filter(|entry| seen.insert(&*entry.digest)) {
            let listed = match self.store.listed(&index, entry) {
                Ok(listed) => listed,
                Err(error @ Error::Io { .. }) => {
                    let what = format!("{}: {error}", entry.digest);
                    self.found(FindingKind::BrokenImage, what, false);
                    unread = true;
                    continue;
                }
                Err(error) => {
                    known = false;
                    self.broken(&index, &entry.digest, &error);
                    leaving.insert(entry.digest.to_string());
                    continue;
                }
            };
            let lacking = listed.images.iter().filter_map(|image| Some((image, self.lacks(image)?)));
            let lacking: Vec<(&Image, Error)> = lacking.collect();
            if lacking.is_empty() || !self.options.repair {
                reach.add(&listed);
            }
            if let Some((_, error)) = lacking.first()
                && lacking.len() == listed.images.len()
            {
                self.broken(&index, &entry.digest, error);
                leaving.insert(entry.digest.to_string());
                continue;
            }
            for (image, error) in &lacking {
                // One platform of several: without its manifest it is one that is not here.
                let repaired = self.options.repair && self.store.remove_blob(&image.manifest)?.is_some();
                let names: Vec<String> = image.names.iter().map(|name| name.familiar()).collect();
                let what = format!("{} for {}: {error}", names.join(", "), image.platform);
                self.found(FindingKind::BrokenImage, what, repaired);
            }
            if self.options.repair && !lacking.is_empty() {
                reach.add(&self.store.listed(&index, entry)?);
            }
        }
        if self.options.repair && !leaving.is_empty() {
            self.store.change_index(|entries| {
                entries.retain(|entry| !entry["digest"].as_str().is_some_and(|digest| leaving.contains(digest)));
            })?;
        }
        Ok((!unread && (known || self.options.repair)).then_some(reach))
    }

    /// Why an image cannot be unpacked: the first of its layers that is not there as it should be.
    fn lacks(&self, image: &Image) -> Option<Error> {
        image.layers.iter().find_map(|layer| {
            let digest = layer.digest().ok()?;
            if self.damaged.contains(&digest) {
                return Some(Error::Mismatch { digest: digest.to_string(), why: "it is damaged".to_owned() });
            }
            self.store.blob(&digest, Some(layer.size)).err().filter(|error| !matches!(error, Error::Io { .. }))
        })
    }

    /// A finding for each name that leads to `digest`, or one for an image without a name.
    fn broken(&mut self, index: &Index<'_>, digest: &str, error: &Error) {
        for entry in index.manifests.iter().filter(|entry| entry.digest == digest) {
            let name = name_of(entry).map_or_else(|| digest.to_owned(), |name| name.familiar());
            self.found(FindingKind::BrokenImage, format!("{name}: {error}"), self.options.repair);
        }
    }

    /// What a damaged image needs is not known, so nothing counts as unused beside one that stays.
    fn unused_blobs(&mut self, reach: Option<&Reach>) -> Result<()> {
        let Some(reach) = reach else { return Ok(()) };
        for digest in self.store.blobs()?.difference(&reach.blobs) {
            // A damaged one was told already.
            if !self.damaged.contains(digest) {
                let repaired = self.options.repair && self.store.remove_blob(digest)?.is_some();
                self.found(FindingKind::UnusedBlob, digest.to_string(), repaired);
            }
        }
        Ok(())
    }

    fn layers(&mut self, reach: Option<&Reach>, suspects: &BTreeMap<String, (Image, usize)>) -> Result<()> {
        let folder = self.store.folder(c"layers")?;
        let layers = folder.as_fd();
        let used = reach.map(|reach| self.store.used_layers(layers, reach)).transpose()?;
        let is_link = |name: &CString| rustix::fs::readlinkat(layers, name, Vec::new()).is_ok();
        let (links, folders): (Vec<CString>, Vec<CString>) =
            tree::names(layers).cannot("list", "the layers")?.into_iter().partition(is_link);
        for name in folders {
            self.layer(layers, &name, used.as_ref(), suspects)?;
        }
        // After the folders, for a link may have led to one that is gone by now.
        for name in links {
            let target = rustix::fs::readlinkat(layers, &name, Vec::new());
            if target.is_ok_and(|target| tree::lstat(layers, &target).is_err()) {
                let repaired = self.options.repair && self.store.remove_layer(layers, &name)?;
                self.found(FindingKind::DanglingLink, name.to_string_lossy().into_owned(), repaired);
            }
        }
        Ok(())
    }

    fn layer(
        &mut self,
        layers: BorrowedFd<'_>,
        name: &CString,
        used: Option<&BTreeSet<String>>,
        suspects: &BTreeMap<String, (Image, usize)>,
    ) -> Result<()> {
        let id = name.to_string_lossy().into_owned();
        let is_used = used.is_none_or(|used| used.contains(&id));
        let is_kept = self.needs.keep.as_ref().is_none_or(|keep| keep.contains(&id));
        let meta = tree::open_folder(layers, name).cannot("open", &id).and_then(|at| Meta::read(at.as_fd()));
        let lost = match &meta {
            Ok(meta) => meta.is_lost()?,
            Err(_) => true,
        };
        if !is_used && (lost || !is_kept) {
            let repaired = self.options.repair && used.is_some() && self.store.remove_layer(layers, name)?;
            self.found(FindingKind::UnusedLayer, id, repaired);
            return Ok(());
        }
        let damage = match meta {
            Err(_) => Some("its record cannot be read".to_owned()),
            // One of an earlier boot is made again before anybody trusts it.
            Ok(_) if lost => None,
            Ok(meta) => match (damage(layers, name, &meta)?, suspects.get(&id)) {
                (None, Some((image, n))) => self.again(layers, &id, image, *n),
                (known, _) => known,
            },
        };
        if let Some(why) = damage {
            let pinned = self.needs.pinned.contains(&id);
            let repaired = self.options.repair && !pinned && self.store.remove_layer(layers, name)?;
            let why = if pinned { format!("{why}; a container stands on it") } else { why };
            self.found(FindingKind::DamagedLayer, format!("{id}: {why}"), repaired);
        }
        Ok(())
    }
}

impl Check<'_> {
    /// In what the tree `id`, the `n`th of an image, is not what its blob says, now that nobody changes what is visible. It may
    /// have been made again since it was read. What cannot be compared now was told to be different.
    fn again(&self, layers: BorrowedFd<'_>, id: &str, image: &Image, n: usize) -> Option<String> {
        let mut trees = Vec::new();
        for chain in document::chain_ids(&image.diff_ids).iter().take(n + 1) {
            trees.extend(self.store.by_chain(layers, chain).ok().flatten());
        }
        let layer = trees.pop().filter(|layer| layer.id() == id && trees.len() == n)?;
        match self.store.difference(image, n, &layer, &trees) {
            Ok(why) => why,
            Err(error) => Some(error.to_string()),
        }
    }
}

/// In what a layer's folder is not what its record says.
fn damage(layers: BorrowedFd<'_>, name: &CString, meta: &Meta) -> Result<Option<String>> {
    let folder = tree::open_folder(layers, name).cannot("open", "a layer")?;
    if tree::open_folder(folder.as_fd(), c"diff").is_err() {
        return Ok(Some("its tree is missing".to_owned()));
    }
    // The chain id of the lowest layer is its diff id. What a build made has a shorter name.
    let id = name.to_string_lossy();
    let (true, Some(diff_id)) = (meta.parent.is_none() && id.len() == 64, &meta.diff_id) else { return Ok(None) };
    let same = diff_id.split_once(':').is_some_and(|(_, hex)| hex == id);
    Ok((!same).then(|| format!("its record is that of {diff_id}")))
}
