//! Taking an image in from outside: what of it is missing, each layer in one pass, all of it visible at once.
//!
//! A blob that is on its way is a file in `downloads/`, named by its digest and locked by its writer (`flock(2)`). It stays
//! when the writer is interrupted, so that the next one goes on where it ended; everything is hashed again then, and
//! what turns out wrong is removed. A layer is decompressed and applied while it arrives, in any order: what it only
//! implies of the layers below is settled when all are there. Under the writers' lock blobs, trees and the entry in the
//! index then appear by renames.
//!
//! Where the bytes come from is the caller's business. What is here trusts none of them.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;

use oci_spec::image::Os;
use serde_json::{Value, json};

use crate::apply::{self, Implied};
use crate::commit::{Pending, entry_name, take_name};
use crate::document::{
    self, CONFIG, DOCKER_CONFIG, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, INDEX, MANIFEST, REF_DIGEST, REF_NAME,
    Target,
};
use crate::download::{self, Again, Download, Source};
use crate::error::{Cannot, Error, Result};
use crate::find::Image;
use crate::layer::{Layer, Meta, Staging, boot_id};
use crate::pipe;
use crate::platform::Platform;
use crate::reference::{Digest, Reference};
use crate::rootfs::LAYERS_MAX;
use crate::store::{Store, blob_path};
use crate::stream::{self, Wanted};

/// The most bytes of one layer as it is packed, against a descriptor that would fill a disk.
const BLOB_MAX: u64 = 64 << 30;

/// The media types of manifests and indexes, for a registry's `Accept`.
pub const MANIFEST_TYPES: [&str; 4] = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

/// What a document says of a blob. The digest is a valid one, the size is only said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl Blob {
    pub(crate) fn new(said: Descriptor) -> Result<Self> {
        Ok(Self { digest: said.digest()?, media_type: said.media_type, size: said.size })
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor { media_type: self.media_type.clone(), digest: self.digest.to_string(), size: self.size }
    }
}

/// What a manifest's bytes turned out to be.
#[derive(Clone, Debug)]
pub enum Manifest {
    /// An image: its configuration and its layers, lowest first.
    Image {
        /// Where the configuration is.
        config: Blob,
        /// Its layers.
        layers: Vec<Blob>,
    },
    /// An index: the manifest for the platform that was asked for.
    Index(Blob),
}

/// Reads a manifest or an index that came as `media_type`.
///
/// # Errors
/// A document that is neither or both, says another media type, is Docker's schema 1, is no image, or is too large.
pub fn read_manifest(data: &[u8], media_type: &str, platform: &Platform) -> Result<Manifest> {
    let digest = Digest::of(data);
    let refused = |why: String| Err(Error::document(format!("manifest {digest}"), why));
    if media_type.starts_with("application/vnd.docker.distribution.manifest.v1+") {
        return refused("it is Docker's image manifest schema 1, which is not supported".to_owned());
    }
    if !MANIFEST_TYPES.contains(&media_type) {
        return refused(format!("it came as {media_type:?}, which is no image manifest"));
    }
    match document::parse(data, &digest, Some(media_type))? {
        Target::Index(entries) => Ok(Manifest::Index(Blob::new(document::choose(entries, &digest, platform)?)?)),
        Target::Manifest(manifest, _) => {
            if ![CONFIG, DOCKER_CONFIG].contains(&manifest.config.media_type.as_str()) {
                return refused(format!("it is no image: its configuration is {:?}", manifest.config.media_type));
            }
            if manifest.layers.len() > LAYERS_MAX {
                return refused(format!("it has {} layers, more than {LAYERS_MAX}", manifest.layers.len()));
            }
            let layers = manifest.layers.into_iter().map(Blob::new).collect::<Result<Vec<_>>>()?;
            if let Some(other) = layers.iter().find(|layer| !is_layer(&layer.media_type)) {
                return refused(format!("layers of the type {:?} are not supported", other.media_type));
            }
            if let Some(large) = layers.iter().find(|layer| layer.size > BLOB_MAX) {
                return refused(format!("its layer {} has {} bytes, more than 64 GiB", large.digest, large.size));
            }
            Ok(Manifest::Image { config: Blob::new(manifest.config)?, layers })
        }
    }
}

