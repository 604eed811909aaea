//! Rows A1 to A9: what an image, or a neighbour, has where a container is to be mounted.
//!
//! A test ends with a look at a tree that stands for the host. `tests/mutants` has for each row a change of hull with which
//! its test fails.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use hull_tests::bundle::Bundle;
use hull_tests::racer::Racer;
use hull_tests::sentinel::{CANARY, Sentinel};
use hull_tests::{Corner, Said, entries};
use serde_json::{Value, json};

/// How many starts a race gets.
const STARTS: usize = 60;

/// What an image can have in the place of a folder.
const PRESETS: [&str; 6] = ["link", "relative link", "dangling link", "link to itself", "file", "FIFO"];

fn preset(kind: &str, place: &Path, sentinel: &Path) {
    let up = "../".repeat(12);
    match kind {
        "link" => symlink(sentinel, place).unwrap(),
        "relative link" => symlink(format!("{up}{}", sentinel.strip_prefix("/").unwrap().display()), place).unwrap(),
        "dangling link" => symlink("/nowhere/at/all", place).unwrap(),
        "link to itself" => symlink(place.file_name().unwrap(), place).unwrap(),
        "file" => fs::write(place, "").unwrap(),
        _ => assert!(Command::new("mkfifo").arg(place).status().unwrap().success()),
    }
}

/// The bundle, and a tree beside it that nothing may touch.
fn with_sentinel(script: &str) -> (Bundle, Sentinel) {
    let bundle = Bundle::new(script);
    let sentinel = Sentinel::new(&bundle.corner.path().join("sentinel"));
    (bundle, sentinel)
}

/// What becomes of the root file system: by `hull run` with `flags`, and by `hull-oci run` and `create`.
fn all_ways(bundle: &Bundle, flags: &[&str], script: &str) -> Vec<(&'static str, Said)> {
    let run = bundle.corner.shell(flags, script);
    bundle.change(|spec| spec["process"]["args"] = ["sh", "-c", script].as_slice().into());
    let oci = bundle.oci(&["run", "-b", ".", &bundle.id("run")]);
    vec![("hull run", run), ("hull-oci run", oci)]
}

fn bind(source: &Path, target: &str) -> Value {
    json!({"type": "bind", "source": source, "destination": target, "options": ["rbind", "rprivate"]})
}

fn add(bundle: &Bundle, mounts: impl IntoIterator<Item = Value>) {
    bundle.change(|spec| spec["mounts"].as_array_mut().unwrap().extend(mounts));
}

/// The specification without its mount at `target`.
fn without(bundle: &Bundle, target: &str) {
    bundle.change(|spec| spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != target));
}

/// CVE-2019-19921, CVE-2023-27561.
#[test]
fn a1_proc_and_sys_have_to_be_ordinary_directories() {
    for place in ["proc", "sys", "dev"] {
        for kind in PRESETS {
            let (bundle, sentinel) = with_sentinel("true");
            preset(kind, &bundle.corner.rootfs().join(place), sentinel.path());
            let mut said = all_ways(&bundle, &[], "true");
            said.push(("hull-oci create", bundle.oci(&["create", "-b", ".", &bundle.id("create")])));
            for (way, said) in said {
                assert_ne!(said.code, 0, "{way}: /{place} is a {kind}: {said:?}");
                assert!(said.err.contains("must be an ordinary directory"), "{way}: /{place} is a {kind}: {said:?}");
            }
            sentinel.assert_untouched(&format!("/{place} is a {kind}"));
        }
    }
}

