//! The OCI verbs, from bundles that `runc spec` made, as a caller of runc uses them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use hull_tests::bundle::Bundle;
use hull_tests::{Said, eventually};
use serde_json::Value;

fn error(said: &Said, words: &str) {
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains(words), "{words:?}: {said:?}");
}

#[test]
fn a_container_goes_its_way_from_created_to_deleted() {
    let bundle = Bundle::new("touch /ran; exec sleep 1000");
    let id = &*bundle.id("way");
    bundle.create(id);
    let groups = bundle.groups(id);
    assert!(!groups.is_empty() && groups.iter().all(|group| group.is_dir()), "{groups:?}");
    let state = bundle.state(id);
    assert_eq!((&state["status"], &state["id"]), (&"created".into(), &id.into()), "{state}");
    assert_eq!(state["bundle"], *bundle.corner.path().to_string_lossy());
    let pid = state["pid"].as_i64().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists() && !bundle.corner.rootfs().join("ran").exists());
    error(&bundle.oci(&["delete", id]), "that is not stopped: created");

    bundle.ok(&["start", id]);
    eventually("the command runs", || bundle.corner.rootfs().join("ran").exists());
    assert_eq!(bundle.state(id)["status"], "running");
    error(&bundle.oci(&["start", id]), "already running");
    error(&bundle.oci(&["delete", id]), "that is not stopped: running");
    error(&bundle.oci(&["create", "-b", ".", id]), "container with given ID already exists");
    let list = bundle.ok(&["list"]);
    let head: Vec<&str> = list.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert!(list.contains(&pid.to_string()) && list.contains("running"), "{list}");
    assert_eq!(bundle.ok(&["list", "-q"]), format!("{id}\n"));
    assert_eq!(serde_json::from_str::<Value>(&bundle.ok(&["ps", "-f", "json", id])).unwrap()[0], pid);

    bundle.ok(&["pause", id]);
    assert_eq!(bundle.state(id)["status"], "paused");
    error(&bundle.oci(&["pause", id]), "container not running: paused");
    bundle.ok(&["resume", id]);
    assert_eq!(bundle.state(id)["status"], "running");
    error(&bundle.oci(&["resume", id]), "container not paused");

    bundle.ok(&["kill", id, "KILL"]);
    eventually("it has ended", || bundle.state(id)["status"] == "stopped");
    assert_eq!(bundle.state(id)["pid"], 0);
    error(&bundle.oci(&["kill", id]), "container not running");
    error(&bundle.oci(&["start", id]), "cannot start a container that has stopped");
    bundle.ok(&["delete", id]);
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
    error(&bundle.oci(&["state", id]), "container does not exist");
    error(&bundle.oci(&["delete", id]), "container does not exist");
    bundle.ok(&["delete", "--force", id]);
}

#[test]
fn run_waits_and_gives_the_status_and_a_pid_file_says_who_it_was() {
    let bundle = Bundle::new("echo out; echo err >&2; exit 7");
    let said = bundle.oci(&["run", "--pid-file", "pid", &bundle.id("run")]);
    assert_eq!((said.code, &*said.out, &*said.err), (7, "out\n", "err\n"));
    assert!(fs::read_to_string(bundle.corner.path().join("pid")).unwrap().parse::<u32>().is_ok());
    assert_eq!(bundle.ok(&["list", "-q"]), "");
    let kept = bundle.id("kept");
    assert_eq!(bundle.oci(&["run", "--keep", &kept]).code, 7);
    assert_eq!(bundle.state(&kept)["status"], "stopped");
    bundle.ok(&["delete", &kept]);
}

#[test]
fn what_cannot_be_created_is_an_error_and_leaves_nothing() {
    let bundle = Bundle::new("true");
    let id = &*bundle.id("bad");
    for (wrong, words) in [
        ("a/b", "invalid container ID format"),
        ("..", "invalid container ID format"),
        ("", "container id cannot be empty"),
    ] {
        error(&bundle.oci(&["create", "-b", ".", wrong]), words);
    }
    error(&bundle.oci(&["create", "-b", "/no/such", id]), "/no/such");
    let path = bundle.corner.path().join("config.json");
    let good = fs::read_to_string(&path).unwrap();
    for (text, words) in [
        (good[..good.len() / 2].to_owned(), "config.json"),
        ("x".repeat(17 << 20), "larger than"),
        (good.replace("\"ociVersion\":\"1.", "\"ociVersion\":\"7."), "is not 1.x"),
        (good.replace("\"terminal\":false", "\"terminal\":\"no\""), "expected a boolean"),
        (good.replace("\"terminal\":false", "\"terminal\":true"), "console socket"),
        (good.replace("\"path\":\"rootfs\"", "\"path\":\"nowhere\""), "nowhere"),
    ] {
        fs::write(&path, text).unwrap();
        let said = bundle.oci(&["create", "-b", ".", id]);
        assert_eq!(said.code, 1, "{words}: {said:?}");
        assert!(said.err.contains(words) || words == "config.json", "{words}: {said:?}");
    }
    // What cannot be executed is told by create already, as by runc: its callers do not take the words of start for it.
    for (name, words) in [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such", ": no such file or directory"),
        ("/bin", "permission denied: /bin is a directory"),
        ("/etc/plain", "no execute bit"),
    ] {
        fs::write(bundle.corner.rootfs().join("etc/plain"), "").unwrap();
        fs::write(&path, good.replace("\"sh\"", &format!("{name:?}"))).unwrap();
        error(&bundle.oci(&["create", id]), words);
        error(&bundle.oci(&["run", id]), words);
    }
    assert_eq!(bundle.ok(&["list", "-q"]), "");
}