/// Archives of layers; how they are packed is told by their bytes. What must not be distributed is fetched like the rest,
/// from the registry alone.
pub(crate) fn is_layer(media_type: &str) -> bool {
    let oci = media_type
        .strip_prefix("application/vnd.oci.image.layer.v1.tar")
        .or_else(|| media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar"));
    let docker = media_type
        .strip_prefix("application/vnd.docker.image.rootfs.diff.tar")
        .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff.tar"));
    match (oci, docker) {
        (Some(packing), _) => matches!(packing, "" | "+gzip" | "+zstd"),
        (_, Some(packing)) => matches!(packing, "" | ".gzip" | ".zstd"),
        _ => false,
    }
}

/// An image whose documents are there and whose layers may not be.
#[derive(Debug)]
pub struct Incoming<'a> {
    store: &'a Store,
    manifest: (Blob, Vec<u8>),
    config: (Blob, Vec<u8>),
    platform: Platform,
    layers: Vec<Blob>,
    diff_ids: Vec<Digest>,
    chain: Vec<Digest>,
    plain_max: Option<u64>,
}

impl Store {
    /// Checks an image's documents against each other. Nothing is written.
    ///
    /// # Errors
    /// Bytes that are not what the descriptor says; a configuration that does not fit the manifest.
    pub fn incoming(
        &self,
        manifest: (Blob, Vec<u8>),
        config: (Blob, Vec<u8>),
        layers: Vec<Blob>,
    ) -> Result<Incoming<'_>> {
        for (blob, data) in [&manifest, &config] {
            verify(blob, data)?;
        }
        let (configuration, diff_ids) = document::configuration(&config.1, &config.0.digest, layers.len())?;
        let os = configuration.os();
        if *os != Os::Linux {
            let why = format!("it is for the system {:?}, and only images for linux can be used", os.to_string());
            return Err(Error::document(format!("image configuration {}", config.0.digest), why));
        }
        let platform = Platform::of(&configuration);
        let mut known = BTreeMap::new();
        for (layer, diff_id) in layers.iter().zip(&diff_ids) {
            if *known.entry(&layer.digest).or_insert(diff_id) != diff_id {
                let why = format!("it says that the layer {} is two different ones", layer.digest);
                return Err(Error::document(format!("image configuration {}", config.0.digest), why));
            }
        }
        let chain = document::chain_ids(&diff_ids);
        Ok(Incoming { store: self, manifest, config, platform, layers, diff_ids, chain, plain_max: None })
    }
}

/// Whether `data` is what `blob` says: size first, then digest.
///
/// # Errors
/// It is not.
pub fn verify(blob: &Blob, data: &[u8]) -> Result<()> {
    let mismatch = |why: String| Err(Error::Mismatch { digest: blob.digest.to_string(), why });
    if data.len() as u64 != blob.size {
        return mismatch(format!("it has {} bytes, its descriptor says {}", data.len(), blob.size));
    }
    let is = stream::digest_as(&blob.digest, data)?;
    if is != blob.digest { mismatch(format!("its content has the digest {is}")) } else { Ok(()) }
}

impl<'a> Incoming<'a> {
    /// The most bytes that one of its layers may unpack to, if not 64 GiB.
    #[must_use]
    pub fn limited(self, plain_max: Option<u64>) -> Self {
        Self { plain_max, ..self }
    }

