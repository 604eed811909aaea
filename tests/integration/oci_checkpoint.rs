//! `hull-oci checkpoint` and `restore`, with Debian's criu. It has to know the kernel: where it does not, hull says so, and
//! the tests that need it are in the virtual machine (`make test-vm`).

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_tests::bundle::{Bundle, received};
use hull_tests::{Said, eventually, skipped};
use serde_json::{Value, json};

/// Counts, a line for each step.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i >>/count; sleep 0.05; done";

fn criu_works() -> bool {
    Command::new("criu").arg("check").output().is_ok_and(|said| said.status.success())
}

/// Whether criu can be used here; says what is skipped otherwise.
pub(crate) fn criu(test: &str) -> bool {
    let works = criu_works();
    if !works {
        skipped(test, "this criu does not know this kernel; `make test-vm` does it");
    }
    works
}

fn error(said: &Said, words: &str) {
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains(words), "{words:?}: {said:?}");
}

/// How the host's control groups are mounted.
fn host_groups() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(" - cgroup")).map(str::to_owned).collect()
}

/// The lines of a file in the container's root.
fn lines(bundle: &Bundle, name: &str) -> Vec<String> {
    let text = fs::read_to_string(bundle.corner.rootfs().join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn counted(bundle: &Bundle) -> usize {
    lines(bundle, "count").len()
}

fn counts_on(bundle: &Bundle, from: usize) {
    eventually("it counts on", || counted(bundle) > from + 2);
    let numbers: Vec<usize> = lines(bundle, "count").iter().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len()), "it began again: {numbers:?}");
}

/// Runs a verb with streams that nobody reads. What they are at a restore has to be of the kind that it was before.
fn quietly(bundle: &Bundle, arguments: &[&str]) {
    let log = bundle.corner.path().join("log.txt");
    let mut command = bundle.command(&[&["--log", &*log.to_string_lossy()], arguments].concat());
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{arguments:?}: {}", fs::read_to_string(log).unwrap_or_default());
}

fn start(bundle: &Bundle, id: &str) {
    quietly(bundle, &["run", "--detach", id]);
}

fn restore(bundle: &Bundle, flags: &[&str], id: &str) {
    quietly(bundle, &[&["restore", "--detach"], flags, &[id]].concat());
}

fn end(bundle: &Bundle, id: &str) {
    bundle.ok(&["kill", id, "KILL"]);
    eventually("it has ended", || bundle.state(id)["status"] == "stopped");
    bundle.ok(&["delete", id]);
}

fn value(bundle: &Bundle, id: &str, file: &str) -> String {
    let group = bundle.groups(id).into_iter().find(|group| group.join(file).exists()).unwrap();
    fs::read_to_string(group.join(file)).unwrap().trim().to_owned()
}