/// CVE-2021-30465: another container, which shares a volume, exchanges a part of the path while something is mounted
/// there.
#[test]
fn a2_a_mount_whose_path_is_exchanged_stays_in_the_root() {
    let (bundle, sentinel) = with_sentinel("true");
    let (volume, marked) = (bundle.corner.path().join("volume"), bundle.corner.path().join("marked"));
    fs::create_dir_all(volume.join("x/empty")).unwrap();
    fs::create_dir(&marked).unwrap();
    symlink(sentinel.path(), volume.join("other")).unwrap();
    add(&bundle, [bind(&volume, "/data"), bind(&marked, "/data/x/empty")]);
    let binds = [format!("{}:/data", volume.display()), format!("{}:/data/x/empty", marked.display())];
    let flags = ["-v", &binds[0], "-v", &binds[1]];
    let racer = Racer::start(&volume.join("x"), &volume.join("other"));
    let mut inside = 0;
    for _ in 0..STARTS {
        for (way, said) in all_ways(&bundle, &flags, "grep -c /marked /proc/self/mountinfo") {
            assert!(
                said.code != 0 && !said.err.is_empty() || said.out == "1\n",
                "{way}: it went elsewhere: {said:?}"
            );
            inside += usize::from(said.code == 0);
        }
    }
    println!(
        "{} exchanges; a careless user lost at attempt {}",
        racer.exchanges(),
        racer.catches_the_careless_after()
    );
    drop(racer);
    assert!(inside >= STARTS / 2, "{inside} of {} starts", 2 * STARTS);
    sentinel.assert_untouched("mounts below a path that is exchanged");
}

/// CVE-2024-45310: the same while mount points are made.
#[test]
fn a3_a_mount_point_is_made_in_the_root_alone() {
    let (bundle, sentinel) = with_sentinel("true");
    let volume = bundle.corner.path().join("volume");
    let (folder, file) = (bundle.corner.path().join("folder"), bundle.corner.path().join("file"));
    fs::create_dir_all(volume.join("x")).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(&file, "").unwrap();
    symlink(sentinel.path().join("empty"), volume.join("other")).unwrap();
    add(&bundle, [bind(&volume, "/data"), bind(&folder, ""), bind(&file, "")]);
    let shared = format!("{}:/data", volume.display());
    let racer = Racer::start(&volume.join("x"), &volume.join("other"));
    let mut started = 0;
    for number in 0..STARTS {
        let targets = [format!("/data/x/folder{number}"), format!("/data/x/file{number}")];
        let binds = [format!("{}:{}", folder.display(), targets[0]), format!("{}:{}", file.display(), targets[1])];
        bundle.change(|spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            let first = mounts.len() - 2;
            mounts[first]["destination"] = targets[0].as_str().into();
            mounts[first + 1]["destination"] = targets[1].as_str().into();
        });
        let flags = ["-v", &shared, "-v", &binds[0], "-v", &binds[1]];
        started += all_ways(&bundle, &flags, "true").iter().filter(|(_, said)| said.code == 0).count();
    }
    println!(
        "{} exchanges; a careless user lost at attempt {}",
        racer.exchanges(),
        racer.catches_the_careless_after()
    );
    drop(racer);
    assert!(started >= STARTS / 2, "{started} of {} starts", 2 * STARTS);
    sentinel.assert_untouched("mount points below a path that is exchanged");
}

/// CVE-2025-31133, where the container's /dev/null is something else.
#[test]
fn a4_nothing_but_the_null_device_covers_a_masked_file() {
    for kind in ["a link to a setting", "a link out", "a file", "another device"] {
        let (bundle, sentinel) = with_sentinel("true");
        let dev = bundle.corner.path().join("dev");
        fs::create_dir(&dev).unwrap();
        match kind {
            "a link to a setting" => symlink("/proc/sys/kernel/core_pattern", dev.join("null")).unwrap(),
            "a link out" => symlink(sentinel.path().join("dev/null"), dev.join("null")).unwrap(),
            "a file" => fs::write(dev.join("null"), "").unwrap(),
            _ => {
                assert!(Command::new("mknod").arg(dev.join("null")).args(["c", "1", "5"]).status().unwrap().success())
            }
        }
        // A device of the specification would only be made anew where nothing is.
        let volume = format!("{}:/dev", dev.display());
        add(&bundle, [bind(&dev, "/dev")]);
        for (way, said) in all_ways(&bundle, &["-v", &volume], "cat /proc/keys; cat /proc/timer_list") {
            assert_ne!(said.code, 0, "{way}: /dev/null is {kind}: {said:?}");
            assert!(said.err.contains("/dev/null"), "{way}: /dev/null is {kind}: {said:?}");
        }
        sentinel.assert_untouched(kind);
    }
}

