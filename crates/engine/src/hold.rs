//! A container's hold on the runtime state: one file, made and locked while its container lives, removed with it.
//!
//! The lock dies with its holder, so a file that nobody holds is what a killed `hull` has left. It is a record lock
//! (`fcntl(2)`, F_SETLK), which a child does not inherit: a `flock(2)` would be held on by the container's dying process.
//!
//! What others may know is in the file, a JSON document a line, each said by one write(2): [`Said`]. It is one file and
//! no folder because a folder costs more than all of `run`'s other files where /run is on a disk.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};
use serde::{Deserialize, Serialize};

use crate::container::Record;
use crate::error::{Error, Result};

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    /// What the container is; only with --rm, where nothing else says it.
    Record(Record),
    /// Which control groups are or will be its own.
    Groups(Vec<PathBuf>),
}

/// A container's file that is ours; it is removed when this is dropped.
#[derive(Debug)]
pub struct Hold {
    id: String,
    path: PathBuf,
    lock: File,
}

impl Hold {
    /// Makes and locks `RUNROOT/containers/ID`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(runroot: &Path, id: &str) -> Result<Self> {
        let path = path(runroot, id);
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let make = || -> std::io::Result<File> {
            loop {
                match options.open(&path) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        let folder = path.parent().unwrap_or(runroot);
                        DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
                    }
                    Err(error) => return Err(error),
                    Ok(lock) if lock_now(&lock) && lock.metadata()?.nlink() > 0 => return Ok(lock),
                    // Somebody who repairs took the file for an abandoned one before the lock was there: again.
                    Ok(_) => drop(fs::remove_file(&path)),
                }
            }
        };
        let lock =
            make().map_err(|error| Error::host(format!("make the container's file {}", path.display()), error))?;
        Ok(Self { id: id.to_owned(), path, lock })
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Records a container that ends with its command.
    pub(crate) fn record(&self, record: &Record) -> Result<()> {
        self.say(&Said::Record(record.clone()))
    }

    /// Says which control groups will be the container's, before there are any: whoever clears up after a kill may
    /// stand elsewhere in the tree of groups and would look for them in the wrong place.
    pub(crate) fn groups(&self, groups: Vec<PathBuf>) -> Result<()> {
        self.say(&Said::Groups(groups))
    }

    fn say(&self, what: &Said) -> Result<()> {
        let line = || -> std::io::Result<()> {
            let mut line = serde_json::to_vec(what)?;
            line.push(b'\n');
            (&self.lock).write_all(&line)
        };
        line().map_err(|error| Error::host(format!("write {}", self.path.display()), error))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // What cannot be removed is what `system check` is for.
        let _ = fs::remove_file(&self.path);
    }
}

fn path(runroot: &Path, id: &str) -> PathBuf {
    runroot.join("containers").join(id)
}

/// The ids in `root`, the runtime state's or the store's, sorted.
pub(crate) fn ids(root: &Path) -> Result<Vec<String>> {
    let containers = root.join("containers");
    let entries = match fs::read_dir(&containers) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.and_then(Iterator::collect::<std::io::Result<Vec<_>>>),
    };
    let entries = entries.map_err(|error| Error::host(format!("read {}", containers.display()), error))?;
    let mut ids: Vec<String> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    ids.sort();
    Ok(ids)
}

/// The control groups of the container `id`, there or not.
pub(crate) fn groups(runroot: &Path, id: &str) -> Result<Vec<PathBuf>> {
    let groups = |said| if let Said::Groups(groups) = said { Some(groups) } else { None };
    Ok(heard(runroot, id)?.into_iter().find_map(groups).unwrap_or_default())
}

/// The record of the container `id`, if it is one that ends with its command.
pub(crate) fn record(runroot: &Path, id: &str) -> Result<Option<Record>> {
    let record = |said| if let Said::Record(record) = said { Some(record) } else { None };
    Ok(heard(runroot, id)?.into_iter().find_map(record))
}

/// What the file says; nothing if there is none. A line without its end is one that is still being said.
fn heard(runroot: &Path, id: &str) -> Result<Vec<Said>> {
    let path = path(runroot, id);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| Error::host(format!("read {}", path.display()), error))?,
    };
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let said: serde_json::Result<_> = whole.map(serde_json::from_str).collect();
    said.map_err(|error| Error::host(format!("read {}", path.display()), error))
}

/// Whether a living process holds the container.
pub(crate) fn is_held(runroot: &Path, id: &str) -> bool {
    // Writable, which an exclusive record lock asks for.
    let lock = File::options().write(true).open(path(runroot, id));
    lock.is_ok_and(|lock| !lock_now(&lock))
}

/// Removes a file that nobody holds, under its own lock, so that nobody begins to use it meanwhile. False if somebody
/// holds it.
pub(crate) fn remove_abandoned(runroot: &Path, id: &str) -> Result<bool> {
    let path = path(runroot, id);
    let doing = |error| Error::host(format!("remove {}", path.display()), error);
    let lock = match File::options().write(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        other => other.map_err(doing)?,
    };
    if !lock_now(&lock) {
        return Ok(false);
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(doing(error)),
        _ => Ok(true),
    }
}

fn lock_now(lock: &File) -> bool {
    fcntl_lock(lock, FlockOperation::NonBlockingLockExclusive).is_ok()
}
