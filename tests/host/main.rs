//! One serial test that compares the whole host before and after runs that succeed and runs that fail.
//!
//! It is a binary of its own, so that no other test runs beside it.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;

use hull_tests::{Corner, hull_groups};

/// Everything a container could leave: mounts, groups, namespaces, links, processes of ours.
fn snapshot() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    all.extend(mounts.lines().map(|line| format!("mount {line}")));
    all.extend(hull_groups().iter().map(|path| format!("group {}", path.display())));
    all.extend(hull_tests::entries("/sys/class/net".as_ref()).iter().map(|name| format!("link {name}")));
    for pid in hull_tests::entries("/proc".as_ref()).iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if command.contains("hull") && command.contains("run") {
            all.insert(format!("process {pid} {command}"));
        }
        for kind in ["mnt", "pid", "uts", "ipc", "net", "cgroup"] {
            if let Ok(link) = fs::read_link(format!("/proc/{pid}/ns/{kind}")) {
                all.insert(format!("namespace {}", link.display()));
            }
        }
    }
    all
}

#[test]
fn the_host_is_the_same_after_any_run() {
    let corner = Corner::new();
    let before = snapshot();
    for _ in 0..20 {
        assert_eq!(corner.run(&["--tmpfs", "/t", "-m", "64m"], &["true"]).code, 0);
    }
    corner.run(&[], &["not-there"]);
    corner.run(&["-v", "/no/such:/x"], &["true"]);
    corner.run(&["--cpuset-cpus", "4000"], &["true"]);
    corner.run(&["--user", "nobody-here"], &["true"]);
    std::os::unix::fs::symlink("/", corner.rootfs().join("sys-link")).unwrap();
    corner.run(&["--tmpfs", "/sys-link/tmp/../../x"], &["true"]);
    let after = snapshot();
    let left: Vec<_> = after.difference(&before).collect();
    assert!(left.is_empty(), "left behind: {left:#?}");
}
