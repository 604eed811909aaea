//! Debian's Podman with hull as its runtime, by its configuration.

use std::fs;
use std::io::Write;

use hull_tests::checks::Checks;
use hull_tests::podman::Podman;
use hull_tests::recorded::{Recorded, sorted};
use hull_tests::screen::Screen;
use hull_tests::{Corner, Said, entries, eventually};

/// What Podman, its conmon and buildah call hull with, all of it.
const CALLS: [&str; 15] = [
    "--log --log-format create --bundle --pid-file",
    "--log --log-format create --bundle --console-socket --pid-file",
    "--log --log-format create --bundle --pid-file --preserve-fds",
    "start",
    "delete --force",
    // buildah's.
    "create --bundle --pid-file",
    "state",
    "delete",
    "kill 15",
    "kill 9",
    "pause",
    "resume",
    "--log --log-format exec --detach --pid-file --process",
    "--log --log-format exec --console-socket --detach --pid-file --process --tty",
    "--version",
];

const SERVER: &str = "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done";

/// Podman, and words for `run`.
struct Peer {
    podman: Podman,
    parent: String,
}

impl Peer {
    fn run<'a>(&'a self, flags: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
        [&["run", "--cgroup-parent", &*self.parent], flags, &["base"], command].concat()
    }

    /// What a shell in a container says.
    fn shell(&self, flags: &[&str], script: &str) -> Said {
        self.podman.podman(&self.run(&[&["--rm"], flags].concat(), &["sh", "-c", script]))
    }

    /// The same, which has to end well: its output.
    fn text(&self, flags: &[&str], script: &str) -> String {
        let said = self.shell(flags, script);
        assert_eq!(said.code, 0, "{flags:?}: {said:?}");
        said.out
    }

    fn state(&self, name: &str, field: &str) -> String {
        self.podman.ok(&["inspect", "-f", &format!("{{{{.State.{field}}}}}"), name]).trim().to_owned()
    }
}

