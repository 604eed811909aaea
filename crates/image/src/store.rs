//! The store: an OCI image layout on disk with unpacked layers beside the blobs. This module reads it.
//!
//! ```text
//! oci-layout  index.json  blobs/sha256/<hex>      the image layout, as any OCI tool reads and writes it
//! layers/<id>/{diff,layer.json}                   unpacked layers; layers/<chain id> may be a link to one
//! staging/<id>/                                   what is being made, locked by its maker
//! lock                                            held by a writer while it changes what is visible
//! ```
//!
//! Readers take no lock: `index.json` is replaced by a rename, blobs never change. Writing is in `commit`, removing in
//! `collect`. Source: image specification `image-layout.md`.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::archive::Archive;
use crate::document::{self, DOCUMENT_MAX, Descriptor, INDEX_MAX, Index, IndexEntry, Manifest, Target};
use crate::error::{Cannot, Error, Result};
use crate::layer::{self, Layer, Meta, Staging, boot_id};
use crate::platform::Platform;
use crate::receive::Blob;
use crate::reference::{Digest, Reference};
use crate::stream::{self, Wanted};
use crate::{apply, tree};

/// Indexes inside indexes that are followed.
const NESTED_MAX: usize = 3;

/// An image in the store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Image {
    /// The digest of its configuration, which is what people call the image's id.
    pub id: Digest,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Its names in the store; none if all were given to other images.
    pub names: Vec<Reference>,
    /// Those of them that a registry is known to have it under, each with its digest there.
    pub origins: Vec<(Reference, Digest)>,
    /// Its configuration.
    pub config: ImageConfiguration,
    /// Bytes of its layers as they are stored, with configuration and manifest.
    pub size: u64,
    /// When it was made, RFC 3339, if it says so.
    pub created: Option<String>,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) layers: Vec<Descriptor>,
    pub(crate) manifest_blob: Blob,
    pub(crate) config_blob: Blob,
    /// What the index lists: the manifest, or an index that leads to it.
    pub(crate) listed: Digest,
    /// Every document on the way from the index to the configuration.
    pub(crate) documents: Vec<Digest>,
}

impl Image {
    /// The digests of its layers' plain archives, lowest first.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.diff_ids
    }
}

/// A store of images in one folder.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    dir: OwnedFd,
}

impl Store {
    /// Opens the store in the folder `root`; makes one where there is none. Only its owner may enter it.
    ///
    /// # Errors
    /// A folder that cannot be made or opened.
    pub fn open(root: &Path) -> Result<Store> {
        let shown = || format!("the image store {}", root.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(root, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                let mut builder = std::fs::DirBuilder::new();
                builder.recursive(true).mode(0o700).create(root).cannot("make", shown())?;
                rustix::fs::open(root, flags, Mode::empty())
            }
            result => result,
        }
        .cannot("open", shown())?;
        let store = Store { root: root.to_owned(), dir };
        let stat = rustix::fs::fstat(&store.dir).cannot("read", shown())?;
        if tree::permissions(&stat) & 0o077 != 0 {
            // Layers have set-id programs; nobody else may reach them.
            rustix::fs::fchmod(&store.dir, Mode::from_raw_mode(0o700)).cannot("close to others", shown())?;
        }
        // Made last, so that its presence says that all of the layout is there.
        if tree::lstat(store.dir.as_fd(), c"staging").is_err() {
            store.initialize()?;
        }
        Ok(store)
    }

