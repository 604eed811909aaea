//! Rows A10 and A12 to A16: what of the host a container gets hold of, and what it leaves there.
//!
//! `tests/mutants` has for each row a change of hull with which its test fails.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use hull_tests::bundle::Bundle;
use hull_tests::sentinel::Sentinel;
use hull_tests::{Builder, Corner, Said, entries};
use serde_json::{Value, json};

/// The numbers that a shell has open; its own look is one more, which is closed when it is told.
const OPEN: &str = "for fd in /proc/self/fd/*; do [ ! -e $fd ] || echo fd ${fd##*/}; done";

/// The same command from a caller that has more open than it should.
fn with_more_open(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 7</etc/passwd 9</ ; exec \"$@\"", "sh"]).arg(command.get_program());
    shell.args(command.get_args()).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(command.get_current_dir().unwrap_or(Path::new("/")));
    shell
}

fn numbers(said: &Said) -> Vec<String> {
    let told = format!("{}{}", said.out, said.err);
    let number = |line: &str| line.strip_prefix("fd ").map(str::to_owned);
    told.lines().filter_map(number).collect()
}

/// CVE-2024-21626 and runc's further leaks.
#[test]
fn a10_a_command_has_its_three_streams_and_nothing_else() {
    let builder = Builder::new();
    let bundle = Bundle::new("exec sleep 100");
    let id = bundle.id("exec");
    bundle.start(&id);
    builder.file("Dockerfile", &format!("FROM base\nRUN {OPEN}\n"));
    let context = builder.context().to_string_lossy().into_owned();
    let run = builder.corner().run_command(&["-i"], &["sh", "-c", OPEN]);
    let build = builder.command(&["build", "--no-cache", "-t", "x", &context]);
    let exec = bundle.command(&["exec", &id, "sh", "-c", OPEN]);
    for (way, command) in [("hull run", run), ("hull build", build), ("hull-oci exec", exec)] {
        let said = Said::from(with_more_open(&command).output().unwrap());
        assert_eq!(numbers(&said), ["0", "1", "2"], "{way}: {said:?}");
    }
    bundle.ok(&["delete", "--force", &id]);
    bundle.change(|spec| spec["process"]["args"] = ["sh", "-c", OPEN].as_slice().into());
    let said = with_more_open(&bundle.command(&["run", "-b", ".", &bundle.id("run")])).output().unwrap();
    assert_eq!(numbers(&said.into()), ["0", "1", "2"]);
}

#[test]
fn a10_a_hook_has_its_three_streams_and_nothing_else() {
    let bundle = Bundle::new("true");
    let told = bundle.corner.path().join("told");
    fs::create_dir_all(bundle.corner.rootfs().join("told")).unwrap();
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let folder = if kind == "startContainer" { "/told".into() } else { told.display().to_string() };
        let script = format!("({OPEN}) > {folder}/{kind}");
        bundle.change(|spec| spec["hooks"][kind] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]));
    }
    fs::create_dir(&told).unwrap();
    bundle.change(|spec| {
        let bind = json!({"destination": "/told", "type": "bind", "source": told, "options": ["rbind"]});
        spec["mounts"].as_array_mut().unwrap().push(bind);
    });
    let said = with_more_open(&bundle.command(&["run", "-b", ".", &bundle.id("run")])).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    for kind in entries(&told) {
        let text = fs::read_to_string(told.join(&kind)).unwrap();
        assert_eq!(text, "fd 0\nfd 1\nfd 2\n", "{kind}");
    }
    assert_eq!(entries(&told).len(), 6);
}

/// The process that waits for its start holds nothing that leads to the host.
#[test]
fn a10_a_created_container_holds_nothing_of_the_host() {
    let bundle = Bundle::new("true");
    let id = bundle.id("created");
    let create = with_more_open(&bundle.command(&["create", "-b", ".", &id]));
    let mut create = create;
    let status = create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    let pid = bundle.state(&id)["pid"].as_i64().unwrap();
    let held: Vec<String> = entries(Path::new(&format!("/proc/{pid}/fd")))
        .iter()
        .map(|number| fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap().to_string_lossy().into_owned())
        .collect();
    let own = fs::metadata(hull_tests::hull_bin()).unwrap();
    for (number, file) in entries(Path::new(&format!("/proc/{pid}/fd"))).iter().zip(&held) {
        let stat = fs::metadata(format!("/proc/{pid}/fd/{number}")).unwrap();
        let allowed = file == "/dev/null" || file.starts_with("socket:") || stat.len() == own.len();
        assert!(allowed && !stat.is_dir(), "{file}: {held:?}");
    }
    bundle.ok(&["delete", "--force", &id]);
}

