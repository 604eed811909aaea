//! Rows D1 to D8 of the table of known flaws: registries that mean harm. Every pull ends with an error that says why, within
//! bounds, and leaves nothing. Those that only fail are in `registry_faults`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hull_tests::registry::{Kind, Registry};
use hull_tests::scripted::{self, Answer, Asked, INDEX, MANIFEST, Scripted, TinyImage, digest, short};
use hull_tests::tar::Tar;
use hull_tests::{Builder, Corner, Said, entries};

/// `hull pull` of `a/b:1` from a scripted registry.
fn pull(corner: &Corner, registry: &Scripted) -> Said {
    scripted::pull(corner, registry, &["--tls-verify=false"], "a/b:1")
}

/// Nothing of a failed pull is in the store.
fn assert_nothing(corner: &Corner) {
    let store = corner.root();
    for folder in ["blobs/sha256", "layers", "staging", "downloads"] {
        let left = entries(&store.join(folder));
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
}

/// Pulls from a registry that answers so, and finds `why` in the error.
fn refused(why: &str, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Scripted {
    let corner = Corner::new();
    let registry = Scripted::new(answer);
    let start = Instant::now();
    let said = pull(&corner, &registry);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.starts_with("hull: cannot ") && said.err.contains(why), "{said:?}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert_nothing(&corner);
    registry
}

fn changed(
    image: &TinyImage,
    when: fn(&TinyImage, &Asked) -> bool,
    other: Answer2,
) -> impl Fn(&Asked) -> Answer + use<> {
    let image = image.clone();
    move |asked| if when(&image, asked) { other(asked) } else { image.answer(asked) }
}

type Answer2 = fn(&Asked) -> Answer;

fn is_manifest(_: &TinyImage, asked: &Asked) -> bool {
    asked.target.contains("/manifests/")
}

#[test]
fn an_honest_image_is_pulled_and_shown() {
    let corner = Corner::new();
    let image = TinyImage::new(1000);
    let registry = Scripted::new(move |asked| image.answer(asked));
    let said = pull(&corner, &registry);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("Downloaded newer image"), "{said:?}");
    let images: Said = corner.hull().arg("images").output().expect("hull starts").into();
    assert!(images.out.contains("/a/b ") && images.out.contains(" 1 "), "{images:?}");
    assert!(registry.asked().iter().all(|asked| asked.header("authorization").is_none()));
    let again = pull(&corner, &registry);
    assert!(again.out.contains("Image is up to date"), "{again:?}");
}

/// A manifest with this digest for its configuration and this descriptor of a layer.
fn manifest(config: &str, layer: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[{layer}]}}"#
    )
}

fn layer(digest: &str, size: &str) -> String {
    format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":{size}}}"#)
}

/// D1, CVE-2024-3727: a digest is a digest before anything is asked with it.
#[test]
fn d1_a_text_that_is_no_digest_is_refused_before_anything_is_asked_for() {
    let long = |text: &str| format!("sha256:{}{}", text, "a".repeat(64 - text.len()));
    let good = digest(b"{}");
    for wrong in [
        "",
        "sha256:",
        "sha256:../../../../etc/passwd",
        &long("../../x/"),
        &long("A"),
        &long("g"),
        &long("a")[..70],
        &format!("{}a", long("a")),
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        &good.replace("sha256", "sha1"),
        &good.replace("sha256", "SHA256"),
        &good.replace(':', "-"),
        &format!("{good}\\n"),
    ] {
        for said in [manifest(wrong, ""), manifest(&good, &layer(wrong, "1"))] {
            let registry = refused("cannot read", move |asked| match asked.target.as_str() {
                "/v2/" => Answer::status(200),
                _ => Answer::ok(MANIFEST, said.clone()),
            });
            let asked: Vec<_> = registry.asked().into_iter().map(|asked| asked.target).collect();
            assert!(
                asked.iter().all(|target| target == "/v2/" || target == "/v2/a/b/manifests/1"),
                "{wrong:?}: {asked:?}"
            );
        }
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{wrong}","size":2,"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
        );
        refused("cannot read", move |asked| match asked.target.as_str() {
            "/v2/" => Answer::status(200),
            _ => Answer::ok(INDEX, index.clone()),
        });
    }
    let header: Answer2 = |_| Answer::ok(MANIFEST, "{}").with("docker-content-digest", "sha256:../../etc/passwd");
    refused("cannot read the reference", changed(&TinyImage::new(10), is_manifest, header));
    let honest = TinyImage::new(10);
    let diff_ids = honest.with_config(
        r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:../x"]}}"#,
    );
    refused("cannot read the reference", move |asked| diff_ids.answer(asked));
}

