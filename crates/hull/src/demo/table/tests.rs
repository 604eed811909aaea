//! The verdicts, over facts of a container that is as asked and over facts that were changed.

use std::path::PathBuf;

use super::*;
use crate::demo::DemoArgs;
use crate::verify::tests::contained;
use clap::Parser;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    demo: DemoArgs,
}

/// A host: what the container has, each thing another one.
fn host() -> Facts {
    let mut host = contained();
    host.hostname = "vm".into();
    (host.pid, host.pid_in_proc, host.pid_chain, host.processes) = (700, 700, vec![700], 99);
    host.namespaces = contained().namespaces.iter().map(|(kind, inode)| (kind.clone(), inode + 900)).collect();
    host.mounts.iter_mut().for_each(|mount| {
        mount.id += 1000;
        mount.device = "254:0".into();
    });
    host.interfaces = vec!["eth0".into(), "lo".into()];
    (host.capabilities.effective, host.capabilities.bounding) = (u64::MAX >> 23, u64::MAX >> 23);
    (host.seccomp, host.no_new_privs) = (0, false);
    (host.limits.pids.value, host.limits.memory.value) = (None, None);
    host.places.clear();
    host
}

/// What a container of the demo sees beside [`host`], with the flags of `demo`.
fn inside(flags: &str) -> (Facts, Outside, Expect) {
    let host = host();
    let mut inside = contained();
    let network = flags.contains("--network host");
    for kind in ["user", "time"].into_iter().chain(network.then_some("net")) {
        inside.namespaces.insert(kind.into(), host.namespaces[kind]);
    }
    if network {
        inside.interfaces = host.interfaces.clone();
    }
    let words = std::iter::once("demo").chain(flags.split_whitespace());
    let asked = Flags::parse_from(words).demo.asked(&host).unwrap();
    for path in asked.masked.iter().chain(&asked.read_only_path) {
        let place = inside.places[&PathBuf::from("/proc/keys")].clone();
        inside.places.insert(path.clone(), place);
    }
    let outside = Outside { pid: 4711, namespaces: inside.namespaces.clone() };
    (inside, outside, asked)
}

fn find<'a>(lines: &'a [Line], what: &str) -> &'a Line {
    lines.iter().find(|line| line.what == what).unwrap_or_else(|| panic!("no line {what}"))
}

