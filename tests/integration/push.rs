//! `hull push` and what it leaves at Debian's docker-registry, in each of the ways in which that can be used.

use std::process::Command;

use hull_tests::registry::{Kind, PASSWORD, Registry, USER};
use hull_tests::{Builder, Said};

/// Another tool, which must succeed.
fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `hull` with nobody's own configuration.
fn hull(store: &Builder, arguments: &[&str]) -> Said {
    let mut hull = store.command(arguments);
    hull.env("HOME", store.corner().path())
        .env_remove("XDG_RUNTIME_DIR")
        .env("CONTAINERS_REGISTRIES_CONF", "/dev/null");
    store.said(hull.output().expect("hull starts"))
}

fn ok(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

/// A store with the image `made` of three layers, and a registry.
fn ready(kind: Kind) -> (Builder, Registry) {
    let store = Builder::new();
    ok(store.build("FROM base\nRUN echo one > /one\nRUN busybox dd if=/dev/urandom of=/noise bs=1k count=300\nCMD [\"cat\", \"/one\"]\n"));
    let registry = Registry::start(&store.corner().path().join("registry"), kind);
    (store, registry)
}

/// The digest that a push told.
fn digest(told: &str) -> String {
    let line = told.lines().last().expect("a line");
    line.split(' ').find(|word| word.starts_with("sha256:")).expect("a digest").to_owned()
}

#[test]
fn what_is_pushed_is_pulled_again_and_the_second_push_sends_nothing() {
    let (store, registry) = ready(Kind::Plain);
    let name = format!("{}/a/made:1", registry.address());
    ok(store.hull(&["tag", "made", &name]));
    let told = ok(hull(&store, &["push", "--tls-verify=false", &name]));
    assert!(told.starts_with(&format!("The push refers to repository [{}/a/made]\n", registry.address())), "{told}");
    assert_eq!(told.matches(": Pushed\n").count(), 3, "{told}");
    let first = digest(&told);

    let raw = tool("skopeo", &["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}")]);
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip", "{raw}");
    }
    let sent = registry.log().matches("POST /v2/").count();
    let again = ok(hull(&store, &["push", "--tls-verify=false", &name]));
    assert_eq!(again.matches(": Layer already exists\n").count(), 3, "{again}");
    assert_eq!((digest(&again), registry.log().matches("POST /v2/").count()), (first.clone(), sent));

    let other = Builder::new();
    ok(hull(&other, &["pull", "--tls-verify=false", &name]));
    assert_eq!(ok(other.hull(&["run", "--rm", &name])), "one\n");
    // The digest is the same for both, and both find the image by it.
    let fixed = format!("{}/a/made@{first}", registry.address());
    for place in [&store, &other] {
        assert_eq!(ok(place.hull(&["run", "--rm", "--pull", "never", &fixed])), "one\n");
    }
    // What came packed goes as it is.
    let told = ok(hull(&other, &["push", "--tls-verify=false", &name, &format!("{}/b:2", registry.address())]));
    assert_eq!(digest(&told), first);
}

#[test]
fn layers_that_the_registry_has_elsewhere_are_taken_from_there() {
    let (store, registry) = ready(Kind::Token);
    let name = |path: &str| format!("{}/{path}", registry.address());
    let credentials = format!("{USER}:{PASSWORD}");
    let push = ["push", "--tls-verify=false", "--creds", &credentials];
    for path in ["one/a", "two/b"] {
        ok(store.hull(&["tag", "made", &name(path)]));
    }
    let told = ok(hull(&store, &[&push[..], &[&name("one/a")]].concat()));
    assert_eq!(told.matches(": Pushed\n").count(), 3, "{told}");
    let told = ok(hull(&store, &[&push[..], &[&name("two/b")]].concat()));
    assert_eq!(told.matches(": Mounted from one/a\n").count(), 3, "{told}");
    let asked: Vec<String> = registry.asked_for_tokens().into_iter().map(|asked| asked.target).collect();
    let wanted = "/token?service=registry&scope=repository:two/b:pull,push&scope=repository:one/a:pull";
    assert_eq!(asked.last().map(String::as_str), Some(wanted), "{asked:?}");
}

#[test]
fn chunks_are_sent_one_after_the_other() {
    let (store, registry) = ready(Kind::Plain);
    let name = format!("{}/chunks:1", registry.address());
    let mut command = store.command(&["push", "--tls-verify=false", "made", &name]);
    command.env("HULL_UPLOAD_CHUNK", "100000").env("HOME", store.corner().path());
    ok(store.said(command.output().unwrap()));
    assert!(registry.log().matches("PATCH /v2/").count() >= 4, "{}", registry.log());
    ok(hull(&Builder::new(), &["pull", "--tls-verify=false", &name]));
}