#[test]
fn podman_runs_builds_and_shares_namespaces_with_hull_as_its_runtime() {
    let corner = Corner::new();
    let oci = Recorded::new(&corner.path().join("runtime"), "hull-oci");
    let podman = Podman::new(corner.path(), &oci.program);
    fs::write(corner.rootfs().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n").unwrap();
    podman.import(&corner.rootfs(), "base");
    let parent = podman.world.parent().to_owned();
    let peer = Peer { podman, parent };
    let mut checks = Checks::default();
    short_lives(&peer, &mut checks);
    long_lives(&peer, &mut checks);
    flags(&peer, &mut checks);
    checks.check("build", || {
        let context = corner.path().join("context");
        fs::create_dir(&context).unwrap();
        fs::write(
            context.join("Dockerfile"),
            "FROM base\nRUN echo built > /made\nUSER 1000\nRUN id -u; cat /made\nCMD [\"cat\", \"/made\"]\n",
        )
        .unwrap();
        let context = context.to_string_lossy();
        // Where buildah's containers are, not what they are below.
        let group = format!("{}/build", peer.parent);
        let said = peer.podman.podman(&["build", "--cgroup-parent", &group, "-t", "built", &context]);
        assert!(said.code == 0 && said.out.contains("1000\nbuilt\n"), "{said:?}");
        assert_eq!(peer.podman.ok(&["run", "--rm", "--cgroup-parent", &peer.parent, "built"]), "built\n");
    });
    checks.check("a pod", || pod(&peer));
    checks.check("calls are those that are known", || {
        assert_eq!(oci.shapes().into_iter().collect::<Vec<_>>(), sorted(&CALLS));
    });
    checks.check("nothing is left", || {
        peer.podman.ok(&["rm", "-fa", "-t", "0"]);
        assert_eq!(entries(&peer.podman.world.path("/run/hull-oci")), [""; 0]);
        // conmon's and a pod's are Podman's own, and those of a pod it forgets in some hierarchies, with runc as well.
        let hulls = |name: &String| name.ends_with("/build") || name.contains("/libpod-");
        assert_eq!(peer.podman.world.groups().into_iter().filter(hulls).collect::<Vec<_>>(), [""; 0]);
    });
    checks.end();
}

fn short_lives(peer: &Peer, checks: &mut Checks) {
    checks.check("info names the runtime", || {
        let info = peer.podman.ok(&["info", "-f", "{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Version}}"]);
        assert!(info.starts_with("hull-oci hull-oci version "), "{info}");
    });
    checks.check("run gives the output and the status", || {
        let said = peer.shell(&[], "echo out; echo err >&2; exit 7");
        assert_eq!((said.code, &*said.out, &*said.err), (7, "out\n", "err\n"));
    });
    checks.check("what cannot be executed has Podman's statuses", || {
        for (command, code, words) in [
            ("/no/such", 127, "no such file or directory"),
            ("no-such", 127, "executable file not found in $PATH"),
            ("/etc", 126, "permission denied"),
        ] {
            let said = peer.podman.podman(&peer.run(&["--rm"], &[command]));
            assert_eq!(said.code, code, "{said:?}");
            assert!(said.err.contains(words), "{said:?}");
        }
    });
    checks.check("run -it", || {
        let script = "echo on-$(tty); read line; echo got-$line; stty size; exit 3";
        let words = peer.run(&["--rm", "-it"], &["sh", "-c", script]);
        let mut screen = Screen::open(&peer.podman.command(&words));
        screen.wait_for("on-/dev/pts/0");
        screen.keyboard.write_all(b"abc\r").unwrap();
        screen.wait_for("got-abc");
        screen.wait_for("24 80");
        assert_eq!(screen.end().code(), Some(3));
    });
}

fn long_lives(peer: &Peer, checks: &mut Checks) {
    let podman = &peer.podman;
    checks.check("run -d, ps, logs", || {
        podman.ok(&peer.run(&["-d", "--name", "server", "--memory", "64m"], &["sh", "-c", SERVER]));
        eventually("it runs", || podman.ok(&["logs", "server"]) == "up\n");
        assert!(podman.ok(&["ps", "--format", "{{.Names}} {{.Status}}"]).starts_with("server Up "));
    });
    checks.check("exec", || {
        let said = podman.podman(&["exec", "server", "sh", "-c", "echo in; echo err >&2; exit 3"]);
        assert_eq!((said.code, &*said.out, &*said.err), (3, "in\n", "err\n"));
        let script = "id -u; echo $A; busybox pwd";
        assert_eq!(
            podman.ok(&["exec", "-u", "1000", "-e", "A=b", "-w", "/etc", "server", "sh", "-c", script]),
            "1000\nb\n/etc\n"
        );
        assert_eq!(podman.podman(&["exec", "server", "no-such"]).code, 127);
    });
    checks.check("exec -it", || {
        let script = "tty; read line; echo got-$line; exit 4";
        let mut screen = Screen::open(&podman.command(&["exec", "-it", "server", "sh", "-c", script]));
        screen.wait_for("/dev/pts/");
        screen.keyboard.write_all(b"abc\r").unwrap();
        screen.wait_for("got-abc");
        assert_eq!(screen.end().code(), Some(4));
    });
    checks.check("top", || assert!(podman.ok(&["top", "server"]).contains("while :; do")));
    checks.check("stats", || {
        let stats = podman.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "server"]);
        assert!(stats.contains("/ 67.11MB") && !stats.starts_with("0B"), "{stats}");
    });
    checks.check("pause and unpause", || {
        podman.ok(&["pause", "server"]);
        assert_eq!(peer.state("server", "Status"), "paused");
        podman.ok(&["unpause", "server"]);
        assert_eq!(peer.state("server", "Status"), "running");
    });
    checks.check("restart and stop", || {
        podman.ok(&["restart", "server"]);
        eventually("it runs again", || podman.ok(&["logs", "server"]).ends_with("up\n"));
        podman.ok(&["stop", "server"]);
        assert_eq!(peer.state("server", "ExitCode"), "9");
        assert!(podman.ok(&["logs", "server"]).ends_with("bye\n"));
    });
    checks.check("start, kill, wait", || {
        podman.ok(&["start", "server"]);
        podman.ok(&["kill", "server"]);
        assert_eq!(podman.ok(&["wait", "server"]), "137\n");
        podman.ok(&["rm", "server"]);
    });
    checks.check("health", || {
        podman.ok(&peer.run(
            &["-d", "--name", "patient", "--health-cmd", "test -e /well", "--health-interval", "disable"],
            &["sleep", "1000"],
        ));
        assert_ne!(podman.podman(&["healthcheck", "run", "patient"]).code, 0);
        podman.ok(&["exec", "patient", "touch", "/well"]);
        podman.ok(&["healthcheck", "run", "patient"]);
        podman.ok(&["rm", "-f", "-t", "0", "patient"]);
    });
}

