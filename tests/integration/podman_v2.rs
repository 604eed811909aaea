//! Podman with hull as its runtime on cgroup v2, as root and as an ordinary user: who runs the test is who runs Podman.
//! `make test-vm` does it as both.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_tests::checks::Checks;
use hull_tests::screen::Screen;
use hull_tests::{Said, busybox, entries, eventually, hull_bin, skipped, systemd};

const SERVER: &str = "trap 'exit 9' TERM; >/up; while :; do sleep 0.1; done";

/// Podman with storage of a test's own, and containers of one folder.
struct Podman {
    folder: tempfile::TempDir,
    /// Who makes control groups: Podman's `--cgroup-manager`.
    manager: &'static str,
}

impl Podman {
    fn new(manager: &'static str) -> Self {
        let folder = tempfile::Builder::new().prefix("hull-test-").tempdir().unwrap();
        // Others than its owner are in a container's user namespace.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        busybox(&folder.path().join("rootfs"));
        fs::copy(hull_bin(), folder.path().join("hull-oci")).unwrap();
        Self { folder, manager }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut podman = Command::new("podman");
        for (flag, name) in
            [("--root", "store"), ("--runroot", "run"), ("--tmpdir", "tmp"), ("--runtime", "hull-oci")]
        {
            podman.arg(flag).arg(self.path(name));
        }
        // Where no unit of systemd's is asked for its log either.
        podman.args(["--cgroup-manager", self.manager, "--events-backend", "file"]).args(arguments);
        podman
    }

    fn podman(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let said = self.podman(arguments);
        assert_eq!(said.code, 0, "podman {arguments:?}: {said:?}");
        said.out
    }

    /// The words of `run` with these flags and a shell that does `script`.
    fn run<'a>(&self, root: &'a str, flags: &[&'a str], script: &'a str) -> Vec<&'a str> {
        [&["run"], flags, &["--rootfs", root, "sh", "-c", script]].concat()
    }
}

#[test]
fn podman_limits_executes_pauses_and_stops_on_cgroup_v2() {
    let name = "podman_limits_executes_pauses_and_stops_on_cgroup_v2";
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return skipped(name, "the controllers of this machine are on cgroup v1; `make test-vm` does it");
    }
    let mut checks = Checks::default();
    all("cgroupfs", &mut checks);
    if systemd::is_there() {
        all("systemd", &mut checks);
    } else {
        skipped(name, "the half with systemd: who runs this test has no systemd");
    }
    checks.end();
}

fn all(manager: &'static str, checks: &mut Checks) {
    let podman = Podman::new(manager);
    let root = podman.path("rootfs").display().to_string();
    checks.check(&format!("{manager}: run with limits"), || limits(&podman, &root));
    checks.check(&format!("{manager}: run -it"), || on_a_terminal(&podman, &root));
    checks.check(&format!("{manager}: a container's life"), || life(&podman, &root));
    // criu takes the machine's root, and a kernel that it knows.
    let criu = Command::new("criu").arg("check").output().is_ok_and(|said| said.status.success());
    if rustix::process::geteuid().is_root() && criu {
        checks.check(&format!("{manager}: checkpoint and restore"), || saved(&podman, &root));
    }
    checks.check(&format!("{manager}: nothing is left"), || {
        podman.ok(&["rm", "-fa", "-t", "0"]);
        let state = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !rustix::process::geteuid().is_root());
        let state = state.map_or("/run/hull-oci".into(), |folder| PathBuf::from(folder).join("hull-oci"));
        assert_eq!(entries(&state), [""; 0], "{}", state.display());
    });
    if !rustix::process::geteuid().is_root() {
        // Files of ids that are only the user's in its user namespace.
        podman.ok(&["unshare", "rm", "-rf", &podman.path("store").display().to_string()]);
    }
}

