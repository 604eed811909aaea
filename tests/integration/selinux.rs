//! Labels of SELinux, on a machine where it is in force. One that has no policy yet gets the one that `HULL_SELINUX_POLICY`
//! names; others have to know the types of Fedora's containers.

use std::fs;
use std::process::Command;

use hull_tests::bundle::Bundle;
use hull_tests::skipped;
use serde_json::json;

/// Labels of a process and of files, with categories, in which there is a comma.
fn labels(test: &str) -> Option<[&'static str; 2]> {
    if !fs::exists("/sys/fs/selinux/load").unwrap() {
        skipped(test, "SELinux is not in force on this machine");
        return None;
    }
    let current = || fs::read_to_string("/proc/self/attr/current").unwrap();
    if current().trim_end_matches('\0') != "kernel" && !current().starts_with("base_u:") {
        return Some(["system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"]);
    }
    // The tests run at the same time; whoever is second loads the same once more.
    let Some(policy) = std::env::var_os("HULL_SELINUX_POLICY") else {
        skipped(test, "SELinux has no policy on this machine, and HULL_SELINUX_POLICY names none");
        return None;
    };
    fs::write("/sys/fs/selinux/load", fs::read(policy).unwrap()).unwrap();
    Some(["base_u:base_r:hull_t:s0:c1,c2", "base_u:object_r:hull_file_t:s0:c1,c2"])
}

/// A6. Shown to fail: with `lsm::label_exec` that leaves the label out the command has the caller's.
#[test]
fn a6_the_command_has_its_label_and_so_have_an_exec_and_its_keys() {
    let Some([label, _]) = labels("a6_the_command_has_its_label_and_so_have_an_exec_and_its_keys") else { return };
    let bundle = Bundle::new("exec cat /proc/self/attr/current");
    let id = bundle.id("label");
    for (privileges, users) in [(true, false), (false, false), (false, true)] {
        bundle.change(|spec| {
            spec["process"]["selinuxLabel"] = label.into();
            spec["process"]["noNewPrivileges"] = privileges.into();
            if users {
                spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
                let map = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
                spec["linux"]["uidMappings"] = map.clone();
                spec["linux"]["gidMappings"] = map;
            }
        });
        let said = bundle.oci(&["--debug", "--log", "log", "run", &id]);
        assert_eq!(said.out.trim_end_matches('\0'), label, "{said:?}");
        let log = fs::read_to_string(bundle.corner.path().join("log")).unwrap();
        let at = |words: &str| log.find(words).unwrap_or_else(|| panic!("{words}: {log}"));
        assert!(at("attr/keycreate") < at("KEYCTL_JOIN_SESSION_KEYRING"), "{log}");
    }
    bundle.change(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    bundle.start(&id);
    let exec = |flags: &[&str]| bundle.exec(flags, &id, "exec cat /proc/self/attr/current").out;
    assert_eq!(exec(&[]).trim_end_matches('\0'), label);
    let other = label.replace(":c1,c2", ":c3");
    assert_eq!(exec(&["--process-label", &other]).trim_end_matches('\0'), other);
    let unknown = bundle.exec(&["--process-label", "a:b:c:s0"], &id, "true");
    assert!(unknown.code == 255 && unknown.err.contains("the policy in force does not know it"), "{unknown:?}");
    bundle.ok(&["delete", "--force", &id]);
}

/// Shown to fail: with `takes_label` that says no.
#[test]
fn the_files_of_the_containers_own_file_systems_have_the_label() {
    let Some([_, label]) = labels("the_files_of_the_containers_own_file_systems_have_the_label") else { return };
    let bundle = Bundle::new("sleep 1000");
    let id = bundle.id("files");
    let own = label.replace(":c1,", ":c0,");
    bundle.change(|spec| {
        spec["linux"]["mountLabel"] = label.into();
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/own", "type": "tmpfs", "source": "own", "options": [format!("context=\"{own}\"")]}));
    });
    bundle.start(&id);
    let pid = bundle.state(&id)["pid"].to_string();
    let of = |path: &str| {
        let path = format!("/proc/{pid}/root{path}");
        let script = "import os, sys; print(os.getxattr(sys.argv[1], 'security.selinux').decode().rstrip('\\0'))";
        let said = Command::new("python3").args(["-c", script, &path]).output().unwrap();
        String::from_utf8(said.stdout).unwrap().trim_end().to_owned()
    };
    for path in ["/dev", "/dev/null", "/dev/pts/ptmx", "/dev/shm", "/dev/mqueue", "/sys/firmware"] {
        assert_eq!(of(path), label, "{path}");
    }
    assert_eq!(of("/own"), own);
    assert!(of("/proc/version") != label && of("/bin/busybox") != label);
    bundle.ok(&["delete", "--force", &id]);
}