#[test]
fn a4_masked_paths_are_covered_by_a_real_null() {
    let script = "for path in $MASKED; do [ -e $path ] || continue; \
                  if [ -d $path ]; then echo $path folder $(busybox ls -A $path | busybox wc -l); \
                  (> $path/x) 2>&1; else echo $path $(stat -c %t:%T $path) $(cat $path | busybox wc -c); fi; done";
    let bundle = Bundle::new("true");
    let text = fs::read_to_string(bundle.corner.path().join("config.json")).unwrap();
    let spec: Value = serde_json::from_str(&text).unwrap();
    let masked: Vec<&str> =
        spec["linux"]["maskedPaths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    let script = format!("MASKED='{}'; {script}", masked.join(" "));
    for (way, said) in all_ways(&bundle, &[], &script) {
        assert_eq!(said.code, 0, "{way}: {said:?}");
        let (refused, told): (Vec<&str>, Vec<&str>) = said.out.lines().partition(|line| line.starts_with("sh: "));
        assert!(told.len() >= 4, "{way}: {said:?}");
        let folders = told.iter().filter(|line| line.contains(" folder ")).count();
        for line in &told {
            assert!(line.ends_with(" folder 0") || line.ends_with(" 1:3 0"), "{way}: {line}");
        }
        assert_eq!(refused.iter().filter(|line| line.contains("Read-only file system")).count(), folders, "{said:?}");
    }
}

/// CVE-2025-52565: the terminal comes from a real devpts, whatever the image has where one is looked for.
#[test]
fn a5_the_terminal_is_a_real_one_or_there_is_none() {
    for kind in ["ptmx is a file", "ptmx is a link", "ptmx is another device", "pts is a link"] {
        let (bundle, sentinel) = with_sentinel("true");
        let pts = bundle.corner.rootfs().join("dev/pts");
        fs::create_dir_all(bundle.corner.rootfs().join("dev")).unwrap();
        if kind != "pts is a link" {
            fs::create_dir(&pts).unwrap();
        }
        match kind {
            "ptmx is a file" => fs::write(pts.join("ptmx"), "").unwrap(),
            "ptmx is a link" => symlink(sentinel.path().join("file"), pts.join("ptmx")).unwrap(),
            "pts is a link" => symlink(sentinel.path(), &pts).unwrap(),
            _ => {
                assert!(Command::new("mknod").arg(pts.join("ptmx")).args(["c", "5", "2"]).status().unwrap().success())
            }
        }
        without(&bundle, "/dev/pts");
        without(&bundle, "/dev");
        bundle.change(|spec| spec["process"]["terminal"] = true.into());
        let socket = bundle.corner.path().join("console");
        let _listener = UnixListener::bind(&socket).unwrap();
        let id = bundle.id("terminal");
        let said = bundle.oci(&["create", "-b", ".", "--console-socket", &socket.to_string_lossy(), &id]);
        assert!(said.code != 0 && said.err.contains("terminal"), "{kind}: {said:?}");
        sentinel.assert_untouched(kind);
    }
}

/// In a /dev that is the image's own; and a FIFO there is not waited for.
#[test]
fn a5_the_console_covers_what_the_image_has_there() {
    for kind in ["link", "dangling link", "link to itself", "FIFO", "file"] {
        let (bundle, sentinel) = with_sentinel("stat -c 'console %t' /dev/console");
        let dev = bundle.corner.rootfs().join("dev");
        fs::create_dir_all(dev.join("pts")).unwrap();
        match kind {
            "link" => symlink(sentinel.path().join("file"), dev.join("console")).unwrap(),
            _ => preset(kind, &dev.join("console"), sentinel.path()),
        }
        without(&bundle, "/dev");
        bundle.change(|spec| spec["process"]["terminal"] = true.into());
        let said = on_a_terminal(&bundle);
        // Of the container's own devpts.
        assert!(said.out.contains("console 88"), "/dev/console is a {kind}: {said:?}");
        sentinel.assert_untouched(&format!("/dev/console is a {kind}"));
    }
}

/// `hull-oci run` on a terminal of its own.
fn on_a_terminal(bundle: &Bundle) -> Said {
    let command = format!("./hull-oci --root oci run -b . {}", bundle.id("terminal"));
    let mut script = Command::new("timeout");
    script.args(["20", "script", "-qec", &command, "/dev/null"]).current_dir(bundle.corner.path());
    Said::from(script.output().unwrap())
}

#[test]
fn a5_a_read_only_dev_has_a_terminal_too() {
    let bundle = Bundle::new("tty; touch /dev/x; stat -c %t /dev/console");
    bundle.change(|spec| {
        spec["process"]["terminal"] = true.into();
        let mounts = spec["mounts"].as_array_mut().unwrap();
        let dev = mounts.iter_mut().find(|mount| mount["destination"] == "/dev").unwrap();
        dev["options"].as_array_mut().unwrap().push("ro".into());
    });
    let said = on_a_terminal(&bundle);
    for word in ["/dev/pts/0", "Read-only file system", "88"] {
        assert!(said.out.contains(word), "{word}: {said:?}");
    }
}

/// CVE-2019-16884, CVE-2025-52881: what is mounted over /proc, or inside it, by its name or through a link of the image.
#[test]
fn a6_nothing_is_mounted_inside_proc() {
    let (bundle, sentinel) = with_sentinel("true");
    let (folder, file) = (bundle.corner.path().join("folder"), bundle.corner.path().join("data"));
    fs::create_dir(&folder).unwrap();
    fs::write(&file, "MemTotal: 1 kB\n").unwrap();
    symlink("/proc/sys", bundle.corner.rootfs().join("link")).unwrap();
    let before = fs::read_to_string(bundle.corner.path().join("config.json")).unwrap();
    let tmpfs = |target: &str| json!({"type": "tmpfs", "source": "tmpfs", "destination": target});
    let sched = Path::new("/proc/self/sched");
    for (flag, source, target) in [
        ("-v", folder.as_path(), "/proc"),
        ("-v", &folder, "/proc/sys"),
        ("-v", &file, "/proc/sys/kernel/panic"),
        ("-v", &folder, "/link"),
        ("-v", sched, "/proc/self/attr/exec"),
        ("-v", sched, "/proc/self/oom_score_adj"),
        ("-v", sched, "/proc/thread-self/attr/apparmor/exec"),
        ("--tmpfs", Path::new(""), "/proc/acpi"),
        ("--tmpfs", Path::new(""), "/link/net"),
        ("--tmpfs", Path::new(""), "/proc/self/attr"),
    ] {
        let value = if flag == "-v" { format!("{}:{target}", source.display()) } else { target.to_owned() };
        fs::write(bundle.corner.path().join("config.json"), &before).unwrap();
        add(&bundle, [if flag == "-v" { bind(source, target) } else { tmpfs(target) }]);
        for (way, said) in all_ways(&bundle, &[flag, &value], "true") {
            assert_ne!(said.code, 0, "{way}: {value}: {said:?}");
            // Some are not there at all; the others are refused for where they are.
            let told = said.err.contains("it is inside /proc") || said.err.contains("No such file");
            assert!(told, "{way}: {value}: {said:?}");
        }
    }
    let meminfo = format!("{}:/proc/meminfo", file.display());
    fs::write(bundle.corner.path().join("config.json"), &before).unwrap();
    add(&bundle, [bind(&file, "/proc/meminfo")]);
    for (way, said) in all_ways(&bundle, &["-v", &meminfo], "cat /proc/meminfo") {
        assert_eq!(said.out, "MemTotal: 1 kB\n", "{way}: {said:?}");
    }
    sentinel.assert_untouched("mounts inside /proc");
}

/// A setting is written to the kernel, also where the image has its own files at its path.
#[test]
fn a6_a_sysctl_is_set_whatever_is_at_its_path() {
    let (bundle, sentinel) = with_sentinel("cat /mine/sys/net/ipv4/ip_forward");
    let folder = bundle.corner.rootfs().join("proc/sys/net/ipv4");
    fs::create_dir_all(&folder).unwrap();
    symlink(sentinel.path().join("file"), folder.join("ip_forward")).unwrap();
    bundle.change(|spec| {
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.iter_mut().find(|mount| mount["destination"] == "/proc").unwrap()["destination"] = "/mine".into();
        spec["linux"]["maskedPaths"] = json!([]);
        spec["linux"]["readonlyPaths"] = json!([]);
    });
    assert_eq!(bundle.ok(&["run", "-b", ".", &bundle.id("run")]), "1\n");
    sentinel.assert_untouched("a sysctl");
}

/// A label that was asked for is in force or nothing starts; never is it left out (Apptainer's CVE-2025-65105).
#[test]
fn a6_a_label_is_applied_or_nothing_starts() {
    let bundle = Bundle::new("true");
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"));
    let why = if enabled { "no such profile is loaded" } else { "not in force on this machine" };
    let id = bundle.id("exec");
    bundle.change(|spec| spec["process"]["args"] = ["sleep", "60"].as_slice().into());
    bundle.start(&id);
    let exec = bundle.exec(&["--apparmor", "no-such-profile"], &id, "true");
    bundle.ok(&["delete", "--force", &id]);
    bundle.change(|spec| spec["process"]["apparmorProfile"] = "no-such-profile".into());
    let mut all = all_ways(&bundle, &["--security-opt", "apparmor=no-such-profile"], "true");
    all.push(("hull-oci exec", exec));
    for (way, said) in all {
        assert!(said.code != 0 && said.err.contains(why), "{way}: {said:?}");
    }
}

/// CVE-2026-41579, CVE-2026-47766: links below /dev and in other places where hull makes something.
#[test]
fn a7_links_where_something_is_made_lead_nowhere() {
    for place in
        ["dev", "dev/pts", "dev/shm", "dev/mqueue", "dev/ptmx", "dev/fd", "dev/null", "sys/fs/cgroup", "etc", "run"]
    {
        let (bundle, sentinel) = with_sentinel("true");
        let path = bundle.corner.rootfs().join(place);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // With all that hull looks for.
        symlink(sentinel.path().join(if place == "dev/null" { "dev/null" } else { "" }), &path).unwrap();
        // Without a /dev of its own the image's is what is there.
        without(&bundle, "/dev");
        for (way, said) in all_ways(&bundle, &[], "true") {
            assert!(said.code == 0 || !said.err.is_empty(), "{way}: {place}: {said:?}");
        }
        sentinel.assert_untouched(&format!("/{place} is a link"));
    }
}

/// CVE-2019-18837, CVE-2025-24965: files that hull puts into /etc, where the image has something else.
#[test]
fn a8_injected_files_do_not_write_through_links() {
    for name in ["hosts", "hostname", "resolv.conf"] {
        for kind in ["link", "relative link", "dangling link", "FIFO", "folder", "hard link"] {
            let corner = Corner::new();
            let sentinel = Sentinel::new(&corner.path().join("sentinel"));
            let place = corner.rootfs().join("etc").join(name);
            let shared = corner.path().join("shared");
            fs::write(&shared, "untouched").unwrap();
            match kind {
                "folder" => fs::create_dir(&place).unwrap(),
                "hard link" => fs::hard_link(&shared, &place).unwrap(),
                "link" => symlink(sentinel.path().join("file"), &place).unwrap(),
                _ => preset(kind, &place, sentinel.path()),
            }
            let said = corner.shell(&["--hostname", "inside"], &format!("cat /etc/{name}"));
            let words = if name == "hostname" { "inside" } else { "" };
            assert!(said.code == 0 && said.out.contains(words) || kind == "folder", "{name}, a {kind}: {said:?}");
            assert!(!said.out.contains(CANARY), "{name}, a {kind}: {said:?}");
            assert_eq!(fs::read_to_string(&shared).unwrap(), "untouched", "{name}, a {kind}");
            sentinel.assert_untouched(&format!("/etc/{name} is a {kind}"));
        }
    }
}

/// CVE-2024-21626: working directories that are not inside the root.
#[test]
fn a9_the_working_directory_is_inside() {
    let (bundle, sentinel) = with_sentinel("true");
    let marker = sentinel.path().join("file");
    symlink("/", bundle.corner.rootfs().join("top")).unwrap();
    symlink(sentinel.path(), bundle.corner.rootfs().join("out")).unwrap();
    let script =
        format!("for up in . .. ../.. ../../../../..; do cat $up{} file; done; busybox pwd", marker.display());
    let running = Bundle::new("exec sleep 100");
    let id = running.id("exec");
    running.start(&id);
    let numbers = (0..16).chain([63]).map(|number| format!("/proc/self/fd/{number}"));
    let others =
        ["/proc/1/root", "/proc/1/cwd", "/../../..", "/top/top/../..", "/out", "/out/inner", "/proc/self/exe/x"];
    for cwd in numbers.chain(others.map(str::to_owned)) {
        bundle.change(|spec| spec["process"]["cwd"] = cwd.as_str().into());
        let mut all = all_ways(&bundle, &["-w", &cwd], &script);
        all.push(("hull-oci exec", running.exec(&["--cwd", &cwd], &id, &script)));
        for (way, said) in all {
            assert!(!said.out.contains(CANARY), "{way}: {cwd}: {said:?}");
            let inside = said.out.lines().last().is_some_and(|last| last.starts_with('/'));
            assert!(inside || said.code != 0, "{way}: {cwd}: {said:?}");
        }
    }
    running.ok(&["delete", "--force", &id]);
    sentinel.assert_untouched("working directories");
}

/// A working directory that is made, and given to the user, where the image has a link that is exchanged meanwhile.
#[test]
fn a9_a_working_directory_is_made_inside() {
    let (bundle, sentinel) = with_sentinel("true");
    let volume = bundle.corner.path().join("volume");
    fs::create_dir_all(volume.join("x")).unwrap();
    symlink(sentinel.path().join("empty"), volume.join("other")).unwrap();
    add(&bundle, [bind(&volume, "/data")]);
    let shared = format!("{}:/data", volume.display());
    let racer = Racer::start(&volume.join("x"), &volume.join("other"));
    for number in 0..STARTS {
        let cwd = format!("/data/x/new{number}");
        bundle.change(|spec| spec["process"]["cwd"] = cwd.as_str().into());
        all_ways(&bundle, &["-v", &shared, "-w", &cwd], "true");
    }
    println!(
        "{} exchanges; a careless user lost at attempt {}",
        racer.exchanges(),
        racer.catches_the_careless_after()
    );
    drop(racer);
    let made = [volume.join("x"), volume.join("other")].iter().map(|folder| entries(folder).len()).max();
    assert!(made > Some(0), "none was made where it belongs");
    sentinel.assert_untouched("a working directory below a path that is exchanged");
}
