//! `hull system check`: what a killed hull has left on this machine, and its removal when that is asked for.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_runtime::cgroup::{Host, is_abandoned, leftovers, remove_leftover};

use crate::container;
use crate::error::Result;
use crate::hold;
use crate::names;
use crate::run::Engine;

/// A group that nobody holds may be one that is just being made; after this time it is not.
const NEW: Duration = Duration::from_secs(10);

/// One thing that belongs to no container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// A control group, perhaps with processes in it.
    Cgroup(PathBuf),
    /// The runtime state of the container with this id.
    State(String),
    /// The lasting folder of a container that was never started, or is half removed.
    HalfMade(String),
    /// A name that leads to no container.
    Name(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Cgroup(path) => write!(f, "control group without a container: {}", path.display()),
            Finding::State(id) => write!(f, "runtime state of a container whose hull was killed: {id}"),
            Finding::HalfMade(id) => write!(f, "container that is half made or half removed: {id}"),
            Finding::Name(name) => write!(f, "name without a container: {name}"),
        }
    }
}

/// What is left over: of the containers of this engine, and groups of hull's that nobody holds.
///
/// # Errors
/// The state cannot be read.
pub fn check(engine: &Engine) -> Result<Vec<Finding>> {
    let mut findings = BTreeSet::new();
    for id in hold::ids(&engine.runroot)? {
        if !hold::is_held(&engine.runroot, &id) {
            let groups = hold::groups(&engine.runroot, &id)?;
            findings.extend(groups.into_iter().filter(|path| path.exists()).map(Finding::Cgroup));
            findings.insert(Finding::State(id));
        }
    }
    let forgotten = leftovers(&Host::detect()?).into_iter();
    let forgotten = forgotten.filter(|path| has_containers_name(path) && is_abandoned(path) && !is_new(path));
    findings.extend(forgotten.map(Finding::Cgroup));
    findings.extend(container::half_made(engine)?.into_iter().map(Finding::HalfMade));
    findings.extend(names::abandoned(engine)?.into_iter().map(Finding::Name));
    Ok(findings.into_iter().collect())
}

/// Not what somebody else calls `hull-something`.
fn has_containers_name(group: &Path) -> bool {
    let name = group.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("hull-"));
    name.is_some_and(|id| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_new(group: &Path) -> bool {
    let made = std::fs::metadata(group).and_then(|metadata| metadata.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < NEW))
}

/// Removes one finding, processes in it included.
///
/// # Errors
/// It stays busy, or its folder cannot be removed.
pub fn repair(engine: &Engine, finding: &Finding) -> Result<()> {
    match finding {
        Finding::Cgroup(path) => Ok(remove_leftover(path)?),
        Finding::State(id) => container::clear(engine, id),
        Finding::HalfMade(id) => container::discard(engine, id),
        Finding::Name(name) => names::release_abandoned(engine, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_only_sounds_like_a_containers_is_somebody_elses() {
        let id = "0123456789abcdef".repeat(4);
        assert!(has_containers_name(Path::new(&format!("/sys/fs/cgroup/pids/hull-{id}"))));
        for name in ["hull-", "hull-test", &format!("hull-{}", &id[1..]), &format!("hull-{}g", &id[1..]), &id] {
            assert!(!has_containers_name(&Path::new("/sys/fs/cgroup").join(name)), "{name}");
        }
    }
}
