//! `kill -9` of hull: the container ends too, and the next command clears the rest.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use hull_tests::{Corner, entries, eventually, hull_groups};

/// Host processes in the container of the one running id of this corner.
fn members(id: &str) -> Vec<String> {
    let ours = |path: &PathBuf| path.ends_with(format!("hull-{id}"));
    let group = hull_groups().into_iter().find(ours);
    let list = group.and_then(|group| fs::read_to_string(group.join("cgroup.procs")).ok()).unwrap_or_default();
    list.lines().map(str::to_owned).collect()
}

/// A hull that a failing test does not leave running.
struct Running(Child);

impl Running {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only where it has been killed and reaped already.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn started(corner: &Corner) -> (Running, String) {
    let mut command = corner.run_command(&["-i"], &["sh", "-c", "sleep 1000 & sleep 1000; true"]);
    let child = Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    let containers = corner.runroot().join("containers");
    eventually("the container runs", || entries(&containers).first().is_some_and(|id| members(id).len() >= 3));
    (child, entries(&containers).remove(0))
}

#[test]
fn a_killed_hull_takes_its_container_along_within_a_second() {
    let corner = Corner::new();
    let (mut child, id) = started(&corner);
    child.kill();
    let took = eventually("the container's processes are gone", || members(&id).is_empty());
    assert!(took < Duration::from_secs(1), "{took:?}");

    let check = |flags: &[&str]| corner.hull().args(["system", "check"]).args(flags).output().unwrap();
    let found = check(&[]);
    assert_eq!(found.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&found.stdout).contains(&id));
    assert_eq!(check(&["--repair"]).status.code(), Some(0));
    assert_eq!(check(&[]).status.code(), Some(0), "a second look finds nothing");
    assert!(!hull_groups().iter().any(|group| group.ends_with(format!("hull-{id}"))));
    corner.assert_clean();
}

#[test]
fn a_kill_at_any_moment_is_repaired() {
    let corner = Corner::new();
    for delay in (0..40).map(|step| Duration::from_micros(step * 250)) {
        let mut child = corner.run_command(&[], &["sleep", "1000"]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
        let repaired = corner.hull().args(["system", "check", "--repair"]).output().unwrap();
        assert_eq!(repaired.status.code(), Some(0), "{repaired:?}");
    }
    let clean = corner.hull().args(["system", "check"]).output().unwrap();
    assert_eq!(clean.status.code(), Some(0), "{clean:?}");
    corner.assert_clean();
}

#[test]
fn a_signal_reaches_the_command() {
    let corner = Corner::new();
    let script = "trap 'exit 42' TERM; echo up; while :; do sleep 0.05; done";
    let mut child = corner.run_command(&[], &["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(42));
    corner.assert_clean();
}