/// CVE-2023-25809: no group above the container's own can be written, with and without a cgroup namespace.
#[test]
fn a12_no_group_of_the_hosts_can_be_written() {
    let script = "for file in $(busybox find /sys/fs/cgroup -name cgroup.procs -o -name tasks -o -name memory.max \
                  -o -name memory.limit_in_bytes -o -name release_agent -o -name notify_on_release); do \
                  (echo 1 > $file) 2>/dev/null && echo wrote $file; done; \
                  busybox find /sys/fs/cgroup -name cgroup.procs | busybox wc -l";
    let bundle = Bundle::new(script);
    fs::set_permissions(bundle.corner.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut all = vec![("hull run".to_owned(), bundle.corner.shell(&[], script))];
    for (namespace, user) in [(true, false), (false, false), (false, true), (true, true)] {
        let before = fs::read_to_string(bundle.corner.path().join("config.json")).unwrap();
        bundle.change(|spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|kind| namespace || kind["type"] != "cgroup");
            if user {
                namespaces.push(json!({"type": "user"}));
                let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
                spec["linux"]["uidMappings"] = map.clone();
                spec["linux"]["gidMappings"] = map;
            }
        });
        let said = bundle.oci(&["run", "-b", ".", &bundle.id("run")]);
        all.push((format!("hull-oci run, cgroup namespace {namespace}, user namespace {user}"), said));
        fs::write(bundle.corner.path().join("config.json"), before).unwrap();
    }
    let mut started = 0;
    for (way, said) in all {
        assert!(!said.out.contains("wrote"), "{way}: {said:?}");
        started += usize::from(said.code == 0 && said.out.trim() != "0");
    }
    assert!(started >= 3, "{started} had groups to look at");
}

/// CVE-2022-0811: a setting is one of the container's own namespaces, by its plain name, or nothing.
#[test]
fn a13_a_sysctl_is_one_plain_name_of_a_namespace() {
    let bundle = Bundle::new("true");
    let host = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap();
    let before = (host("kernel/core_pattern"), host("kernel/panic"), host("net/ipv4/ip_forward"));
    for (name, value) in [
        ("kernel.core_pattern", "|/bin/sh"),
        ("kernel.panic", "1"),
        ("vm.swappiness", "1"),
        ("net.ipv4.ip_forward+kernel.core_pattern", "1"),
        ("net.ipv4.ip_forward,kernel.core_pattern", "1"),
        ("net.ipv4.ip_forward\nkernel.core_pattern", "1"),
        ("net.ipv4.ip_forward\u{0}", "1"),
        ("net/../kernel/core_pattern", "|/bin/sh"),
        ("net.ipv4/../../kernel/core_pattern", "|/bin/sh"),
        ("net../kernel.panic", "1"),
        ("../sys/kernel/panic", "1"),
        ("/proc/sys/kernel/panic", "1"),
        ("kernel.shm_rmid_forced/../core_pattern", "|/bin/sh"),
        ("", "1"),
        ("net", "1"),
        ("net.ipv4.ip_forward", "1\u{0}2"),
        ("net.no.such.thing", "1"),
    ] {
        bundle.change(|spec| spec["linux"]["sysctl"] = json!({name: value}));
        let said = bundle.oci(&["run", "-b", ".", &bundle.id("run")]);
        assert_ne!(said.code, 0, "{name:?} = {value:?}: {said:?}");
        let after = (host("kernel/core_pattern"), host("kernel/panic"), host("net/ipv4/ip_forward"));
        assert_eq!(after, before, "{name:?} = {value:?}");
    }
    bundle.change(|spec| {
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"});
        spec["process"]["args"] =
            ["cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shm_rmid_forced"].as_slice().into();
    });
    assert_eq!(bundle.ok(&["run", "-b", ".", &bundle.id("run")]), "1\n1\n");
}

/// CVE-2021-43784: what is long or many is whole, or an error that says what.
#[test]
fn a14_long_and_many_values_are_whole_or_an_error() {
    let bundle = Bundle::new("echo ${#LONG}");
    let long = "x".repeat(70_000);
    let before = fs::read_to_string(bundle.corner.path().join("config.json")).unwrap();
    let run = |change: &dyn Fn(&mut Value)| {
        fs::write(bundle.corner.path().join("config.json"), &before).unwrap();
        bundle.change(|spec| change(spec));
        bundle.oci(&["run", "-b", ".", &bundle.id("run")])
    };
    let push = |spec: &mut Value, mount: Value| spec["mounts"].as_array_mut().unwrap().push(mount);
    for (what, said) in [
        (
            "a source",
            run(&|spec| push(spec, json!({"destination": "/x", "source": format!("/{long}"), "options": ["bind"]}))),
        ),
        ("a destination", run(&|spec| push(spec, json!({"destination": format!("/{long}"), "type": "tmpfs"})))),
        (
            "an option",
            run(&|spec| {
                push(spec, json!({"destination": "/x", "type": "tmpfs", "options": [format!("size={long}")]}))
            }),
        ),
        ("a host name", run(&|spec| spec["hostname"] = long.as_str().into())),
        ("a working directory", run(&|spec| spec["process"]["cwd"] = format!("/{long}").into())),
        ("a command", run(&|spec| spec["process"]["args"] = json!([long]))),
        ("a group", run(&|spec| spec["linux"]["cgroupsPath"] = format!("/{long}").into())),
        (
            "mappings",
            run(&|spec| {
                spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
                let map: Vec<Value> =
                    (0..10_000).map(|id| json!({"containerID": id, "hostID": 100_000 + 2 * id, "size": 1})).collect();
                spec["linux"]["uidMappings"] = map.clone().into();
                spec["linux"]["gidMappings"] = map.into();
            }),
        ),
    ] {
        assert!(said.code != 0 && said.out.is_empty(), "{what}: {} {:.300}", said.code, said.err);
        // One whole line: nothing of it was taken for something else on its way.
        assert!(said.err.starts_with("time=") && said.err.lines().count() == 1, "{what}: {:.300}", said.err);
    }
    let said = run(&|spec| spec["process"]["env"].as_array_mut().unwrap().push(format!("LONG={long}").into()));
    assert_eq!(said.out, "70000\n", "{:.300}", said.err);
}

