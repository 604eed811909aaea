//! Hooks: when, where and with what they are run, and what one that fails leaves.

use std::fs;

use hull_tests::bundle::Bundle;
use hull_tests::{eventually, hull_bin};
use serde_json::{Value, json};

const ALL: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A bundle with `script` as each kind of hook. It finds its kind in $1 and is run by a shell with an empty environment.
fn bundle(script: impl Fn(&str) -> String) -> Bundle {
    let bundle = Bundle::new("touch /ran; exec sleep 1000");
    bundle.change(|spec| {
        spec["ociVersion"] = "1.3.0".into();
        for kind in ALL {
            let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script(kind), "sh", kind], "env": ["A=b"]});
            spec["hooks"][kind] = json!([hook]);
        }
    });
    bundle
}

/// The lines that `name` has, each a state.
fn told(bundle: &Bundle, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(bundle.corner.path().join(name)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A hook that writes one line: what it is, where it is, and the state that it reads.
fn witness(kind: &str, folder: &str) -> String {
    format!(
        "read -r state; printf '{{\"kind\": \"%s\", \"host\": \"%s\", \"root\": \"%s\", \"env\": \"%s\", \"state\": %s}}\\n' \
         $1 $(cat /proc/sys/kernel/hostname) $([ -e /is-the-container ] && echo container || echo host) $A \"$state\" \
         >> {}/told",
        if kind == "startContainer" { "/shared" } else { folder }
    )
}

#[test]
fn each_is_run_at_its_point_in_its_place_with_the_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let bundle = bundle(|kind| witness(kind, &path));
    bundle.change(|spec| {
        let shared = json!({"destination": "/shared", "type": "bind", "source": path, "options": ["rbind"]});
        spec["mounts"].as_array_mut().unwrap().push(shared);
        spec["hostname"] = "inside".into();
        spec["annotations"] = json!({"org.example": "word"});
    });
    fs::write(bundle.corner.rootfs().join("is-the-container"), "").unwrap();
    let read = || {
        let text = fs::read_to_string(folder.path().join("told")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let kinds = || read().iter().map(|line| line["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>();

    let id = &*bundle.id("hooked");
    bundle.create(id);
    assert_eq!(kinds(), ALL[..3]);
    let pid = bundle.state(id)["pid"].clone();
    bundle.ok(&["start", id]);
    assert_eq!(kinds(), ALL[..5]);
    eventually("the command runs", || bundle.corner.rootfs().join("ran").exists());
    bundle.ok(&["delete", "--force", id]);
    assert_eq!(kinds(), ALL);

    let expected =
        [("created", &pid), ("creating", &pid), ("creating", &json!(1)), ("created", &json!(1)), ("running", &pid)];
    for (line, (status, pid)) in read().iter().zip(expected) {
        let state = &line["state"];
        assert_eq!((&state["status"], &state["pid"]), (&status.into(), pid), "{line}");
        assert_eq!((&state["id"], &state["annotations"]["org.example"]), (&id.into(), &"word".into()), "{line}");
        assert_eq!(state["bundle"], *bundle.corner.path().to_string_lossy());
        assert_eq!(line["env"], "b");
        let inside = line["kind"] == "startContainer";
        assert_eq!((line["root"] == "container", line["host"] == "inside"), (inside, inside), "{line}");
    }
    assert_eq!(read()[5]["state"]["status"], "stopped");
}

/// Whichever fails, its words are in the error, `poststop` is run and no container is left that runs.
#[test]
fn one_that_fails_ends_the_container_and_says_why() {
    for failing in &ALL[..5] {
        let bundle = bundle(|kind| match kind {
            "poststop" => "cat >> told; echo >> told".to_owned(),
            kind if kind == *failing => format!("echo why-{kind} >&2; exit 3"),
            _ => "true".to_owned(),
        });
        let id = &*bundle.id("failing");
        let said = bundle.oci(&["run", id]);
        assert_eq!(said.code, 1, "{failing}: {said:?}");
        assert!(said.err.contains(&format!("why-{failing}")) && said.err.contains("/bin/sh"), "{failing}: {said:?}");
        assert_eq!(bundle.ok(&["list", "-q"]), "", "{failing}");
        let states = told(&bundle, "told");
        assert_eq!((states.len(), &states[0]["status"]), (1, &"stopped".into()), "{failing}");
        if *failing != "poststart" {
            assert!(!bundle.corner.rootfs().join("ran").exists(), "{failing}");
        }
    }
}

/// As two commands: what `start` could not bring to life is stopped, and `delete` is enough.
#[test]
fn one_that_fails_at_the_start_leaves_a_stopped_container() {
    for failing in ["startContainer", "poststart"] {
        let bundle = bundle(|kind| if kind == failing { "exit 3" } else { "true" }.to_owned());
        let id = &*bundle.id("failing");
        bundle.create(id);
        let said = bundle.oci(&["start", id]);
        assert!(said.code == 1 && said.err.contains("exit status: 3"), "{failing}: {said:?}");
        eventually("it has stopped", || bundle.state(id)["status"] == "stopped");
        bundle.ok(&["delete", id]);
    }
}

/// After the end, and by a bundle of an earlier version of the specification after the start, all others are run and the
/// container goes on its way.
#[test]
fn one_that_cannot_change_anything_is_a_warning() {
    let bundle = bundle(|kind| if kind.starts_with("post") { "echo why-$1 >&2; exit 3" } else { "true" }.to_owned());
    bundle.change(|spec| {
        spec["ociVersion"] = "1.0.2".into();
        for kind in ["poststart", "poststop"] {
            let late = json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo {kind} >> late")]});
            spec["hooks"][kind].as_array_mut().unwrap().push(late);
        }
    });
    let id = &*bundle.id("warned");
    bundle.create(id);
    let said = bundle.oci(&["start", id]);
    assert!(said.code == 0 && said.err.contains("level=warning") && said.err.contains("why-poststart"), "{said:?}");
    assert_eq!(bundle.state(id)["status"], "running");
    bundle.ok(&["kill", id, "KILL"]);
    eventually("it has stopped", || bundle.state(id)["status"] == "stopped");
    let log = bundle.corner.path().join("log");
    let said = bundle.oci(&["--log", log.to_str().unwrap(), "--log-format", "json", "delete", id]);
    assert_eq!((said.code, &*said.err), (0, ""));
    let line: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    assert_eq!(line["level"], "warning");
    assert!(line["msg"].as_str().unwrap().contains("why-poststop"), "{line}");
    assert_eq!(fs::read_to_string(bundle.corner.path().join("late")).unwrap(), "poststart\npoststop\n");
    assert_eq!(bundle.ok(&["list", "-q"]), "");
}

#[test]
fn one_that_takes_too_long_is_ended() {
    let bundle = bundle(|kind| if kind == "createRuntime" { "exec sleep 1000" } else { "true" }.to_owned());
    bundle.change(|spec| spec["hooks"]["createRuntime"][0]["timeout"] = 1.into());
    let said = bundle.oci(&["run", &bundle.id("late")]);
    assert!(said.code == 1 && said.err.contains("did not end within 1 s"), "{said:?}");
    bundle.change(|spec| spec["hooks"]["createRuntime"][0]["path"] = "sh".into());
    let said = bundle.oci(&["run", &bundle.id("late")]);
    assert!(said.code == 1 && said.err.contains("not absolute"), "{said:?}");
}

/// Before its root is the container's, an exec would be on the host. With the process shown at once this fails.
#[test]
fn what_is_being_created_cannot_be_entered() {
    let folder = tempfile::tempdir().unwrap();
    let (path, hull) = (folder.path().to_str().unwrap().to_owned(), hull_bin().display().to_string());
    let bundle = Bundle::new("sleep 1000");
    let call = format!("{hull} oci --root {}", bundle.root().display());
    let id = &*bundle.id("early");
    let script = format!("{{ {call} state {id}; {call} exec {id} /bin/touch /entered; echo $?; }} >{path}/said 2>&1");
    bundle.change(|spec| {
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]});
        spec["hooks"]["createRuntime"] = json!([hook]);
    });
    bundle.create(id);
    let said = fs::read_to_string(folder.path().join("said")).unwrap();
    assert!(said.contains("\"creating\"") && said.ends_with("\n255\n"), "{said}");
    assert!(!fs::exists("/entered").unwrap());
    assert_eq!(bundle.exec(&[], id, "test -e /entered").code, 1);
    bundle.ok(&["delete", "--force", id]);
}
