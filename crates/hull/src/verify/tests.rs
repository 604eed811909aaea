//! Each flag, held against facts that are as they should be and against facts that are not.

use std::path::PathBuf;

use clap::Parser;

use super::expect::Expect;
use super::facts::{Capabilities, Facts, Place};
use super::limits::{Limit, Limits};
use super::{mountinfo, show};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    expect: Expect,
}

fn expect(flags: &str) -> Expect {
    Line::parse_from(std::iter::once("verify").chain(flags.split_whitespace())).expect
}

/// A container's facts, as hull makes one.
pub fn contained() -> Facts {
    let place = |mounted: Option<&str>, hidden, read_only| Place {
        exists: true,
        mounted: mounted.map(str::to_owned),
        hidden,
        read_only,
    };
    let capability = Capabilities {
        effective: 0x8004_05fb,
        permitted: 0x8004_05fb,
        inheritable: 0,
        bounding: 0x8004_05fb,
        ambient: 0,
    };
    let namespaces = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    Facts {
        hostname: "container".into(),
        pid: 1,
        pid_in_proc: 1,
        pid_chain: vec![1],
        processes: 1,
        namespaces: namespaces.iter().zip(101u64..).map(|(kind, inode)| ((*kind).to_owned(), inode)).collect(),
        mounts: mountinfo::parse(
            "90 80 0:50 / / rw - overlay overlay rw\n91 90 0:51 / /mytemp rw,nosuid - tmpfs tmpfs rw\n",
        )
        .unwrap(),
        interfaces: vec!["lo".into()],
        uid: 0,
        gid: 0,
        uid_map: vec![[0, 0, u32::MAX]],
        gid_map: vec![[0, 0, u32::MAX]],
        capabilities: capability,
        seccomp: 2,
        no_new_privs: true,
        limits: Limits {
            pids: Limit { value: Some(20), file: Some("/sys/fs/cgroup/pids.max".into()) },
            memory: Limit { value: Some(64 << 20), file: Some("/sys/fs/cgroup/memory.max".into()) },
        },
        places: [
            (PathBuf::from("/mytemp"), place(Some("tmpfs"), false, false)),
            (PathBuf::from("/proc/keys"), place(Some("tmpfs"), true, true)),
            (PathBuf::from("/proc/sys"), place(Some("proc"), false, true)),
            (PathBuf::from("/gone"), Place { exists: false, mounted: None, hidden: false, read_only: false }),
        ]
        .into(),
    }
}

const ALL: &str = "--hostname container --pid 1 --own-proc --own-ns net:4026531840 --own-ns pid:[4026531836] \
                   --shared-ns user:107 --user 0:0 --uid-map 0:0:4294967295 --gid-map 0:0:4294967295 --tmpfs /mytemp --masked /proc/keys \
                   --masked /gone --read-only-path /proc/sys --read-only-path /gone --interface lo \
                   --capabilities 0x800405fb --bounding 0x800405fb --seccomp filter --no-new-privs --pids-limit 20 \
                   --memory 64m";

#[test]
fn a_container_that_is_as_asked_holds_every_check() {
    let checks = expect(ALL).check(&contained());
    let broken: Vec<_> = checks.iter().filter(|check| !check.holds).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert_eq!(checks.len(), 21, "one check for each flag");
}

type Change = fn(&mut Facts);

