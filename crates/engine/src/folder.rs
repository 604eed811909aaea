//! A container's folder in the runtime state: made, locked while its container lives, removed with it.
//!
//! The lock dies with its holder, so a folder that nobody holds is what a killed `hull` has left. It is a record lock
//! (`fcntl(2)`, F_SETLK), which a child does not inherit: a `flock(2)` would be held on by the container's dying process.

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};

use crate::error::{Error, Result};
use crate::spec::EtcFile;

/// A folder that is ours; it is removed when this is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes and locks `RUNROOT/containers/ID`.
    pub fn create(runroot: &Path, id: &str) -> Result<Self> {
        let path = runroot.join("containers").join(id);
        let doing = || format!("make the container's folder {}", path.display());
        let mut builder = DirBuilder::new();
        builder.mode(0o700).recursive(true);
        builder.create(&path).map_err(|error| Error::host(doing(), error))?;
        let lock = File::create(path.join("lock")).map_err(|error| Error::host(doing(), error))?;
        fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| Error::host(doing(), error))?;
        Ok(Self { path, _lock: lock })
    }

    /// Writes the three files of /etc that say where the container is.
    pub fn write_etc(&self, hostname: &str, host_network: bool) -> Result<Vec<EtcFile>> {
        let hosts =
            format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n");
        let resolv =
            if host_network { fs::read_to_string("/etc/resolv.conf").unwrap_or_default() } else { String::new() };
        let files = [
            ("hosts", "/etc/hosts", hosts),
            ("hostname", "/etc/hostname", format!("{hostname}\n")),
            ("resolv.conf", "/etc/resolv.conf", resolv),
        ];
        let mut made = Vec::new();
        for (name, target, text) in files {
            let source = self.path.join(name);
            let written = File::create_new(&source).and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(|error| Error::host(format!("write {}", source.display()), error))?;
            made.push(EtcFile { source, target });
        }
        Ok(made)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is what `system check` is for.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The folders that nobody holds.
pub(crate) fn abandoned(runroot: &Path) -> Result<Vec<PathBuf>> {
    let containers = runroot.join("containers");
    let entries = match fs::read_dir(&containers) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| Error::host(format!("read {}", containers.display()), error))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Error::host(format!("read {}", containers.display()), error))?.path();
        if !held(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a living process holds the folder's lock.
fn held(path: &Path) -> bool {
    // Writable, which an exclusive record lock asks for.
    let Ok(lock) = File::options().write(true).open(path.join("lock")) else { return false };
    fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
}

/// The ids whose folders are held: containers that live.
pub(crate) fn living(runroot: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(runroot.join("containers")) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path()).filter(|path| held(path));
    paths.filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned())).collect()
}
