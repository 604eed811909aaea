use hull_tests::tar::Tar;

use super::*;
use crate::testing::listing;

#[path = "hostile_tests.rs"]
mod hostile;

/// An image of these layers: its documents and the layers' bytes.
struct Remote {
    manifest: (Blob, Vec<u8>),
    config: (Blob, Vec<u8>),
    layers: Vec<Blob>,
    bytes: Vec<Vec<u8>>,
}

fn blob(media_type: &str, data: &[u8]) -> Blob {
    Blob { media_type: media_type.to_owned(), digest: Digest::of(data), size: data.len() as u64 }
}

fn remote(bytes: &[Vec<u8>]) -> Remote {
    let diff_ids: Vec<String> = bytes.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = config.to_string().into_bytes();
    let layers: Vec<Blob> = bytes.iter().map(|layer| blob("application/vnd.oci.image.layer.v1.tar", layer)).collect();
    let of_config = blob(CONFIG, &config);
    let descriptors: Vec<Descriptor> = layers.iter().map(Blob::descriptor).collect();
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": of_config.descriptor(), "layers": descriptors});
    let manifest = manifest.to_string().into_bytes();
    Remote {
        manifest: (blob(MANIFEST, &manifest), manifest),
        config: (of_config, config),
        layers,
        bytes: bytes.to_vec(),
    }
}

fn incoming<'a>(store: &'a Store, remote: &Remote) -> Incoming<'a> {
    store.incoming(remote.manifest.clone(), remote.config.clone(), remote.layers.clone()).expect("documents")
}

/// The bytes of a part from where it goes on.
fn rest<'a>(remote: &'a Remote, part: &Part<'_>) -> &'a [u8] {
    let n = remote.layers.iter().position(|layer| layer == part.blob()).expect("a layer");
    &remote.bytes[n][usize::try_from(part.have()).expect("small")..]
}

fn receive(store: &Store, remote: &Remote, name: &str) -> Result<Image> {
    let incoming = incoming(store, remote);
    let mut parts = incoming.parts(&mut |_| panic!("nobody else is here"))?;
    // From the top down: no order may matter.
    for part in parts.iter_mut().rev() {
        let rest = rest(remote, part);
        part.receive(rest)?;
    }
    incoming.publish(parts, Some(&name.parse()?), None)
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("store")).expect("a store");
    (folder, store)
}

#[test]
fn what_a_layer_only_implies_is_settled_from_those_below() {
    let (_folder, store) = store();
    let mode = |header: &mut tar::Header| header.set_mode(0o700);
    let below = Tar::default().with(Tar::header(tar::EntryType::Directory, "opt/", "", 0), mode, b"").end();
    let above = Tar::default().file("opt/a/b", "x").end();
    let image = receive(&store, &remote(&[below, above]), "x").expect("received");
    let layers = store.layers(&image).expect("layers");
    assert_eq!(listing(layers[1].diff()), ["opt/ 700", "opt/a/ 755", "opt/a/b 644 x"]);
}

#[test]
fn one_blob_in_two_places_becomes_two_trees_of_one_download() {
    let (_folder, store) = store();
    let twice = Tar::default().file("a", "1").end();
    let between = Tar::default().file("a", "2").end();
    let remote = remote(&[twice.clone(), between, twice]);
    assert_eq!(incoming(&store, &remote).parts(&mut |_| ()).expect("parts").len(), 2);
    let image = receive(&store, &remote, "x").expect("received");
    let layers = store.layers(&image).expect("layers");
    assert_eq!(layers.len(), 3);
    assert_eq!(listing(layers[2].diff()), ["a 644 1"]);
    assert!(
        store
            .check(crate::CheckOptions::default(), || Ok::<_, Error>(crate::Needs::default()))
            .expect("a check")
            .is_empty()
    );
}

#[test]
fn a_shared_layer_is_not_wanted_again() {
    let (_folder, store) = store();
    let base = Tar::default().file("a", "1").end();
    receive(&store, &remote(std::slice::from_ref(&base)), "x").expect("received");
    let second = remote(&[base, Tar::default().file("b", "2").end()]);
    let parts = incoming(&store, &second).parts(&mut |_| ()).expect("parts");
    assert_eq!(parts.iter().map(|part| part.blob().clone()).collect::<Vec<_>>(), second.layers[1..]);
    drop(parts);
    receive(&store, &second, "y").expect("received");
    assert_eq!(store.images().expect("images").len(), 2);
}

