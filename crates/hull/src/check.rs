//! `hull system check`: what is damaged or left over, of containers and in the store.

use clap::Args;
use hull_engine::container::layers_in_use;
use hull_engine::{Engine, check as containers};
use hull_image::{CheckOptions, Needs, Store};

use crate::images;
use crate::report::Report;

/// How thoroughly, and what becomes of it.
#[derive(Args)]
pub struct CheckArgs {
    /// Remove it: damaged blobs with the images that need them, damaged and unused layers, leftovers
    #[arg(short, long)]
    repair: bool,
    /// Do not read blobs and layers to compare them with their digests
    #[arg(short, long)]
    quick: bool,
}

/// A line for each finding; 1 if one of them is still there.
pub fn check(engine: &Engine, args: &CheckArgs) -> Result<i32, Report> {
    let findings = containers::check(engine)?;
    for finding in &findings {
        if args.repair {
            containers::repair(engine, finding)?;
            println!("repaired: {finding}");
        } else {
            println!("{finding}");
        }
    }
    // Opening makes a store where there is none, and a look is not to leave one.
    let left = engine.root.exists() && store(engine, args)?;
    Ok(i32::from(left || (!findings.is_empty() && !args.repair)))
}

/// Whether something is wrong in the store still.
fn store(engine: &Engine, args: &CheckArgs) -> Result<bool, Report> {
    let store = Store::open(&engine.root)?;
    let options = CheckOptions { repair: args.repair, verify: !args.quick };
    let findings = store.check(options, || {
        let (keep, pinned) = (images::needed_layers(engine, &store)?, layers_in_use(engine)?);
        Ok::<_, Report>(Needs { keep: Some(keep), pinned })
    })?;
    findings.iter().for_each(|finding| println!("{finding}"));
    Ok(findings.iter().any(|finding| !finding.repaired))
}