#[test]
fn a_container_goes_on_under_another_id_with_its_mounts_limits_and_numbers() {
    if !criu("a_container_goes_on_under_another_id_with_its_mounts_limits_and_numbers") {
        return;
    }
    let bundle = Bundle::new(COUNTER);
    let (first, second) = (&*bundle.id("first"), &*bundle.id("second"));
    bundle.change(|spec| {
        spec["linux"]["resources"]["pids"] = json!({"limit": 77});
        spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
        spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
        spec["hostname"] = "saved".into();
        // On v1 `runc spec` leaves it out.
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        namespaces.push(json!({"type": "cgroup"}));
        spec["annotations"] = json!({"a": "b"});
    });
    start(&bundle, first);
    eventually("it counts", || counted(&bundle) > 3);
    let look = "sort /proc/1/mounts; hostname; cat /proc/1/limits /proc/1/cgroup /proc/1/oom_score_adj; ionice -p 1; \
                grep -E 'Cap|Seccomp:|NoNewPrivs|Umask|Uid|Gid|Groups|Cpus_allowed_list' /proc/1/status; \
                stat -c '%n %A %u %g %t %T' /dev/*; cat /proc/kcore | wc -c; \
                echo x 2>/dev/null >/proc/sys/kernel/hostname || echo kept";
    let before = bundle.exec(&[], first, look);
    assert!(before.code == 0 && before.out.ends_with("\n0\nkept\n"), "{before:?}");
    let groups = bundle.groups(first);
    let host = host_groups();

    bundle.ok(&["checkpoint", "--image-path", "images", "--work-path", "work", first]);
    assert!(bundle.corner.path().join("work/dump.log").exists());
    error(&bundle.oci(&["state", first]), "container does not exist");
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
    let stopped_at = counted(&bundle);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(counted(&bundle), stopped_at);

    restore(&bundle, &["--image-path", "images", "--pid-file", "pid"], second);
    counts_on(&bundle, stopped_at);
    let state = bundle.state(second);
    assert_eq!((&state["status"], &state["annotations"]["a"]), (&"running".into(), &"b".into()), "{state}");
    let pid = fs::read_to_string(bundle.corner.path().join("pid")).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    let after = bundle.exec(&[], second, look);
    assert_eq!((after.code, after.out), (0, before.out), "{}", after.err);
    // A mount of v2's would have changed the options of the host's.
    assert_eq!(host_groups(), host);
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let memory = if unified { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!((&*value(&bundle, second, "pids.max"), &*value(&bundle, second, memory)), ("77", "67108864"));
    assert_eq!(groups.iter().filter(|group| group.exists()).count(), 0, "the first one's groups are made again");
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(own.lines().all(|line| line.ends_with(second)), "{own}");

    bundle.ok(&["pause", second]);
    assert_eq!(bundle.state(second)["status"], "paused");
    bundle.ok(&["resume", second]);
    let held = bundle.oci(&["restore", "--detach", "--image-path", "images", second]);
    error(&held, "container with given ID already exists");
    assert_eq!(bundle.state(second)["status"], "running");
    end(&bundle, second);
}

#[test]
fn what_is_left_running_goes_on_and_can_be_restored_beside_itself() {
    if !criu("what_is_left_running_goes_on_and_can_be_restored_beside_itself") {
        return;
    }
    let bundle = Bundle::new("echo $$ >/pid; i=0; while :; do i=$((i+1)); echo $i >/dev/shm/count; sleep 0.05; done");
    let (first, second) = (&*bundle.id("first"), &*bundle.id("second"));
    bundle.change(|spec| spec["root"]["readonly"] = false.into());
    start(&bundle, first);
    let count = |id: &str| bundle.exec(&[], id, "cat /dev/shm/count").out.trim().parse::<u64>().unwrap_or(0);
    eventually("it counts", || count(first) > 3);
    bundle.ok(&["checkpoint", "--leave-running", first]);
    let at = count(first);
    eventually("the first one counts on", || count(first) > at);
    bundle.ok(&["pause", first]);
    bundle.ok(&["checkpoint", "--leave-running", "--image-path", "paused", first]);
    assert_eq!(bundle.state(first)["status"], "paused");
    bundle.ok(&["resume", first]);
    let at = count(first);
    eventually("the first one counts on after a pause", || count(first) > at);
    // The content of its tmpfs is in the images.
    restore(&bundle, &[], second);
    eventually("the second one counts on", || count(second) > 3);
    assert_ne!(bundle.state(first)["pid"], bundle.state(second)["pid"]);
    bundle.ok(&["delete", "--force", first]);
    bundle.ok(&["delete", "--force", second]);
}

#[test]
fn memory_is_saved_in_steps() {
    if !criu("memory_is_saved_in_steps") {
        return;
    }
    let bundle = Bundle::new(COUNTER);
    let id = &*bundle.id("steps");
    start(&bundle, id);
    eventually("it counts", || counted(&bundle) > 3);
    bundle.ok(&["checkpoint", "--pre-dump", "--image-path", "one", id]);
    assert_eq!(bundle.state(id)["status"], "running");
    bundle.ok(&["checkpoint", "--pre-dump", "--image-path", "two", "--parent-path", "../one", id]);
    let absolute = bundle.corner.path().join("two").display().to_string();
    error(&bundle.oci(&["checkpoint", "--parent-path", &absolute, id]), "--parent-path must be relative");
    error(&bundle.oci(&["checkpoint", "--parent-path", "../none", id]), "invalid --parent-path");
    bundle.ok(&["checkpoint", "--image-path", "three", "--parent-path", "../two", id]);
    let link = fs::read_link(bundle.corner.path().join("three/parent")).unwrap();
    assert_eq!(link, Path::new("../two"));
    let at = counted(&bundle);
    restore(&bundle, &["--image-path", "three"], id);
    counts_on(&bundle, at);
    end(&bundle, id);
}

/// A checkpoint that waits until its pages are asked for is one that others meet: another is refused, and its images are
/// where an absolute link leads.
#[test]
fn memory_that_stays_where_it_is_comes_when_it_is_asked_for() {
    if !criu("memory_that_stays_where_it_is_comes_when_it_is_asked_for") {
        return;
    }
    let bundle = Bundle::new(COUNTER);
    let (first, second) = (&*bundle.id("lazy"), &*bundle.id("later"));
    let path = |name: &str| bundle.corner.path().join(name);
    fs::create_dir(path("real")).unwrap();
    std::os::unix::fs::symlink(path("real"), path("linked")).unwrap();
    start(&bundle, first);
    eventually("it counts", || counted(&bundle) > 3);
    // One that nobody listens at.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let words = format!(
        "checkpoint --lazy-pages --page-server 127.0.0.1:{port} --status-fd 3 --image-path linked/images {first}"
    );
    let script =
        format!("exec 3>ready; exec {} --root {} {words}", path("hull-oci").display(), bundle.root().display());
    let mut checkpoint = Command::new("sh");
    checkpoint.args(["-c", &script]).current_dir(bundle.corner.path()).stdin(Stdio::null()).stdout(Stdio::null());
    let mut checkpoint = checkpoint.spawn().unwrap();
    eventually("it can be asked", || fs::read(path("ready")).is_ok_and(|said| said == [0]));
    error(&bundle.oci(&["checkpoint", "--image-path", "another", first]), "another checkpoint of it, or its restore");
    assert!(path("real/images/inventory.img").exists());

    let daemon = ["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", &port, "--images-dir"];
    let mut pages = Command::new("criu");
    pages.args(daemon).arg(path("real/images")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut pages = pages.spawn().unwrap();
    eventually("it serves", || path("real/images/lazy-pages.socket").exists());
    let at = counted(&bundle);
    restore(&bundle, &["--lazy-pages", "--image-path", "linked/images"], second);
    counts_on(&bundle, at);
    assert!(pages.wait().unwrap().success() && checkpoint.wait().unwrap().success());
    error(&bundle.oci(&["state", first]), "container does not exist");
    end(&bundle, second);
}

/// What a bind shows is not in the images: it is the host's, and the bundle says again what it is.
#[test]
fn binds_are_the_hosts_again_wherever_they_are_by_then() {
    if !criu("binds_are_the_hosts_again_wherever_they_are_by_then") {
        return;
    }
    let bundle = Bundle::new(
        "exec 3</data/word; exec 4>>/log; i=0; while :; do i=$((i+1)); echo $i >&4; echo $i >>/count; sleep 0.05; done",
    );
    let id = &*bundle.id("binds");
    let host = |name: &str| bundle.corner.path().join(name);
    fs::create_dir_all(host("data/below")).unwrap();
    fs::write(host("data/word"), "one").unwrap();
    fs::write(host("log"), "").unwrap();
    // A link of the image's leads to where it is mounted.
    std::os::unix::fs::symlink("real", bundle.corner.rootfs().join("data")).unwrap();
    fs::create_dir(bundle.corner.rootfs().join("real")).unwrap();
    let mount = |spec: &mut Value, source: &Path, data: &Path| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] != "bind");
        mounts.push(json!({"destination": "/data", "type": "bind", "source": data, "options": ["rbind", "ro"]}));
        mounts.push(json!({"destination": "/log", "type": "bind", "source": source, "options": ["bind"]}));
    };
    bundle.change(|spec| mount(spec, &host("log"), &host("data")));
    start(&bundle, id);
    let logged = |name: &str| fs::read_to_string(host(name)).unwrap().lines().count();
    eventually("it counts", || logged("log") > 3);
    bundle.ok(&["checkpoint", id]);

    // Another place on the host; the files that are open have to be there and as long.
    fs::rename(host("data"), host("moved")).unwrap();
    fs::rename(host("log"), host("moved-log")).unwrap();
    error(&bundle.oci(&["restore", "--detach", id]), "cannot mount");
    error(&bundle.oci(&["state", id]), "container does not exist");
    bundle.change(|spec| mount(spec, &host("moved-log"), &host("moved")));
    let at = logged("moved-log");
    restore(&bundle, &[], id);
    eventually("it counts on", || logged("moved-log") > at + 2);
    let look = bundle.exec(&[], id, "cat /data/word; touch /data/x; grep -c ' /real .*ro' /proc/mounts");
    assert!(look.out == "one1\n" && look.err.contains("Read-only"), "{look:?}");
    end(&bundle, id);
}

