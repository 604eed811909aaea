//! Registries that misbehave: every pull ends with an error that says why, within bounds, and leaves nothing.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hull_tests::scripted::{self, Answer, Asked, MANIFEST, Scripted, TinyImage, digest, short};
use hull_tests::{Corner, Said, entries};

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

#[test]
fn a_layer_with_another_digest_is_refused() {
    let image = TinyImage::new(5000);
    let mut wrong = image.clone();
    wrong.layers = TinyImage::new(6000).layers;
    let size = wrong.layer().len() as u64;
    let wrong = wrong.claiming(&digest(image.layer()), size);
    refused("its digest is", move |asked| wrong.answer(asked));
}

#[test]
fn a_layer_longer_than_its_descriptor_says_is_refused() {
    let image = TinyImage::new(5000);
    let size = image.layer().len() as u64 - 10;
    let hash = digest(image.layer());
    let image = image.claiming(&hash, size);
    refused("more than the", move |asked| image.answer(asked));
}

#[test]
fn a_layer_that_ends_early_is_an_error_and_its_beginning_is_kept() {
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
fn a_broken_connection_is_continued_within_one_pull() {
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
fn a_server_that_ignores_ranges_is_read_again_and_one_that_gives_others_is_refused() {
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
fn a_stalled_layer_is_given_up() {
    let corner = Corner::new();
    let image = TinyImage::new(100_000);
    let registry = Scripted::new(move |asked| match image.is_layer(asked) {
        true => short(image.layer().len(), Vec::new(), Duration::from_secs(20)),
        false => image.answer(asked),
    });
    let start = Instant::now();
    let said = pull(&corner, &registry);
    assert!(said.code == 1 && said.err.contains("nothing came for too long"), "{said:?}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn documents_without_end_are_cut_off() {
    fn endless(_: &Asked) -> Answer {
        Answer::Raw(Box::new(|stream| {
            let head = format!("HTTP/1.1 200 X\r\ncontent-type: {MANIFEST}\r\ntransfer-encoding: chunked\r\n\r\n");
            let mut chunk = b"100000\r\n".to_vec();
            chunk.resize(chunk.len() + (1 << 20), b' ');
            chunk.extend_from_slice(b"\r\n");
            if stream.write_all(head.as_bytes()).is_ok() {
                // 10 GiB, or until the client has had enough.
                let _ = (0..10 << 10).try_for_each(|_| stream.write_all(&chunk));
            }
        }))
    }
    fn announced(_: &Asked) -> Answer {
        short(10 << 30, b"{".to_vec(), Duration::ZERO)
    }
    let image = TinyImage::new(10);
    refused("more than 4194304 bytes", changed(&image, is_manifest, endless));
    refused("more than 4194304 bytes", changed(&image, is_manifest, announced));
    refused("bytes", changed(&image, |image, asked| asked.target.ends_with(&digest(&image.config)), endless));
}

#[test]
fn documents_that_are_no_image_are_refused() {
    fn html(_: &Asked) -> Answer {
        Answer::ok("text/html; charset=utf-8", "<html>")
    }
    fn schema_1(_: &Asked) -> Answer {
        Answer::ok(
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
        )
    }
    fn both(_: &Asked) -> Answer {
        let both = format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","manifests":[],"layers":[]}}"#);
        Answer::ok(MANIFEST, both)
    }
    fn traversal(_: &Asked) -> Answer {
        let digest = format!("sha256:../../{}", "a".repeat(58));
        let said = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":2}},"layers":[]}}"#
        );
        Answer::ok(MANIFEST, said)
    }
    fn header(_: &Asked) -> Answer {
        Answer::ok(MANIFEST, "{}").with("docker-content-digest", "sha256:../../etc/passwd")
    }
    fn other_digest(_: &Asked) -> Answer {
        Answer::ok(MANIFEST, "{}").with("docker-content-digest", digest(b"another"))
    }
    fn deep(_: &Asked) -> Answer {
        Answer::ok(MANIFEST, format!("{}{}", r#"{"a":["#.repeat(10_000), "]}".repeat(10_000)))
    }
    let image = TinyImage::new(10);
    for (why, answer) in [
        ("which is no image manifest", html as Answer2),
        ("schema 1, which is not supported", schema_1),
        ("a manifest and an index at once", both),
        ("cannot read the reference", traversal),
        ("cannot read the reference", header),
        ("its content has the digest", other_digest),
        ("it has no config or no layers", deep),
    ] {
        refused(why, changed(&image, is_manifest, answer));
    }
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    let image = TinyImage::new(10);
    let other = TinyImage::packed(image.layer().to_vec(), &digest(b"something else"));
    refused("its diff id is", move |asked| other.answer(asked));
    let mut wrong = image.clone();
    wrong.config.push(b' ');
    let honest = image.clone();
    refused("its descriptor says", move |asked| match asked.target.ends_with(&digest(&honest.config)) {
        true => Answer::ok("x/y", wrong.config.clone()),
        false => honest.answer(asked),
    });
}

#[test]
fn layers_that_are_small_only_when_packed_are_cut_off() {
    // The beginning of a terabyte of zeros, where 32 MiB are allowed.
    let size = 1u64 << 40;
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").expect("a path");
    header.set_size(size);
    header.set_mode(0o600);
    header.set_cksum();
    let zeros = vec![0u8; 1 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(header.as_bytes()).expect("memory");
    for _ in 0..64 {
        gzip.write_all(&zeros).expect("memory");
    }
    let mut zstd = zstd::Encoder::new(Vec::new(), 3).expect("memory");
    zstd.write_all(header.as_bytes()).expect("memory");
    for _ in 0..64 {
        zstd.write_all(&zeros).expect("memory");
    }
    for packed in [gzip.finish().expect("memory"), zstd.finish().expect("memory")] {
        let image = TinyImage::packed(packed, &digest(b""));
        refused("larger than the limit", move |asked| image.answer(asked));
    }
}

#[test]
fn a_zstd_window_of_two_gigabytes_is_refused() {
    let mut packer = zstd::Encoder::new(Vec::new(), 1).expect("memory");
    packer.window_log(31).expect("a window");
    packer.write_all(&[1u8; 4096]).expect("memory");
    let image = TinyImage::packed(packer.finish().expect("memory"), &digest(b""));
    refused("cannot read the archive", move |asked| image.answer(asked));
}

#[test]
fn redirects_are_bounded_and_carry_no_credentials() {
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
fn a_registry_that_always_wants_a_login_is_asked_twice_and_no_more() {
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
fn a_token_server_elsewhere_on_this_machine_is_not_asked() {
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
fn a_token_is_asked_for_this_repository_alone_and_sent_to_the_registry() {
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
fn a_registry_that_is_busy_is_asked_again_when_it_says_so() {
    let image = TinyImage::new(1000);
    let corner = Corner::new();
    let tries = Arc::new(AtomicUsize::new(0));
    let count = tries.clone();
    let registry =
        Scripted::new(move |asked| match is_manifest(&image, asked) && count.fetch_add(1, Ordering::Relaxed) < 2 {
            true => Answer::status(429).with("retry-after", "1"),
            false => image.answer(asked),
        });
    let start = Instant::now();
    let said = pull(&corner, &registry);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(tries.load(Ordering::Relaxed), 3);
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    drop(registry);

    let image = TinyImage::new(10);
    let long = changed(&image, is_manifest, |_| Answer::status(503).with("retry-after", "86400"));
    let start = Instant::now();
    let registry = refused("answered 503", long);
    assert!(start.elapsed() < Duration::from_secs(5) && registry.asked().len() <= 3);
    refused("answered 500", changed(&image, is_manifest, |_| Answer::status(500)));
}

#[test]
fn without_a_word_no_registry_is_insecure_and_loopback_is_not_either() {
    let image = TinyImage::new(10);
    let registry = Scripted::new(move |asked| image.answer(asked));
    let corner = Corner::new();
    let said = scripted::pull(&corner, &registry, &[], "a/b:1");
    assert!(said.code == 1 && said.err.starts_with("hull: cannot pull"), "{said:?}");
    let read: Vec<_> = registry.asked().into_iter().filter(|asked| asked.method == "GET").collect();
    assert!(read.is_empty(), "{read:?}");
}
