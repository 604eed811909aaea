//! Debian's dockerd with hull as its default runtime, and as the runc that its BuildKit finds.

use std::fs;

use hull_tests::checks::Checks;
use hull_tests::docker::Docker;
use hull_tests::recorded::{Recorded, sorted};
use hull_tests::{Corner, entries};

mod build;
mod flags;
mod life;
mod swarm;

/// What dockerd's containerd and its BuildKit call hull with. A list that is too long is as wrong as one that is too
/// short: docs/compatibility.md says that peers use no more than this.
const CALLS: [&str; 15] = [
    "--log --log-format --root create --bundle --pid-file",
    "--log --log-format --root create --bundle --console-socket --pid-file",
    "--log --log-format --root start",
    "--log --log-format --root exec --detach --pid-file --process",
    "--log --log-format --root exec --console-socket --detach --pid-file --process",
    "--log --log-format --root pause",
    "--log --log-format --root resume",
    "--log --log-format --root update --resources",
    "--log --log-format --root ps --format",
    "--log --log-format --root kill 9",
    "--log --log-format --root kill 15",
    "--log --log-format --root kill --all 9",
    "--log --log-format --root delete",
    "--log --log-format --root delete --force",
    "--version",
];
const BUILDKIT: [&str; 2] = ["--log --log-format run --bundle", "--log --log-format kill 9"];

#[test]
fn dockerd_runs_builds_and_serves_with_hull_as_its_runtime() {
    let corner = Corner::new();
    let oci = Recorded::new(&corner.path().join("runtime"), "hull-oci");
    let runc = Recorded::new(&corner.path().join("bin"), "runc");
    let docker = Docker::with(
        corner.path(),
        |_| oci.program.clone(),
        |dockerd| {
            let path = std::env::var("PATH").unwrap();
            dockerd.env("PATH", format!("{}:{path}", corner.path().join("bin").display()));
        },
    );
    // BuildKit takes no user that the image does not know.
    fs::write(corner.rootfs().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n").unwrap();
    fs::write(corner.rootfs().join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
    docker.import(&corner.rootfs(), "base");
    let mut checks = Checks::default();
    life::all(&docker, &mut checks);
    flags::all(&docker, &mut checks);
    build::all(&docker, &corner, &mut checks);
    swarm::all(&docker, &mut checks);
    checks.check("calls are those that are known", || {
        assert_eq!(oci.shapes().into_iter().collect::<Vec<_>>(), sorted(&CALLS));
        assert_eq!(runc.shapes().into_iter().collect::<Vec<_>>(), sorted(&BUILDKIT));
    });
    checks.check("nothing is left", || nothing_is_left(&docker));
    checks.end();
}

/// Once the containers are removed there is no state and no group of theirs.
fn nothing_is_left(docker: &Docker) {
    let all = docker.ok(&["ps", "-aq"]);
    let all: Vec<&str> = all.lines().collect();
    if !all.is_empty() {
        docker.ok(&[&["rm", "-f"], &*all].concat());
    }
    for root in [docker.path("exec/runtime-runc/moby"), docker.world.path("/run/hull-oci")] {
        assert_eq!(entries(&root), [""; 0], "{}", root.display());
    }
    // Docker's own parents are not hull's to remove.
    let groups: Vec<String> = docker.world.groups().into_iter().filter(|name| name != "/buildkit").collect();
    assert_eq!(groups, [""; 0]);
}
