//! Stopping a container's processes where they are, and letting them go on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_sys::Errno;
use hull_sys::fs::{self, CWD};

use super::clear::PATIENCE;
use super::group::{Group, c_path};
use super::host::Version;
use super::live::Cgroup;
use crate::error::{Doing, Error, Result};

/// Whether the processes of a container in the groups at `paths` are stopped where they are. By the files alone: it is asked
/// with every state that is told, and how the machine is laid out takes longer to read.
///
/// # Errors
/// The group that says so cannot be read.
pub fn is_frozen(paths: &[PathBuf]) -> Result<bool> {
    // Most hierarchies of v1 have no such file; that of the freezer mostly has its name.
    let (named, others): (Vec<_>, Vec<_>) =
        paths.iter().partition(|path| path.components().any(|part| part.as_os_str() == "freezer"));
    // v1's comes first: in a hybrid layout it is the one that holds the processes.
    for (file, frozen) in [("freezer.state", &["FROZEN", "FREEZING"][..]), ("cgroup.events", &["frozen 1"])] {
        for path in named.iter().chain(&others).map(|path| path.join(file)) {
            match fs::read_file(CWD, &c_path(&path), 4096) {
                Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NODEV) => {}
                text => {
                    let text = text.doing(|| format!("read {}", path.display()))?;
                    return Ok(String::from_utf8_lossy(&text).lines().any(|line| frozen.contains(&line)));
                }
            }
        }
    }
    Ok(false)
}

impl Cgroup {
    /// Stops every process of the container where it is.
    ///
    /// # Errors
    /// There is no freezer here, or the processes do not stop within five seconds.
    pub fn freeze(&self) -> Result<()> {
        self.freezer(true)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// As [`Cgroup::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.freezer(false)
    }

    /// The folder of the group that can stop the container's processes.
    pub(crate) fn freezer_path(&self) -> Option<&Path> {
        self.freezing().map(|group| group.path.as_path())
    }

    /// Whichever group really holds the processes: in a hybrid layout that is v1's freezer.
    fn freezing(&self) -> Option<&Group> {
        let v1 = |group: &&Group| {
            group.hierarchy.version == Version::V1 && group.hierarchy.controllers.iter().any(|name| name == "freezer")
        };
        let v2 = |group: &&Group| group.hierarchy.version == Version::V2;
        self.groups.iter().find(v1).or_else(|| self.groups.iter().find(v2))
    }

    fn freezer(&self, stop: bool) -> Result<()> {
        let doing = if stop { "freeze the container" } else { "thaw the container" };
        let group = self.freezing().ok_or_else(|| {
            Error::invalid(doing, "it is in no group with a freezer").hint("join v1's freezer hierarchy as well")
        })?;
        let (file, value, look, wanted) = match (group.hierarchy.version, stop) {
            (Version::V1, true) => ("freezer.state", "FROZEN", "freezer.state", "FROZEN"),
            (Version::V1, false) => ("freezer.state", "THAWED", "freezer.state", "THAWED"),
            (Version::V2, true) => ("cgroup.freeze", "1", "cgroup.events", "frozen 1"),
            (Version::V2, false) => ("cgroup.freeze", "0", "cgroup.events", "frozen 0"),
        };
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(100);
        loop {
            // v1 may need to be told again while processes are being born.
            group.set(file, value)?;
            if group.get(look)?.lines().any(|line| line == wanted) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::setup(
                    doing,
                    format!("{} does not become {wanted:?}", group.path.join(look).display()),
                ));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}
