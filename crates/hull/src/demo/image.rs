//! The demo's image: this very program and nothing else, made in the store when it is not there.
//!
//! Its label says which program it holds, so it is made once and made anew by another one; the one before is removed
//! unless a container uses it. The same file always makes the same image.

use std::fs::File;
use std::io::{Cursor, Read};

use hull_engine::{Engine, container};
use hull_image::{Digest, ImportOptions, Reference, Store};
use jiff::Timestamp;

use crate::images;
use crate::report::Report;

/// Where the program is in the image.
pub const PROGRAM: &str = "/hull";
const NAME: &str = "localhost/hull:demo";
/// The label with the program's digest.
const LABEL: &str = "hull.program";

/// The image's name, when the image is there.
///
/// # Errors
/// The program cannot be read, or the store fails.
pub fn ready(engine: &Engine, store: &Store) -> Result<String, Report> {
    let mut program = Vec::new();
    let failed = |error: &dyn std::fmt::Display| Report::host("read /proc/self/exe", error);
    let mut file = File::open("/proc/self/exe").map_err(|error| failed(&error))?;
    file.read_to_end(&mut program).map_err(|error| failed(&error))?;
    let changed = file.metadata().and_then(|metadata| metadata.modified()).map_err(|error| failed(&error))?;
    let changed = Timestamp::try_from(changed).map_err(|error| failed(&error))?;
    let digest = Digest::of(&program).to_string();

    let before = store.find(NAME)?;
    let label = |image: &hull_image::Image| image.config.config().as_ref()?.labels().as_ref()?.get(LABEL).cloned();
    if before.as_ref().and_then(label).as_deref() == Some(&digest) {
        return Ok(NAME.to_owned());
    }
    let name: Reference = NAME.parse()?;
    let options = ImportOptions {
        cmd: Some(vec![PROGRAM.to_owned(), "verify".to_owned()]),
        labels: [(LABEL.to_owned(), digest)].into(),
        comment: Some("hull's own program, for hull demo".to_owned()),
        created: Some(changed.to_string()),
        ..ImportOptions::default()
    };
    let made = store.import(archive(program)?, &name, options)?;
    if let Some(before) = before.filter(|before| before.id != made.id && before.names.len() == 1) {
        forget(engine, store, &before.id.to_string())?;
    }
    Ok(NAME.to_owned())
}

/// A tar archive of one file.
fn archive(program: Vec<u8>) -> Result<impl Read, Report> {
    let mut header = tar::Header::new_ustar();
    let failed = |error| Report::host("make the demo's image", error);
    header.set_path(PROGRAM.trim_start_matches('/')).map_err(failed)?;
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    header.set_cksum();
    // The file fills whole blocks; two empty blocks end an archive.
    let end = vec![0; program.len().next_multiple_of(512) - program.len() + 1024];
    Ok(Cursor::new(header.as_bytes().to_vec()).chain(Cursor::new(program)).chain(Cursor::new(end)))
}

/// Removes an image that lost its name, unless a container stands on it.
fn forget(engine: &Engine, store: &Store, id: &str) -> Result<(), Report> {
    let used = container::list(engine)?.iter().any(|listed| listed.record.image_id.as_deref() == Some(id));
    if !used && store.find(id)?.is_some() {
        store.remove(id, false, || images::needed_layers(engine, store))?;
    }
    Ok(())
}
