//! Every namespace shared, new or joined by its path, alone and beside the others, by what the kernel says of the process.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use hull_tests::bundle::Bundle;
use hull_tests::eventually;
use serde_json::{Value, json};

/// The specification's words, and the kernel's.
const KINDS: [(&str, &str); 8] = [
    ("mount", "mnt"),
    ("pid", "pid"),
    ("uts", "uts"),
    ("ipc", "ipc"),
    ("network", "net"),
    ("cgroup", "cgroup"),
    ("time", "time"),
    ("user", "user"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Shared,
    New,
    Joined,
}

use Way::{Joined, New, Shared};

/// A process in namespaces of its own, which a container can join; it ends with the value.
struct Other(Child);

impl Other {
    /// With a user namespace, all others are that one's.
    fn new(user: bool) -> Self {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--uts", "--ipc", "--net", "--cgroup", "--time", "--pid", "--fork", "--kill-child"]);
        if user {
            unshare.arg("--user");
        }
        unshare.args(["sh", "-c", "echo; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = unshare.spawn().unwrap();
        std::io::Read::read_exact(process.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        for map in if user { &["uid_map", "gid_map"][..] } else { &[] } {
            fs::write(format!("/proc/{}/{map}", process.id()), "0 0 65536").unwrap();
        }
        Self(process)
    }

    /// Its first process, whose namespaces they are.
    fn pid(&self) -> String {
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        fs::read_to_string(children).unwrap().trim().to_owned()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn namespaces(pid: &str) -> BTreeMap<&'static str, PathBuf> {
    KINDS.iter().map(|(kind, file)| (*kind, fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap())).collect()
}

/// Creates, starts and ends a container with these ways, and looks at each of its namespaces in between.
fn check(other: &Other, ways: &[(&str, Way)]) {
    let bundle = Bundle::new("exec sleep 1000");
    let way = |wanted: &str| ways.iter().find(|(kind, _)| *kind == wanted).map_or(Shared, |(_, way)| *way);
    let files: BTreeMap<&str, &str> = KINDS.into();
    bundle.change(|spec| {
        let list = ways.iter().filter(|(_, way)| *way != Shared).map(|(kind, way)| match way {
            Joined => json!({"type": kind, "path": format!("/proc/{}/ns/{}", other.pid(), files[kind])}),
            _ => json!({"type": kind}),
        });
        spec["linux"]["namespaces"] = list.collect::<Vec<_>>().into();
        adapt(spec, way);
    });
    let id = &*bundle.id("matrix");
    // Its output goes to a file: a pipe would be held open by the container.
    let log = bundle.corner.path().join("log");
    let mut create = bundle.command(&["--log", log.to_str().unwrap(), "create", id]);
    let status = create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{ways:?}: {}", fs::read_to_string(log).unwrap_or_default());
    bundle.ok(&["start", id]);
    let pid = bundle.state(id)["pid"].to_string();
    eventually("the command runs", || {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep"))
    });
    let (ours, theirs, its) = (namespaces("self"), namespaces(&other.pid()), namespaces(&pid));
    for (kind, _) in KINDS {
        let (own, joined) = (its[kind] != ours[kind], its[kind] == theirs[kind]);
        let expected = match way(kind) {
            // The other one shares what it has no own of, as well.
            Shared => (false, ours[kind] == theirs[kind]),
            New => (true, false),
            Joined => (true, true),
        };
        assert_eq!((own, joined), expected, "{kind} of {ways:?}");
    }
    if way("cgroup") == New {
        assert_rooted_at_its_group(&pid);
    }
    bundle.ok(&["delete", "--force", id]);
}

/// On v1 as on v2: a process of its own sees each of its groups as the root.
fn assert_rooted_at_its_group(pid: &str) {
    let mut inside = Command::new("nsenter");
    inside.args(["--cgroup", "--target", pid, "cat", &format!("/proc/{pid}/cgroup")]);
    let text = String::from_utf8(inside.output().unwrap().stdout).unwrap();
    let host = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(text.lines().count(), host.lines().count(), "{text}");
    for (line, outside) in text.lines().zip(host.lines()) {
        // Where it has no group of its own, as in named hierarchies, it is where its caller was.
        if outside.contains("matrix-") {
            assert!(line.ends_with(":/"), "{line}, outside {outside}");
        }
    }
    assert!(host.contains("matrix-"), "{host}");
}

/// What a specification has to say, or must not, with these namespaces.
fn adapt(spec: &mut Value, way: impl Fn(&str) -> Way) {
    let fields = spec.as_object_mut().unwrap();
    // Root in a new user namespace has no rights over what is joined beside it, and belongs to another one.
    let foreign = |kind| way("user") == New && way(kind) == Joined;
    if way("uts") == Shared || foreign("uts") {
        fields.remove("hostname");
    }
    // Without their namespaces these would be the host's; what they are mounted from is the namespaces' affair, not this test's.
    spec["mounts"] = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
    if way("mount") != New || way("pid") == Shared || foreign("pid") {
        spec["mounts"] = json!([]);
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    }
    if way("user") == New {
        let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
    }
}

fn without_users() -> Vec<&'static str> {
    KINDS[..7].iter().map(|(kind, _)| *kind).collect()
}

#[test]
fn all_new_all_joined_and_each_alone() {
    let other = Other::new(false);
    let kinds = without_users();
    for way in [New, Joined] {
        check(&other, &kinds.iter().map(|kind| (*kind, way)).collect::<Vec<_>>());
        for alone in kinds.iter().filter(|kind| **kind != "mount") {
            check(&other, &[("mount", New), (*alone, way)]);
        }
    }
    check(&other, &[("mount", New)]);
    check(&other, &[("mount", Joined)]);
}

/// Every two kinds in every two ways meet in one of these rows: kind n is in the way that row r's digits say (an orthogonal
/// array of three levels).
#[test]
fn every_two_kinds_in_every_two_ways() {
    let other = Other::new(false);
    let kinds: Vec<&str> = without_users().into_iter().filter(|kind| *kind != "mount").collect();
    // a, b, a+b, a+2b with c, and c itself: any two of these columns have all nine pairs over the 27 rows.
    let columns: [fn(u8, u8, u8) -> u8; 6] =
        [|a, _, _| a, |_, b, _| b, |_, _, c| c, |a, b, _| a + b, |a, _, c| a + c, |a, b, c| a + 2 * b + c];
    let way = |digit: u8| [Shared, New, Joined][usize::from(digit % 3)];
    let mut met = std::collections::BTreeSet::new();
    for row in 0..27u8 {
        let (a, b, c) = (row / 9, row / 3 % 3, row % 3);
        let mut ways: Vec<(&str, Way)> =
            kinds.iter().zip(columns).map(|(kind, column)| (*kind, way(column(a, b, c)))).collect();
        for (index, one) in ways.iter().enumerate() {
            met.extend(ways[index + 1..].iter().map(|two| format!("{one:?} {two:?}")));
        }
        ways.push(("mount", New));
        check(&other, &ways);
    }
    assert_eq!(met.len(), 15 * 9);
}

#[test]
fn all_eight_with_a_user_namespace() {
    let (plain, users) = (Other::new(false), Other::new(true));
    let all = |way| KINDS.iter().map(|(kind, _)| (*kind, way)).collect::<Vec<_>>();
    check(&plain, &all(New));
    check(&users, &all(Joined));
    for alone in without_users().into_iter().filter(|kind| *kind != "mount") {
        // A new one beside one that is joined, and one that is joined beside a new one.
        let mixed = |user, other| {
            let ways = KINDS.iter().map(|(kind, _)| (*kind, if *kind == alone { other } else { user }));
            ways.map(|(kind, way)| if kind == "mount" { (kind, New) } else { (kind, way) }).collect::<Vec<_>>()
        };
        check(&plain, &mixed(New, Joined));
        check(&users, &mixed(Joined, New));
    }
}
