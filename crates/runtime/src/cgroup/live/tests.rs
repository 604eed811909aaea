//! On this machine's real hierarchies, as root; every group is called `hull-test-…` and goes with its guard.

use std::process::{Child, Command};

use super::*;
use crate::cgroup::{leftovers, plan};

struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // It may have been killed by the test already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A group with `resources`, whose name ends in the test's.
fn make(test: &str, resources: serde_json::Value) -> Result<Cgroup> {
    let resources = serde_json::from_value(resources).unwrap();
    let host = Host::detect().unwrap();
    let place = Place::Beside(format!("hull-test-{test}-{}", std::process::id()));
    Cgroup::create(&host, &place, &plan(&host, &resources)?)
}

/// Puts a process in, wherever its group is.
fn join(cgroup: &Cgroup, pid: i32) {
    cgroup.groups.iter().for_each(|group| group.set("cgroup.procs", &pid.to_string()).unwrap());
}

/// What the first of `files` that there is says.
fn value(cgroup: &Cgroup, files: &[&str]) -> String {
    let mut texts = cgroup.groups.iter().flat_map(|group| files.iter().filter_map(|file| group.get(file).ok()));
    texts.next().unwrap().trim().to_owned()
}

#[test]
fn limits_are_in_force_and_the_groups_go() {
    let cgroup = make("limits", serde_json::json!({"pids": {"limit": 7}, "memory": {"limit": 33554432}})).unwrap();
    let sleeper = Sleeper::start();
    join(&cgroup, sleeper.pid());
    assert_eq!(value(&cgroup, &["pids.max"]), "7");
    assert_eq!(value(&cgroup, &["memory.max", "memory.limit_in_bytes"]), "33554432");
    assert_eq!(cgroup.processes().unwrap(), [sleeper.pid()]);
    let paths: Vec<PathBuf> = cgroup.paths().map(Path::to_owned).collect();
    assert!(leftovers(&Host::detect().unwrap()).iter().any(|path| paths.contains(path)));
    // The sleeper is killed: a container that ends takes all of its processes along.
    cgroup.remove().unwrap();
    assert!(paths.iter().all(|path| !path.exists()));
}

#[test]
fn a_path_names_one_group_in_every_hierarchy_and_its_parents_stay() {
    let host = Host::detect().unwrap();
    let above = format!("hull-test-above-{}", std::process::id());
    for path in [format!("/{above}/deep/er"), format!("{above}/deep/er")] {
        let place = Place::from_spec(Path::new(&path)).unwrap();
        let resources = serde_json::from_value(serde_json::json!({"pids": {"limit": 7}})).unwrap();
        let writes = plan(&host, &resources).unwrap();
        let cgroup = Cgroup::create(&host, &place, &writes).unwrap();
        let folders = folders(&host, &place, &writes);
        assert_eq!(folders.len(), host.hierarchies.len());
        assert!(folders.iter().all(|folder| folder.ends_with(path.trim_start_matches('/')) && folder.exists()));
        let sleeper = Sleeper::start();
        join(&cgroup, sleeper.pid());
        let mine = std::fs::read_to_string(format!("/proc/{}/cgroup", sleeper.pid())).unwrap();
        assert_eq!(mine.lines().filter(|line| line.ends_with("/deep/er")).count(), host.hierarchies.len(), "{mine}");
        // A second container cannot have the same group.
        let error = Cgroup::create(&host, &place, &writes).unwrap_err();
        assert!(error.to_string().contains("it holds processes already"), "{error}");
        cgroup.remove().unwrap();
        for folder in folders {
            assert!(!folder.exists());
            let above: Vec<&Path> = folder.ancestors().skip(1).take(2).collect();
            above.iter().for_each(|above| std::fs::remove_dir(above).unwrap());
        }
    }
}

#[test]
fn nested_groups_are_emptied_and_removed() {
    let cgroup = make("nested", serde_json::json!({"pids": {"limit": 7}})).unwrap();
    let inner = cgroup.groups[0].path.join("a");
    std::fs::create_dir_all(inner.join("b")).unwrap();
    let sleeper = Sleeper::start();
    std::fs::write(inner.join("b/cgroup.procs"), sleeper.pid().to_string()).unwrap();
    assert_eq!(cgroup.processes().unwrap(), [sleeper.pid()]);
    let path = cgroup.groups[0].path.clone();
    cgroup.remove().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_refused_value_names_file_and_value_and_leaves_nothing() {
    let error = make("refused", serde_json::json!({"cpu": {"cpus": "99999"}})).unwrap_err();
    assert!(error.doing.contains("99999") && error.doing.contains("cpuset.cpus"), "{error}");
    let name = format!("hull-test-refused-{}", std::process::id());
    assert!(!leftovers(&Host::detect().unwrap()).iter().any(|path| path.ends_with(&name)));
}

#[test]
fn devices_are_denied_unless_a_rule_allows_them() {
    let rules = serde_json::json!({"devices": [
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "r"}
    ]});
    let cgroup = make("devices", rules).unwrap();
    let script = "read go; cat /dev/null && head -c 1 /dev/zero >/dev/null && ! true >/dev/zero && ! cat /dev/full";
    let mut shell = Command::new("sh")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    join(&cgroup, shell.id() as i32);
    std::io::Write::write_all(shell.stdin.as_mut().unwrap(), b"go\n").unwrap();
    assert!(shell.wait().unwrap().success());
    cgroup.remove().unwrap();
}

