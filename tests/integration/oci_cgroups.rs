//! Where a bundle's control groups are and what the container sees of them: every hierarchy, its own group as the root.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use hull_tests::bundle::Bundle;
use hull_tests::{Said, skipped};
use serde_json::{Value, json};

fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The mount points of control groups in a mountinfo(5), and which part of the hierarchy each shows.
fn mounts(text: &str) -> Vec<(String, String)> {
    let of_group = |line: &&str| line.contains(" - cgroup ") || line.contains(" - cgroup2 ");
    let parts = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields[4].to_owned(), fields[3].to_owned())
    };
    text.lines().filter(of_group).map(parts).collect()
}

/// Whether the hierarchy of a line of cgroup(7)'s is mounted here: others may have mounted one elsewhere.
fn mounted_here(line: &str) -> bool {
    let name = line.split(':').nth(1).unwrap();
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut options =
        mountinfo.lines().filter(|mount| mount.contains(" - cgroup ")).filter_map(|m| m.rsplit(' ').next());
    name.is_empty()
        || options.any(|options| name.split(',').any(|name| options.split(',').any(|option| option == name)))
}

fn without_namespace(spec: &mut Value, kind: &str) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
}

/// On v1 as on v2, and on both at once in a hybrid layout.
#[test]
fn the_view_is_rooted_at_the_containers_own_group_in_every_hierarchy() {
    let bundle = Bundle::new("cat /proc/self/cgroup; echo; cat /proc/self/mountinfo");
    let id = bundle.id("view");
    // On v1 `runc spec` leaves it out.
    bundle.change(|spec| {
        without_namespace(spec, "cgroup");
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
    });
    let said = bundle.ok(&["run", &id]);
    let (own, mountinfo) = said.split_once("\n\n").unwrap();
    assert!(own.lines().all(|line| line.ends_with(":/")), "{own}");
    let mounted = mounts(mountinfo);
    assert!(mounted.iter().all(|(_, root)| root == "/"), "{mounted:?}");
    // As many as there are on the host, less v2's of a hybrid layout, where the controllers are on v1.
    let host = fs::read_to_string("/proc/self/cgroup").unwrap();
    let shown = |line: &&str| mounted_here(line) && (unified() || !line.starts_with("0::"));
    let hierarchies = host.lines().filter(shown).count();
    assert_eq!(mounted.len(), hierarchies, "{mounted:?}");

    // Without a namespace of its own it is told where it is, and sees no more.
    bundle.change(|spec| without_namespace(spec, "cgroup"));
    let said = bundle.ok(&["run", &id]);
    let (own, _) = said.split_once("\n\n").unwrap();
    let seen: Vec<&str> = own.lines().filter(|line| mounted_here(line)).collect();
    assert!(!seen.is_empty() && seen.iter().all(|line| line.ends_with(&id)), "{own}");
}

/// The rules for devices, as the kernel applies them: a list on v1, a program on v2.
#[test]
fn devices_are_those_of_the_rules_and_what_every_container_has() {
    let script = "for d in null zero kmsg; do head -c 0 /dev/$d && echo $d; done; true >/dev/kmsg && echo written; \
                  busybox rm -f /tmp/loop; mknod /tmp/loop b 7 0 && echo made; head -c 0 /tmp/loop && echo loop";
    let bundle = Bundle::new(script);
    fs::create_dir(bundle.corner.rootfs().join("tmp")).unwrap();
    let kmsg = json!({"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 438});
    bundle.change(|spec| {
        spec["linux"]["devices"] = json!([kmsg]);
        let caps = spec["process"]["capabilities"].as_object_mut().unwrap();
        for set in caps.values_mut() {
            set.as_array_mut().unwrap().extend(["CAP_MKNOD".into(), "CAP_SYSLOG".into()]);
        }
    });
    let everything = json!({"allow": false, "access": "rwm"});
    for (more, seen) in [
        (json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}), "null\nzero\nkmsg\nmade\n"),
        (json!({"allow": true, "type": "c", "major": 1, "access": "rw"}), "null\nzero\nkmsg\nwritten\nmade\n"),
        (json!({"allow": false, "type": "c", "access": "r"}), "null\nzero\nmade\n"),
    ] {
        bundle.change(|spec| spec["linux"]["resources"]["devices"] = json!([everything, more]));
        let said = bundle.oci(&["run", &bundle.id("devices")]);
        assert_eq!(said.out, seen, "{more}: {said:?}");
        assert!(said.err.contains("Operation not permitted"), "{said:?}");
    }
}

