//! `kill -9` of a build or an import at any moment: one repair clears the rest, and the next one works.

use std::process::{Command, Stdio};
use std::time::Instant;

use hull_tests::{Builder, entries, eventually, hull_groups};

const STEPS: &str = "FROM base AS one\nWORKDIR /w\nCOPY files files\nRUN echo 1 > one; busybox usleep 20000\n\
                     FROM base\nCOPY --from=one /w /w\nRUN [\"/bin/busybox\", \"usleep\", \"20000\"]\nLABEL a=b\n";

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// Kills `command` at moments that are spread over the time that it takes, and has each rest repaired.
fn killed_everywhere(builder: &Builder, kills: u32, command: &[&str]) {
    let start = Instant::now();
    assert!(quiet(&mut builder.command(command)).status().unwrap().success());
    let whole = start.elapsed();
    let mut found = 0;
    for moment in 0..kills {
        let mut child = quiet(&mut builder.command(command)).spawn().unwrap();
        std::thread::sleep(whole * moment / kills);
        child.kill().unwrap();
        child.wait().unwrap();
        let told = builder.command(&["system", "check"]).output().unwrap();
        found += u32::from(told.status.code() == Some(1));
        let repaired = builder.hull(&["system", "check", "--repair"]);
        assert_eq!(repaired.code, 0, "after {:?}: {repaired:?}", whole * moment / kills);
        let clean = builder.hull(&["system", "check"]);
        assert_eq!((clean.code, &*clean.out), (0, ""), "after {:?}", whole * moment / kills);
    }
    assert!(found > kills / 8, "only {found} of {kills} kills left something: they came too early or too late");
}

#[test]
fn a_build_that_is_killed_at_any_moment_is_cleared_by_one_repair() {
    let builder = Builder::new();
    for number in 0..20 {
        builder.file(&format!("files/{number}"), &"x".repeat(1 << 12));
    }
    builder.file("Dockerfile", STEPS);
    let context = builder.context().to_string_lossy().into_owned();
    killed_everywhere(&builder, 30, &["build", "-q", "--no-cache", "-t", "made", &context]);
    assert_eq!(builder.build(STEPS).code, 0);
    assert_eq!(builder.shell("cat /w/one; ls /w/files | busybox wc -l").out, "1\n20\n");
}

#[test]
fn an_import_that_is_killed_at_any_moment_is_cleared_by_one_repair() {
    let builder = Builder::new();
    for number in 0..200 {
        std::fs::write(builder.corner().rootfs().join(format!("etc/{number}")), "x").unwrap();
    }
    let archive = builder.archive().to_string_lossy().into_owned();
    killed_everywhere(&builder, 20, &["import", &archive, "made"]);
    assert_eq!(builder.hull(&["run", "--rm", "made", "sh", "-c", "ls /etc | busybox wc -l"]).out.trim(), "203");
}

#[test]
fn what_a_killed_build_left_is_also_cleared_by_the_next_one() {
    let builder = Builder::new();
    builder.file("Dockerfile", "FROM base\nRUN sleep 1000\n");
    let context = builder.context().to_string_lossy().into_owned();
    let mut child = quiet(&mut builder.command(&["build", "-q", &context])).spawn().unwrap();
    let staging = builder.root().join("staging");
    let containers = builder.corner().runroot().join("containers");
    eventually("the step runs", || {
        let id = entries(&containers).pop();
        id.is_some_and(|id| hull_groups().iter().any(|group| group.ends_with(format!("hull-{id}"))))
    });
    let left = entries(&staging);
    assert_eq!(left.len(), 1, "{left:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    builder.file("Dockerfile", "FROM base\nRUN echo 1 > /one\n");
    let next = builder.command(&["build", "-q", "-t", "made", &context]).output().unwrap();
    assert!(next.status.success(), "{next:?}");
    assert_eq!(entries(&staging), [""; 0], "{left:?}");
    assert_eq!(builder.command(&["system", "check", "--repair"]).output().unwrap().status.code(), Some(0));
    assert_eq!(builder.shell("cat /one").out, "1\n");
}
