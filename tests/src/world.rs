//! A world of a test's own for daemons that make containers: network, mounts and processes apart from the host's.
//!
//! Everything in it ends with its first process, which ends when the test does, however that is. Links, firewall rules,
//! mounts and what is below /run are never the host's. Control groups are: they are below [`World::parent`], which is
//! what every peer is told to use.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::thread::LinkNameSpaceType;

use crate::left::clear_group;

/// The first process: it waits for the end of its input and for those whose parents have gone. Copies of what other tests have
/// mounted would outlive them; one that goes takes those below it along.
const FIRST: &str = "set -e
grep -o ' [^ ]*/hull-test-[^ ]* ' /proc/self/mounts | while read -r other; do umount -l $other || :; done
mount -t tmpfs -o mode=755 tmpfs /run
busybox ip link set lo up
for name; do
    mkdir -p /run/hierarchies/$name
    mount -t cgroup -o $name none /run/hierarchies/$name
done
exec 3<&0
echo ready
cat <&3 >/dev/null &
wait $!
";

/// The world; it ends when this is dropped.
pub struct World {
    /// None, if it is the machine itself.
    first: Option<Child>,
    parent: String,
    /// Where hierarchies are mounted, of which the last may be mounted in the world alone.
    hierarchies: Vec<File>,
    started: Vec<Child>,
}

impl World {
    /// Makes one for the test whose corner is `corner`.
    ///
    /// # Panics
    /// The kernel or `unshare` cannot.
    pub fn new(corner: &Path) -> Self {
        let name = corner.file_name().expect("a corner has a name").to_string_lossy();
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
        let unmounted = unmounted();
        unshare.args(["sh", "-c", FIRST, "world"]).args(&unmounted);
        let mut first = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare starts");
        let mut line = String::new();
        let output = first.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("its first word");
        assert_eq!(line, "ready\n", "there is no world to be had");
        let inside = PathBuf::from(format!("/proc/{}/root/run/hierarchies", first.id()));
        let folders = mounted().into_iter().chain(unmounted.iter().map(|name| inside.join(name)));
        let hierarchies = folders.map(|folder| File::open(folder).expect("a hierarchy")).collect();
        Self { first: Some(first), parent: format!("/{name}"), hierarchies, started: Vec::new() }
    }

    /// The machine itself, for peers of its systemd: processes of another PID namespace are not those that they name. The daemons
    /// end with it; what they made they have to remove before.
    pub fn machine() -> Self {
        Self { first: None, parent: "/".to_owned(), hierarchies: Vec::new(), started: Vec::new() }
    }

    /// The control group that all groups of the world are to be below.
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// A program in the world, not started yet.
    pub fn command(&self, program: &str) -> Command {
        let Some(pid) = self.first.as_ref().map(Child::id) else { return Command::new(program) };
        let mut nsenter = Command::new("nsenter");
        nsenter.arg("-t").arg(pid.to_string()).args(["-m", "-n"]);
        nsenter.arg(format!("--pid=/proc/{pid}/ns/pid_for_children")).arg("--").arg(program);
        nsenter
    }

    /// A command of the host's in the world, with its arguments and environment.
    pub fn moved(&self, command: &Command) -> Command {
        let mut moved = self.command(&command.get_program().to_string_lossy());
        moved.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => moved.env(name, value),
                None => moved.env_remove(name),
            };
        }
        moved
    }

    /// Does `work` in the world's network: a socket that is opened there stays there.
    ///
    /// # Panics
    /// The kernel refuses, or `work` panics.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let pid = self.first.as_ref().expect("a world of its own").id();
        let network = File::open(format!("/proc/{pid}/ns/net")).expect("the network");
        // The thread ends with it; no other one has moved.
        let moved = || {
            rustix::thread::move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("a way into the network");
            work()
        };
        std::thread::scope(|scope| scope.spawn(moved).join()).expect("the work is done")
    }

    /// Starts a daemon, which ends with the world.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(&mut self, mut daemon: Command) {
        self.started.push(daemon.stdin(Stdio::null()).spawn().expect("a daemon starts"));
    }

    /// Whether every daemon still runs.
    ///
    /// # Panics
    /// One is not our child.
    pub fn is_well(&mut self) -> bool {
        self.started.iter_mut().all(|daemon| daemon.try_wait().expect("our child").is_none())
    }

    /// A path of the world's, such as one below /run, as the host sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        match &self.first {
            Some(first) => PathBuf::from(format!("/proc/{}/root{path}", first.id())),
            None => path.into(),
        }
    }

    /// The control groups of the world by their paths below [`World::parent`], each once for all hierarchies.
    pub fn groups(&self) -> BTreeSet<String> {
        fn walk(folder: &Path, name: &str, all: &mut BTreeSet<String>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
                let name = format!("{name}/{}", entry.file_name().to_string_lossy());
                walk(&entry.path(), &name, all);
                all.insert(name);
            }
        }
        let mut all = BTreeSet::new();
        self.parents().iter().for_each(|folder| walk(folder, "", &mut all));
        all
    }

    fn parents(&self) -> Vec<PathBuf> {
        let own = |folder: &File| PathBuf::from(format!("/proc/self/fd/{}{}", folder.as_raw_fd(), self.parent));
        self.hierarchies.iter().map(own).filter(|folder| folder.exists()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        match &mut self.first {
            // The kernel ends all others with the first process, and that one is gone only when they are.
            Some(first) => {
                drop(first.stdin.take());
                let _ = first.wait();
            }
            None => self.started.iter_mut().for_each(|daemon| _ = daemon.kill()),
        }
        for daemon in &mut self.started {
            let _ = daemon.wait();
        }
        for folder in self.parents() {
            // Peers leave their parent groups; what hull left in them is for the test to say.
            if let Err(error) = clear_group(&folder) {
                eprintln!("{}: {error}", folder.display());
            }
        }
    }
}

/// v1's hierarchies that are in use and mounted nowhere, as those that were mounted once and are not empty yet.
/// containerd looks for each that a process is in.
fn unmounted() -> Vec<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").expect("the groups");
    let names: Vec<&str> = groups.lines().filter_map(|line| line.split(':').nth(1)).collect();
    let mounted: Vec<String> = mounts("cgroup").into_iter().flat_map(|(_, options)| options).collect();
    let missing = |name: &&str| !name.is_empty() && !mounted.iter().any(|option| option == *name);
    let first = |name: &str| name.split(',').next().unwrap_or_default().to_owned();
    names.into_iter().filter(|name| missing(&first(name).as_str())).map(str::to_owned).collect()
}

fn mounted() -> Vec<PathBuf> {
    [mounts("cgroup"), mounts("cgroup2")].concat().into_iter().map(|(folder, _)| folder).collect()
}

/// Mounts of a file system: their places and options.
fn mounts(kind: &str) -> Vec<(PathBuf, Vec<String>)> {
    let table = fs::read_to_string("/proc/self/mounts").expect("the mount table");
    let fields = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let ours = fields.filter(|fields| fields.get(2) == Some(&kind));
    ours.map(|fields| (fields[1].into(), fields[3].split(',').map(str::to_owned).collect())).collect()
}
