//! What belongs to whom in a container with a user namespace, and what its root can do without a PID namespace of its own.

use std::os::unix::fs::chown;

use hull_tests::bundle::Bundle;
use serde_json::{Value, json};

/// A bundle whose container has a new user namespace.
fn bundle(script: &str) -> Bundle {
    let bundle = Bundle::new(script);
    // The container's root makes its mount points.
    chown(bundle.corner.rootfs(), Some(100_000), Some(100_000)).unwrap();
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    bundle.change(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
    });
    bundle
}

/// What a namespace shows belongs to whoever makes it. Shown to fail where the clone makes them all, before its process is
/// anybody: queues and network are nobody's then.
#[test]
fn what_is_the_containers_own_is_its_roots() {
    let paths =
        ["/dev/mqueue", "/dev/shm", "/proc/sys/kernel/msgmax", "/proc/1", "/proc/net/dev", "/sys/class/net/lo"];
    let bundle = bundle(&format!("stat -c '%u:%g %n' {}", paths.join(" ")));
    let said = bundle.ok(&["run", &bundle.id("owned")]);
    assert_eq!(said, paths.map(|path| format!("0:0 {path}\n")).concat());
}

/// Nobody can mount a procfs there, and the settings of its network are its own all the same: what Podman asks for with
/// `--pid host` where it is not root.
#[test]
fn a_setting_of_its_own_is_set_also_with_the_hosts_processes() {
    let bundle = bundle("cat /proc/sys/net/ipv4/ip_forward; touch /proc/sys/net/ipv4/ip_forward 2>&1");
    bundle.change(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        for mount in spec["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "proc" {
                *mount = json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]});
            }
        }
        spec["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
        spec["linux"]["maskedPaths"] = Value::Null;
    });
    let before = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let said = bundle.oci(&["run", &bundle.id("host")]);
    assert!(said.out.starts_with("1\n") && said.out.contains("Read-only file system"), "{said:?}");
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), before);
}
