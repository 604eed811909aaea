//! Images across tools: podman, buildah and umoci with runc and crun run what hull built, and hull runs what they built.
//!
//! Docker's half is in `registry_peers`, an image that umoci made in `store`.

use std::fs;
use std::path::Path;
use std::process::Command;

use hull_tests::podman::Podman;
use hull_tests::world::World;
use hull_tests::{Builder, Corner, Said, hull_bin};
use serde_json::Value;

/// Layers with what tools differ about: a deleted file, a replaced folder, a link, an owner, a mode; the command tells of it.
const DOCKERFILE: &str = "FROM base\nRUN echo one > /one; busybox mkdir /gone /turned; echo x > /turned/x; echo y > /gone/y\n\
    RUN busybox rm -r /gone /turned; echo file > /turned; busybox ln /one /hard; busybox chown 7:8 /one; busybox chmod 6711 /one\n\
    ENV WHO=hull\nWORKDIR /work\nUSER 1000:1000\n\
    CMD [\"sh\", \"-c\", \"busybox stat -c '%a %u:%g %h' /one; cat /turned; busybox test ! -e /gone; echo $? $WHO $PWD; busybox id -u\"]\n";
const TOLD: &str = "6711 7:8 2\nfile\n0 hull /work\n1000\n";

fn ok(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

fn tool(command: &mut Command) -> String {
    ok(command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: `make deps` installs it")).into())
}

fn built() -> Builder {
    let store = Builder::new();
    let said = store.build(DOCKERFILE);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(store.hull(&["run", "--rm", "made"]).out, TOLD);
    store
}

/// hull takes an archive in and runs it.
fn assert_runs(store: &Builder, archive: &Path, name: &str, told: &str) {
    ok(store.hull(&["load", "-i", &archive.to_string_lossy()]));
    assert_eq!(ok(store.hull(&["run", "--rm", name])), told, "{name}");
}

#[test]
fn podman_and_buildah_run_what_hull_built_and_hull_what_they_built() {
    let store = built();
    let corner = store.corner();
    let at = |name: &str| corner.path().join(name);
    // With Debian's runtime: it is the images that are tried here.
    // In a corner of its own, since its groups are there as long as it is.
    let theirs = Corner::new();
    let podman = Podman::new(theirs.path(), Path::new("/usr/sbin/runc"));
    let parent = podman.world.parent().to_owned();
    let run = |image: &str| podman.ok(&["run", "--rm", "--network", "none", "--cgroup-parent", &parent, image]);
    // A short name in Docker's archive is one of localhost's for podman.
    for (format, name) in [("docker-archive", "localhost/made"), ("oci-archive", "docker.io/library/made")] {
        let archive = at(format);
        ok(store.hull(&["save", "--format", format, "-o", &archive.to_string_lossy(), "made"]));
        podman.ok(&["load", "-q", "-i", &archive.to_string_lossy()]);
        assert_eq!(run(name), TOLD, "{format}");
    }

    // podman's own builds, in both of its formats.
    fs::create_dir(at("of-podman")).unwrap();
    fs::write(
        at("of-podman/Dockerfile"),
        "FROM docker.io/library/made\nUSER 0\nRUN busybox rm /turned; echo p > /turned\n",
    )
    .unwrap();
    let context = at("of-podman").to_string_lossy().into_owned();
    let group = format!("{parent}/build");
    for format in ["oci", "docker"] {
        let flags =
            ["--network", "none", "--cgroup-parent", &group, "--format", format, "-t", "docker.io/library/of-podman"];
        podman.ok(&[&["build", "-q"], &flags[..], &[&context]].concat());
        let archive = at(&format!("of-podman-{format}"));
        let kind = format!("{format}-archive");
        podman.ok(&[
            "save",
            "-q",
            "--format",
            &kind,
            "-o",
            &archive.to_string_lossy(),
            "docker.io/library/of-podman",
        ]);
        assert_runs(&store, &archive, "of-podman", &TOLD.replace("file", "p").replace("1000", "0"));
    }

    // buildah without a Dockerfile, from nothing.
    let buildah = |arguments: &[&str]| {
        let mut buildah = podman.world.command("buildah");
        buildah
            .arg("--root")
            .arg(at("buildah"))
            .arg("--runroot")
            .arg(at("buildah-run"))
            .args(["--storage-driver", "vfs"]);
        tool(buildah.args(arguments)).trim().to_owned()
    };
    let container = buildah(&["from", "scratch"]);
    buildah(&["copy", "-q", &container, &corner.rootfs().to_string_lossy(), "/"]);
    buildah(&["config", "--cmd", "[\"sh\",\"-c\",\"echo from buildah\"]", "--workingdir", "/tmp", &container]);
    let archive = at("of-buildah");
    buildah(&[
        "commit",
        "-q",
        &container,
        &format!("oci-archive:{}:docker.io/library/of-buildah:latest", archive.display()),
    ]);
    buildah(&["rm", &container]);
    assert_runs(&store, &archive, "of-buildah", "from buildah\n");
    podman.ok(&["rm", "-fa", "-t", "0"]);
}

#[test]
fn umoci_unpacks_what_hull_built_for_runc_crun_and_hull() {
    let store = built();
    let corner = store.corner();
    let bundle = corner.path().join("bundle");
    // The store itself is the layout.
    let image = format!("{}:docker.io/library/made:latest", store.root().display());
    tool(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle));
    let config = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    let theirs = Corner::new();
    let world = World::new(theirs.path());
    // crun refuses hosts where v2 has a controller beside v1; in a world of the test's own it need not see v2.
    let both = Path::new("/sys/fs/cgroup/unified");
    if both.exists() {
        tool(world.command("umount").arg(both));
    }
    spec["process"]["terminal"] = false.into();
    spec["linux"]["cgroupsPath"] = format!("{}/umoci", world.parent()).into();
    fs::write(&config, spec.to_string()).unwrap();
    let state = theirs.path().join("state");
    let hull = hull_bin().display().to_string();
    for (program, verb) in [("runc", &[][..]), ("crun", &[]), (&hull, &["oci"])] {
        let mut command = world.command(program);
        command.args(verb).arg("--root").arg(&state).args(["run", "--bundle"]).arg(&bundle).arg("umoci");
        assert_eq!(tool(&mut command), TOLD, "{program}");
    }
}
