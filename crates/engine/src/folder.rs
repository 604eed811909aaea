//! A container's folder in the runtime state: made, locked while its container lives, removed with it.
//!
//! The lock dies with its holder, so a folder that nobody holds is what a killed `hull` has left. It is a record lock
//! (`fcntl(2)`, F_SETLK), which a child does not inherit: a `flock(2)` would be held on by the container's dying process.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};

use crate::container::RECORD;
use crate::error::{Error, Result};
use crate::json;
use crate::spec::EtcFile;

const LOCK: &str = "lock";
/// The files that a container has of its own in /etc: their names in its folder, and where they appear.
pub(crate) const ETC: [(&str, &str); 3] =
    [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")];

/// A folder that is ours; it is removed when this is dropped.
#[derive(Debug)]
pub struct Folder {
    id: String,
    path: PathBuf,
    lock: File,
}

impl Folder {
    /// Makes and locks `RUNROOT/containers/ID`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(runroot: &Path, id: &str) -> Result<Self> {
        let path = path(runroot, id);
        let mut builder = DirBuilder::new();
        builder.mode(0o700).recursive(true);
        let make = || -> std::io::Result<File> {
            loop {
                builder.create(&path)?;
                // Somebody who repairs may take the folder for an abandoned one until the lock is there: then again.
                match File::create(path.join(LOCK)) {
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                    Ok(lock) if lock_now(&lock) && lock.metadata()?.nlink() > 0 => return Ok(lock),
                    Ok(_) => continue,
                }
            }
        };
        let lock =
            make().map_err(|error| Error::host(format!("make the container's folder {}", path.display()), error))?;
        Ok(Self { id: id.to_owned(), path, lock })
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the three files of /etc that say where the container is.
    pub(crate) fn write_etc(&self, hostname: &str, host_network: bool) -> Result<Vec<EtcFile>> {
        let hosts =
            format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n");
        let resolv =
            if host_network { fs::read_to_string("/etc/resolv.conf").unwrap_or_default() } else { String::new() };
        let mut made = Vec::new();
        for ((name, target), text) in ETC.into_iter().zip([hosts, format!("{hostname}\n"), resolv]) {
            let source = self.path.join(name);
            let written = File::create_new(&source).and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(|error| Error::host(format!("write {}", source.display()), error))?;
            made.push(EtcFile { source, target });
        }
        Ok(made)
    }

    /// Says which control groups will be the container's, before there are any: whoever clears up after a kill may
    /// stand elsewhere in the tree of groups and would look for them in the wrong place. They are what the lock's own file
    /// says, in one write.
    pub(crate) fn write_groups(&self, groups: &[PathBuf]) -> Result<()> {
        let text = serde_json::to_vec(groups).map_err(std::io::Error::from);
        let written = text.and_then(|text| (&self.lock).write_all(&text));
        written.map_err(|error| Error::host(format!("write {}", self.path.join(LOCK).display()), error))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Mostly these are all there is, and then nobody has to list the folder. The lock stays to the last.
        let names = ETC.map(|(name, _)| name).into_iter().chain([RECORD, LOCK]);
        names.for_each(|name| drop(fs::remove_file(self.path.join(name))));
        if fs::remove_dir(&self.path).is_err() {
            // What cannot be removed is what `system check` is for.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Where the folder of the container `id` is.
pub(crate) fn path(runroot: &Path, id: &str) -> PathBuf {
    runroot.join("containers").join(id)
}

/// The ids that have a folder, sorted.
pub(crate) fn ids(runroot: &Path) -> Result<Vec<String>> {
    let containers = runroot.join("containers");
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
    Ok(json::read(&path(runroot, id), LOCK)?.unwrap_or_default())
}

/// Whether a living process holds the folder's lock.
pub(crate) fn is_held(runroot: &Path, id: &str) -> bool {
    // Writable, which an exclusive record lock asks for.
    let lock = File::options().write(true).open(path(runroot, id).join(LOCK));
    lock.is_ok_and(|lock| !lock_now(&lock))
}

/// Removes a folder that nobody holds, under its own lock, so that nobody begins to use it meanwhile. False if
/// somebody holds it.
pub(crate) fn remove_abandoned(runroot: &Path, id: &str) -> Result<bool> {
    let path = path(runroot, id);
    let doing = || format!("remove {}", path.display());
    let lock = match File::options().write(true).create(true).truncate(false).open(path.join(LOCK)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        other => other.map_err(|error| Error::host(doing(), error))?,
    };
    if !lock_now(&lock) {
        return Ok(false);
    }
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::host(doing(), error)),
        _ => Ok(true),
    }
}

fn lock_now(lock: &File) -> bool {
    fcntl_lock(lock, FlockOperation::NonBlockingLockExclusive).is_ok()
}
