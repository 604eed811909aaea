//! Finding images: what the entries of the store's index lead to.
//!
//! An entry is a manifest, or an index for several platforms of which not all need be here. A name may have several entries, one
//! for each platform that was pulled. Where one image is wanted, it is the one for this machine, if there is such a one.

use std::collections::{BTreeSet, HashMap};

use hull_sys::threads::side_by_side;
use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};

use crate::document::{self, CONFIG, DOCKER_CONFIG, Descriptor, Index, IndexEntry, Manifest, Target};
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::receive::{Blob, is_layer};
use crate::reference::{Digest, Reference};
use crate::store::Store;

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
    /// What it was made for.
    pub platform: Platform,
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
}

impl Image {
    /// The digests of its layers' plain archives, lowest first.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.diff_ids
    }

    /// Bytes of its layers as they are stored, lowest first.
    pub fn layer_sizes(&self) -> Vec<u64> {
        self.layers.iter().map(|layer| layer.size).collect()
    }

    /// What leads to it in the store's index: its manifest's digest, or that of an index.
    pub fn listed(&self) -> &Digest {
        &self.listed
    }

    /// The descriptor of its manifest.
    pub fn descriptor(&self) -> Value {
        let blob = &self.manifest_blob;
        json!({ "mediaType": blob.media_type, "digest": blob.digest.as_str(), "size": blob.size })
    }
}

/// What an entry of the index leads to.
#[derive(Default)]
pub(crate) struct Listed {
    /// The images, in the order of the index that has them.
    pub images: Vec<Image>,
    /// Every blob that is part of it: documents and layers, also of what is no image (a signature, an attestation).
    pub blobs: BTreeSet<Digest>,
}

impl Store {
    /// Finds an image by name in any spelling (`debian`, `docker.io/library/debian:12`, `debian@sha256:…`), by the digest
    /// of its configuration or manifest, or by the beginning of its id. Of several under one name it is the one for this
    /// machine, or the first if none is.
    ///
    /// # Errors
    /// A name that is none; a prefix that several ids have; documents that are missing or not what their digest says.
    pub fn find(&self, name: &str) -> Result<Option<Image>> {
        Ok(nearest(self.find_all(name)?, &Platform::host(), true))
    }

