//! `hull-oci exec`: a further command in a container, as a caller of runc uses it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hull_tests::bundle::{Bundle, received};
use hull_tests::{Said, eventually, skipped};
use serde_json::{Value, json};

const NAMESPACES: [&str; 8] = ["user", "mnt", "pid", "uts", "ipc", "net", "cgroup", "time"];

#[track_caller]
fn failed(said: &Said, words: &str) {
    assert_eq!(said.code, 255, "{said:?}");
    assert!(said.err.contains("exec failed: ") && said.err.contains(words), "{words:?}: {said:?}");
}

/// The container's first process as the host numbers it.
fn pid(bundle: &Bundle, id: &str) -> i64 {
    bundle.state(id)["pid"].as_i64().unwrap()
}

fn namespaces(pid: impl std::fmt::Display) -> Vec<PathBuf> {
    NAMESPACES.iter().map(|name| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap()).collect()
}

fn groups(pid: impl std::fmt::Display) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap()
}

fn end(bundle: &Bundle, id: &str) {
    bundle.ok(&["delete", "--force", id]);
}

/// Starts a detached exec and gives its number on the host.
fn detached(bundle: &Bundle, flags: &[&str], words: &[&str]) -> i32 {
    let file = bundle.corner.path().join("exec.pid");
    let arguments = [&["exec", "--detach", "--pid-file", "exec.pid"], flags, words].concat();
    let mut command = bundle.command(&arguments);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
    let pid = fs::read_to_string(&file).unwrap().parse().unwrap();
    fs::remove_file(file).unwrap();
    pid
}

#[test]
fn it_is_in_all_of_the_container_before_the_start_and_after() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.change(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        // Where all groups are on v2 runc has given it one already.
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        namespaces.extend([json!({"type": "cgroup"}), json!({"type": "time"})]);
    });
    let id = &*bundle.id("in");
    bundle.create(id);
    for state in ["created", "running"] {
        if state == "running" {
            bundle.ok(&["start", id]);
        }
        assert_eq!(bundle.state(id)["status"], state);
        let (init, exec) = (pid(&bundle, id), detached(&bundle, &[], &[id, "sleep", "1000"]));
        assert_eq!(namespaces(exec), namespaces(init));
        assert_eq!(groups(exec), groups(init));
        let ours = namespaces("self");
        assert!(namespaces(exec).iter().zip(ours).filter(|(their, our)| **their != *our).count() >= 7);
        let root = |pid: i64| fs::metadata(format!("/proc/{pid}/root/")).map(|root| (root.st_dev(), root.st_ino()));
        assert_eq!(root(exec.into()).unwrap(), root(init).unwrap());
    }
    assert_eq!(serde_json::from_str::<Vec<i32>>(&bundle.ok(&["ps", "-f", "json", id])).unwrap().len(), 3);
    end(&bundle, id);
}

#[test]
fn its_status_is_the_commands_and_a_failure_has_runcs_words_and_status() {
    let bundle = Bundle::new("exec sleep 1000");
    let id = &*bundle.id("status");
    bundle.start(id);
    let said = bundle.exec(&[], id, "echo out; echo err >&2; exit 7");
    assert_eq!((said.code, &*said.out, &*said.err), (7, "out\n", "err\n"));
    assert_eq!(bundle.exec(&[], id, "kill -9 $$").code, 137);
    let oci = |arguments: &[&str]| bundle.oci(&[&["exec"], arguments].concat());
    failed(&oci(&["none-such", "true"]), "container does not exist");
    failed(&oci(&[id]), "process args cannot be empty");
    failed(&oci(&[id, "not-there"]), "executable file not found in $PATH");
    failed(&oci(&["--cwd", "relative", id, "true"]), "Cwd must be an absolute path");
    failed(&oci(&["--cwd", "/not-there", id, "true"]), "/not-there");
    failed(&oci(&["--detach", "--tty", id, "true"]), "without setting console socket");
    failed(&oci(&["--console-socket", "x", id, "true"]), "cannot use console socket");
    for user in ["a", "-1", "+1", "01x", "1 ", "4294967295", "4294967296", "1:", ":1"] {
        failed(&oci(&[&format!("--user={user}"), id, "true"]), "as int for");
    }
    failed(&oci(&["--additional-gids=-1", id, "true"]), "must be a positive number");
    failed(&oci(&["--cap", "CAP_NONSENSE", id, "true"]), "CAP_NONSENSE");
    failed(&oci(&["--process-label", "a:b:c:d", id, "true"]), "apply the SELinux label");
    bundle.ok(&["pause", id]);
    failed(&oci(&[id, "true"]), "cannot exec in a paused container (use --ignore-paused to override)");
    bundle.ok(&["resume", id]);
    bundle.ok(&["kill", id, "KILL"]);
    eventually("it has ended", || bundle.state(id)["status"] == "stopped");
    failed(&oci(&[id, "true"]), "cannot exec in a stopped container");
    end(&bundle, id);
}

