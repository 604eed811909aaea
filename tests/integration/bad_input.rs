//! Mistakes: each is an error that names the thing, with Docker's exit status, and nothing is left.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use hull_tests::{Corner, Said};

fn assert_error(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, code, "{said:?}");
    assert!(said.err.starts_with("hull: "), "{}", said.err);
    for word in words {
        assert!(said.err.contains(word), "{word:?} is missing: {}", said.err);
    }
}

#[test]
fn a_root_that_is_missing_or_a_file() {
    let corner = Corner::new();
    let run = |root: &str| Said::from(corner.hull().args(["run", "--rootfs", root, "--", "true"]).output().unwrap());
    assert_error(&run("/no/such/folder"), 125, &["/no/such/folder", "no such directory"]);
    assert_error(&run("/etc/passwd"), 125, &["/etc/passwd", "not a directory"]);
}

#[test]
fn a_command_that_cannot_be_executed_says_why() {
    let corner = Corner::new();
    let file = |name: &str, mode: u32, content: &[u8]| {
        let path = corner.rootfs().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    file("plain", 0o644, b"#!/bin/sh\n");
    file("crlf", 0o755, b"#!/bin/sh\r\necho\r\n");
    file("lost", 0o755, b"#!/usr/bin/perl6\n");
    file("empty", 0o755, b"");
    let mut arm = fs::read("/bin/busybox").unwrap();
    arm[18] = 183;
    file("arm", 0o755, &arm);
    // The machine's own dynamic program: its loader is not in this root.
    file("dynamic", 0o755, &fs::read("/bin/ls").unwrap());
    for (command, code, words) in [
        ("nope", 127, &["nope", "not found in $PATH"][..]),
        ("/nope", 127, &["/nope", "no such file"]),
        ("/plain", 126, &["permission denied", "0644", "chmod +x"]),
        ("/bin", 126, &["is a directory"]),
        ("/crlf", 127, &["/bin/sh", "CRLF"]),
        ("/lost", 127, &["/usr/bin/perl6", "does not have"]),
        ("/empty", 126, &["is empty"]),
        ("/arm", 126, &["aarch64", "x86_64"]),
        ("/dynamic", 127, &["ld-linux", "does not have"]),
    ] {
        assert_error(&corner.run(&[], &[command]), code, words);
    }
}

#[test]
fn flags_with_values_that_mean_nothing() {
    let corner = Corner::new();
    for (flags, words) in [
        (&["--user", "nobody-here"][..], &["nobody-here", "/etc/passwd"][..]),
        (&["--user", "4294967296"], &["4294967296", "out of range"]),
        (&["-v", "/no/such:/data"], &["/no/such", "no such file"]),
        (&["-v", "named:/data"], &["named volume is not supported"]),
        (&["--pids-limit", "-7"], &["--pids-limit -7"]),
        (&["-m", "1m"], &["minimum is 6m"]),
        (&["-m", "-5"], &["--memory", "-5"]),
        (&["-m", "-1"], &["--memory -1", "hint: leave it out"]),
        (&["-m", "0"], &["--memory 0", "hint: leave it out"]),
        (&["-m", "unlimited"], &["--memory unlimited", "hint: leave it out"]),
        (&["-m", "64m", "--memory-swap", "32m"], &["--memory-swap 32m"]),
        (&["-m", "64m", "--memory-swap", "-2"], &["--memory-swap", "-2"]),
        (&["--memory-swap", "1g"], &["needs --memory"]),
        (&["--cpus", "4000"], &["--cpus 4000"]),
        (&["--cpus", "-1"], &["--cpus -1"]),
        (&["--cpus", "0"], &["--cpus 0"]),
        (&["--cpus", "nan"], &["--cpus nan"]),
        (&["--cpuset-cpus", "x"], &["\"x\"", "cpuset.cpus"]),
        (&["--pids-limit", "unlimited"], &["--pids-limit", "unlimited"]),
        (&["--cap-add", "CAP_NONE"], &["CAP_NONE"]),
        (&["--network", "bridge"], &["bridge is not supported yet"]),
        (&["--ulimit", "files=3"], &["files"]),
        (&["--ulimit", "nofile"], &["nofile", "NAME=SOFT[:HARD]"]),
        (&["--ulimit", "nofile=-5"], &["nofile=-5"]),
        (&["--ulimit", "nofile=5:3"], &["nofile=5:3", "above"]),
        (&["--ulimit", "nofile=unlimited"], &["RLIMIT_NOFILE", "fs.nr_open"]),
        (&["--env", "=x"], &["\"=x\"", "no name"]),
        (&["--env-file", "/no/such"], &["/no/such"]),
        (&["--workdir", "a"], &["--workdir", "absolute"]),
        (&["--mount", "bogus"], &["bogus"]),
        (&["--mount", "type=volume,target=/x"], &["type=volume"]),
        (&["--mount", "type=bind,source=/no/such,target=/x"], &["/no/such"]),
        (&["-v", "/tmp:/x:bogus"], &["bogus"]),
        (&["-v", "./no-such:/x"], &["/no-such", "no such file"]),
        (&["-p", "80:80"], &["--publish is not supported yet", "hint: "]),
        (&["--dns", "127.0.0.1"], &["--dns is not supported yet", "hint: "]),
        (&["--user", "+1"], &["+1"]),
        (&["--user", "0:no-such-group"], &["no-such-group", "/etc/group"]),
        (&["--security-opt", "label=x"], &["label=x"]),
        (&["--hostname", "a/b"], &["a/b"]),
        (&["--hostname", "a b"], &["a b"]),
        (&["--hostname", "0123456789012345678901234567890123456789012345678901234567890123x"], &["up to 64"]),
        (&["--tmpfs", "/x:bogus"], &["bogus"]),
        (&["-v", "/etc/passwd:/bin"], &["/bin", "source is a file", "target is a directory"]),
        (&["-v", "/etc:/bin/sh"], &["/bin/sh", "source is a directory", "target is a file"]),
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["--pids-limit", "many"], &["--pids-limit", "many"]),
    ] {
        let said = corner.run(flags, &["true"]);
        assert_eq!(said.code, 125, "{said:?}");
        assert!(words.iter().all(|word| said.err.contains(word)), "{flags:?}: {}", said.err);
    }
}

#[test]
fn a_capability_that_hull_lacks_cannot_be_added_by_name() {
    let corner = Corner::new();
    let run = |flags: &[&str]| {
        let run = corner.run_command(flags, &["cat", "/proc/self/status"]);
        let mut lesser = std::process::Command::new("setpriv");
        lesser.arg("--bounding-set=-sys_time").arg(run.get_program()).args(run.get_args()).envs(corner.env());
        Said::from(lesser.output().unwrap())
    };
    assert_error(&run(&["--cap-add", "SYS_TIME"]), 125, &["--cap-add SYS_TIME", "CAP_SYS_TIME", "hint: "]);
    let all = run(&["--cap-add", "ALL"]);
    let mask = all.out.lines().find_map(|line| line.strip_prefix("CapEff:")).map(|mask| mask.trim().to_owned());
    assert_eq!(u64::from_str_radix(&mask.unwrap(), 16).unwrap() >> 25 & 1, 0, "{all:?}");
}
