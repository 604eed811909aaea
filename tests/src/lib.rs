//! What the integration tests share: the binary under test, a root file system, and a look at what is left behind.

#![forbid(unsafe_code)]

pub mod agent;
pub mod alone;
mod builder;
pub mod bundle;
pub mod checks;
pub mod containerd;
pub mod cri;
pub mod daemon;
pub mod docker;
pub mod hostile;
pub mod left;
pub mod peak;
pub mod podman;
pub mod racer;
pub mod recorded;
pub mod registry;
pub mod screen;
pub mod scripted;
pub mod sentinel;
mod skip;
pub mod systemd;
pub mod tar;
pub mod world;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

pub use builder::Builder;
use left::{Left, Marks};
pub use skip::skipped;

/// One test's own corner: state and store, a busybox root file system, and a look at what is left.
///
/// When it is dropped, nothing of it may be mounted, running, grouped or recorded: the test fails otherwise, whatever
/// else it has looked at. What is left is told and then taken away.
#[derive(Debug)]
pub struct Corner {
    dir: PathBuf,
    /// Tells the names in the folder of containers, which are ids, those included that are gone again.
    watch: OwnedFd,
    ids: Mutex<BTreeSet<String>>,
    patience: Duration,
}

/// How long the end of a killed process, and of its mounts, may take to be seen.
const PATIENCE: Duration = Duration::from_secs(2);

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
        let dir = tempfile::Builder::new().prefix("hull-test-").tempdir().expect("a temporary folder").keep();
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify");
        let corner = Self { dir, watch, ids: Mutex::default(), patience: PATIENCE };
        busybox(&corner.rootfs());
        corner
    }

    /// The corner's folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The same corner, which does not wait before it says what is left.
    pub fn impatient(mut self) -> Self {
        self.patience = Duration::ZERO;
        self
    }

    /// The root file system.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Runtime state of this corner alone.
    pub fn runroot(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The image store of this corner alone.
    pub fn root(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// The environment that keeps a hull in this corner. A command of which hull is only a part gets it by
    /// `.envs(corner.env())`.
    ///
    /// # Panics
    /// The folder of containers cannot be watched.
    pub fn env(&self) -> [(&'static str, PathBuf); 2] {
        // Made here, because a name is only seen by who watched before it came to be. A test may have removed it.
        let containers = self.runroot().join("containers");
        DirBuilder::new().mode(0o700).recursive(true).create(&containers).expect("a folder for the state");
        let names = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        inotify::add_watch(&self.watch, &containers, names).expect("a watch on the folder of containers");
        [("HULL_RUNROOT", self.runroot()), ("HULL_ROOT", self.root())]
    }

    /// `hull` with this corner's state.
    pub fn hull(&self) -> Command {
        let mut command = Command::new(hull_bin());
        command.envs(self.env());
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

    /// The containers that were made in this corner so far.
    fn ids(&self) -> BTreeSet<String> {
        let mut ids = self.ids.lock().expect("no thread panicked with the ids");
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.watch, &mut buffer);
        // The end is EAGAIN: nothing more has happened.
        while let Ok(event) = events.next() {
            assert!(!event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW), "too many containers to watch");
            // Without a name it is not about a folder: the watched one itself was removed, and the watch with it.
            let Some(id) = event.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
            assert!(
                id.len() >= 12,
                "{id:?} is too short to be told from other words: take the corner's name into it"
            );
            ids.insert(id);
        }
        ids.clone()
    }

    /// What of this corner is mounted, running, grouped or half made.
    fn left(&self) -> BTreeSet<Left> {
        let marks = Marks { folder: self.dir.clone(), ids: self.ids() };
        let mut left = marks.on_the_host();
        for folder in [self.runroot().join("containers"), self.root().join("staging")] {
            left.extend(entries(&folder).iter().map(|name| Left::State(folder.join(name))));
        }
        left
    }

    /// The same, with containers that are kept and runtime state of any kind.
    fn left_at_the_end(&self) -> BTreeSet<Left> {
        let mut left = self.left();
        let kept = self.root().join("containers");
        left.extend(entries(&kept).iter().map(|name| Left::State(kept.join(name))));
        left.extend(left::state(&self.runroot()));
        left
    }

    /// What a look finds, again and again until that is nothing or patience ends.
    fn settled(&self, look: impl Fn(&Self) -> BTreeSet<Left>) -> BTreeSet<Left> {
        let start = Instant::now();
        loop {
            let left = look(self);
            if left.is_empty() || start.elapsed() >= self.patience {
                return left;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Nothing of this corner is mounted, running, grouped or half made.
    ///
    /// # Panics
    /// Something is.
    pub fn assert_clean(&self) {
        let left = self.settled(Self::left);
        assert!(left.is_empty(), "left behind:{}", lines(&left));
    }
}

impl Drop for Corner {
    fn drop(&mut self) {
        let left = self.settled(Self::left_at_the_end);
        let mut failures: Vec<String> =
            left.iter().filter_map(|left| Some(format!("cannot clear {left}: {}", left.clear().err()?))).collect();
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            failures.push(format!("cannot remove {}: {error}", self.dir.display()));
        }
        if left.is_empty() && failures.is_empty() {
            return;
        }
        let told = format!("left behind:{}\n{}", lines(&left), failures.join("\n"));
        // A second panic would end every other test as well.
        if std::thread::panicking() {
            eprintln!("{told}");
        } else {
            panic!("{told}");
        }
    }
}

fn lines(left: &BTreeSet<Left>) -> String {
    left.iter().map(|left| format!("\n  {left}")).collect()
}

/// Makes the folder `root` a root file system of busybox.
///
/// # Panics
/// busybox is not installed.
pub fn busybox(root: &Path) {
    let bin = root.join("bin");
    fs::create_dir_all(&bin).expect("rootfs/bin");
    fs::create_dir_all(root.join("etc")).expect("rootfs/etc");
    let busybox = Path::new("/bin/busybox");
    assert!(busybox.exists(), "busybox-static is not installed: `make deps` does it");
    fs::copy(busybox, bin.join("busybox")).expect("a copy of busybox");
    for applet in [
        "sh", "cat", "ls", "id", "hostname", "mount", "ps", "sleep", "true", "touch", "stat", "env", "tty", "stty",
        "unshare", "grep", "ip", "kill", "trap", "head", "mknod",
    ] {
        symlink("busybox", bin.join(applet)).expect("an applet");
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

/// Polls until `done`, for a minute: some machines are twenty times slower than others.
///
/// # Panics
/// It never came to be.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// All control groups that containers of hull are in, in every hierarchy.
pub fn hull_groups() -> Vec<PathBuf> {
    groups("hull-")
}

/// All control groups whose name begins with `prefix`, in every hierarchy.
pub(crate) fn groups(prefix: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, prefix: &str, depth: u32, found: &mut Vec<PathBuf>) {
        let Ok(list) = fs::read_dir(folder) else { return };
        for path in list.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path())
        {
            if depth > 0 {
                walk(&path, prefix, depth - 1, found);
            }
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), prefix, 8, &mut found);
    found
}
