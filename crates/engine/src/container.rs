//! What is known of containers besides their processes: records, and from them the list, the state and the removal.
//!
//! A container that is to last has the folder `ROOT/containers/ID`: `container.json`, written before it starts,
//! `exit.json`, written when it has ended, and the writable layer of its image. One with `--rm` has its record in the
//! runtime state alone, which goes with it. Nothing says "running" but the lock on the runtime state: where that is
//! free and there is no `exit.json`, hull was killed, and the status of the command is not known.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_image::Store;
use hull_runtime::cgroup;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::hold;
use crate::json;
use crate::names;
use crate::run::Engine;

const RECORD: &str = "container.json";
const EXIT: &str = "exit.json";

/// What a container was made of. It does not change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, the only one.
    pub name: String,
    /// The image as it was named, or the folder.
    pub image: String,
    /// The image's id; none for a folder.
    pub image_id: Option<String>,
    /// What it runs, the image's defaults included.
    pub command: Vec<String>,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Ids of the layers that it stands on.
    pub layers: Vec<String>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its status; 128 and more for a signal.
    pub code: i32,
    /// When, RFC 3339.
    pub finished: String,
}

/// What a container does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A hull holds it.
    Running,
    /// Its command has ended.
    Exited(Exit),
    /// Its hull was killed, so nobody knows how the command ended.
    Unknown,
}

/// A container, as `hull ps` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What it was made of.
    pub record: Record,
    /// What it does now.
    pub state: State,
}

/// The lasting folder of a container. It is removed when this is dropped, unless the command has ended.
#[derive(Debug)]
pub(crate) struct Lasting {
    engine: Engine,
    id: String,
    kept: bool,
}

impl Lasting {
    /// Makes `ROOT/containers/ID` with the two folders of a writable layer.
    pub(crate) fn create(engine: &Engine, id: &str) -> Result<Self> {
        let lasting = Self { engine: engine.clone(), id: id.to_owned(), kept: false };
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(lasting.work());
        let made = made.and_then(|()| builder.recursive(false).mode(0o755).create(lasting.upper()));
        made.map_err(|error| Error::host(format!("make {}", lasting.path().display()), error))?;
        Ok(lasting)
    }

    fn path(&self) -> PathBuf {
        lasting_path(&self.engine, &self.id)
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.path().join("diff")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.path().join("work")
    }

    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        json::write(&self.path(), RECORD, record)
    }

    /// Waits until the record survives a loss of power. The container's own processes do not, so it may start before.
    pub(crate) fn sync(&self) -> Result<()> {
        json::sync(&self.path(), RECORD)
    }

    /// Records the end; from here on the container lasts. An end that a loss of power takes along reads as unknown, so
    /// nobody waits for the disk here.
    pub(crate) fn exited(mut self, code: i32) -> Result<()> {
        self.kept = true;
        json::write(&self.path(), EXIT, &Exit { code, finished: now() })
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        if !self.kept {
            // A remainder has no record, by which `system check` knows it.
            let _ = discard(&self.engine, &self.id);
        }
    }
}

/// Now, RFC 3339.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn lasting_path(engine: &Engine, id: &str) -> PathBuf {
    engine.root.join("containers").join(id)
}

/// The ids that have a lasting folder, sorted.
pub(crate) fn lasting_ids(engine: &Engine) -> Result<Vec<String>> {
    hold::ids(&engine.root)
}

/// The names of lasting containers with their ids.
pub(crate) fn lasting_names(engine: &Engine) -> Result<Vec<(String, String)>> {
    let records = lasting_ids(engine)?.into_iter().map(|id| record(&lasting_path(engine, &id)));
    let named = |record: Record| (record.name, record.id);
    records.filter_map(|record| record.map(|record| record.map(named)).transpose()).collect()
}

fn record(folder: &Path) -> Result<Option<Record>> {
    json::read(folder, RECORD)
}

/// All containers, newest first. Those of build steps, which have no record, are not among them.
///
/// # Errors
/// A record that cannot be read.
pub fn list(engine: &Engine) -> Result<Vec<Listed>> {
    let ids: BTreeSet<String> = hold::ids(&engine.runroot)?.into_iter().chain(lasting_ids(engine)?).collect();
    let mut all = Vec::new();
    for id in ids {
        all.extend(look(engine, &id)?);
    }
    all.sort_by(|a, b| b.record.created.cmp(&a.record.created));
    Ok(all)
}

