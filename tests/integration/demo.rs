//! `hull demo`: the table, its image, and its exit status, also when the container does not tell what it should.

use std::fs;
use std::process::Command;

use hull_tests::{Corner, Said, hull_bin};

fn hull(corner: &Corner, arguments: &[&str]) -> Said {
    let said = corner.hull().args(arguments).output().unwrap().into();
    corner.assert_clean();
    said
}

fn namespace(kind: &str) -> String {
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_string_lossy().into_owned();
    link.split_once(":[").unwrap().1.trim_end_matches(']').to_owned()
}

/// The cells of a line of the table: what, host, container and verdict.
fn cells<'a>(said: &'a Said, what: &str) -> Vec<&'a str> {
    let line = said.out.lines().find(|line| line.starts_with(&format!("  {what} ")));
    let line = line.unwrap_or_else(|| panic!("no line {what}: {}{}", said.out, said.err));
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[test]
fn host_and_container_are_told_apart_on_every_line() {
    let corner = Corner::new();
    let said = hull(&corner, &["demo"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    for (kind, verdict) in [
        ("mnt", "✓ its own"),
        ("pid", "✓ its own"),
        ("uts", "✓ its own"),
        ("ipc", "✓ its own"),
        ("net", "✓ its own"),
        ("cgroup", "✓ its own"),
        ("user", "= the host's"),
        ("time", "= the host's"),
    ] {
        let line = cells(&said, &format!("{kind} namespace"));
        assert_eq!((line[1], line[3]), (namespace(kind).as_str(), verdict), "{}", said.out);
        assert_eq!(line[1] == line[2], verdict == "= the host's", "{}", said.out);
    }
    let host_name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(cells(&said, "host name"), ["host name", host_name.trim(), "container", "✓ its own"]);
    assert_eq!(cells(&said, "process")[2..], ["1", "✓ its own"]);
    assert_eq!(cells(&said, "interfaces")[2..], ["lo", "✓ its own"]);
    assert_eq!(cells(&said, "tmpfs /mytemp")[1..], ["-", "writable", "✓ its own"]);
    assert_eq!(cells(&said, "capabilities")[2..], ["11 of 41", "✓ in force"]);
    assert_eq!(cells(&said, "call filter")[2..], ["filter", "✓ in force"]);
    assert_eq!(cells(&said, "no_new_privs")[2..], ["yes", "✓ in force"]);
    assert_eq!(cells(&said, "pids limit")[2..], ["20", "✓ in force"]);
    assert_eq!(cells(&said, "memory limit")[2..], ["64 MiB", "✓ in force"]);
    for what in
        ["root", "mounts", "/proc", "uid map", "gid map", "user", "hidden paths", "read-only paths", "bounding set"]
    {
        assert_eq!(cells(&said, what).len(), 4, "{}", said.out);
    }
    assert!(said.out.contains("lines are as asked"), "{}", said.out);
}

#[test]
fn the_command_at_the_end_does_the_same_and_explains_it() {
    let corner = Corner::new();
    let said = hull(&corner, &["demo", "--hostname", "box"]);
    let (_, command) = said.out.split_once("    ").and_then(|_| said.out.rsplit_once("every step:\n\n")).unwrap();
    let command = command.replace(" run ", " run --explain ");
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).env("HULL_ROOT", corner.path().join("store")).env("HULL_RUNROOT", corner.runroot());
    let again = Said::from(shell.output().unwrap());
    assert_eq!(again.code, 0, "{command}: {again:?}");
    assert!(again.out.contains("host name          box"), "{}", again.out);
    assert!(again.err.contains("== one clone, new namespaces [parent]"), "{}", again.err);
}

#[test]
fn a_shared_network_is_told_and_is_no_failure_when_it_was_asked_for() {
    let corner = Corner::new();
    let said = hull(&corner, &["demo", "--network", "host"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let net = namespace("net");
    assert_eq!(cells(&said, "net namespace"), ["net namespace", &net, &net, "= the host's"]);
    assert_eq!(cells(&said, "interfaces")[3], "= the host's");
}

#[test]
fn the_image_is_made_once_and_anew_for_another_program() {
    let corner = Corner::new();
    let images = || hull(&corner, &["images", "-q"]).out;
    assert_eq!(hull(&corner, &["demo"]).code, 0);
    let first = images();
    assert_eq!(hull(&corner, &["demo"]).code, 0);
    assert_eq!((images(), first.lines().count()), (first.clone(), 1));
    // Bytes behind the end of the program change nothing but its digest.
    let other = corner.path().join("other");
    let mut program = fs::read(hull_bin()).unwrap();
    program.push(0);
    fs::write(&other, program).unwrap();
    fs::set_permissions(&other, fs::metadata(hull_bin()).unwrap().permissions()).unwrap();
    let mut command = Command::new(&other);
    command.arg("demo").env("HULL_ROOT", corner.path().join("store")).env("HULL_RUNROOT", corner.runroot());
    let said = Said::from(command.output().unwrap());
    assert_eq!(said.code, 0, "{said:?}");
    let second = images();
    assert_eq!(second.lines().count(), 1, "the one before is gone: {second}");
    assert_ne!(first, second);
    let check = hull(&corner, &["system", "check"]);
    assert_eq!((check.code, check.out.as_str()), (0, ""), "{}", check.err);
}

#[test]
fn a_container_that_cannot_be_made_is_the_runs_own_error() {
    let corner = Corner::new();
    let said = hull(&corner, &["demo", "--tmpfs", "/hull"]);
    assert_eq!((said.code, said.out.as_str()), (125, ""), "{}", said.err);
    assert!(said.err.starts_with("hull: cannot "), "{}", said.err);
    let said = hull(&corner, &["demo", "--memory", "lots"]);
    assert!(said.code != 0 && said.err.contains("--memory"), "{said:?}");
}

/// What `verify` tells, with what a first process of another program would say of itself, and changed where the host
/// name says `lie`.
const FAKE: &str = r#"#!/bin/sh
lie='s/x/x/'
case $(hostname) in lie*) lie='s/"seccomp":2/"seccomp":0/' ;; esac
/real verify --format json --tmpfs /mytemp < /dev/null |
    sed -e 's/"pid":[0-9]*,"pid_in_proc":[0-9]*,"pid_chain":\[[0-9]*\]/"pid":1,"pid_in_proc":1,"pid_chain":[1]/' -e "$lie"
cat > /dev/null
"#;

#[test]
fn a_restriction_that_is_not_in_force_is_marked_and_the_status_is_1() {
    let corner = Corner::new();
    let context = corner.path().join("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("fake"), FAKE).unwrap();
    fs::copy(hull_bin(), context.join("real")).unwrap();
    fs::write(
        context.join("Dockerfile"),
        "FROM base\nCOPY --chmod=0755 fake /hull\nCOPY real /real\nRUN busybox ln -s busybox /bin/sed\n",
    )
    .unwrap();
    let archive = corner.path().join("base.tar");
    let tar = Command::new("tar").arg("-C").arg(corner.rootfs()).arg("-cf").arg(&archive).arg(".").status();
    assert!(tar.unwrap().success());
    assert_eq!(hull(&corner, &["import", &archive.to_string_lossy(), "base"]).code, 0);
    let sum = Command::new("sha256sum").arg(hull_bin()).output().unwrap();
    let label = format!("hull.program=sha256:{}", String::from_utf8_lossy(&sum.stdout[..64]));
    let built = hull(&corner, &["build", "-t", "localhost/hull:demo", "--label", &label, &context.to_string_lossy()]);
    assert_eq!(built.code, 0, "{}", built.err);

    let honest = hull(&corner, &["demo"]);
    assert_eq!(honest.code, 0, "{}{}", honest.out, honest.err);
    let lying = hull(&corner, &["demo", "--hostname", "lie"]);
    assert_eq!(lying.code, 1, "{}{}", lying.out, lying.err);
    assert_eq!(cells(&lying, "call filter"), ["call filter", "none", "none", "✗ not as asked"]);
    assert_eq!(lying.out.matches('✗').count(), 1, "{}", lying.out);
    assert!(lying.out.contains("expected filter, found none"), "{}", lying.out);
}
