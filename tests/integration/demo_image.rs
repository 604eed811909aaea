//! What `make run` builds its demo on: docker.io's Alpine where a registry answers, Debian's packages elsewhere.
//!
//! Nobody reaches docker.io here: registries.conf leads its name to a registry on loopback, or to somebody who never answers.
//! The images are stand-ins made of Debian's busybox, with a `python3` that is a line of shell and says so.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use hull_tests::registry::{Kind, Registry};
use hull_tests::{Builder, Said, hull_bin};

const ALPINE: &str = "docker.io/library/alpine:3.20";

/// A store, and a registries.conf that says where docker.io is.
struct Demo(Builder);

impl Demo {
    /// docker.io is at `address`.
    fn new(address: &str) -> Self {
        let demo = Self(Builder::new());
        let text = format!(
            "[[registry]]\nprefix = 'docker.io'\nlocation = '{address}'\ninsecure = true\n[[registry.mirror]]\n\
             location = '{address}/mirror'\ninsecure = true\n"
        );
        fs::write(demo.at("registries.conf"), text).unwrap();
        // What Debian's packages would be, if it comes to that.
        fs::create_dir(demo.at("cache")).unwrap();
        stand_in(&demo.0, "Debian", &demo.at("cache/base.tar"));
        demo
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.0.corner().path().join(name)
    }

    /// `make run`, with the program that is there instead of a new one.
    fn make_run(&self, more: &[&str]) -> Said {
        let mut make = Command::new("make");
        make.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args(["-o", "build", "run"]);
        make.arg(format!("HULL={}", hull_bin().display())).arg(format!("CACHE={}", self.at("cache").display()));
        make.env("HULL_ROOT", self.0.root()).env("HULL_RUNROOT", self.0.corner().runroot());
        make.env("CONTAINERS_REGISTRIES_CONF", self.at("registries.conf")).env("HOME", self.at(""));
        // This may be `make test`, whose variables are not this one's business.
        make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
        self.0.said(make.args(more).output().unwrap())
    }
}

/// An archive of busybox that has a `bash` and a `python3` to say where they are from.
fn stand_in(builder: &Builder, what: &str, archive: &Path) {
    let root = builder.corner().rootfs();
    for program in ["bash", "python3"] {
        let path = root.join("bin").join(program);
        fs::write(&path, format!("#!/bin/sh\necho \"a stand-in of {what} for {program} $*\"\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let tar = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(archive).arg(".").status();
    assert!(tar.unwrap().success());
}

/// A registry that has a stand-in for Alpine in this repository.
fn registry(repository: &str) -> (Builder, Registry) {
    let source = Builder::new();
    let registry = Registry::start(&source.corner().path().join("registry"), Kind::Plain);
    let archive = source.corner().path().join("alpine.tar");
    stand_in(&source, "Alpine", &archive);
    let name = format!("{}/{repository}:3.20", registry.address());
    assert_eq!(source.hull(&["import", &archive.to_string_lossy(), &name]).code, 0);
    let mut push = source.command(&["push", "-q", "--tls-verify=false", &name]);
    let said = source.said(push.env("CONTAINERS_REGISTRIES_CONF", "/dev/null").output().unwrap());
    assert_eq!(said.code, 0, "{said:?}");
    (source, registry)
}

fn assert_on(said: &Said, what: &str) {
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.out.lines().last(), Some(&*format!("a stand-in of {what} for python3 hello.py")), "{said:?}");
    assert_eq!(said.out.contains("falling back"), what == "Debian", "{}", said.out);
}

#[test]
fn the_demo_is_built_on_alpine_where_a_registry_or_its_mirror_has_it() {
    for repository in ["library/alpine", "mirror/library/alpine"] {
        let (_source, registry) = registry(repository);
        let demo = Demo::new(registry.address());
        assert_on(&demo.make_run(&[]), "Alpine");
        let names = demo.0.hull(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).out;
        assert!(names.lines().any(|name| ALPINE.ends_with(name)), "{names}");
        // Once it is there nobody is asked any more.
        let asked = registry.log().lines().count();
        assert_on(&demo.make_run(&[]), "Alpine");
        assert_eq!(registry.log().lines().count(), asked);
    }
}

#[test]
fn without_a_registry_the_demo_falls_back_to_debian_and_says_why() {
    // Nobody listens there: the port was free a moment ago, and is held by nobody who accepts.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let demo = Demo::new(&closed);
    let said = demo.make_run(&[]);
    assert_on(&said, "Debian");
    let told = said.out.lines().find(|line| line.starts_with("demo: not on docker.io/library/alpine:3.20: "));
    assert!(told.is_some_and(|line| line.contains("refused")), "{}", said.out);
}

#[test]
fn a_registry_that_does_not_answer_is_not_waited_for() {
    // It accepts, since the kernel does, and never answers: hull by itself would wait half a minute.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let demo = Demo::new(&silent.local_addr().unwrap().to_string());
    let said = demo.make_run(&[]);
    assert_on(&said, "Debian");
    assert!(said.out.contains("no registry answered within five seconds"), "{}", said.out);
}

#[test]
fn where_alpines_packages_cannot_be_had_the_demo_falls_back_too() {
    let (source, registry) = registry("library/alpine");
    // The same without python3 and bash, and with an apk that cannot reach its servers.
    let apk = source.build(&format!(
        "FROM {}/library/alpine:3.20\nRUN busybox rm /bin/python3 /bin/bash; \
         printf '#!/bin/sh\\necho no servers; exit 4\\n' > /bin/apk; busybox chmod 755 /bin/apk\n",
        registry.address()
    ));
    assert_eq!(apk.code, 0, "{apk:?}");
    let name = format!("{}/library/alpine:3.20", registry.address());
    let mut push = source.command(&["push", "-q", "--tls-verify=false", "made", &name]);
    assert_eq!(source.said(push.env("CONTAINERS_REGISTRIES_CONF", "/dev/null").output().unwrap()).code, 0);
    let said = Demo::new(registry.address()).make_run(&[]);
    assert_on(&said, "Debian");
    assert!(said.err.contains("no servers") && said.out.contains("cannot be built on it"), "{said:?}");
}

#[test]
fn a_base_of_ones_own_choice_is_taken_and_nobody_asked() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let demo = Demo::new(&silent.local_addr().unwrap().to_string());
    let archive = demo.at("mine.tar");
    stand_in(&demo.0, "mine", &archive);
    assert_eq!(demo.0.hull(&["import", &archive.to_string_lossy(), "mine"]).code, 0);
    assert_on(&demo.make_run(&["BASE=mine"]), "mine");
    silent.set_nonblocking(true).unwrap();
    assert_eq!(silent.accept().map(drop).map_err(|error| error.kind()), Err(std::io::ErrorKind::WouldBlock));
}
