//! `hull-oci events`: runc's shape, the kernel's numbers, and notice of memory that is at its end.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use hull_tests::bundle::Bundle;
use hull_tests::eventually;
use serde_json::{Value, json};

fn event(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

/// The kind of each value by its place; of lists only the first entry counts. What a kernel counts in `raw` and which page
/// sizes there are is not the runtime's shape.
fn shape(value: &Value, at: &str, all: &mut BTreeMap<String, &'static str>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(list) => {
            list.first().into_iter().for_each(|first| shape(first, &format!("{at}[]"), all));
            "list"
        }
        Value::Object(map) => {
            let open = at.ends_with("/raw") || at.ends_with("/hugetlb");
            map.iter().filter(|_| !open).for_each(|(key, value)| shape(value, &format!("{at}/{key}"), all));
            "object"
        }
    };
    all.insert(at.to_owned(), kind);
}

const BUSY: &str =
    "busybox dd if=/dev/zero of=/file bs=4096 count=64 2>/dev/null; exec 3</file; touch /ready; sleep 1000";

/// Waits until [`BUSY`] has used what it uses, for numbers that are zero are left out.
fn written(bundle: &Bundle) {
    let ready = bundle.corner.rootfs().join("ready");
    eventually("it has written", || ready.exists());
    fs::remove_file(ready).unwrap();
}

/// runc itself, on the same bundle, is the golden text: every field that it tells is told by hull, with the same kind.
#[test]
fn stats_have_runcs_shape() {
    let bundle = Bundle::new(BUSY);
    let id = bundle.id("shape");
    bundle.create(&id);
    bundle.ok(&["start", &id]);
    written(&bundle);
    let ours = event(&bundle.ok(&["events", "--stats", &id]));
    assert_eq!((&ours["type"], &ours["id"]), (&"stats".into(), &json!(id)));
    bundle.ok(&["delete", "--force", &id]);

    let root = bundle.corner.path().join("runc");
    let runc = |arguments: &[&str]| {
        let mut runc = Command::new("runc");
        runc.current_dir(bundle.corner.path()).arg("--root").arg(&root).args(arguments).stdin(Stdio::null());
        runc
    };
    assert!(runc(&["run", "--detach", &id]).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    written(&bundle);
    let theirs = runc(&["events", "--stats", &id]).output().unwrap();
    assert!(runc(&["delete", "--force", &id]).status().unwrap().success());
    let theirs = event(&String::from_utf8(theirs.stdout).unwrap());

    let (mut our_shape, mut their_shape) = (BTreeMap::new(), BTreeMap::new());
    shape(&ours["data"], "", &mut our_shape);
    shape(&theirs["data"], "", &mut their_shape);
    assert!(their_shape.len() > 30, "{theirs}");
    for (place, kind) in their_shape {
        // A number that happens to be zero is left out, and runc knows no interfaces of a bundle's.
        let zero = ["/cpu/throttling/", "/blkio/", "/max", "/usage/usage"].iter().any(|part| place.contains(part));
        let ours = our_shape.get(&place).copied();
        let fits = ours == Some(kind) || (ours.is_none() && zero) || place == "/network_interfaces";
        assert!(fits, "{place}: runc has {kind}, hull {ours:?}\n{our_shape:?}");
    }
}

#[test]
fn stats_are_the_kernels_numbers() {
    let bundle = Bundle::new(BUSY);
    let limits = json!({"pids": {"limit": 99}, "memory": {"limit": 64 << 20}, "cpu": {"cpus": "0"}});
    bundle.change(|spec| spec["linux"]["resources"] = limits);
    let id = bundle.id("numbers");
    bundle.create(&id);
    bundle.ok(&["start", &id]);
    eventually("it has written", || {
        fs::metadata(bundle.corner.rootfs().join("file")).is_ok_and(|f| f.len() == 64 << 12)
    });
    let stats = event(&bundle.ok(&["events", "--stats", &id]))["data"].take();
    assert_eq!(stats["pids"]["limit"], 99);
    assert!(stats["pids"]["current"].as_u64().unwrap() >= 1, "{stats}");
    let usage = &stats["memory"]["usage"];
    assert_eq!(usage["limit"], 64 << 20);
    assert!((1..=64 << 20).contains(&usage["usage"].as_u64().unwrap()), "{stats}");
    assert!(stats["cpu"]["usage"]["total"].as_u64().unwrap() > 1_000_000, "{stats}");
    assert_eq!(stats["cpuset"]["cpus"], json!([0]));
    assert!(stats["memory"]["raw"].as_object().unwrap().len() > 10, "{stats}");
    assert_eq!(stats["network_interfaces"][0]["Name"], "lo");
    // Pressure is v2's, where the kernel counts it.
    let group = bundle.groups(&id).into_iter().find(|group| group.join("memory.pressure").exists());
    let counted = group.is_some_and(|group| fs::read_to_string(group.join("memory.pressure")).is_ok());
    assert_eq!(stats["memory"]["psi"]["some"]["avg10"].is_number(), counted, "{stats}");
    bundle.ok(&["delete", "--force", &id]);
}

/// Lines come at once, and end when the container has ended.
#[test]
fn memory_that_is_at_its_end_is_an_event_and_the_end_of_the_container_ends_it() {
    let bundle = Bundle::new("read go </go; busybox tail /dev/zero; read go </go");
    assert!(Command::new("mkfifo").arg(bundle.corner.rootfs().join("go")).status().unwrap().success());
    bundle.change(|spec| {
        spec["linux"]["resources"]["memory"] = json!({"limit": 16 << 20});
        if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            // Where there is swap it would take some time to fill it.
            spec["linux"]["resources"]["memory"]["swap"] = json!(16 << 20);
        }
    });
    let id = bundle.id("memory");
    bundle.create(&id);
    bundle.ok(&["start", &id]);
    let mut events = bundle.command(&["events", "--interval", "100ms", &id]);
    let mut events = events.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines().map(|line| event(&line.unwrap()));
    assert_eq!(lines.next().unwrap()["type"], "stats");
    fs::write(bundle.corner.rootfs().join("go"), "go\n").unwrap();
    let oom = lines.find(|line| line["type"] == "oom").unwrap();
    assert_eq!(oom, json!({"type": "oom", "id": id}));
    fs::write(bundle.corner.rootfs().join("go"), "go\n").unwrap();
    assert!(lines.all(|line| line["type"] == "stats"), "once is told once");
    assert!(events.wait().unwrap().success());
    bundle.ok(&["delete", &id]);
}

#[test]
fn what_cannot_be_told_is_an_error() {
    let bundle = Bundle::new("true");
    let id = bundle.id("errors");
    bundle.create(&id);
    let error = |arguments: &[&str], words: &str| {
        let said = bundle.oci(arguments);
        assert!(said.code == 1 && said.err.contains(words), "{arguments:?}: {said:?}");
    };
    error(&["events", "--interval", "0s", &id], "duration interval must be greater than 0");
    error(&["events", "--interval", "soon", &id], "soon");
    error(&["events", "none"], "container does not exist");
    bundle.ok(&["start", &id]);
    eventually("it has ended", || bundle.state(&id)["status"] == "stopped");
    error(&["events", "--stats", &id], "is not running");
    bundle.ok(&["delete", &id]);
}