#[test]
fn a_failure_is_one_line_of_the_log() {
    let bundle = Bundle::new("true");
    let said = bundle.oci(&["--log", "log", "--log-format", "json", "exec", "none-such", "true"]);
    let log = fs::read_to_string(bundle.corner.path().join("log")).unwrap();
    let line: Value = serde_json::from_str(&log).unwrap();
    assert_eq!((said.code, &line["level"]), (255, &"error".into()));
    assert!(line["msg"].as_str().unwrap().starts_with("exec failed: "), "{line}");
}

#[test]
fn what_is_not_said_is_the_containers_whatever_became_of_the_bundle() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.change(|spec| {
        spec["process"]["user"] = json!({"uid": 77, "gid": 78, "additionalGids": [79], "umask": 0o27});
        spec["process"]["env"] = json!(["PATH=/bin", "NAME=container"]);
        spec["process"]["cwd"] = "/etc".into();
        spec["process"]["oomScoreAdj"] = 500.into();
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 55, "hard": 66}]);
        spec["process"]["noNewPrivileges"] = true.into();
        let deny = json!({"names": ["mkdirat", "mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95});
        spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [deny]});
    });
    std::os::unix::fs::symlink("busybox", bundle.corner.rootfs().join("bin/mkdir")).unwrap();
    let id = &*bundle.id("defaults");
    bundle.start(id);
    fs::write(bundle.corner.path().join("config.json"), "no longer").unwrap();
    let script = "id; pwd; echo $NAME; umask; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; \
                  grep -E 'NoNewPrivs|Seccomp:' /proc/self/status; mkdir /tmp/x";
    let said = bundle.exec(&[], id, script);
    let wanted = "uid=77 gid=78 groups=78,79\n/etc\ncontainer\n0027\n55\n66\n500\nNoNewPrivs:\t1\nSeccomp:\t2\n";
    assert_eq!(said.out, wanted, "{said:?}");
    assert!(said.err.contains("Not supported") || said.err.contains("not supported"), "{said:?}");
    end(&bundle, id);
}

#[test]
fn flags_change_the_containers_process() {
    let bundle = Bundle::new("exec sleep 1000");
    let id = &*bundle.id("flags");
    bundle.start(id);
    let shell = |flags: &[&str], script: &str| {
        let said = bundle.exec(flags, id, script);
        assert_eq!(said.code, 0, "{said:?}");
        said.out
    };
    assert_eq!(shell(&["-e", "A=1", "--env", "A=2", "-e", "TERM="], "echo $A-$TERM-"), "2--\n");
    assert_eq!(shell(&["--cwd", "/bin"], "pwd"), "/bin\n");
    let status = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status; id";
    assert_eq!(
        shell(&["-u", "1000:1001", "-g", "7", "--additional-gids", "8"], status),
        "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
         CapBnd:\t0000000020000420\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nuid=1000 gid=1001 groups=7,8,1001\n"
    );
    let caps = shell(&["-c", "CAP_SYS_CHROOT", "--no-new-privs=false"], status);
    assert!(caps.contains("CapEff:\t0000000020040420") && caps.contains("NoNewPrivs:\t0"), "{caps}");
    // What follows the container's name is the command's.
    let said = bundle.oci(&["exec", id, "echo", "-t", "--user", "5"]);
    assert_eq!(said.code, 255, "{said:?}");
    let said = bundle.oci(&["exec", id, "sh", "-c", "echo $0 $1", "-t", "--user"]);
    assert_eq!(said.out, "-t --user\n");
    end(&bundle, id);
}

