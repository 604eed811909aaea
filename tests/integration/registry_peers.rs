//! hull, skopeo, podman and docker at one registry, in every direction: what one pushes all others pull, as the same image.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use hull_tests::docker::Docker;
use hull_tests::registry::{Kind, PASSWORD, Registry, USER};
use hull_tests::{Builder, Corner, Said, eventually};

/// A registry and everybody who uses it, each with a store of its own.
struct Peers {
    registry: Registry,
    hull: Builder,
    kind: Kind,
}

impl Peers {
    fn new(kind: Kind) -> Self {
        let hull = Builder::new();
        let made = "FROM base\nRUN echo one > /one; busybox chmod 4755 /one\nRUN busybox rm /bin/tty\nCMD [\"cat\", \"/one\"]\n";
        assert_eq!(hull.build(made).code, 0);
        let registry = Registry::start(&hull.corner().path().join("registry"), kind);
        Self { registry, hull, kind }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.hull.corner().path().join(name)
    }

    fn name(&self, tag: &str) -> String {
        format!("{}/peers/made:{tag}", self.registry.address())
    }

    /// The flags that make a tool trust the registry and the registry know the tool, with these spellings.
    fn flags(&self, tls_verify: &str, cert_dir: &str, creds: &str) -> Vec<String> {
        let mut flags = match self.kind {
            Kind::Tls => vec![format!("{cert_dir}={}", self.registry.certificates().display())],
            _ => vec![format!("{tls_verify}=false")],
        };
        if let Kind::Basic | Kind::Token = self.kind {
            flags.push(format!("{creds}={USER}:{PASSWORD}"));
        }
        flags
    }

    fn own(&self, command: &mut Command) -> Said {
        command.env("HOME", self.hull.corner().path()).env_remove("XDG_RUNTIME_DIR");
        command.env("CONTAINERS_REGISTRIES_CONF", "/dev/null").output().expect("it starts").into()
    }

    fn hull(&self, store: &Builder, verb: &str, words: &[&str]) -> String {
        let flags = self.flags("--tls-verify", "--cert-dir", "--creds");
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        ok(self.own(&mut store.command(&[&[verb], &flags[..], words].concat())))
    }

    fn podman(&self, words: &[&str], uses_registry: bool) -> String {
        let mut podman = Command::new("podman");
        podman.arg("--root").arg(self.at("podman")).arg("--runroot").arg(self.at("podman-run"));
        podman.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        podman.arg(words[0]);
        if uses_registry {
            podman.args(self.flags("--tls-verify", "--cert-dir", "--creds"));
        }
        ok(self.own(podman.args(&words[1..])))
    }

    fn skopeo(&self, words: &[&str], flags: &[String]) -> String {
        ok(self.own(Command::new("skopeo").arg(words[0]).args(flags).args(&words[1..])))
    }

    /// The digests of the manifest and of the configuration that the registry has under a tag.
    fn digests(&self, tag: &str) -> (String, String) {
        let flags = self.flags("--tls-verify", "--cert-dir", "--creds");
        let from = format!("docker://{}", self.name(tag));
        let raw = self.skopeo(&["inspect", "--raw", &from], &flags);
        let manifest: serde_json::Value = serde_json::from_str(&raw).expect("a manifest");
        let digest = self.skopeo(&["inspect", "--format", "{{.Digest}}", &from], &flags);
        (digest.trim().to_owned(), manifest["config"]["digest"].as_str().expect("a configuration").to_owned())
    }

    /// What hull has of a tag is what the registry has, and it runs.
    fn assert_pulled(&self, tag: &str) {
        let store = Builder::new();
        let name = self.name(tag);
        self.hull(&store, "pull", &["-q", &name]);
        let (digest, id) = self.digests(tag);
        let template = "{{index .RepoDigests 0}} {{.Id}}";
        let told = ok(store.hull(&["inspect", "-f", template, &name]));
        let repository = name.rsplit_once(':').expect("a tag").0.to_owned();
        assert_eq!(told.trim(), format!("{repository}@{digest} {id}"), "{tag}");
        assert_eq!(ok(store.hull(&["run", "--rm", &name])), "one\n", "{tag}");
        assert_ne!(store.hull(&["run", "--rm", &name, "ls", "/bin/tty"]).code, 0, "{tag}: it was deleted");
    }
}

