//! One serial test that compares the whole host before and after runs that succeed, runs that fail, builds and kills.
//!
//! It is a binary of its own, so that no other test runs beside it. The look that every corner takes at its end knows
//! its own things by their names; this one knows nothing and sees also what has lost its name.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hull_tests::{Corner, Said, entries, hull_bin, hull_groups, left};

/// Everything a container could leave: mounts of any mount namespace, groups, namespaces, links, processes of hull,
/// its usual folders, temporary files.
fn snapshot() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    all.extend(hull_groups().iter().map(|path| format!("group {}", path.display())));
    for folder in ["/sys/class/net", "/var/lib/hull", "/run/hull", "/run/netns", "/dev/shm", "/dev/mqueue"] {
        all.extend(entries(Path::new(folder)).iter().map(|name| format!("file {folder}/{name}")));
    }
    let temporary = std::env::temp_dir();
    let ours = entries(&temporary).into_iter().filter(|name| name.contains("hull"));
    all.extend(ours.map(|name| format!("file {}", temporary.join(name).display())));
    for pid in left::processes() {
        if fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == hull_bin()) {
            all.insert(format!("process {pid}"));
        }
        for kind in ["mnt", "pid", "uts", "ipc", "net", "cgroup", "user"] {
            let Ok(link) = fs::read_link(format!("/proc/{pid}/ns/{kind}")) else { continue };
            if all.insert(format!("namespace {}", link.display())) && kind == "mnt" {
                let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
                all.extend(mounts.lines().map(|line| format!("mount in {}: {line}", link.display())));
            }
        }
    }
    all
}

fn hull(corner: &Corner, arguments: &[&str]) -> Said {
    corner.hull().args(arguments).output().unwrap().into()
}

fn runs_and_mistakes(corner: &Corner) {
    for _ in 0..20 {
        assert_eq!(corner.run(&["--tmpfs", "/t", "-m", "64m"], &["true"]).code, 0);
    }
    assert_eq!(corner.run(&["--tmpfs", "/tmp/../../x"], &["true"]).code, 0);
    for (flags, command) in [
        (&[][..], "not-there"),
        (&["-v", "/no/such:/x"], "true"),
        (&["--cpuset-cpus", "4000"], "true"),
        (&["--user", "nobody-here"], "true"),
        (&["--mount", "type=tmpfs"], "true"),
    ] {
        assert_ne!(corner.run(flags, &[command]).code, 0, "{flags:?}");
    }
}

fn builds(corner: &Corner) {
    let (archive, context) = (corner.path().join("base.tar"), corner.path().join("context"));
    let tar = Command::new("tar").arg("-C").arg(corner.rootfs()).arg("-cf").arg(&archive).arg(".").status();
    assert!(tar.unwrap().success());
    assert_eq!(hull(corner, &["import", &archive.to_string_lossy(), "base"]).code, 0);
    fs::create_dir(&context).unwrap();
    for (last, code) in [("RUN echo two > /two", 0), ("RUN exit 3", 1)] {
        fs::write(context.join("Dockerfile"), format!("FROM base\nRUN echo one > /one\n{last}\n")).unwrap();
        let said = hull(corner, &["build", "-t", "made", &context.to_string_lossy()]);
        assert_eq!(said.code.min(1), code, "{said:?}");
    }
    assert_eq!(hull(corner, &["run", "--rm", "made", "cat", "/one", "/two"]).out, "one\ntwo\n");
}

fn kills(corner: &Corner) {
    for delay in (0..20).map(|step| Duration::from_micros(step * 500)) {
        let mut command = corner.run_command(&["--tmpfs", "/t"], &["sleep", "1000"]);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let repaired = hull(corner, &["system", "check", "--repair"]);
    assert_eq!(repaired.code, 0, "{repaired:?}");
}

#[test]
fn the_host_is_the_same_after_any_run() {
    let before = snapshot();
    let corner = Corner::new();
    runs_and_mistakes(&corner);
    builds(&corner);
    kills(&corner);
    drop(corner);
    // What was killed is gone a moment later, and so is what the machine did beside this test.
    let start = Instant::now();
    loop {
        let after = snapshot();
        let left: Vec<_> = after.difference(&before).collect();
        if left.is_empty() {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "left behind: {left:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