fn answers(terminal: &mut File, word: &str) {
    terminal.write_all(format!("{word}\n").as_bytes()).unwrap();
    let mut seen = String::new();
    let wanted = format!("heard {word}");
    while !seen.contains(&wanted) {
        let mut buffer = [0; 256];
        let count = terminal.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

#[test]
fn a_terminal_comes_back_through_the_console_socket() {
    if !criu("a_terminal_comes_back_through_the_console_socket") {
        return;
    }
    let bundle = Bundle::new("while read word; do echo heard $word; done");
    let id = &*bundle.id("terminal");
    bundle.change(|spec| {
        spec["process"]["terminal"] = true.into();
        spec["root"]["readonly"] = true.into();
    });
    let console = UnixListener::bind(bundle.corner.path().join("console")).unwrap();
    bundle.ok(&["run", "--detach", "--console-socket", "console", id]);
    let mut terminal = File::from(received(&console));
    answers(&mut terminal, "one");
    bundle.ok(&["checkpoint", id]);
    drop(terminal);

    error(&bundle.oci(&["restore", "--detach", id]), "without setting console socket");
    bundle.ok(&["restore", "--detach", "--console-socket", "console", id]);
    let mut terminal = File::from(received(&console));
    answers(&mut terminal, "two");
    let look = bundle.exec(&[], id, "test -c /dev/console && echo there; touch /x || touch /dev/shm/x && echo kept");
    assert_eq!(look.out, "there\nkept\n", "{look:?}");
    end(&bundle, id);
}

/// In the foreground as `run`: whose streams are those of the caller, and whose end has the command's status.
#[test]
fn in_the_foreground_it_has_other_streams_and_its_own_status() {
    if !criu("in_the_foreground_it_has_other_streams_and_its_own_status") {
        return;
    }
    let bundle = Bundle::new("echo begun; while read word; do echo heard $word; done; exit 7");
    let id = &*bundle.id("streams");
    let spawn = |arguments: &[&str]| -> Child {
        let mut command = bundle.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut run = spawn(&["run", id]);
    let mut begun = [0; 6];
    run.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    bundle.ok(&["checkpoint", id]);
    // Who waited for it sees it killed, and both have taken away what there was.
    drop(run.stdin.take());
    assert_eq!(run.wait_with_output().unwrap().status.code(), Some(137));
    error(&bundle.oci(&["state", id]), "container does not exist");

    let mut restored = spawn(&["restore", id]);
    restored.stdin.take().unwrap().write_all(b"again\n").unwrap();
    let said: Said = restored.wait_with_output().unwrap().into();
    assert_eq!((said.code, &*said.out), (7, "heard again\n"), "{said:?}");
    error(&bundle.oci(&["state", id]), "container does not exist");
}

#[test]
fn a_unit_of_systemds_is_made_for_what_is_restored() {
    let name = "a_unit_of_systemds_is_made_for_what_is_restored";
    if !Path::new("/run/systemd/private").exists() {
        return skipped(name, "this machine was not started by systemd");
    }
    if !criu(name) {
        return;
    }
    let bundle = Bundle::new(COUNTER);
    let id = &*bundle.id("unit");
    bundle.change(|spec| {
        spec["linux"]["cgroupsPath"] = format!("system.slice:hulltest:{id}").into();
        spec["linux"]["resources"]["pids"] = json!({"limit": 88});
    });
    quietly(&bundle, &["--systemd-cgroup", "run", "--detach", id]);
    eventually("it counts", || counted(&bundle) > 3);
    bundle.ok(&["checkpoint", id]);
    let unit = format!("hulltest-{id}.scope");
    let property = |name: &str| {
        let said = Command::new("systemctl").args(["show", "--value", "-p", name, &unit]).output().unwrap();
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    };
    assert_ne!(property("ActiveState"), "active");
    let at = counted(&bundle);
    quietly(&bundle, &["--systemd-cgroup", "restore", "--detach", id]);
    counts_on(&bundle, at);
    assert_eq!((property("ActiveState"), property("TasksMax")), ("active".to_owned(), "88".to_owned()));
    assert_eq!(value(&bundle, id, "pids.max"), "88");
    assert_eq!(property("ControlGroup"), format!("/system.slice/{unit}"));
    end(&bundle, id);
    assert_ne!(property("ActiveState"), "active");
}

#[test]
fn hooks_of_the_host_see_a_restored_container_and_its_end() {
    if !criu("hooks_of_the_host_see_a_restored_container_and_its_end") {
        return;
    }
    let bundle = Bundle::new(COUNTER);
    let id = &*bundle.id("hooks");
    let note = bundle.corner.path().join("hooks.log");
    let hook = |name: &str| {
        let script = format!("(echo {name}; cat; echo; readlink /proc/self/ns/mnt) >>{}", note.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    start(&bundle, id);
    eventually("it counts", || counted(&bundle) > 3);
    bundle.ok(&["checkpoint", id]);
    bundle.change(|spec| {
        spec["hooks"] = json!({"createRuntime": hook("createRuntime"), "poststop": hook("poststop")});
    });
    restore(&bundle, &[], id);
    let noted = fs::read_to_string(&note).unwrap();
    let noted: Vec<&str> = noted.lines().collect();
    let state: Value = serde_json::from_str(noted[1]).unwrap();
    assert_eq!((noted[0], &state["pid"]), ("createRuntime", &bundle.state(id)["pid"]), "{noted:?}");
    // Not in criu's mount namespace.
    assert_eq!(noted[2], fs::read_link("/proc/self/ns/mnt").unwrap().to_string_lossy());
    end(&bundle, id);
    assert!(fs::read_to_string(&note).unwrap().contains("poststop"));

    bundle.change(|spec| {
        spec["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo no >&2; exit 3"]}]});
    });
    error(&bundle.oci(&["restore", "--detach", id]), "cannot run the hook /bin/sh: exit status: 3: no");
    error(&bundle.oci(&["state", id]), "container does not exist");
}

#[test]
fn a_network_that_was_joined_is_joined_again() {
    if !criu("a_network_that_was_joined_is_joined_again") {
        return;
    }
    let bundle = Bundle::new(COUNTER);
    let id = &*bundle.id("network");
    let network = |name: &str| {
        let script = format!("ip link add {name} type dummy && ip link set {name} up && exec sleep 1000");
        let holder = Command::new("unshare").args(["--net", "sh", "-c", &script]).spawn().unwrap();
        let list = format!("/proc/{}/net/dev", holder.id());
        eventually("there is a network", || fs::read_to_string(&list).is_ok_and(|text| text.contains(name)));
        holder
    };
    let join = |spec: &mut Value, holder: &Child| {
        let spaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        spaces.retain(|space| space["type"] != "network");
        spaces.push(json!({"type": "network", "path": format!("/proc/{}/ns/net", holder.id())}));
    };
    let (mut one, mut two) = (network("dummyone"), network("dummytwo"));
    bundle.change(|spec| join(spec, &one));
    start(&bundle, id);
    eventually("it counts", || counted(&bundle) > 3);
    bundle.ok(&["checkpoint", id]);
    one.kill().unwrap();
    one.wait().unwrap();
    bundle.change(|spec| join(spec, &two));
    let at = counted(&bundle);
    restore(&bundle, &[], id);
    counts_on(&bundle, at);
    let devices = bundle.exec(&[], id, "cat /proc/net/dev").out;
    assert!(devices.contains("dummytwo") && !devices.contains("dummyone"), "{devices}");
    end(&bundle, id);
    two.kill().unwrap();
    two.wait().unwrap();
}

/// Whoever is killed while it restores leaves what one `delete --force` clears; the images stay good.
#[test]
fn a_restore_that_is_killed_leaves_what_one_delete_clears() {
    if !criu("a_restore_that_is_killed_leaves_what_one_delete_clears") {
        return;
    }
    let bundle = Bundle::new(COUNTER);
    let id = &*bundle.id("killed");
    start(&bundle, id);
    eventually("it counts", || counted(&bundle) > 3);
    bundle.ok(&["checkpoint", id]);
    for wait in [20, 100, 300, 600, 1000, 1500] {
        let mut restore = bundle.command(&["restore", "--detach", id]);
        let mut child = restore.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        let groups = if bundle.root().join(id).join("state.json").exists() { bundle.groups(id) } else { Vec::new() };
        bundle.ok(&["delete", "--force", id]);
        error(&bundle.oci(&["state", id]), "container does not exist");
        assert!(groups.iter().all(|group| !group.exists()), "after {wait} ms: {groups:?}");
    }
    let at = counted(&bundle);
    restore(&bundle, &[], id);
    eventually("it counts on", || counted(&bundle) > at + 2);
    end(&bundle, id);
}

/// criu hears that nobody listens any more, and lets the container go on; or it had ended it already.
#[test]
fn a_checkpoint_that_is_killed_leaves_a_container_that_goes_on_or_has_ended() {
    if !criu("a_checkpoint_that_is_killed_leaves_a_container_that_goes_on_or_has_ended") {
        return;
    }
    let bundle = Bundle::new(COUNTER);
    let id = &*bundle.id("killed");
    start(&bundle, id);
    for wait in [50, 200, 500, 900] {
        let mut checkpoint = bundle.command(&["checkpoint", id]);
        let mut child = checkpoint.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        let at = counted(&bundle);
        let ended = || bundle.oci(&["state", id]).code != 0 || bundle.state(id)["status"] == "stopped";
        eventually("it counts on or has ended", || counted(&bundle) > at + 2 || ended());
        if ended() {
            bundle.ok(&["delete", "--force", id]);
            start(&bundle, id);
        }
    }
    bundle.ok(&["delete", "--force", id]);
}

#[test]
fn a_mistake_is_named_and_nothing_is_made_of_it() {
    let bundle = Bundle::new("sleep 1000");
    let id = &*bundle.id("mistake");
    bundle.create(id);
    error(&bundle.oci(&["checkpoint", id]), "Container cannot be checkpointed in created state");
    bundle.ok(&["start", id]);
    let without = |arguments: &[&str]| -> Said {
        bundle.command(arguments).env("PATH", bundle.corner.path()).output().unwrap().into()
    };
    error(&without(&["checkpoint", id]), "cannot start criu: there is no criu in PATH: install criu");
    error(&without(&["restore", "other"]), "cannot start criu: there is no criu in PATH: install criu");
    error(&bundle.oci(&["restore", "--image-path", "none", "other"]), "/none: No such file or directory");
    error(&bundle.oci(&["checkpoint", "nobody"]), "container does not exist");
    // What is said twice is said, as with runc.
    error(&bundle.oci(&["checkpoint", "--leave-running", "--leave-running", "nobody"]), "container does not exist");
    for (flags, words) in [
        (&["checkpoint", "--page-server", "here", id][..], "it is not ADDRESS:PORT"),
        (&["checkpoint", "--manage-cgroups-mode", "some", id], "possible values: soft, full, strict, ignore"),
        (&["checkpoint", "--empty-ns", "ipc", id], "possible values: network"),
        (&["checkpoint", "--status-fd", "77", "--lazy-pages", id], "invalid --status-fd argument 77"),
        (&["restore", "--no-pivot", "other"], "cannot use --no-pivot: criu changes the root by pivot_root"),
    ] {
        error(&bundle.oci(flags), words);
    }
    assert!(!bundle.corner.path().join("checkpoint").exists());
    assert_eq!(bundle.state(id)["status"], "running");
    assert_eq!(bundle.ok(&["list", "-q"]), format!("{id}\n"));
    fs::create_dir(bundle.corner.path().join("empty")).unwrap();
    error(&bundle.oci(&["restore", "--image-path", "empty", "other"]), "restore.log)");
    assert_eq!(bundle.ok(&["list", "-q"]), format!("{id}\n"));
    end(&bundle, id);
}

/// The reason is criu's own, and where the rest of it is.
#[test]
fn a_kernel_that_criu_does_not_know_is_what_the_error_says() {
    if criu_works() {
        return skipped("a_kernel_that_criu_does_not_know_is_what_the_error_says", "this criu knows this kernel");
    }
    let bundle = Bundle::new("sleep 1000");
    let id = &*bundle.id("unknown");
    bundle.start(id);
    let said = bundle.oci(&["checkpoint", id]);
    error(&said, "cannot checkpoint container ");
    let log = bundle.corner.path().join("checkpoint/dump.log");
    assert!(said.err.contains("Error (criu/") && said.err.contains(&*log.to_string_lossy()), "{said:?}");
    assert!(log.exists());
    // It is what it was.
    assert_eq!(bundle.state(id)["status"], "running");
    assert_eq!(bundle.exec(&[], id, "echo alive").out, "alive\n");
    end(&bundle, id);
}
