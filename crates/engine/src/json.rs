//! Small documents in a container's folder: written whole under another name, then renamed, so that no reader and no crash
//! meets half of one. Until it is synced one may be lost, or empty, when power is.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Writes `value` as `folder/name`.
pub(crate) fn write<T: Serialize>(folder: &Path, name: &str, value: &T) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let new = folder.join(format!("{name}.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        fs::rename(&new, folder.join(name))
    };
    write().map_err(|error| Error::host(format!("write {}", folder.join(name).display()), error))
}

/// Syncs `folder/name` and its entry in the folder: from here on it survives a loss of power.
pub(crate) fn sync(folder: &Path, name: &str) -> Result<()> {
    let sync = || File::open(folder.join(name))?.sync_all().and_then(|()| File::open(folder)?.sync_all());
    sync().map_err(|error| Error::host(format!("sync {}", folder.join(name).display()), error))
}

/// Reads `folder/name`; none if there is no such file, or nothing in it.
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
