//! `hull build` gets the images that a Dockerfile names and the store lacks, as `hull run` gets its own.

use std::fs;

use hull_tests::registry::{Kind, PASSWORD, Registry, USER};
use hull_tests::{Builder, Corner, Said};

/// A registry with an image, and a store that has nothing of it but an image of its own.
struct Scene {
    registry: Registry,
    source: Builder,
    store: Builder,
}

impl Scene {
    fn new(kind: Kind) -> Self {
        let source = Builder::new();
        let registry = Registry::start(&source.corner().path().join("registry"), kind);
        let scene = Self { registry, source, store: Builder::new() };
        scene.publish("one");
        scene
    }

    fn name(&self) -> String {
        format!("{}/team/parts:latest", self.registry.address())
    }

    /// What the registry has under the name from now on.
    fn publish(&self, text: &str) {
        let said = self.source.build(&format!("FROM base\nRUN echo {text} > /part\n"));
        assert_eq!(said.code, 0, "{said:?}");
        let flags = ["push", "-q", "--tls-verify=false", "--creds", &format!("{USER}:{PASSWORD}")].map(str::to_owned);
        let mut push = self.source.command(&[]);
        push.args(flags).args(["made", &self.name()]).env("CONTAINERS_REGISTRIES_CONF", "/dev/null");
        let said = self.source.said(push.output().unwrap());
        assert_eq!(said.code, 0, "{said:?}");
    }

    fn build(&self, flags: &[&str], dockerfile: &str) -> Said {
        let context = self.store.context().to_string_lossy().into_owned();
        self.store.file("Dockerfile", dockerfile);
        let mut build = self.store.command(&[&["build", "-t", "made"], flags, &[&context]].concat());
        // No credentials, no configuration but the test's.
        build.env("CONTAINERS_REGISTRIES_CONF", "/dev/null").env("HOME", self.store.corner().path());
        self.store.said(build.output().unwrap())
    }

    fn part(&self) -> String {
        self.store.hull(&["run", "--rm", "made", "cat", "/part"]).out
    }

    fn asked(&self) -> usize {
        self.registry.log().matches("GET /v2/team/parts/manifests/").count()
    }
}

#[test]
fn a_missing_base_is_pulled_and_one_that_is_there_is_not_asked_for() {
    let scene = Scene::new(Kind::Plain);
    let from = format!("FROM {}\nRUN true\n", scene.name());
    let said = scene.build(&["--tls-verify=false"], &from);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.err.contains("latest: Pulling from team/parts") && said.err.contains("Pull complete"),
        "{}",
        said.err
    );
    assert_eq!(said.out.lines().count(), 1, "standard output is the image's id: {}", said.out);
    assert_eq!(scene.part(), "one\n");

    scene.publish("two");
    let before = scene.asked();
    let said = scene.build(&["--tls-verify=false"], &from);
    assert!(said.code == 0 && said.err.contains("CACHED"), "{said:?}");
    assert_eq!((scene.part(), scene.asked()), ("one\n".to_owned(), before));

    // --pull asks again, and what is built stands on what came.
    let said = scene.build(&["--tls-verify=false", "--pull", "-q"], &from);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    assert_eq!(scene.part(), "two\n");
    assert!(scene.asked() > before);
}

#[test]
fn what_is_copied_from_an_image_is_pulled_and_what_no_stage_needs_is_not() {
    let scene = Scene::new(Kind::Plain);
    let name = scene.name();
    let said = scene.build(
        &["--tls-verify=false"],
        &format!("FROM {name}-unused AS unused\nFROM base\nCOPY --from={name} /part /part\n"),
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(scene.part(), "one\n");
}

#[test]
fn a_plan_pulls_nothing_and_never_means_never() {
    let scene = Scene::new(Kind::Plain);
    let from = format!("FROM {}\n", scene.name());
    for flags in [&["--dry-run"][..], &["--pull=never"], &["--pull=always", "--dry-run"]] {
        let said = scene.build(&[flags, &["--tls-verify=false"]].concat(), &from);
        assert_ne!(said.code, 0, "{flags:?}: {said:?}");
        assert!(said.err.contains(&scene.name()) && said.err.contains("^^^^"), "{flags:?}: {}", said.err);
    }
    assert_eq!(scene.asked(), 0);
    let said = scene.build(&["--pull=sometimes"], &from);
    assert_eq!(said.code, 125, "{said:?}");
}

#[test]
fn a_registry_that_refuses_is_told_at_the_line_that_names_the_image() {
    let scene = Scene::new(Kind::Basic);
    let said = scene.build(&["--tls-verify=false"], &format!("FROM base\nCOPY --from={} /part /\n", scene.name()));
    assert_ne!(said.code, 0, "{said:?}");
    for words in ["Dockerfile:2:", "COPY --from", "hull login"] {
        assert!(said.err.contains(words), "{words}: {}", said.err);
    }
    // No registry is insecure unless told so.
    let said = scene.build(&[], &format!("FROM {}\n", scene.name()));
    assert!(said.code != 0 && said.err.contains("--tls-verify=false"), "{said:?}");

    let auth = scene.store.corner().path().join("auth.json");
    let mut login = scene.store.command(&["login", "--tls-verify=false", "-u", USER, "-p", PASSWORD, "--authfile"]);
    assert!(login.arg(&auth).arg(scene.registry.address()).status().unwrap().success());
    let flags = ["--tls-verify=false", "--authfile", &auth.to_string_lossy()];
    let said = scene.build(&flags, &format!("FROM {}\n", scene.name()));
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(scene.part(), "one\n");
}

#[test]
fn hull_run_of_a_dockerfile_pulls_its_base_too() {
    let scene = Scene::new(Kind::Plain);
    scene.store.file("Dockerfile", &format!("FROM {}\nCMD [\"cat\", \"/part\"]\n", scene.name()));
    let context = scene.store.context().to_string_lossy().into_owned();
    let mut run = scene.store.command(&["run", "--rm", "--tls-verify=false", "-C", &context]);
    let said = scene.store.said(run.env("CONTAINERS_REGISTRIES_CONF", "/dev/null").output().unwrap());
    assert_eq!((said.code, said.out.as_str()), (0, "one\n"), "{said:?}");
}

#[test]
fn a_build_is_for_the_platform_that_it_runs_on() {
    let store = Builder::new();
    let host = format!("linux/{}", if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" });
    let said = store.build_with(&["--platform", &host], "FROM base\n");
    assert_eq!(said.code, 0, "{said:?}");
    let said = store.build_with(&["--platform", "linux/s390x"], "FROM base\n");
    assert!(said.code == 1 && said.err.contains("linux/s390x is not supported yet"), "{said:?}");
}

#[test]
fn a_short_name_is_searched_for_as_registries_conf_says() {
    let scene = Scene::new(Kind::Plain);
    let corner: &Corner = scene.store.corner();
    let conf = corner.path().join("registries.conf");
    let address = scene.registry.address();
    let text = format!(
        "unqualified-search-registries = ['{address}']\n[[registry]]\nlocation = '{address}'\ninsecure = true\n"
    );
    fs::write(&conf, text).unwrap();
    scene.store.file("Dockerfile", "FROM team/parts\n");
    let context = scene.store.context().to_string_lossy().into_owned();
    let mut build = scene.store.command(&["build", "-t", "made", &context]);
    let said = scene.store.said(build.env("CONTAINERS_REGISTRIES_CONF", &conf).output().unwrap());
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(scene.part(), "one\n");
}
