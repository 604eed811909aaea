//! User namespaces with their mappings, namespaces joined by path, clocks.

use std::fs as files;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::case::Case;
use crate::tests;

const ALL: [&str; 7] = ["mount", "pid", "uts", "ipc", "network", "cgroup", "user"];

fn map(outside: u32) -> Value {
    json!([{"containerID": 0, "hostID": outside, "size": 65536}])
}

/// A container with a user namespace of its own, whose root owns its files.
fn in_user_namespace(script: &str) -> Case {
    let case = Case::new(script)
        .namespaces(&ALL)
        .with("/linux/uidMappings", map(100_000))
        .with("/linux/gidMappings", map(200_000));
    std::os::unix::fs::chown(case.root(), Some(100_000), Some(200_000)).unwrap();
    case
}

/// The namespace of a process, as a path.
fn of(pid: i32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{name}"))
}

fn inode(path: &std::path::Path) -> String {
    files::read_link(path).unwrap().to_string_lossy().into_owned()
}

tests! {
    fn root_in_a_user_namespace_is_somebody_else_outside() {
        let case = in_user_namespace("id; cat /proc/self/uid_map /proc/self/gid_map; touch /made; mount -t tmpfs x /bin");
        let text = case.text();
        assert!(text.starts_with("uid=0 gid=0 groups=0"), "{text}");
        let words: Vec<&str> = text.split_whitespace().skip(3).collect();
        assert_eq!(words, ["0", "100000", "65536", "0", "200000", "65536"]);
        use std::os::unix::fs::MetadataExt;
        let made = files::metadata(case.root().join("made")).unwrap();
        assert_eq!((made.uid(), made.gid()), (100_000, 200_000));
    }

    fn a_user_namespace_has_the_usual_devices_and_mounts() {
        let script = "echo x >/dev/null; stat -c '%F %t:%T' /dev/null /dev/zero /dev/tty; \
                      grep -c '^proc /proc\\|^devpts /dev/pts' /proc/mounts; ls /proc/1/root/ >/dev/null";
        let text = in_user_namespace(script).text();
        assert_eq!(
            text,
            "character special file 1:3\ncharacter special file 1:5\ncharacter special file 5:0\n2\n"
        );
    }

    fn the_user_of_a_user_namespace_is_one_of_its_own() {
        let user = json!({"uid": 1000, "gid": 1000, "additionalGids": [5, 6]});
        let case = in_user_namespace("id; grep ^Uid /proc/self/status; sleep 5").with("/process/user", user);
        let made = case.create().unwrap();
        let status = files::read_to_string(format!("/proc/{}/status", made.created.pid)).unwrap();
        assert!(status.contains("Uid:\t101000\t101000"), "{status}");
        assert!(status.contains("Groups:\t200005 200006 201000"), "{status}");
        made.abandon();
    }

    fn host_ids_without_a_mapping_cannot_be_used() {
        let case = in_user_namespace("id").with("/process/user", json!({"uid": 70_000, "gid": 0}));
        assert!(case.error().contains("user 70000 is in no range"), "{}", case.error());
    }

    fn oom_scores_are_set_in_a_user_namespace_too() {
        let case = in_user_namespace("cat /proc/self/oom_score_adj").with("/process/oomScoreAdj", json!(500));
        assert_eq!(case.text(), "500\n");
    }

    fn every_namespace_can_be_joined_by_path() {
        let first = Case::new("sleep 60").create().unwrap();
        let pid = first.created.pid;
        for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid"), ("cgroup", "cgroup")] {
            let kinds: Vec<&str> =
                ["mount", "pid", "uts", "ipc", "network", "cgroup"].into_iter().filter(|k| *k != kind).collect();
            let case = Case::new(&format!("readlink /proc/self/ns/{name}"))
                .namespaces(&kinds)
                .with("/linux/namespaces/-", json!({"type": kind, "path": of(pid, name)}));
            assert_eq!(case.text().trim(), inode(&of(pid, name)), "{kind}");
        }
        let ours = inode(&of(std::process::id() as i32, "pid_for_children"));
        assert_eq!(ours, inode(&of(std::process::id() as i32, "pid")), "the parent took itself back");
        first.abandon();
    }

    fn all_namespaces_but_the_mounts_are_joined_at_once() {
        let first = Case::new("sleep 60").create().unwrap();
        let mut case = Case::new("for n in net ipc uts pid cgroup; do readlink /proc/self/ns/$n; done")
            .namespaces(&["mount"]);
        let names = [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid"), ("cgroup", "cgroup")];
        for (kind, name) in names {
            let join = json!({"type": kind, "path": of(first.created.pid, name)});
            case = case.with("/linux/namespaces/-", join);
        }
        let wanted: Vec<String> = names.iter().map(|(_, name)| inode(&of(first.created.pid, name))).collect();
        assert_eq!(case.text().lines().collect::<Vec<_>>(), wanted);
        first.abandon();
    }

    fn a_pod_in_a_user_namespace_is_joined_with_its_mappings() {
        let first = in_user_namespace("sleep 60").create().unwrap();
        let pid = first.created.pid;
        let mut case = in_user_namespace("id; for n in user net ipc uts; do readlink /proc/self/ns/$n; done; mount -t tmpfs x /bin")
            .namespaces(&["mount", "pid", "cgroup"]);
        for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("user", "user"), ("uts", "uts")] {
            case = case.with("/linux/namespaces/-", json!({"type": kind, "path": of(pid, name)}));
        }
        let mut wanted = vec!["uid=0 gid=0 groups=0".to_owned()];
        wanted.extend(["user", "net", "ipc", "uts"].iter().map(|name| inode(&of(pid, name))));
        assert_eq!(case.text().lines().collect::<Vec<_>>(), wanted);

        let other = case.with("/linux/uidMappings", map(300_000));
        assert!(other.error().contains("cannot join the user namespace: the specification's mappings"), "{}", other.error());
        first.abandon();
    }

    fn a_new_user_namespace_joins_a_network_of_the_hosts() {
        let first = Case::new("sleep 60").create().unwrap();
        let net = of(first.created.pid, "net");
        let case = in_user_namespace("id; readlink /proc/self/ns/net")
            .namespaces(&["mount", "pid", "uts", "ipc", "cgroup", "user"])
            .with("/linux/namespaces/-", json!({"type": "network", "path": net}));
        assert_eq!(case.text(), format!("uid=0 gid=0 groups=0\n{}\n", inode(&net)));
        first.abandon();
    }

    fn a_container_that_came_through_another_process_is_in_its_groups() {
        let first = Case::new("sleep 60").create().unwrap();
        let case = in_user_namespace("cat /proc/self/cgroup")
            .namespaces(&["mount", "pid", "uts", "ipc", "user"])
            .with("/linux/namespaces/-", json!({"type": "network", "path": of(first.created.pid, "net")}));
        let text = case.text();
        assert!(text.lines().any(|line| line.contains(":pids:") && line.contains("/hull-test-spec-")), "{text}");
        first.abandon();
    }

    fn a_path_that_is_no_namespace_of_the_kind_is_refused_by_name() {
        let wrong = Case::new("true")
            .namespaces(&["mount", "pid"])
            .with("/linux/namespaces/-", json!({"type": "network", "path": "/proc/self/ns/ipc"}));
        let error = wrong.error();
        assert_eq!(error, "cannot join the network namespace /proc/self/ns/ipc: it is a ipc namespace");
        let none = wrong.with("/linux/namespaces/2/path", json!("/dev/null"));
        assert!(none.error().ends_with("/dev/null: it is no namespace"), "{}", none.error());
    }

    fn the_hosts_own_namespace_by_path_is_not_changed() {
        let case = Case::new("true")
            .namespaces(&["mount", "pid"])
            .with("/linux/namespaces/-", json!({"type": "uts", "path": "/proc/self/ns/uts"}));
        assert_eq!(case.run().unwrap().text, "");
        let named = case.with("/hostname", json!("taken"));
        assert_eq!(named.error(), "cannot set the host name: the uts namespace that it joins is the host's");
    }

    fn clocks_of_a_time_namespace_have_their_offsets() {
        let offsets = json!({"monotonic": {"secs": 1_000_000}, "boottime": {"secs": 2_000_000, "nanosecs": 5}});
        let case = Case::new("cat /proc/uptime; cat /proc/self/timens_offsets; readlink /proc/self/ns/time")
            .with("/linux/namespaces/-", json!({"type": "time"}))
            .with("/linux/timeOffsets", offsets);
        let text = case.text();
        let uptime: f64 = text.split_whitespace().next().unwrap().parse().unwrap();
        assert!(uptime > 2_000_000.0, "{text}");
        let words: Vec<&str> = text.split_whitespace().skip(2).collect();
        assert_eq!(words[..6], ["monotonic", "1000000", "0", "boottime", "2000000", "5"]);
        let own = std::process::id() as i32;
        assert_ne!(words[6], inode(&of(own, "time")));
        assert_eq!(inode(&of(own, "time")), inode(&of(own, "time_for_children")), "the parent took itself back");
    }
}
