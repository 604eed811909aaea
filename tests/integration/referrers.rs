//! What refers to an image: at a registry that lists it itself, and at one where whoever pushes keeps a list under a tag.

use hull_tests::registry::{Kind, Registry};
use hull_tests::scripted::{Answer, Asked, INDEX, MANIFEST, Scripted, TinyImage, digest};
use hull_tests::{Builder, Corner, Said};
use serde_json::{Value, json};

const SIGNATURE: &str = "application/vnd.example.signature";

fn hull(corner: &Corner, arguments: &[&str]) -> Said {
    let mut hull = corner.hull();
    hull.env("HOME", corner.path()).env("CONTAINERS_REGISTRIES_CONF", "/dev/null").env_remove("XDG_RUNTIME_DIR");
    let said = hull.args(arguments).output().expect("hull starts").into();
    corner.assert_clean();
    said
}

fn ok(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

/// An image that refers to another one, as a type.
fn referring(to: &TinyImage, size: usize, kind: &str) -> TinyImage {
    let mut image = TinyImage::new(size);
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["artifactType"] = kind.into();
    manifest["annotations"] = json!({ "size": size.to_string() });
    manifest["subject"] = json!({ "mediaType": MANIFEST, "digest": digest(&to.manifest), "size": to.manifest.len() });
    image.manifest = manifest.to_string().into_bytes();
    image
}

/// Three images by their tags: `subject`, and two that refer to it.
fn images() -> Vec<(&'static str, TinyImage)> {
    let subject = TinyImage::new(100);
    let signature = referring(&subject, 200, SIGNATURE);
    let contents = referring(&subject, 300, "application/vnd.example.contents");
    vec![("subject", subject), ("signature", signature), ("contents", contents)]
}

fn is_for(asked: &Asked, image: &TinyImage) -> bool {
    let (_, last) = asked.target.rsplit_once('/').unwrap_or_default();
    last == digest(&image.config) || image.layers.iter().any(|layer| last == digest(layer))
}

/// A registry that has these images, and `more` to say.
fn registry(
    images: Vec<(&'static str, TinyImage)>,
    more: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
) -> Scripted {
    Scripted::new(move |asked| {
        if let Some(answer) = more(asked) {
            return answer;
        }
        let found = images
            .iter()
            .find(|(tag, image)| asked.target.ends_with(&format!("/manifests/{tag}")) || is_for(asked, image));
        match found {
            Some((_, image)) => image.answer(asked),
            None if asked.target == "/v2/" => Answer::ok("application/json", "{}"),
            None => Answer::status(404),
        }
    })
}

fn entry(image: &TinyImage) -> Value {
    let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    json!({
        "mediaType": MANIFEST, "digest": digest(&image.manifest), "size": image.manifest.len(),
        "artifactType": manifest["artifactType"], "annotations": manifest["annotations"],
    })
}

#[test]
fn a_registry_that_lists_referrers_is_asked_and_may_leave_the_choice_to_us() {
    let images = images();
    let (subject, list) = (digest(&images[0].1.manifest), [entry(&images[1].1), entry(&images[2].1)]);
    let target = format!("/v2/a/b/referrers/{subject}");
    let at = registry(images.clone(), move |asked| {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": list });
        asked.target.starts_with(&target).then(|| Answer::ok(INDEX, index.to_string()))
    });
    let corner = Corner::new();
    let name = format!("{}/a/b:subject", at.address());
    let referrers = |flags: &[&str]| {
        let flags = [&["manifest", "referrers", "--tls-verify=false"], flags, &[&name]].concat();
        ok(hull(&corner, &flags))
    };
    let table = referrers(&[]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("DIGEST") && lines[0].contains("ARTIFACT TYPE"), "{table}");
    assert!(lines[1].starts_with(&digest(&images[1].1.manifest)) && lines[1].contains(SIGNATURE), "{table}");
    // It has not filtered.
    let one = referrers(&["--artifact-type", SIGNATURE, "--format", "{{.Digest}} {{.Annotations}}"]);
    assert_eq!(one, format!("{} {{\"size\":\"200\"}}\n", digest(&images[1].1.manifest)));
    assert!(
        at.asked().iter().any(|asked| asked.target.contains("?artifactType=application")
            && asked.target.ends_with("vnd.example.signature"))
    );
    assert!(!at.asked().iter().any(|asked| asked.target.contains("/manifests/sha256-")));
    // By digest nothing has to be looked up first.
    let fixed = format!("{}/a/b@{subject}", at.address());
    let all = ok(hull(&corner, &["manifest", "referrers", "--tls-verify=false", "--format", "json", &fixed]));
    let sizes = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["Annotations"].clone());
    assert_eq!(sizes.collect::<Vec<_>>(), ["{\"size\":\"200\"}", "{\"size\":\"300\"}"]);
}

#[test]
fn what_is_pushed_is_entered_under_the_tag_where_the_registry_keeps_no_list() {
    let images = images();
    let at = registry(images.clone(), |_| None);
    let store = Builder::new();
    let debian = Registry::start(&store.corner().path().join("registry"), Kind::Plain);
    let corner = store.corner();
    let there = |tag: &str| format!("{}/c/d:{tag}", debian.address());
    let list = || {
        ok(hull(
            corner,
            &[
                "manifest",
                "referrers",
                "--tls-verify=false",
                "--format",
                "{{.Digest}} {{.ArtifactType}}",
                &there("subject"),
            ],
        ))
    };
    for (tag, _) in &images {
        let from = format!("{}/a/b:{tag}", at.address());
        ok(hull(corner, &["pull", "-q", "--tls-verify=false", &from]));
        ok(hull(corner, &["push", "-q", "--tls-verify=false", &from, &there(tag)]));
        if *tag == "subject" {
            assert_eq!(list(), "", "nothing refers to it yet");
        }
    }
    // Once is enough.
    ok(hull(
        corner,
        &["push", "-q", "--tls-verify=false", &format!("{}/a/b:signature", at.address()), &there("again")],
    ));
    let line = |at: usize, kind: &str| format!("{} {kind}\n", digest(&images[at].1.manifest));
    assert_eq!(list(), line(1, SIGNATURE) + &line(2, "application/vnd.example.contents"));
    let tag = digest(&images[0].1.manifest).replace(':', "-");
    let index: Value =
        serde_json::from_str(&ok(hull(corner, &["manifest", "inspect", "--tls-verify=false", &there(&tag)])))
            .unwrap();
    assert_eq!((&index["mediaType"], &index["manifests"][0]), (&INDEX.into(), &entry(&images[1].1)));
}

#[test]
fn a_registry_that_says_that_it_has_listed_a_referrer_gets_no_list_under_a_tag() {
    let images = images();
    let store = Corner::new();
    let source = registry(images.clone(), |_| None);
    let from = format!("{}/a/b:signature", source.address());
    ok(hull(&store, &["pull", "-q", "--tls-verify=false", &from]));
    let subject = digest(&images[0].1.manifest);
    // It has every blob already, and takes every manifest.
    let at = Scripted::new(move |asked| match asked.method.as_str() {
        "HEAD" => Answer::status(200),
        "PUT" => Answer::status(201).with("oci-subject", subject.clone()),
        _ => Answer::status(404),
    });
    ok(hull(&store, &["push", "-q", "--tls-verify=false", &from, &format!("{}/c/d:x", at.address())]));
    let puts: Vec<String> =
        at.asked().iter().filter(|asked| asked.method == "PUT").map(|asked| asked.target.clone()).collect();
    assert_eq!(puts, ["/v2/c/d/manifests/x"]);
}

#[test]
fn lists_that_are_none_are_refused_and_a_missing_image_is_told() {
    let images = images();
    let (first, subject) = (images[0].1.clone(), digest(&images[0].1.manifest));
    for (body, why) in [("no JSON", "it is no list"), ("{\"manifests\":[{\"digest\":7}]}", "it is no list")] {
        let at = registry(vec![("subject", first.clone())], {
            let target = format!("/v2/a/b/referrers/{subject}");
            move |asked| (asked.target == target).then(|| Answer::ok(INDEX, body))
        });
        let corner = Corner::new();
        let name = |tag: &str| format!("{}/a/b:{tag}", at.address());
        let said = hull(&corner, &["manifest", "referrers", "--tls-verify=false", &name("subject")]);
        assert!(said.code == 1 && said.err.contains(why), "{said:?}");
        let said = hull(&corner, &["manifest", "referrers", "--tls-verify=false", &name("missing")]);
        assert!(said.code == 1 && said.err.contains("missing"), "{said:?}");
    }
}