#[test]
fn a_process_file_says_all_of_it() {
    let bundle = Bundle::new("exec sleep 1000");
    let id = &*bundle.id("file");
    bundle.start(id);
    let exec = |process: Value| {
        fs::write(bundle.corner.path().join("process.json"), process.to_string()).unwrap();
        bundle.oci(&["exec", "--process", "process.json", id])
    };
    let script =
        "id -u; pwd; echo $A; cat /proc/self/oom_score_adj; grep -E 'CapEff|Cpus_allowed_list' /proc/self/status";
    let said = exec(json!({
        "user": {"uid": 5, "gid": 6}, "cwd": "/bin", "env": ["PATH=/bin", "A=b"], "args": ["sh", "-c", script],
        "oomScoreAdj": 321, "execCPUAffinity": {"initial": "1", "final": "0"}, "capabilities": {},
    }));
    let wanted = "5\n/bin\nb\n321\nCapEff:\t0000000000000000\nCpus_allowed_list:\t0\n";
    assert_eq!((said.code, &*said.out), (0, wanted), "{said:?}");
    failed(&exec(json!({"cwd": "/"})), "args must not be empty");
    failed(&exec(json!({"args": ["true"]})), "Cwd property must not be empty");
    failed(&exec(json!({"args": "true", "cwd": "/"})), "expected a sequence");
    failed(&bundle.oci(&["exec", "--process", "not-there", id]), "not-there");
    end(&bundle, id);
}

/// The group in v1's hierarchy of processes; none where v2 has that controller.
fn v1_pids(bundle: &Bundle, id: &str) -> Option<PathBuf> {
    bundle.groups(id).into_iter().find(|group| group.to_string_lossy().contains("/pids/"))
}

#[test]
fn groups_below_the_containers_are_entered_by_name() {
    let bundle = Bundle::new("exec sleep 1000");
    let id = &*bundle.id("sub");
    bundle.start(id);
    let (group, named) = match v1_pids(&bundle, id) {
        Some(group) => (group, "pids:below"),
        None => (bundle.groups(id).remove(0), "below"),
    };
    fs::create_dir(group.join("below")).unwrap();
    let said = bundle.exec(&["--cgroup", named], id, "cat /proc/self/cgroup");
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.ends_with("/below")).count(), 1, "{said:?}");
    let meant = |line: &&str| line.ends_with("/below") && (line.contains(":pids:") || line.starts_with("0::"));
    assert!(lines.iter().any(meant), "{said:?}");
    failed(&bundle.exec(&["--cgroup", "not-there"], id, "true"), "/not-there");
    failed(&bundle.exec(&["--cgroup", "pids:../other"], id, "true"), "bad sub cgroup path");
    failed(&bundle.exec(&["--cgroup", "none:below"], id, "true"), "unknown controller none");
    end(&bundle, id);
}

/// What systemd does in a container: it moves to a group of its own and passes controllers on, after which v2 lets no process
/// into the container's group itself.
#[test]
fn where_the_container_passes_controllers_on_it_is_beside_the_first_process() {
    let bundle = Bundle::new("exec sleep 1000");
    let id = &*bundle.id("inner");
    bundle.start(id);
    if v1_pids(&bundle, id).is_some() {
        skipped(
            "where_the_container_passes_controllers_on_it_is_beside_the_first_process",
            "the controllers are on cgroup v1",
        );
    } else {
        let group = bundle.groups(id).remove(0);
        let own = group.join("init.scope");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("cgroup.procs"), pid(&bundle, id).to_string()).unwrap();
        fs::write(group.join("cgroup.subtree_control"), "+pids +memory").unwrap();
        let exec = detached(&bundle, &[], &[id, "sleep", "1000"]);
        assert!(groups(exec).trim_end().ends_with("/init.scope"), "{}", groups(exec));
    }
    end(&bundle, id);
}

