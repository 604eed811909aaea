//! What a specification may say in more than one way, as Debian's runc takes it: each bundle is given to both.

use std::fs;
use std::process::Command;

use hull_tests::Said;
use hull_tests::bundle::Bundle;
use serde_json::{Value, json};

/// What the command says under runc and under hull, which is the same.
#[track_caller]
fn both(bundle: &Bundle, name: &str) -> Said {
    let mut runc = Command::new("runc");
    runc.current_dir(bundle.corner.path()).arg("--root").arg(bundle.corner.path().join("runc"));
    let runc: Said = runc.args(["run", &bundle.id("runc")]).output().unwrap().into();
    let hull = bundle.oci(&["run", &bundle.id("hull")]);
    assert_eq!((runc.code, &runc.out), (hull.code, &hull.out), "{name}: {runc:?} {hull:?}");
    assert_eq!(hull.code, 0, "{name}: {hull:?}");
    hull
}

/// The mount table of a container with one mount more, from /m on.
#[track_caller]
fn mounted(mount: Value) -> String {
    let bundle = Bundle::new("grep -o ' /m.*' /proc/self/mountinfo");
    let name = mount.to_string();
    bundle.change(|spec| spec["mounts"].as_array_mut().unwrap().push(mount));
    both(&bundle, &name).out
}

#[test]
fn options_of_a_file_system_are_one_string_or_several() {
    for options in [json!(["size=1m", "mode=700"]), json!(["size=1m,mode=700"]), json!(["", "size=1m,,mode=700,"])] {
        let seen = mounted(json!({"destination": "/m", "type": "tmpfs", "source": "m", "options": options}));
        assert!(seen.contains("size=1024k,mode=700"), "{options}: {seen}");
    }
}

/// Of an overlay nearly everybody writes them as mount(8) takes them, and a comma in a path is escaped.
#[test]
fn an_overlays_folders_are_one_string_or_several() {
    let bundle = Bundle::new("cat /m/one /m/two && echo new >/m/new");
    let folder = |name: &str| {
        let path = bundle.corner.path().join(name);
        fs::create_dir(&path).unwrap();
        path.display().to_string()
    };
    let (one, two, upper, work) = (folder("one"), folder("two,three"), folder("upper"), folder("work"));
    fs::write(format!("{one}/one"), "1\n").unwrap();
    fs::write(format!("{two}/two"), "2\n").unwrap();
    let lower = format!("lowerdir={one}:{}", two.replace(',', r"\,"));
    let whole = format!("{lower},upperdir={upper},workdir={work}");
    bundle.change(|spec| {
        let mount = json!({"destination": "/m", "type": "overlay", "source": "overlay", "options": [whole]});
        spec["mounts"].as_array_mut().unwrap().push(mount);
    });
    assert_eq!(both(&bundle, &whole).out, "1\n2\n");
    assert_eq!(fs::read_to_string(format!("{upper}/new")).unwrap(), "new\n");
}

#[test]
fn a_destination_need_be_neither_absolute_nor_plain() {
    for destination in ["/m", "m", "/nowhere/../m", "../../m/.", "//m//"] {
        let seen =
            mounted(json!({"destination": destination, "type": "tmpfs", "source": "m", "options": ["mode=700"]}));
        assert!(seen.starts_with(" /m rw"), "{destination}: {seen}");
    }
}

#[test]
fn an_empty_name_leaves_the_hosts() {
    let bundle = Bundle::new("hostname; cat /proc/sys/kernel/domainname");
    bundle.change(|spec| (spec["hostname"], spec["domainname"]) = ("".into(), "".into()));
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(both(&bundle, "no name").out.starts_with(&own));
    // Nor is it a name that a namespace of the host's would get.
    bundle.change(|spec| spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "uts"));
    both(&bundle, "no name and no namespace");
}

#[test]
fn a_parameter_of_the_kernel_is_named_with_dots_or_with_slashes() {
    for name in ["net.ipv4.ip_forward", "net/ipv4/ip_forward"] {
        let bundle = Bundle::new("cat /proc/sys/net/ipv4/ip_forward");
        bundle.change(|spec| spec["linux"]["sysctl"] = json!({name: "1"}));
        assert_eq!(both(&bundle, name).out, "1\n");
    }
    // A dot in a word, as in the name of a device on a VLAN, which runc 1.1 cannot say.
    for name in ["net.ipv4.conf.lo/1.forwarding", "net/ipv4/conf/lo.1/forwarding"] {
        let bundle = Bundle::new("true");
        bundle.change(|spec| spec["linux"]["sysctl"] = json!({name: "1"}));
        let said = bundle.oci(&["run", &bundle.id("vlan")]);
        assert!(said.code == 1 && said.err.contains("sys/net/ipv4/conf/lo.1/forwarding"), "{said:?}");
    }
}

/// Whoever lends all of the host's devices lends its /dev/ptmx as well. The container's leads to its own terminals.
#[test]
fn the_hosts_ptmx_is_not_the_containers() {
    let bundle = Bundle::new("readlink /dev/ptmx");
    let ptmx = json!({"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2, "fileMode": 438});
    bundle.change(|spec| spec["linux"]["devices"] = json!([ptmx]));
    assert_eq!(both(&bundle, "ptmx").out, "pts/ptmx\n");
}

/// The limit may be lower than what hull itself has open. runc needs eight or so.
#[test]
fn a_limit_of_open_files_may_be_as_low_as_one_likes() {
    let bundle = Bundle::new("ulimit -n; ulimit -Hn");
    let limit = |soft: u64, hard: u64| {
        bundle.change(|spec| {
            spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard}])
        });
    };
    limit(10, 20);
    assert_eq!(both(&bundle, "10").out, "10\n20\n");
    limit(3, 4);
    assert_eq!(bundle.ok(&["run", &bundle.id("run")]), "3\n4\n");
    bundle.change(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    let id = &*bundle.id("created");
    bundle.start(id);
    let pid = bundle.state(id)["pid"].to_string();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["3", "4"]);
    assert_eq!(bundle.exec(&[], id, "ulimit -n; ulimit -Hn").out, "3\n4\n");
    bundle.ok(&["delete", "--force", id]);
    // runtime-spec: "the runtime MUST generate an error".
    bundle.change(|spec| {
        let one = spec["process"]["rlimits"][0].clone();
        spec["process"]["rlimits"].as_array_mut().unwrap().push(one);
    });
    let said = bundle.oci(&["run", id]);
    assert!(said.code == 1 && said.err.contains("RLIMIT_NOFILE") && said.err.contains("twice"), "{said:?}");
}