/// Each change of the facts, and the line that must not hold then.
const CHANGES: &[(Change, &str)] = &[
    (|facts| facts.hostname = "vm".into(), "host name"),
    (|facts| facts.pid = 7, "process"),
    (|facts| facts.pid_chain = vec![4711, 1], "/proc"),
    (|facts| facts.pid_in_proc = 4711, "/proc"),
    (|facts| _ = facts.namespaces.insert("net".into(), 4_026_531_840), "net namespace"),
    (|facts| _ = facts.namespaces.remove("pid"), "pid namespace"),
    (|facts| _ = facts.namespaces.insert("user".into(), 1), "user namespace"),
    (|facts| facts.uid = 1000, "user"),
    (|facts| facts.uid_map = vec![[0, 1000, 1]], "uid map"),
    (|facts| facts.uid_map.clear(), "uid map"),
    (|facts| facts.gid_map[0][2] = 1, "gid map"),
    (|facts| facts.places.get_mut(&PathBuf::from("/mytemp")).unwrap().mounted = Some("ext4".into()), "tmpfs /mytemp"),
    (|facts| facts.places.get_mut(&PathBuf::from("/mytemp")).unwrap().mounted = None, "tmpfs /mytemp"),
    (|facts| facts.places.get_mut(&PathBuf::from("/proc/keys")).unwrap().hidden = false, "hidden paths"),
    (|facts| _ = facts.places.remove(&PathBuf::from("/proc/keys")), "hidden paths"),
    (|facts| facts.places.get_mut(&PathBuf::from("/proc/sys")).unwrap().read_only = false, "read-only paths"),
    (|facts| facts.interfaces.push("eth0".into()), "interfaces"),
    (|facts| facts.interfaces.clear(), "interfaces"),
    (|facts| facts.capabilities.effective |= 1 << 21, "capabilities"),
    (|facts| facts.capabilities.effective &= !1, "capabilities"),
    (|facts| facts.capabilities.bounding = !0, "bounding set"),
    (|facts| facts.seccomp = 0, "call filter"),
    (|facts| facts.no_new_privs = false, "no_new_privs"),
    (|facts| facts.limits.pids.value = None, "pids limit"),
    (|facts| facts.limits.pids.value = Some(21), "pids limit"),
    (|facts| facts.limits.pids.file = None, "pids limit"),
    (|facts| facts.limits.memory.value = Some((64 << 20) + 4096), "memory limit"),
    (|facts| facts.limits.memory.value = Some((64 << 20) - (64 << 10)), "memory limit"),
];

#[test]
fn each_thing_that_is_not_as_asked_breaks_its_own_line_and_no_other() {
    for (change, what) in CHANGES {
        let mut facts = contained();
        change(&mut facts);
        let checks = expect(ALL).check(&facts);
        let broken: Vec<&str> = checks.iter().filter(|check| !check.holds).map(|check| check.what.as_str()).collect();
        // A process with another number is also not the one that /proc shows.
        let expected: &[&str] = if *what == "process" { &["process", "/proc"] } else { &[*what] };
        assert_eq!(broken, expected);
        let told = show::render(&facts, &checks);
        assert!(told.contains(&format!("✗ {what}")) && told.contains("expected "), "{told}");
    }
}

#[test]
fn a_read_only_root_is_one_whose_mount_or_file_system_is() {
    let mut facts = contained();
    let holds = |facts: &Facts| expect("--read-only").check(facts)[0].holds;
    assert!(!holds(&facts));
    facts.mounts[0].options = "ro,nosuid".into();
    assert!(holds(&facts));
    facts.mounts[0].options = "rw".into();
    facts.mounts[0].super_options = "ro".into();
    assert!(holds(&facts));
}

#[test]
fn no_limit_is_something_to_expect_too() {
    let mut facts = contained();
    let holds = |facts: &Facts| expect("--pids-limit -1").check(facts)[0].holds;
    assert!(!holds(&facts));
    facts.limits.pids.value = None;
    assert!(holds(&facts));
    facts.limits.pids.file = None;
    assert!(!holds(&facts), "a limit that nothing shows is not known to be absent");
}

#[test]
fn memory_is_kept_in_whole_pages() {
    let mut facts = contained();
    for (found, holds) in [(100_000_000 / 4096 * 4096, true), (100_000_001, false), (99_000_000, false)] {
        facts.limits.memory.value = Some(found);
        assert_eq!(expect("--memory 100000000").check(&facts)[0].holds, holds, "{found}");
    }
}

#[test]
fn nothing_asked_is_nothing_checked() {
    assert!(expect("").check(&contained()).is_empty());
    let told = show::render(&contained(), &[]);
    assert!(!told.contains('✓') && !told.contains('✗') && !told.contains("expectations"), "{told}");
}

#[test]
fn values_that_mean_nothing_are_refused() {
    for flags in [
        "--own-ns net",
        "--own-ns net:x",
        "--own-ns neet:1",
        "--user root",
        "--user 0",
        "--uid-map 0:0",
        "--uid-map 0:0:1:2",
        "--capabilities CHOWN,NONSENSE",
        "--capabilities 0xyz",
        "--seccomp on",
        "--pids-limit -2",
        "--memory lots",
    ] {
        let words = std::iter::once("verify").chain(flags.split_whitespace());
        assert!(Line::try_parse_from(words).is_err(), "{flags}");
    }
}

#[test]
fn what_steers_a_terminal_is_shown_as_text() {
    let mut facts = contained();
    facts.hostname = "a\u{1b}[2J".into();
    let told = show::render(&facts, &expect("--hostname b").check(&facts));
    assert!(!told.contains('\u{1b}') && told.contains("a\\u{1b}[2J"), "{told}");
}