#[test]
fn in_a_paused_container_it_waits_for_the_resume() {
    let bundle = Bundle::new("exec sleep 1000");
    let id = &*bundle.id("paused");
    bundle.start(id);
    bundle.ok(&["pause", id]);
    let arguments = ["exec", "--ignore-paused", id, "sh", "-c", "echo ran"];
    let mut child = bundle.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none());
    bundle.ok(&["resume", id]);
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!((child.wait().unwrap().code(), &*out), (Some(0), "ran\n"));
    end(&bundle, id);
}

#[test]
fn a_user_namespace_is_entered_and_its_root_is_who_it_is_outside() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.change(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
        spec["process"]["oomScoreAdj"] = 333.into();
        // Its source is the host's, and not to be seen from inside.
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    });
    // The root is in a folder that others may enter.
    let open = |path: &Path| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    open(bundle.corner.path());
    for folder in ["proc", "dev", "sys"] {
        fs::create_dir_all(bundle.corner.rootfs().join(folder)).unwrap();
    }
    let id = &*bundle.id("user");
    bundle.start(id);
    let exec = detached(&bundle, &["-u", "5:6"], &[id, "sleep", "1000"]);
    assert_eq!(namespaces(exec), namespaces(pid(&bundle, id)));
    let status = fs::read_to_string(format!("/proc/{exec}/status")).unwrap();
    assert!(status.contains("Uid:\t100005\t100005") && status.contains("Gid:\t100006\t100006"), "{status}");
    assert_eq!(bundle.exec(&[], id, "id -u; cat /proc/self/oom_score_adj").out, "0\n333\n");
    end(&bundle, id);
}

#[test]
fn a_terminal_goes_to_the_console_socket_and_the_process_to_the_pidfd_socket() {
    let bundle = Bundle::new("exec sleep 1000");
    let id = &*bundle.id("tty");
    bundle.start(id);
    let listen = |name: &str| UnixListener::bind(bundle.corner.path().join(name)).unwrap();
    let (consoles, pidfds) = (listen("console"), listen("pidfd"));
    let process = json!({
        "terminal": true, "consoleSize": {"height": 11, "width": 22}, "user": {}, "cwd": "/", "env": ["PATH=/bin"],
        "args": ["sh", "-c", "tty; stty size; read line; echo got-$line"],
    });
    fs::write(bundle.corner.path().join("process.json"), process.to_string()).unwrap();
    let sockets = ["--console-socket", "console", "--pidfd-socket", "pidfd", "--process", "process.json"];
    let pid = detached(&bundle, &sockets, &[id]);
    let (console, pidfd) = (File::from(received(&consoles)), received(&pidfds));
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&pidfd))).unwrap();
    assert!(info.lines().any(|line| line.split_whitespace().eq(["Pid:", &pid.to_string()])), "{info}");
    let mut screen = BufReader::new(console.try_clone().unwrap());
    let mut line = || {
        let mut line = String::new();
        screen.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    assert_eq!((line(), line()), ("/dev/pts/0".to_owned(), "11 22".to_owned()));
    (&console).write_all(b"abc\n").unwrap();
    assert_eq!((line(), line()), ("abc".to_owned(), "got-abc".to_owned()));
    end(&bundle, id);
}

#[test]
fn in_the_foreground_the_callers_terminal_is_relayed_and_restored() {
    let bundle = Bundle::new("exec sleep 1000");
    let id = &*bundle.id("foreground");
    bundle.start(id);
    let link = bundle.corner.path().join("hull-oci");
    let words = format!(
        "{} --root {} exec -t {id} sh -c 'tty; stty -a | head -1; exit 9'; echo status-$?; stty -a | head -1",
        link.display(),
        bundle.root().display()
    );
    let mut script = Command::new("script");
    script.args(["-q", "-c", &format!("stty rows 33 cols 44; {words}"), "/dev/null"]).stdin(Stdio::null());
    let out = String::from_utf8(script.output().unwrap().stdout).unwrap();
    assert!(out.contains("/dev/pts/0") && out.contains("status-9"), "{out}");
    assert_eq!(out.matches("33").count(), 2, "inside as outside: {out}");
    failed(&bundle.oci(&["exec", "-t", id, "true"]), "not a terminal");
    end(&bundle, id);
}

