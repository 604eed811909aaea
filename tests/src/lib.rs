//! What the integration tests share: the binary under test, a root file system, and a look at what is left behind.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// One test's own corner: runtime state, a busybox root file system, and the check at the end that nothing is left.
pub struct Corner {
    dir: TempDir,
}

/// What a command left to say.
#[derive(Debug)]
pub struct Said {
    /// Exit status; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The binary under test: `HULL_BIN`, or what `make build` leaves.
///
/// # Panics
/// It is not there.
pub fn hull_bin() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bin/hull");
    let path = std::env::var_os("HULL_BIN").map_or(default, PathBuf::from);
    assert!(path.exists(), "{} is not there: run `make build` or set HULL_BIN", path.display());
    path.canonicalize().expect("a path that exists")
}

impl Default for Corner {
    fn default() -> Self {
        Self::new()
    }
}

impl Corner {
    /// A new corner.
    ///
    /// # Panics
    /// Not root, or no busybox: these tests do not skip.
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests make containers: run them as root");
        let dir = tempfile::Builder::new().prefix("hull-test-").tempdir().expect("a temporary folder");
        let corner = Self { dir };
        let bin = corner.rootfs().join("bin");
        fs::create_dir_all(&bin).expect("rootfs/bin");
        fs::create_dir_all(corner.rootfs().join("etc")).expect("rootfs/etc");
        let busybox = Path::new("/bin/busybox");
        assert!(busybox.exists(), "busybox-static is not installed: `make deps` does it");
        fs::copy(busybox, bin.join("busybox")).expect("a copy of busybox");
        for applet in [
            "sh", "cat", "ls", "id", "hostname", "mount", "ps", "sleep", "true", "touch", "stat", "env", "tty",
            "stty", "unshare", "grep", "ip", "kill", "trap", "head", "mknod",
        ] {
            symlink("busybox", bin.join(applet)).expect("an applet");
        }
        corner
    }

    /// The corner's folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The root file system.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// Runtime state of this corner alone.
    pub fn runroot(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// `hull` with this corner's state.
    pub fn hull(&self) -> Command {
        let mut command = Command::new(hull_bin());
        command.env("HULL_RUNROOT", self.runroot()).env("HULL_ROOT", self.dir.path().join("store"));
        command
    }

    /// `hull run --rootfs ROOTFS FLAGS -- COMMAND`, to its end.
    ///
    /// # Panics
    /// It left something of this corner behind.
    pub fn run(&self, flags: &[&str], command: &[&str]) -> Said {
        let output = self.run_command(flags, command).output().expect("hull starts");
        self.assert_clean();
        output.into()
    }

    /// The same, not started yet.
    pub fn run_command(&self, flags: &[&str], command: &[&str]) -> Command {
        let mut hull = self.hull();
        hull.arg("run").arg("--rm").arg("--rootfs").arg(self.rootfs()).args(flags).arg("--").args(command);
        hull
    }

    /// What a shell in a container says.
    pub fn shell(&self, flags: &[&str], script: &str) -> Said {
        self.run(flags, &["sh", "-c", script])
    }

    /// Nothing of this corner is mounted, running or recorded.
    ///
    /// # Panics
    /// Something is.
    pub fn assert_clean(&self) {
        let left = entries(&self.runroot().join("containers"));
        assert!(left.is_empty(), "state left behind: {left:?}");
        let here = self.dir.path().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        assert!(!mounts.contains(&here), "a mount was left behind: {mounts}");
    }
}

/// The names in a folder, sorted; none if there is no folder.
pub fn entries(folder: &Path) -> Vec<String> {
    let Ok(list) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        list.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Polls until `done`, for ten seconds.
///
/// # Panics
/// It never came to be.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// All control groups that containers of hull are in, in every hierarchy.
pub fn hull_groups() -> Vec<PathBuf> {
    fn walk(folder: &Path, depth: u32, found: &mut Vec<PathBuf>) {
        let Ok(list) = fs::read_dir(folder) else { return };
        for path in list.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path())
        {
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("hull-")) {
                found.push(path);
            } else if depth > 0 {
                walk(&path, depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), 5, &mut found);
    found
}
