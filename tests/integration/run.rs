//! `hull run`: flags, environment, streams, exit statuses.

use std::io::Write;
use std::process::Stdio;

use hull_tests::Corner;

#[test]
fn the_exit_status_is_the_commands_own_or_128_and_the_signal() {
    let corner = Corner::new();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$; sleep 5", 137)] {
        // PID 1 ignores signals from inside without a handler, so the last one goes to a child.
        let script = if code == 137 { "sh -c 'kill -9 $$'; exit $?" } else { script };
        assert_eq!(corner.shell(&[], script).code, code, "{script}");
    }
}

#[test]
fn the_environment_is_the_defaults_and_what_was_given() {
    let corner = Corner::new();
    let mut command =
        corner.run_command(&["-e", "A=1", "-e", "FROM_HOST", "-e", "NOT_THERE", "--hostname", "box"], &["env"]);
    let said = command.env("FROM_HOST", "yes").env("SECRET", "no").output().unwrap();
    let out = String::from_utf8_lossy(&said.stdout).into_owned();
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines, ["A=1", "FROM_HOST=yes", "HOME=/", "HOSTNAME=box", path, "TERM=xterm"]);
}

#[test]
fn variables_come_from_files_and_nearer_words_win() {
    let corner = Corner::new();
    let file = corner.path().join("variables");
    std::fs::write(&file, "# not this\n\nA=1\n  B= 2 \nFROM_HOST\nD=\"q\"\r\n").unwrap();
    let path = file.to_string_lossy().into_owned();
    let mut command = corner.run_command(&["--env-file", &path, "-e", "A=3"], &["env"]);
    let out = String::from_utf8(command.env("FROM_HOST", "yes").output().unwrap().stdout).unwrap();
    for line in ["A=3", "B= 2 ", "FROM_HOST=yes", "D=\"q\""] {
        assert!(out.lines().any(|known| known == line), "{line}: {out}");
    }
    std::fs::write(&file, "A B=1\n").unwrap();
    let said = corner.run(&["--env-file", &path], &["env"]);
    assert!(said.code == 125 && said.err.contains("\"A B\"") && said.err.contains(&path), "{said:?}");
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"\xff");
    let said = hull_tests::Said::from(corner.run_command(&["-e", "ODD"], &["env"]).env("ODD", odd).output().unwrap());
    assert!(said.code == 125 && said.err.contains("ODD"), "never silently without it: {said:?}");
}

#[test]
fn a_mount_can_be_written_in_each_of_dockers_ways() {
    let corner = Corner::new();
    let shared = corner.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("file"), "here\n").unwrap();
    let path = shared.to_string_lossy();
    for (flag, value, writable) in [
        ("-v", format!("{path}:/d"), true),
        ("-v", format!("{path}:/d:rw"), true),
        ("-v", "./shared:/d:ro".to_owned(), false),
        ("--mount", format!("type=bind,source={path},target=/d"), true),
        ("--mount", format!("type=bind,src={path},dst=/d,ro"), false),
        ("--mount", format!("type=bind,source={path},destination=/d,readonly=true"), false),
    ] {
        let mut command =
            corner.run_command(&[flag, &value], &["sh", "-c", "cat /d/file; touch /d/new && echo written"]);
        let said = hull_tests::Said::from(command.current_dir(corner.path()).output().unwrap());
        let expected = if writable { "here\nwritten\n" } else { "here\n" };
        assert_eq!(said.out, expected, "{flag} {value}: {said:?}");
    }
    let said =
        corner.shell(&["--mount", "type=tmpfs,target=/d,tmpfs-size=1m,tmpfs-mode=1770"], "grep ' /d ' /proc/mounts");
    assert!(said.out.contains("size=1024k,mode=1770") && said.out.contains("noexec"), "{said:?}");
}