fn ok(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

fn hull_skopeo_and_podman(kind: Kind) {
    let peers = Peers::new(kind);
    peers.hull(&peers.hull, "push", &["made", &peers.name("hull")]);
    peers.assert_pulled("hull");

    // skopeo takes it away and brings it back.
    let flags = |which: &str| {
        peers.flags(&format!("--{which}-tls-verify"), &format!("--{which}-cert-dir"), &format!("--{which}-creds"))
    };
    let between = format!("dir:{}", peers.at("between").display());
    let (from, to) = (format!("docker://{}", peers.name("hull")), format!("docker://{}", peers.name("skopeo")));
    peers.skopeo(&["copy", "-q", &from, &between], &flags("src"));
    peers.skopeo(&["copy", "-q", &between, &to], &flags("dest"));
    assert_eq!(peers.digests("skopeo"), peers.digests("hull"));
    peers.assert_pulled("skopeo");

    // podman pulls it, and pushes it under a name of its own.
    peers.podman(&["pull", "-q", &peers.name("hull")], true);
    peers.podman(&["tag", &peers.name("hull"), &peers.name("podman")], false);
    peers.podman(&["push", "-q", &peers.name("podman")], true);
    assert_eq!(peers.digests("podman").1, peers.digests("hull").1, "the same configuration is the same image");
    peers.assert_pulled("podman");

    // And hull pushes what came from podman on, byte for byte.
    let store = Builder::new();
    peers.hull(&store, "pull", &["-q", &peers.name("podman")]);
    peers.hull(&store, "push", &[&peers.name("podman"), &peers.name("again")]);
    assert_eq!(peers.digests("again"), peers.digests("podman"));
}

#[test]
fn hull_skopeo_and_podman_understand_each_other_over_tls() {
    hull_skopeo_and_podman(Kind::Tls);
}

#[test]
fn hull_skopeo_and_podman_understand_each_other_with_a_password() {
    hull_skopeo_and_podman(Kind::Basic);
}

#[test]
fn hull_skopeo_and_podman_understand_each_other_with_tokens() {
    hull_skopeo_and_podman(Kind::Token);
}

#[test]
fn docker_pulls_and_runs_what_hull_pushed_and_hull_what_docker_pushed() {
    let peers = Peers::new(Kind::Plain);
    let corner = Corner::new();
    let mut docker = Docker::start(corner.path());
    // The daemon has a network of its own, in which the registry is at the same address.
    docker.beside("docker-registry", &["serve", &peers.registry.config().display().to_string()]);
    let client = |words: &[&str]| ok(docker.client(words));
    peers.hull(&peers.hull, "push", &["made", &peers.name("hull")]);
    eventually("docker pulls", || docker.client(&["pull", "-q", &peers.name("hull")]).code == 0);
    assert_eq!(client(&["run", "--rm", "--network", "none", &peers.name("hull")]), "one\n");
    client(&["tag", &peers.name("hull"), &peers.name("docker")]);
    client(&["push", "-q", &peers.name("docker")]);
    assert_eq!(peers.digests("docker").1, peers.digests("hull").1, "the same configuration is the same image");
    peers.assert_pulled("docker");
    // An image of docker's own making.
    let context = peers.at("context-of-docker");
    std::fs::create_dir(&context).expect("a folder");
    let dockerfile = format!("FROM {}\nRUN echo from docker > /one\n", peers.name("hull"));
    std::fs::write(context.join("Dockerfile"), dockerfile).expect("a file");
    let mut build = docker.command(&["build", "-q", "--network", "none", "-t", &peers.name("built")]);
    ok(build.env("DOCKER_BUILDKIT", "0").arg(&context).output().expect("docker").into());
    client(&["push", "-q", &peers.name("built")]);
    let store = Builder::new();
    peers.hull(&store, "pull", &["-q", &peers.name("built")]);
    assert_eq!(ok(store.hull(&["run", "--rm", &peers.name("built")])), "from docker\n");
    // And archives, in both directions.
    let path = peers.at("archive.tar").display().to_string();
    client(&["save", "-o", &path, &peers.name("built")]);
    let other = Builder::new();
    ok(other.hull(&["load", "-i", &path]));
    assert_eq!(ok(other.hull(&["run", "--rm", &peers.name("built")])), "from docker\n");
    ok(peers.hull.hull(&["save", "-o", &path, "made"]));
    assert!(client(&["load", "-i", &path]).contains("Loaded image: made:latest"));
    assert_eq!(client(&["run", "--rm", "--network", "none", "made"]), "one\n");
    // One image is one, whoever has it.
    let tags: BTreeSet<String> = ["hull", "docker"].iter().map(|tag| peers.digests(tag).1).collect();
    assert_eq!(tags.len(), 1);
}
