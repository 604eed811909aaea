//! What create, run and exec are told by flags and environment rather than by the bundle: descriptors, root, keyring, orphans.

use std::fs;
use std::process::{Command, Stdio};

use hull_tests::Said;
use hull_tests::bundle::Bundle;
use serde_json::json;

/// Runs `hull-oci ARGUMENTS` from a shell that opens 3 and 4 first, and has `more` in its environment.
fn with_descriptors(bundle: &Bundle, more: &str, arguments: &str) -> Said {
    let program = bundle.corner.path().join("hull-oci");
    let root = bundle.root();
    let script = format!(
        "exec 3</etc/hostname 4</etc/passwd 9</etc/group; export {more}; exec {} --root {} {arguments}",
        program.display(),
        root.display()
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(bundle.corner.path()).stdin(Stdio::null());
    shell.output().unwrap().into()
}

const LIST: &str = "for f in /proc/self/fd/*; do readlink $f; done | grep -v '^/proc\\|pipe:\\|/dev/null'; \
                    echo fds=$LISTEN_FDS pid=$LISTEN_PID";

fn bundle(script: &str) -> Bundle {
    let bundle = Bundle::new(script);
    std::os::unix::fs::symlink("busybox", bundle.corner.rootfs().join("bin/readlink")).unwrap();
    bundle
}

/// A10, with a mutant: without the mark at the very beginning the hook sees 3, 4 and 9; without the one before the exec the
/// command does.
#[test]
fn a10_the_descriptors_that_are_counted_and_no_others_reach_the_command_and_none_a_hook() {
    let bundle = bundle(LIST);
    let seen = bundle.corner.path().join("seen");
    let hook = format!("ls -l /proc/self/fd > {}", seen.display());
    bundle.change(|spec| {
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", hook]}]);
        spec["hooks"] = json!({"createRuntime": hook, "createContainer": hook});
    });
    let run = |more: &str, flags: &str| with_descriptors(&bundle, more, &format!("run {flags} {}", bundle.id("fds")));
    assert_eq!(run("A=b", "").out, "fds= pid=\n");
    assert_eq!(run("A=b", "--preserve-fds 1").out, "/etc/hostname\nfds= pid=\n");
    assert_eq!(run("A=b", "--preserve-fds 2").out, "/etc/hostname\n/etc/passwd\nfds= pid=\n");
    // Those of socket activation come first, and only if they are meant for this process.
    assert_eq!(run("LISTEN_FDS=1 LISTEN_PID=$$", "").out, "/etc/hostname\nfds=1 pid=1\n");
    let both = run("LISTEN_FDS=1 LISTEN_PID=$$", "--preserve-fds 1");
    assert_eq!(both.out, "/etc/hostname\n/etc/passwd\nfds=1 pid=1\n", "{both:?}");
    assert_eq!(run("LISTEN_FDS=1 LISTEN_PID=1", "").out, "fds= pid=\n");
    let missing = run("A=b", "--preserve-fds 3");
    assert!(missing.code == 1 && missing.err.contains("unable to stat preserved-fd 2 (of 3)"), "{missing:?}");
    let seen = fs::read_to_string(seen).unwrap();
    assert!(!seen.contains("/etc/"), "{seen}");
}

#[test]
fn an_exec_passes_on_what_is_counted() {
    let bundle = bundle("exec sleep 1000");
    let id = bundle.id("fds");
    bundle.start(&id);
    let exec = |flags: &str| {
        let words = LIST.replace('\'', "'\\''");
        with_descriptors(&bundle, "LISTEN_FDS=1 LISTEN_PID=$$", &format!("exec {flags} {id} sh -c '{words}'"))
    };
    assert_eq!(exec("").out, "fds= pid=\n");
    assert_eq!(exec("--preserve-fds 2").out, "/etc/hostname\n/etc/passwd\nfds= pid=\n");
    let missing = exec("--preserve-fds 3");
    assert!(missing.code == 255 && missing.err.contains("unable to stat preserved-fd 2 (of 3)"), "{missing:?}");
    bundle.ok(&["delete", "--force", &id]);
}

/// What is left below is still in the mount namespace. With a whole procfs among it every user namespace in the container
/// could mount one of its own, without the container's masks: shown with `stay_on_top` that leaves the host's in place.
#[test]
fn without_pivot_root_the_root_is_the_containers_and_the_hosts_views_are_gone() {
    let reveal = "unshare -U -r -m -p -f mount -t proc proc /mnt && echo revealed";
    let bundle = bundle(&format!("cat /proc/self/mountinfo; ls -d /etc/shadow /../etc/shadow; {reveal}; echo done"));
    fs::create_dir(bundle.corner.rootfs().join("mnt")).unwrap();
    bundle.change(|spec| spec["process"]["user"] = json!({"uid": 1000, "gid": 1000}));
    fs::set_permissions(bundle.corner.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let table = |flags: &[&str]| {
        let said = bundle.oci(&[&["run"], flags, &[&bundle.id("pivot")]].concat());
        assert!(said.code == 0 && said.out.ends_with("done\n") && !said.out.contains("shadow"), "{said:?}");
        assert!(!said.out.contains("revealed") && said.err.contains("permission denied"), "{said:?}");
        let field = |line: &str| line.split(' ').nth(4).map(str::to_owned);
        said.out.lines().filter(|line| line.contains(" - ")).map(field).collect::<Vec<_>>()
    };
    assert_eq!(table(&["--no-pivot"]), table(&[]));
}

#[test]
fn the_session_keyring_is_the_containers_own_unless_it_is_not_to_be() {
    let bundle = bundle("grep _ses /proc/keys; true");
    bundle.change(|spec| spec["linux"]["maskedPaths"] = json!([]));
    let id = bundle.id("keys");
    let keyring = format!("_ses.{id}");
    let said = bundle.oci(&["run", &id]);
    assert!(said.out.contains(&keyring), "{said:?}");
    let log = |arguments: &[&str]| {
        let said = bundle.oci(&[&["--debug", "--log", "log"], arguments].concat());
        assert_eq!(said.code, 0, "{said:?}");
        let log = fs::read_to_string(bundle.corner.path().join("log")).unwrap();
        fs::remove_file(bundle.corner.path().join("log")).unwrap();
        log
    };
    assert!(!log(&["run", "--no-new-keyring", &id]).contains("keyctl"));
    bundle.change(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    for (flags, joins) in [(&[][..], true), (&["--no-new-keyring"], false)] {
        let mut run = bundle.command(&[&["run", "--detach"], flags, &[&id]].concat());
        assert!(run.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success());
        let log = log(&["exec", &id, "true"]);
        assert_eq!(log.contains("KEYCTL_JOIN_SESSION_KEYRING") && log.contains(&keyring), joins, "{log}");
        bundle.ok(&["delete", "--force", &id]);
    }
}

/// Without a PID namespace nobody in the container is the parent of orphans; a foreground run is, as runc's, and takes their
/// status, so that none stays a zombie.
#[test]
fn orphans_of_a_container_without_a_pid_namespace_are_runs_to_wait_for() {
    let script = "orphan=$(sh -c 'sleep 0.5 >/dev/null & echo $!'); \
                  grep PPid /proc/$orphan/status; echo hull $PPID; \
                  for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.2; test -e /proc/$orphan || { echo reaped; break; }; done";
    let bundle = bundle(script);
    std::os::unix::fs::symlink("busybox", bundle.corner.rootfs().join("bin/test")).unwrap();
    bundle.change(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    });
    let run = |flags: &[&str]| {
        let said = bundle.oci(&[&["run"], flags, &[&bundle.id("orphans")]].concat());
        assert_eq!(said.code, 0, "{said:?}");
        let number = |word: &str| {
            let line = said.out.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("{said:?}"));
            line[word.len()..].trim().to_owned()
        };
        (number("PPid:") == number("hull"), said.out.contains("reaped"))
    };
    assert_eq!(run(&[]), (true, true));
    assert!(!run(&["--no-subreaper"]).0);
}

#[test]
fn a_home_that_is_not_said_is_the_one_in_the_containers_passwd() {
    let bundle = bundle("echo $HOME-$A");
    fs::write(bundle.corner.rootfs().join("etc/passwd"), "web:x:33:33::/srv/web:/bin/sh\nbad:x:34:34::/a\tb:/\n")
        .unwrap();
    let run = |uid: u32, env: serde_json::Value| {
        bundle.change(|spec| {
            spec["process"]["user"] = json!({"uid": uid, "gid": uid});
            spec["process"]["env"] = env;
        });
        bundle.oci(&["run", &bundle.id("home")])
    };
    assert_eq!(run(33, json!(["PATH=/bin"])).out, "/srv/web-\n");
    assert_eq!(run(33, json!(["PATH=/bin", "HOME=", "A=1", "A=2"])).out, "/srv/web-2\n");
    assert_eq!(run(33, json!(["PATH=/bin", "HOME=/x"])).out, "/x-\n");
    assert_eq!(run(34, json!(["PATH=/bin"])).out, "/-\n");
    assert_eq!(run(0, json!(["PATH=/bin"])).out, "/-\n");
    fs::remove_file(bundle.corner.rootfs().join("etc/passwd")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bundle.corner.rootfs().join("etc/passwd"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    assert_eq!(run(33, json!(["PATH=/bin"])).out, "/-\n");
    let said = run(33, json!(["PATH=/bin", "NONE"]));
    assert!(said.code == 1 && said.err.contains("invalid environment variable"), "{said:?}");
}

#[test]
fn relative_paths_are_from_where_hull_is_called() {
    let bundle = bundle("echo ran");
    let above = bundle.corner.path().parent().unwrap();
    let name = bundle.corner.path().file_name().unwrap().to_str().unwrap();
    let file = |what: &str| format!("{name}/{what}");
    let mut run = Command::new(bundle.corner.path().join("hull-oci"));
    run.current_dir(above).args(["--root", &file("oci"), "--log", &file("log"), "--debug", "run"]);
    run.args(["--bundle", name, "--pid-file", &file("pid"), &bundle.id("relative")]);
    let said: Said = run.output().unwrap().into();
    assert_eq!((said.code, &*said.out), (0, "ran\n"), "{said:?}");
    for made in ["oci", "log", "pid"] {
        assert!(bundle.corner.path().join(made).exists(), "{made}");
    }
    assert_eq!(bundle.ok(&["list", "-q"]), "");
}