#[test]
fn an_error_is_a_line_of_the_log_in_the_shape_that_was_asked_for() {
    let bundle = Bundle::new("true");
    let said = bundle.oci(&["--log-format", "json", "state", "none"]);
    let line: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!((said.code, &line["level"]), (1, &"error".into()));
    assert!(line["msg"].as_str().unwrap().contains("container does not exist") && line["time"].is_string());
    let said = bundle.oci(&["--log", "log", "--log-format", "json", "state", "none"]);
    let log = fs::read_to_string(bundle.corner.path().join("log")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&log).unwrap()["level"], "error");
    assert!(said.err.contains("container does not exist") && !said.err.contains("level"), "{said:?}");
    assert!(bundle.oci(&["state", "none"]).err.starts_with("time="));
    // A command line that is wrong, too: a caller shows its user what is in the log.
    let said = bundle.oci(&["--log=usage", "--log-format", "json", "no-such-verb"]);
    let log = fs::read_to_string(bundle.corner.path().join("usage")).unwrap();
    let line: Value = serde_json::from_str(&log).unwrap();
    assert!(said.code == 1 && said.err.contains("no-such-verb"), "{said:?}");
    assert!(line["msg"].as_str().unwrap().contains("unrecognized subcommand 'no-such-verb'"), "{line}");
}

/// The specification's rule for a runtime that does not have everything itself; Docker's `--privileged` asks for all.
#[test]
fn a_capability_that_cannot_be_granted_is_a_warning_and_the_others_are_there() {
    let bundle = Bundle::new("grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status");
    let all = ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_TTY_CONFIG"];
    bundle.change(|spec| {
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = all.as_slice().into();
        }
    });
    let mut without = Command::new("setpriv");
    let command = bundle.command(&["--log", "log", "run", &bundle.id("caps")]);
    without.args(["--bounding-set", "-sys_tty_config"]).arg(command.get_program()).args(command.get_args());
    let said: Said = without.current_dir(bundle.corner.path()).output().unwrap().into();
    let chown_and_kill = "0000000000000021";
    assert_eq!((said.code, said.out.matches(chown_and_kill).count()), (0, 3), "{said:?}");
    let log = fs::read_to_string(bundle.corner.path().join("log")).unwrap();
    assert!(log.contains("level=warning msg=\"cannot grant SYS_TTY_CONFIG:"), "{log}");
}

/// Its process may have hung up, with something of its creator's unread, before that says the next word. Shown to fail where
/// only the end of a line without anything unread is expected: about one in five.
#[test]
fn what_ends_a_creation_early_is_told_whatever_the_creator_was_about_to_say() {
    let bundle = Bundle::new("true");
    std::fs::write(bundle.corner.rootfs().join("proc"), "").unwrap();
    for _ in 0..40 {
        error(&bundle.oci(&["run", &bundle.id("early")]), "must be an ordinary directory");
    }
}

/// A creator that is killed at any moment: one `delete --force` is enough.
#[test]
fn a_create_that_is_killed_at_any_moment_is_cleared_by_one_delete() {
    let bundle = Bundle::new("sleep 1000");
    let whole = &*bundle.id("whole");
    let begin = std::time::Instant::now();
    bundle.create(whole);
    // However busy the machine is.
    let step = begin.elapsed() / 20;
    bundle.ok(&["delete", "--force", whole]);
    let mut left = 0;
    for moment in 0..24 {
        let id = &*bundle.id(&format!("killed{moment}"));
        let mut create = bundle.command(&["create", "-b", ".", id]);
        let mut child = create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(step * moment);
        child.kill().unwrap();
        child.wait().unwrap();
        let folder = bundle.root().join(id);
        let groups = if folder.join("state.json").exists() { bundle.groups(id) } else { Vec::new() };
        left += usize::from(folder.exists());
        bundle.ok(&["delete", "--force", id]);
        assert!(!folder.exists() && groups.iter().all(|group| !group.exists()), "{moment}: {groups:?}");
    }
    assert!(left > 4, "only {left} kills left something");
    assert_eq!(bundle.ok(&["list", "-q"]), "");
}

/// What is opened first would become the command's standard output otherwise: here hull's own files.
#[test]
fn standard_streams_that_are_closed_are_the_null_device() {
    let bundle = Bundle::new("said=$(for n in 0 1 2; do readlink /proc/$$/fd/$n; done); echo \"$said\" > /said");
    let run = bundle.command(&["run", &bundle.id("closed")]);
    let words: Vec<_> =
        [run.get_program()].into_iter().chain(run.get_args()).map(|word| word.to_str().unwrap()).collect();
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 0<&- 1>&- 2>&-", "sh"]).args(&words).current_dir(bundle.corner.path());
    assert!(shell.status().unwrap().success());
    let said = fs::read_to_string(bundle.corner.rootfs().join("said")).unwrap();
    assert_eq!(said, "/dev/null\n/dev/null\n/dev/null\n");
}
