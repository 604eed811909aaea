//! Containers' names: each a link from the name to the id, so that a name is taken or found without reading records.
//!
//! The links live in the runtime state and end with a reboot; the first to need them after it makes them again from
//! the records that last. A name is taken and given up under a lock on their folder.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use crate::container;
use crate::error::{Error, Result};
use crate::run::Engine;

/// Docker's form of a name.
///
/// # Errors
/// It has another.
pub fn check(name: &str) -> Result<()> {
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if first && rest && (2..=255).contains(&name.len()) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "invalid container name {name:?}: it has two or more of [a-zA-Z0-9_.-] and begins with a letter or digit"
    )))
}

/// A name that is ours; it is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Name {
    folder: PathBuf,
    name: String,
    id: String,
}

impl Name {
    /// Takes `wanted` for the container `id`, or finds it one. The container's folder must be there already: a name
    /// that leads to no container counts as free.
    ///
    /// # Errors
    /// The name is another container's.
    pub(crate) fn claim(engine: &Engine, wanted: Option<&str>, id: &str) -> Result<Self> {
        let folder = folder(engine)?;
        let _lock = lock(&folder)?;
        let mut attempt = 0;
        loop {
            let name = wanted.map_or_else(|| invent(id, attempt), str::to_owned);
            let link = folder.join(&name);
            match symlink(packed(id), &link) {
                Ok(()) => return Ok(Self { folder, name, id: id.to_owned() }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::host(format!("take the name {name}"), error)),
            }
            let holder = target(&link).map_err(|error| Error::host(format!("look up the name {name}"), error))?;
            if container::clear_dead(engine, &holder)? {
                fs::remove_file(&link).map_err(|error| Error::host(format!("take the name {name}"), error))?;
                continue;
            }
            if wanted.is_some() {
                let said = format!("the container name {name:?} is already in use by container {holder}");
                return Err(Error::usage_hint(said, format!("hull rm -f {name}, or another name")));
            }
            attempt += 1;
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }

    /// Leaves the name to the container's record.
    pub(crate) fn keep(mut self) {
        self.id.clear();
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if !self.id.is_empty() {
            // A link that stays leads to no container and counts as free.
            let _ = lock(&self.folder).map(|_lock| release_in(&self.folder, &self.name, &self.id));
        }
    }
}

/// Gives up the name of a container that is gone.
pub(crate) fn release(engine: &Engine, name: &str, id: &str) -> Result<()> {
    let folder = folder(engine)?;
    let _lock = lock(&folder)?;
    release_in(&folder, name, id).map_err(|error| Error::host(format!("give up the name {name}"), error))
}

/// Removes the link if it is still the container's; under the lock, or it could be another's by then.
fn release_in(folder: &Path, name: &str, id: &str) -> io::Result<()> {
    let link = folder.join(name);
    match target(&link) {
        Ok(holder) if holder == id => fs::remove_file(link),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Names that lead to no container, or to one with `--rm` whose hull was killed, sorted.
pub(crate) fn abandoned(engine: &Engine) -> Result<Vec<String>> {
    let folder = engine.runroot.join("names");
    let links = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.and_then(Iterator::collect::<io::Result<Vec<_>>>),
    };
    let mut found = Vec::new();
    for link in links.map_err(|error| Error::host(format!("read {}", folder.display()), error))? {
        // A name that is given up meanwhile is not abandoned.
        if target(&link.path()).ok().map(|id| container::is_dead(engine, &id)).transpose()? == Some(true) {
            found.push(link.file_name().to_string_lossy().into_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// Gives up a name that [`abandoned`] found, unless it has been taken again.
pub(crate) fn release_abandoned(engine: &Engine, name: &str) -> Result<()> {
    let folder = folder(engine)?;
    let _lock = lock(&folder)?;
    let doing = |error| Error::host(format!("give up the name {name}"), error);
    match target(&folder.join(name)) {
        Ok(id) if container::is_dead(engine, &id)? => release_in(&folder, name, &id).map_err(doing),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(doing(error)),
        _ => Ok(()),
    }
}

/// An id is 64 hexadecimal digits.
const ID_BYTES: usize = 32;

/// The id that a name leads to.
pub(crate) fn find(engine: &Engine, name: &str) -> Result<Option<String>> {
    if check(name).is_err() {
        return Ok(None);
    }
    match target(&folder(engine)?.join(name)) {
        Ok(id) => Ok(Some(id)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::host(format!("look up the name {name}"), error)),
    }
}

fn target(link: &Path) -> io::Result<String> {
    let said = fs::read_link(link)?.to_string_lossy().into_owned();
    let id = URL_SAFE_NO_PAD.decode(&said).ok().filter(|bytes| bytes.len() == ID_BYTES);
    Ok(id.map_or(said, |bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// An id as a link says it: 43 characters, because a link of 60 and more takes a block of its own on ext4.
fn packed(id: &str) -> String {
    let digits =
        id.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap_or_default(), 16));
    match digits.collect::<std::result::Result<Vec<u8>, _>>() {
        Ok(bytes) if bytes.len() == ID_BYTES => URL_SAFE_NO_PAD.encode(bytes),
        _ => id.to_owned(),
    }
}

fn lock(folder: &Path) -> Result<File> {
    let lock = || -> io::Result<File> {
        let file = File::open(folder)?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
        Ok(file)
    };
    lock().map_err(|error| Error::host(format!("lock {}", folder.display()), error))
}

/// The folder of the links; after a reboot it is made and filled aside, so that nobody sees it half full.
fn folder(engine: &Engine) -> Result<PathBuf> {
    let folder = engine.runroot.join("names");
    if folder.is_dir() {
        return Ok(folder);
    }
    let aside = engine.runroot.join(format!("names.{}", std::process::id()));
    let fill = || -> Result<()> {
        let make = |error: io::Error| Error::host(format!("make {}", folder.display()), error);
        DirBuilder::new().mode(0o700).recursive(true).create(&aside).map_err(make)?;
        for (name, id) in container::lasting_names(engine)? {
            symlink(packed(&id), aside.join(name)).map_err(make)?;
        }
        match renameat_with(CWD, &aside, CWD, &folder, RenameFlags::NOREPLACE) {
            // Somebody else was faster, and may have taken names already.
            Err(Errno::EXIST) => Ok(()),
            other => other.map_err(|error| make(error.into())),
        }
    };
    let filled = fill();
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(|error| Error::host(format!("remove {}", aside.display()), error))?;
    }
    filled.map(|()| folder)
}

const KINDS: [&str; 32] = [
    "amber", "brisk", "calm", "clear", "coral", "crisp", "deep", "eager", "fair", "fleet", "fresh", "gentle",
    "green", "hardy", "keen", "light", "lively", "lucid", "merry", "mild", "misty", "noble", "pale", "proud",
    "quick", "quiet", "salty", "silver", "steady", "swift", "tidal", "windy",
];

/// Ships and their parts, for hulls.
const THINGS: [&str; 32] = [
    "anchor", "barge", "beam", "boom", "bow", "brig", "canoe", "clipper", "cutter", "deck", "dinghy", "ferry",
    "frame", "galley", "hatch", "helm", "jib", "kayak", "keel", "ketch", "lugger", "mast", "oar", "prow", "rudder",
    "sail", "schooner", "sloop", "spar", "stern", "tiller", "yawl",
];

/// A name out of the id's own random digits, another one for each attempt.
fn invent(id: &str, attempt: usize) -> String {
    let digit = |at: usize| id.as_bytes().get(at % id.len().max(1)).copied().unwrap_or_default() as usize;
    let (kind, thing) =
        (digit(4 * attempt) * 16 + digit(4 * attempt + 1), digit(4 * attempt + 2) * 16 + digit(4 * attempt + 3));
    let name = format!("{}_{}", KINDS[kind % KINDS.len()], THINGS[thing % THINGS.len()]);
    // With many containers the plain words run out.
    if attempt < 4 { name } else { format!("{name}_{attempt}") }
}