    fn initialize(&self) -> Result<()> {
        let _lock = self.lock()?;
        for name in [c"blobs", c"blobs/sha256", c"layers"] {
            match rustix::fs::mkdirat(&self.dir, name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error).cannot("make", self.root.display()),
            }
        }
        for (name, data) in [
            (c"oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice()),
            (c"index.json", br#"{"schemaVersion":2,"manifests":[]}"#.as_slice()),
        ] {
            if tree::lstat(self.dir.as_fd(), name).is_err() {
                layer::write_new(self.dir.as_fd(), name, data)?;
            }
        }
        match rustix::fs::mkdirat(&self.dir, c"staging", Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).cannot("make", self.root.display()),
        }
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(crate) fn folder(&self, name: &CStr) -> Result<OwnedFd> {
        tree::open_folder(self.dir(), name)
            .cannot("open", format!("{} in the store {}", name.to_string_lossy(), self.root.display()))
    }

    /// The writers' lock; it goes with the descriptor, however the process ends.
    pub(crate) fn lock(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let shown = || format!("the image store {}", self.root.display());
        let file =
            rustix::fs::openat(self.dir(), c"lock", flags, Mode::from_raw_mode(0o600)).cannot("lock", shown())?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
            .cannot("lock", shown())?;
        Ok(file)
    }

    /// Finds an image by name in any spelling (`debian`, `docker.io/library/debian:12`, `debian@sha256:…`), by the digest
    /// of its configuration or manifest, or by the beginning of its id.
    ///
    /// # Errors
    /// A name that is none; a prefix that several ids have; documents that are missing or not what their digest says.
    pub fn find(&self, name: &str) -> Result<Option<Image>> {
        let data = self.index()?;
        let index = parse_index(&data)?;
        if let Ok(digest) = name.parse::<Digest>() {
            return self.find_digest(&index, &digest);
        }
        let reference = name.parse::<Reference>();
        if let Ok(reference) = &reference {
            if let Some(entry) = index.manifests.iter().find(|entry| is_named(entry, reference)) {
                return self.load(&index, entry).map(Some);
            }
            if let Some(digest) = reference.digest() {
                return self.find_digest(&index, digest);
            }
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return reference.map(|_| None);
        }
        let (images, damaged) = self.list()?;
        let mut found: Option<Image> = None;
        for image in images.into_iter().filter(|image| image.id.hex().starts_with(prefix)) {
            if found.as_ref().is_some_and(|other| other.id != image.id) {
                return Err(Error::Ambiguous { name: name.to_owned() });
            }
            found = Some(image);
        }
        // It may be the one that cannot be read.
        match (found, damaged.into_iter().next()) {
            (None, Some(error)) => Err(error),
            (found, _) => Ok(found),
        }
    }

    fn find_digest(&self, index: &Index<'_>, digest: &Digest) -> Result<Option<Image>> {
        if let Some(entry) = index.manifests.iter().find(|entry| entry.digest == digest.as_str()) {
            return self.load(index, entry).map(Some);
        }
        for entry in &index.manifests {
            let image = self.load(index, entry)?;
            if image.id == *digest || image.manifest == *digest {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// Every image of the store, in the order of its index; none may be damaged.
    ///
    /// # Errors
    /// A document that is missing or damaged; `check` says which are.
    pub fn images(&self) -> Result<Vec<Image>> {
        match self.list()? {
            (images, damaged) if damaged.is_empty() => Ok(images),
            (_, mut damaged) => Err(damaged.swap_remove(0)),
        }
    }

    /// Every image that can be read, in the order of the index, and why the others cannot.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn list(&self) -> Result<(Vec<Image>, Vec<Error>)> {
        let data = self.index()?;
        let index = parse_index(&data)?;
        let mut seen = BTreeSet::new();
        let (mut images, mut damaged) = (Vec::new(), Vec::new());
        for entry in index.manifests.iter().filter(|entry| seen.insert(&*entry.digest)) {
            match self.load(&index, entry) {
                Ok(image) => images.push(image),
                Err(error) => damaged.push(error),
            }
        }
        Ok((images, damaged))
    }

    /// The bytes of `index.json`.
    pub(crate) fn index(&self) -> Result<Vec<u8>> {
        let shown = || format!("index.json in the store {}", self.root.display());
        match hull_sys::fs::read_file(self.dir(), c"index.json", INDEX_MAX as usize) {
            Ok(data) => Ok(data),
            Err(error) => Err(std::io::Error::from(error)).cannot("read", shown()),
        }
    }

    pub(crate) fn load(&self, index: &Index<'_>, entry: &IndexEntry<'_>) -> Result<Image> {
        let listed: Digest = entry.digest.parse()?;
        let mut documents = Vec::new();
        let media_type = entry.media_type.as_deref().map(str::to_owned);
        let (manifest_blob, manifest) = self.manifest(&listed, entry.size, media_type, &mut documents)?;
        let id = manifest.config.digest()?;
        let data = self.document(&id, manifest.config.size)?;
        documents.push(id.clone());
        let (config, diff_ids) = document::configuration(&data, &id, manifest.layers.len())?;
        let ours = || index.manifests.iter().filter(|other| other.digest == entry.digest);
        let layers = manifest.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
        Ok(Image {
            id,
            manifest: manifest_blob.digest.clone(),
            names: ours().filter_map(name_of).collect(),
            origins: ours().filter_map(origin_of).collect(),
            created: config.created().clone(),
            config,
            size: layers.saturating_add(manifest_blob.size).saturating_add(manifest.config.size),
            diff_ids,
            layers: manifest.layers,
            manifest_blob,
            config_blob: Blob::new(manifest.config)?,
            listed,
            documents,
        })
    }

    fn manifest(
        &self,
        listed: &Digest,
        size: u64,
        media_type: Option<String>,
        documents: &mut Vec<Digest>,
    ) -> Result<(Blob, Manifest)> {
        let (mut digest, mut size, mut media_type) = (listed.clone(), size, media_type);
        for _ in 0..=NESTED_MAX {
            let data = self.document(&digest, size)?;
            documents.push(digest.clone());
            match document::parse(&data, &digest, media_type.as_deref(), &Platform::host())? {
                Target::Manifest(manifest, media_type) => {
                    return Ok((Blob { media_type, digest, size }, manifest));
                }
                Target::Index(next) => {
                    digest = next.digest()?;
                    size = next.size;
                    media_type = Some(next.media_type);
                }
            }
        }
        Err(Error::document(format!("index {listed}"), format!("it is more than {NESTED_MAX} indexes deep")))
    }

    /// A document, whole and verified: size first, then digest.
    pub(crate) fn document(&self, digest: &Digest, size: u64) -> Result<Vec<u8>> {
        if size > DOCUMENT_MAX {
            let why = format!("its descriptor says {size} bytes, more than 4 MiB");
            return Err(Error::Mismatch { digest: digest.to_string(), why });
        }
        let (file, _) = self.blob(digest, Some(size))?;
        let data = hull_sys::fs::read_all(file.as_fd(), DOCUMENT_MAX as usize)
            .map_err(std::io::Error::from)
            .cannot("read", format!("the blob {digest}"))?;
        if stream::digest_as(digest, &data)? != *digest {
            return Err(Error::Mismatch {
                digest: digest.to_string(),
                why: "its content has another digest".to_owned(),
            });
        }
        Ok(data)
    }

    /// A blob's file with its size, which must be what the descriptor says.
    pub(crate) fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<(File, u64)> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(self.dir(), blob_path(digest), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Err(Error::MissingBlob { digest: digest.clone() }),
            Err(error) => return Err(error).cannot("open", format!("the blob {digest}")),
        };
        let metadata = file.metadata().cannot("read", format!("the blob {digest}"))?;
        let mismatch = |why: String| Err(Error::Mismatch { digest: digest.to_string(), why });
        if !metadata.is_file() {
            return mismatch("it is not a regular file".to_owned());
        }
        match size {
            Some(size) if size != metadata.size() => {
                mismatch(format!("it has {} bytes, its descriptor says {size}", metadata.size()))
            }
            _ => Ok((file, metadata.size())),
        }
    }

    /// The folder for blobs of a digest's algorithm; a new store has that of sha256.
    pub(crate) fn make_blob_folder(&self, digest: &Digest) -> Result<()> {
        if digest.algorithm() == "sha256" {
            return Ok(());
        }
        let path = format!("blobs/{}", digest.algorithm());
        match rustix::fs::mkdirat(self.dir(), path, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).cannot("make", "a folder of blobs"),
        }
    }

    /// The unpacked layers of an image, lowest first. What is not unpacked yet (an image that another tool copied here)
    /// is unpacked now; otherwise nothing but the layers' own folders is touched.
    ///
    /// # Errors
    /// A blob that is missing, is not what its digest says, or has an entry that hull refuses.
    pub fn layers(&self, image: &Image) -> Result<Vec<Layer>> {
        let folder = self.folder(c"layers")?;
        let chain = document::chain_ids(&image.diff_ids);
        let mut layers: Vec<Layer> = Vec::with_capacity(chain.len());
        for (n, id) in chain.iter().enumerate() {
            let layer = match self.by_chain(folder.as_fd(), id)? {
                Some(layer) => layer,
                None => self.unpack(folder.as_fd(), &image.layers[n], &image.diff_ids[n], id, &layers)?,
            };
            layers.push(layer);
        }
        Ok(layers)
    }

    /// The layer with an id that [`Layer::id`] gave; none if it was removed, or did not survive a crash of the machine.
    pub fn layer(&self, id: &str) -> Result<Option<Layer>> {
        if id.is_empty() || id.contains(['/', '\0']) || id.starts_with('.') {
            return Ok(None);
        }
        let folder = self.folder(c"layers")?;
        match Layer::open(&self.root, folder.as_fd(), id)? {
            Some(layer) if layer.is_trusted()? => Ok(Some(layer)),
            _ => Ok(None),
        }
    }

    /// The layer of a chain id: a folder of that name, or where a link of that name leads.
    pub(crate) fn by_chain(&self, layers: BorrowedFd<'_>, chain: &Digest) -> Result<Option<Layer>> {
        let layer = match rustix::fs::readlinkat(layers, chain.hex(), Vec::new()) {
            Ok(target) => match target.to_str() {
                Ok(id) if !id.contains('/') && !id.starts_with('.') => Layer::open(&self.root, layers, id)?,
                _ => None,
            },
            Err(Errno::INVAL) => Layer::open(&self.root, layers, chain.hex())?,
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error).cannot("find", format!("the layer {chain}")),
        };
        match layer {
            // An unpacked tree is not synced to disk, since that costs more than unpacking it. After a reboot it is made
            // again from its blob, whose digest is verified.
            Some(layer) if layer.is_trusted()? => Ok(Some(layer)),
            _ => Ok(None),
        }
    }

