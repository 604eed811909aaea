//! Debian's containerd with hull in runc's place: what `ctr` can do with a container.

use std::io::Write;
use std::path::Path;

use super::oci_checkpoint::criu;
use hull_tests::checks::Checks;
use hull_tests::containerd::Containerd;
use hull_tests::recorded::{Recorded, sorted};
use hull_tests::screen::Screen;
use hull_tests::world::World;
use hull_tests::{Corner, Said, entries, eventually, skipped, systemd};

/// What its shim calls hull with, all of it.
const CALLS: [&str; 12] = [
    "--log --log-format --root create --bundle --pid-file",
    "--log --log-format --root create --bundle --console-socket --pid-file",
    "--log --log-format --root start",
    "--log --log-format --root exec --detach --pid-file --process",
    "--log --log-format --root exec --console-socket --detach --pid-file --process",
    "--log --log-format --root pause",
    "--log --log-format --root resume",
    "--log --log-format --root ps --format",
    "--log --log-format --root kill 15",
    "--log --log-format --root kill --all 9",
    "--log --log-format --root delete",
    "--log --log-format --root delete --force",
];

const IMAGE: &str = "docker.io/library/base:latest";
const SERVER: &str = "trap 'exit 9' TERM; >/up; while :; do sleep 0.05; done";

/// A daemon, and the runtime that it is told to call.
struct Peer {
    containerd: Containerd,
    oci: Recorded,
    /// Whether control groups are systemd's to make.
    systemd: bool,
}

impl Peer {
    /// A daemon with an image, in a world of its own, or on the machine itself if its systemd is to make the groups.
    fn start(corner: &Corner, systemd: bool) -> Self {
        let oci = Recorded::new(&corner.path().join("runtime"), "hull-oci");
        let world = if systemd { World::machine() } else { World::new(corner.path()) };
        let peer = Self { containerd: Containerd::start(corner.path(), world, ""), oci, systemd };
        peer.containerd.import(corner, "base", "default");
        peer
    }

    /// The words of `ctr run` for the container `id`, whose command is to be added.
    fn run(&self, flags: &[&str], id: &str, command: &[&str]) -> Vec<String> {
        let program = self.oci.program.to_string_lossy();
        let group = match self.systemd {
            true => format!("system.slice:hulltest:{id}"),
            false => format!("{}/{id}", self.containerd.world.parent()),
        };
        let runtime = ["--runtime", "io.containerd.runc.v2", "--runc-binary", &program, "--cgroup", &group];
        let systemd = if self.systemd { &["--runc-systemd-cgroup"][..] } else { &[] };
        let words = [&["run"], flags, &runtime, systemd, &[IMAGE, id], command].concat();
        words.into_iter().map(str::to_owned).collect()
    }