/// As with runc, also where no rule denies the rest. Shown to fail where the rules are only those that are given: all of the
/// host's devices are allowed then.
#[test]
fn what_no_rule_allows_is_denied() {
    let script = "head -c 0 /dev/null && echo null; head -c 0 /dev/kmsg && echo kmsg";
    let bundle = Bundle::new(script);
    let kmsg = json!({"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 438});
    bundle.change(|spec| {
        spec["linux"]["devices"] = json!([kmsg]);
        for set in spec["process"]["capabilities"].as_object_mut().unwrap().values_mut() {
            set.as_array_mut().unwrap().push("CAP_SYSLOG".into());
        }
    });
    let other = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"});
    for (rules, seen) in [
        (Value::Null, "null\n"),
        (json!([]), "null\n"),
        (json!([other]), "null\n"),
        (json!([{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]), "null\nkmsg\n"),
        (json!([{"allow": true, "access": "rwm"}]), "null\nkmsg\n"),
    ] {
        bundle.change(|spec| spec["linux"]["resources"]["devices"] = rules.clone());
        let said = bundle.oci(&["run", &bundle.id("devices")]);
        assert_eq!(said.out, seen, "{rules}: {said:?}");
    }
    bundle.change(|spec| _ = spec["linux"].as_object_mut().unwrap().remove("resources"));
    assert_eq!(bundle.oci(&["run", &bundle.id("devices")]).out, "null\n");
}

/// runtime-spec, "Cgroup ownership". Shown to fail without `Cgroup::give_to`: the container's root cannot make a group.
#[test]
fn the_group_is_the_containers_roots_where_it_sees_it_writable() {
    if !unified() {
        return skipped("the_group_is_the_containers_roots_where_it_sees_it_writable", "cgroup v1 is not delegated");
    }
    let script = "cd /sys/fs/cgroup && mkdir one two && echo $$ >one/cgroup.procs && echo +pids >cgroup.subtree_control \
                  && echo 5 >two/pids.max && cat two/pids.max; echo 1 >pids.max || echo kept";
    let bundle = Bundle::new(script);
    let writable = |spec: &mut Value, option: &str| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        let group = mounts.iter_mut().find(|mount| mount["type"] == "cgroup").unwrap();
        group["options"] = json!(["nosuid", "noexec", "nodev", option]);
    };
    // The container's root makes its mount points.
    chown(bundle.corner.rootfs(), Some(100_000), Some(100_000)).unwrap();
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    bundle.change(|spec| {
        writable(spec, "rw");
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map.clone());
        spec["linux"]["resources"]["pids"] = json!({"limit": 50});
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "devpts");
    });
    let said = bundle.oci(&["run", &bundle.id("owned")]);
    assert_eq!(said.out, "5\nkept\n", "{said:?}");
    bundle.change(|spec| writable(spec, "ro"));
    let said = bundle.oci(&["run", &bundle.id("kept")]);
    assert_eq!(said.out, "kept\n", "{said:?}");
}

/// A caller that is pinned to a processor, as a daemon may be, does not pin its containers.
#[test]
fn the_callers_processors_are_not_the_containers() {
    let allowed = |text: &str| {
        text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(|list| list.trim().to_owned())
    };
    let own = allowed(&fs::read_to_string("/proc/self/status").unwrap()).unwrap();
    let first: String = own.chars().take_while(char::is_ascii_digit).collect();
    if own == first {
        return skipped("the caller's processors are not the container's", "this machine has one processor");
    }
    let bundle = Bundle::new("grep Cpus_allowed_list /proc/self/status; exec sleep 1000");
    let id = &*bundle.id("pinned");
    let pinned = |arguments: &[&str]| -> Said {
        let command = bundle.command(arguments);
        let mut taskset = Command::new("taskset");
        taskset.args(["-c", &first]).arg(command.get_program()).args(command.get_args());
        taskset.current_dir(bundle.corner.path()).stdin(Stdio::null()).output().unwrap().into()
    };
    bundle.start(id);
    let exec = ["exec", id, "grep", "Cpus_allowed_list", "/proc/self/status"];
    assert_eq!(allowed(&pinned(&exec).out), Some(own.clone()));
    bundle.ok(&["delete", "--force", id]);
    bundle.change(|spec| {
        spec["process"]["args"] = serde_json::json!(["grep", "Cpus_allowed_list", "/proc/self/status"])
    });
    assert_eq!(allowed(&pinned(&["run", id]).out), Some(own));
    // What is asked for is what it gets.
    bundle.change(|spec| spec["linux"]["resources"]["cpu"] = serde_json::json!({"cpus": first}));
    assert_eq!(allowed(&pinned(&["run", id]).out), Some(first.clone()));
}

/// Groups of v1 are made while the process is there already. One that turns out to be somebody else's then stays his, with what
/// runs in it, and of the container there is nothing left.
#[test]
fn a_group_that_is_somebody_elses_ends_the_creation_and_stays_his() {
    if unified() {
        return skipped("oci_cgroups::a_group_that_is_somebody_elses", "there is one group, made before the process");
    }
    let bundle = Bundle::new("true");
    let id = bundle.id("taken");
    let path = format!("/hull-test-{id}");
    bundle.change(|spec| spec["linux"]["cgroupsPath"] = json!(path));
    let theirs = Path::new("/sys/fs/cgroup/pids").join(&path[1..]);
    fs::create_dir(&theirs).unwrap();
    let mut sleeper = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(theirs.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
    for verb in ["create", "run"] {
        let said = bundle.oci(&[verb, &id]);
        assert!(said.code == 1 && said.err.contains("it holds processes already"), "{said:?}");
        assert!(sleeper.try_wait().unwrap().is_none(), "{verb}: it was killed");
        assert_eq!(bundle.ok(&["list", "-q"]), "");
        let left = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path().join(&path[1..]));
        assert!(left.filter(|group| group.exists()).eq([theirs.clone()]), "{verb}");
    }
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    fs::remove_dir(&theirs).unwrap();
}
