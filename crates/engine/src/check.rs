//! `hull system check`: what a killed hull has left on this machine, and its removal when that is asked for.

use std::fmt;
use std::path::{Path, PathBuf};

use hull_runtime::cgroup::{Host, leftovers, remove_leftover};

use crate::error::{Error, Result};
use crate::folder;

/// One thing that belongs to no container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A control group, perhaps with processes in it.
    Cgroup(PathBuf),
    /// A folder of runtime state.
    Folder(PathBuf),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Cgroup(path) => write!(f, "control group without a container: {}", path.display()),
            Finding::Folder(path) => write!(f, "state without a container: {}", path.display()),
        }
    }
}

/// What is left over. Groups are looked at only for containers of `runroot`: those of another one are not ours.
///
/// # Errors
/// The state cannot be read.
pub fn check(runroot: &Path) -> Result<Vec<Finding>> {
    let folders = folder::abandoned(runroot)?;
    let ids: Vec<String> =
        folders.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect();
    let living = folder::living(runroot);
    let ours = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let id = name.trim_start_matches("hull-").to_owned();
        ids.contains(&id) && !living.contains(&id)
    };
    let mut findings: Vec<Finding> =
        leftovers(&Host::detect()?).into_iter().filter(ours).map(Finding::Cgroup).collect();
    findings.extend(folders.into_iter().map(Finding::Folder));
    Ok(findings)
}

/// Removes one finding, processes in it included.
///
/// # Errors
/// It stays busy, or its folder cannot be removed.
pub fn repair(finding: &Finding) -> Result<()> {
    match finding {
        Finding::Cgroup(path) => Ok(remove_leftover(path)?),
        Finding::Folder(path) => {
            std::fs::remove_dir_all(path).map_err(|error| Error::host(format!("remove {}", path.display()), error))
        }
    }
}
