//! Registries that misbehave while something is pushed: what arrives is right or the push fails, within bounds, and nobody
//! but the registry learns who we are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hull_tests::scripted::{Answer, Asked, Scripted, digest};
use hull_tests::{Builder, Said};

/// An honest registry that takes uploads, in memory.
#[derive(Default)]
struct Uploads {
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    sessions: Mutex<BTreeMap<String, Vec<u8>>>,
    manifests: Mutex<BTreeMap<String, Vec<u8>>>,
    count: AtomicUsize,
}

impl Uploads {
    fn answer(&self, asked: &Asked) -> Answer {
        let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
        let last = path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut sessions = self.sessions.lock().unwrap();
        match asked.method.as_str() {
            "GET" if path == "/v2/" => Answer::ok("application/json", "{}"),
            "HEAD" if path.contains("/blobs/") => match self.blobs.lock().unwrap().contains_key(&last) {
                true => Answer::status(200),
                false => Answer::status(404),
            },
            "POST" => {
                let name = self.count.fetch_add(1, Ordering::Relaxed).to_string();
                sessions.insert(name.clone(), Vec::new());
                Answer::status(202).with("location", format!("/v2/up/{name}"))
            }
            "GET" if path.starts_with("/v2/up/") => match sessions.get(&last) {
                Some(data) => so_far(204, path, data),
                None => Answer::status(404),
            },
            "PATCH" => {
                let Some(data) = sessions.get_mut(&last) else { return Answer::status(404) };
                let from = asked.header("content-range").and_then(|range| range.split('-').next()?.parse().ok());
                if from != Some(data.len()) {
                    return Answer::status(416);
                }
                data.extend_from_slice(&asked.body);
                so_far(202, path, data)
            }
            "PUT" if path.contains("/manifests/") => {
                let hash = digest(&asked.body);
                self.manifests.lock().unwrap().insert(last, asked.body.clone());
                Answer::status(201).with("docker-content-digest", hash)
            }
            "PUT" => {
                let Some(mut data) = sessions.remove(&last) else { return Answer::status(404) };
                data.extend_from_slice(&asked.body);
                let wanted = query.strip_prefix("digest=").unwrap_or_default().to_owned();
                if digest(&data) != wanted {
                    return Answer::status(400);
                }
                self.blobs.lock().unwrap().insert(wanted, data);
                Answer::status(201)
            }
            "GET" if path.contains("/manifests/") => match self.manifests.lock().unwrap().get(&last) {
                Some(data) => Answer::ok("application/vnd.oci.image.index.v1+json", data.clone()),
                None => Answer::status(404),
            },
            _ => Answer::status(404),
        }
    }
}

fn so_far(status: u16, path: &str, data: &[u8]) -> Answer {
    Answer::status(status).with("location", path).with("range", format!("0-{}", data.len().saturating_sub(1)))
}

/// A store with an image of one layer of 40,000 bytes that do not compress well, besides the base's.
fn store() -> Builder {
    let store = Builder::new();
    std::fs::write(store.context().join("noise"), hull_tests::scripted::noise(7, 40_000)).unwrap();
    assert_eq!(store.build("FROM scratch\nCOPY noise /noise\n").code, 0);
    store
}

/// The same with a layer of 12 MiB, of which some is sent before all of it is packed.
fn large() -> Builder {
    let store = Builder::new();
    std::fs::write(store.context().join("noise"), hull_tests::scripted::noise(7, 12 << 20)).unwrap();
    assert_eq!(store.build("FROM scratch\nCOPY noise /noise\n").code, 0);
    store
}

fn push(store: &Builder, registry: &Scripted, flags: &[&str]) -> Said {
    push_in(10_000, store, registry, flags)
}

/// Pushes in chunks of so many bytes.
fn push_in(chunk: usize, store: &Builder, registry: &Scripted, flags: &[&str]) -> Said {
    let name = format!("{}/a/b:1", registry.address());
    let mut hull = store.command(&[&["push", "--tls-verify=false"], flags, &["made", &name]].concat());
    hull.env("HOME", store.corner().path()).env("HULL_REGISTRY_TIMEOUT", "2").env_remove("XDG_RUNTIME_DIR");
    hull.env("CONTAINERS_REGISTRIES_CONF", "/dev/null").env("HULL_UPLOAD_CHUNK", chunk.to_string());
    store.said(hull.output().expect("hull starts"))
}

