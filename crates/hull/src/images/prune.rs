//! `hull image prune`.

use std::collections::BTreeSet;
use std::io::{BufRead, stdin};

use hull_engine::Engine;
use hull_engine::container;
use hull_image::Store;

use super::args::PruneArgs;
use super::filter::Filter;
use super::{needed_layers, say};
use crate::report::Report;
use crate::table;

/// Removes images without a name, with `--all` all that no container uses.
pub fn prune(engine: &Engine, store: &Store, args: &PruneArgs) -> Result<i32, Report> {
    let filter = Filter::parse(store, &args.filter, &["until", "label"])?;
    if !args.force && !confirmed(args.all)? {
        return Ok(0);
    }
    let used: Vec<String> =
        container::list(engine)?.into_iter().filter_map(|listed| listed.record.image_id).collect();
    let mut told = String::new();
    let mut bytes = 0;
    for image in store.images()? {
        let id = image.id.to_string();
        let unnamed = image.names.is_empty();
        if !(args.all || unnamed) || used.contains(&id) || !filter.takes(&image) {
            continue;
        }
        // By what the index lists, which also tells images for several platforms apart. Another prune may have been faster.
        let removed = match store.remove(&image.listed().to_string(), true, || needed(engine, store)) {
            Err(Failure::Store(hull_image::Error::NotFound { .. })) => continue,
            Err(Failure::Store(error)) => return Err(error.into()),
            Err(Failure::Needs(report)) => return Err(report),
            Ok(removed) => removed,
        };
        told.extend(removed.untagged.iter().map(|name| format!("untagged: {}\n", name.familiar())));
        told.extend(removed.deleted.iter().map(|id| format!("deleted: {id}\n")));
        bytes += removed.bytes;
    }
    if !told.is_empty() {
        told = format!("Deleted Images:\n{told}\n");
    }
    say(&format!("{told}Total reclaimed space: {}\n", table::size(bytes)))
}

/// Why an image was not removed.
enum Failure {
    Store(hull_image::Error),
    Needs(Report),
}

impl From<hull_image::Error> for Failure {
    fn from(error: hull_image::Error) -> Self {
        Self::Store(error)
    }
}

fn needed(engine: &Engine, store: &Store) -> Result<BTreeSet<String>, Failure> {
    needed_layers(engine, store).map_err(Failure::Needs)
}

fn confirmed(all: bool) -> Result<bool, Report> {
    let what =
        if all { "all images without at least one container associated to them" } else { "all dangling images" };
    eprint!("WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] ");
    let mut line = String::new();
    stdin().lock().read_line(&mut line).map_err(|error| Report::host("read the answer", error))?;
    Ok(["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str()))
}
