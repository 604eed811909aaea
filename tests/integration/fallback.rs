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
/// What is not done once more without them, and why.
const LEFT_OUT: [(&str, &[&str]); 6] = [
    (
        "other people's daemons, which are theirs to write",
        &["containerd::", "cri::", "docker::", "nested::", "podman::", "podman_v2::", "oci_systemd::"],
    ),
    (
        "images, registries and pages: bytes and files, where no such call is",
        &[
            "demo::",
            "demo_image::",
            "explain_html::",
            "hostile_images::",
            "hostile_metadata::",
            "hostile_registry::",
            "hostile_upload::",
            "image_peers::",
            "images::",
            "login::",
            "manifest::",
            "manifests::",
            "platforms::",
            "progress::",
            "push::",
            "referrers::",
            "registry_peers::",
            "store::",
            "store_check::",
        ],
    ),
    (
        "what is done hundreds of times, in minutes",
        &[
            "build_pulls::",
            "disk::",
            "fail_points::",
            "faults::",
            "full_disk::",
            // The racer of a2 is the same.
            "hostile_mounts::a3",
            "hostile_mounts::a9",
            "containers::a_kill_at_any",
            "kill::",
            "kill_build::",
            "oci_conformance::",
            "oci_namespaces::",
        ],
    ),
    (
        "about the tests themselves, or about the whole host, where others of them run at the same time",
        &["build::layers_that_a_build", "corner::", "fallback::"],
    ),
    (
        "about the calls that are missing, or about how many filters are in force, or how often a kill meets its window",
        &[
            "hostile_exe::a11_the_mount",
            "isolation::a_privileged_container_has_what_the_host_has",
            "isolation::the_filter_is_in_force",
            "isolation::a_profile_of_the_users_replaces",
            "lesson::the_lesson_has_the_stages",
            "oci::a_create_that_is_killed_at_any_moment",
            "oci_exec::a_kill_at_any_moment",
            "oci_exec::its_calls_are_told",
            // A bind of the host's /proc would show where the mounts are made: an error.
            "verify::what_does_not_hold_is_marked",
        ],
    ),
    (
        "a new user namespace, and more than 128 layers, need detached mounts, and say so",
        &[
            "hostile_identity::b7_nobody",
            "hostile_identity::b8_mappings",
            "layers::",
            "oci_exec::a_user_namespace_is_entered",
            "oci_netdev::a_container_with_users",
            "oci_spec::a_new_specification",
            "oci_spec::sysctls_of_a_user_namespace",
            "oci_users::",
        ],
    ),
];

/// Does the named tests without `calls`, all but those that are left out if none is named.
fn without(calls: &str, tests: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull-probe"));
    command.args(["without", calls]).arg(std::env::current_exe().unwrap()).args(tests);
    again(command, &format!("without {calls}"));
}

/// Runs the tests of `command`, but for those that are left out.
fn again(mut command: Command, how: &str) {
    command.args(LEFT_OUT.iter().flat_map(|(_, names)| *names).flat_map(|name| ["--skip", name]));
    // What is skipped is counted where the same tests are done with all calls.
    let output = command.env("HULL_BIN", hull_bin()).env_remove("HULL_SKIPPED").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{how}: {told}\n{}", String::from_utf8_lossy(&output.stderr));
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
    without(&CALLS.join(","), &[]);
}

/// The store lies on an overlay, which cannot be the upper part of another.
#[test]
fn overlay_can_be_refused() {
    let folder = tempfile::tempdir().unwrap();
    let script = "cd \"$1\"; mkdir lower upper work top; shift; \
                  mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay top; cd top; \
                  $HULL_BIN --root $PWD/store --runroot $PWD/run info | grep -q '^Storage driver: vfs'; TMPDIR=$PWD exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-ec", script, "sh"]).arg(folder.path()).arg(std::env::current_exe().unwrap());
    command.args(["build::", "containers::", "hostile_mounts::a1", "init::", "isolation::", "limits::", "run::"]);
    // It says how an overlay looks.
    command.args(["--skip", "isolation::the_root_of_an_image_is_an_overlay"]);
    again(command, "without overlay");
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
