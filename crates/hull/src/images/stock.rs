//! What is in the store, and who needs it: what `system df` and `gc` have in common.

use std::collections::BTreeSet;
use std::time::SystemTime;

use hull_build::store::Step;
use hull_engine::Engine;
use hull_engine::container::{self, Listed};
use hull_image::{Entry, Store, Thing, Usage};

use crate::report::Report;

pub struct Stock {
    pub usage: Usage,
    pub containers: Vec<Listed>,
    /// What the build cache remembers.
    pub steps: Vec<Step>,
    /// The layers that containers which last stand on.
    pub stood_on: BTreeSet<Thing>,
}

impl Stock {
    /// Looks at all of it.
    pub fn take(engine: &Engine, store: &Store) -> Result<Self, Report> {
        Ok(Self {
            // Whoever begins to use an image after this look is not seen, one who began before it is.
            usage: store.usage()?,
            steps: hull_build::store::steps(store)?,
            containers: container::list(engine)?,
            stood_on: container::layers_in_use(engine)?.into_iter().map(Thing::Layer).collect(),
        })
    }

    /// Whether a container was made of an image of the entry, running or not.
    pub fn is_used(&self, entry: &Entry) -> bool {
        let users = |id: &str| self.containers.iter().any(|listed| listed.record.image_id.as_deref() == Some(id));
        entry.images.iter().any(|(image, _)| users(image.id.as_str()))
    }

    /// Everything that containers and their images need.
    pub fn needed(&self) -> BTreeSet<&Thing> {
        let used = self.usage.entries.iter().filter(|entry| self.is_used(entry));
        used.flat_map(|entry| &entry.things).chain(&self.stood_on).collect()
    }

    /// When a step of the cache was last used: it was made, or a build or an image stood on its layer.
    pub fn last_used(&self, step: &Step) -> SystemTime {
        let layer = step.layer.as_ref().and_then(|id| self.usage.layers.get(id));
        layer.map_or(step.made, |used| step.made.max(*used))
    }
}

/// A step's layer, if it is there.
pub fn thing(step: &Step) -> Option<Thing> {
    step.layer.clone().map(Thing::Layer)
}

/// Seconds since then.
pub fn age(then: SystemTime) -> i64 {
    then.elapsed().map_or(0, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX))
}