fn flags(peer: &Peer, checks: &mut Checks) {
    checks.check("limits", || {
        let flags =
            ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "55", "--oom-score-adj", "100", "--umask", "077"];
        let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max \
                      /proc/self/oom_score_adj; umask; ulimit -n";
        for namespace in ["host", "private"] {
            let flags = [&flags[..], &["--cgroupns", namespace]].concat();
            assert_eq!(peer.text(&flags, script), "67108864\n50000\n55\n100\n0077\n1024\n", "{namespace}");
        }
    });
    checks.check("--init", || assert!(peer.text(&["--init"], "ps").contains("1 root     /run/podman-init -- sh")));
    checks.check("--privileged", || {
        let own = fs::read_to_string("/proc/self/status").unwrap();
        assert!(own.contains(&peer.text(&["--privileged"], "grep CapEff: /proc/self/status")));
    });
    checks.check("--read-only, --tmpfs, --user, -v", || {
        let folder = peer.podman.path("lent");
        fs::create_dir(&folder).unwrap();
        let lent = format!("{}:/lent:ro", folder.display());
        let script = "id -u; >/t/x && echo made; touch /lent/x /x 2>&1 | grep -c Read-only";
        let flags = ["--read-only", "--tmpfs", "/t", "--user", "1000", "-v", &lent];
        assert_eq!(peer.text(&flags, script), "1000\nmade\n2\n");
    });
    checks.check("a user namespace", || {
        let flags = ["--uidmap", "0:100000:2000", "--gidmap", "0:100000:2000"];
        let script =
            "id -u; cat /proc/self/uid_map; stat -c %u /bin /proc/self/; >/made; cat /dev/null; >/sys/fs/cgroup/x";
        let said = peer.shell(&flags, script);
        let words: Vec<&str> = said.out.split_whitespace().collect();
        assert_eq!(words, ["0", "0", "100000", "2000", "0", "0"], "{said:?}");
        assert!(said.code == 1 && said.err.contains("/sys/fs/cgroup/x: Read-only"), "{said:?}");
    });
    checks.check("--preserve-fds", || {
        let words = peer.run(&["--rm", "--preserve-fds", "1"], &["sh", "-c", "cat <&3"]);
        let mut shell = peer.podman.world.command("sh");
        let inner = peer.podman.command(&words);
        // nsenter's own words come first; what follows them is run by the shell with one more descriptor.
        let inner: Vec<_> = inner.get_args().skip_while(|word| *word != "podman").collect();
        shell.args(["-c", "echo handed on | (\"$@\" 3<&0 </dev/null)", "sh"]).args(inner);
        shell.env("CONTAINERS_CONF", peer.podman.path("containers.conf"));
        let said: Said = shell.output().unwrap().into();
        assert_eq!((said.code, &*said.out), (0, "handed on\n"), "{said:?}");
    });
    checks.check("namespaces of the host and none", || {
        let world = peer.podman.world.command("readlink").args(["/proc/self/ns/net", "/proc/self/ns/pid"]).output();
        let world = String::from_utf8(world.unwrap().stdout).unwrap();
        let script = "busybox readlink /proc/self/ns/net; busybox readlink /proc/self/ns/pid";
        assert_eq!(peer.text(&["--network", "host", "--pid", "host"], script), world);
        assert_ne!(peer.text(&["--network", "none"], script), world);
    });
    checks.check("seccomp and no-new-privileges", || {
        let script = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status";
        assert_eq!(peer.text(&[], script), "NoNewPrivs:\t0\nSeccomp:\t2\n");
        let flags = ["--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"];
        assert_eq!(peer.text(&flags, script), "NoNewPrivs:\t1\nSeccomp:\t0\n");
    });
}

/// Two containers that share network, IPC and host name with the pod's first one, and have processes of their own.
fn pod(peer: &Peer) {
    let podman = &peer.podman;
    podman.ok(&["pod", "create", "--cgroup-parent", &peer.parent, "--name", "pod", "--hostname", "ours"]);
    let serve = "echo hello > /hello; busybox httpd -f -p 127.0.0.1:80 -h /";
    podman.ok(&["run", "-d", "--pod", "pod", "--name", "one", "base", "sh", "-c", serve]);
    let fetch = "until busybox wget -q -O - http://127.0.0.1/hello; do sleep 0.05; done; hostname; echo $$";
    let said = podman.podman(&["run", "--rm", "--pod", "pod", "base", "sh", "-c", fetch]);
    assert_eq!((said.code, &*said.out), (0, "hello\nours\n1\n"), "{said:?}");
    podman.ok(&["pod", "pause", "pod"]);
    assert_eq!(peer.state("one", "Status"), "paused");
    podman.ok(&["pod", "unpause", "pod"]);
    podman.ok(&["pod", "rm", "-f", "-t", "0", "pod"]);
}