    /// What has to be done for this image: the blobs that the store lacks and the layers that are not unpacked. All are
    /// locked, in the order of their digests, so that two processes never wait for each other; `waiting` hears of
    /// each that another process works on.
    ///
    /// # Errors
    /// Files that cannot be made or locked.
    pub fn parts(&self, waiting: &mut dyn FnMut(&Digest)) -> Result<Vec<Part<'a>>> {
        let mut wanted: BTreeMap<&Digest, &Blob> = BTreeMap::new();
        for (n, blob) in self.layers.iter().enumerate() {
            if self.store.blob(&blob.digest, Some(blob.size)).is_err() || self.tree(n)?.is_none() {
                wanted.insert(&blob.digest, blob);
            }
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let downloads = download::folder(self.store)?;
        let mut parts = Vec::new();
        for blob in wanted.into_values() {
            let download = Download::open(&downloads, &blob.digest, || waiting(&blob.digest))?;
            let mut part = Part {
                store: self.store,
                blob: blob.clone(),
                diff_id: self.diff_ids[0].clone(),
                plain_max: self.plain_max,
                positions: Vec::new(),
                download: Some(download),
                trees: Vec::new(),
            };
            for (n, _) in self.layers.iter().enumerate().filter(|(_, layer)| layer.digest == blob.digest) {
                part.diff_id = self.diff_ids[n].clone();
                if self.tree(n)?.is_none() {
                    part.positions.push(n);
                }
            }
            // Whoever held the lock before may have brought it.
            if self.store.blob(&blob.digest, Some(blob.size)).is_ok() {
                part.discard()?;
                if part.positions.is_empty() {
                    continue;
                }
            } else if let Some(download) = part.download.as_mut().filter(|download| download.have > blob.size) {
                download.empty()?;
            }
            parts.push(part);
        }
        // As the manifest has them, so that progress reads from the base upwards.
        let place = |part: &Part<'_>| self.layers.iter().position(|layer| layer.digest == part.blob.digest);
        parts.sort_by_key(place);
        Ok(parts)
    }

    fn tree(&self, n: usize) -> Result<Option<Layer>> {
        self.store.by_chain(self.store.folder(c"layers")?.as_fd(), &self.chain[n])
    }

    /// Its layers, lowest first.
    pub fn layers(&self) -> &[Blob] {
        &self.layers
    }

    /// Makes the image visible under `name`, or without one, with everything it needs. `origin` is the digest that the name's registry has it
    /// under, of an index that led to it or its own; the image is found by that digest too.
    ///
    /// # Errors
    /// [`Error::Removed`] if somebody removed meanwhile what was there: begin again. A part that was not received whole; the
    /// kernel's. The store is then as it was.
    pub fn publish(self, parts: Vec<Part<'a>>, name: Option<&Reference>, origin: Option<&Digest>) -> Result<Image> {
        let staging = self.store.staging()?;
        let mut pending = Pending::new(&staging);
        let manifest = pending.document(self.store, &self.manifest.0.media_type, &self.manifest.1)?;
        pending.document(self.store, &self.config.0.media_type, &self.config.1)?;
        let mut trees: BTreeMap<usize, (Staging, Implied)> = BTreeMap::new();
        let mut downloads = Vec::new();
        for mut part in parts {
            for (n, staging, implied) in part.trees.drain(..) {
                trees.insert(n, (staging, implied));
            }
            downloads.extend(part.download.take().map(|download| (part.blob.digest.clone(), download)));
        }
        // All of it is on the disk before the first name. Until now nobody waited for that: what a layer's sync has to write of the
        // file system's journal is everything that other layers have made meanwhile.
        downloads.iter().try_for_each(|(digest, download)| download.sync(digest))?;
        pending.sync()?;
        let lock = self.store.lock()?;
        let trees_held = self.assert_there(&pending, &downloads, &trees)?;
        pending.publish(self.store)?;
        for (digest, download) in &downloads {
            self.store.make_blob_folder(digest)?;
            rustix::fs::renameat(&download.folder, &download.name, self.store.dir(), blob_path(digest))
                .cannot("write", format!("the blob {digest}"))?;
        }
        let held = self.publish_trees(trees)?;
        self.list(&manifest, name, origin)?;
        drop((lock, held, trees_held));
        self.store.committed(&manifest)
    }

