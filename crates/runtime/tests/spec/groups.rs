//! Control groups by path, their view in the container, resources.

use serde_json::json;

use crate::case::Case;
use crate::tests;

fn cgroup_mount() -> serde_json::Value {
    json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]})
}

tests! {
    fn a_group_by_path_is_the_containers_in_every_hierarchy() {
        let path = format!("/hull-test-path-{}", std::process::id());
        let case = Case::new("cat /proc/self/cgroup")
            .namespaces(&["mount", "pid", "uts", "ipc", "network"])
            .with("/linux/cgroupsPath", json!(path));
        let text = case.text();
        // One that is mounted nowhere, which /proc lists too, nobody can make a group in.
        let mounted = hull_runtime::cgroup::Host::detect().unwrap().hierarchies.len();
        assert_eq!(text.lines().filter(|line| line.ends_with(&path)).count(), mounted, "{text}");
    }

    fn the_view_of_the_groups_begins_at_the_containers_own() {
        let path = format!("/hull-test-view-{}/deep", std::process::id());
        let case = Case::new("cat /proc/self/cgroup; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true")
            .with("/linux/cgroupsPath", json!(path))
            .mount(cgroup_mount());
        let text = case.text();
        assert!(text.lines().filter(|line| line.contains(':')).all(|line| line.ends_with(":/")), "{text}");
        assert_eq!(text.lines().last(), Some("100"), "{text}");
        let out = case.with("/linux/cgroupsPath", json!("/a/../../b"));
        assert!(out.error().contains("leads upwards"), "{}", out.error());
        for hierarchy in hull_runtime::cgroup::Host::detect().unwrap().hierarchies {
            let above = hierarchy.mount.join(std::path::Path::new(&path[1..]).parent().unwrap());
            std::fs::remove_dir(above).unwrap();
        }
    }

    /// On v1, where a hierarchy would show everybody's groups, and a user namespace cannot mount one at all.
    fn without_a_cgroup_namespace_the_view_is_the_hosts_and_on_v1_only_the_containers_groups() {
        let unified = hull_runtime::cgroup::Host::detect().unwrap().unified();
        let own = if unified { "$(sed 's/^0:://' /proc/self/cgroup)" } else { "/pids" };
        let script = format!(
            "cat /sys/fs/cgroup{own}/pids.max; ls -d /sys/fs/cgroup/pids/*/ 2>&1 | grep -c 'No such'; \
             touch /sys/fs/cgroup/x /sys/fs/cgroup{own}/x 2>&1 | grep -c Read-only"
        );
        for kinds in [&["mount", "pid", "uts", "ipc", "network"][..], &["mount", "pid", "user", "network"]] {
            let map = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
            let mut case = Case::new(&script).namespaces(kinds).mount(cgroup_mount());
            if kinds.contains(&"user") {
                case = case.with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map);
            }
            assert_eq!(case.text(), "100\n1\n2\n", "{kinds:?}");
        }
    }

    fn resources_are_in_the_files_of_the_group() {
        let resources = json!({
            "pids": {"limit": 50},
            "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": -1},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "burst": 10_000, "cpus": "0", "mems": "0"},
        });
        let v1 = "pids.max 50;memory.limit_in_bytes 67108864;memory.soft_limit_in_bytes 33554432;cpu.shares 512;\
                  cpu.cfs_quota_us 50000;cpu.cfs_burst_us 10000;cpuset.cpus 0";
        let v2 = "pids.max 50;memory.max 67108864;memory.low 33554432;memory.swap.max max;cpu.weight 20;\
                  cpu.max 50000 100000;cpu.max.burst 10000;cpuset.cpus 0";
        let wanted = if hull_runtime::cgroup::Host::detect().unwrap().unified() { v2 } else { v1 };
        let files: Vec<&str> = wanted.split(';').filter_map(|line| line.split(' ').next()).collect();
        let script = format!(
            "cd /sys/fs/cgroup; for f in {}; do echo $f $(cat $f */$f 2>/dev/null); done", files.join(" ")
        );
        let case = Case::new(&script).with("/linux/resources", resources).mount(cgroup_mount());
        assert_eq!(case.text().lines().collect::<Vec<_>>().join(";"), wanted);
    }
}
