//! Rows B1 to B8: who a process is, what it may do, and what of that an image can decide.
//!
//! `tests/mutants` has for each row a change of hull with which its test fails.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hull_tests::bundle::Bundle;
use hull_tests::sentinel::{CANARY, Sentinel};
use hull_tests::{Builder, Corner, Said};
use rustix::fs::XattrFlags;
use serde_json::json;

/// What of /proc/self/status the tests look at.
const STATUS: &str = "grep -E '^(Uid|Gid|Groups|Cap)' /proc/self/status";

/// A line of that, its fields with one blank between them.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.trim_start_matches("| ").strip_prefix(name)?.strip_prefix(':'));
    let line = line.unwrap_or_else(|| panic!("no {name} in {status}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Builds `FROM base`, then `lines`; what the build says.
fn built(builder: &Builder, lines: &str) -> Said {
    builder.file("Dockerfile", &format!("FROM base\n{lines}\n"));
    let context = builder.context().to_string_lossy().into_owned();
    builder.hull(&["build", "--no-cache", "-t", "x", &context])
}

/// A builder whose root file system has these files below /etc.
fn builder_with(files: &[(&str, &str)]) -> Builder {
    let corner = Corner::new();
    for (name, text) in files {
        fs::write(corner.rootfs().join("etc").join(name), text).unwrap();
    }
    let root = corner.root();
    Builder::with_root(corner, root)
}

/// CVE-2022-24769, CVE-2022-27649 to 27652, CVE-2022-29162.
#[test]
fn b1_nothing_is_inheritable_or_ambient_unless_it_was_asked_for() {
    let builder = Builder::new();
    let bundle = Bundle::new(&format!("{STATUS}; exec sleep 100"));
    let id = bundle.id("exec");
    bundle.start(&id);
    for (way, said) in [
        ("hull run", builder.corner().shell(&[], STATUS)),
        ("hull run as a user", builder.corner().shell(&["-u", "1000"], STATUS)),
        ("hull run with a capability", builder.corner().shell(&["--cap-add", "NET_ADMIN"], STATUS)),
        ("hull build", built(&builder, &format!("RUN {STATUS}"))),
        ("hull-oci exec", bundle.exec(&[], &id, STATUS)),
        ("hull-oci exec with a capability", bundle.exec(&["--cap", "CAP_NET_ADMIN"], &id, STATUS)),
    ] {
        let told = format!("{}{}", said.out, said.err);
        assert_eq!(field(&told, "CapInh"), "0000000000000000", "{way}: {told}");
        assert_eq!(field(&told, "CapAmb"), "0000000000000000", "{way}: {told}");
    }
    bundle.ok(&["delete", "--force", &id]);

    // What a specification says is what there is.
    bundle.change(|spec| {
        let set = json!(["CAP_NET_BIND_SERVICE"]);
        for kind in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            spec["process"]["capabilities"][kind] = set.clone();
        }
        spec["process"]["user"]["uid"] = 1000.into();
        spec["process"]["args"] = ["sh", "-c", STATUS].as_slice().into();
    });
    let told = bundle.ok(&["run", "-b", ".", &bundle.id("ambient")]);
    for set in ["CapInh", "CapAmb", "CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(field(&told, set), "0000000000000400", "{told}");
    }
}

/// A program with capabilities of its own gives those to a user, and no others.
#[test]
fn b1_a_program_with_capabilities_gives_its_own_alone() {
    /// `struct vfs_cap_data`, version 2, with the bit that makes them effective.
    fn give(program: &Path, capability: u32) {
        let words = [0x0200_0001u32, 1 << capability, 0, 0, 0];
        let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        rustix::fs::setxattr(program, "security.capability", &value, XattrFlags::empty()).unwrap();
    }
    let bundle = Bundle::new("true");
    let bin = bundle.corner.rootfs().join("bin");
    for (name, capability) in [("busybox-bind", 10), ("busybox-admin", 21)] {
        fs::copy("/bin/busybox", bin.join(name)).unwrap();
        give(&bin.join(name), capability);
    }
    let said = bundle.corner.run(&["-u", "1000"], &["/bin/busybox-bind", "grep", "-E", "^Cap", "/proc/self/status"]);
    for (set, value) in
        [("CapPrm", "0000000000000400"), ("CapEff", "0000000000000400"), ("CapInh", "0000000000000000")]
    {
        assert_eq!(field(&said.out, set), value, "{said:?}");
    }
    assert_ne!(
        bundle.corner.run(&["-u", "1000"], &["/bin/busybox-admin", "true"]).code,
        0,
        "one that nobody may have"
    );
    let locked = bundle.corner.run(
        &["-u", "1000", "--security-opt", "no-new-privileges"],
        &["/bin/busybox-bind", "grep", "-E", "^Cap", "/proc/self/status"],
    );
    assert!(locked.code != 0 || field(&locked.out, "CapEff") == "0000000000000000", "{locked:?}");
}

/// CVE-2021-20188, CVE-2026-30892: who a word means, in each verb that takes one.
#[test]
fn b2_a_user_is_who_was_said_with_what_is_theirs() {
    let passwd = "root:x:0:0::/:/bin/sh\nweb:x:1000:1001::/:/bin/sh\n";
    let group = "root:x:0:\nweb:x:1001:\naudio:x:29:web\nstaff:x:50:\n";
    let builder = builder_with(&[("passwd", passwd), ("group", group)]);
    const ALL: &str = "00000000800405fb";
    const NONE: &str = "0000000000000000";
    for (user, ids) in [
        ("0", Some((0, 0, "0", ALL))),
        ("1", Some((1, 0, "0", NONE))),
        ("1000", Some((1000, 1001, "29 1001", NONE))),
        ("1000:2000", Some((1000, 2000, "2000", NONE))),
        ("web", Some((1000, 1001, "29 1001", NONE))),
        ("web:staff", Some((1000, 50, "50", NONE))),
        ("01", Some((1, 0, "0", NONE))),
        ("+1", None),
        ("-1", None),
        ("1 ", None),
        ("4294967295", None),
        ("4294967296", None),
        ("0:4294967295", None),
        ("nobody-here", None),
    ] {
        let flag = format!("--user={user}");
        let mut all = vec![("hull run", builder.corner().shell(&[&flag], STATUS))];
        // A Dockerfile's line has no blank at its end.
        if !user.ends_with(' ') {
            all.push(("hull build", built(&builder, &format!("USER {user}\nRUN {STATUS}"))));
        }
        for (way, said) in all {
            let Some((uid, gid, groups, capabilities)) = ids else {
                assert_ne!(said.code, 0, "{way}: {user:?}: {said:?}");
                assert!(!said.out.contains("Uid:") && !said.err.contains("Uid:"), "{way}: {user:?}: {said:?}");
                continue;
            };
            let told = format!("{}{}", said.out, said.err);
            assert_eq!(field(&told, "Uid"), format!("{uid} {uid} {uid} {uid}"), "{way}: {user:?}: {said:?}");
            assert_eq!(field(&told, "Gid"), format!("{gid} {gid} {gid} {gid}"), "{way}: {user:?}");
            assert_eq!(field(&told, "Groups"), groups, "{way}: {user:?}");
            assert_eq!(field(&told, "CapEff"), capabilities, "{way}: {user:?}");
            assert_eq!(field(&told, "CapPrm"), capabilities, "{way}: {user:?}");
        }
    }
    let privileged = builder.corner().shell(&["--privileged", "--user", "1000"], STATUS);
    assert_eq!(field(&privileged.out, "CapEff"), NONE, "{privileged:?}");
}

#[test]
fn b2_an_exec_is_who_was_said_with_what_is_theirs() {
    let bundle = Bundle::new("exec sleep 100");
    let id = bundle.id("exec");
    bundle.start(&id);
    for (user, ids) in [
        ("0", Some((0, 0, true))),
        ("1", Some((1, 0, false))),
        ("1000:2000", Some((1000, 2000, false))),
        ("web", None),
        ("+1", None),
        ("-1", None),
        ("1 ", None),
        ("4294967295", None),
        ("4294967296", None),
        ("1:4294967295", None),
    ] {
        let said = bundle.exec(&[&format!("--user={user}")], &id, STATUS);
        let Some((uid, gid, able)) = ids else {
            assert!(said.code != 0 && !said.out.contains("Uid:"), "{user:?}: {said:?}");
            continue;
        };
        assert_eq!(field(&said.out, "Uid"), format!("{uid} {uid} {uid} {uid}"), "{user:?}: {said:?}");
        assert_eq!(field(&said.out, "Gid"), format!("{gid} {gid} {gid} {gid}"), "{user:?}");
        assert_eq!(field(&said.out, "CapEff") != "0000000000000000", able, "{user:?}: {said:?}");
    }
    bundle.ok(&["delete", "--force", &id]);
}

/// CVE-2024-40635, CVE-2026-46680: a number is never a name, and one that is too large is nobody.
#[test]
fn b3_a_number_is_a_number_and_in_range() {
    let passwd = "1000:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n4294967295:x:0:0::/:/bin/sh\n\
                  huge:x:4294967295:0::/:/bin/sh\nhuger:x:4294967296:0::/:/bin/sh\nminus:x:-1:0::/:/bin/sh\n\
                  group:x:1000:4294967295::/:/bin/sh\n";
    let builder = builder_with(&[("passwd", passwd), ("group", "all:x:4294967295:\n")]);
    for user in ["4294967295", "4294967296", "huge", "huger", "minus", "group", "1000:all", "99999999999999999999"] {
        for (way, said) in [
            ("hull run", builder.corner().shell(&["-u", user], "id -u")),
            ("hull build", built(&builder, &format!("USER {user}\nRUN id -u"))),
        ] {
            assert!(said.code != 0 && !said.out.contains("\n0\n"), "{way}: {user}: {said:?}");
        }
    }
    // The line of a user called 1000 is nobody's; that of the number 1000 has no possible group.
    let said = builder.corner().shell(&["-u", "1000:5"], "id -u");
    assert!(said.code != 0 || said.out == "1000\n", "{said:?}");
    assert_eq!(builder.corner().shell(&["-u", "2000"], "id -u").out, "2000\n");
    let bundle = Bundle::new("id -u");
    for key in ["uid", "gid"] {
        bundle.change(|spec| spec["process"]["user"] = json!({"uid": 0, "gid": 0, key: 4_294_967_295u32}));
        let said = bundle.oci(&["run", "-b", ".", &bundle.id("run")]);
        assert!(said.code != 0 && said.err.contains("4294967295"), "{key}: {said:?}");
    }
}

/// CVE-2022-36109, CVE-2022-2990, CVE-2023-25173: the primary group is among the others, and hull's own are not.
#[test]
fn b4_groups_are_those_of_the_user_and_no_others() {
    let builder = builder_with(&[("passwd", "web:x:1000:1000::/:/bin/sh\n"), ("group", "web:x:1000:\n")]);
    let rootfs = builder.corner().rootfs();
    // For everybody but the group.
    fs::write(rootfs.join("closed"), "read").unwrap();
    fs::set_permissions(rootfs.join("closed"), fs::Permissions::from_mode(0o604)).unwrap();
    std::os::unix::fs::chown(rootfs.join("closed"), Some(0), Some(1000)).unwrap();
    let script = "id -G; cat /closed";
    let with_groups = |mut command: Command| {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--groups", "4242,27"]).arg(command.get_program()).args(command.get_args());
        setpriv.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command = setpriv;
        Said::from(command.output().unwrap())
    };
    let run = |user: &str| with_groups(builder.corner().run_command(&["-u", user], &["sh", "-c", script]));
    for user in ["web", "1000", "1000:1000", "2000:1000"] {
        let said = run(user);
        assert_eq!(said.out, "1000\n", "{user}: {said:?}");
        assert!(said.err.contains("Permission denied"), "{user}: {said:?}");
    }
    assert_eq!(run("2000").out, "0\nread", "one who is not in the group");
    builder.file("Dockerfile", "FROM base\nUSER web\nRUN echo groups $(id -G)\n");
    let context = builder.context().to_string_lossy().into_owned();
    let said = with_groups(builder.command(&["build", "-t", "x", &context]));
    assert!(format!("{}{}", said.out, said.err).contains("groups 1000\n"), "{said:?}");

    let bundle = Bundle::new("id -G; exec sleep 100");
    bundle.change(|spec| spec["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [29]}));
    let id = bundle.id("exec");
    bundle.start(&id);
    let command = bundle.command(&["exec", "--user", "1000:1000", &id, "sh", "-c", "id -G"]);
    let said = with_groups(command);
    assert!(!said.out.contains("4242") && said.out.contains("1000"), "{said:?}");
    bundle.ok(&["delete", "--force", &id]);
}

/// CVE-2024-9676, CVE-2026-47262: files that name users are read inside the root, to a bound, and only if they are files.
#[test]
fn b5_who_a_user_is_is_read_inside_the_root_and_to_a_bound() {
    for kind in ["a link out", "a FIFO", "a device", "a folder", "one endless line"] {
        let bundle = Bundle::new("echo $HOME");
        let sentinel = Sentinel::new(&bundle.corner.path().join("sentinel"));
        let passwd = bundle.corner.rootfs().join("etc/passwd");
        let made = |command: &mut Command| assert!(command.status().unwrap().success());
        match kind {
            "a link out" => {
                fs::write(bundle.corner.path().join("outside"), "web:x:1000:1000::/:/bin/sh\n").unwrap();
                symlink(bundle.corner.path().join("outside"), &passwd).unwrap();
            }
            "a FIFO" => made(Command::new("mkfifo").arg(&passwd)),
            "a device" => made(Command::new("mknod").arg(&passwd).args(["c", "1", "5"])),
            "a folder" => fs::create_dir(&passwd).unwrap(),
            _ => fs::File::create(&passwd).unwrap().set_len(1 << 30).unwrap(),
        }
        let start = Instant::now();
        let said = bundle.corner.run(&["-u", "web"], &["true"]);
        assert_eq!(said.code, 125, "{kind}: {said:?}");
        let words = match kind {
            "a link out" => "no user \"web\"",
            "one endless line" => "EFBIG",
            _ => "not a regular file",
        };
        assert!(said.err.contains(words), "{kind}: {said:?}");
        // hull-oci looks there for a home folder only.
        assert_eq!(bundle.ok(&["run", "-b", ".", &bundle.id("run")]), "/\n", "{kind}");
        assert!(start.elapsed() < Duration::from_secs(20), "{kind}: it took {:?}", start.elapsed());
        sentinel.assert_untouched(kind);
    }
    // As NixOS has it.
    let corner = Corner::new();
    fs::create_dir_all(corner.rootfs().join("nix/store")).unwrap();
    fs::write(corner.rootfs().join("nix/store/passwd"), "web:x:1000:1000::/srv:/bin/sh\n").unwrap();
    symlink("/nix/store/passwd", corner.rootfs().join("etc/passwd")).unwrap();
    assert_eq!(corner.shell(&["-u", "web"], "id -u; echo $HOME").out, "1000\n/srv\n");
}

/// CVE-2022-4318, CVE-2026-15809: no value becomes a second line somewhere.
#[test]
fn b6_control_characters_do_not_become_lines() {
    let passwd = "web:x:1000:1000::/srv\rroot::0:0::/:/bin/sh\nesc:x:1001:1001::/\u{1b}]0;x\u{7}:/bin/sh\n";
    let builder = builder_with(&[("passwd", passwd)]);
    let corner = builder.corner();
    for user in ["web", "esc"] {
        assert_eq!(corner.shell(&["-u", user], "echo $HOME").out, "/\n", "{user}");
    }
    for flags in [
        ["-h", "a\nb"],
        ["-h", "a\rb"],
        ["-u", "we\nb"],
        ["-u", "0\n"],
        ["--name", "a\nb"],
        ["-w", "a\nb"],
        ["--cap-add", "CHOWN\n"],
    ] {
        let said = corner.run(&flags, &["true"]);
        assert_eq!(said.code, 125, "{flags:?}: {said:?}");
        assert!(!said.err.contains(flags[1]), "{flags:?}: it is told as it is: {said:?}");
    }
    // A value is one entry, whatever is in it; a name is a name.
    let said = corner.shell(&["-e", "A=1\nB=2"], "echo \"$A\"; cat /proc/self/environ");
    assert!(said.out.starts_with("1\nB=2\n") && said.out.contains("A=1\nB=2\0"), "{said:?}");
    let said = corner.shell(&["-h", "inside"], "busybox wc -l < /etc/hostname; grep -c inside /etc/hosts");
    assert_eq!(said.out, "1\n1\n", "{said:?}");
    let said = built(&builder, "USER 0\\nweb\nRUN id -u");
    assert_ne!(said.code, 0, "{said:?}");

    let bundle = Bundle::new("true");
    for (pointer, value) in [("/hostname", "a\nb"), ("/process/env/0", "A\u{0}B=1"), ("/linux/cgroupsPath", "/a\nb")]
    {
        bundle.change(|spec| {
            spec["linux"]["cgroupsPath"] = "".into();
            *spec.pointer_mut(pointer).unwrap() = value.into();
        });
        let said = bundle.oci(&["run", "-b", ".", &bundle.id("run")]);
        assert!(!said.err.contains("a\nb"), "{pointer}: {said:?}");
        if said.code == 0 {
            assert_eq!(pointer, "/hostname", "{said:?}");
        }
    }
}

/// CVE-2016-9962: in a container whose root may trace all that is its own, nobody looks into a process of hull that
/// enters it.
#[test]
fn b7_nobody_inside_looks_into_a_process_before_it_is_the_command() {
    const EXECS: usize = 100;
    let bundle = Bundle::new("");
    fs::copy(env!("CARGO_BIN_EXE_hull-probe"), bundle.corner.rootfs().join("bin/probe")).unwrap();
    fs::set_permissions(bundle.corner.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["proc", "dev", "sys"] {
        fs::create_dir_all(bundle.corner.rootfs().join(folder)).unwrap();
    }
    bundle.change(|spec| {
        spec["process"]["args"] = ["probe", "peek", "hull-oci"].as_slice().into();
        spec["process"]["noNewPrivileges"] = false.into();
        let all: Vec<_> = (0..41).map(|number| capability(number).into()).collect();
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = serde_json::Value::Array(all.clone());
        }
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    });
    let id = bundle.id("looking");
    let mut run = bundle.command(&["run", "-d", "-b", ".", &id]);
    let mut run = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "looking");
    for _ in 0..EXECS {
        bundle.ok(&["exec", &id, "true"]);
    }
    let input = run.stdin.take();
    run.wait().unwrap();
    drop(input);
    let told = lines.next().unwrap().unwrap();
    bundle.ok(&["delete", "--force", &id]);
    let seen: usize = told.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(seen >= EXECS / 10, "{seen} of {EXECS} were seen at all: {told}");
    assert!(told.ends_with("opened {}"), "{told}");
}

/// The name of a capability by its number.
fn capability(number: u32) -> String {
    let said = Command::new("capsh").arg(format!("--decode={:x}", 1u64 << number)).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    text.trim().split_once('=').unwrap().1.to_uppercase()
}

/// CVE-2018-18955 and others: mappings are what was asked for, whole, or an error.
#[test]
fn b8_mappings_are_those_that_were_asked_for() {
    let bundle = Bundle::new("cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups");
    fs::set_permissions(bundle.corner.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["proc", "dev", "sys"] {
        fs::create_dir_all(bundle.corner.rootfs().join(folder)).unwrap();
    }
    bundle.change(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    });
    let run = |map: &serde_json::Value| {
        bundle.change(|spec| {
            spec["linux"]["uidMappings"] = map.clone();
            spec["linux"]["gidMappings"] = map.clone();
        });
        bundle.oci(&["run", "-b", ".", &bundle.id("map")])
    };
    let range =
        |inside: u64, outside: u64, size: u64| json!({"containerID": inside, "hostID": outside, "size": size});
    let said = run(&json!([range(0, 100_000, 10), range(10, 200_000, 1)]));
    let words: Vec<&str> = said.out.split_whitespace().collect();
    let map = ["0", "100000", "10", "10", "200000", "1"];
    assert_eq!(words, [&map[..], &map[..], &["allow"]].concat(), "{said:?}");
    for map in [
        json!([range(0, 100_000, 10), range(5, 200_000, 10)]),
        json!([range(0, 100_000, 10), range(20, 100_005, 10)]),
        json!([range(0, 100_000, 10), range(0, 100_000, 10)]),
        json!([range(0, 4_294_967_290, 100)]),
        json!([range(4_294_967_290, 100_000, 100)]),
        json!([range(0, 100_000, 0)]),
        json!([range(0, 4_294_967_296, 1)]),
        json!([range(5, 100_000, 10)]),
    ] {
        let said = run(&map);
        assert!(said.code != 0 && said.out.is_empty() && !said.err.is_empty(), "{map}: {said:?}");
    }
}

/// CVE-2021-21284: what hull keeps is real root's, and nobody else enters it.
#[test]
fn b8_what_hull_keeps_is_closed_to_everybody_else() {
    let builder = Builder::new();
    let corner = builder.corner();
    assert_eq!(built(&builder, "RUN true").code, 0);
    let bundle = Bundle::new("exec sleep 100");
    let id = bundle.id("state");
    bundle.start(&id);
    let running = corner.hull().args(["run", "--rm", "-i", "x", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    hull_tests::eventually("it runs", || !hull_tests::entries(&corner.runroot().join("containers")).is_empty());
    for folder in [corner.root(), corner.runroot(), corner.runroot().join("containers"), bundle.root()] {
        let stat = fs::metadata(&folder).unwrap();
        assert_eq!((stat.mode() & 0o077, stat.uid()), (0, 0), "{}: {:o}", folder.display(), stat.mode());
        // The tests make some of these; below them it is hull alone.
        for name in hull_tests::entries(&folder) {
            let stat = fs::symlink_metadata(folder.join(&name)).unwrap();
            let open = stat.mode() & 0o022 != 0 && !stat.is_symlink();
            assert!(!open && stat.uid() == 0, "{}/{name}: {:o}", folder.display(), stat.mode());
        }
    }
    // Made by hull alone.
    let (root, runroot) = (corner.path().join("fresh"), corner.path().join("fresh-run"));
    let mut run = Command::new(hull_tests::hull_bin());
    run.arg("--root").arg(&root).arg("--runroot").arg(&runroot).args(["run", "--rootfs"]).arg(corner.rootfs());
    assert!(run.args(["--", "true"]).status().unwrap().success());
    for folder in [&root, &runroot, &runroot.join("containers")] {
        assert_eq!(fs::metadata(folder).unwrap().mode() & 0o7777, 0o700, "{}", folder.display());
    }
    let mut running = running;
    drop(running.stdin.take());
    assert!(running.wait().unwrap().success());
    bundle.ok(&["delete", "--force", &id]);
    assert!(!fs::read_to_string(corner.rootfs().join("bin/busybox")).is_ok_and(|text| text.contains(CANARY)));
}
