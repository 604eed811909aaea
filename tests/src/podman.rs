//! Podman, with storage and state of a test's own, in a world of its own; it has no daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Said;
use crate::world::World;

/// It, and everything that it makes; all of it ends when this is dropped.
pub struct Podman {
    /// Where it runs.
    pub world: World,
    folder: PathBuf,
}

impl Podman {
    /// One below `corner` that is configured to use `runtime`, as docs/compatibility.md says.
    ///
    /// # Panics
    /// Its configuration cannot be written.
    pub fn new(corner: &Path, runtime: &Path) -> Self {
        let folder = corner.join("podman");
        fs::create_dir(&folder).expect("a folder for Podman");
        let configuration = format!(
            "[containers]\n# Some machines may not raise these.\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
             [engine]\nruntime = \"hull-oci\"\nruntime_supports_json = [\"hull-oci\"]\ncgroup_manager = \"cgroupfs\"\n\
             events_logger = \"file\"\n[engine.runtimes]\nhull-oci = [{runtime:?}]\n"
        );
        fs::write(folder.join("containers.conf"), configuration).expect("a configuration");
        Self { world: World::new(corner), folder }
    }

    /// Not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut podman = self.world.command("podman");
        podman.env("CONTAINERS_CONF", self.folder.join("containers.conf"));
        for (flag, name) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            podman.arg(flag).arg(self.folder.join(name));
        }
        podman.args(arguments);
        podman
    }

    /// What it says.
    ///
    /// # Panics
    /// It does not start.
    pub fn podman(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().expect("podman starts").into()
    }

    /// The same, which has to go well: its output.
    ///
    /// # Panics
    /// It does not.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.podman(arguments);
        assert_eq!(said.code, 0, "podman {arguments:?}: {said:?}");
        said.out
    }

    /// Makes the folder `root` the image `name`.
    ///
    /// # Panics
    /// It cannot be packed or imported.
    pub fn import(&self, root: &Path, name: &str) {
        let archive = self.folder.join("image.tar");
        let tar = Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&archive).arg(".").status();
        assert!(tar.expect("tar").success());
        self.ok(&["import", &archive.to_string_lossy(), name]);
    }

    /// A path of its own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
