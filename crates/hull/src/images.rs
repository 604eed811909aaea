//! The store's commands: `images`, `import`, `rmi` and `info`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write, stdin};
use std::path::Path;

use hull_engine::Engine;
use hull_engine::container::{self, Listed, State};
use hull_image::{Image, ImportOptions, Reference, Removed, Store};

use crate::listing::{Listing, Row};
use crate::report::Report;
use crate::table;

const LISTING: Listing = Listing {
    columns: &[
        ("CreatedAt", "CREATED AT"),
        ("CreatedSince", "CREATED"),
        ("ID", "IMAGE ID"),
        ("Repository", "REPOSITORY"),
        ("Size", "SIZE"),
        ("Tag", "TAG"),
    ],
    usual: &["Repository", "Tag", "ID", "CreatedSince", "Size"],
};

/// `hull images`: a row for each name, newest first; `quiet` gives short ids, each once. An image that cannot be read is
/// the error behind the rows of the others.
pub fn list(store: &Store, quiet: bool, format: Option<&str>) -> Result<i32, Report> {
    let (mut images, damaged) = store.list()?;
    images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
    let told = match (quiet, format) {
        (true, None) => images.iter().map(|image| format!("{}\n", image.id.short())).collect(),
        _ => LISTING.render(format, &images.iter().flat_map(rows).collect::<Vec<_>>())?,
    };
    say(&told)?;
    damaged.into_iter().next().map_or(Ok(0), |error| Err(error.into()))
}

fn rows(image: &Image) -> Vec<Row> {
    let none = || "<none>".to_owned();
    let row = |repository: String, tag: String| {
        Row::new([
            ("CreatedAt", image.created.as_deref().map_or_else(|| "N/A".to_owned(), table::date)),
            ("CreatedSince", created(image)),
            ("ID", image.id.short().to_owned()),
            ("Repository", repository),
            ("Size", table::size(image.size)),
            ("Tag", tag),
        ])
    };
    if image.names.is_empty() {
        return vec![row(none(), none())];
    }
    let name = |name: &Reference| row(name.familiar_name(), name.tag().map_or_else(none, str::to_owned));
    image.names.iter().map(name).collect()
}

fn created(image: &Image) -> String {
    let when = image.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    when.map_or_else(|| "N/A".to_owned(), |when| table::ago(jiff::Timestamp::now().as_second() - when.as_second()))
}

/// `hull import`: the image's id on standard output.
pub fn import(store: &Store, file: &Path, name: &str) -> Result<i32, Report> {
    let name: Reference = name.parse()?;
    let tar: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(stdin().lock()),
        _ => Box::new(File::open(file).map_err(|error| Report::host(format!("read {}", file.display()), error))?),
    };
    let shown = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let image = store.import(tar, &name, ImportOptions::default()).map_err(|error| match error {
        // The store knows no file, only bytes.
        hull_image::Error::Archive { why } => Report::host(format!("import {shown}"), why),
        error => error.into(),
    })?;
    say(&format!("{}\n", image.id))
}

/// `hull tag`.
pub fn tag(store: &Store, image: &str, name: &str) -> Result<i32, Report> {
    store.tag(image, &name.parse()?)?;
    Ok(0)
}

/// `hull rmi`: every image is tried; the first failure is told at the end.
pub fn remove(engine: &Engine, store: &Store, images: &[String], force: bool) -> Result<i32, Report> {
    let keep = needed_layers(engine, store)?;
    let containers = container::list(engine)?;
    let mut failure = None;
    for name in images {
        match remove_one(store, name, force, &keep, &containers) {
            Ok(removed) => {
                let untagged = removed.untagged.iter().map(|name| format!("Untagged: {}\n", name.familiar()));
                let deleted = removed.deleted.iter().map(|id| format!("Deleted: {id}\n"));
                say(&untagged.chain(deleted).collect::<String>())?;
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(0), Err)
}

/// Layers that stay although no image leads to them.
pub fn needed_layers(engine: &Engine, store: &Store) -> Result<BTreeSet<String>, Report> {
    let mut keep = hull_build::store::cached_layers(store)?;
    keep.extend(container::layers_in_use(engine)?);
    Ok(keep)
}

/// As Docker has it: the last name of an image that a container uses is not removed, with `force` only that of a
/// container that has ended.
fn remove_one(
    store: &Store,
    name: &str,
    force: bool,
    keep: &BTreeSet<String>,
    containers: &[Listed],
) -> Result<Removed, Report> {
    // One that cannot be read is the store's to judge: its name can be removed.
    if let Ok(Some(image)) = store.find(name) {
        let id = image.id.to_string();
        let blocks = |listed: &&Listed| {
            listed.record.image_id.as_deref() == Some(&id) && (!force || listed.state == State::Running)
        };
        if let (Some(listed), ..=1) = (containers.iter().find(blocks), image.names.len()) {
            let user = &listed.record;
            let said = format!("cannot remove {name}: container {} ({}) uses it", &user.id[..12], user.name);
            return Err(Report::usage(said, Some(&format!("hull rm -f {}", user.name))).with_code(1));
        }
    }
    Ok(store.remove(name, force, keep)?)
}

/// `hull info`.
pub fn info(engine: &Engine, store: &Store) -> Result<i32, Report> {
    let system = rustix::system::uname();
    let mut told = format!("Version: {}\n", env!("CARGO_PKG_VERSION"));
    told += &format!("Images: {}\n", store.list()?.0.len());
    told += &format!("Root: {}\nRunroot: {}\n", engine.root.display(), engine.runroot.display());
    told += &format!("Kernel: {}\n", system.release().to_string_lossy());
    told += &format!("Architecture: {}\n", system.machine().to_string_lossy());
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    told += &format!("Cgroup version: {}\n", if unified { 2 } else { 1 });
    say(&told)
}

fn say(text: &str) -> Result<i32, Report> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Report::host("write to standard output", error))?;
    Ok(0)
}
