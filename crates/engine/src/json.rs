//! Small documents in a container's folder. What lasts is written whole under another name, then renamed, so that no
//! reader and no crash meets half of one; what a reboot ends is one write(2), so that it is there whole or empty.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// What a document has to survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survives {
    /// The death of any process.
    Processes,
    /// A loss of power as well: file and folder are synced.
    Power,
}

/// Writes `value` as `folder/name`.
pub(crate) fn write<T: Serialize>(folder: &Path, name: &str, value: &T, survives: Survives) -> Result<()> {
    let write = || -> std::io::Result<()> {
        if survives == Survives::Processes {
            return fs::write(folder.join(name), serde_json::to_vec(value)?);
        }
        let new = folder.join(format!("{name}.new"));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        fs::rename(&new, folder.join(name))?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| Error::host(format!("write {}", folder.join(name).display()), error))
}

/// Reads `folder/name`; none if there is no such file, or nothing in it yet.
pub(crate) fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>> {
    let path = folder.join(name);
    let doing = || format!("read {}", path.display());
    match fs::read(&path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::host(doing(), error)),
        Ok(data) if data.is_empty() => Ok(None),
        Ok(data) => serde_json::from_slice(&data).map(Some).map_err(|error| Error::host(doing(), error)),
    }
}