#[test]
fn standard_input_is_null_unless_asked_for() {
    let corner = Corner::new();
    for (flags, expected) in [(&[][..], ""), (&["-i"][..], "hello\n")] {
        let mut command = corner.run_command(flags, &["cat"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Without -i nobody reads, and the pipe may be closed already.
        let _ = child.stdin.take().unwrap().write_all(b"hello\n");
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}

#[test]
fn the_user_is_looked_up_in_the_root_and_has_no_capability() {
    let corner = Corner::new();
    std::fs::write(corner.rootfs().join("etc/passwd"), "web:x:1000:1001::/srv:/bin/sh\n1000:x:0:0::/:/bin/sh\n")
        .unwrap();
    std::fs::write(corner.rootfs().join("etc/group"), "web:x:1001:\naudio:x:29:web\n").unwrap();
    for (user, expected) in [
        ("web", "1000 1001"),
        ("1000", "1000 1001"),
        ("web:", "1000 1001"),
        ("web:audio", "1000 29"),
        ("4000", "4000 0"),
        ("4000:29", "4000 29"),
        (":29", "0 29"),
    ] {
        let said = corner
            .shell(&["--user", user], "echo $(id -u) $(id -g); grep -E 'Cap(Eff|Prm|Inh|Amb)' /proc/self/status");
        let mut lines = said.out.lines();
        assert_eq!(lines.next(), Some(expected), "{user}: {}", said.err);
        assert!(expected.starts_with("0 ") || lines.all(|line| line.ends_with("0000000000000000")), "{}", said.out);
    }
}

#[test]
fn no_signal_is_ignored_or_blocked_whatever_the_caller_had() {
    let corner = Corner::new();
    let script = "trap '' INT PIPE USR1; exec \"$@\"";
    let run = corner.run_command(&[], &["cat", "/proc/self/status"]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(run.get_program()).args(run.get_args()).envs(corner.env());
    let said = hull_tests::Said::from(shell.output().unwrap());
    for set in ["SigIgn", "SigBlk"] {
        assert!(said.out.contains(&format!("{set}:\t0000000000000000")), "{said:?}");
    }
}

#[test]
fn volumes_are_bound_and_ro_is_read_only() {
    let corner = Corner::new();
    let shared = corner.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let source = shared.to_string_lossy();
    let said = corner.shell(&["-v", &format!("{source}:/data")], "echo one > /data/file");
    assert_eq!((said.code, std::fs::read_to_string(shared.join("file")).unwrap().as_str()), (0, "one\n"));
    let said = corner.shell(&["-v", &format!("{source}:/data:ro")], "cat /data/file; echo two > /data/file");
    assert!(said.out.starts_with("one") && said.err.contains("Read-only file system"), "{said:?}");
}

#[test]
fn scratch_and_a_read_only_root() {
    let corner = Corner::new();
    let said = corner.shell(&["--read-only", "--tmpfs", "/mytemp:size=1m"], "touch /mytemp/x && echo ok; touch /x");
    assert!(said.out.starts_with("ok") && said.err.contains("Read-only file system"), "{said:?}");
    assert!(!corner.rootfs().join("mytemp/x").exists());
}

#[test]
fn the_working_directory_is_made() {
    let corner = Corner::new();
    assert_eq!(corner.shell(&["-w", "/a/b"], "pwd").out, "/a/b\n");
}

#[test]
fn a_dry_run_prints_the_plan_and_does_nothing() {
    let corner = Corner::new();
    let said = corner.run(&["--dry-run", "--pids-limit", "20"], &["touch", "/made"]);
    assert!(said.out.contains("pids.max = 20") && said.out.contains("mount       /proc (proc)"), "{}", said.out);
    assert!(!corner.rootfs().join("made").exists());
}

#[test]
fn the_folders_of_state_are_made_for_root_alone() {
    let corner = Corner::new();
    let (state, store) = (corner.path().join("new/state"), corner.path().join("new/store"));
    let mut command = corner.run_command(&[], &["true"]);
    assert!(command.env("HULL_RUNROOT", &state).env("HULL_ROOT", &store).status().unwrap().success());
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&state).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(hull_tests::left::state(&state), [].into());
}

#[test]
fn help_is_an_answer_and_a_wrong_flag_a_mistake() {
    let corner = Corner::new();
    let hull = |arguments: &[&str]| hull_tests::Said::from(corner.hull().args(arguments).output().unwrap());
    let version = hull(&["version"]).out;
    assert!(version.starts_with("hull ") && hull(&["--version"]).out == version, "{version}");
    for asked in [&["--help"][..], &["run", "--help"], &["build", "--help"]] {
        let said = hull(asked);
        assert!(said.code == 0 && said.out.contains("Usage:") && said.err.is_empty(), "{asked:?}: {said:?}");
    }
    for wrong in [&[][..], &["no-such-verb"], &["images", "--no-such-flag"], &["rm"]] {
        let said = hull(wrong);
        assert!(said.code == 125 && said.out.is_empty() && said.err.starts_with("hull: "), "{wrong:?}: {said:?}");
    }
}

#[test]
fn the_host_name_is_the_short_id_unless_it_was_given() {
    let corner = Corner::new();
    let said = corner.shell(&[], "hostname; echo $HOSTNAME; cat /etc/hostname; grep -c \"$HOSTNAME\" /etc/hosts");
    let lines: Vec<&str> = said.out.lines().collect();
    let id = lines[0];
    assert!(id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{said:?}");
    assert_eq!(lines, [id, id, id, "1"]);
    assert_eq!(corner.shell(&["-h", "box"], "hostname; cat /etc/hostname").out, "box\nbox\n");
    assert_eq!(corner.shell(&["-h", ""], "hostname").out.len(), 13);
}

#[test]
fn what_is_written_to_a_folder_as_root_stays_there_and_what_the_container_got_does_not() {
    let corner = Corner::new();
    let mut command = corner.hull();
    command.arg("run-rootfs").arg("--rm").arg("--rootfs").arg(corner.rootfs());
    let said = hull_tests::Said::from(command.args(["sh", "-c", "echo here > /made; ls /etc"]).output().unwrap());
    assert_eq!((said.code, said.out.as_str()), (0, "hostname\nhosts\nresolv.conf\n"), "{said:?}");
    assert_eq!(std::fs::read_to_string(corner.rootfs().join("made")).unwrap(), "here\n");
    for file in ["hosts", "hostname", "resolv.conf"] {
        let left = std::fs::read_to_string(corner.rootfs().join("etc").join(file)).unwrap_or_default();
        assert_eq!(left, "", "only the mount had a text: {file}");
    }
}

#[test]
fn without_root_every_verb_says_what_is_missing() {
    use std::os::unix::fs::PermissionsExt;
    let corner = Corner::new();
    let program = corner.path().join("hull");
    std::fs::copy(hull_tests::hull_bin(), &program).unwrap();
    std::fs::set_permissions(corner.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let rootfs = corner.rootfs().to_string_lossy().into_owned();
    for arguments in [
        &["run", "--rootfs", &rootfs, "--", "true"][..],
        &["run", "image"],
        &["build", "."],
        &["demo"],
        &["images"],
        &["import", "x.tar", "x"],
        &["ps", "-a"],
        &["rm", "x"],
        &["rmi", "x"],
        &["info"],
        &["system", "check"],
    ] {
        let mut nobody = std::process::Command::new("setpriv");
        nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program).args(arguments);
        let said = hull_tests::Said::from(nobody.envs(corner.env()).output().unwrap());
        assert_eq!(said.code, 125, "{arguments:?}: {said:?}");
        assert!(said.err.contains("hull needs root") && said.err.contains("hint: "), "{arguments:?}: {said:?}");
    }
}
