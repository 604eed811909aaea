//! `hull ps`, `hull rm`, names, and what stays of a container that ran without `--rm`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_tests::{Corner, Said, entries, eventually, hull_groups};

fn hull(corner: &Corner, arguments: &[&str]) -> Said {
    corner.hull().args(arguments).output().unwrap().into()
}

/// A corner in which busybox is the image `base`.
fn with_image() -> Corner {
    let corner = Corner::new();
    let archive = corner.path().join("base.tar");
    let tar = Command::new("tar").arg("-C").arg(corner.rootfs()).arg("-cf").arg(&archive).arg(".").status();
    assert!(tar.unwrap().success());
    assert_eq!(hull(&corner, &["import", &archive.to_string_lossy(), "base"]).code, 0);
    corner
}

/// A container that sleeps, killed at the latest when this goes.
struct Sleeper(Child);

impl Sleeper {
    fn start(corner: &Corner, flags: &[&str]) -> Self {
        let mut command = corner.hull();
        command.arg("run").args(flags).args(["base", "sh", "-c", "echo up; exec sleep 1000"]);
        let mut child = Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        child
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Fails only where it has been killed and reaped already.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn ids(corner: &Corner, flags: &[&str]) -> Vec<String> {
    let said = hull(corner, &[&["ps", "-q", "--no-trunc"], flags].concat());
    assert_eq!(said.code, 0, "{said:?}");
    said.out.lines().map(str::to_owned).collect()
}

fn lasting(corner: &Corner) -> Vec<String> {
    entries(&corner.path().join("store/containers"))
}

#[test]
fn what_ran_without_rm_is_listed_until_it_is_removed() {
    let corner = with_image();
    assert_eq!(hull(&corner, &["run", "--name", "one", "base", "sh", "-c", "echo x > /made; exit 3"]).code, 3);
    assert_eq!(ids(&corner, &[]), [""; 0], "only -a lists it");
    let listed = hull(&corner, &["ps", "-a"]);
    let row = listed.out.lines().nth(1).unwrap();
    assert!(row.contains("base") && row.contains("Exited (3)") && row.ends_with("one"), "{row}");
    let id = ids(&corner, &["-a"]).remove(0);
    let made = corner.path().join("store/containers").join(&id).join("diff/made");
    assert_eq!(fs::read_to_string(made).unwrap(), "x\n", "its layer is kept");

    let refused = hull(&corner, &["rmi", "base"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("container") && refused.err.contains("one"), "{refused:?}");
    let again = hull(&corner, &["run", "--rm", "--name", "one", "base", "true"]);
    assert_eq!(again.code, 125);
    assert!(again.err.contains("already in use"), "{again:?}");

    assert_eq!(hull(&corner, &["rm", &id[..5]]).code, 0, "by the beginning of its id");
    assert_eq!((ids(&corner, &["-a"]), lasting(&corner)), (vec![], vec![]));
    assert_eq!(hull(&corner, &["run", "--rm", "--name", "one", "base", "true"]).code, 0, "the name is free");
    assert_eq!(hull(&corner, &["rmi", "base"]).code, 0);
    corner.assert_clean();
}

#[test]
fn a_running_container_is_removed_only_by_force() {
    let corner = with_image();
    for flags in [&["--name", "web"][..], &["--name", "web", "--rm"]] {
        let mut sleeper = Sleeper::start(&corner, flags);
        let refused = hull(&corner, &["rm", "web"]);
        assert_eq!(refused.code, 1);
        assert!(refused.err.contains("running"), "{refused:?}");
        assert_eq!(hull(&corner, &["rmi", "-f", "base"]).code, 1, "its image stays");
        let removed = hull(&corner, &["rm", "-f", "web"]);
        assert_eq!((removed.code, removed.out.as_str()), (0, "web\n"), "{removed:?}");
        assert_eq!(sleeper.0.wait().unwrap().code(), Some(137), "killed");
        assert_eq!((ids(&corner, &["-a"]), lasting(&corner)), (vec![], vec![]));
        corner.assert_clean();
    }
}

#[test]
fn rm_finds_the_groups_from_another_place_in_the_tree_of_groups() {
    let corner = with_image();
    let mut sleeper = Sleeper::start(&corner, &["--name", "web"]);
    // Another parent in every hierarchy of the machine.
    let parents: Vec<PathBuf> = hull_groups()
        .iter()
        .filter(|path| path.ends_with(format!("hull-{}", ids(&corner, &[])[0])))
        .map(|path| path.with_file_name(format!("elsewhere-{}", std::process::id())))
        .collect();
    assert!(!parents.is_empty());
    let mut script = String::new();
    for parent in &parents {
        let leaf = parent.join("leaf");
        fs::create_dir_all(&leaf).unwrap();
        // A v1 cpuset takes no process before it has processors.
        script += &format!("echo $$ > {}/cgroup.procs || exit 9\n", leaf.display());
    }
    script += &format!("exec {} rm -f web\n", hull_tests::hull_bin().display());
    let environment = corner.hull();
    let mut command = Command::new("sh");
    environment.get_envs().for_each(|(name, value)| _ = command.env(name, value.unwrap()));
    let said: Said = command.arg("-c").arg(script).output().unwrap().into();
    for parent in &parents {
        fs::remove_dir(parent.join("leaf")).and_then(|()| fs::remove_dir(parent)).unwrap();
    }
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(sleeper.0.wait().unwrap().code(), Some(137));
    corner.assert_clean();
}

#[test]
fn a_killed_hull_leaves_an_unknown_status_and_never_zero() {
    let corner = with_image();
    let mut sleeper = Sleeper::start(&corner, &["--name", "web"]);
    let id = ids(&corner, &[]).remove(0);
    sleeper.kill();
    let listed = hull(&corner, &["ps", "-a"]);
    assert!(listed.out.contains("Exited (unknown)"), "{listed:?}");
    assert_eq!(hull(&corner, &["system", "check", "--repair"]).code, 0);
    assert_eq!(lasting(&corner), std::slice::from_ref(&id), "a repair takes no container away");
    assert!(hull(&corner, &["ps", "-a"]).out.contains("Exited (unknown)"));
    assert_eq!(hull(&corner, &["rm", "web"]).code, 0, "a second force is not needed");
    assert_eq!(hull(&corner, &["system", "check"]).code, 0);
    assert!(!hull_groups().iter().any(|group| group.ends_with(format!("hull-{id}"))));
    corner.assert_clean();
}

#[test]
fn a_name_is_free_again_when_its_passing_container_was_killed() {
    let corner = with_image();
    let mut sleeper = Sleeper::start(&corner, &["--name", "web", "--rm"]);
    sleeper.kill();
    let again = hull(&corner, &["run", "--rm", "--name", "web", "base", "true"]);
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(hull(&corner, &["system", "check", "--repair"]).code, 0);
    corner.assert_clean();
}

#[test]
fn names_come_back_after_a_reboot() {
    let corner = with_image();
    assert_eq!(hull(&corner, &["run", "--name", "one", "base", "true"]).code, 0);
    // What a reboot does to a tmpfs.
    fs::remove_dir_all(corner.runroot()).unwrap();
    let taken = hull(&corner, &["run", "--rm", "--name", "one", "base", "true"]);
    assert!(taken.code == 125 && taken.err.contains("already in use"), "{taken:?}");
    assert_eq!(hull(&corner, &["rm", "one"]).code, 0);
    assert_eq!(hull(&corner, &["rm", "one"]).code, 1, "it is gone");
}

#[test]
fn what_fails_before_it_runs_leaves_no_container() {
    let corner = with_image();
    for (flags, code) in [
        (&["base", "not-there"][..], 127),
        (&["base", "/etc"], 126),
        (&["--user", "nobody-here", "base", "true"], 125),
        (&["-v", "/no/such:/x", "base", "true"], 125),
        (&["--cpuset-cpus", "4000", "base", "true"], 125),
        (&["--name", "-x", "base", "true"], 125),
        (&["no-such-image", "true"], 125),
    ] {
        let said = hull(&corner, &[&["run"], flags].concat());
        assert_eq!(said.code, code, "{flags:?}: {said:?}");
        assert_eq!((ids(&corner, &["-a"]), lasting(&corner)), (vec![], vec![]), "{flags:?}");
        assert_eq!(entries(&corner.runroot().join("names")), [""; 0], "{flags:?}");
        corner.assert_clean();
    }
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_container_or_none() {
    let corner = with_image();
    for delay in (0..40).map(|step| Duration::from_micros(step * 400)) {
        let mut command = corner.hull();
        let mut child = command
            .args(["run", "base", "sleep", "1000"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
        let repaired = hull(&corner, &["system", "check", "--repair"]);
        assert_eq!(repaired.code, 0, "{repaired:?}");
        let known = ids(&corner, &["-a"]);
        assert_eq!(known, lasting(&corner), "what is there has a record");
        for id in known {
            assert_eq!(hull(&corner, &["rm", &id]).code, 0);
        }
    }
    assert_eq!(hull(&corner, &["system", "check"]).code, 0);
    corner.assert_clean();
}

#[test]
fn a_group_whose_runtime_state_is_gone_is_found_by_its_lock() {
    let corner = with_image();
    let mut sleeper = Sleeper::start(&corner, &["--rm"]);
    let name = format!("hull-{}", ids(&corner, &[])[0]);
    let groups = || hull_groups().into_iter().filter(|path| path.ends_with(&name)).collect::<Vec<_>>();
    let age = |path: &PathBuf| Command::new("touch").args(["-d", "1 hour ago"]).arg(path).status().unwrap().success();
    assert!(groups().iter().all(age));
    let living = hull(&corner, &["system", "check"]);
    assert!(!living.out.contains(&name), "a living one is nobody's leftover: {living:?}");
    sleeper.kill();
    fs::remove_dir_all(corner.runroot()).unwrap();
    // Another test's repair may be the one that finds it.
    let found = || hull(&corner, &["system", "check"]).out.contains(&name) || groups().is_empty();
    eventually("the dying process lets go", found);
    let repaired = hull(&corner, &["system", "check", "--repair"]);
    assert_eq!(repaired.code, 0, "{repaired:?}");
    assert!(groups().is_empty());
}

#[test]
fn what_an_image_has_in_the_way_of_etc_is_covered_and_stays_in_the_image() {
    let corner = with_image();
    let image = |name: &str, line: &str| {
        let context = corner.path().join(name);
        fs::create_dir(&context).unwrap();
        fs::write(context.join("file"), "").unwrap();
        fs::write(context.join("Dockerfile"), format!("FROM base\n{line}\n")).unwrap();
        let said = hull(&corner, &["build", "-q", "-t", name, &context.to_string_lossy()]);
        assert_eq!(said.code, 0, "{said:?}");
    };
    image("folders", "COPY file /etc/hosts/x/file\nCOPY file /etc/resolv.conf/file");
    fs::remove_dir(corner.rootfs().join("etc")).unwrap();
    fs::write(corner.rootfs().join("etc"), "a file").unwrap();
    let archive = corner.path().join("no-etc.tar");
    let tar = Command::new("tar").arg("-C").arg(corner.rootfs()).arg("-cf").arg(&archive).arg(".").status();
    assert!(tar.unwrap().success());
    assert_eq!(hull(&corner, &["import", &archive.to_string_lossy(), "file"]).code, 0);

    for name in ["folders", "file"] {
        for flags in [&["--rm"][..], &["--rm", "--read-only"], &["--name", name]] {
            let arguments = [&["run"], flags, &[name, "sh", "-c", "cat /etc/hosts /etc/hostname /etc/resolv.conf"]];
            let said = hull(&corner, &arguments.concat());
            assert!(said.code == 0 && said.out.contains("localhost"), "{name} {flags:?}: {said:?}");
        }
        assert_eq!(hull(&corner, &["rm", name]).code, 0);
    }
    // A folder is the user's own: nothing of it is taken away.
    fs::remove_file(corner.rootfs().join("etc")).unwrap();
    fs::create_dir_all(corner.rootfs().join("etc/hosts/x")).unwrap();
    let said = corner.run(&[], &["true"]);
    assert!(said.code == 125 && said.err.contains("/etc/hosts: the source is a file"), "{said:?}");
    assert!(corner.rootfs().join("etc/hosts/x").exists());
}
