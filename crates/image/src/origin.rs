//! Under which digest a registry is known to have an image: what a pull found and a push left there.
//!
//! An entry of the index says it (`io.hull.image.digest`) beside its name. It may be the digest of an index that led to the image,
//! or of the manifest that a push made of it when it packed the layers.

use std::collections::BTreeMap;

use crate::commit::entry_name;
use crate::document::REF_DIGEST;
use crate::error::Result;
use crate::find::Image;
use crate::reference::{Digest, Reference};
use crate::store::Store;

impl Store {
    /// Keeps that the registry of `name` has `image` under `digest`, if that is one of its names here.
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn pushed(&self, image: &Image, name: &Reference, digest: &Digest) -> Result<()> {
        let known = image.origins.iter().any(|(own, origin)| own == name && origin == digest);
        if known || !image.names.contains(name) {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.change_index(|entries| {
            for entry in entries.iter_mut() {
                if entry["digest"] == image.listed.as_str() && entry_name(entry).as_ref() == Some(name) {
                    entry["annotations"][REF_DIGEST] = digest.as_str().into();
                }
            }
        })
    }

    /// For each of an image's layers, as they are stored here, names whose registry is known to have it.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn holders(&self, image: &Image) -> Result<Vec<(Digest, Reference)>> {
        // What another image has cannot be told while it is damaged, and it is only asked to save a transfer.
        let (images, _) = self.list()?;
        let mut layers: BTreeMap<&str, Vec<&Reference>> = BTreeMap::new();
        for other in &images {
            for layer in &other.layers {
                layers.entry(&layer.digest).or_default().extend(other.origins.iter().map(|(name, _)| name));
            }
        }
        let mut found = Vec::new();
        for layer in &image.layers {
            let holders = layers.get(layer.digest.as_str()).map(Vec::as_slice).unwrap_or_default();
            for name in holders {
                found.push((layer.digest()?, (*name).clone()));
            }
        }
        Ok(found)
    }
}
