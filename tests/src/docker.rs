//! A Docker daemon of a test's own: Debian's, in a world of its own, with all that it has below one folder.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::daemon::Daemon;
use crate::world::World;

/// The one with BuildKit built in; a newer client may come before it in PATH.
const CLIENT: &str = "/usr/bin/docker";
const UNIFIED: &str = "/sys/fs/cgroup/unified/cgroup.subtree_control";

/// A running daemon; it ends, with everything that it made, when this is dropped.
pub struct Docker {
    // First, for it ends before what it changed is changed back.
    daemon: Daemon,
    _controllers: Controllers,
}

impl Deref for Docker {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for Docker {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

/// What v2 passes on beside v1: a controller that v2 uses cannot be mounted as v1's.
struct Controllers(BTreeSet<String>);

impl Controllers {
    fn look() -> BTreeSet<String> {
        let controllers = fs::read_to_string(UNIFIED).unwrap_or_default();
        controllers.split_whitespace().map(str::to_owned).collect()
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        for controller in Self::look().difference(&self.0) {
            if let Err(error) = fs::write(UNIFIED, format!("-{controller}")) {
                eprintln!("{controller} stays with v2: {error}");
            }
        }
    }
}

impl Docker {
    /// Starts one below `corner`, whose containers are runc's and have no network.
    ///
    /// # Panics
    /// Docker is not installed, or the daemon does not come up.
    pub fn start(corner: &Path) -> Self {
        Self::with(corner, runc, |dockerd| {
            dockerd.args(["--bridge", "none", "--iptables=false"]);
        })
    }

    /// Starts one below `corner` with the default runtime that `runtime` makes in the daemon's folder; `more` is to be
    /// said to the daemon.
    ///
    /// # Panics
    /// As [`Docker::start`].
    pub fn with(corner: &Path, runtime: impl FnOnce(&Path) -> PathBuf, more: impl FnOnce(&mut Command)) -> Self {
        let controllers = Controllers(Controllers::look());
        let mut daemon = Daemon::new(World::new(corner), corner.join("docker"), |daemon| {
            let mut client = Command::new(CLIENT);
            client.env("DOCKER_CONFIG", daemon.path("client")).arg("-H").arg(host(daemon.folder()));
            client
        });
        let at = |name: &str| daemon.path(name);
        let mut dockerd = daemon.world.command("dockerd");
        dockerd.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec")).arg("--pidfile").arg(at("pid"));
        dockerd.arg("-H").arg(host(daemon.folder())).arg("--cgroup-parent").arg(daemon.world.parent());
        // As docs/compatibility.md has it, and instead of what the machine's own daemon is told.
        let configuration = serde_json::json!({
            "runtimes": {"hull": {"path": runtime(daemon.folder())}}, "default-runtime": "hull",
        });
        fs::write(at("daemon.json"), configuration.to_string()).expect("a configuration");
        dockerd.arg("--config-file").arg(at("daemon.json"));
        more(&mut dockerd);
        daemon.start(dockerd);
        Self { daemon, _controllers: controllers }
    }

    /// Makes the folder `root` the image `name`.
    ///
    /// # Panics
    /// It cannot be packed or imported.
    pub fn import(&self, root: &Path, name: &str) {
        let archive = self.path("image.tar");
        let tar = Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&archive).arg(".").status();
        assert!(tar.expect("tar").success());
        let mut import = self.command(&["import", "-", name]);
        import.stdin(File::open(&archive).expect("the archive")).stdout(Stdio::null());
        assert!(import.status().expect("docker starts").success());
    }
}

fn host(folder: &Path) -> String {
    format!("unix://{}", folder.join("socket").display())
}

/// runc, asked for no capability that this machine does not have: `--privileged` names all of them, and runc 1.1 fails
/// with one that its own bounding set lacks, as on a machine that is a container itself.
fn runc(folder: &Path) -> PathBuf {
    let path = folder.join("runc");
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).map(|mask| mask.trim().to_owned());
    let mask = u64::from_str_radix(&mask.expect("a bounding set"), 16).expect("a mask");
    // The one that such machines are known to lack.
    let edit = if mask >> 24 & 1 == 0 { r#"sed -i 's/"CAP_SYS_RESOURCE",//g' "$word/config.json""# } else { ":" };
    let script = format!(
        "#!/bin/sh\nprevious=\nfor word; do\n[ \"$previous\" != --bundle ] || {edit}\nprevious=$word\ndone\nexec runc \"$@\"\n"
    );
    fs::write(&path, script).expect("a runtime");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a runtime");
    path
}