fn limits(podman: &Podman, root: &str) {
    let script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; cat /proc/self/cgroup; id -u; exit 7";
    let flags = ["--rm", "--network", "none", "--memory", "64m", "--pids-limit", "50"];
    let said = podman.podman(&podman.run(root, &flags, script));
    assert_eq!((said.code, &*said.out), (7, "67108864\n50\n0::/\n0\n"), "{said:?}");
}

fn on_a_terminal(podman: &Podman, root: &str) {
    let words = podman.run(root, &["--rm", "-it", "--network", "none"], "tty; read line; echo got-$line; exit 3");
    let mut screen = Screen::open(&podman.command(&words));
    screen.wait_for("/dev/pts/0");
    screen.keyboard.write_all(b"abc\r").unwrap();
    screen.wait_for("got-abc");
    assert_eq!(screen.end().code(), Some(3));
}

fn life(podman: &Podman, root: &str) {
    podman.ok(&podman.run(
        root,
        &["-d", "--name", "server", "--user", "1000:1000", "--tmpfs", "/t"],
        "exec sleep 1000",
    ));
    podman.ok(&["rm", "-f", "-t", "0", "server"]);
    podman.ok(&podman.run(root, &["-d", "--name", "server"], SERVER));
    eventually("it runs", || podman.path("rootfs/up").exists());
    let said = podman.podman(&["exec", "server", "sh", "-c", "id -u; cat /proc/self/cgroup; echo err >&2; exit 3"]);
    assert_eq!((said.code, &*said.out, &*said.err), (3, "0\n0::/\n", "err\n"));
    let state = |field: &str| podman.ok(&["inspect", "-f", &format!("{{{{.State.{field}}}}}"), "server"]);
    podman.ok(&["pause", "server"]);
    assert_eq!(state("Status"), "paused\n");
    podman.ok(&["unpause", "server"]);
    let group = PathBuf::from(format!("/sys/fs/cgroup{}", state("CgroupPath").trim()));
    assert!(group.is_dir() || state("CgroupPath") == "\n", "{}", group.display());
    if podman.manager == "systemd" {
        let pid = state("Pid");
        let own = fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
        let unit = own.trim().rsplit_once('/').map(|(_, unit)| unit).unwrap_or_default();
        assert!(unit.starts_with("libpod-") && unit.ends_with(".scope"), "{own}");
        assert_eq!(systemd::property(unit, "ActiveState"), "active", "{own}");
        assert_eq!(systemd::property(unit, "Delegate"), "yes", "{own}");
    }
    podman.ok(&["stop", "server"]);
    assert_eq!(state("ExitCode"), "9\n");
    podman.ok(&["rm", "server"]);
    assert!(!group.is_dir() || group == Path::new("/sys/fs/cgroup"), "{} is left", group.display());
}

fn saved(podman: &Podman, root: &str) {
    let script = "i=0; while :; do i=$((i+1)); echo $i >>/counted; sleep 0.1; done";
    podman.ok(&podman.run(root, &["-d", "--name", "saved", "--pids-limit", "55"], script));
    let counted = || fs::read_to_string(podman.path("rootfs/counted")).unwrap_or_default().lines().count();
    eventually("it counts", || counted() > 3);
    podman.ok(&["container", "checkpoint", "--leave-running", "saved"]);
    podman.ok(&["container", "checkpoint", "saved"]);
    let state = |field: &str| podman.ok(&["inspect", "-f", &format!("{{{{.State.{field}}}}}"), "saved"]);
    assert_eq!((&*state("Running"), &*state("Checkpointed")), ("false\n", "true\n"));
    let at = counted();
    podman.ok(&["container", "restore", "saved"]);
    assert_eq!(state("Running"), "true\n");
    eventually("it counts on", || counted() > at + 2);
    let text = fs::read_to_string(podman.path("rootfs/counted")).unwrap();
    assert!(text.lines().enumerate().all(|(index, line)| line == (index + 1).to_string()), "{text}");
    assert_eq!(podman.ok(&["exec", "saved", "cat", "/sys/fs/cgroup/pids.max"]), "55\n");
    podman.ok(&["rm", "-f", "-t", "0", "saved"]);
}