#[test]
fn a_signal_goes_to_the_command() {
    let bundle = Bundle::new("exec sleep 1000");
    let id = &*bundle.id("signal");
    bundle.start(id);
    let script = "trap 'exit 42' TERM; echo up; while :; do sleep 0.05; done";
    let mut child = bundle.command(&["exec", id, "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(42));
    end(&bundle, id);
}

/// The command of an exec is not tied to it, as with runc: killed, hull leaves it running. Half-made it goes with hull. Either
/// way it is the container's, and one `delete --force` is enough.
#[test]
fn a_kill_at_any_moment_leaves_nothing_that_delete_does_not_clear() {
    let bundle = Bundle::new("exec sleep 1000");
    let id = &*bundle.id("killed");
    let (mut ran, mut not) = (0, 0);
    for round in 0..4 {
        bundle.start(id);
        let groups = bundle.groups(id);
        // From its very beginning to some time after its end, however slow the machine is.
        let start = Instant::now();
        assert_eq!(bundle.exec(&[], id, "true").code, 0);
        let step = start.elapsed() / 10;
        for moment in 0..16 {
            let mut exec = bundle.command(&["exec", id, "sleep", "1000"]);
            let mut child = exec.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(step * moment + step * round / 4);
            child.kill().unwrap();
            child.wait().unwrap();
            // What is left is a process of the container like any other: never one that is half-made for long.
            let pids = || serde_json::from_str::<Vec<i32>>(&bundle.ok(&["ps", "-f", "json", id])).unwrap();
            let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            eventually("only commands are left", || pids().iter().all(|pid| ["sleep\n", ""].contains(&&*name(pid))));
            match pids().len() {
                1 => not += 1,
                _ => ran += 1,
            }
        }
        bundle.ok(&["delete", "--force", id]);
        assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
        assert_eq!(bundle.ok(&["list", "-q"]), "");
    }
    assert!(ran > 4 && not > 4, "{ran} ran and {not} did not");
}

#[test]
fn its_calls_are_told_in_the_log() {
    let bundle = Bundle::new("exec sleep 1000");
    let id = &*bundle.id("debug");
    bundle.start(id);
    let said = bundle.oci(&["--debug", "--log", "log", "exec", id, "true"]);
    assert_eq!(said.code, 0, "{said:?}");
    let log = fs::read_to_string(bundle.corner.path().join("log")).unwrap();
    for call in ["[parent] clone3(", "[container] setns(", "join the namespaces: ", "[container] execve("] {
        assert!(log.contains(call), "{call}: {log}");
    }
    let mut joined = log.lines().filter(|line| line.contains("[container] setns("));
    assert!(joined.next().unwrap().contains("CLONE_NEWNS|CLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWNET"), "{log}");
    assert!(joined.next().is_none(), "one setns is all: {log}");
    end(&bundle, id);
}

/// Whoever joins a mount namespace gets its root, which is the host's here. Shown to fail without the look: it said the host's.
#[test]
fn where_the_mount_namespace_is_the_hosts_nothing_is_executed_on_the_host() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.change(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "mount");
        spec["mounts"] = serde_json::json!([]);
        for field in ["maskedPaths", "readonlyPaths"] {
            spec["linux"].as_object_mut().unwrap().remove(field);
        }
    });
    let id = &*bundle.id("shared");
    bundle.create(id);
    bundle.ok(&["start", id]);
    let said = bundle.oci(&["exec", id, "/bin/cat", "/etc/os-release"]);
    assert!(said.code != 0 && said.out.is_empty(), "{said:?}");
    assert!(said.err.contains("shares its mount namespace"), "{said:?}");
    bundle.ok(&["delete", "--force", id]);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bundle.corner.path().to_str().unwrap()), "{mounts}");
}
