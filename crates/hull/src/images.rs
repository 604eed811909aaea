//! The store's commands: `hull image VERB`, and the verbs that have a short form.

pub mod archive;
pub mod args;
pub mod df;
mod filter;
pub mod gc;
pub mod inspect;
mod prune;
mod stock;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use args::{ImageCommand, ListArgs, TagArgs};
use filter::Filter;
use hull_engine::Engine;
use hull_engine::container::{self, Listed, State};
use hull_image::{Driver, Image, Reference, Removed, Store};

use crate::listing::{Listing, Row};
use crate::pull::pull;
use crate::push::push;
use crate::report::Report;
use crate::table;

const LISTING: Listing = Listing {
    columns: &[
        ("CreatedAt", "CREATED AT"),
        ("CreatedSince", "CREATED"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("Repository", "REPOSITORY"),
        ("Size", "SIZE"),
        ("Tag", "TAG"),
    ],
    usual: &["Repository", "Tag", "ID", "CreatedSince", "Size"],
};
const WITH_DIGESTS: Listing =
    Listing { usual: &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"], ..LISTING };

/// `hull image VERB`.
pub fn image(engine: &Engine, store: &Store, command: &ImageCommand) -> Result<i32, Report> {
    match command {
        ImageCommand::History(args) => inspect::history(store, args),
        ImageCommand::Import(args) => archive::import(store, args),
        ImageCommand::Inspect(args) => inspect::inspect(store, args),
        ImageCommand::Load(args) => archive::load(store, args),
        ImageCommand::Ls(args) => list(store, args),
        ImageCommand::Prune(args) => prune::prune(engine, store, args),
        ImageCommand::Pull(args) => pull(store, args),
        ImageCommand::Push(args) => push(store, args),
        ImageCommand::Rm(args) => remove(engine, store, &args.images, args.force),
        ImageCommand::Save(args) => archive::save(store, args),
        ImageCommand::Tag(args) => tag(store, args),
    }
}

/// `hull images`: a row for each name, newest first; `--quiet` gives ids, each once. An image that cannot be read is the
/// error behind the rows of the others.
pub fn list(store: &Store, args: &ListArgs) -> Result<i32, Report> {
    let kinds = ["dangling", "label", "before", "since", "reference"];
    let mut filter = Filter::parse(store, &args.filter, &kinds)?;
    args.reference.iter().for_each(|pattern| filter.reference(pattern));
    let (mut images, damaged) = store.list()?;
    images.retain(|image| filter.takes(image));
    images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
    let rows: Vec<(&Image, Row)> = images.iter().flat_map(|image| rows(image, &filter, args)).collect();
    let listing = if args.digests { WITH_DIGESTS } else { LISTING };
    let told = match (args.quiet, &args.format) {
        (true, None) => {
            let mut ids: Vec<&Image> = rows.into_iter().map(|(image, _)| image).collect();
            ids.dedup_by(|a, b| a.id == b.id);
            ids.iter().map(|image| format!("{}\n", id(image, args))).collect()
        }
        (_, format) => {
            listing.render(format.as_deref(), &rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>())?
        }
    };
    say(&told)?;
    damaged.into_iter().next().map_or(Ok(0), |error| Err(error.into()))
}

fn id<'a>(image: &'a Image, args: &ListArgs) -> &'a str {
    if args.no_trunc { image.id.as_str() } else { image.id.short() }
}

fn rows<'a>(image: &'a Image, filter: &Filter, args: &ListArgs) -> Vec<(&'a Image, Row)> {
    let none = || "<none>".to_owned();
    let row = |repository: String, tag: String, digest: String| {
        let row = Row::new([
            ("CreatedAt", image.created.as_deref().map_or_else(|| "N/A".to_owned(), table::date)),
            ("CreatedSince", ago(filter::created(image))),
            ("Digest", digest),
            ("ID", id(image, args).to_owned()),
            ("Repository", repository),
            ("Size", table::size(image.size)),
            ("Tag", tag),
        ]);
        (image, row)
    };
    if image.names.is_empty() {
        return if filter.wants_names() { Vec::new() } else { vec![row(none(), none(), none())] };
    }
    let name = |name: &Reference| {
        let origin = image.origins.iter().find(|(own, _)| own == name).map(|(_, digest)| digest.to_string());
        row(name.familiar_name(), name.tag().map_or_else(none, str::to_owned), origin.unwrap_or_else(none))
    };
    image.names.iter().filter(|name| filter.takes_name(name)).map(name).collect()
}

/// How long ago that was, in Docker's words.
fn ago(when: Option<jiff::Timestamp>) -> String {
    when.map_or_else(|| "N/A".to_owned(), |when| table::ago(jiff::Timestamp::now().as_second() - when.as_second()))
}

/// `hull tag`.
pub fn tag(store: &Store, args: &TagArgs) -> Result<i32, Report> {
    store.tag(&args.image, &args.name.parse()?)?;
    Ok(0)
}

/// `hull rmi`: every image is tried; the first failure is told at the end.
pub fn remove(engine: &Engine, store: &Store, images: &[String], force: bool) -> Result<i32, Report> {
    let containers = container::list(engine)?;
    let mut failure = None;
    for name in images {
        match remove_one(engine, store, name, force, &containers) {
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
    engine: &Engine,
    store: &Store,
    name: &str,
    force: bool,
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
    store.remove(name, force, || needed_layers(engine, store))
}

/// `hull info`.
pub fn info(engine: &Engine, store: &Store) -> Result<i32, Report> {
    let system = rustix::system::uname();
    let mut told = format!("Version: {}\n", env!("CARGO_PKG_VERSION"));
    told += &format!("Images: {}\n", store.list()?.0.len());
    told += &format!("Root: {}\nRunroot: {}\n", engine.root.display(), engine.runroot.display());
    let (driver, mode) = store.driver()?;
    told += &format!("Storage driver: {}\n", driver.name());
    told += &match &driver {
        Driver::Overlay => format!("Layers of an image: at most {}\n", hull_image::layers_max()?),
        Driver::Vfs { why } => format!("Storage reason: {why}\n"),
    };
    told += &format!("Storage mode: {mode}\n");
    told += &format!("Kernel: {}\n", system.release().to_string_lossy());
    told += &format!("Architecture: {}\n", system.machine().to_string_lossy());
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    told += &format!("Cgroup version: {}\n", if unified { 2 } else { 1 });
    say(&told)
}

/// Writes to standard output; gives the exit status.
pub fn say(text: &str) -> Result<i32, Report> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Report::host("write to standard output", error))?;
    Ok(0)
}
