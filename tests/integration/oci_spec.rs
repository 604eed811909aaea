//! `spec` and `features`: what they say is what runc says, and is so.

use std::fs;

use hull_tests::bundle::Bundle;
use serde_json::{Value, json};

fn config(bundle: &Bundle) -> Value {
    serde_json::from_slice(&fs::read(bundle.corner.path().join("config.json")).unwrap()).unwrap()
}

/// But for its name, the version, and the ambient capabilities that later versions of runc leave out.
#[test]
fn a_new_specification_is_runcs_and_starts() {
    for flags in [&["spec"][..], &["spec", "--rootless"]] {
        let bundle = Bundle::new("true");
        let path = bundle.corner.path().join("config.json");
        fs::remove_file(&path).unwrap();
        let runc = std::process::Command::new("runc").args(flags).current_dir(bundle.corner.path()).status().unwrap();
        assert!(runc.success());
        let mut runcs = config(&bundle);
        let said = bundle.oci(flags);
        assert!(said.code == 1 && said.err.contains("File config.json exists. Remove it first"), "{said:?}");
        fs::remove_file(&path).unwrap();
        bundle.ok(flags);
        let ours = config(&bundle);
        runcs["ociVersion"] = "1.3.0".into();
        runcs["hostname"] = "hull".into();
        runcs["process"]["capabilities"].as_object_mut().unwrap().remove("ambient");
        assert_eq!(ours, runcs, "{flags:?}");
        bundle.change(|spec| {
            spec["process"]["terminal"] = false.into();
            spec["process"]["args"] = ["sh", "-c", "hostname"].as_slice().into();
        });
        assert_eq!(bundle.ok(&["run", &bundle.id("spec")]), "hull\n", "{flags:?}");
    }
}

#[test]
fn every_feature_that_runc_tells_is_told() {
    let bundle = Bundle::new("true");
    let ours: Value = serde_json::from_str(&bundle.ok(&["features"])).unwrap();
    let runcs = std::process::Command::new("runc").arg("features").output().unwrap();
    let runcs: Value = serde_json::from_slice(&runcs.stdout).unwrap();
    let has = |list: &Value, word: &Value| list.as_array().unwrap().contains(word);
    for list in
        ["/hooks", "/linux/namespaces", "/linux/capabilities", "/linux/seccomp/actions", "/linux/seccomp/operators"]
    {
        for word in runcs.pointer(list).unwrap().as_array().unwrap() {
            assert!(has(ours.pointer(list).unwrap(), word), "{list}: {word}");
        }
    }
    for (field, enabled) in [("selinux", true), ("apparmor", true), ("netDevices", true), ("intelRdt", true)] {
        assert_eq!(ours["linux"][field]["enabled"], enabled, "{field}");
    }
}

/// Limits of what may be made in a user namespace are that namespace's own (runc 1.5 sets them as well).
#[test]
fn sysctls_of_a_user_namespace_are_set_in_one_and_refused_without() {
    let name = "user.max_ipc_namespaces";
    let host = fs::read_to_string("/proc/sys/user/max_ipc_namespaces").unwrap();
    let bundle = Bundle::new("read limit < /proc/sys/user/max_ipc_namespaces; echo $limit");
    bundle.change(|spec| spec["linux"]["sysctl"] = json!({name: "7"}));
    let said = bundle.oci(&["run", &bundle.id("shared")]);
    assert!(said.code == 1 && said.err.contains(name), "{said:?}");
    bundle.change(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
    });
    assert_eq!(bundle.ok(&["run", &bundle.id("own")]), "7\n");
    assert_eq!(fs::read_to_string("/proc/sys/user/max_ipc_namespaces").unwrap(), host);
}