/// D2, `descriptor.md`: first the size, then the digest, and nothing is used before.
#[test]
fn d2_sizes_that_cannot_be_and_documents_that_are_others_are_refused() {
    let image = TinyImage::new(5000);
    let hash = digest(image.layer());
    for (size, why) in [
        ("0", "its digest is"),
        ("-1", "cannot read"),
        ("9223372036854775808", "more than 64 GiB"),
        ("1e3", "cannot read"),
        ("null", "cannot read"),
    ] {
        let said = String::from_utf8(image.manifest.clone()).unwrap();
        let said = said.replace(&format!("\"size\":{}", image.layer().len()), &format!("\"size\":{size}"));
        assert!(said.contains(&format!("\"size\":{size}")));
        let other = image.clone();
        refused(why, move |asked| match is_manifest(&other, asked) {
            true => Answer::ok(MANIFEST, said.clone()),
            false => other.answer(asked),
        });
    }
    // Junk behind a layer that is right.
    let (junk, size) = (image.clone(), image.layer().len() as u64 + 3);
    let junk = junk.claiming(&hash, size);
    refused("cannot read the archive", move |asked| match junk.is_layer(asked) {
        true => Answer::ok("x/y", [junk.layer(), b"abc"].concat()),
        false => junk.answer(asked),
    });
    // A header that says another digest, and another manifest than the one whose digest was asked for.
    let other: Answer2 = |_| Answer::ok(MANIFEST, "{}").with("docker-content-digest", digest(b"another"));
    refused("its content has the digest", changed(&image, is_manifest, other));
    let corner = Corner::new();
    let registry = Scripted::new(move |asked| image.answer(asked));
    let name = format!("a/b@{}", digest(b"another"));
    let said = scripted::pull(&corner, &registry, &["--tls-verify=false"], &name);
    assert!(said.code == 1 && said.err.contains("its content has the digest"), "{said:?}");
    assert_nothing(&corner);
}