    /// The same for another platform; none if what the name leads to is for others.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub fn find_for(&self, name: &str, platform: &Platform) -> Result<Option<Image>> {
        Ok(nearest(self.find_all(name)?, platform, false))
    }

    /// All images that a name or a digest leads to, one for each platform that is here.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub fn find_all(&self, name: &str) -> Result<Vec<Image>> {
        let data = self.index()?;
        let index = parse_index(&data)?;
        if let Ok(digest) = name.parse::<Digest>() {
            return self.find_digest(&index, &digest);
        }
        let reference = name.parse::<Reference>();
        if let Ok(reference) = &reference {
            let mut found = Vec::new();
            let mut empty = None;
            for entry in index.manifests.iter().filter(|entry| is_named(entry, reference)) {
                let images = self.listed(&index, entry)?.images;
                empty = empty.or(images.is_empty().then_some(&entry.digest));
                found.extend(images);
            }
            match empty {
                _ if !found.is_empty() => return Ok(found),
                Some(digest) => return Err(Error::document(format!("index {digest}"), "none of its images is here")),
                None => {}
            }
            if let Some(digest) = reference.digest() {
                return self.find_digest(&index, digest);
            }
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return reference.map(|_| Vec::new());
        }
        let (images, damaged) = self.list()?;
        let mut found: Vec<Image> = Vec::new();
        for image in images.into_iter().filter(|image| image.id.hex().starts_with(prefix)) {
            match found.first() {
                Some(other) if other.id != image.id => return Err(Error::Ambiguous { name: name.to_owned() }),
                Some(_) => {}
                None => found.push(image),
            }
        }
        // It may be the one that cannot be read.
        match (found.is_empty(), damaged.into_iter().next()) {
            (true, Some(error)) => Err(error),
            _ => Ok(found),
        }
    }

    fn find_digest(&self, index: &Index<'_>, digest: &Digest) -> Result<Vec<Image>> {
        if let Some(entry) = index.manifests.iter().find(|entry| entry.digest == digest.as_str()) {
            return Ok(self.listed(index, entry)?.images);
        }
        for entry in &index.manifests {
            let images = self.listed(index, entry)?.images;
            if let Some(image) = images.into_iter().find(|image| image.id == *digest || image.manifest == *digest) {
                return Ok(vec![image]);
            }
        }
        Ok(Vec::new())
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
        let (mut images, mut damaged) = (Vec::new(), Vec::new());
        for (_, listed) in self.all_listed(&index, |_| true) {
            match listed {
                Ok(listed) => images.extend(listed.images),
                Err(error) => damaged.push(error),
            }
        }
        Ok((images, damaged))
    }

    /// What all entries of the index lead to whose digest is wanted, in their order, each digest once. Of many, each
    /// processor reads its part.
    pub(crate) fn all_listed<'i>(
        &self,
        index: &'i Index<'i>,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<(&'i str, Result<Listed>)> {
        // Two or three files each, which takes less time than to begin a thread.
        const WORTH: usize = 16;
        let mut places = HashMap::new();
        let mut groups: Vec<Vec<&IndexEntry<'_>>> = Vec::new();
        for entry in index.manifests.iter().filter(|entry| wanted(&entry.digest)) {
            let place = *places.entry(&*entry.digest).or_insert(groups.len());
            if place == groups.len() {
                groups.push(Vec::new());
            }
            groups[place].push(entry);
        }
        let listed = side_by_side(&groups, WORTH, |group| self.listed_once(group));
        groups.iter().map(|group| &*group[0].digest).zip(listed).collect()
    }

    pub(crate) fn listed(&self, index: &Index<'_>, entry: &IndexEntry<'_>) -> Result<Listed> {
        let ours: Vec<_> = index.manifests.iter().filter(|other| other.digest == entry.digest).collect();
        self.listed_once(&ours)
    }

    /// What the entries with one digest lead to.
    fn listed_once(&self, ours: &[&IndexEntry<'_>]) -> Result<Listed> {
        let entry = ours[0];
        let found = Found {
            listed: entry.digest.parse()?,
            names: ours.iter().filter_map(|entry| name_of(entry)).collect(),
            origins: ours.iter().filter_map(|entry| origin_of(entry)).collect(),
        };
        let mut listed = Listed::default();
        let top = (found.listed.clone(), entry.size, entry.media_type.as_deref().map(str::to_owned));
        self.walk(&found, top, 0, &mut listed)?;
        Ok(listed)
    }

    /// Adds what a manifest or an index leads to.
    fn walk(
        &self,
        found: &Found,
        (digest, size, media_type): (Digest, u64, Option<String>),
        depth: usize,
        listed: &mut Listed,
    ) -> Result<()> {
        if depth > NESTED_MAX {
            let why = format!("it is more than {NESTED_MAX} indexes deep");
            return Err(Error::document(format!("index {}", found.listed), why));
        }
        let data = self.document(&digest, size)?;
        listed.blobs.insert(digest.clone());
        match document::parse(&data, &digest, media_type.as_deref())? {
            Target::Manifest(manifest, media_type) => {
                listed.blobs.insert(manifest.config.digest()?);
                for layer in &manifest.layers {
                    listed.blobs.insert(layer.digest()?);
                }
                // In an index there is more than images; what is listed by itself is one, or wrong.
                if depth == 0 || is_image(&manifest) {
                    listed.images.push(self.image(found, Blob { media_type, digest, size }, manifest)?);
                }
            }
            Target::Index(entries) => {
                for entry in entries {
                    let next = entry.descriptor.digest()?;
                    // Not every platform is here, and one that is here may be so twice.
                    let is_new = !listed.blobs.contains(&next);
                    if is_new && self.has_blob(&next, entry.descriptor.size)? {
                        let next = (next, entry.descriptor.size, Some(entry.descriptor.media_type));
                        self.walk(found, next, depth + 1, listed)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a blob is there; one that is not what it should be is an error.
    fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool> {
        match self.blob(digest, Some(size)) {
            Err(Error::MissingBlob { .. }) => Ok(false),
            other => other.map(|_| true),
        }
    }

    fn image(&self, found: &Found, manifest_blob: Blob, manifest: Manifest) -> Result<Image> {
        let id = manifest.config.digest()?;
        let data = self.document(&id, manifest.config.size)?;
        let (config, diff_ids) = document::configuration(&data, &id, manifest.layers.len())?;
        let layers = manifest.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
        Ok(Image {
            id,
            manifest: manifest_blob.digest.clone(),
            names: found.names.clone(),
            origins: found.origins.clone(),
            platform: Platform::of(&config),
            created: config.created().clone(),
            config,
            size: layers.saturating_add(manifest_blob.size).saturating_add(manifest.config.size),
            diff_ids,
            layers: manifest.layers,
            manifest_blob,
            config_blob: Blob::new(manifest.config)?,
            listed: found.listed.clone(),
        })
    }
}

/// What is known of an entry before it is read.
struct Found {
    listed: Digest,
    names: Vec<Reference>,
    origins: Vec<(Reference, Digest)>,
}

fn is_image(manifest: &Manifest) -> bool {
    let config = [CONFIG, DOCKER_CONFIG].contains(&manifest.config.media_type.as_str());
    config && manifest.layers.iter().all(|layer| is_layer(&layer.media_type))
}

/// The image that serves `platform` best, the first of equals; with `any` the first if none does.
fn nearest(images: Vec<Image>, platform: &Platform, any: bool) -> Option<Image> {
    let distance = |image: &Image| platform.distance(&image.platform);
    let best = images.iter().enumerate().filter_map(|(n, image)| Some((distance(image)?, n))).min();
    let at = best.map(|(_, n)| n).or(any.then_some(0))?;
    images.into_iter().nth(at)
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
