//! A Docker daemon of a test's own: Debian's, with all that it has below one folder and no network.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Said;

/// The one with BuildKit built in; a newer client may come before it in PATH.
const CLIENT: &str = "/usr/bin/docker";
const UNIFIED: &str = "/sys/fs/cgroup/unified/cgroup.subtree_control";

/// A running daemon; it ends, with everything that it made, when this is dropped.
pub struct Docker {
    folder: PathBuf,
    daemon: Child,
    before: Before,
}

/// What the daemon may change outside of its folder: Docker's parent groups, and what v2 passes on beside v1.
struct Before {
    groups: BTreeSet<PathBuf>,
    controllers: BTreeSet<String>,
}

impl Before {
    fn look() -> Self {
        let mut groups = BTreeSet::from([PathBuf::from("/sys/fs/cgroup/docker")]);
        for entry in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            groups.insert(entry.path().join("docker"));
        }
        groups.retain(|group| group.is_dir());
        let controllers = fs::read_to_string(UNIFIED).unwrap_or_default();
        Self { groups, controllers: controllers.split_whitespace().map(str::to_owned).collect() }
    }

    /// Removes groups that are empty by now; a controller that v2 uses cannot be mounted as v1's.
    fn restore(&self) {
        let now = Self::look();
        for group in now.groups.difference(&self.groups) {
            let mut all = vec![group.clone()];
            let mut at = 0;
            while at < all.len() {
                let below = fs::read_dir(&all[at]).into_iter().flatten().flatten().map(|entry| entry.path());
                let below: Vec<PathBuf> = below.filter(|path| path.is_dir()).collect();
                all.extend(below);
                at += 1;
            }
            for group in all.iter().rev() {
                fs::remove_dir(group).unwrap_or_else(|error| panic!("{}: {error}", group.display()));
            }
        }
        for controller in now.controllers.difference(&self.controllers) {
            fs::write(UNIFIED, format!("-{controller}")).expect("a controller is given back");
        }
    }
}

impl Docker {
    /// Starts one below `folder`, which is made.
    ///
    /// # Panics
    /// Docker is not installed, or the daemon does not come up.
    pub fn start(folder: &Path) -> Self {
        fs::create_dir(folder).expect("a folder for the daemon");
        let before = Before::look();
        let at = |name: &str| folder.join(name);
        let log = fs::File::create(at("log")).expect("a log");
        let mut dockerd = Command::new("dockerd");
        dockerd.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec")).arg("--pidfile").arg(at("pid"));
        dockerd.arg("-H").arg(host(folder)).args(["--bridge", "none", "--iptables=false"]);
        dockerd.arg("--add-runtime").arg(format!("here={}", runtime(folder).display()));
        dockerd.args(["--default-runtime", "here"]);
        let errors = log.try_clone().expect("a log");
        let daemon = dockerd.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        let daemon = daemon.expect("dockerd is installed: `make deps` does it");
        let mut docker = Self { folder: folder.to_owned(), daemon, before };
        let start = Instant::now();
        while docker.client(&["version"]).code != 0 {
            let gone = docker.daemon.try_wait().expect("dockerd is our child").is_some();
            let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(!gone && start.elapsed() < Duration::from_secs(60), "dockerd does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        docker
    }

    /// The client, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut client = Command::new(CLIENT);
        client.arg("-H").arg(host(&self.folder)).args(arguments);
        client
    }

    /// What the client says.
    ///
    /// # Panics
    /// It does not start.
    pub fn client(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().expect("docker starts").into()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.daemon);
        // It may have ended by itself, which the test has seen.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.daemon.wait();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mine = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for mount in mine.filter(|mount| Path::new(mount).starts_with(&self.folder)).collect::<Vec<_>>().iter().rev()
        {
            let _ = rustix::mount::unmount(*mount, rustix::mount::UnmountFlags::DETACH);
        }
        self.before.restore();
    }
}

fn host(folder: &Path) -> String {
    format!("unix://{}", folder.join("socket").display())
}

/// runc, asked for no capability that this machine does not have: `--privileged` names all of them, and runc 1.1 fails
/// with one that its own bounding set lacks, as on a machine that is a container itself.
fn runtime(folder: &Path) -> PathBuf {
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
