//! `hull-oci --systemd-cgroup` for an ordinary user: units of the user's own systemd, below what is delegated to it.
//! `make test-vm` does it as such a user; it cannot be done as root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hull_tests::{Said, busybox, eventually, hull_bin, skipped, systemd};
use serde_json::{Value, json};

struct Bundle {
    folder: tempfile::TempDir,
    id: String,
}

impl Bundle {
    /// The bundle of `runc spec --rootless` with `script` as its command and these limits.
    fn new(script: &str, resources: &Value) -> Self {
        let folder = tempfile::Builder::new().prefix("hull-test-").tempdir().unwrap();
        busybox(&folder.path().join("rootfs"));
        symlink(hull_bin(), folder.path().join("hull-oci")).unwrap();
        let id = folder.path().file_name().unwrap().to_string_lossy().into_owned();
        let bundle = Self { folder, id };
        let spec = Command::new("runc").args(["spec", "--rootless"]).current_dir(bundle.path()).status();
        assert!(spec.unwrap().success());
        let file = bundle.path().join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = json!(["sh", "-c", script]);
        spec["root"]["readonly"] = false.into();
        spec["linux"]["cgroupsPath"] = format!(":hulltest:{}", bundle.id).into();
        spec["linux"]["resources"] = resources.clone();
        fs::write(file, spec.to_string()).unwrap();
        bundle
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path().join("hull-oci"));
        command.current_dir(self.path()).arg("--root").arg(self.path().join("state")).arg("--systemd-cgroup");
        command.args(arguments).arg(&self.id);
        command
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let said = Said::from(self.command(arguments).output().unwrap());
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.out
    }

    fn status(&self) -> Value {
        serde_json::from_str::<Value>(&self.ok(&["state"])).unwrap()["status"].clone()
    }
}

#[test]
fn an_ordinary_users_container_is_a_unit_of_the_users_systemd() {
    let name = "an_ordinary_users_container_is_a_unit_of_the_users_systemd";
    if rustix::process::geteuid().is_root() || !systemd::is_there() {
        return skipped(name, "it takes an ordinary user with a systemd; `make test-vm` has one");
    }
    let resources = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 77},
        "cpu": {"quota": 50_000, "period": 100_000}});
    let bundle = Bundle::new("cat /proc/self/cgroup >/seen; exec sleep 1000", &resources);
    let unit = format!("hulltest-{}.scope", bundle.id);
    let mut create = bundle.command(&["create"]);
    assert!(create.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success());
    assert_eq!(bundle.status(), "created");
    for (property, expected) in [
        ("ActiveState", "active"),
        ("Slice", "user.slice"),
        ("Delegate", "yes"),
        ("TasksMax", "77"),
        ("MemoryMax", "67108864"),
        ("CPUQuotaPerSecUSec", "500ms"),
    ] {
        assert_eq!(systemd::property(&unit, property), expected, "{property}");
    }
    let uid = rustix::process::getuid().as_raw();
    let path = format!("/user.slice/user-{uid}.slice/user@{uid}.service/user.slice/{unit}");
    assert_eq!(systemd::property(&unit, "ControlGroup"), path);
    let group = PathBuf::from(format!("/sys/fs/cgroup{path}"));
    let file = |name: &str| fs::read_to_string(group.join(name)).unwrap();
    assert_eq!(
        (&*file("memory.max"), &*file("pids.max"), &*file("cpu.max")),
        ("67108864\n", "77\n", "50000 100000\n")
    );

    bundle.ok(&["start"]);
    let seen = bundle.path().join("rootfs/seen");
    eventually("it looks around", || fs::read_to_string(&seen).is_ok_and(|seen| seen == "0::/\n"));
    let mut exec = Command::new(bundle.path().join("hull-oci"));
    exec.arg("--root").arg(bundle.path().join("state"));
    let said: Said =
        exec.args(["--systemd-cgroup", "exec", &bundle.id, "cat", "/proc/self/cgroup"]).output().unwrap().into();
    assert_eq!((said.code, &*said.out), (0, "0::/\n"), "{said:?}");
    bundle.ok(&["pause"]);
    assert_eq!((bundle.status(), &*file("cgroup.freeze")), ("paused".into(), "1\n"));
    bundle.ok(&["resume"]);
    bundle.ok(&["update", "--memory", "80m", "--pids-limit", "33"]);
    assert_eq!((&*file("memory.max"), &*file("pids.max")), ("83886080\n", "33\n"));
    assert_eq!(systemd::property(&unit, "TasksMax"), "33");
    bundle.ok(&["delete", "--force"]);
    assert!(!systemd::is_loaded(&unit) && !group.exists());
}

/// One that the user's systemd cannot set stops the start, and leaves nothing.
#[test]
fn a_controller_that_is_not_delegated_is_an_error() {
    let name = "a_controller_that_is_not_delegated_is_an_error";
    if rustix::process::geteuid().is_root() || !systemd::is_there() {
        return skipped(name, "it takes an ordinary user with a systemd; `make test-vm` has one");
    }
    let resources = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 2 << 20}]});
    let bundle = Bundle::new("echo started", &resources);
    let said = Said::from(bundle.command(&["run"]).output().unwrap());
    assert!(said.code != 0 && said.out.is_empty() && said.err.contains("hugetlb"), "{said:?}");
    assert!(!systemd::is_loaded(&format!("hulltest-{}.scope", bundle.id)));
    assert_eq!(hull_tests::entries(&bundle.path().join("state")), [""; 0]);
}
