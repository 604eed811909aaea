//! `hull-oci --systemd-cgroup`: units of systemd's, where there is one; elsewhere the error that says that there is none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use hull_tests::bundle::Bundle;
use hull_tests::systemd::{self, is_loaded, property};
use hull_tests::{eventually, skipped};
use serde_json::{Value, json};

/// Whether systemd is there; says what is skipped otherwise.
fn is_there(test: &str) -> bool {
    let there = systemd::is_there();
    if !there {
        skipped(test, "this machine was not started by systemd");
    }
    there
}

/// A bundle whose container is the unit `hulltest-ID.scope` in `system.slice`.
fn bundle(script: &str, name: &str) -> (Bundle, String, String) {
    let bundle = Bundle::new(script);
    let id = bundle.id(name);
    bundle.change(|spec| spec["linux"]["cgroupsPath"] = format!("system.slice:hulltest:{id}").into());
    let unit = format!("hulltest-{id}.scope");
    (bundle, id, unit)
}

fn create(bundle: &Bundle, id: &str) {
    let mut create = bundle.command(&["--systemd-cgroup", "create", "-b", ".", id]);
    assert!(create.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success());
}

fn file(group: &Path, name: &str) -> String {
    fs::read_to_string(group.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")).trim().to_owned()
}

/// The group that holds the limit of processes.
fn group(bundle: &Bundle, id: &str) -> PathBuf {
    bundle.groups(id).into_iter().find(|group| group.join("pids.max").exists()).unwrap()
}

#[test]
fn a_container_is_a_unit_with_its_limits_until_it_is_deleted() {
    if !is_there("a_container_is_a_unit_with_its_limits_until_it_is_deleted") {
        return;
    }
    let (bundle, id, unit) = bundle("cat /proc/self/cgroup >/seen; sleep 1000", "unit");
    bundle.change(|spec| {
        // On v1 `runc spec` leaves it out.
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        namespaces.push(json!({"type": "cgroup"}));
        spec["linux"]["resources"] = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 77},
            "cpu": {"shares": 1024, "quota": 50_500, "period": 100_000, "cpus": "0"},
            "devices": [{"allow": false, "access": "rwm"}]});
        spec["annotations"] = json!({"org.systemd.property.TimeoutStopUSec": "uint64 7000000"});
    });
    create(&bundle, &id);
    let state: Value =
        serde_json::from_str(&fs::read_to_string(bundle.root().join(&id).join("state.json")).unwrap()).unwrap();
    assert_eq!(state["unit"]["name"], *unit);
    for (name, expected) in [
        ("ActiveState", "active"),
        ("Slice", "system.slice"),
        ("Delegate", "yes"),
        ("TasksMax", "77"),
        ("TimeoutStopUSec", "7s"),
        ("CPUQuotaPerSecUSec", "510ms"),
    ] {
        assert_eq!(property(&unit, name), expected, "{name}");
    }
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let memory = if unified { "MemoryMax" } else { "MemoryLimit" };
    assert_eq!(property(&unit, memory), (64 << 20).to_string());
    // The process is in the unit's group, in every hierarchy, and what systemd rounds is exact in the file.
    let pid = bundle.state(&id)["pid"].as_i64().unwrap();
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = format!("/system.slice/{unit}");
    assert!(own.lines().all(|line| line.ends_with(&path)), "{own}");
    assert_eq!(property(&unit, "ControlGroup"), path);
    let groups = bundle.groups(&id);
    let quota = groups.iter().find_map(|group| fs::read_to_string(group.join("cpu.max")).ok());
    assert!(quota.is_none_or(|quota| quota.trim() == "50500 100000"));

    // Its view of the groups begins with its own.
    bundle.ok(&["start", &id]);
    eventually("it looks around", || {
        fs::read_to_string(bundle.corner.rootfs().join("seen"))
            .is_ok_and(|seen| seen.lines().all(|line| line.ends_with(":/")))
    });
    bundle.ok(&["pause", &id]);
    assert_eq!(bundle.state(&id)["status"], "paused");
    bundle.ok(&["resume", &id]);

    bundle.ok(&["update", "--memory", "80m", "--pids-limit", "33", "--cpu-quota", "30300", &id]);
    assert_eq!(property(&unit, memory), (80 << 20).to_string());
    assert_eq!(property(&unit, "TasksMax"), "33");
    assert_eq!(file(&group(&bundle, &id), "pids.max"), "33");
    assert_eq!(property(&unit, "CPUQuotaPerSecUSec"), "310ms");
    let quota = groups.iter().find_map(|group| fs::read_to_string(group.join("cpu.max")).ok());
    assert!(quota.is_none_or(|quota| quota.trim() == "30300 100000"));
    let refused = bundle.oci(&["update", "--pids-limit", "44", "--cpuset-cpus", "4000", &id]);
    assert!(refused.code == 1 && refused.err.contains("cpuset.cpus"), "{refused:?}");
    assert_eq!((&*property(&unit, "TasksMax"), &*file(&group(&bundle, &id), "pids.max")), ("33", "33"));

    bundle.ok(&["kill", &id, "KILL"]);
    eventually("it has ended", || bundle.state(&id)["status"] == "stopped");
    bundle.ok(&["delete", &id]);
    assert!(!is_loaded(&unit), "{}", property(&unit, "ActiveState"));
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
}