#[test]
fn frozen_processes_stand_still_until_they_are_thawed() {
    let host = Host::detect().unwrap();
    let freezer = host.controller("freezer").map(|_| "freezer").unwrap_or("");
    let mut cgroup = make("freeze", serde_json::json!({"pids": {"limit": 7}})).unwrap();
    if freezer == "freezer" {
        let name = cgroup.groups[0].path.file_name().unwrap().to_str().unwrap().to_owned();
        cgroup.make(host.controller("freezer").unwrap(), &Place::Beside(name.clone())).unwrap();
    }
    let sleeper = Sleeper::start();
    join(&cgroup, sleeper.pid());
    cgroup.freeze().unwrap();
    cgroup.thaw().unwrap();
    cgroup.kill_all().unwrap();
    cgroup.remove().unwrap();
}

fn writes(resources: serde_json::Value) -> Vec<Write> {
    plan(&Host::detect().unwrap(), &serde_json::from_value(resources).unwrap()).unwrap()
}

#[test]
fn limits_of_memory_with_swap_grow_and_shrink() {
    let host = Host::detect().unwrap();
    let memory = |limit: i64, swap: i64| serde_json::json!({"memory": {"limit": limit << 20, "swap": swap << 20}});
    let cgroup = make("grow", memory(32, 48)).unwrap();
    for (limit, swap) in [(64, 96), (16, 24), (96, 96), (32, 512)] {
        cgroup.update(&host, &writes(memory(limit, swap))).unwrap();
        assert_eq!(value(&cgroup, &["memory.max", "memory.limit_in_bytes"]), (limit << 20).to_string());
        let (alone, both) = (((swap - limit) << 20).to_string(), (swap << 20).to_string());
        let found = value(&cgroup, &["memory.swap.max", "memory.memsw.limit_in_bytes"]);
        assert!(found == alone || found == both, "{found}");
    }
    cgroup.remove().unwrap();
}

/// Shown to fail without the way back in `Cgroup::update`: the limit of processes stays at 9 then.
#[test]
fn an_update_of_which_a_part_is_refused_changes_nothing() {
    let host = Host::detect().unwrap();
    let cgroup =
        make("undo", serde_json::json!({"pids": {"limit": 7}, "cpu": {"cpus": "0", "shares": 512}})).unwrap();
    let before = value(&cgroup, &["cpu.weight", "cpu.shares"]);
    let update = serde_json::json!({"pids": {"limit": 9}, "cpu": {"shares": 2048, "cpus": "4000"}});
    let error = cgroup.update(&host, &writes(update)).unwrap_err();
    assert!(error.doing.contains("\"4000\"") && error.doing.contains("cpuset.cpus"), "{error}");
    assert!(!error.cause.contains("take back"), "{error}");
    assert_eq!(value(&cgroup, &["pids.max"]), "7");
    assert_eq!(value(&cgroup, &["cpu.weight", "cpu.shares"]), before);
    cgroup.remove().unwrap();
}

/// The number of a block device that can be throttled.
fn disk() -> String {
    let disks = std::fs::read_dir("/sys/block").unwrap().flatten();
    let sized = |disk: &Path| std::fs::read_to_string(disk.join("size")).is_ok_and(|size| size.trim() != "0");
    let disk = disks.map(|entry| entry.path()).find(|disk| sized(disk)).expect("a disk");
    std::fs::read_to_string(disk.join("dev")).unwrap().trim().to_owned()
}

