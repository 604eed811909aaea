//! `hull verify`, inside real containers that are as asked and that are not.

use std::fs;

use hull_tests::{Corner, Said, hull_bin};
use serde_json::Value;

/// `hull verify EXPECTATIONS` in a container made with `flags`.
fn verify(corner: &Corner, flags: &[&str], expectations: &[&str]) -> Said {
    let mount = format!("{}:/hull:ro", hull_bin().display());
    let flags: Vec<&str> = flags.iter().copied().chain(["-v", &mount]).collect();
    let command: Vec<&str> = ["/hull", "verify"].iter().chain(expectations).copied().collect();
    corner.run(&flags, &command)
}

const RUN: [&str; 11] = [
    "--hostname",
    "container",
    "--tmpfs",
    "/mytemp",
    "--pids-limit",
    "20",
    "--memory",
    "64m",
    "--read-only",
    "--security-opt",
    "no-new-privileges",
];

fn host_namespace(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_string_lossy().into_owned()
}

#[test]
fn a_container_is_what_it_was_asked_to_be() {
    let corner = Corner::new();
    let mut expectations: Vec<String> = "--hostname container --tmpfs /mytemp --pids-limit 20 --memory 64m --read-only \
         --no-new-privs --pid 1 --own-proc --user 0:0 --uid-map 0:0:4294967295 --seccomp filter --interface lo \
         --capabilities CHOWN,DAC_OVERRIDE,FOWNER,FSETID,KILL,NET_BIND_SERVICE,SETFCAP,SETGID,SETPCAP,SETUID,SYS_CHROOT \
         --bounding 0x800405fb --masked /proc/keys --masked /sys/firmware --read-only-path /proc/sys"
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    for kind in ["mnt", "pid", "uts", "ipc", "net", "cgroup"] {
        expectations.extend(["--own-ns".to_owned(), host_namespace(kind)]);
    }
    expectations.extend(["--shared-ns".to_owned(), host_namespace("user")]);
    let expectations: Vec<&str> = expectations.iter().map(String::as_str).collect();
    let said = verify(&corner, &RUN, &expectations);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("24 of 24 expectations hold"), "{}", said.out);
    assert!(said.out.contains("✓ host name") && !said.out.contains('✗'), "{}", said.out);
}

#[test]
fn what_does_not_hold_is_marked_and_the_status_is_1() {
    let corner = Corner::new();
    let net = host_namespace("net");
    for (flags, expectation, line) in [
        (&[][..], &["--hostname", "wrong"][..], "host name"),
        (&["--network", "host"], &["--own-ns", &net], "net namespace"),
        (&[], &["--shared-ns", &net], "net namespace"),
        (&["-v", "/proc:/proc"], &["--own-proc"], "/proc"),
        (&[], &["--tmpfs", "/mytemp"], "tmpfs /mytemp"),
        (&[], &["--pids-limit", "20"], "pids limit"),
        (&["--pids-limit", "-1"], &["--pids-limit", "20"], "pids limit"),
        (&["-m", "32m"], &["--memory", "64m"], "memory limit"),
        (&["--cap-add", "SYS_ADMIN"], &["--capabilities", "0x800405fb"], "capabilities"),
        (&["--security-opt", "seccomp=unconfined"], &["--seccomp", "filter"], "call filter"),
        (&[], &["--no-new-privs"], "no_new_privs"),
        (&[], &["--read-only"], "root"),
        (&[], &["--masked", "/proc/meminfo"], "hidden paths"),
        (&[], &["--read-only-path", "/etc"], "read-only paths"),
        (&["--user", "1000:1000"], &["--user", "0:0"], "user"),
        (&[], &["--interface", "lo,eth0"], "interfaces"),
    ] {
        let said = verify(&corner, flags, expectation);
        assert_eq!(said.code, 1, "{flags:?} {expectation:?}: {}{}", said.out, said.err);
        assert!(said.out.contains(&format!("✗ {line} ")), "{flags:?} {expectation:?}: {}", said.out);
        assert!(said.out.contains("0 of 1 expectations hold"), "{}", said.out);
    }
}

#[test]
fn it_needs_neither_root_nor_a_store() {
    let corner = Corner::new();
    let said =
        verify(&corner, &["--user", "1000:1000", "--read-only"], &["--user", "1000:1000", "--capabilities", "none"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("user               1000:1000"), "{}", said.out);
}

#[test]
fn a_machine_reads_the_same_as_json() {
    let corner = Corner::new();
    let said = verify(&corner, &RUN, &["--format", "json", "--hostname", "wrong", "--pid", "1"]);
    assert_eq!(said.code, 1);
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&json["v"], &json["holds"]), (&Value::from(1), &Value::from(false)));
    let check = serde_json::json!({"what": "host name", "expected": "wrong", "found": "container", "holds": false});
    assert_eq!(json["checks"][0], check);
    assert_eq!(json["checks"][1]["holds"], true);
    let facts = &json["facts"];
    assert_eq!(facts["limits"]["pids"]["value"], 20);
    assert_eq!(facts["limits"]["memory"]["value"], 64 << 20);
    assert_eq!(facts["capabilities"]["effective"], "00000000800405fb");
    assert_eq!(facts["interfaces"], serde_json::json!(["lo"]));
    assert_eq!(said.out.lines().count(), 1);
}

#[test]
fn without_proc_it_is_an_error_that_names_the_file() {
    let corner = Corner::new();
    let said = verify(&corner, &["--tmpfs", "/proc"], &["--pid", "1"]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.err.contains("/proc"), "{}", said.err);
}
