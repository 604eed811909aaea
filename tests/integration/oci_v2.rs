//! Limits on cgroup v2: what a specification says is what the files say, whether hull makes the group or systemd does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use hull_tests::bundle::Bundle;
use hull_tests::{skipped, systemd};
use serde_json::{Value, json};

/// Whether the controllers are on v2, and who makes groups there; says what is skipped.
fn makers(test: &str) -> Vec<bool> {
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        skipped(test, "the controllers of this machine are on cgroup v1; `make test-vm` does it");
        return Vec::new();
    }
    if !systemd::is_there() {
        skipped(test, "the half with systemd: this machine was not started by it");
        return vec![false];
    }
    vec![false, true]
}

/// A created container with these resources, and its group.
fn create(bundle: &Bundle, systemd: bool, resources: &Value) -> (String, PathBuf) {
    let id = bundle.id(if systemd { "unit" } else { "files" });
    let path = if systemd { format!("system.slice:hulltest:{id}") } else { format!("/{id}") };
    bundle.change(|spec| {
        spec["linux"]["cgroupsPath"] = path.into();
        spec["linux"]["resources"] = resources.clone();
    });
    let option = if systemd { &["--systemd-cgroup"][..] } else { &[] };
    let mut create = bundle.command(&[option, &["create", &id]].concat());
    assert!(create.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success());
    let group = bundle.groups(&id).remove(0);
    (id, group)
}

/// The number of a block device that limits can be set for.
fn disk() -> (u64, u64) {
    let disks = hull_tests::entries(Path::new("/sys/block"));
    let name = disks.iter().find(|name| !name.starts_with("loop")).expect("a disk");
    let number = fs::read_to_string(format!("/sys/block/{name}/dev")).unwrap();
    let (major, minor) = number.trim().split_once(':').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap())
}

/// runc's `docs/spec-conformance.md` and the conversions of runtime-spec for v2.
#[test]
fn every_limit_is_in_its_file_whoever_makes_the_group() {
    let (major, minor) = disk();
    let resources = json!({
        "memory": {"limit": 64 << 20, "reservation": 32 << 20, "swap": 96 << 20},
        "cpu": {"shares": 262_144, "quota": 50_500, "period": 100_000, "burst": 10_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 77},
        "blockIO": {"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1 << 20}],
                    "throttleWriteIOPSDevice": [{"major": major, "minor": minor, "rate": 500}]},
        "unified": {"memory.high": "50331648", "memory.oom.group": "1"},
    });
    let io = format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=500");
    for systemd in makers("every_limit_is_in_its_file_whoever_makes_the_group") {
        let bundle = Bundle::new("sleep 1000");
        let (id, group) = create(&bundle, systemd, &resources);
        for (file, expected) in [
            ("memory.max", "67108864"),
            ("memory.low", "33554432"),
            ("memory.swap.max", "33554432"),
            ("memory.high", "50331648"),
            ("memory.oom.group", "1"),
            ("cpu.weight", "10000"),
            ("cpu.max", "50500 100000"),
            ("cpu.max.burst", "10000"),
            ("cpuset.cpus", "0"),
            ("cpuset.mems", "0"),
            ("pids.max", "77"),
            ("io.max", &io),
        ] {
            let path = group.join(file);
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(text.trim(), expected, "{file}, by systemd {systemd}");
        }
        // What is refused leaves nothing, not even what became idle before.
        let refused = bundle.oci(&["update", "--cpu-idle", "1", "--cpuset-cpus", "4000", &id]);
        assert!(refused.code == 1 && refused.err.contains("cpuset.cpus"), "{refused:?}");
        for (file, expected) in [("cpu.idle", "0\n"), ("cpu.weight", "10000\n"), ("cpuset.cpus", "0\n")] {
            assert_eq!(fs::read_to_string(group.join(file)).unwrap(), expected, "{file}, by systemd {systemd}");
        }
        bundle.ok(&["update", "--cpu-idle", "1", &id]);
        assert_eq!(fs::read_to_string(group.join("cpu.idle")).unwrap(), "1\n", "by systemd {systemd}");
        bundle.ok(&["delete", "--force", &id]);
        assert!(!group.exists());
    }
}

/// The rules are a program that hull attaches; systemd, which has programs of its own, leaves it and the limits alone.
#[test]
fn rules_for_devices_and_limits_hold_also_after_systemd_has_read_its_units_again() {
    let name = "rules_for_devices_and_limits_hold_also_after_systemd_has_read_its_units_again";
    for systemd in makers(name) {
        let bundle = Bundle::new("sleep 1000");
        bundle.change(|spec| {
            let device = json!({"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 438});
            spec["linux"]["devices"] = json!([device]);
        });
        let resources = json!({
            "memory": {"limit": 64 << 20}, "pids": {"limit": 77}, "cpu": {"quota": 50_000, "period": 100_000},
            "devices": [{"allow": false, "access": "rwm"},
                        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"}],
        });
        let (id, group) = create(&bundle, systemd, &resources);
        bundle.ok(&["start", &id]);
        let held = |when: &str| {
            let script = "head -c 0 /dev/null && echo null; true >/dev/kmsg && echo written; cat </dev/kmsg";
            let said = bundle.exec(&[], &id, script);
            assert_eq!(said.out, "null\nwritten\n", "{when}, by systemd {systemd}: {said:?}");
            assert!(said.err.contains("Operation not permitted"), "{when}, by systemd {systemd}: {said:?}");
            for (file, expected) in
                [("memory.max", "67108864\n"), ("pids.max", "77\n"), ("cpu.max", "50000 100000\n")]
            {
                assert_eq!(fs::read_to_string(group.join(file)).unwrap(), expected, "{when}: {file}");
            }
        };
        held("at first");
        if systemd {
            assert_eq!(systemd::systemctl(&["daemon-reload"]).code, 0);
            held("after a reload");
        }
        bundle.ok(&["update", "--pids-limit", "77", &id]);
        held("after an update");
        bundle.ok(&["delete", "--force", &id]);
    }
}
