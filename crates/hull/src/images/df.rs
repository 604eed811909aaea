//! `hull system df`: what takes room, and how much of that nothing uses.
//!
//! Sizes are bytes on the disk, each thing once: blobs and unpacked layers of images; the writable layers of containers; of
//! the build cache the layers that no image has as well. Reclaimable is what would be free if all went that no container
//! uses. Source: Docker's `system df`.

use std::collections::BTreeSet;

use hull_build::store::Step;
use hull_engine::Engine;
use hull_engine::container::{Listed, State};
use hull_image::{Image, Store, Thing, disk_usage};
use serde_json::{Value, json};

use super::stock::{Stock, age, thing};
use super::{ago, filter, say};
use crate::containers;
use crate::listing::{self, Listing, Row};
use crate::report::Report;
use crate::table;

// What `hull system df` is to show.
#[derive(clap::Args)]
pub struct DfArgs {
    /// Each image, container and step of the build cache
    #[arg(short, long)]
    verbose: bool,
    /// table, json, table TEMPLATE or a template: .Type .TotalCount .Active .Size .Reclaimable; with -v one for all: .Images .Containers .Volumes .BuildCache
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const LISTING: Listing = Listing {
    columns: &[
        ("Active", "ACTIVE"),
        ("Reclaimable", "RECLAIMABLE"),
        ("Size", "SIZE"),
        ("TotalCount", "TOTAL"),
        ("Type", "TYPE"),
    ],
    usual: &["Type", "TotalCount", "Active", "Size", "Reclaimable"],
};
const IMAGES: Listing = Listing {
    columns: &[
        ("Containers", "CONTAINERS"),
        ("CreatedSince", "CREATED"),
        ("ID", "IMAGE ID"),
        ("Repository", "REPOSITORY"),
        ("SharedSize", "SHARED SIZE"),
        ("Size", "SIZE"),
        ("Tag", "TAG"),
        ("UniqueSize", "UNIQUE SIZE"),
    ],
    usual: &["Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"],
};
const CONTAINERS: Listing = Listing {
    columns: &[
        ("Command", "COMMAND"),
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Names", "NAMES"),
        ("RunningFor", "CREATED"),
        ("Size", "SIZE"),
        ("Status", "STATUS"),
    ],
    usual: &["ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"],
};
const VOLUMES: Listing = Listing {
    columns: &[("Links", "LINKS"), ("Name", "VOLUME NAME"), ("Size", "SIZE")],
    usual: &["Name", "Links", "Size"],
};
const CACHE: Listing = Listing {
    columns: &[
        ("CacheType", "CACHE TYPE"),
        ("CreatedSince", "CREATED"),
        ("ID", "CACHE ID"),
        ("InUse", "IN USE"),
        ("LastUsedSince", "LAST USED"),
        ("Shared", "SHARED"),
        ("Size", "SIZE"),
    ],
    usual: &["ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "InUse", "Shared"],
};

struct Facts {
    stock: Stock,
    /// The bytes of each container's own layer, in the order of the stock.
    writable: Vec<u64>,
    /// Everything that an image has.
    of_images: BTreeSet<Thing>,
}

/// `hull system df`.
pub fn df(engine: &Engine, store: &Store, args: &DfArgs) -> Result<i32, Report> {
    let stock = Stock::take(engine, store)?;
    let writable = |listed: &Listed| disk_usage(&engine.root.join("containers").join(&listed.record.id));
    let writable = stock.containers.iter().map(writable).collect::<Result<Vec<_>, _>>()?;
    let of_images = stock.usage.entries.iter().flat_map(|entry| entry.things.iter().cloned()).collect();
    let facts = Facts { stock, writable, of_images };
    let told = if args.verbose {
        facts.each(args.format.as_deref())?
    } else {
        LISTING.render(args.format.as_deref(), &facts.summary())?
    };
    say(&told)?;
    facts.stock.usage.damaged.into_iter().next().map_or(Ok(0), |error| Err(error.into()))
}

impl Facts {
    fn summary(&self) -> [Row; 4] {
        let (stock, usage) = (&self.stock, &self.stock.usage);
        let needed = stock.needed();
        let images = usage.entries.iter().flat_map(|entry| entry.images.iter().map(move |(image, _)| (entry, image)));
        let ids = |used: bool| {
            let images = images.clone().filter(|(entry, _)| !used || stock.is_used(entry));
            images.map(|(_, image)| &image.id).collect::<BTreeSet<_>>().len()
        };
        let free = usage.size(self.of_images.iter().filter(|thing| !needed.contains(thing)));
        let images = row("Images", (ids(false), ids(true)), usage.size(&self.of_images), free);

        let running = |listed: &Listed| listed.state == State::Running;
        let active = stock.containers.iter().filter(|listed| running(listed)).count();
        let ended = stock.containers.iter().zip(&self.writable).filter(|(listed, _)| !running(listed));
        let free = ended.map(|(_, size)| size).sum();
        let containers = row("Containers", (stock.containers.len(), active), self.writable.iter().sum(), free);

        let cached: BTreeSet<Thing> = stock.steps.iter().filter_map(thing).collect();
        let own: BTreeSet<&Thing> = cached.difference(&self.of_images).collect();
        let active = stock.steps.iter().filter(|step| self.is_in_use(step)).count();
        let free = usage.size(own.iter().filter(|thing| !needed.contains(*thing)).copied());
        let cache = row("Build Cache", (stock.steps.len(), active), usage.size(own), free);
        [images, containers, row("Local Volumes", (0, 0), 0, 0), cache]
    }

    /// An image or a container stands on the step's layer.
    fn is_in_use(&self, step: &Step) -> bool {
        thing(step).is_some_and(|thing| self.of_images.contains(&thing) || self.stock.stood_on.contains(&thing))
    }

    fn each(&self, format: Option<&str>) -> Result<String, Report> {
        let images = self.images();
        let containers: Vec<Row> =
            self.stock.containers.iter().zip(&self.writable).map(|(listed, size)| container(listed, *size)).collect();
        let cache: Vec<Row> = self.stock.steps.iter().map(|step| self.step(step)).collect();
        if let Some(format) = format.filter(|format| *format != "table") {
            let values = |rows: &[Row]| rows.iter().map(Row::value).collect::<Value>();
            let all = json!({
                "Images": values(&images), "Containers": values(&containers), "Volumes": [],
                "BuildCache": values(&cache),
            });
            return listing::document(format, &all);
        }
        let own: BTreeSet<Thing> = self.stock.steps.iter().filter_map(thing).collect();
        let own = table::size(self.stock.usage.size(own.difference(&self.of_images)));
        Ok(format!(
            "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\n\
             Build cache usage: {own}\n\n{}",
            IMAGES.render(None, &images)?,
            CONTAINERS.render(None, &containers)?,
            VOLUMES.render(None, &[])?,
            CACHE.render(None, &cache)?,
        ))
    }

    /// A row for each name of an image, or for one without.
    fn images(&self) -> Vec<Row> {
        let all: Vec<&(Image, BTreeSet<Thing>)> =
            self.stock.usage.entries.iter().flat_map(|entry| &entry.images).collect();
        let mut rows = Vec::new();
        for (image, things) in &all {
            let shared = things.iter().filter(|thing| {
                all.iter().any(|(other, others)| other.manifest != image.manifest && others.contains(thing))
            });
            let shared = self.stock.usage.size(shared);
            let size = self.stock.usage.size(things);
            let users = self.stock.containers.iter();
            let users = users.filter(|listed| listed.record.image_id.as_deref() == Some(image.id.as_str())).count();
            let none = || "<none>".to_owned();
            let row = |repository: String, tag: String| {
                Row::new([
                    ("Containers", users.to_string()),
                    ("CreatedSince", ago(filter::created(image))),
                    ("ID", image.id.short().to_owned()),
                    ("Repository", repository),
                    ("SharedSize", table::size(shared)),
                    ("Size", table::size(size)),
                    ("Tag", tag),
                    ("UniqueSize", table::size(size - shared)),
                ])
            };
            let names = image.names.iter();
            rows.extend(names.map(|name| row(name.familiar_name(), name.tag().map_or_else(none, str::to_owned))));
            rows.extend(image.names.is_empty().then(|| row(none(), none())));
        }
        rows
    }

    fn step(&self, step: &Step) -> Row {
        let thing = thing(step);
        let shared = thing.as_ref().is_some_and(|thing| self.of_images.contains(thing));
        Row::new([
            ("CacheType", "regular".to_owned()),
            ("CreatedSince", table::ago(age(step.made))),
            ("ID", step.key.chars().take(12).collect()),
            ("InUse", self.is_in_use(step).to_string()),
            ("LastUsedSince", table::ago(age(self.stock.last_used(step)))),
            ("Shared", shared.to_string()),
            ("Size", table::size(self.stock.usage.size(&thing))),
        ])
    }
}

fn container(listed: &Listed, size: u64) -> Row {
    let row = containers::row(listed, false);
    row.with("LocalVolumes", "0".to_owned()).with("Size", table::size(size))
}

fn row(class: &str, (total, active): (usize, usize), size: u64, free: u64) -> Row {
    let percent = (free * 100).checked_div(size).filter(|_| class != "Build Cache");
    Row::new([
        ("Active", active.to_string()),
        ("Reclaimable", table::size(free) + &percent.map(|percent| format!(" ({percent}%)")).unwrap_or_default()),
        ("Size", table::size(size)),
        ("TotalCount", total.to_string()),
        ("Type", class.to_owned()),
    ])
}
