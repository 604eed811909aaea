//! What earlier builds made: one small file for each key, in a folder of the store.
//!
//! A record is written after its layer is whole, as a temporary file that is renamed: a build that is killed leaves
//! a record or none, never half of one. A record that cannot be read, or whose layer is gone, is a miss. The temporary
//! file of a killed build is removed by a later one.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, SystemTime};

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

/// A record of the cache, for whoever looks at all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its key.
    pub key: String,
    /// Its layer's id in the store; none if the step changed nothing, or the record is damaged.
    pub layer: Option<String>,
    /// When it was made.
    pub made: SystemTime,
}

/// The records of a store.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    swept: Once,
}

/// No temporary file of a process that lives is as old.
const ABANDONED: Duration = Duration::from_secs(3600);

impl Cache {
    /// The records in `folder`, which the first of them makes.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), swept: Once::new() }
    }

    /// The layers that the records in `folder` name; none if there is no such folder.
    ///
    /// # Errors
    /// If the folder or a record cannot be read.
    pub fn layers(folder: &Path) -> Result<BTreeSet<String>> {
        Ok(Self::steps(folder)?.into_iter().filter_map(|step| step.layer).collect())
    }

    /// The records in `folder`; none if there is no such folder. One that is removed meanwhile is not among them.
    ///
    /// # Errors
    /// If the folder or a record cannot be read.
    pub fn steps(folder: &Path) -> Result<Vec<Step>> {
        let wrong = |error: std::io::Error| Error::host(format!("read the cache folder {}", folder.display()), error);
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(wrong)?,
        };
        let mut steps = Vec::new();
        for entry in entries {
            let entry = entry.map_err(wrong)?;
            let read = || std::io::Result::Ok((fs::read(entry.path())?, entry.metadata()?.modified()?));
            let (data, made) = match read() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.map_err(wrong)?,
            };
            // A damaged record keeps nothing: it is a miss for a build as well.
            let layer = serde_json::from_slice::<Record>(&data).ok().and_then(|record| record.layer);
            steps.push(Step { key: entry.file_name().to_string_lossy().into_owned(), layer, made });
        }
        Ok(steps)
    }

    /// Removes a record.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub fn forget(folder: &Path, step: &Step) -> Result<()> {
        match fs::remove_file(folder.join(&step.key)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::host(format!("remove the cache record {}", step.key), error))
            }
            _ => Ok(()),
        }
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

    /// Keeps `record` under `key`. Gives the one that was there before.
    ///
    /// # Errors
    /// If it cannot be written; nothing is left of it then.
    pub fn replace(&self, key: &Key, record: &Record) -> Result<Option<Record>> {
        let before = self.get(key)?;
        self.write(key, record, |temporary, path| fs::rename(temporary, path))?;
        Ok(before)
    }

    /// Keeps `record` under `key` unless there is one that can be read, which is given.
    ///
    /// # Errors
    /// If it cannot be written; nothing is left of it then.
    pub fn add(&self, key: &Key, record: &Record) -> Result<Option<Record>> {
        let mut there = None;
        self.write(key, record, |temporary, path| match fs::hard_link(temporary, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                there = fs::read(path).ok().and_then(|data| serde_json::from_slice(&data).ok());
                if there.is_some() { fs::remove_file(temporary) } else { fs::rename(temporary, path) }
            }
            result => result.and_then(|()| fs::remove_file(temporary)),
        })?;
        Ok(there)
    }

    fn sweep(&self) {
        // What cannot be listed or removed is in nobody's way, and whoever writes next to it hears of it.
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let old = || entry.metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
            if entry.file_name().as_encoded_bytes().starts_with(b".")
                && old().is_ok_and(|age| age.is_ok_and(|age| age > ABANDONED))
            {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn write(
        &self,
        key: &Key,
        record: &Record,
        place: impl FnOnce(&Path, &Path) -> std::io::Result<()>,
    ) -> Result<()> {
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.folder);
        made.map_err(|error| Error::host(format!("make the cache folder {}", self.folder.display()), error))?;
        self.swept.call_once(|| self.sweep());
        let path = self.folder.join(key.as_str());
        let temporary = self.folder.join(format!(".{}.{}", key.as_str(), std::process::id()));
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let written = file
            .and_then(|mut file| file.write_all(serde_json::to_string(record)?.as_bytes()))
            .and_then(|()| place(&temporary, &path));
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
        let cache = Cache::new(&folder.path().join("cache"));
        let key = KeyBuilder::new("x").finish();
        assert_eq!(cache.get(&key).unwrap(), None);
        let record = Record { layer: Some("abc".into()), created: "2026-11-24T00:00:00Z".into() };
        assert_eq!(cache.replace(&key, &record).unwrap(), None);
        assert_eq!(Cache::layers(&folder.path().join("cache")).unwrap(), BTreeSet::from(["abc".to_owned()]));
        assert_eq!(cache.get(&key).unwrap(), Some(record));
        assert_eq!(fs::read_dir(folder.path().join("cache")).unwrap().count(), 1, "no temporary file is left");
        fs::write(folder.path().join("cache").join(key.as_str()), "{\"layer\":").unwrap();
        assert_eq!(cache.get(&key).unwrap(), None);
    }

    #[test]
    fn temporary_files_of_killed_builds_are_removed_once_they_are_old() {
        let folder = tempfile::Builder::new().prefix("hull-test-cache-").tempdir().unwrap();
        let (old, new) = (folder.path().join(".a.1"), folder.path().join(".b.2"));
        let file = fs::File::create(&old).unwrap();
        file.set_modified(std::time::SystemTime::now() - 2 * ABANDONED).unwrap();
        fs::write(&new, "").unwrap();
        let cache = Cache::new(folder.path());
        cache.add(&KeyBuilder::new("x").finish(), &Record { layer: None, created: String::new() }).unwrap();
        assert!(!old.exists() && new.exists());
    }

    #[test]
    fn the_first_record_of_a_key_stays_unless_it_is_to_be_replaced() {
        let folder = tempfile::Builder::new().prefix("hull-test-cache-").tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let key = KeyBuilder::new("x").finish();
        let record = |layer: &str| Record { layer: Some(layer.into()), created: "2026-11-24T00:00:00Z".into() };
        assert_eq!(cache.add(&key, &record("a")).unwrap(), None);
        assert_eq!(cache.add(&key, &record("b")).unwrap(), Some(record("a")));
        assert_eq!(cache.get(&key).unwrap(), Some(record("a")));
        assert_eq!(cache.replace(&key, &record("c")).unwrap(), Some(record("a")));
        assert_eq!(cache.get(&key).unwrap(), Some(record("c")));
        fs::write(folder.path().join(key.as_str()), "").unwrap();
        assert_eq!(cache.add(&key, &record("d")).unwrap(), None, "a damaged one does not stay");
        assert_eq!(cache.get(&key).unwrap(), Some(record("d")));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
