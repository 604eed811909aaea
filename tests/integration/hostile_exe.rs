//! Row A11, CVE-2019-5736: what a container can do to the file that hull is.
//!
//! Each test runs a copy of hull and looks at the copy afterwards. With `exe::seal` doing nothing every one of them
//! fails: the handle that is kept from the first look can be opened for writing once hull has ended.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hull_tests::bundle::Bundle;
use hull_tests::{Builder, Corner, Said, eventually, hull_bin};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::{Errno, write};

/// How often a neighbour gets a chance.
const RUNS: usize = 20;

/// A copy of hull, and what it was.
struct Victim {
    path: PathBuf,
    before: Vec<u8>,
}

impl Victim {
    /// In place of what is at `path`.
    fn new(path: PathBuf) -> Self {
        let _ = fs::remove_file(&path);
        fs::copy(hull_bin(), &path).unwrap();
        Self { before: fs::read(&path).unwrap(), path }
    }

    /// By which it is known, also where a copy in memory is executed in its place.
    fn size(&self) -> i64 {
        self.before.len() as i64
    }

    fn assert_whole(&self) {
        assert!(fs::read(&self.path).unwrap() == self.before, "hull's file was written to");
    }

    /// Handles of this file behind /proc/PID/exe of the children of `hull`, as long as it runs.
    fn exposed(&self, hull: &mut Child) -> Vec<OwnedFd> {
        let pid = hull.id();
        let mut found: BTreeMap<String, OwnedFd> = BTreeMap::new();
        while hull.try_wait().unwrap().is_none() {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            for child in children.split_whitespace() {
                let Ok(handle) = handle(child) else { continue };
                if fstat(&handle).unwrap().st_size == self.size() {
                    found.insert(child.to_owned(), handle);
                }
            }
        }
        found.into_values().collect()
    }
}