#[test]
fn a_container_that_is_as_asked_has_a_verdict_on_each_line_and_all_hold() {
    let (inside, outside, asked) = inside("");
    let lines = compare(&host(), &inside, &outside, &asked);
    let broken: Vec<&Line> = lines.iter().filter(|line| !line.holds()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    for (what, verdict) in [
        ("host name", Verdict::Own),
        ("process", Verdict::Own),
        ("/proc", Verdict::Own),
        ("mnt namespace", Verdict::Own),
        ("pid namespace", Verdict::Own),
        ("net namespace", Verdict::Own),
        ("user namespace", Verdict::Shared),
        ("uid map", Verdict::Shared),
        ("root", Verdict::Own),
        ("mounts", Verdict::Own),
        ("tmpfs /mytemp", Verdict::Own),
        ("interfaces", Verdict::Own),
        ("hidden paths", Verdict::InForce),
        ("capabilities", Verdict::InForce),
        ("call filter", Verdict::InForce),
        ("no_new_privs", Verdict::InForce),
        ("pids limit", Verdict::InForce),
        ("memory limit", Verdict::InForce),
    ] {
        assert_eq!(find(&lines, what).verdict, verdict, "{what}");
    }
    let told = render(&lines, &["hull".into(), "run".into(), "a b".into()]);
    assert!(told.contains("lines are as asked") && !told.contains('✗'), "{told}");
    assert!(told.contains("hull run 'a b'"), "{told}");
}

#[test]
fn a_shared_network_is_told_and_counts_only_if_one_of_its_own_was_asked_for() {
    let (shared, outside, asked) = inside("--network host");
    let lines = compare(&host(), &shared, &outside, &asked);
    assert!(lines.iter().all(Line::holds), "{lines:#?}");
    assert_eq!(find(&lines, "net namespace").verdict, Verdict::Shared);
    assert_eq!(find(&lines, "interfaces").verdict, Verdict::Shared);
    let (_, _, asked) = inside("");
    let lines = compare(&host(), &shared, &outside, &asked);
    assert!(!find(&lines, "net namespace").holds() && !find(&lines, "interfaces").holds());
}

type Change = fn(&mut Facts, &mut Outside, &Facts);

const CHANGES: &[(Change, &[&str])] = &[
    (|inside, _, _| inside.hostname = "vm".into(), &["host name"]),
    (|inside, _, _| (inside.pid, inside.pid_in_proc, inside.pid_chain) = (4711, 4711, vec![4711]), &["process"]),
    (|inside, _, _| inside.pid_chain = vec![4711, 1], &["/proc"]),
    (|inside, outside, host| share(inside, outside, host, "mnt"), &["mnt namespace"]),
    (|inside, outside, host| share(inside, outside, host, "pid"), &["pid namespace"]),
    (|inside, outside, host| share(inside, outside, host, "uts"), &["uts namespace"]),
    (|inside, outside, host| share(inside, outside, host, "ipc"), &["ipc namespace"]),
    (|inside, outside, host| share(inside, outside, host, "net"), &["net namespace"]),
    (|inside, outside, host| share(inside, outside, host, "cgroup"), &["cgroup namespace"]),
    // The container says what it likes; the host's /proc does not agree.
    (|_, outside, host| _ = outside.namespaces.insert("uts".into(), host.namespaces["uts"]), &["uts namespace"]),
    (|inside, _, host| inside.mounts.push(host.mounts[0].clone()), &["root", "mounts"]),
    (|inside, _, host| inside.mounts[0].device.clone_from(&host.mounts[0].device), &["root"]),
    (|inside, _, _| _ = inside.mounts.remove(0), &["root"]),
    (|inside, _, _| inside.places.get_mut(&PathBuf::from("/mytemp")).unwrap().mounted = None, &["tmpfs /mytemp"]),
    (|inside, _, _| inside.places.get_mut(&PathBuf::from("/proc/kcore")).unwrap().hidden = false, &["hidden paths"]),
    (
        |inside, _, _| inside.places.get_mut(&PathBuf::from("/proc/sys")).unwrap().read_only = false,
        &["read-only paths"],
    ),
    (|inside, _, host| inside.interfaces.clone_from(&host.interfaces), &["interfaces"]),
    (|inside, _, host| inside.capabilities.effective = host.capabilities.effective, &["capabilities"]),
    (|inside, _, host| inside.capabilities.bounding = host.capabilities.bounding, &["bounding set"]),
    (|inside, _, _| inside.seccomp = 0, &["call filter"]),
    (|inside, _, _| inside.no_new_privs = false, &["no_new_privs"]),
    (|inside, _, _| inside.limits.pids.value = None, &["pids limit"]),
    (|inside, _, _| inside.limits.memory.file = None, &["memory limit"]),
    (|inside, _, _| inside.uid_map = vec![[0, 1000, 1]], &["uid map"]),
];

fn share(inside: &mut Facts, outside: &mut Outside, host: &Facts, kind: &str) {
    inside.namespaces.insert(kind.into(), host.namespaces[kind]);
    outside.namespaces.insert(kind.into(), host.namespaces[kind]);
}

#[test]
fn each_isolation_that_is_not_in_force_breaks_its_line_and_is_marked() {
    for (change, what) in CHANGES {
        let (mut inside, mut outside, asked) = inside("");
        change(&mut inside, &mut outside, &host());
        let lines = compare(&host(), &inside, &outside, &asked);
        let broken: Vec<&str> = lines.iter().filter(|line| !line.holds()).map(|line| line.what.as_str()).collect();
        assert_eq!(&broken, what);
        let told = render(&lines, &[]);
        assert!(told.contains("✗ not as asked") && told.contains("are not as asked"), "{told}");
    }
}

#[test]
fn a_scratch_file_system_that_is_nowhere_still_has_its_line() {
    let (mut inside, outside, asked) = inside("--tmpfs /elsewhere");
    inside.mounts.retain(|mount| mount.target != "/mytemp");
    let lines = compare(&host(), &inside, &outside, &asked);
    assert!(!find(&lines, "tmpfs /elsewhere").holds());
}

#[test]
fn a_line_that_nothing_was_expected_of_does_not_pass_as_checked() {
    let (inside, outside, mut asked) = inside("");
    asked.seccomp = None;
    let lines = compare(&host(), &inside, &outside, &asked);
    assert_eq!(find(&lines, "call filter").verdict, Verdict::Unchecked);
    assert!(!find(&lines, "call filter").holds());
}

#[test]
fn the_command_is_one_that_a_shell_reads_back() {
    let words =
        ["bin/hull", "run", "--hostname", "it's a", "--memory", "64m", "--read-only", "--tmpfs", "/a", "image", ""];
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).chain(["x".repeat(80)]).collect();
    let script = format!("printf '%s\\n' {}", shell(&words));
    let said = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        words.iter().map(|word| format!("{word}\n")).collect::<String>()
    );
    assert!(script.contains("--memory 64m") && script.contains("\\\n"), "{script}");
}