/// A registry that is honest but for what `wrong` answers.
fn registry(wrong: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> (Arc<Uploads>, Scripted) {
    let uploads = Arc::new(Uploads::default());
    let honest = uploads.clone();
    (uploads, Scripted::new(move |asked| wrong(asked).unwrap_or_else(|| honest.answer(asked))))
}

fn is_upload(asked: &Asked) -> bool {
    asked.target.starts_with("/v2/up/")
}

#[test]
fn an_honest_registry_gets_the_blobs_in_chunks_and_the_manifest_last() {
    let (uploads, server) = registry(|_| None);
    assert_eq!(push(&store(), &server, &[]).code, 0);
    assert_eq!((uploads.blobs.lock().unwrap().len(), uploads.manifests.lock().unwrap().len()), (2, 1));
    let asked = server.asked();
    let chunks = asked.iter().filter(|asked| asked.method == "PATCH").map(|asked| asked.body.len());
    let chunks: Vec<usize> = chunks.collect();
    assert!(chunks.len() >= 5 && chunks[..4] == [10_000; 4], "{chunks:?}");
    assert!(asked.last().unwrap().target.contains("/manifests/1"), "{asked:?}");
}

/// How often something was asked before the registry was asked whether it has the layer, which is once it is packed.
fn before_it_was_packed(asked: &[Asked], method: &str) -> usize {
    let whole = asked.iter().position(|asked| asked.method == "HEAD").expect("it is asked");
    asked[..whole].iter().filter(|asked| asked.method == method).count()
}

#[test]
fn a_large_layer_goes_out_while_it_is_packed() {
    let (uploads, server) = registry(|_| None);
    let said = push_in(4 << 20, &large(), &server, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    let asked = server.asked();
    assert!(before_it_was_packed(&asked, "PATCH") >= 1, "nothing was sent before it was packed");
    assert_eq!(asked.iter().filter(|asked| asked.method == "POST").count(), 2, "one session for each blob");
    // The registry has looked at the digests; and no byte went twice.
    let sent: usize = asked.iter().filter(|asked| is_upload(asked)).map(|asked| asked.body.len()).sum();
    let blobs = uploads.blobs.lock().unwrap();
    assert_eq!((blobs.len(), blobs.values().map(Vec::len).sum::<usize>()), (2, sent));
}

#[test]
fn a_large_layer_whose_first_chunks_break_is_gone_on_with_or_sent_whole() {
    // The connection breaks, the session is lost, chunks are not taken at all.
    for fault in ["break", "lose", "refuse"] {
        let count = AtomicUsize::new(0);
        let (uploads, server) = registry(move |asked| {
            let is_patch = asked.method == "PATCH";
            let looks = asked.method == "GET" && is_upload(asked);
            let nth = if is_patch { count.fetch_add(1, Ordering::Relaxed) } else { count.load(Ordering::Relaxed) };
            match fault {
                "break" => (is_patch && nth == 1).then(|| Answer::Raw(Box::new(|_| {}))),
                "lose" if is_patch && nth == 1 => Some(Answer::status(503)),
                "lose" => (looks && nth == 2).then(|| Answer::status(404)),
                _ => is_patch.then(|| Answer::status(405)),
            }
        });
        let said = push_in(4 << 20, &large(), &server, &[]);
        assert_eq!(said.code, 0, "{fault}: {said:?}");
        assert!(before_it_was_packed(&server.asked(), "PATCH") >= 1, "{fault}");
        assert_eq!(uploads.blobs.lock().unwrap().len(), 2, "{fault}");
    }
}

/// The control is the same push of the blob as it was: then the registry is told a digest.
#[test]
fn a_large_layer_that_turns_out_to_be_damaged_gets_no_name() {
    let store = large();
    let blobs = store.root().join("blobs/sha256");
    let of_layer = |entry: &std::fs::DirEntry| entry.metadata().unwrap().len() > 12 << 20;
    let blob = std::fs::read_dir(blobs).unwrap().map(Result::unwrap).find(of_layer).expect("a layer").path();
    let good = std::fs::read(&blob).unwrap();
    for damaged in [true, false] {
        let mut data = good.clone();
        data[11 << 20] ^= u8::from(damaged);
        std::fs::write(&blob, data).unwrap();
        let (uploads, server) = registry(|_| None);
        let said = push_in(4 << 20, &store, &server, &[]);
        let named = server.asked().iter().any(|asked| asked.method == "PUT" && is_upload(asked));
        assert_eq!((said.code, named), if damaged { (1, false) } else { (0, true) }, "{said:?}");
        assert_eq!(damaged, said.err.contains("its digest is sha256:"), "{said:?}");
        assert_eq!(uploads.manifests.lock().unwrap().len(), usize::from(!damaged));
        assert!(server.asked().iter().any(|asked| asked.method == "PATCH"), "some of it was sent");
    }
}

/// What is shown to fail: with the credentials sent to every address (`is_ours` always true) the spy sees them.
#[test]
fn an_upload_that_goes_on_at_another_host_goes_there_without_credentials_d4() {
    let elsewhere = Arc::new(Uploads::default());
    let honest = elsewhere.clone();
    let spy = Scripted::new(move |asked| honest.answer(asked));
    let address = spy.address().to_owned();
    let (uploads, server) = registry(move |asked| match (asked.header("authorization"), asked.method.as_str()) {
        (None, _) => Some(Answer::status(401).with("www-authenticate", "Basic realm=\"x\"")),
        (_, "POST") => {
            // As a registry that hands uploads to a storage has it, for which the session is the same.
            Some(Answer::status(202).with("location", format!("http://{address}/v2/up/0?state=x")))
        }
        _ => None,
    });
    elsewhere.sessions.lock().unwrap().insert("0".to_owned(), Vec::new());
    let said = push(&store(), &server, &["--creds", "u:canary"]);
    // The bytes went there; that they are not here the registry may say, or not.
    assert!(!spy.asked().is_empty() && uploads.blobs.lock().unwrap().is_empty(), "{said:?}");
    for asked in spy.asked() {
        assert!(asked.header("authorization").is_none() && !format!("{asked:?}").contains("canary"), "{asked:?}");
    }
    assert!(server.asked().iter().any(|asked| asked.header("authorization") == Some("Basic dTpjYW5hcnk=")));
}

/// What is shown to fail: without the look at whose answer a 401 is (`attempt` in the client) the spy is asked for a token.
#[test]
fn another_host_that_wants_a_login_does_not_get_one_d4() {
    let spy = Scripted::new(|_| Answer::ok("application/json", r#"{"token":"x"}"#));
    let realm = format!("http://{}/token", spy.address());
    let other = Scripted::new(move |_| {
        Answer::status(401).with("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"s\""))
    });
    let address = other.address().to_owned();
    let (_, server) = registry(move |asked| match asked.method.as_str() {
        "POST" => Some(Answer::status(202).with("location", format!("http://{address}/up/0"))),
        _ => None,
    });
    let said = push(&store(), &server, &["--creds", "u:canary"]);
    assert!(said.code == 1 && said.err.contains("answered 401") && !said.err.contains("canary"), "{said:?}");
    assert!(spy.asked().is_empty(), "{:?}", spy.asked());
}

#[test]
fn a_connection_that_breaks_within_a_chunk_is_continued_where_the_registry_got_to() {
    let broken = AtomicUsize::new(0);
    let (uploads, server) = registry(move |asked| {
        let range = asked.header("content-range").unwrap_or_default();
        let second = asked.method == "PATCH" && range.starts_with("10000-");
        // The bytes are lost, and the connection with them.
        (second && broken.fetch_add(1, Ordering::Relaxed) < 2).then(|| Answer::Raw(Box::new(|_| {})))
    });
    let said = push(&store(), &server, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(uploads.blobs.lock().unwrap().len(), 2);
    let looks = server.asked().iter().filter(|asked| asked.method == "GET" && is_upload(asked)).count();
    assert_eq!(looks, 2);
    let first = server
        .asked()
        .iter()
        .filter(|asked| asked.header("content-range").is_some_and(|range| range.starts_with("0-")))
        .count();
    assert_eq!(first, 1, "what arrived was not sent again");
}

#[test]
fn an_upload_whose_session_is_lost_begins_anew() {
    let lost = AtomicUsize::new(0);
    let (uploads, server) = registry(move |asked| {
        let now =
            asked.method == "PATCH" && asked.header("content-range").is_some_and(|range| range.starts_with("20000-"));
        match now && lost.fetch_add(1, Ordering::Relaxed) == 0 {
            true => Some(Answer::status(503)),
            false if lost.load(Ordering::Relaxed) == 1 && asked.method == "GET" && is_upload(asked) => {
                lost.store(2, Ordering::Relaxed);
                Some(Answer::status(404))
            }
            false => None,
        }
    });
    assert_eq!(push(&store(), &server, &[]).code, 0);
    assert_eq!(uploads.blobs.lock().unwrap().len(), 2);
}

#[test]
fn a_registry_that_takes_no_chunks_gets_the_blob_whole() {
    let (uploads, server) = registry(|asked| (asked.method == "PATCH").then(|| Answer::status(405)));
    assert_eq!(push(&store(), &server, &[]).code, 0);
    assert_eq!(uploads.blobs.lock().unwrap().len(), 2);
    assert!(server.asked().iter().any(|asked| asked.method == "PUT" && asked.body.len() > 40_000));
}

#[test]
fn an_answer_that_is_lost_is_not_a_failure() {
    let uploads = Arc::new(Uploads::default());
    let honest = uploads.clone();
    let lost = AtomicUsize::new(0);
    let server = Scripted::new(move |asked| {
        let answer = honest.answer(asked);
        match asked.method == "PUT" && lost.fetch_add(1, Ordering::Relaxed) == 0 {
            true => Answer::Raw(Box::new(|_| {})),
            false => answer,
        }
    });
    assert_eq!(push(&store(), &server, &[]).code, 0);
    assert_eq!(uploads.blobs.lock().unwrap().len(), 2);
}

#[test]
fn a_registry_that_is_busy_is_asked_again_when_it_says_so() {
    for method in ["POST", "PATCH", "PUT"] {
        let busy = AtomicUsize::new(0);
        let (uploads, server) = registry(move |asked| {
            let now = asked.method == method && busy.fetch_add(1, Ordering::Relaxed) == 0;
            now.then(|| Answer::status(429).with("retry-after", "1"))
        });
        let start = Instant::now();
        let said = push(&store(), &server, &[]);
        assert_eq!(said.code, 0, "{method}: {said:?}");
        assert!(start.elapsed() > Duration::from_secs(1), "{method}: {:?}", start.elapsed());
        assert_eq!(uploads.manifests.lock().unwrap().len(), 1, "{method}");
    }
}

#[test]
fn what_never_ends_well_ends_soon_with_the_reason() {
    let said_of = |wrong: fn(&Asked) -> Option<Answer>| {
        let (_, server) = registry(wrong);
        let start = Instant::now();
        let said = push(&store(), &server, &[]);
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
        assert!(server.asked().len() < 60, "{}", server.asked().len());
        assert!(said.code == 1 && said.err.starts_with("hull: cannot "), "{said:?}");
        said.err
    };
    for (why, wrong) in [
        ("answered 500", (|asked| (asked.method == "PATCH").then(|| Answer::status(500))) as fn(&Asked) -> _),
        ("answered 416", |asked| (asked.method == "PATCH").then(|| Answer::status(416))),
        ("does not say where the upload goes on", |asked| (asked.method == "POST").then(|| Answer::status(202))),
        ("is no address", |asked| {
            (asked.method == "POST").then(|| Answer::status(202).with("location", "file:///etc/shadow"))
        }),
        ("answered 200 to the start", |asked| (asked.method == "POST").then(|| Answer::status(200))),
        ("says that it has", |asked| {
            let answer = Answer::status(202).with("location", "/v2/up/0").with("range", "0-99999999");
            (asked.method == "PATCH").then_some(answer)
        }),
        ("the registry filed it as", |asked| {
            let other = Answer::status(201).with("docker-content-digest", digest(b"another"));
            asked.target.contains("/manifests/").then_some(other)
        }),
        ("asks to wait 86400 seconds", |asked| {
            (asked.method == "POST").then(|| Answer::status(503).with("retry-after", "86400"))
        }),
    ] {
        let told = said_of(wrong);
        assert!(told.contains(why), "{why}: {told}");
    }
}