/// One container by its whole id; none if there is no record of it.
fn look(engine: &Engine, id: &str) -> Result<Option<Listed>> {
    let lasting = lasting_path(engine, id);
    let record = match record(&lasting)? {
        None => hold::record(&engine.runroot, id)?,
        found => found,
    };
    let Some(record) = record else { return Ok(None) };
    // The lock first: an end that is recorded between the two looks must not read as a death.
    let held = hold::is_held(&engine.runroot, id);
    let state = match json::read::<Exit>(&lasting, EXIT)? {
        Some(exit) => State::Exited(exit),
        None if held => State::Running,
        None => State::Unknown,
    };
    Ok(Some(Listed { record, state }))
}

/// Finds a container by name, id, or the beginning of an id that no other has.
///
/// # Errors
/// There is none, or several.
pub fn find(engine: &Engine, wanted: &str) -> Result<Listed> {
    let none = || Error::usage(format!("no such container: {wanted}"));
    if let Some(id) = names::find(engine, wanted)? {
        return look(engine, &id)?.ok_or_else(none);
    }
    let ids = hold::ids(&engine.runroot)?.into_iter().chain(lasting_ids(engine)?);
    let matching: BTreeSet<String> = ids.filter(|id| !wanted.is_empty() && id.starts_with(wanted)).collect();
    let mut matching = matching.into_iter();
    match (matching.next(), matching.next()) {
        (Some(id), None) => look(engine, &id)?.ok_or_else(none),
        (Some(_), Some(_)) => Err(Error::usage(format!("several containers have an id that begins with {wanted}"))),
        (None, _) => Err(none()),
    }
}

/// How long a container that was killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Removes a container; `force` kills it first.
///
/// # Errors
/// It runs and `force` is not given; something of it stays.
pub fn remove(engine: &Engine, wanted: &str, force: bool) -> Result<()> {
    let listed = find(engine, wanted)?;
    let id = &listed.record.id;
    if listed.state == State::Running && !force {
        return Err(Error::usage_hint(
            format!("cannot remove container {wanted}: it is running"),
            format!("hull rm -f {wanted} kills it first"),
        ));
    }
    let deadline = Instant::now() + PATIENCE;
    while hold::is_held(&engine.runroot, id) {
        // Again and again: the first look may be before its first process is in the groups.
        hold::groups(&engine.runroot, id)?.iter().try_for_each(|group| cgroup::kill_leftover(group))?;
        if Instant::now() > deadline {
            return Err(Error::host(format!("remove container {wanted}"), "its hull does not end"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    clear(engine, id)?;
    discard(engine, id)?;
    names::release(engine, &listed.record.name, id)
}

/// Removes the runtime half of a container that nobody holds.
pub(crate) fn clear(engine: &Engine, id: &str) -> Result<()> {
    hold::groups(&engine.runroot, id)?.iter().try_for_each(|group| cgroup::remove_leftover(group))?;
    hold::remove_abandoned(&engine.runroot, id).map(drop)
}

/// Removes the lasting half. The record goes first: what is left after a crash is known by its absence.
pub(crate) fn discard(engine: &Engine, id: &str) -> Result<()> {
    let path = lasting_path(engine, id);
    match fs::remove_file(path.join(RECORD)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        other => other.map_err(|error| Error::host(format!("remove {}", path.display()), error))?,
    }
    if path.exists() {
        Store::open(&engine.root)?.discard(&path)?;
    }
    Ok(())
}

/// Clears a container with `--rm` whose hull was killed, or the name of one that is not there any more. False if the
/// container lasts or lives.
pub(crate) fn clear_dead(engine: &Engine, id: &str) -> Result<bool> {
    let dead = is_dead(engine, id)?;
    if dead {
        clear(engine, id)?;
    }
    Ok(dead)
}

/// Whether a container neither lives nor lasts: it is gone, or it had `--rm` and its hull was killed.
pub(crate) fn is_dead(engine: &Engine, id: &str) -> Result<bool> {
    Ok(!hold::is_held(&engine.runroot, id) && record(&lasting_path(engine, id))?.is_none())
}

/// The ids of the layers that lasting containers stand on: not to be collected.
///
/// # Errors
/// A record that cannot be read: it is not known then what it needs.
pub fn layers_in_use(engine: &Engine) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for id in lasting_ids(engine)? {
        all.extend(record(&lasting_path(engine, &id))?.into_iter().flat_map(|record| record.layers));
    }
    Ok(all)
}

/// Lasting folders without a record and without a holder: their container was never started or is half removed.
pub(crate) fn half_made(engine: &Engine) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for id in lasting_ids(engine)? {
        if is_dead(engine, &id)? {
            found.push(id);
        }
    }
    Ok(found)
}