#[test]
fn an_interrupted_download_is_kept_and_a_wrong_one_is_not() {
    struct Broken<'a>(&'a [u8]);
    impl Read for Broken<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() { Err(std::io::Error::other("gone")) } else { self.0.read(buffer) }
        }
    }
    let (_folder, store) = store();
    let remote = remote(&[Tar::default().file("a", &"x".repeat(4000)).end()]);
    let incoming = incoming(&store, &remote);
    let mut parts = incoming.parts(&mut |_| ()).expect("parts");
    let error = parts[0].receive(Broken(&remote.bytes[0][..1000])).expect_err("an error").to_string();
    assert!(error.contains("gone"), "{error}");
    drop(parts);
    let mut parts = incoming.parts(&mut |_| ()).expect("parts");
    assert_eq!(parts[0].have(), 1000);
    let mut wrong = remote.bytes[0][1000..].to_vec();
    wrong[100] ^= 1;
    parts[0].receive(&wrong[..]).expect_err("an error");
    drop(parts);
    assert!(download::sweep_all(&store, true).expect("a list").is_empty());
    let mut parts = incoming.parts(&mut |_| ()).expect("parts");
    assert_eq!(parts[0].have(), 0);
    parts[0].receive(&remote.bytes[0][..]).expect("received");
    incoming.publish(parts, Some(&"x".parse().expect("a name")), None).expect("published");
}

#[test]
fn a_second_receiver_waits_and_finds_the_work_done() {
    let (_folder, store) = store();
    let remote = remote(&[Tar::default().file("a", "1").end(), Tar::default().file("b", "2").end()]);
    let first = incoming(&store, &remote);
    let mut parts = first.parts(&mut |_| ()).expect("parts");
    let (heard, waiting) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let incoming = incoming(&store, &remote);
            let parts = incoming.parts(&mut |digest| heard.send(digest.clone()).expect("a listener"))?;
            assert!(parts.is_empty(), "{parts:?}");
            incoming.publish(parts, Some(&"y".parse()?), None)
        });
        waiting.recv().expect("it waits");
        for part in &mut parts {
            let rest = rest(&remote, part);
            part.receive(rest).expect("received");
        }
        first.publish(parts, Some(&"x".parse().expect("a name")), None).expect("published");
        let image = second.join().expect("a thread").expect("published");
        assert_eq!(image.names.len(), 2);
    });
}

#[test]
fn an_image_is_found_by_the_digest_of_its_index_and_keeps_its_other_names() {
    let (_folder, store) = store();
    let remote = remote(&[Tar::default().file("a", "1").end()]);
    let index = Digest::of(b"an index");
    receive(&store, &remote, "x:1").expect("received");
    let name = format!("docker.io/library/x@{index}");
    let again = incoming(&store, &remote);
    again.publish(Vec::new(), Some(&name.parse().expect("a name")), Some(&index)).expect("published");
    let found = store.find(&name).expect("a store").expect("found");
    assert_eq!(found.names.len(), 2);
    assert!(store.find(&format!("x:1@{index}")).expect("a store").is_some());
    assert!(store.find(&format!("y@{index}")).expect("a store").is_none());
}

#[test]
fn a_configuration_that_calls_one_layer_two_things_is_refused() {
    let (_folder, store) = store();
    let mut remote = remote(&[Tar::default().file("a", "1").end(), Tar::default().file("b", "1").end()]);
    remote.layers[1] = remote.layers[0].clone();
    let error = store.incoming(remote.manifest, remote.config, remote.layers).expect_err("an error").to_string();
    assert!(error.contains("two different ones"), "{error}");
}

#[test]
fn media_types_that_are_no_image_are_refused_by_name() {
    let read = |media_type: &str, config: &str, layer: &str| {
        let descriptor =
            |media_type: &str| json!({"mediaType": media_type, "digest": Digest::of(b"").as_str(), "size": 0});
        let data = json!({"schemaVersion": 2, "config": descriptor(config), "layers": [descriptor(layer)]});
        read_manifest(data.to_string().as_bytes(), media_type, &Platform::host()).map_err(|error| error.to_string())
    };
    let layer = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    assert!(read(DOCKER_MANIFEST, DOCKER_CONFIG, layer).is_ok());
    assert!(read(MANIFEST, CONFIG, "application/vnd.oci.image.layer.v1.tar+zstd").is_ok());
    for (media_type, config, layer, why) in [
        ("application/json", CONFIG, layer, "no image manifest"),
        (MANIFEST, "application/vnd.cncf.helm.config.v1+json", layer, "no image: its configuration"),
        (MANIFEST, CONFIG, "application/vnd.oci.image.layer.v1.tar+encrypted", "+encrypted"),
        (MANIFEST, CONFIG, "text/plain", "text/plain"),
    ] {
        let error = read(media_type, config, layer).expect_err("an error");
        assert!(error.contains(why), "{error}");
    }
}
