//! `hull-oci update`: every option, in both directions, and what is refused.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use hull_tests::bundle::Bundle;
use serde_json::{Value, json};

/// What the first of `files` that one of the container's groups has says.
fn limit(bundle: &Bundle, id: &str, files: &[&str]) -> String {
    let groups = bundle.groups(id);
    let mut texts =
        groups.iter().flat_map(|group| files.iter().filter_map(|file| fs::read_to_string(group.join(file)).ok()));
    texts.next().unwrap_or_else(|| panic!("{files:?} are in none of {groups:?}")).trim().to_owned()
}

/// The limits that the container's state says are in force.
fn in_force(bundle: &Bundle, id: &str) -> Value {
    let text = fs::read_to_string(bundle.root().join(id).join("state.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["resources"].take()
}

fn unified() -> bool {
    fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap()
}

/// A container that sleeps, with a limit of memory.
fn sleeper(name: &str) -> (Bundle, String) {
    let bundle = Bundle::new("sleep 1000");
    bundle.change(|spec| spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "swap": 128 << 20}));
    let id = bundle.id(name);
    bundle.create(&id);
    (bundle, id)
}

#[test]
fn every_option_changes_its_files_and_the_state_says_what_is_in_force() {
    let (bundle, id) = sleeper("options");
    let shares = if unified() { "170" } else { "2000" };
    let cases: [(&[&str], &[&str], &str); 9] = [
        (&["--memory", "32m"], &["memory.max", "memory.limit_in_bytes"], "33554432"),
        (&["--memory-reservation", "8M"], &["memory.low", "memory.soft_limit_in_bytes"], "8388608"),
        (&["--cpu-share", "2000"], &["cpu.weight", "cpu.shares"], shares),
        (&["--cpuset-cpus", "0"], &["cpuset.cpus"], "0"),
        (&["--cpuset-mems", "0"], &["cpuset.mems"], "0"),
        (&["--cpu-idle", "1"], &["cpu.idle"], "1"),
        (&["--cpu-idle", "0"], &["cpu.idle"], "0"),
        (&["--pids-limit", "17"], &["pids.max"], "17"),
        (&["--pids-limit", "-1"], &["pids.max"], "max"),
    ];
    for (options, files, expected) in cases {
        bundle.ok(&[&["update"], options, &[&*id]].concat());
        assert_eq!(limit(&bundle, &id, files), expected, "{options:?}");
    }
    bundle.ok(&["update", "--cpu-quota", "50000", "--cpu-period", "200000", "--cpu-burst", "40000", &id]);
    let quota = limit(&bundle, &id, &["cpu.max", "cpu.cfs_quota_us"]);
    assert!(quota == "50000 200000" || quota == "50000", "{quota}");
    assert_eq!(limit(&bundle, &id, &["cpu.max.burst", "cpu.cfs_burst_us"]), "40000");
    // Below the burst, which comes down with it.
    bundle.ok(&["update", "--cpu-quota", "20000", "--cpu-burst", "10000", &id]);
    bundle.ok(&["update", "--cpu-quota", "-1", "--cpu-burst", "0", &id]);
    let quota = limit(&bundle, &id, &["cpu.max", "cpu.cfs_quota_us"]);
    assert!(quota == "max 200000" || quota == "-1", "{quota}");
    let state = in_force(&bundle, &id);
    assert_eq!(
        (&state["memory"], &state["pids"]),
        (&json!({"limit": 32 << 20, "swap": 128 << 20, "reservation": 8 << 20}), &json!({"limit": -1}))
    );
    assert_eq!((&state["cpu"]["quota"], &state["cpu"]["period"]), (&json!(-1), &json!(200_000)));
    bundle.ok(&["delete", "--force", &id]);
}

#[test]
fn memory_with_swap_grows_and_shrinks_in_one_call() {
    let (bundle, id) = sleeper("swap");
    for (memory, swap) in [(256i64, 300i64), (32, 40), (40, 40), (500, 600)] {
        let (memory_text, swap_text) = (format!("{memory}m"), format!("{swap}m"));
        bundle.ok(&["update", "--memory", &memory_text, "--memory-swap", &swap_text, &id]);
        let found = limit(&bundle, &id, &["memory.max", "memory.limit_in_bytes"]);
        assert_eq!(found, (memory << 20).to_string());
        let expected = if unified() { swap - memory } else { swap };
        let found = limit(&bundle, &id, &["memory.swap.max", "memory.memsw.limit_in_bytes"]);
        assert_eq!(found, (expected << 20).to_string(), "{memory} {swap}");
    }
    // No limit of memory is none of swap either.
    bundle.ok(&["update", "--memory", "-1", &id]);
    let endless = |text: String| text == "max" || text.parse::<u64>().is_ok_and(|bytes| bytes > 1 << 60);
    assert!(endless(limit(&bundle, &id, &["memory.max", "memory.limit_in_bytes"])));
    assert!(endless(limit(&bundle, &id, &["memory.swap.max", "memory.memsw.limit_in_bytes"])));
    bundle.ok(&["delete", "--force", &id]);
}

