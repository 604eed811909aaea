//! Small documents in a container's folder: written whole under another name, synced, then renamed, so that no reader, no
//! crash and no loss of power meets half of one.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Writes `value` as `folder/name`.
pub(crate) fn write<T: Serialize>(folder: &Path, name: &str, value: &T) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let new = folder.join(format!("{name}.new"));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        fs::rename(&new, folder.join(name))?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| Error::host(format!("write {}", folder.join(name).display()), error))
}

/// Reads `folder/name`; none if there is no such file.
pub(crate) fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>> {
    let path = folder.join(name);
    let doing = || format!("read {}", path.display());
    match fs::read(&path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::host(doing(), error)),
        Ok(data) => serde_json::from_slice(&data).map(Some).map_err(|error| Error::host(doing(), error)),
    }
}
