//! What earlier builds made: one small file for each key, in a folder of the store.
//!
//! A record is written after its layer is whole, as a temporary file that is renamed: a build that is killed leaves
//! a record or none, never half of one. A record that cannot be read, or whose layer is gone, is a miss.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::graph::Key;

/// What a step made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its layer's id in the store; none if the step changed nothing.
    pub layer: Option<String>,
    /// When, as RFC 3339 has it.
    pub created: String,
}

/// The records of a store.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The records in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)
            .map_err(|error| Error::host(format!("make the cache folder {}", folder.display()), error))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The layers that the records in `folder` name; none if there is no such folder.
    ///
    /// # Errors
    /// If the folder or a record cannot be read.
    pub fn layers(folder: &Path) -> Result<BTreeSet<String>> {
        let wrong = |error: std::io::Error| Error::host(format!("read the cache folder {}", folder.display()), error);
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
            other => other.map_err(wrong)?,
        };
        let mut layers = BTreeSet::new();
        for entry in entries {
            let data = fs::read(entry.map_err(wrong)?.path()).map_err(wrong)?;
            // A damaged record keeps nothing: it is a miss for a build as well.
            layers.extend(serde_json::from_slice::<Record>(&data).ok().and_then(|record| record.layer));
        }
        Ok(layers)
    }

    /// The record of `key`.
    ///
    /// # Errors
    /// If there is one that the system will not let us read; one that is damaged is a miss.
    pub fn get(&self, key: &Key) -> Result<Option<Record>> {
        let path = self.folder.join(key.as_str());
        match fs::read(&path) {
            Ok(data) => Ok(serde_json::from_slice(&data).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::host(format!("read the cache record {}", path.display()), error)),
        }
    }

    /// Keeps `record` under `key`.
    ///
    /// # Errors
    /// If it cannot be written; nothing is left of it then.
    pub fn put(&self, key: &Key, record: &Record) -> Result<()> {
        let path = self.folder.join(key.as_str());
        let temporary = self.folder.join(format!(".{}.{}", key.as_str(), std::process::id()));
        let written = fs::File::create(&temporary)
            .and_then(|mut file| file.write_all(serde_json::to_string(record)?.as_bytes()))
            .and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|error| {
            // The write's own failure is what is told; the rest is removed as far as that goes.
            let _ = fs::remove_file(&temporary);
            Error::host(format!("write the cache record {}", path.display()), error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::KeyBuilder;

    #[test]
    fn a_record_comes_back_and_a_damaged_one_is_a_miss() {
        let folder = tempfile::Builder::new().prefix("hull-test-cache-").tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        let key = KeyBuilder::new("x").finish();
        assert_eq!(cache.get(&key).unwrap(), None);
        let record = Record { layer: Some("abc".into()), created: "2026-11-24T00:00:00Z".into() };
        cache.put(&key, &record).unwrap();
        assert_eq!(Cache::layers(&folder.path().join("cache")).unwrap(), BTreeSet::from(["abc".to_owned()]));
        assert_eq!(cache.get(&key).unwrap(), Some(record));
        assert_eq!(fs::read_dir(folder.path().join("cache")).unwrap().count(), 1, "no temporary file is left");
        fs::write(folder.path().join("cache").join(key.as_str()), "{\"layer\":").unwrap();
        assert_eq!(cache.get(&key).unwrap(), None);
    }
}