fn handle(pid: &str) -> Result<OwnedFd, Errno> {
    open(format!("/proc/{pid}/exe"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// What the kernel says to whoever wants to write to it; a sealed copy in memory can be opened.
fn writing(handle: &OwnedFd) -> Result<usize, Errno> {
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    write(open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?, b"overwritten")
}

fn assert_refused(handle: &OwnedFd, what: &str) {
    let answer = writing(handle);
    assert!(matches!(answer, Err(Errno::ROFS | Errno::PERM)), "{what}: {answer:?}");
}

fn script(rootfs: &Path, name: &str, text: &str) {
    fs::write(rootfs.join(name), text).unwrap();
    fs::set_permissions(rootfs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

/// The command is hull itself, which stays until it was looked at: by the host's root, who may do everything.
#[test]
fn a11_a_command_that_is_hull_cannot_be_written() {
    let corner = Corner::new();
    let victim = Victim::new(corner.path().join("victim"));
    let mut run = Command::new(&victim.path);
    run.envs(corner.env()).args(["run", "--rm", "-i", "--rootfs"]).arg(corner.rootfs());
    run.args(["--", "/proc/self/exe", "verify", "--format", "json", "--wait"]);
    let mut hull = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(hull.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("\"checks\""), "{line}");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", hull.id())).unwrap();
    let handle = handle(children.trim()).unwrap();
    assert_eq!(fstat(&handle).unwrap().st_size, victim.size(), "the command is hull");
    assert!(writing(&handle).is_err(), "while it runs");
    drop(hull.stdin.take());
    hull.wait().unwrap();
    assert_refused(&handle, "when it has ended");
    victim.assert_whole();
}

/// The same for hull's process on its way to another command, in `run` and in a build's RUN, and with an entrypoint whose
/// interpreter is hull.
#[test]
fn a11_hull_on_its_way_to_the_command_cannot_be_written() {
    let builder = Builder::new();
    let corner = builder.corner();
    let victim = Victim::new(corner.path().join("victim"));
    script(&corner.rootfs(), "entry", "#!/proc/self/exe\n");
    builder
        .file("Dockerfile", "FROM base\nRUN printf '#!/proc/self/exe\\n' > /entry && chmod 755 /entry\nRUN true\n");
    let rootfs = corner.rootfs().to_string_lossy().into_owned();
    let context = builder.context().to_string_lossy().into_owned();
    let run = |command: &'static str| vec!["run", "--rm", "--rootfs", &rootfs, "--", command];
    for arguments in [run("/bin/true"), run("/entry"), vec!["build", "--no-cache", "-t", "x", &context]] {
        let mut hull = Command::new(&victim.path);
        hull.envs(corner.env()).args(&arguments).stdout(Stdio::null()).stderr(Stdio::null());
        // On a busy machine it may be gone before it was looked at.
        let exposed = (0..RUNS).map(|_| victim.exposed(&mut hull.spawn().unwrap())).find(|seen| !seen.is_empty());
        for handle in &exposed.unwrap_or_else(|| panic!("{arguments:?}: nothing was seen")) {
            assert_refused(handle, &format!("{arguments:?}"));
        }
        victim.assert_whole();
    }
}

/// `--init` is hull for as long as the container lives. Inside, not even CAP_SYS_ADMIN makes it writable.
#[test]
fn a11_hull_as_the_init_cannot_be_written() {
    let corner = Corner::new();
    let victim = Victim::new(corner.path().join("victim"));
    let script = "stat -L -c %s /proc/1/exe; echo x > /proc/1/exe; \
                  busybox mount -o remount,bind,rw /proc/1/exe /proc/1/exe && echo remounted; \
                  touch /at; busybox mount --bind /proc/1/exe /at && echo mounted; read line";
    for flags in [&[][..], &["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"], &["--privileged"]] {
        let mut run = Command::new(&victim.path);
        run.envs(corner.env()).args(["run", "--rm", "-i", "--init", "--rootfs"]).arg(corner.rootfs()).args(flags);
        run.args(["--", "sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut hull = run.spawn().unwrap();
        let pid = hull.id();
        let mut init = None;
        eventually("hull has executed itself as the init", || {
            let child = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            let name = fs::read_to_string(format!("/proc/{}/comm", child.trim())).unwrap_or_default();
            init = handle(child.trim()).ok();
            name == "hull-init\n"
        });
        drop(hull.stdin.take());
        let said = Said::from(hull.wait_with_output().unwrap());
        assert_eq!(said.out.trim(), victim.size().to_string(), "{flags:?}: {said:?}");
        assert_refused(&init.unwrap(), &format!("{flags:?}"));
        victim.assert_whole();
    }
}

/// A container looks at all processes that come into its PID namespace, with the right to trace them: those of `exec` and
/// of a container that shares the namespace.
#[test]
fn a11_a_neighbour_in_the_pid_namespace_cannot_write_it() {
    let (attacker, other) = (Bundle::new(""), Bundle::new(""));
    let victim = Victim::new(other.corner.path().join("hull-oci"));
    fs::remove_file(attacker.corner.path().join("hull-oci")).unwrap();
    symlink(&victim.path, attacker.corner.path().join("hull-oci")).unwrap();
    script(&attacker.corner.rootfs(), "entry", "#!/proc/self/exe\n");
    fs::copy(env!("CARGO_BIN_EXE_hull-probe"), attacker.corner.rootfs().join("bin/probe")).unwrap();
    attacker.change(|spec| {
        spec["process"]["args"] = ["probe", "overwrite", &victim.size().to_string()].as_slice().into();
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set].as_array_mut().unwrap().push("CAP_SYS_PTRACE".into());
        }
    });
    let id = attacker.id("attacker");
    // Detached: a hull that runs would keep its file from being written.
    let mut run = attacker.command(&["run", "-d", "-b", ".", &id]);
    let mut run = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "looking");
    let pid = attacker.state(&id)["pid"].as_i64().unwrap();

    script(&other.corner.rootfs(), "entry", "#!/proc/self/exe\n");
    other.change(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        namespaces.push(serde_json::json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")}));
    });
    for number in 0..RUNS {
        let command = if number % 2 == 0 { "/entry" } else { "true" };
        other.change(|spec| spec["process"]["args"] = [command].as_slice().into());
        other.oci(&["run", "-b", ".", &other.id(&format!("other{number}"))]);
        attacker.oci(&["exec", &id, command]);
    }
    let input = run.stdin.take();
    run.wait().unwrap();
    drop(input);
    let told = lines.next().unwrap().unwrap();
    attacker.ok(&["delete", "--force", &id]);
    let seen: u32 = told.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(seen >= 3, "the window was hit {seen} times in {RUNS} runs: {told}");
    assert!(!told.contains("written"), "{told}");
    victim.assert_whole();
}

/// The look itself sees what is not protected.
#[test]
fn a11_an_unprotected_file_is_seen_to_be_writable() {
    let corner = Corner::new();
    let path = corner.path().join("sleep");
    fs::copy("/bin/busybox", &path).unwrap();
    let mut child = Command::new(&path).arg("30").spawn().unwrap();
    let handle = handle(&child.id().to_string()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(writing(&handle).is_ok());
}

/// The lines of a trace of one process each, in order: its number, and what it said. A call that took long is where it ended.
fn calls(trace: &str) -> Vec<(&str, String)> {
    let mut begun: BTreeMap<&str, String> = BTreeMap::new();
    let mut all = Vec::new();
    for line in trace.lines() {
        let (pid, said) = line.split_once(' ').unwrap();
        let said = said.trim_start();
        match (said.strip_suffix("<unfinished ...>"), said.split_once("resumed>")) {
            (Some(beginning), _) => drop(begun.insert(pid, beginning.to_owned())),
            (None, Some((_, end))) => all.push((pid, begun.remove(pid).unwrap_or_default() + end)),
            _ => all.push((pid, said.to_owned())),
        }
    }
    all
}

/// As long as somebody holds the mount through which hull's file is read-only, it is in a namespace of its own, and root of any
/// user namespace who can look at the process may make it writable. So it goes before a container's processes see one that
/// has it: of an exec before that is born, of a container before its command runs. With `exe::let_go` doing nothing both fail.
#[test]
fn a11_the_mount_of_the_programs_file_goes_before_anybody_of_a_container_sees_the_process() {
    let bundle = Bundle::new("sleep 1000");
    let id = &*bundle.id("mount");
    let traced = |arguments: &[&str]| {
        let seen = bundle.corner.path().join("trace");
        let oci = bundle.command(arguments);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-e", "trace=open_tree,close,clone3,sendmsg,execve", "-o"]).arg(&seen);
        strace.arg(oci.get_program()).args(oci.get_args()).current_dir(bundle.corner.path());
        assert!(strace.stdin(Stdio::null()).status().unwrap().success(), "{arguments:?}");
        fs::read_to_string(seen).unwrap()
    };
    let held = |calls: &[(&str, String)]| {
        let (_, opened) =
            calls.iter().find(|(_, call)| call.starts_with("open_tree") && call.contains("self/exe")).unwrap();
        opened.rsplit("= ").next().unwrap().trim().to_owned()
    };
    let at = |calls: &[(&str, String)], what: &str| calls.iter().position(|(_, call)| call.contains(what)).unwrap();

    bundle.start(id);
    let trace = traced(&["exec", id, "true"]);
    let exec = calls(&trace);
    let close = format!("close({})", held(&exec));
    assert!(at(&exec, &close) < at(&exec, "clone3("), "{trace}");
    bundle.ok(&["delete", "--force", id]);

    bundle.change(|spec| spec["process"]["args"] = ["true"].as_slice().into());
    let trace = traced(&["run", &bundle.id("run")]);
    let run = calls(&trace);
    let close = format!("close({})", held(&run));
    // The last word that the child waits for, by its parent.
    let up = at(&run, "\"up\"");
    let closed: Vec<&str> =
        run[..up].iter().filter(|(_, call)| call.starts_with(&close)).map(|(pid, _)| *pid).collect();
    assert!(
        closed.len() >= 2 && closed.contains(&run[up].0) && closed.iter().any(|pid| *pid != run[up].0),
        "{trace}"
    );
}
