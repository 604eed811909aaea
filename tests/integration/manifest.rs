//! `hull manifest` and `hull search` at Debian's docker-registry.

use std::process::Command;

use hull_tests::registry::{Kind, PASSWORD, Registry, USER};
use hull_tests::{Builder, Said};
use serde_json::Value;

fn ok(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

fn hull(store: &Builder, arguments: &[&str]) -> Said {
    let mut hull = store.command(arguments);
    hull.env("HOME", store.corner().path())
        .env_remove("XDG_RUNTIME_DIR")
        .env("CONTAINERS_REGISTRIES_CONF", "/dev/null");
    store.said(hull.output().expect("hull starts"))
}

#[test]
fn a_list_is_made_changed_pushed_and_pulled_by_platform() {
    let store = Builder::new();
    ok(store.build("FROM base\nRUN echo one > /one\nCMD [\"cat\", \"/one\"]\n"));
    let registry = Registry::start(&store.corner().path().join("registry"), Kind::Plain);
    let name = format!("{}/lists/made:1", registry.address());
    ok(hull(&store, &["manifest", "create", &name, "made"]));
    assert_eq!(hull(&store, &["manifest", "create", &name]).code, 1, "there is one already");
    ok(hull(
        &store,
        &["manifest", "add", "--arch", "arm64", "--variant", "v8", "--annotation", "a=b", &name, "base"],
    ));
    ok(hull(&store, &["manifest", "annotate", "--os", "linux", &name, "base"]));
    let list: Value = serde_json::from_str(&ok(hull(&store, &["manifest", "inspect", &name]))).unwrap();
    assert_eq!(
        list["manifests"][1]["platform"],
        serde_json::json!({"os": "linux", "architecture": "arm64", "variant": "v8"})
    );
    assert_eq!(list["manifests"][1]["annotations"]["a"], "b");
    // What it names is kept, also when nothing else does.
    ok(store.hull(&["rmi", "made"]));
    assert_eq!(ok(store.hull(&["run", "--rm", &name])), "one\n");
    assert_eq!(ok(store.hull(&["system", "check"])), "");
    let digest = ok(hull(&store, &["manifest", "push", "--tls-verify=false", &name]));

    let skopeo =
        Command::new("skopeo").args(["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}")]).output();
    let raw: Value = serde_json::from_slice(&skopeo.unwrap().stdout).unwrap();
    assert_eq!(raw["manifests"].as_array().unwrap().len(), 2, "{raw}");
    let remote = ok(hull(&Builder::new(), &["manifest", "inspect", "--tls-verify=false", &name]));
    assert_eq!(serde_json::from_str::<Value>(&remote).unwrap(), raw);

    let other = Builder::new();
    ok(hull(&other, &["pull", "-q", "--tls-verify=false", &name]));
    assert_eq!(ok(other.hull(&["run", "--rm", &name])), "one\n");
    let told = ok(other.hull(&["inspect", "-f", "{{index .RepoDigests 0}}", &name]));
    assert!(told.trim().ends_with(digest.trim()), "{told} {digest}");

    ok(hull(&store, &["manifest", "rm", &name]));
    assert_eq!(hull(&store, &["manifest", "add", &name, "base"]).code, 1);
    assert_eq!(
        ok(store.hull(&["images", "-q", "-f", "dangling=true"])).lines().count(),
        1,
        "its image is still there"
    );
}

#[test]
fn repositories_and_tags_of_a_registry_are_found() {
    for kind in [Kind::Basic, Kind::Token] {
        let store = Builder::new();
        let registry = Registry::start(&store.corner().path().join("registry"), kind);
        let credentials = format!("{USER}:{PASSWORD}");
        let flags = ["--tls-verify=false", "--creds", &credentials];
        for repository in ["team/one:1", "team/one:2", "team/other:1"] {
            let name = format!("{}/{repository}", registry.address());
            ok(hull(&store, &[&["push"], &flags[..], &["base", &name]].concat()));
        }
        let search = |words: &[&str]| ok(hull(&store, &[&["search"], &flags[..], words].concat()));
        let at = |name: &str| format!("{}/{name}", registry.address());
        let told = search(&["--format", "{{.Name}}", &at("o")]);
        assert_eq!(told, format!("{}\n{}\n", at("team/one"), at("team/other")), "{kind:?}");
        assert_eq!(search(&["--format", "{{.Name}}", "--limit", "1", &at("o")]).lines().count(), 1);
        let tags = search(&["--list-tags", "--format", "{{.Tag}}", &at("team/one")]);
        let mut tags: Vec<&str> = tags.lines().collect();
        tags.sort();
        assert_eq!(tags, ["1", "2"], "{kind:?}");
        assert!(search(&[&at("nothing")]).starts_with("NAME"));
    }
}
