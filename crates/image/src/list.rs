//! Lists of images for several platforms that are made here: indexes under a name, like those that a registry gives.
//!
//! A list is a document of the store, and what it names is in the store too, so nothing that it needs is collected. Source:
//! image specification `image-index.md`.

use serde_json::{Value, json};

use crate::commit::{Pending, entry_name, take_name};
use crate::document::{self, INDEX, REF_NAME};
use crate::error::{Error, Result};
use crate::find::{Image, name_of, parse_index};
use crate::reference::{Digest, Reference};
use crate::store::Store;

/// An index that can be changed and kept.
#[derive(Clone, Debug)]
pub struct List {
    document: Value,
}

impl Default for List {
    fn default() -> Self {
        Self { document: json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }) }
    }
}

impl List {
    /// The document as it is.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The digests of its manifests, in order.
    pub fn digests(&self) -> Vec<Digest> {
        self.entries().iter().filter_map(|entry| entry["digest"].as_str()?.parse().ok()).collect()
    }

    fn entries(&self) -> &[Value] {
        self.document["manifests"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// Adds an image, or replaces what the list says of it.
    pub fn add(&mut self, image: &Image) {
        let mut entry = image.descriptor();
        entry["platform"] = json!(image.platform);
        let digest = entry["digest"].clone();
        if let Some(entries) = self.document["manifests"].as_array_mut() {
            entries.retain(|known| known["digest"] != digest);
            entries.push(entry);
        }
    }

    /// What the list says of one of its images; none if it is not in it.
    pub fn entry(&mut self, digest: &Digest) -> Option<&mut Value> {
        let entries = self.document["manifests"].as_array_mut()?;
        entries.iter_mut().find(|entry| entry["digest"] == digest.as_str())
    }

    /// The bytes, which are the same for the same content, with their digest.
    ///
    /// # Errors
    /// Never for a document of this kind.
    pub fn bytes(&self) -> Result<(Digest, Vec<u8>)> {
        let data = document::bytes(&self.document, "index")?;
        Ok((Digest::of(&data), data))
    }
}

impl Store {
    /// The list of this name; none if there is no such name, or it is one image's.
    ///
    /// # Errors
    /// The store's index or the list cannot be read.
    pub fn list_of(&self, name: &Reference) -> Result<Option<List>> {
        let data = self.index()?;
        let index = parse_index(&data)?;
        let Some(entry) = index.manifests.iter().find(|entry| name_of(entry).as_ref() == Some(name)) else {
            return Ok(None);
        };
        let digest: Digest = entry.digest.parse()?;
        let data = self.document(&digest, entry.size)?;
        let document: Value = serde_json::from_slice(&data)
            .map_err(|error| Error::document(format!("index {digest}"), error.to_string()))?;
        Ok(document["manifests"].is_array().then_some(List { document }))
    }

    /// Keeps a list under a name, which is taken from whatever has it.
    ///
    /// # Errors
    /// A name with a digest; a full disk.
    pub fn keep_list(&self, name: &Reference, list: &List) -> Result<()> {
        let (_, data) = list.bytes()?;
        let staging = self.staging()?;
        let mut pending = Pending::new(&staging);
        let blob = pending.document(self, INDEX, &data)?;
        pending.sync()?;
        let _lock = self.lock()?;
        pending.publish(self)?;
        let before = self.change_index_of_list(name, |entries| {
            take_name(entries, name);
            entries.push(json!({
                "mediaType": INDEX, "digest": blob.digest, "size": blob.size, "annotations": { REF_NAME: name.to_string() },
            }));
        })?;
        before.map_or(Ok(()), |digest| self.remove_blob(&digest).map(|_| ()))
    }

    /// Takes the list out of the index before `change`; gives its digest if nothing else lists the same then. Needs the lock.
    fn change_index_of_list(&self, name: &Reference, change: impl FnOnce(&mut Vec<Value>)) -> Result<Option<Digest>> {
        let mut before = None;
        self.change_index(|entries| {
            let ours = |entry: &Value| entry_name(entry).as_ref() == Some(name) && entry["mediaType"] == INDEX;
            before =
                entries.iter().find(|entry| ours(entry)).and_then(|entry| entry["digest"].as_str()?.parse().ok());
            entries.retain(|entry| !ours(entry));
            change(entries);
            let listed = |digest: &Digest| entries.iter().any(|entry| entry["digest"] == digest.as_str());
            before = before.take().filter(|digest| !listed(digest));
        })?;
        Ok(before)
    }

    /// Takes a list's name away. Its images stay, those that have no other name as unnamed ones.
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn forget_list(&self, name: &Reference) -> Result<()> {
        let images = self.find_all(&name.to_string()).unwrap_or_default();
        let _lock = self.lock()?;
        let before = self.change_index_of_list(name, |entries| {
            for image in images {
                let mut entry = image.descriptor();
                if !entries.iter().any(|known| known["digest"] == entry["digest"]) {
                    entry["platform"] = json!(image.platform);
                    entries.push(entry);
                }
            }
        })?;
        before.map_or(Ok(()), |digest| self.remove_blob(&digest).map(|_| ()))
    }
}
