//! The look at what is left behind sees each kind of leak: a helper that sees nothing would make every test pass.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};

use hull_tests::{Corner, hull_groups};

/// What a corner says when it goes; nothing if it is content.
fn farewell(corner: Corner) -> Option<String> {
    let refused = catch_unwind(AssertUnwindSafe(|| drop(corner))).err()?;
    Some(refused.downcast_ref::<String>().expect("a text").clone())
}

fn sh(corner: &Corner, script: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-ec", script]).current_dir(corner.path()).envs(corner.env());
    let status = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{script}");
}

/// The rest of a script whose last process is in the background: waits until that is a sleep and nothing else any more.
/// In the middle of an execve(2) a process has no environment and the old name.
const ASLEEP: &str = r#"until [ "$(head -c 5 /proc/$!/cmdline)" = sleep ]; do sleep 0.01; done"#;

fn background(corner: &Corner, script: &str) {
    sh(corner, &format!("{script} & {ASLEEP}"));
}

/// A container of this corner with a group, whose record is gone: what a hull that forgets its groups would leave.
fn leak_group(corner: &Corner, inside: &str) {
    let id = format!("{:064x}", std::process::id());
    let id = format!("{}{}", &id[..58], corner.path().to_string_lossy().rsplit('-').next().unwrap());
    let folder = corner.runroot().join("containers").join(&id);
    corner.env();
    fs::create_dir(&folder).unwrap();
    fs::remove_dir(&folder).unwrap();
    let group =
        Path::new(if Path::new("/sys/fs/cgroup/pids").exists() { "/sys/fs/cgroup/pids" } else { "/sys/fs/cgroup" });
    let group = group.join(format!("hull-{id}"));
    fs::create_dir(&group).unwrap();
    sh(corner, &format!("cd /; {}", inside.replace("GROUP", &group.to_string_lossy())));
}

#[test]
fn each_kind_of_leak_fails_the_test_and_is_cleared() {
    type Leak = fn(&Corner);
    let leaks: [(&str, Leak); 9] = [
        ("mount: ", |corner| sh(corner, "mkdir m; mount -t tmpfs x m")),
        ("mount: ", |corner| sh(corner, "mkdir m; mount --bind rootfs m")),
        ("namespace: ", |corner| sh(corner, "touch ns; unshare --net=ns true")),
        ("by its environ", |corner| background(corner, "cd /; sleep 1000")),
        ("mount in the namespace of process", |corner| {
            background(corner, "mkdir m; env -i unshare -m sh -c 'mount -t tmpfs x m; exec sleep 10'");
        }),
        ("control group: ", |corner| leak_group(corner, ":")),
        ("by its cgroup", |corner| {
            leak_group(corner, &format!("env -i sleep 1000 & echo $! > GROUP/cgroup.procs; {ASLEEP}"))
        }),
        ("state: ", |corner| sh(corner, "mkdir -p store/staging/layer")),
        ("state: ", |corner| sh(corner, "mkdir -p run/names; ln -s id run/names/web")),
    ];
    for (number, (word, leak)) in leaks.into_iter().enumerate() {
        let corner = Corner::new().impatient();
        let folder = corner.path().to_owned();
        leak(&corner);
        let told = farewell(corner).unwrap_or_else(|| panic!("leak {number} was not seen"));
        assert!(told.contains(word) && !told.contains("cannot clear"), "leak {number}: {told}");
        let again = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!folder.exists() && !again.contains(&*folder.to_string_lossy()), "leak {number} is still there");
    }
}

#[test]
fn a_container_that_is_kept_fails_the_test_that_made_it() {
    let corner = Corner::new().impatient();
    let status =
        corner.hull().args(["run", "--name", "kept", "--rootfs"]).arg(corner.rootfs()).args(["--", "true"]).status();
    assert!(status.unwrap().success());
    assert!(farewell(corner).unwrap().contains("state: "));
}

#[test]
fn a_running_container_is_seen_ended_and_its_group_removed() {
    let corner = Corner::new().impatient();
    let mut command = corner.run_command(&[], &["sh", "-c", "echo up; exec sleep 1000"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let id = hull_tests::entries(&corner.runroot().join("containers")).remove(0);
    let told = farewell(corner).unwrap();
    child.wait().unwrap();
    for word in ["control group: ", "by its cgroup", "by its environ", "state: "] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert!(!hull_groups().iter().any(|group| group.ends_with(format!("hull-{id}"))));
}

#[test]
fn a_clean_corner_says_nothing() {
    let corner = Corner::new();
    assert_eq!(corner.run(&[], &["true"]).code, 0);
    assert_eq!(farewell(corner), None);
}
