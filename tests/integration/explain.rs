//! The explanation, held against what `strace -f` saw of the same run.

use std::fs;
use std::process::Command;

use hull_tests::{Corner, Said, hull_bin};
use serde_json::Value;

pub const COUNTED: [&str; 12] = [
    "clone3",
    "unshare",
    "setns",
    "pivot_root",
    "mount",
    "move_mount",
    "mount_setattr",
    "umount2",
    "sethostname",
    "capset",
    "seccomp",
    "execve",
];

fn explained(corner: &Corner, flags: &[&str], command: &[&str]) -> (String, String, Said) {
    let (told, seen) = (corner.path().join("told.json"), corner.path().join("seen"));
    let mut strace = Command::new("strace");
    strace.arg("-f").arg("-e").arg(format!("trace={}", COUNTED.join(","))).arg("-o").arg(&seen);
    strace.arg(hull_bin()).envs(corner.env()).args(["run", "--rm", "--rootfs"]).arg(corner.rootfs());
    strace.arg(format!("--explain=json:{}", told.display())).args(flags).arg("--").args(command);
    let said = Said::from(strace.output().expect("strace is installed"));
    corner.assert_clean();
    (fs::read_to_string(told).unwrap(), fs::read_to_string(seen).unwrap(), said)
}

/// How often strace saw a call begin; the execve of hull itself, which strace makes, is not hull's.
pub fn seen_count(seen: &str, name: &str) -> usize {
    let begins =
        |line: &&str| line.split_whitespace().nth(1).is_some_and(|call| call.starts_with(&format!("{name}(")));
    let count = seen.lines().filter(begins).count();
    if name == "execve" { count - 1 } else { count }
}

/// How many lines of the explanation tell of a call.
pub fn told_count(told: &str, name: &str) -> usize {
    told.lines().filter(|line| line.contains(&format!("\"{name}\""))).count()
}

#[test]
fn the_story_has_exactly_the_calls_that_the_kernel_saw() {
    for (flags, command, code) in [
        (&[][..], "/bin/true", 0),
        (&["--read-only", "--tmpfs", "/t", "--user", "1000", "--hostname", "x"], "/bin/true", 0),
        (&["--security-opt", "no-new-privileges"], "true", 0),
        (&["-v", "/etc/passwd:/passwd:ro", "-v", "/tmp:/d", "-m", "64m", "--cap-drop", "ALL"], "/bin/true", 0),
        (&["--privileged", "--network", "host"], "/bin/true", 0),
        (&["--security-opt", "seccomp=unconfined", "--env", "mount=execve", "--hostname", "mount"], "/bin/true", 0),
        (&["-v", "/no/such:/d"], "/bin/true", 125),
        (&["--dry-run"], "/bin/true", 0),
        (&[], "not-there", 127),
    ] {
        let corner = Corner::new();
        let (told, seen, said) = explained(&corner, flags, &[command]);
        assert_eq!(said.code, code, "{said:?}");
        for name in COUNTED {
            assert_eq!(
                told_count(&told, name),
                seen_count(&seen, name),
                "{name} of {flags:?} {command}\n{told}\n{seen}"
            );
        }
    }
}

#[test]
fn each_line_is_one_event_of_the_schema() {
    let corner = Corner::new();
    let (told, _, _) = explained(&corner, &[], &["true"]);
    let (mut stages, mut last) = (0, 0.0);
    for line in told.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(event["v"], 1);
        let at = event["at"].as_f64().unwrap();
        assert!(at >= last, "in the order in which they began");
        last = at;
        match event["kind"].as_str().unwrap() {
            "stage" => {
                stages += 1;
                assert!(event["why"].as_str().unwrap().len() > 20, "{line}");
            }
            "call" | "walk" => assert!(event["name"].is_string() && event["args"].is_string(), "{line}"),
            other => panic!("{other}"),
        }
    }
    assert!(stages >= 8, "{stages} stages");
    let exec = told.lines().find(|line| line.contains("\"execve\"") && line.contains("\"result\":0"));
    assert!(exec.is_some(), "the exec's own result is told: {told}");
}

#[test]
fn the_text_names_stages_and_reasons_and_comes_to_standard_error() {
    let corner = Corner::new();
    let said = corner.run(&["--explain"], &["true"]);
    for word in
        ["== one clone, new namespaces [parent]", "== change the root [container]", "pivot_root(\".\", \".\") = 0"]
    {
        assert!(said.err.contains(word), "{word}: {}", said.err);
    }
    assert_eq!(said.out, "");
}
