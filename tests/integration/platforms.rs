//! Images for several platforms: which of them is taken, how they share a name, and what an index leads to in the store.

use std::process::Command;

use hull_tests::scripted::{Answer, Asked, INDEX, Scripted, TinyImage, digest, pull};
use hull_tests::{Corner, Said};
use serde_json::{Value, json};

fn ok(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

fn hull(corner: &Corner, arguments: &[&str]) -> Said {
    corner.hull().args(arguments).output().expect("hull starts").into()
}

/// A tiny image for an architecture; each has another layer.
fn image(architecture: &str, size: usize) -> TinyImage {
    made_for(architecture, TinyImage::new(size))
}

fn made_for(architecture: &str, mut image: TinyImage) -> TinyImage {
    let mut config: Value = serde_json::from_slice(&image.config).expect("JSON");
    config["architecture"] = architecture.into();
    image.config = config.to_string().into_bytes();
    let mut manifest: Value = serde_json::from_slice(&image.manifest).expect("JSON");
    manifest["config"]["digest"] = digest(&image.config).into();
    manifest["config"]["size"] = image.config.len().into();
    image.manifest = manifest.to_string().into_bytes();
    image
}

/// A registry with an index under the tag 1 for these images.
fn registry(images: Vec<(&'static str, TinyImage)>) -> Scripted {
    let entries: Vec<Value> = images
        .iter()
        .map(|(architecture, image)| {
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&image.manifest),
                "size": image.manifest.len(), "platform": {"os": "linux", "architecture": architecture},
            })
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    Scripted::new(move |asked: &Asked| {
        if asked.target == "/v2/" {
            return Answer::ok("application/json", "{}");
        }
        if asked.target.ends_with("/manifests/1") {
            return Answer::ok(INDEX, index.clone());
        }
        let last = asked.target.rsplit('/').next().unwrap_or_default();
        let has = |image: &&(&str, TinyImage)| {
            let blobs = image.1.layers.iter().chain([&image.1.config, &image.1.manifest]);
            blobs.into_iter().any(|blob| digest(blob) == last)
        };
        images.iter().find(has).map_or_else(|| Answer::status(404), |image| image.1.answer(asked))
    })
}

const INSECURE: &str = "--tls-verify=false";

fn ids(corner: &Corner) -> Vec<String> {
    ok(hull(corner, &["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"])).lines().map(str::to_owned).collect()
}

#[test]
fn platforms_of_one_image_keep_the_name_together_and_leave_it_together() {
    let corner = Corner::new();
    let (amd64, arm64) = (image("amd64", 100), image("arm64", 200));
    let server = registry(vec![("amd64", amd64.clone()), ("arm64", arm64.clone())]);
    let name = format!("{}/a/b:1", server.address());
    let id = |image: &TinyImage| digest(&image.config)[7..19].to_owned();
    // The foreign one first: the one for this machine still comes before it.
    ok(pull(&corner, &server, &[INSECURE, "--platform", "linux/arm64"], "a/b:1"));
    ok(pull(&corner, &server, &[INSECURE], "a/b:1"));
    let mut both = [format!("{name} {}", id(&amd64)), format!("{name} {}", id(&arm64))];
    let mut listed = ids(&corner);
    both.sort();
    listed.sort();
    assert_eq!(listed, both);
    let index: Value = serde_json::from_slice(&std::fs::read(corner.root().join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["platform"]["architecture"], "amd64", "{index}");
    // Other tools see the one for this machine; a new name is for both.
    ok(hull(&corner, &["tag", &name, "other"]));
    let layout = format!("oci:{}:docker.io/library/other:latest", corner.root().display());
    let skopeo = Command::new("skopeo").args(["inspect", "--config", &layout]).output().unwrap();
    assert!(String::from_utf8_lossy(&skopeo.stdout).contains("amd64"), "{skopeo:?}");
    assert_eq!(ids(&corner).len(), 4);
    assert!(ok(hull(&corner, &["rmi", &name])).starts_with("Untagged: "));
    assert_eq!(ids(&corner).len(), 2);
    let removed = ok(hull(&corner, &["rmi", "other"]));
    assert_eq!(removed.matches("Deleted: ").count(), 2, "{removed}");
    assert!(hull_tests::entries(&corner.root().join("blobs/sha256")).is_empty());
}

#[test]
fn a_name_that_leads_elsewhere_now_is_taken_from_all_platforms() {
    let corner = Corner::new();
    let old = registry(vec![("amd64", image("amd64", 100)), ("arm64", image("arm64", 200))]);
    let new = registry(vec![("amd64", image("amd64", 300)), ("arm64", image("arm64", 400))]);
    // The same name at both: a registry whose tag has moved.
    let conf = corner.path().join("registries.conf");
    let moved = |to: &Scripted| {
        let text = format!("[[registry]]\nprefix = 'r.test'\nlocation = '{}'\ninsecure = true\n", to.address());
        std::fs::write(&conf, text).unwrap();
    };
    let pull = |platform: &str| {
        let mut hull = corner.hull();
        hull.args(["pull", "-q", "--platform", platform, "r.test/a/b:1"]).env("CONTAINERS_REGISTRIES_CONF", &conf);
        ok(hull.env("HOME", corner.path()).output().expect("hull starts").into())
    };
    moved(&old);
    pull("linux/amd64");
    pull("linux/arm64");
    moved(&new);
    pull("linux/amd64");
    let named = |lines: &[String]| lines.iter().filter(|line| line.starts_with("r.test")).count();
    assert_eq!(named(&ids(&corner)), 1, "{:?}", ids(&corner));
    assert_eq!(ids(&corner).len(), 3, "the old ones have no name any more");
    pull("linux/arm64");
    assert_eq!(named(&ids(&corner)), 2);
}

#[test]
fn an_index_that_skopeo_brought_keeps_all_that_it_leads_to() {
    let corner = Corner::new();
    let server = registry(vec![("amd64", image("amd64", 100)), ("arm64", image("arm64", 200))]);
    let from = format!("docker://{}/a/b:1", server.address());
    let to = format!("oci:{}:brought", corner.root().display());
    ok(hull(&corner, &["images"]));
    let skopeo =
        Command::new("skopeo").args(["copy", "--all", "--src-tls-verify=false", &from, &to]).output().unwrap();
    assert!(skopeo.status.success(), "{skopeo:?}");
    assert_eq!(ids(&corner).len(), 2);
    assert_eq!(ok(hull(&corner, &["system", "check"])), "");
    // Another image goes; nothing of these goes with it.
    ok(pull(&corner, &registry(vec![("amd64", image("amd64", 300))]), &[INSECURE], "other:1"));
    let before = hull_tests::entries(&corner.root().join("blobs/sha256")).len();
    let other = ids(&corner).into_iter().find(|line| line.contains("other")).expect("the other one");
    ok(hull(&corner, &["rmi", other.rsplit(' ').next().expect("an id")]));
    assert_eq!(hull_tests::entries(&corner.root().join("blobs/sha256")).len(), before - 3);
    assert_eq!(ok(hull(&corner, &["system", "check"])), "");
    ok(hull(&corner, &["rmi", "brought"]));
    assert!(ids(&corner).is_empty() && hull_tests::entries(&corner.root().join("blobs/sha256")).is_empty());
}

/// An image that says it is for `architecture`, with programs for this machine all the same and a file that says which it is.
fn programs(corner: &Corner, architecture: &str) -> TinyImage {
    std::fs::write(corner.rootfs().join("which"), architecture).expect("a file");
    let tar = Command::new("tar").arg("-C").arg(corner.rootfs()).args(["-c", "."]).output().expect("tar");
    made_for(architecture, TinyImage::of(&tar.stdout))
}

/// A pull by `run` is for the platform that is asked for, as is the choice among several that are here; and what a machine
/// cannot be expected to run is told, unless it was asked for.
#[test]
fn a_run_takes_the_platform_that_it_is_told() {
    let corner = Corner::new();
    let both = vec![("amd64", programs(&corner, "amd64")), ("arm64", programs(&corner, "arm64"))];
    let (server, single) = (registry(both), registry(vec![("arm64", programs(&corner, "arm64"))]));
    let name = |server: &Scripted| format!("{}/a/b:1", server.address());
    let run = |server: &Scripted, flags: &[&str]| -> Said {
        let mut hull = corner.hull();
        hull.args(["run", "--rm", INSECURE]).args(flags).args([&name(server), "cat", "/which"]);
        hull.env("HOME", corner.path()).env("CONTAINERS_REGISTRIES_CONF", "/dev/null");
        hull.output().expect("hull starts").into()
    };
    for (flags, which) in [
        (&["--platform", "linux/arm64"][..], "arm64"),
        (&["--platform", "linux/amd64"], "amd64"),
        (&[], "amd64"),
        (&["--pull", "never", "--platform", "linux/arm64"], "arm64"),
    ] {
        let said = run(&server, flags);
        assert_eq!((said.code, &*said.out), (0, which), "{flags:?}: {said:?}");
        assert!(!said.err.contains("the image is for"), "{flags:?}: {said:?}");
    }
    assert_eq!(ids(&corner).len(), 2);
    let none = run(&server, &["--pull", "never", "--platform", "linux/s390x"]);
    assert!(none.code == 125 && none.err.contains("cannot find the image"), "{none:?}");
    let wrong = run(&server, &["--platform", "linux/"]);
    assert!(wrong.code == 125 && wrong.err.contains("cannot read the platform"), "{wrong:?}");

    // One that is here for another machine alone.
    ok(pull(&corner, &single, &[INSECURE, "--platform", "linux/arm64"], "a/b:1"));
    let told = run(&single, &[]);
    assert!(
        told.code == 0 && told.err.contains("the image is for linux/arm64, and this machine is linux/amd64"),
        "{told:?}"
    );
    let asked = run(&single, &["--platform", "linux/arm64"]);
    assert_eq!((asked.code, &*asked.err), (0, ""), "{asked:?}");
}

#[test]
fn one_platform_of_several_is_saved_and_looked_at() {
    let corner = Corner::new();
    let (amd64, arm64) = (image("amd64", 100), image("arm64", 200));
    let server = registry(vec![("amd64", amd64.clone()), ("arm64", arm64.clone())]);
    let name = format!("{}/a/b:1", server.address());
    for platform in ["linux/amd64", "linux/arm64"] {
        ok(pull(&corner, &server, &[INSECURE, "--platform", platform], "a/b:1"));
    }
    for (platform, own) in [("linux/amd64", &amd64), ("linux/arm64", &arm64)] {
        let id = digest(&own.config);
        let archive = corner.path().join("saved.tar").to_string_lossy().into_owned();
        // By the image's name, and by its repository, which stands for all of its tags.
        for name in [&*name, name.strip_suffix(":1").expect("a tag")] {
            ok(hull(&corner, &["save", "--platform", platform, "-o", &archive, name]));
            let manifest = Command::new("tar").args(["-xOf", &archive, "manifest.json"]).output().unwrap().stdout;
            let manifest: Value = serde_json::from_slice(&manifest).expect("a list");
            assert_eq!(manifest.as_array().map(Vec::len), Some(1), "{manifest}");
            assert!(manifest[0]["Config"].to_string().contains(&id["sha256:".len()..]), "{manifest}");
        }
        let seen = ok(hull(&corner, &["inspect", "--platform", platform, "--format", "{{.Id}}", &name]));
        assert_eq!(seen.trim(), id);
        ok(hull(&corner, &["history", "--platform", platform, &name]));
    }
    for verb in ["save", "history", "inspect"] {
        let said = hull(&corner, &[verb, "--platform", "linux/s390x", &name]);
        assert!(said.code == 1 && said.err.contains("cannot find the image"), "{verb}: {said:?}");
    }
}

#[test]
fn an_import_is_for_the_platform_that_is_given_and_only_images_are_inspected() {
    let corner = Corner::new();
    let archive = corner.path().join("a.tar").to_string_lossy().into_owned();
    std::fs::write(&archive, hull_tests::tar::Tar::default().file("x", "y").end()).expect("an archive");
    let shown = |flags: &[&str], format: &str| {
        ok(hull(&corner, &[&["import"], flags, &[&*archive, "made"]].concat()));
        ok(hull(&corner, &["inspect", "--type", "image", "--format", format, "made"])).trim().to_owned()
    };
    assert_eq!(shown(&["--platform", "linux/arm/v6"], "{{.Os}}/{{.Architecture}}/{{.Variant}}"), "linux/arm/v6");
    assert_eq!(shown(&["--platform", "aarch64"], "{{.Os}}/{{.Architecture}}"), "linux/arm64");
    assert_eq!(shown(&[], "{{.Os}}/{{.Architecture}}"), "linux/amd64");
    let said = hull(&corner, &["inspect", "--type", "volume", "made"]);
    assert!(said.code == 1 && said.err.contains("--type volume is not supported"), "{said:?}");
}