#[test]
fn a_registry_with_tls_is_known_by_its_authority_and_knows_us_by_our_certificate() {
    let (store, registry) = ready(Kind::ClientCertificate);
    let name = format!("{}/a:1", registry.address());
    let refused = hull(&store, &["push", "made", &name]);
    assert!(refused.code == 1 && refused.err.contains("certs.d/127.0.0.1"), "{refused:?}");
    // Without the check it still wants to know who we are.
    let refused = hull(&store, &["push", "--tls-verify=false", "made", &name]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let certificates = registry.certificates().display().to_string();
    ok(hull(&store, &["push", "--cert-dir", &certificates, "made", &name]));
    // The same by the place where docker and podman look.
    let folder = store.corner().path().join(".config/containers/certs.d");
    std::fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(registry.certificates(), folder.join(registry.address())).unwrap();
    let told = ok(hull(&store, &["push", "made", &name]));
    assert_eq!(told.matches(": Layer already exists\n").count(), 3, "{told}");
}

#[test]
fn packing_is_chosen_by_flags() {
    let (store, registry) = ready(Kind::Plain);
    let types = |name: &str| {
        let raw = tool("skopeo", &["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}")]);
        let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
        let types = manifest["layers"].as_array().unwrap().iter();
        types
            .map(|layer| layer["mediaType"].as_str().unwrap().rsplit('.').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for (format, flags, kind) in [
        ("zstd", &["--compression-format", "zstd", "--compression-level", "1"][..], "tar+zstd"),
        ("none", &["--compression-format", "none"], "tar"),
        ("gzip", &["--compression-level", "9"], "tar+gzip"),
    ] {
        let name = format!("{}/packed:{format}", registry.address());
        ok(hull(&store, &[&["push", "--tls-verify=false"], flags, &["made", &name]].concat()));
        assert_eq!(types(&name), [kind; 3]);
        assert_eq!(
            ok(hull(&store, &["run", "--rm", "--tls-verify=false", "--pull", "always", &name])),
            "one\n",
            "{format}"
        );
    }
    // What is packed stays as it is, unless it is said otherwise.
    let (zstd, other) =
        (format!("{}/packed:zstd", registry.address()), format!("{}/packed:other", registry.address()));
    for (flags, kind) in [
        (&[][..], "tar+zstd"),
        (&["--compression-format", "gzip", "--force-compression=false"], "tar+zstd"),
        (&["--compression-format", "gzip"], "tar+gzip"),
    ] {
        ok(hull(&store, &[&["push", "--tls-verify=false"], flags, &[&zstd, &other]].concat()));
        assert_eq!(types(&other), [kind; 3], "{flags:?}");
    }
    for flags in [["--compression-level", "10"], ["--compression-format", "xz"]] {
        assert_ne!(hull(&store, &["push", flags[0], flags[1], "made", &other]).code, 0);
    }
}

#[test]
fn all_tags_of_a_repository_go_with_one_word_and_a_digest_does_not_go() {
    let (store, registry) = ready(Kind::Plain);
    let name = |tag: &str| format!("{}/all{tag}", registry.address());
    for tag in [":1", ":2", "/other:1"] {
        ok(store.hull(&["tag", "made", &name(tag)]));
    }
    let told = ok(hull(&store, &["push", "--tls-verify=false", "-q", "-a", &name("")]));
    assert_eq!(told, format!("{}\n{}\n", name(":1"), name(":2")));
    let tags = tool("skopeo", &["list-tags", "--tls-verify=false", &format!("docker://{}", name(""))]);
    assert!(tags.contains("\"1\"") && tags.contains("\"2\""), "{tags}");
    // And come back so, in another store.
    let other = Builder::new();
    let pull = |arguments: &[&str]| hull(&other, &[&["pull", "--tls-verify=false", "-q"], arguments].concat());
    let told = ok(pull(&["-a", &name("")]));
    assert_eq!(told, format!("{}\n{}\n", name(":1"), name(":2")));
    let names = ok(other.hull(&["images", "--format", "{{.Repository}}:{{.Tag}}"]));
    assert!(names.contains(&name(":1")) && names.contains(&name(":2")), "{names}");
    for wrong in [name(":1"), name("/nothing")] {
        assert_eq!(pull(&["-a", &wrong]).code, 1, "{wrong}");
    }
    let file = store.corner().path().join("digest");
    let fixed = format!("{}@sha256:{}", name(""), "0".repeat(64));
    for arguments in [["-a", &name(":1")], ["made", &fixed], ["nothing", &name(":3")]] {
        let said = hull(&store, &[&["push", "--tls-verify=false"], &arguments[..]].concat());
        assert_eq!(said.code, 1, "{said:?}");
    }
    ok(hull(&store, &["push", "--tls-verify=false", "--digestfile", &file.to_string_lossy(), &name(":1")]));
    let digest = std::fs::read_to_string(&file).unwrap();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest}");
    let id = &ok(store.hull(&["images", "-q"]))[..12];
    let said = hull(&store, &["push", "--tls-verify=false", id]);
    assert!(said.code == 1 && said.err.contains("hull push ID NAME"), "{said:?}");
}