    /// Whatever nobody brings is still in the store: somebody may have removed it since [`Incoming::parts`]. Gives the trees
    /// that are there, which nobody removes now. Needs the lock.
    fn assert_there(
        &self,
        pending: &Pending<'_>,
        downloads: &[(Digest, Download)],
        trees: &BTreeMap<usize, (Staging, Implied)>,
    ) -> Result<Vec<Layer>> {
        let removed = |what: String| Err(Error::Removed { what });
        for blob in [&self.manifest.0, &self.config.0].into_iter().chain(&self.layers) {
            let comes = pending.has(&blob.digest) || downloads.iter().any(|(digest, _)| *digest == blob.digest);
            if !comes && self.store.blob(&blob.digest, Some(blob.size)).is_err() {
                return removed(format!("the blob {}", blob.digest));
            }
        }
        let mut held = Vec::new();
        for n in (0..self.chain.len()).filter(|n| !trees.contains_key(n)) {
            match self.tree(n)? {
                Some(layer) => held.push(layer),
                None => return removed(format!("the layer {}", self.chain[n])),
            }
        }
        Ok(held)
    }

    /// Needs the lock.
    fn publish_trees(&self, mut trees: BTreeMap<usize, (Staging, Implied)>) -> Result<Vec<Layer>> {
        let folder = self.store.folder(c"layers")?;
        let mut layers: Vec<Layer> = Vec::with_capacity(self.chain.len());
        for (n, chain) in self.chain.iter().enumerate() {
            if let Some(layer) = self.store.by_chain(folder.as_fd(), chain)? {
                layers.push(layer);
                continue;
            }
            let missing = || Error::Removed { what: format!("the layer {chain}") };
            let (staging, implied) = trees.remove(&n).ok_or_else(missing)?;
            let lowers = layers.iter().rev().map(Layer::tree).collect::<Result<Vec<_>>>()?;
            apply::settle(&staging.tree()?, &implied, &lowers)?;
            let meta = Meta {
                diff_id: Some(self.diff_ids[n].to_string()),
                blob: Some(self.layers[n].descriptor()),
                boot: Some(boot_id()?),
                parent: layers.last().map(|layer| layer.id().to_owned()),
            };
            meta.write(staging.folder()?)?;
            layers.push(self.store.publish_layer(folder.as_fd(), staging, chain)?);
        }
        Ok(layers)
    }

    /// Needs the lock.
    fn list(&self, manifest: &Descriptor, name: Option<&Reference>, origin: Option<&Digest>) -> Result<()> {
        let mut entry = json!({
            "mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size, "platform": self.platform,
        });
        let Some(name) = name else {
            return self.store.change_index(|entries| {
                if !entries.iter().any(|other| other["digest"] == entry["digest"]) {
                    entries.push(entry);
                }
            });
        };
        entry["annotations"] = json!({ REF_NAME: name.to_string() });
        if let Some(origin) = origin {
            entry["annotations"][REF_DIGEST] = origin.as_str().into();
        }
        self.store.change_index(|entries| {
            if entries.contains(&entry) {
                return;
            }
            // Images for other platforms that came from the same place keep the name too: together they are what it means.
            let (siblings, mut rest): (Vec<Value>, Vec<Value>) =
                entries.drain(..).partition(|other| is_sibling(other, &entry));
            take_name(&mut rest, name);
            rest.retain(|other| other["digest"] != entry["digest"] || entry_name(other).is_some());
            *entries = rest;
            // Tools that know nothing of platforms take the first.
            match self.platform == Platform::host() {
                true => entries.extend([entry].into_iter().chain(siblings)),
                false => entries.extend(siblings.into_iter().chain([entry])),
            }
        })
    }
}

/// Whether both have one name, for two platforms, and came from one index.
fn is_sibling(a: &Value, b: &Value) -> bool {
    let same = |key: &str| a["annotations"][key] == b["annotations"][key] && a["annotations"][key].is_string();
    same(REF_NAME) && same(REF_DIGEST) && a["platform"].is_object() && a["platform"] != b["platform"]
}

/// One blob that is wanted. While a value of it lives no other process writes the same.
#[derive(Debug)]
pub struct Part<'a> {
    store: &'a Store,
    blob: Blob,
    diff_id: Digest,
    plain_max: Option<u64>,
    /// Where the image has it and there is no tree yet.
    positions: Vec<usize>,
    /// None if the store has the blob and only trees are wanted.
    download: Option<Download>,
    trees: Vec<(usize, Staging, Implied)>,
}

