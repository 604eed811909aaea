//! Seccomp with an agent: calls that another process decides about, in a container's first process and in an exec.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use hull_tests::agent::Agent;
use hull_tests::bundle::Bundle;
use hull_tests::eventually;
use serde_json::{Value, json};

/// A bundle whose profile notifies of `calls`, at `agent` in its folder.
fn bundle(script: &str, calls: &[&str], no_new_privs: bool) -> Bundle {
    let bundle = Bundle::new(script);
    let path = bundle.corner.path().join("agent");
    bundle.change(|spec| {
        spec["process"]["noNewPrivileges"] = no_new_privs.into();
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "some=words",
            "syscalls": [{"names": calls, "action": "SCMP_ACT_NOTIFY"}],
        });
    });
    bundle
}

fn agent(bundle: &Bundle) -> Agent {
    Agent::new(&bundle.corner.path().join("agent"))
}

const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

#[test]
fn what_the_agent_answers_is_what_the_call_gives() {
    for no_new_privs in [false, true] {
        let bundle = bundle("busybox mkdir /made; ls -d /made", &MKDIR, no_new_privs);
        bundle.change(|spec| {
            spec["linux"]["seccomp"]["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
            spec["annotations"] = json!({"org.example": "word"});
        });
        let agent = agent(&bundle);
        let id = &*bundle.id("asked");
        let said = bundle.oci(&["run", "--pid-file", "pid", id]);
        assert!(said.code == 1 && said.err.contains("No medium found"), "{said:?}");
        let pid: Value = fs::read_to_string(bundle.corner.path().join("pid")).unwrap().parse::<i32>().unwrap().into();
        let version = bundle.corner.path().join("config.json");
        let version: Value = serde_json::from_str(&fs::read_to_string(version).unwrap()).unwrap();
        let state = json!({
            "ociVersion": version["ociVersion"], "id": id, "status": "creating", "pid": pid,
            "bundle": bundle.corner.path(), "annotations": {"org.example": "word"},
        });
        let told = json!({
            "ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": pid, "metadata": "some=words", "state": state,
        });
        assert_eq!(agent.told(1), [told]);
    }
}

/// The state goes to the agent when the container is created, and once more for each exec.
#[test]
fn created_started_and_executed_processes_have_a_listener_each() {
    let bundle = bundle("busybox mkdir /made; exec sleep 1000", &MKDIR, false);
    let agent = agent(&bundle);
    let id = &*bundle.id("each");
    bundle.create(id);
    let told = agent.told(1);
    assert_eq!((told.len(), &told[0]["state"]["status"]), (1, &"creating".into()));
    let init = bundle.state(id)["pid"].clone();
    assert_eq!((&told[0]["pid"], &told[0]["state"]["pid"]), (&init, &init));
    bundle.ok(&["start", id]);

    let said = bundle.exec(&["--pid-file", "pid"], id, "busybox mkdir /made");
    assert!(said.code == 1 && said.err.contains("No medium found"), "{said:?}");
    let pid: Value = fs::read_to_string(bundle.corner.path().join("pid")).unwrap().parse::<i32>().unwrap().into();
    let told = agent.told(2);
    let state = &told[1];
    assert_eq!((&state["pid"], &state["state"]["pid"], &state["state"]["status"]), (&pid, &init, &"running".into()));
    assert_eq!(told.len(), 2);
    bundle.ok(&["delete", "--force", id]);
}

/// Each call that the start itself makes once the filter is loaded, and those of a hook, is the agent's to let go: nothing
/// waits for an agent that waits for it. Seen to hang with the listener always sent by sendmsg(2).
#[test]
fn no_notified_call_of_the_start_keeps_it_from_the_agent() {
    let calls = [
        "sendmsg",
        "recvmsg",
        "read",
        "close",
        "openat",
        "execve",
        "capset",
        "capget",
        "prctl",
        "accept4",
        "poll",
        "fcntl",
        "fcntl64",
        "dup3",
        "clone",
        "clone3",
        "vfork",
        "wait4",
        "waitid",
        "mmap",
        "brk",
        "rt_sigaction",
        "rt_sigprocmask",
        "exit_group",
        "getpid",
        "unlinkat",
        "ioctl",
        "pipe2",
        "newfstatat",
        "fstat",
        "readv",
    ];
    for no_new_privs in [false, true] {
        let bundle = bundle("echo done; exec sleep 1000", &calls, no_new_privs);
        bundle.change(|spec| {
            spec["hooks"]["startContainer"] =
                json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo hook > /by-hook"]}]);
        });
        let agent = agent(&bundle);
        let id = &*bundle.id("held");
        bundle.start(id);
        assert_eq!(fs::read_to_string(bundle.corner.rootfs().join("by-hook")).unwrap(), "hook\n");
        assert_eq!(bundle.exec(&[], id, "echo out").out, "out\n");
        bundle.ok(&["delete", "--force", id]);
        let asked = agent.calls();
        // execve of hook, command and exec; capset is where caps go after the filter.
        assert!(asked.iter().filter(|call| **call == 59).count() >= 3, "{asked:?}");
        assert_eq!(asked.contains(&126), !no_new_privs, "{asked:?}");
    }
}

#[test]
fn without_an_agent_nothing_is_created_or_executed() {
    let bundle = bundle("exec sleep 1000", &MKDIR, false);
    let id = &*bundle.id("alone");
    for verb in ["create", "run"] {
        let mut command = bundle.command(&[verb, "-b", ".", id]);
        let said: hull_tests::Said = command.stdin(Stdio::null()).output().unwrap().into();
        let path = bundle.corner.path().join("agent");
        assert!(said.code == 1 && said.err.contains("linux.seccomp.listenerPath"), "{said:?}");
        assert!(said.err.contains(path.to_str().unwrap()) && said.err.contains("No such file"), "{said:?}");
        assert_eq!(bundle.ok(&["list", "-q"]), "");
    }
    let agent = agent(&bundle);
    bundle.start(id);
    drop(agent);
    let said = bundle.exec(&[], id, "touch /executed");
    assert!(said.code == 255 && said.err.contains("Connection refused"), "{said:?}");
    assert!(!bundle.corner.rootfs().join("executed").exists());
    bundle.ok(&["delete", "--force", id]);
}

/// With a copy of the listener left in the container it would wait for ever.
#[test]
fn a_call_whose_agent_is_gone_answers_enosys() {
    let bundle =
        bundle("while ! busybox mkdir /made 2>/said; do grep -q implemented /said && exit 7; done", &MKDIR, false);
    let agent = agent(&bundle);
    let id = &*bundle.id("left");
    bundle.start(id);
    drop(agent);
    eventually("it ends", || bundle.state(id)["status"] == "stopped");
    assert!(fs::read_to_string(bundle.corner.rootfs().join("said")).unwrap().contains("Function not implemented"));
    bundle.ok(&["delete", id]);
}

#[test]
fn profiles_that_cannot_be_notified_are_refused_by_name_and_an_idle_path_is_ignored() {
    let bundle = bundle("echo ran", &MKDIR, false);
    let path = bundle.corner.path().join("config.json");
    let good = fs::read_to_string(&path).unwrap();
    let cases: [(&str, Value, &str); 4] = [
        ("listenerPath", Value::Null, "SCMP_ACT_NOTIFY needs listenerPath"),
        ("listenerPath", "agent".into(), "is not absolute"),
        ("flags", json!(["SECCOMP_FILTER_FLAG_TSYNC"]), "SECCOMP_FILTER_FLAG_TSYNC does not go together"),
        ("syscalls", json!([{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]), "cannot be used for the write"),
    ];
    for (field, value, words) in cases {
        fs::write(&path, &good).unwrap();
        bundle.change(|spec| spec["linux"]["seccomp"][field] = value);
        let said = bundle.oci(&["run", &bundle.id("refused")]);
        assert!(said.code == 1 && said.err.contains(words), "{words}: {said:?}");
    }
    fs::write(&path, &good).unwrap();
    bundle.change(|spec| spec["linux"]["seccomp"]["syscalls"] = json!([]));
    assert_eq!(bundle.ok(&["run", &bundle.id("idle")]), "ran\n");
}

/// Its program is the image's: before, it ran as the container's user, but with all of root's capabilities and no filter.
#[test]
fn a_hook_in_the_container_has_the_rights_of_the_command_and_no_others() {
    let script = "grep -E 'Cap(Prm|Eff|Bnd)|Seccomp:|NoNewPrivs' /proc/self/status";
    for (no_new_privs, user) in [(false, 0), (true, 0), (false, 1000)] {
        let bundle = Bundle::new(script);
        bundle.change(|spec| {
            spec["process"]["noNewPrivileges"] = no_new_privs.into();
            spec["process"]["user"] = json!({"uid": user, "gid": user});
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["mount"], "action": "SCMP_ACT_ERRNO"}]});
            let told = format!("{script} > /told/hook");
            spec["hooks"]["startContainer"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", told]}]);
        });
        let told = bundle.corner.rootfs().join("told");
        fs::create_dir(&told).unwrap();
        fs::set_permissions(&told, fs::Permissions::from_mode(0o777)).unwrap();
        let command = bundle.ok(&["run", &bundle.id("hook")]);
        assert!(command.contains("Seccomp:\t2"), "{command}");
        assert_eq!(fs::read_to_string(told.join("hook")).unwrap(), command);
    }
}