/// D3, CVE-2021-41190: a document is one thing.
#[test]
fn d3_documents_that_are_two_things_or_none_are_refused() {
    let good = digest(b"{}");
    let both = format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","manifests":[],"layers":[]}}"#);
    let index_with_config =
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[],"config":{}}}"#, layer(&good, "2"));
    let one = manifest(&good, "");
    let v1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    for (what, media_type, body, why) in [
        ("both", MANIFEST, &*both, "a manifest and an index at once"),
        ("an index with a config", INDEX, &index_with_config, "a manifest and an index at once"),
        ("a manifest as an index", INDEX, &one, "cannot read"),
        ("html", "text/html; charset=utf-8", "<html>", "which is no image manifest"),
        ("no type", "", &one, "which is no image manifest"),
        ("a plain type", "application/json", &one, "which is no image manifest"),
        ("schema 1 by type", v1, r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1, which is not supported"),
        ("schema 1 by content", MANIFEST, r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1, which is not supported"),
    ] {
        let (media_type, body) = (media_type.to_owned(), body.to_owned());
        eprintln!("{what}");
        refused(why, move |asked| match asked.target.as_str() {
            "/v2/" => Answer::status(200),
            _ => Answer::ok(&media_type, body.clone()),
        });
    }
}

#[test]
fn d2_a_layer_with_another_digest_is_refused() {
    let image = TinyImage::new(5000);
    let mut wrong = image.clone();
    wrong.layers = TinyImage::new(6000).layers;
    let size = wrong.layer().len() as u64;
    let wrong = wrong.claiming(&digest(image.layer()), size);
    refused("its digest is", move |asked| wrong.answer(asked));
}

#[test]
fn d2_a_layer_longer_than_its_descriptor_says_is_refused() {
    let image = TinyImage::new(5000);
    let size = image.layer().len() as u64 - 10;
    let hash = digest(image.layer());
    let image = image.claiming(&hash, size);
    refused("more than the", move |asked| image.answer(asked));
}

#[test]
fn d7_a_layer_that_ends_early_is_an_error_and_its_beginning_is_kept() {
    let corner = Corner::new();
    let image = TinyImage::new(100_000);
    let whole = image.clone();
    let cut = Scripted::new(move |asked| match image.is_layer(asked) {
        true => {
            let from = asked.range().unwrap_or(0);
            short(image.layer().len() - from, image.layer()[from..from.max(50_000)].to_vec(), Duration::ZERO)
        }
        false => image.answer(asked),
    });
    let said = pull(&corner, &cut);
    assert!(said.code == 1 && said.err.contains("cannot download the layer"), "{said:?}");
    assert_eq!(entries(&corner.root().join("downloads")).len(), 1);
    assert!(entries(&corner.root().join("staging")).is_empty());
    // The next pull goes on from there.
    let log = whole.clone();
    let honest = Scripted::new(move |asked| whole.answer(asked));
    let said = pull(&corner, &honest);
    assert_eq!(said.code, 0, "{said:?}");
    let ranges: Vec<_> = honest.asked().iter().filter(|asked| log.is_layer(asked)).map(Asked::range).collect();
    assert_eq!(ranges, [Some(50_000)]);
    assert!(entries(&corner.root().join("downloads")).is_empty());
}

#[test]
fn d7_a_broken_connection_is_continued_within_one_pull() {
    let corner = Corner::new();
    let image = TinyImage::new(100_000);
    let log = image.clone();
    let registry = Scripted::new(move |asked| match (image.is_layer(asked), asked.range()) {
        (true, None) => short(image.layer().len(), image.layer()[..30_000].to_vec(), Duration::ZERO),
        _ => image.answer(asked),
    });
    assert_eq!(pull(&corner, &registry).code, 0);
    let ranges: Vec<_> = registry.asked().iter().filter(|asked| log.is_layer(asked)).map(Asked::range).collect();
    assert_eq!(ranges, [None, Some(30_000)]);
}

#[test]
fn d7_a_server_that_ignores_ranges_is_read_again_and_one_that_gives_others_is_refused() {
    let image = TinyImage::new(100_000);
    let ignoring = image.clone();
    let corner = Corner::new();
    let tries = AtomicUsize::new(0);
    let registry = Scripted::new(move |asked| match ignoring.is_layer(asked) {
        true if tries.fetch_add(1, Ordering::Relaxed) == 0 => {
            short(ignoring.layer().len(), ignoring.layer()[..30_000].to_vec(), Duration::ZERO)
        }
        true => Answer::ok("x/y", ignoring.layer().to_vec()),
        false => ignoring.answer(asked),
    });
    let said = pull(&corner, &registry);
    assert_eq!(said.code, 0, "{said:?}");
    drop(registry);

    let corner = Corner::new();
    let registry = Scripted::new(move |asked| match (image.is_layer(asked), asked.range()) {
        (true, None) => short(image.layer().len(), image.layer()[..30_000].to_vec(), Duration::ZERO),
        (true, Some(_)) => {
            Answer::Whole(206, Vec::new(), image.layer()[20_000..].to_vec()).with("content-range", "bytes 20000-1/2")
        }
        _ => image.answer(asked),
    });
    let said = pull(&corner, &registry);
    assert!(said.code == 1 && said.err.contains("the registry gives \"bytes 20000-1/2\""), "{said:?}");
}

#[test]
fn d2_a_configuration_that_does_not_fit_is_refused() {
    let image = TinyImage::new(10);
    let other = TinyImage::packed(image.layer().to_vec(), &digest(b"something else"));
    refused("its diff id is", move |asked| other.answer(asked));
    let mut wrong = image.clone();
    wrong.config.push(b' ');
    let honest = image.clone();
    refused("more than the", move |asked| match asked.target.ends_with(&digest(&honest.config)) {
        true => Answer::ok("x/y", wrong.config.clone()),
        false => honest.answer(asked),
    });
}

#[test]
fn d4_redirects_are_bounded_and_carry_no_credentials() {
    let image = TinyImage::new(1000);
    let layer = image.clone();
    let storage = Scripted::new(move |_| Answer::ok("x/y", layer.layer().to_vec()));
    let elsewhere = format!("http://{}/elsewhere", storage.address());
    let corner = Corner::new();
    let inner = image.clone();
    let registry = Scripted::new(move |asked| {
        if asked.header("authorization").is_none() {
            return Answer::status(401).with("www-authenticate", "Basic realm=\"x\"");
        }
        match inner.is_layer(asked) {
            true => Answer::status(307).with("location", elsewhere.clone()),
            false => inner.answer(asked),
        }
    });
    let said = scripted::pull(&corner, &registry, &["--tls-verify=false", "--creds", "u:canary"], "a/b:1");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(storage.asked().len(), 1);
    assert!(storage.asked()[0].header("authorization").is_none(), "{:?}", storage.asked());
    assert!(registry.asked().iter().any(|asked| asked.header("authorization") == Some("Basic dTpjYW5hcnk=")));
    drop((registry, storage));

    let looping = refused(
        "redirects more than 10 times",
        changed(&image, is_manifest, |_| Answer::status(302).with("location", "/v2/a/b/manifests/2")),
    );
    assert!(looping.asked().len() < 20);
    let to_file: Answer2 = |_| Answer::status(302).with("location", "file:///etc/shadow");
    refused("it redirects to \"file:", changed(&image, is_manifest, to_file));
}

#[test]
fn d4_a_registry_that_always_wants_a_login_is_asked_twice_and_no_more() {
    let image = TinyImage::new(10);
    let registry = refused(
        "wants a name and a password",
        changed(&image, is_manifest, |_| Answer::status(401).with("www-authenticate", "Basic realm=\"x\"")),
    );
    assert_eq!(registry.asked().iter().filter(|asked| asked.target.contains("manifests")).count(), 1);

    let corner = Corner::new();
    let registry = Scripted::new(|_| Answer::status(401).with("www-authenticate", "Basic realm=\"x\""));
    let said = scripted::pull(&corner, &registry, &["--tls-verify=false", "--creds", "u:canary"], "a/b:1");
    assert!(said.code == 1 && said.err.contains("answered 401") && !said.err.contains("canary"), "{said:?}");
    assert!(registry.asked().len() <= 4, "{:?}", registry.asked());
}

#[test]
fn d4_a_token_server_elsewhere_on_this_machine_is_not_asked() {
    let spy = Scripted::new(|_| Answer::ok("application/json", r#"{"token":"x"}"#));
    let port = spy.address().rsplit_once(':').expect("a port").1.to_owned();
    for realm in [
        "http://169.254.169.254/latest",
        "file:///etc/shadow",
        "http://[::1]:1/t",
        &format!("http://localhost:{port}/t"),
    ] {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
        refused("token server", move |asked| match asked.target.as_str() {
            "/v2/" => Answer::status(200),
            _ => Answer::status(401).with("www-authenticate", challenge.clone()),
        });
    }
    assert!(spy.asked().is_empty(), "{:?}", spy.asked());
}

#[test]
fn d4_a_token_is_asked_for_this_repository_alone_and_sent_to_the_registry() {
    let image = TinyImage::new(1000);
    let corner = Corner::new();
    let registry = Scripted::new(move |asked| {
        if asked.target.starts_with("/token") {
            return Answer::ok("application/json", r#"{"access_token":"tok.en"}"#);
        }
        if asked.header("authorization") == Some("Bearer tok.en") {
            return image.answer(asked);
        }
        let host = asked.header("host").unwrap_or_default();
        let challenge =
            format!("Bearer realm=\"http://{host}/token\",service=\"svc\",scope=\"repository:secret/x:push\"");
        Answer::status(401).with("www-authenticate", challenge)
    });
    let said = scripted::pull(&corner, &registry, &["--tls-verify=false", "--creds", "u:p"], "a/b:1");
    assert_eq!(said.code, 0, "{said:?}");
    let tokens: Vec<_> = registry.asked().into_iter().filter(|asked| asked.target.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].target, "/token?service=svc&scope=repository:a/b:pull");
    assert_eq!(tokens[0].header("authorization"), Some("Basic dTpw"));
}

#[test]
fn d5_without_a_word_no_registry_is_insecure_and_loopback_is_not_either() {
    let image = TinyImage::new(10);
    let registry = Scripted::new(move |asked| image.answer(asked));
    let corner = Corner::new();
    let said = scripted::pull(&corner, &registry, &[], "a/b:1");
    assert!(said.code == 1 && said.err.starts_with("hull: cannot pull"), "{said:?}");
    let read: Vec<_> = registry.asked().into_iter().filter(|asked| asked.method == "GET").collect();
    assert!(read.is_empty(), "{read:?}");
}

/// D4, CVE-2020-15157: what a manifest says of other places is not followed.
#[test]
fn d4_urls_in_a_manifest_are_not_asked() {
    let spy = Scripted::new(|_| Answer::ok("x/y", "x"));
    let image = TinyImage::new(1000);
    let urls = format!("\"urls\":[\"http://{}/layer\"],\"size\":{}", spy.address(), image.layer().len());
    let said = String::from_utf8(image.manifest.clone()).unwrap();
    let said = said.replace(&format!("\"size\":{}", image.layer().len()), &urls);
    assert!(said.contains("urls"));
    let corner = Corner::new();
    let registry = Scripted::new(move |asked| match is_manifest(&image, asked) {
        true => Answer::ok(MANIFEST, said.clone()),
        false => image.answer(asked),
    });
    assert_eq!(pull(&corner, &registry).code, 0);
    assert!(spy.asked().is_empty(), "{:?}", spy.asked());
}

/// D5, CVE-2025-6032: a certificate of an unknown authority, one for another name and a registry without TLS are errors, in
/// every verb, and nothing is sent without TLS instead.
#[test]
fn d5_certificates_are_verified_and_nothing_falls_back() {
    let corner = Corner::new();
    let registry = Registry::start(&corner.path().join("registry"), Kind::Tls);
    let certificates = registry.certificates().to_string_lossy().into_owned();
    let hull = |arguments: &[&str]| -> Said {
        let mut hull = corner.hull();
        hull.env("HOME", corner.path()).env("CONTAINERS_REGISTRIES_CONF", "/dev/null").env_remove("XDG_RUNTIME_DIR");
        hull.args(arguments).output().unwrap().into()
    };
    let name = format!("{}/a/b:1", registry.address());
    for arguments in [&["pull", &name][..], &["run", "--rm", &name, "true"], &["pull", "--tls-verify", &name]] {
        let said = hull(arguments);
        assert!(said.code != 0 && said.err.contains("certificate"), "{arguments:?}: {said:?}");
    }
    // 127.0.0.2 is loopback too, and not a name that the certificate has.
    let elsewhere = format!("127.0.0.2:{}/a/b:1", registry.address().rsplit_once(':').unwrap().1);
    let said = hull(&["pull", "--cert-dir", &certificates, &elsewhere]);
    assert!(said.code == 1, "{said:?}");
    // With the authority it is the registry that answers.
    let said = hull(&["pull", "--cert-dir", &certificates, &name]);
    assert!(said.code == 1 && said.err.contains("404"), "{said:?}");
    let plain = Scripted::new(|_| Answer::status(200));
    let said = hull(&["pull", "--creds", "u:canary", &format!("{}/a/b:1", plain.address())]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(plain.asked().iter().all(|asked| asked.header("authorization").is_none()), "{:?}", plain.asked());
}

/// D6, CVE-2024-24557: the name is the user's, and what an image says of its making is no step of ours.
#[test]
fn d6_an_image_gives_itself_no_name_and_no_step_of_a_build() {
    let store = Builder::new();
    let mine = "FROM base\nRUN echo mine > /made\n";
    assert_eq!(store.build(mine).code, 0);
    let raw = std::fs::read_to_string(store.root().join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&raw).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    let made = entries.iter().find(|entry| entry["annotations"].to_string().contains("/made:")).unwrap();
    let blob = |digest: &serde_json::Value| {
        let path = store.root().join("blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"));
        serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).unwrap()).unwrap()
    };
    // The same configuration, history and labels, with another layer and names of its own.
    let attacker =
        TinyImage::stack(&[Tar::default().file("made", "theirs").end(), Tar::default().file("x", "").end()]);
    let mut config = blob(&blob(&made["digest"])["config"]["digest"]);
    let own: serde_json::Value = serde_json::from_slice(&attacker.config).unwrap();
    config["rootfs"] = own["rootfs"].clone();
    config["config"]["Labels"] =
        serde_json::json!({"org.opencontainers.image.ref.name": "docker.io/library/base:latest"});
    let attacker = attacker.with_config(config.to_string());
    let registry = Scripted::new(move |asked| attacker.answer(asked));
    let said = scripted::pull(store.corner(), &registry, &["--tls-verify=false"], "base:latest");
    assert_eq!(said.code, 0, "{said:?}");
    let images = store.hull(&["images"]).out;
    assert_eq!(images.lines().count(), 4, "base, made and the pulled one: {images}");
    let name = format!("{}/base:latest", registry.address());
    store.hull(&["rmi", "made"]);
    assert_eq!(store.build(mine).code, 0);
    assert_eq!(store.shell("cat /made").out, "mine\n");
    let on_theirs = store.build(&mine.replace("base", &name));
    assert!(!on_theirs.err.contains("CACHED"), "{on_theirs:?}");
}

/// D8, CVE-2021-41092: a password is nowhere but on its way to the registry.
#[test]
fn d8_credentials_are_in_no_file_and_in_no_word() {
    const SECRET: &str = "canary-77a1";
    let corner = Corner::new();
    let image = TinyImage::new(1000);
    let registry = Scripted::new(move |asked| {
        if asked.target.starts_with("/token") {
            return Answer::ok("application/json", format!(r#"{{"token":"{SECRET}-token"}}"#));
        }
        match asked.header("authorization") {
            Some(header) if header.starts_with("Bearer ") => image.answer(asked),
            _ => {
                let host = asked.header("host").unwrap_or_default();
                let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
                Answer::status(401).with("www-authenticate", challenge)
            }
        }
    });
    let creds = format!("user:{SECRET}");
    let said = scripted::pull(&corner, &registry, &["--tls-verify=false", "--creds", &creds], "a/b:1");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!said.out.contains(SECRET) && !said.err.contains(SECRET), "{said:?}");
    // A registry that refuses has its words shown, and they may be ours.
    let echo = Scripted::new(|asked| {
        let given = asked.header("authorization").unwrap_or_default().to_owned();
        Answer::status(403).with("x-seen", given)
    });
    let said = scripted::pull(&corner, &echo, &["--tls-verify=false", "--creds", &creds], "a/b:1");
    assert!(said.code == 1 && !said.err.contains(SECRET), "{said:?}");
    let name = format!("{}/a/b:1", registry.address());
    for arguments in [&["images"][..], &["run", "--rm", "--explain", &name, "/x"], &["system", "check"]] {
        let said: Said = corner.hull().args(arguments).output().unwrap().into();
        assert!(!said.out.contains(SECRET) && !said.err.contains(SECRET), "{arguments:?}: {said:?}");
    }
    let encoded = "dXNlcjpjYW5hcnktNzdhMQ==";
    for word in [SECRET, encoded] {
        let found = std::process::Command::new("grep").args(["-r", "-l", word]).arg(corner.path()).output().unwrap();
        assert_eq!(String::from_utf8(found.stdout).unwrap(), "", "{word}");
    }
}