    /// What a shell in a container says.
    fn shell(&self, flags: &[&str], script: &str) -> Said {
        let words = self.run(&[&["--rm"], flags].concat(), "short", &["sh", "-c", script]);
        self.containerd.client(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn serve(&self, id: &str, flags: &[&str]) {
        let words = self.run(&[&["-d"], flags].concat(), id, &["sh", "-c", SERVER]);
        self.containerd.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
        eventually("it runs", || self.exec(id, &["cat", "/up"]).code == 0);
    }

    fn exec(&self, id: &str, command: &[&str]) -> Said {
        self.containerd.client(&[&["task", "exec", "--exec-id", "look", id], command].concat())
    }

    /// `RUNNING`, `PAUSED`, `STOPPED`; empty if there is no such task.
    fn status(&self, id: &str) -> String {
        let list = self.containerd.ok(&["task", "ls"]);
        let line = list.lines().find(|line| line.starts_with(id));
        line.and_then(|line| line.split_whitespace().last()).unwrap_or_default().to_owned()
    }

    fn remove(&self, id: &str) {
        self.containerd.ok(&["container", "rm", id]);
    }
}

#[test]
fn containerd_runs_executes_pauses_and_kills_with_hull_in_runcs_place() {
    let corner = Corner::new();
    let peer = Peer::start(&corner, false);
    let mut checks = Checks::default();
    checks.check("run gives the output and the status", || {
        let said = peer.shell(&[], "echo out; echo err >&2; exit 7");
        assert_eq!((said.code, &*said.out, &*said.err), (7, "out\n", "err\n"));
    });
    checks.check("what cannot be executed", || {
        let words = peer.run(&["--rm"], "none", &["/no/such"]);
        let said = peer.containerd.client(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(said.code == 1 && said.err.contains("no such file or directory"), "{said:?}");
    });
    checks.check("run -t", || {
        let script = "tty; read line; echo got-$line; exit 3";
        let words = peer.run(&["--rm", "-t"], "screen", &["sh", "-c", script]);
        let command = peer.containerd.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let mut screen = Screen::open(&command);
        screen.wait_for("/dev/pts/0");
        screen.keyboard.write_all(b"abc\r").unwrap();
        screen.wait_for("got-abc");
        assert_eq!(screen.end().code(), Some(3));
    });
    checks.check("flags", || flags(&peer));
    peer.serve("server", &["--memory-limit", "67108864"]);
    checks.check("run -d, task ls, task ps", || {
        assert_eq!(peer.status("server"), "RUNNING");
        assert!(peer.containerd.ok(&["task", "ps", "server"]).lines().count() > 1);
    });
    checks.check("task exec", || {
        let said = peer.exec("server", &["sh", "-c", "echo in; echo err >&2; exit 3"]);
        assert_eq!((said.code, &*said.out, &*said.err), (3, "in\n", "err\n"));
        assert!(peer.exec("server", &["no-such"]).err.contains("executable file not found in $PATH"));
    });
    checks.check("task exec -t", || {
        let command = ["task", "exec", "-t", "--exec-id", "screen", "server", "sh", "-c", "tty; read x; echo got-$x"];
        let mut screen = Screen::open(&peer.containerd.command(&command));
        screen.wait_for("/dev/pts/");
        screen.keyboard.write_all(b"abc\r").unwrap();
        screen.wait_for("got-abc");
        assert_eq!(screen.end().code(), Some(0));
    });
    checks.check("task metrics", || {
        let metrics = peer.containerd.ok(&["task", "metrics", "--format", "json", "server"]);
        let limit = if metrics.contains("\"memory\"") { "67108864" } else { "no memory" };
        assert!(metrics.contains(limit), "{metrics}");
    });
    checks.check("task pause and resume", || {
        peer.containerd.ok(&["task", "pause", "server"]);
        assert_eq!(peer.status("server"), "PAUSED");
        peer.containerd.ok(&["task", "resume", "server"]);
        assert_eq!(peer.status("server"), "RUNNING");
    });
    checks.check("task kill, task rm", || {
        peer.containerd.ok(&["task", "kill", "-s", "TERM", "server"]);
        eventually("it has ended", || peer.status("server") == "STOPPED");
        // The command's own status.
        let said = peer.containerd.client(&["task", "rm", "server"]);
        assert!(said.err.contains("exit with non-zero exit code 9"), "{said:?}");
        peer.remove("server");
    });
    checks.check("task kill --all", || {
        peer.serve("many", &[]);
        peer.containerd.ok(&["task", "exec", "-d", "--exec-id", "other", "many", "sleep", "1000"]);
        peer.containerd.ok(&["task", "kill", "--all", "-s", "KILL", "many"]);
        eventually("it has ended", || peer.status("many") == "STOPPED");
        peer.containerd.client(&["task", "rm", "many"]);
        peer.remove("many");
    });
    checks.check("a shim that is killed takes its container with it", || {
        peer.serve("orphan", &[]);
        let shim =
            peer.containerd.world.command("sh").args(["-c", "kill -9 $(pgrep -f '[s]him.* -id orphan')"]).status();
        assert!(shim.unwrap().success());
        eventually("its groups are gone", || !peer.containerd.world.groups().contains("/orphan"));
        eventually("its task is gone", || peer.status("orphan") != "RUNNING");
        peer.containerd.client(&["task", "rm", "-f", "orphan"]);
        peer.remove("orphan");
    });
    checks.check("calls are those that are known", || {
        assert_eq!(peer.oci.shapes().into_iter().collect::<Vec<_>>(), sorted(&CALLS));
    });
    checks.check("nothing is left", || {
        assert_eq!(entries(&peer.containerd.world.path("/run/containerd/runc/default")), [""; 0]);
        assert_eq!(peer.containerd.world.groups().into_iter().collect::<Vec<_>>(), [""; 0]);
    });
    checks.end();
}

/// What its shim calls hull with where systemd makes the groups.
const SYSTEMD_CALLS: [&str; 8] = [
    "--log --log-format --root --systemd-cgroup create --bundle --pid-file",
    "--log --log-format --root --systemd-cgroup delete",
    "--log --log-format --root --systemd-cgroup exec --detach --pid-file --process",
    "--log --log-format --root --systemd-cgroup kill 15",
    "--log --log-format --root --systemd-cgroup pause",
    "--log --log-format --root --systemd-cgroup resume",
    "--log --log-format --root --systemd-cgroup start",
    // By the shim's own way to clear up, which knows no options.
    "--log --log-format --root delete --force",
];

/// `SystemdCgroup = true` of a runtime's options, which a kubelet with systemd's groups needs too.
#[test]
fn containerds_containers_are_units_of_systemds() {
    if !systemd::is_there() {
        let name = "containerds_containers_are_units_of_systemds";
        return skipped(name, "this machine was not started by systemd; `make test-vm` does it");
    }
    let corner = Corner::new();
    let peer = Peer::start(&corner, true);
    let id = corner.path().file_name().unwrap().to_string_lossy().into_owned();
    let unit = format!("hulltest-{id}.scope");
    // `ctr` asks for no namespace of control groups.
    let path = format!("/system.slice/{unit}");
    let sees_it = |said: &str| !said.is_empty() && said.lines().all(|line| line.ends_with(&path));
    let (property, hierarchy, file) = match Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        true => ("MemoryMax", "", "memory.max"),
        false => ("MemoryLimit", "/memory", "memory.limit_in_bytes"),
    };
    let mut checks = Checks::default();
    checks.check("run is in its unit, whose it is", || {
        let words = peer.run(&["--rm"], &id, &["sh", "-c", "cat /proc/self/cgroup; exit 7"]);
        let said = peer.containerd.client(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(said.code == 7 && sees_it(&said.out), "{said:?}");
        assert!(!systemd::is_loaded(&unit));
    });
    peer.serve(&id, &["--memory-limit", "67108864"]);
    checks.check("run -d with a limit", || {
        assert_eq!(systemd::property(&unit, "ActiveState"), "active");
        assert_eq!(systemd::property(&unit, property), "67108864");
        let group = systemd::property(&unit, "ControlGroup");
        assert_eq!(group, path);
        let limit = std::fs::read_to_string(format!("/sys/fs/cgroup{hierarchy}{group}/{file}")).unwrap();
        assert_eq!(limit, "67108864\n");
    });
    checks.check("task exec", || {
        let said = peer.exec(&id, &["sh", "-c", "cat /proc/self/cgroup; exit 3"]);
        assert!(said.code == 3 && sees_it(&said.out), "{said:?}");
    });
    checks.check("task metrics", || {
        let metrics = peer.containerd.ok(&["task", "metrics", "--format", "json", &id]);
        assert!(metrics.contains("67108864"), "{metrics}");
    });
    checks.check("task pause and resume", || {
        peer.containerd.ok(&["task", "pause", &id]);
        assert_eq!(peer.status(&id), "PAUSED");
        peer.containerd.ok(&["task", "resume", &id]);
        assert_eq!(peer.status(&id), "RUNNING");
    });
    checks.check("task kill, task rm", || {
        peer.containerd.ok(&["task", "kill", "-s", "TERM", &id]);
        eventually("it has ended", || peer.status(&id) == "STOPPED");
        let said = peer.containerd.client(&["task", "rm", &id]);
        assert!(said.err.contains("exit with non-zero exit code 9"), "{said:?}");
        peer.remove(&id);
        assert!(!systemd::is_loaded(&unit));
    });
    checks.check("calls are those that are known", || {
        assert_eq!(peer.oci.shapes().into_iter().collect::<Vec<_>>(), sorted(&SYSTEMD_CALLS));
    });
    checks.end();
}

/// What is saved is an image in containerd's store, the container's files in it and what criu has of its processes.
#[test]
fn containerd_saves_a_container_and_restores_another_from_it() {
    if !criu("containerd_saves_a_container_and_restores_another_from_it") {
        return;
    }
    let corner = Corner::new();
    let peer = Peer::start(&corner, systemd::is_there());
    let id = corner.path().file_name().unwrap().to_string_lossy().into_owned();
    let saved = "docker.io/library/saved:latest";
    let script = "i=0; while :; do i=$((i+1)); echo $i >>/count; sleep 0.05; done";
    let words = peer.run(&["-d"], &id, &["sh", "-c", script]);
    peer.containerd.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let counted = |id: &str| peer.exec(id, &["cat", "/count"]).out;
    eventually("it counts", || counted(&id).lines().count() > 3);
    let mut checks = Checks::default();
    checks.check("container checkpoint", || {
        peer.containerd.ok(&["container", "checkpoint", "--task", "--rw", "--image", &id, saved]);
    });
    peer.containerd.client(&["task", "kill", "-s", "KILL", &id]);
    eventually("it has ended", || peer.status(&id) != "RUNNING");
    peer.containerd.client(&["task", "rm", &id]);
    peer.remove(&id);
    checks.check("container restore", || {
        peer.containerd.ok(&["container", "restore", "--rw", "--live", &id, saved]);
        let at = counted(&id);
        eventually("it counts on", || counted(&id).lines().count() > at.lines().count() + 2);
    });
    checks.check("calls are those that are known", || {
        let shapes = peer.oci.shapes();
        // With one dash, as its library writes it.
        let restore = "restore --bundle --detach --image-path --pid-file --work-path -no-subreaper";
        for call in ["checkpoint --file-locks --image-path --leave-running --work-path", restore] {
            assert!(shapes.iter().any(|shape| shape.ends_with(call)), "{call}: {shapes:?}");
        }
    });
    peer.containerd.client(&["task", "kill", "-s", "KILL", &id]);
    eventually("it has ended", || peer.status(&id) != "RUNNING");
    peer.containerd.client(&["task", "rm", &id]);
    peer.remove(&id);
    checks.end();
}

fn flags(peer: &Peer) {
    let said =
        peer.shell(&["--privileged"], "grep -E '^(CapEff|Seccomp):' /proc/self/status; touch /sys/kernel/mm/x");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = said.out.lines();
    assert!(own.contains(lines.next().unwrap()) && lines.next() == Some("Seccomp:\t0"), "{said:?}");
    assert!(!said.err.contains("Read-only"), "{said:?}");
    let said = peer.shell(
        &["--seccomp", "--read-only", "--cwd", "/bin", "--env", "A=b"],
        "grep Seccomp: /proc/self/status; busybox pwd; echo $A; touch /x",
    );
    assert_eq!((said.code, &*said.out), (1, "Seccomp:\t2\n/bin\nb\n"), "{said:?}");
    assert!(said.err.contains("Read-only file system"), "{said:?}");
    let lent = format!("type=bind,src={},dst=/lent,options=rbind:ro", peer.containerd.path("root.tar").display());
    let said = peer.shell(&["--mount", &lent], "test -s /lent && echo there; touch /lent");
    assert!(said.out == "there\n" && said.err.contains("Read-only file system"), "{said:?}");
    let script = "busybox readlink /proc/self/ns/net";
    let world = peer.containerd.world.command("readlink").arg("/proc/self/ns/net").output().unwrap();
    let world = String::from_utf8(world.stdout).unwrap();
    assert_ne!(peer.shell(&[], script).out, world);
    assert_eq!(peer.shell(&["--net-host"], script).out, world);
    assert_eq!(peer.shell(&["--with-ns", "network:/proc/1/ns/net"], script).out, world);
}
