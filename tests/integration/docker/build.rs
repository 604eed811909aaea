//! `docker build`: the classic builder, which starts containers as `run` does, and BuildKit, which calls the runc in PATH.

use std::fs;
use std::process::Stdio;

use hull_tests::checks::Checks;
use hull_tests::docker::Docker;
use hull_tests::{Corner, Said, eventually};

const DOCKERFILE: &str = "FROM base
ENV A=b
RUN echo built-$A > /made && test $(id -u) = 0
USER 1000
WORKDIR /work
COPY file /file
RUN cat /file; id -u; test -w /work || echo not mine
CMD [\"cat\", \"/made\", \"/file\"]
";

fn build(docker: &Docker, corner: &Corner, kit: &str, dockerfile: &str) -> Said {
    let context = corner.path().join("context");
    fs::create_dir_all(&context).unwrap();
    fs::write(context.join("file"), "file\n").unwrap();
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let context = context.to_string_lossy().into_owned();
    let mut build = docker.command(&["build", "--no-cache", "-t", "built", &context]);
    build.env("DOCKER_BUILDKIT", kit).env("BUILDKIT_PROGRESS", "plain").output().unwrap().into()
}

pub fn all(docker: &Docker, corner: &Corner, checks: &mut Checks) {
    for (name, kit) in [("the classic builder", "0"), ("BuildKit", "1")] {
        checks.check(name, || {
            let said = build(docker, corner, kit, DOCKERFILE);
            let told = said.out.clone() + &said.err;
            assert!(said.code == 0 && told.contains("1000") && told.contains("not mine"), "{said:?}");
            assert_eq!(docker.ok(&["run", "--rm", "built"]), "built-b\nfile\n");
        });
        checks.check(&format!("{name}: a step that fails"), || {
            let said = build(docker, corner, kit, "FROM base\nRUN echo before; exit 7\n");
            assert!(said.code != 0 && said.err.contains('7'), "{said:?}");
        });
    }
    checks.check("BuildKit: a build that is given up ends its step", || {
        let context = corner.path().join("context");
        fs::write(context.join("Dockerfile"), "FROM base\nRUN echo begun; sleep 4321\n").unwrap();
        let mut build = docker.command(&["build", &context.to_string_lossy()]);
        build.env("DOCKER_BUILDKIT", "1").stdout(Stdio::null()).stderr(Stdio::null());
        let mut client = build.spawn().unwrap();
        let runs = || docker.world.groups().iter().any(|name| name.starts_with("/buildkit/"));
        eventually("the step runs", runs);
        client.kill().unwrap();
        client.wait().unwrap();
        eventually("its group is gone", || !runs());
    });
}