    fn unpack(
        &self,
        layers: BorrowedFd<'_>,
        blob: &Descriptor,
        diff_id: &Digest,
        chain: &Digest,
        below: &[Layer],
    ) -> Result<Layer> {
        let digest = blob.digest()?;
        let (file, size) = self.blob(&digest, Some(blob.size))?;
        let staging = self.staging()?;
        let trees = below.iter().rev().map(Layer::tree).collect::<Result<Vec<_>>>()?;
        let wanted =
            Wanted { copy: None, blob: Some(&digest), diff_id: Some(diff_id), size: Some(size), plain_max: None };
        let mut source = stream::Layer::new(file, wanted)?;
        let mut archive = Archive::new(source.reader());
        apply::apply(&mut archive, &staging.tree()?, &trees)?;
        archive.finish()?;
        let passed = source.finish()?;
        for (what, is, should) in [("digest", &passed.blob, &digest), ("diff id", &passed.diff_id, diff_id)] {
            if is != should {
                let why = format!("its {what} is {is}, not {should}");
                return Err(Error::Mismatch { digest: digest.to_string(), why });
            }
        }
        let meta = Meta {
            diff_id: Some(diff_id.to_string()),
            blob: Some(blob.clone()),
            boot: Some(boot_id()?),
            parent: below.last().map(|layer| layer.id().to_owned()),
        };
        meta.write(staging.folder()?)?;
        let _lock = self.lock()?;
        self.publish_layer(layers, staging, chain)
    }

