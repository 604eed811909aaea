//! `hull import`, `build`, `images`, `rmi` and `run IMAGE`, on a store of the test's own.

use std::fs;

use hull_tests::{Builder, Corner, Said, entries};

#[test]
fn a_dockerfile_becomes_an_image_that_runs() {
    let store = Builder::new();
    fs::write(store.context().join("file"), "copied\n").unwrap();
    let said = store.build(
        "FROM base\nARG WHO=nobody\nENV GREETING=hello\nWORKDIR /work\nCOPY file .\n\
         RUN echo $GREETING $WHO > made\nCMD [\"cat\", \"file\", \"made\"]\n",
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(store.hull(&["run", "--rm", "made"]).out, "copied\nhello nobody\n");
    assert_eq!(store.hull(&["run", "--rm", "made", "sh", "-c", "echo $GREETING; pwd"]).out, "hello\n/work\n");
}

#[test]
fn a_second_build_is_cached_until_a_copied_file_changes() {
    let store = Builder::new();
    fs::write(store.context().join("file"), "one\n").unwrap();
    let text = "FROM base\nRUN echo first > /first\nCOPY file /file\nRUN cat /file > /last\n";
    assert!(!store.build(text).err.contains("CACHED"));
    let again = store.build(text);
    assert_eq!(again.err.matches("CACHED").count(), 3, "{}", again.err);
    fs::write(store.context().join("file"), "two\n").unwrap();
    let changed = store.build(text);
    assert_eq!(changed.err.matches("CACHED").count(), 1, "{}", changed.err);
    assert_eq!(store.hull(&["run", "--rm", "made", "cat", "/last"]).out, "two\n");
}

#[test]
fn mistakes_in_a_build_name_the_thing_and_show_the_line() {
    let store = Builder::new();
    let outside = store.corner().path().join("outside");
    fs::write(&outside, "secret\n").unwrap();
    std::os::unix::fs::symlink(&outside, store.context().join("escape")).unwrap();
    for (text, words) in [
        ("FROM base\nHEALTHCHECK NONE\n", &["HEALTHCHECK", "not supported yet", "^^^^"][..]),
        ("FROM base\nFETCH x /\n", &["FETCH", "^^^^"]),
        ("FROM base\nCOPY ../outside /x\n", &["../outside", "outside the build context", "^^^^"]),
        ("FROM base\nCOPY missing /x\n", &["missing", "not in the build context", "^^^^"]),
        ("FROM base\nUSER no-such-user\nRUN true\n", &["no-such-user", "/etc/passwd"]),
        ("FROM no-such-image\n", &["no-such-image"]),
    ] {
        let said = store.build_with(&["--pull=never"], text);
        assert_ne!(said.code, 0, "{text}: {said:?}");
        assert!(words.iter().all(|word| said.err.contains(word)), "{text}: {}", said.err);
    }
    let said = store.build("FROM base\nCOPY escape /x\n");
    let read = store.hull(&["run", "--rm", "made", "cat", "/x"]);
    assert!(!read.out.contains("secret"), "a link led out of the context: {said:?} {read:?}");
    let lost = store.hull(&["build", "-f", "/no/such/Dockerfile", "-t", "made", &store.context().to_string_lossy()]);
    assert_ne!(lost.code, 0);
    assert!(lost.err.contains("/no/such/Dockerfile"), "{}", lost.err);
}

#[test]
fn a_failing_run_tells_its_status_and_makes_no_image() {
    let store = Builder::new();
    let said = store.build("FROM base\nRUN exit 3\n");
    assert_ne!(said.code, 0);
    assert!(said.err.contains("status 3") && said.err.contains("RUN exit 3"), "{}", said.err);
    assert!(!store.hull(&["images"]).out.contains("made"));
}

#[test]
fn a_step_is_contained_but_has_the_hosts_network() {
    let store = Builder::new();
    let said = store.build(
        "FROM base\nRUN for kind in net mnt pid uts ipc cgroup; do busybox readlink /proc/self/ns/$kind; done > /namespaces; \
         cat /proc/self/status > /status; echo $$ > /pid; cat /etc/resolv.conf > /resolv\n",
    );
    assert_eq!(said.code, 0, "{said:?}");
    let read = |path: &str| store.hull(&["run", "--rm", "made", "cat", path]).out;
    let namespaces = read("/namespaces");
    for (kind, line) in ["net", "mnt", "pid", "uts", "ipc", "cgroup"].iter().zip(namespaces.lines()) {
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_eq!(line == host.to_string_lossy(), *kind == "net", "{kind}: {line}");
    }
    let status = read("/status");
    assert!(status.contains("CapEff:\t00000000800405fb") && status.contains("Seccomp:\t2"), "{status}");
    assert_eq!(read("/pid"), "1\n");
    assert_eq!(read("/resolv"), fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
}

#[test]
fn links_in_an_image_do_not_lead_a_working_directory_to_the_host() {
    let store = Builder::new();
    let outside = store.corner().path().join("outside");
    fs::create_dir(&outside).unwrap();
    let said =
        store.build(&format!("FROM base\nRUN busybox ln -s {} /link\nWORKDIR /link/inner\n", outside.display()));
    assert_eq!(entries(&outside), [""; 0], "{said:?}");
}

#[test]
fn the_file_system_is_exported_and_the_image_kept() {
    let store = Builder::new();
    fs::write(store.context().join("Dockerfile"), "FROM base\nRUN echo made > /made\n").unwrap();
    let (folder, context) = (store.corner().path().join("exported"), store.context());
    let said =
        store.hull(&["build", "-t", "made", "-o", &folder.to_string_lossy(), "-C", &context.to_string_lossy()]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(fs::read_to_string(folder.join("made")).unwrap(), "made\n");
    assert!(store.hull(&["images"]).out.contains("made"));
    assert_eq!(store.hull(&["rmi", "made"]).code, 0);
    assert!(!store.hull(&["images"]).out.contains("made"));
}

#[test]
fn a_dockerfile_runs_in_one_command() {
    let store = Builder::new();
    store.file("file", "copied\n").file("Dockerfile", "FROM base\nCOPY file /file\nCMD [\"cat\", \"/file\"]\n");
    store.file("other/Dockerfile", "FROM base\nCOPY file /other\nCMD [\"cat\", \"/other\"]\n");
    let run = |arguments: &[&str]| {
        let mut command = store.command(&[&["run", "--rm"], arguments].concat());
        store.said(command.current_dir(store.context()).output().unwrap())
    };
    let context = store.context().to_string_lossy().into_owned();
    for (arguments, out) in [
        (&["-f", "Dockerfile", "--", "cat", "/file"][..], "copied\n"),
        (&["-f", "Dockerfile"], "copied\n"),
        (&["-C", &context], "copied\n"),
        // The file is found from the current folder, what it copies from the context.
        (&["-f", "other/Dockerfile", "-C", "."], "copied\n"),
        (
            &["-f", "other/Dockerfile", "--pids-limit", "20", "--", "cat", "/sys/fs/cgroup/pids/pids.max", "/other"],
            "20\ncopied\n",
        ),
    ] {
        let said = run(arguments);
        let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let out = if unified && out.starts_with("20") { "copied\n" } else { out };
        assert_eq!(said.out, out, "{arguments:?}: {said:?}");
    }
    assert_eq!(run(&["-f", "Dockerfile", "--", "sh", "-c", "exit 7"]).code, 7);
    assert_eq!(run(&["-f", "no-such-file"]).code, 125);
    store.file("Dockerfile", "FROM base\nRUN exit 3\n");
    assert_eq!(run(&["-f", "Dockerfile"]).code, 125, "3 would be the command's");
}

/// What the original does: build, export, run from the folder.
#[test]
fn an_exported_file_system_runs_from_its_folder() {
    let store = Builder::new();
    store.file("app.sh", "echo Hello from $(hostname)!\n");
    store.file("Dockerfile", "FROM base\nCOPY app.sh /app/\n");
    let hull = |arguments: &[&str]| {
        let mut command = store.command(arguments);
        store.said(command.current_dir(store.corner().path()).output().unwrap())
    };
    // A second time into the folder that is there by then.
    for _ in 0..2 {
        let said = hull(&["build", "-f", "context/Dockerfile", "-t", "made", "-o", "./exported", "-C", "context"]);
        assert_eq!(said.code, 0, "{said:?}");
    }
    let run = ["run", "--rm", "--rootfs", "exported", "--hostname", "container", "--", "sh", "/app/app.sh"];
    assert_eq!(hull(&run).out, "Hello from container!\n");
    assert_eq!(hull(&["run", "--rm", "made", "ls", "/app"]).out, "app.sh\n");
}

#[test]
fn a_file_that_is_no_dockerfile_is_named() {
    let store = Builder::new();
    store.file("empty", "").file("Dockerfile", "FROM base\n");
    fs::write(store.context().join("binary"), b"FROM base\nRUN \xff\xfe\n").unwrap();
    let context = store.context().to_string_lossy().into_owned();
    assert!(std::process::Command::new("mkfifo").arg(store.context().join("fifo")).status().unwrap().success());
    for (file, why) in [
        ("empty", "at least one FROM"),
        ("binary", "not UTF-8"),
        ("fifo", "not a regular file"),
        ("", "not a regular file"),
        ("no-such-file", "No such file"),
    ] {
        let path = store.context().join(file).to_string_lossy().into_owned();
        let said = store.hull(&["build", "-f", &path, "-t", "made", &context]);
        assert_eq!(said.code, 1, "{file}: {said:?}");
        assert!(said.err.contains(why) && said.err.contains(file), "{file}: {said:?}");
    }
    let said = store.hull(&["build", "-t", "made", &store.context().join("no-such-folder").to_string_lossy()]);
    assert!(said.code == 1 && said.err.contains("no-such-folder"), "{said:?}");
}

#[test]
fn the_store_is_asked_before_any_registry() {
    use hull_tests::scripted::{Answer, Scripted};
    let store = Builder::new();
    let registry = Scripted::new(|_| Answer::status(500));
    let name = format!("{}/base:1", registry.address());
    assert_eq!(store.hull(&["import", &store.archive().to_string_lossy(), &name]).code, 0);
    let said = store.hull(&["run", "--rm", "--tls-verify=false", &name, "sh", "-c", "echo local"]);
    assert_eq!((said.code, said.out.as_str()), (0, "local\n"), "{said:?}");
    assert!(registry.asked().is_empty());
    let always = store.hull(&["run", "--rm", "--tls-verify=false", "--pull", "always", &name, "true"]);
    assert!(always.code == 125 && !registry.asked().is_empty(), "it would have been asked: {always:?}");
}

#[test]
fn an_image_without_layers_runs_what_is_mounted_into_it() {
    let store = Builder::new();
    let said = store.build("FROM scratch\nLABEL a=b\n");
    assert_eq!(said.code, 0, "{said:?}");
    let lost = store.hull(&["run", "--rm", "made", "/nothing"]);
    assert_eq!(lost.code, 127, "{lost:?}");
    let ran =
        store.hull(&["run", "--rm", "-v", "/bin/busybox:/bin/busybox:ro", "made", "/bin/busybox", "ls", "/bin"]);
    assert_eq!((ran.code, &*ran.out), (0, "busybox\n"), "{ran:?}");
    let folder = store.corner().path().join("exported");
    let said = store.build_with(&["-o", &folder.to_string_lossy()], "FROM scratch\nLABEL a=b\n");
    assert_eq!((said.code, entries(&folder)), (0, Vec::new()), "{said:?}");
}

#[test]
fn a_file_that_a_stage_deleted_is_not_copied_from_it_nor_exported() {
    let store = Builder::new();
    let folder = store.corner().path().join("exported");
    let said = store.build_with(
        &["-o", &folder.to_string_lossy()],
        "FROM base AS one\nRUN echo 1 > /etc/one; echo 2 > /etc/two\nRUN busybox rm /etc/one\n\
         FROM scratch\nCOPY --from=one /etc /e\n",
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(entries(&folder.join("e")), ["two"]);
}

#[test]
fn layers_that_a_build_without_the_cache_replaced_are_removed_unless_something_uses_them() {
    let store = Builder::new();
    let text = "FROM base AS one\nRUN echo 1 > /one\nFROM base\nCOPY --from=one /one /one\nRUN echo 2 > /two\n";
    assert_eq!(store.build(text).code, 0);
    let layers = || entries(&store.root().join("layers")).len();
    let first = layers();
    // Three images: the second and third take the name from the one before, which is still listed.
    for count in [2, 3] {
        assert_eq!(store.build_with(&["--no-cache"], text).code, 0);
        let check = store.hull(&["system", "check"]);
        assert_eq!((check.code, &*check.out), (0, ""), "after {count} builds");
    }
    // The stage that only gave a file is replaced; each image's own two layers have a folder and a link each at most.
    assert!(layers() <= first + 8, "{first} layers became {}", layers());
    for id in store.hull(&["images", "-q"]).out.lines() {
        assert_eq!(store.hull(&["rmi", "-f", id]).code, 0);
    }
    assert_eq!(layers(), 3, "what the cache names");
    assert_eq!(store.hull(&["system", "check"]).code, 0);
}

/// With the store opened as every other command opens it, or the cache's folder made at once, this fails.
#[test]
fn a_plan_makes_no_store_and_nothing_in_one() {
    let corner = Corner::new();
    let context = corner.path().join("context");
    fs::create_dir(&context).unwrap();
    let plan = |dockerfile: &str| -> Said {
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        corner.hull().args(["build", "--dry-run"]).arg(&context).output().unwrap().into()
    };
    let said = plan("FROM scratch\nCOPY Dockerfile /\n");
    assert!(said.code == 0 && said.out.contains("run    copy"), "{said:?}");
    let said = plan("FROM base\n");
    assert!(said.code != 0 && said.err.contains("no image base") && said.err.contains("hull pull base"), "{said:?}");
    let said: Said = corner.hull().args(["run", "--dry-run", "base", "true"]).output().unwrap().into();
    assert!(said.code == 125 && said.err.contains("base"), "{said:?}");
    assert!(!corner.root().exists());

    let store = Builder::new();
    let before = entries(&store.root());
    store.file("Dockerfile", "FROM base\nRUN true\n");
    assert_eq!(store.hull(&["build", "--dry-run", &store.context().to_string_lossy()]).code, 0);
    assert_eq!(entries(&store.root()), before);
}