/// Each field of the specification is in force, as the kernel's file says, or is an error that names it; none is skipped.
#[test]
fn every_field_is_in_its_file_or_an_error_that_names_it() {
    use serde_json::json;
    let disk = disk();
    let (major, minor) = disk.split_once(':').unwrap();
    let (major, minor): (u32, u32) = (major.parse().unwrap(), minor.parse().unwrap());
    let rate = json!([{"major": major, "minor": minor, "rate": 1_048_576}]);
    let cases = [
        (json!({"memory": {"limit": 64 << 20}}), "memory.limit", "67108864"),
        (json!({"memory": {"limit": 64 << 20, "swap": 128 << 20}}), "memory.swap", "67108864|134217728"),
        (json!({"memory": {"reservation": 4 << 20}}), "memory.reservation", "4194304"),
        (json!({"memory": {"kernel": 4 << 20}}), "memory.kernel", "4194304"),
        (json!({"memory": {"kernelTCP": 4 << 20}}), "memory.kernelTCP", "4194304"),
        (json!({"memory": {"swappiness": 17}}), "memory.swappiness", "17"),
        (json!({"memory": {"disableOOMKiller": true}}), "memory.disableOOMKiller", "oom_kill_disable 1"),
        (json!({"memory": {"useHierarchy": false}}), "memory.useHierarchy", "0"),
        (json!({"cpu": {"shares": 2000}}), "cpu.shares", "2000|170"),
        (json!({"cpu": {"idle": 1}}), "cpu.idle", "1"),
        (json!({"cpu": {"quota": 30000, "period": 60000}}), "cpu.quota", "30000|30000 60000"),
        (json!({"cpu": {"quota": 30000, "burst": 7000}}), "cpu.burst", "7000"),
        (json!({"cpu": {"realtimeRuntime": 1000}}), "realtime", "1000"),
        (json!({"cpu": {"cpus": "0", "mems": "0"}}), "cpu.cpus", "0"),
        (json!({"pids": {"limit": 33}}), "pids.limit", "33"),
        (json!({"blockIO": {"weight": 300}}), "blockIO.weight", "300|default 300|2930|default 2930"),
        (json!({"blockIO": {"leafWeight": 300}}), "blockIO.leafWeight", "300"),
        (json!({"blockIO": {"throttleReadBpsDevice": rate}}), "blockIO.throttle", "1048576"),
        (json!({"blockIO": {"throttleWriteIOPSDevice": rate}}), "blockIO.throttle", "1048576"),
        (json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 2 << 20}]}), "hugepageLimits", "2097152"),
        (json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}), "hugepageLimits", "no such size"),
        (json!({"network": {"classID": 1_048_577}}), "network", "1048577"),
        (json!({"network": {"priorities": [{"name": "lo", "priority": 7}]}}), "network", "lo 7"),
        (json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}}), "rdma", "no such device"),
        (json!({"unified": {"memory.high": "33554432"}}), "unified", "33554432"),
    ];
    let host = Host::detect().unwrap();
    let mut in_force = 0;
    for (json, field, expected) in cases {
        let resources = serde_json::from_value(json.clone()).unwrap();
        let cgroup = match make("fields", json.clone()) {
            Err(error) => {
                assert!(error.doing.contains(field), "{json}: {error}");
                continue;
            }
            Ok(cgroup) => cgroup,
        };
        let write = plan(&host, &resources).unwrap().pop().unwrap();
        let found = match &write.instead {
            Some((file, _)) => value(&cgroup, &[&write.file, file]),
            None => value(&cgroup, &[&write.file]),
        };
        let said = |expected: &str| found.lines().any(|line| line == expected);
        let rate = found.starts_with(&disk) && found.contains(expected);
        assert!(expected.split('|').any(said) || rate, "{json}: {found:?}");
        in_force += 1;
        cgroup.remove().unwrap();
    }
    assert!(in_force >= 12, "only {in_force} fields are in force");
}

#[test]
fn v1_groups_wait_for_the_process_and_those_of_v2_do_not() {
    let host = Host::detect().unwrap();
    let name = format!("/hull-test-later-{}", std::process::id());
    let place = Place::from_spec(Path::new(&name)).unwrap();
    let resources = serde_json::from_value(serde_json::json!({"pids": {"limit": 7}})).unwrap();
    let writes = plan(&host, &resources).unwrap();
    let mut cgroup = Cgroup::begin(&host, &place, &writes).unwrap();
    let there = |version| {
        let of_version = host.hierarchies.iter().filter(|hierarchy| hierarchy.version == version);
        of_version.map(|hierarchy| place.folder(hierarchy).exists()).collect::<Vec<_>>()
    };
    let has_v1 = !there(Version::V1).is_empty();
    assert!(there(Version::V2).iter().all(|there| *there) && !there(Version::V1).contains(&true));
    assert_eq!((cgroup.is_whole(), cgroup.is_being_made()), (!has_v1, has_v1));
    let view = cgroup.view();
    cgroup.complete().unwrap();
    assert!(cgroup.is_whole() && there(Version::V1).iter().all(|there| *there));
    // What the process that was there before takes for the container's groups is what they are.
    assert_eq!(view, cgroup.view());
    assert_eq!(value(&cgroup, &["pids.max"]), "7");
    cgroup.remove().unwrap();
    assert!(!there(Version::V1).contains(&true) && !there(Version::V2).contains(&true));
}