/// Docker and containerd write the document to standard input, with zeros for what is not given.
#[test]
fn resources_come_from_a_file_or_standard_input_as_containerd_sends_them() {
    let (bundle, id) = sleeper("document");
    let document = json!({"blockIO": {"weight": 0}, "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""},
        "memory": {"limit": 100 << 20, "reservation": 0, "kernel": 0, "swap": 200 << 20}, "pids": {"limit": 33}});
    let mut update = bundle.command(&["update", "--resources", "-", &id]);
    let mut update = update.stdin(Stdio::piped()).spawn().unwrap();
    update.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
    assert!(update.wait().unwrap().success());
    assert_eq!(limit(&bundle, &id, &["memory.max", "memory.limit_in_bytes"]), (100 << 20).to_string());
    assert_eq!(limit(&bundle, &id, &["pids.max"]), "33");
    fs::write(bundle.corner.path().join("limits"), r#"{"pids": {"limit": 44}}"#).unwrap();
    bundle.ok(&["update", "-r", "limits", "--memory", "80m", &id]);
    assert_eq!(limit(&bundle, &id, &["pids.max"]), "44");
    assert_eq!(limit(&bundle, &id, &["memory.max", "memory.limit_in_bytes"]), (80 << 20).to_string());
    bundle.ok(&["delete", "--force", &id]);
}

/// Shown to fail without the way back in `Cgroup::update`: the limit of processes stays at 99 then.
#[test]
fn a_refused_value_is_named_with_its_file_and_nothing_is_changed() {
    let (bundle, id) = sleeper("refused");
    bundle.ok(&["update", "--pids-limit", "50", &id]);
    let before = in_force(&bundle, &id);
    for (options, words) in [
        (&["--pids-limit", "99", "--cpuset-cpus", "4000"][..], "cpuset.cpus"),
        (&["--pids-limit", "99", "--memory-swap", "1m"], "1048576"),
        (&["--pids-limit", "-7"], "pids.max to -7"),
        (&["--memory", "much"], "it is a size such as"),
        (&["--resources", "no-such-file"], "no-such-file"),
        (&["--pids-limit", "99", "--l3-cache-schema", "L3:0=f"], "resctrl"),
    ] {
        let said = bundle.oci(&[&["update"], options, &[&*id]].concat());
        assert!(said.code == 1 && said.err.contains(words), "{options:?}: {said:?}");
        assert_eq!(limit(&bundle, &id, &["pids.max"]), "50", "{options:?}");
    }
    assert_eq!(in_force(&bundle, &id), before);
    fs::write(bundle.corner.path().join("limits"), r#"{"devices": [{"allow": true, "access": "rwm"}]}"#).unwrap();
    let said = bundle.oci(&["update", "-r", "limits", &id]);
    assert!(said.code == 1 && said.err.contains("resources.devices"), "{said:?}");
    bundle.ok(&["kill", &id, "KILL"]);
    hull_tests::eventually("it has ended", || bundle.state(&id)["status"] == "stopped");
    let said = bundle.oci(&["update", "--pids-limit", "60", &id]);
    assert!(said.code == 1 && said.err.contains("container not running"), "{said:?}");
    assert!(bundle.oci(&["update", "none"]).err.contains("container does not exist"));
    bundle.ok(&["delete", &id]);
}

#[test]
fn a_paused_container_and_one_that_waits_can_be_updated() {
    let (bundle, id) = sleeper("paused");
    bundle.ok(&["update", "--pids-limit", "20", &id]);
    bundle.ok(&["start", &id]);
    bundle.ok(&["pause", &id]);
    bundle.ok(&["update", "--pids-limit", "21", "--memory", "50m", &id]);
    assert_eq!(limit(&bundle, &id, &["pids.max"]), "21");
    assert_eq!(bundle.state(&id)["status"], "paused");
    bundle.ok(&["delete", "--force", &id]);
}

/// v1 lets a frozen process die only when it thaws. Shown to fail without that: the second delete waits in vain.
#[test]
fn a_paused_container_can_be_killed_and_deleted() {
    for kill in [&["kill"][..], &["kill", "--all"], &[]] {
        let (bundle, id) = sleeper("killed");
        bundle.ok(&["start", &id]);
        bundle.ok(&["pause", &id]);
        if !kill.is_empty() {
            bundle.ok(&[kill, &[&id, "KILL"]].concat());
            hull_tests::eventually("it has ended", || bundle.state(&id)["status"] == "stopped");
        }
        bundle.ok(&["delete", "--force", &id]);
    }
}

/// The text of its files is tested beside them (`rdt.rs`); that there are none is all that most machines can show.
#[test]
fn a_class_of_intel_rdt_without_its_file_system_is_an_error_that_names_the_field() {
    if fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - resctrl ") {
        return hull_tests::skipped("intel_rdt", "resctrl is mounted here, and its classes are this machine's");
    }
    let bundle = Bundle::new("true");
    bundle.change(|spec| spec["linux"]["intelRdt"] = json!({"l3CacheSchema": "L3:0=f"}));
    let said = bundle.oci(&["run", &bundle.id("rdt")]);
    assert!(said.code == 1 && said.err.contains("linux.intelRdt") && said.err.contains("resctrl"), "{said:?}");
    assert_eq!(bundle.ok(&["list", "-q"]), "");
}
