//! `hull gc`: images and steps of the build cache that nothing uses go, those first that were not used for the longest time.
//!
//! What a container was made of, running or not, and what a living process stands on stays. Without a policy only that goes
//! which nothing leads to: no image, no container, no step of the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use hull_build::store::Step;
use hull_engine::{Engine, options};
use hull_image::{Entry, Reference, Store, Thing};
use jiff::Timestamp;

use super::stock::{Stock, age, thing};
use super::{filter, needed_layers, say};
use crate::report::Report;
use crate::table;

// The policy of `hull gc`.
#[derive(clap::Args)]
pub struct GcArgs {
    /// What was not used for so long, as 72h, or since then, as 2024-05-06T07:08:09Z
    #[arg(long, value_name = "AGE|TIME")]
    older_than: Option<String>,
    /// Only until the store has no more than that on the disk, as 10g
    #[arg(long, value_name = "SIZE")]
    keep_size: Option<String>,
    /// Tell what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// One thing that can be decided on.
enum Unit<'a> {
    Image(&'a Entry),
    Step(&'a Step),
}

impl Unit<'_> {
    fn things(&self) -> BTreeSet<Thing> {
        match self {
            Unit::Image(entry) => entry.things.clone(),
            Unit::Step(step) => thing(step).into_iter().collect(),
        }
    }

    fn name(&self) -> String {
        match self {
            Unit::Image(entry) if entry.names.is_empty() => format!("image {}", entry.listed),
            Unit::Image(entry) => {
                let names: Vec<String> = entry.names.iter().map(Reference::familiar).collect();
                format!("image {}", names.join(", "))
            }
            Unit::Step(step) => format!("build step {}", step.key.chars().take(12).collect::<String>()),
        }
    }
}

/// What goes.
#[derive(Default)]
struct Chosen<'a> {
    units: Vec<(SystemTime, Unit<'a>)>,
    /// What is left without anybody who leads to it.
    things: BTreeSet<Thing>,
}

/// `hull gc`.
pub fn gc(engine: &Engine, store: &Store, args: &GcArgs) -> Result<i32, Report> {
    let before = args.older_than.as_deref().map(before).transpose()?;
    let most = args.keep_size.as_deref().map(|size| options::bytes("--keep-size", size)).transpose()?;
    let most = most.map(|most| u64::try_from(most).unwrap_or_default());
    let mut stock = Stock::take(engine, store)?;
    if let Some(error) = stock.usage.damaged.pop() {
        let report = Report::from(error);
        let told = format!("cannot tell what can be removed: {}", report.message());
        return Err(Report::usage(told, Some("hull system check --repair")).with_code(1));
    }
    let chosen = choose(store, &stock, before, most)?;
    let told =
        |(used, unit): &(SystemTime, Unit<'_>)| format!("{}, last used {}\n", unit.name(), table::ago(age(*used)));
    let told: String = chosen.units.iter().map(told).collect();
    if args.dry_run {
        let size = stock.usage.size(&chosen.things);
        return say(&format!("{told}Total reclaimable space: {} ({size} bytes)\n", table::size(size)));
    }
    let mut leaving = BTreeSet::new();
    for (_, unit) in &chosen.units {
        match unit {
            Unit::Image(entry) => _ = leaving.insert(entry.listed.clone()),
            // First, for a step without its layer is a miss, and a layer without its step would stay.
            Unit::Step(step) => hull_build::store::forget(store, step)?,
        }
    }
    let removed = store.gc(&leaving, || needed_layers(engine, store))?;
    let gone = removed.blobs.into_iter().map(Thing::Blob).chain(removed.layers.into_iter().map(Thing::Layer));
    let size = stock.usage.size(&gone.collect::<BTreeSet<_>>());
    say(&format!("{told}Total reclaimed space: {} ({size} bytes)\n", table::size(size)))
}

fn before(text: &str) -> Result<SystemTime, Report> {
    let wrong = || format!("--older-than {text:?}: it is an age, as 72h, or a time, as 2024-05-06T07:08:09Z");
    filter::until(text).map(Timestamp::into).ok_or_else(|| Report::usage(wrong(), None))
}

fn choose<'a>(
    store: &Store,
    stock: &'a Stock,
    before: Option<SystemTime>,
    most: Option<u64>,
) -> Result<Chosen<'a>, Report> {
    let images = stock.usage.entries.iter().map(|entry| (entry.last_used, Unit::Image(entry)));
    let steps = stock.steps.iter().map(|step| (stock.last_used(step), Unit::Step(step)));
    let mut units: Vec<(SystemTime, Unit<'a>)> = images.chain(steps).collect();
    units.sort_by_key(|(used, _)| *used);
    // How many lead to a thing.
    let mut leads: BTreeMap<Thing, usize> = BTreeMap::new();
    let all = units.iter().flat_map(|(_, unit)| unit.things()).chain(stock.stood_on.iter().cloned());
    all.for_each(|thing| *leads.entry(thing).or_default() += 1);
    let mut chosen = Chosen::default();
    chosen.things.extend(stock.usage.sizes.keys().filter(|thing| !leads.contains_key(thing)).cloned());
    if before.is_none() && most.is_none() {
        return Ok(chosen);
    }
    let needed = stock.needed();
    let whole = stock.usage.size(stock.usage.sizes.keys());
    for (used, unit) in units {
        let enough = most.is_some_and(|most| whole - stock.usage.size(&chosen.things) <= most);
        // Sorted by it, so that all that follow are as young.
        if enough || before.is_some_and(|before| used >= before) {
            break;
        }
        if is_in_use(store, stock, &needed, &unit)? {
            continue;
        }
        for thing in unit.things() {
            let left = leads.entry(thing.clone()).or_insert(1);
            *left -= 1;
            if *left == 0 {
                chosen.things.insert(thing);
            }
        }
        chosen.units.push((used, unit));
    }
    Ok(chosen)
}

fn is_in_use(store: &Store, stock: &Stock, needed: &BTreeSet<&Thing>, unit: &Unit<'_>) -> Result<bool, Report> {
    let needed = match unit {
        Unit::Image(entry) => stock.is_used(entry),
        // It would give back nothing, and the next build would miss it.
        Unit::Step(step) => thing(step).is_some_and(|thing| needed.contains(&thing)),
    };
    if needed {
        return Ok(true);
    }
    for thing in unit.things() {
        if let Thing::Layer(id) = thing
            && store.is_held(&id)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}
