//! Kernels, and filters in front of them, that lack calls: the other tests once more, where a call answers ENOSYS.
//!
//! The test program is executed again under a filter, which hull and all that it starts inherit.

use std::process::Command;

use hull_tests::hull_bin;

/// By their numbers on x86-64.
const CALLS: [&str; 7] = [
    "openat2=437",
    "open_tree=428",
    "fsopen=430",
    "mount_setattr=442",
    "clone3=435",
    "pidfd_open=434",
    "close_range=436",
];
/// Each has to be passed without all of them.
const WHOLE: [&str; 18] = [
    "build::",
    "explain::",
    "hostile_exe::",
    "hostile_host::a10_a_command",
    "hostile_host::a10_a_hook",
    "hostile_host::a16",
    "hostile_mounts::a1",
    "hostile_mounts::a4",
    "hostile_mounts::a5",
    "hostile_mounts::a6",
    "hostile_mounts::a8",
    "init::",
    "isolation::",
    "limits::",
    "oci::",
    "oci_exec::",
    "oci_hooks::",
    "run::",
];
/// What is about the calls themselves: another filter is in force, or there is a user namespace, which needs detached
/// mounts and says so; or how often a kill meets its window.
const OTHERWISE: [&str; 7] = [
    "isolation::a_privileged_container_has_what_the_host_has",
    "isolation::the_filter_is_in_force",
    "isolation::a_profile_of_the_users_replaces",
    "oci::a_create_that_is_killed_at_any_moment",
    "oci_exec::a_kill_at_any_moment",
    "oci_exec::a_user_namespace_is_entered",
    "oci_exec::its_calls_are_told",
];

/// Does the named tests without `calls`.
fn without(calls: &str, tests: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull-probe"));
    command.args(["without", calls]).arg(std::env::current_exe().unwrap()).args(tests);
    command.args(OTHERWISE.iter().flat_map(|name| ["--skip", name]));
    let output = command.env("HULL_BIN", hull_bin()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "without {calls}: {told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(!told.contains("running 0 tests"), "{told}");
}

#[test]
fn each_call_alone_can_be_missing() {
    for call in CALLS {
        without(call, &["run::", "init::", "hostile_exe::a11_hull_as", "hostile_mounts::a4", "oci_exec::its_status"]);
    }
}

#[test]
fn all_of_them_can_be_missing() {
    without(&CALLS.join(","), &WHOLE);
}

/// What cannot be done then is an error with the call's name.
#[test]
fn a_user_namespace_needs_detached_mounts_and_says_so() {
    let bundle = hull_tests::bundle::Bundle::new("true");
    bundle.change(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(serde_json::json!({"type": "user"}));
        let map = serde_json::json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
    });
    let run = bundle.command(&["run", "-b", ".", &bundle.id("user")]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull-probe"));
    command.args(["without", "open_tree=428"]).arg(run.get_program()).args(run.get_args());
    let said = hull_tests::Said::from(command.current_dir(bundle.corner.path()).output().unwrap());
    assert!(said.code == 1 && said.err.contains("open_tree") && said.err.contains("ENOSYS"), "{said:?}");
}