impl Part<'_> {
    /// Which blob it is.
    pub fn blob(&self) -> &Blob {
        &self.blob
    }

    /// The bytes that are here already; those from there on are wanted. All of them if it only has to be unpacked.
    pub fn have(&self) -> u64 {
        self.download.as_ref().map_or(self.blob.size, |download| download.have)
    }

    /// Removes what was downloaded.
    ///
    /// # Errors
    /// The kernel's.
    pub fn discard(&mut self) -> Result<()> {
        self.download.take().map_or(Ok(()), Download::discard)
    }

    /// Takes the rest of the blob from `rest`, which begins at byte [`Part::have`], and unpacks it on the way.
    ///
    /// # Errors
    /// `rest` failed: what came until then is kept for another time. Or the blob is not what its descriptor or the
    /// image's configuration says, has an entry that hull refuses, or cannot be written: then nothing is kept.
    pub fn receive(&mut self, rest: impl Read + Send) -> Result<()> {
        let mut interrupted = false;
        let result = match &self.download {
            Some(download) => {
                let size = self.blob.size;
                let source = Source {
                    file: &download.file,
                    at: 0,
                    have: download.have,
                    size,
                    rest,
                    interrupted: &mut interrupted,
                    written_out: download.have,
                };
                self.first(source)
            }
            None => {
                let (file, _) = self.store.blob(&self.blob.digest, Some(self.blob.size))?;
                self.first(file)
            }
        };
        match result {
            Ok(tree) => self.trees.extend(tree),
            Err(error) => {
                if !interrupted {
                    self.discard()?;
                }
                return Err(error);
            }
        }
        for n in self.positions.iter().skip(1) {
            let again = match &self.download {
                Some(download) => Again::Download(&download.file, 0),
                None => Again::Stored(self.store.blob(&self.blob.digest, Some(self.blob.size))?.0),
            };
            let (staging, implied) = self.unpack(again)?;
            self.trees.push((*n, staging, implied));
        }
        Ok(())
    }

    /// The blob's first pass: verified always, unpacked where a tree is wanted.
    fn first(&self, source: impl Read + Send) -> Result<Option<(usize, Staging, Implied)>> {
        let Some(n) = self.positions.first() else {
            let wanted = Wanted { blob: Some(&self.blob.digest), ..Wanted::default() };
            let is = stream::digest_of(source, wanted)?;
            self.is_right("digest", &is, &self.blob.digest)?;
            return Ok(None);
        };
        let (staging, implied) = self.unpack(source)?;
        Ok(Some((*n, staging, implied)))
    }

    fn unpack(&self, source: impl Read + Send) -> Result<(Staging, Implied)> {
        let staging = self.store.staging()?;
        let wanted = Wanted {
            blob: Some(&self.blob.digest),
            diff_id: Some(&self.diff_id),
            plain_max: self.plain_max,
            ..Wanted::default()
        };
        let tree = staging.tree()?;
        let (implied, passed) = pipe::through(source, wanted, |archive| apply::apply_alone(archive, &tree))?;
        if passed.blob_size != self.blob.size {
            let why = format!("it has {} bytes, its descriptor says {}", passed.blob_size, self.blob.size);
            return Err(Error::Mismatch { digest: self.blob.digest.to_string(), why });
        }
        self.is_right("digest", &passed.blob, &self.blob.digest)?;
        self.is_right("diff id", &passed.diff_id, &self.diff_id)?;
        Ok((staging, implied))
    }

    fn is_right(&self, what: &str, is: &Digest, should: &Digest) -> Result<()> {
        if is == should {
            return Ok(());
        }
        let why = format!("its {what} is {is}, not {should}");
        Err(Error::Mismatch { digest: self.blob.digest.to_string(), why })
    }
}

#[cfg(test)]
#[path = "receive_tests.rs"]
mod tests;