/// What the container does below its group is its own: a child group with a limit, by a root that is the container's.
#[test]
fn what_is_below_the_unit_is_delegated() {
    if !is_there("what_is_below_the_unit_is_delegated") {
        return;
    }
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return skipped("what_is_below_the_unit_is_delegated", "control groups of version 1 are not delegated");
    }
    let script = "cd /sys/fs/cgroup && mkdir one two && echo $$ >one/cgroup.procs && echo +pids >cgroup.subtree_control \
                  && echo 5 >two/pids.max && cat two/pids.max";
    let (bundle, id, unit) = bundle(script, "below");
    bundle.change(|spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        let group = mounts.iter_mut().find(|mount| mount["type"] == "cgroup").unwrap();
        group["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
    });
    let said = bundle.oci(&["--systemd-cgroup", "run", &id]);
    assert_eq!((said.code, &*said.out), (0, "5\n"), "{said:?}");
    assert!(!is_loaded(&unit));
}

#[test]
fn a_unit_has_a_default_name_and_may_be_in_a_slice_of_slices() {
    if !is_there("a_unit_has_a_default_name_and_may_be_in_a_slice_of_slices") {
        return;
    }
    let bundle = Bundle::new("cat /proc/self/cgroup; exit 3");
    // Without a namespace of its own it sees where it is.
    bundle.change(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    });
    let id = bundle.id("name");
    let said = bundle.oci(&["--systemd-cgroup", "run", &id]);
    assert!(said.code == 3 && said.out.contains(&format!("/system.slice/hull-{id}.scope\n")), "{said:?}");
    let slice = format!("hulltest-{}", std::process::id());
    bundle.change(|spec| spec["linux"]["cgroupsPath"] = format!("{slice}.slice:cri:{id}").into());
    let said = bundle.oci(&["--systemd-cgroup", "run", &id]);
    let path = format!("/hulltest.slice/{slice}.slice/cri-{id}.scope\n");
    assert!(said.code == 3 && said.out.contains(&path), "{said:?}");
    assert!(!is_loaded(&format!("cri-{id}.scope")));
    for slice in [format!("{slice}.slice"), "hulltest.slice".to_owned()] {
        assert_eq!(systemd::systemctl(&["stop", &slice]).code, 0);
    }
}

/// The state says which unit it is before there is one.
#[test]
fn a_creator_that_is_killed_at_any_moment_leaves_nothing_that_one_delete_does_not_clear() {
    if !is_there("a_creator_that_is_killed_at_any_moment_leaves_nothing_that_one_delete_does_not_clear") {
        return;
    }
    const KILLS: u32 = 10;
    let (bundle, id, _) = bundle("sleep 1000", "whole");
    let begin = Instant::now();
    create(&bundle, &id);
    let whole = begin.elapsed();
    bundle.ok(&["delete", "--force", &id]);
    let mut units = 0;
    for moment in 0..KILLS {
        let id = bundle.id(&format!("killed{moment}"));
        let unit = format!("hulltest-{id}.scope");
        bundle.change(|spec| spec["linux"]["cgroupsPath"] = format!("system.slice:hulltest:{id}").into());
        let mut create = bundle.command(&["--systemd-cgroup", "create", "-b", ".", &id]);
        let mut child = create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Up to half as long again, so that some have come to their end.
        std::thread::sleep(whole * 3 * (moment + 1) / (2 * KILLS));
        child.kill().unwrap();
        child.wait().unwrap();
        units += usize::from(is_loaded(&unit));
        bundle.ok(&["delete", "--force", &id]);
        assert!(!is_loaded(&unit), "{moment}");
        assert!(!Path::new("/sys/fs/cgroup/system.slice").join(&unit).exists(), "{moment}");
    }
    assert!(units > 0, "no kill left a unit");
    assert_eq!(bundle.ok(&["list", "-q"]), "");
}

#[test]
fn what_is_no_unit_is_an_error_and_leaves_nothing() {
    let bundle = Bundle::new("true");
    let id = bundle.id("bad");
    let error = |words: &str| {
        let said = bundle.oci(&["--systemd-cgroup", "create", "-b", ".", &id]);
        assert!(said.code == 1 && said.err.contains(words), "{words}: {said:?}");
        assert_eq!(bundle.ok(&["list", "-q"]), "");
    };
    for (path, words) in [
        ("/a/path", "slice:prefix:name"),
        ("a:b:c", "invalid slice name: a"),
        ("user.slice/x.slice:p:n", "no name of a unit"),
    ] {
        bundle.change(|spec| spec["linux"]["cgroupsPath"] = path.into());
        error(words);
    }
    bundle.change(|spec| spec["linux"]["cgroupsPath"] = "".into());
    if !systemd::is_there() {
        // Not a word of D-Bus, but where it would be spoken.
        error("/run/systemd/private is not there");
        return;
    }
    for (key, text, words) in [
        ("org.systemd.property.X", "true", "no name of a property"),
        ("org.systemd.property.TimeoutStopUSec", "soon", "\\\"soon\\\""),
        ("org.systemd.property.NoSuchProperty", "true", "systemd says"),
    ] {
        bundle.change(|spec| spec["annotations"] = json!({key: text}));
        error(words);
    }
}

/// Podman gives the option with every verb.
#[test]
fn the_option_does_not_matter_to_the_other_verbs() {
    let bundle = Bundle::new("sleep 1000");
    let id = bundle.id("other");
    bundle.create(&id);
    for verb in [&["state"][..], &["update", "--pids-limit", "50"], &["start"], &["delete", "--force"]] {
        bundle.ok(&[&["--systemd-cgroup"], verb, &[&*id]].concat());
    }
}