/// CVE-2021-20206: a name that a user chose is one plain component.
#[test]
fn a15_a_name_is_one_plain_component() {
    let bundle = Bundle::new("true");
    let builder = Builder::new();
    let sentinel = Sentinel::new(&bundle.corner.path().join("sentinel"));
    let long = "x".repeat(4096);
    let absolute = sentinel.path().join("new").to_string_lossy().into_owned();
    let up = format!("../{}/sentinel/new", bundle.corner.path().file_name().unwrap().to_string_lossy());
    for name in ["", ".", "..", "../x", "a/b", "/", "-x", "a b", "a\nb", "é", "a\u{202e}b", &long, &absolute, &up] {
        let created = bundle.oci(&["create", "-b", ".", "--", name]);
        assert_ne!(created.code, 0, "create {name:?}: {created:?}");
        for verb in ["state", "start", "delete"] {
            assert_ne!(bundle.oci(&[verb, "--", name]).code, 0, "{verb} {name:?}");
        }
        let named = builder.corner().run(&[&format!("--name={name}")], &["true"]);
        assert_ne!(named.code, 0, "--name {name:?}: {named:?}");
        let removed = builder.hull(&["rm", "--", name]);
        assert_ne!(removed.code, 0, "rm {name:?}: {removed:?}");
        if !["a/b", "é"].contains(&name) {
            // Of an image's name slashes are a part.
            let imported = builder.hull(&["import", "--", &builder.archive().to_string_lossy(), name]);
            assert_ne!(imported.code, 0, "import {name:?}: {imported:?}");
        }
    }
    let made: Vec<String> =
        entries(&bundle.root()).into_iter().filter(|name| ![".lock", "lock"].contains(&name.as_str())).collect();
    assert!(made.is_empty(), "{made:?}");
    sentinel.assert_untouched("names");
}

/// runc's and crun's mount leaks: with all of the host's mounts shared, and a failure in each step.
#[test]
fn a16_mounts_are_the_hosts_own_again_after_each_run() {
    let corner = Corner::new();
    fs::write(corner.rootfs().join("etc/fifo"), "").unwrap();
    let lent = corner.path().join("lent");
    fs::create_dir(&lent).unwrap();
    let volume = format!("{}:/data", lent.display());
    let run = corner.run_command(&["-v", &volume, "--tmpfs", "/t"], &["true"]);
    let words: Vec<String> = run.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let quoted = |words: &[String]| words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let mut runs = vec![quoted(&words); 20];
    for flags in [
        &["-v", "/no/such:/x"][..],
        &["-v", &volume, "-v", "/etc/passwd:/bin"],
        &["--tmpfs", "/proc/x"],
        &["-w", "/etc/fifo/x"],
        &["--tmpfs", "/t:size=bogus"],
        &["--memory", "6m", "--memory-swap", "5m"],
        &["--security-opt", "apparmor=none-such"],
        &["-u", "nobody-here"],
    ] {
        let run = corner.run_command(flags, &["true"]);
        let words: Vec<String> = run.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        runs.push(quoted(&words));
    }
    let none = corner.run_command(&[], &["/no/such/command"]);
    let words: Vec<String> = none.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    runs.push(quoted(&words));
    let hull = hull_tests::hull_bin();
    let each: String =
        runs.iter().map(|words| format!("{} {words} 2>/dev/null; echo $?\n", hull.display())).collect();
    let script = format!(
        // Shared among themselves, and with no mount of the host's.
        "mount --make-rshared /\ncat /proc/self/mountinfo > {0}/before\n{each}cat /proc/self/mountinfo > {0}/after",
        corner.path().display()
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", &script]).envs(corner.env());
    let said = Said::from(unshare.output().unwrap());
    let statuses: Vec<&str> = said.out.lines().collect();
    assert!(statuses[..20].iter().all(|status| *status == "0"), "{said:?}");
    assert!(statuses[20..].iter().all(|status| *status != "0"), "{said:?}");
    let read = |name: &str| fs::read_to_string(corner.path().join(name)).unwrap();
    assert_eq!(read("after"), read("before"));
}