    /// Makes a whole layer visible under its chain id, or gives the one that somebody else made meanwhile. Needs the lock.
    pub(crate) fn publish_layer(&self, layers: BorrowedFd<'_>, staging: Staging, chain: &Digest) -> Result<Layer> {
        if let Some(layer) = self.by_chain(layers, chain)? {
            return Ok(layer);
        }
        let name = CString::new(chain.hex()).unwrap_or_default();
        // A link whose layer is gone, or a tree of an earlier boot.
        self.remove_layer(layers, &name)?;
        match staging.become_layer(layers, chain.hex())? {
            Some(folder) => Ok(Layer::held(&self.root, chain.hex(), folder)),
            None => Err(Error::document(format!("layer {chain}"), "it is being removed by another process")),
        }
    }

    /// A new upper and work folder. What dead processes left of theirs is removed on the way.
    pub fn staging(&self) -> Result<Staging> {
        let folder = self.folder(c"staging")?;
        layer::sweep(folder.as_fd(), false)?;
        Staging::new(&self.root, folder)
    }

    /// Makes a step's upper folder a layer, by a rename: no archive, no hash. The overlay that wrote it must be gone.
    ///
    /// The layer is not synced to disk: after a reboot [`Store::layer`] does not give it any more, and an image that was
    /// committed with it unpacks its blob.
    pub fn adopt(&self, parent: Option<&Layer>, staging: Staging) -> Result<Layer> {
        let parent = parent.map(|layer| layer.id().to_owned());
        let meta = Meta { boot: Some(boot_id()?), parent, ..Meta::default() };
        meta.write(staging.folder()?)?;
        let id = staging.id().to_owned();
        let layers = self.folder(c"layers")?;
        let folder = staging.become_layer(layers.as_fd(), &id)?;
        let folder = folder.ok_or_else(|| Error::document(format!("layer {id}"), "there is one already"))?;
        Ok(Layer::held(&self.root, &id, folder))
    }
}

pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

pub(crate) fn parse_index(data: &[u8]) -> Result<Index<'_>> {
    serde_json::from_slice(data).map_err(|error| Error::document("index.json of the store", error.to_string()))
}

/// The name of an entry; one that no reference can have (another tool wrote it) counts as none.
pub(crate) fn name_of(entry: &IndexEntry<'_>) -> Option<Reference> {
    entry.annotations.as_ref()?.name.as_deref()?.parse().ok()
}

fn origin_of(entry: &IndexEntry<'_>) -> Option<(Reference, Digest)> {
    let digest = entry.annotations.as_ref()?.digest.as_deref()?.parse().ok()?;
    Some((name_of(entry)?, digest))
}

fn is_named(entry: &IndexEntry<'_>, wanted: &Reference) -> bool {
    let origin = entry.annotations.as_ref().and_then(|annotations| annotations.digest.as_deref());
    match (name_of(entry), wanted.digest()) {
        (Some(name), None) => name == *wanted,
        (Some(name), Some(digest)) => {
            name.name() == wanted.name()
                && (wanted.tag().is_none_or(|tag| name.tag() == Some(tag)) || name.tag().is_none())
                && (entry.digest == digest.as_str() || origin == Some(digest.as_str()))
        }
        (None, _) => false,
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
