use std::collections::BTreeSet;
use std::io::Write;

use hull_tests::tar::Tar;
use oci_spec::image::ImageConfiguration;

use super::*;
use crate::testing::listing;
use crate::{CheckOptions, Finding, FindingKind, ImportOptions, Needs};

fn store() -> (tempfile::TempDir, Store) {
    let temp = tempfile::Builder::new().prefix("hull-test-").tempdir().expect("a folder");
    let store = Store::open(&temp.path().join("store")).expect("a store");
    (temp, store)
}

fn base() -> Vec<u8> {
    Tar::default().folder("etc").file("etc/motd", "hello\n").file("gone", "x").end()
}

fn import(store: &Store, name: &str, tar: &[u8]) -> Image {
    let options = ImportOptions { created: Some("2026-01-01T00:00:00Z".to_owned()), ..ImportOptions::default() };
    store.import(tar, &name.parse().expect("a name"), options).expect("an image")
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(data).expect("written");
    out.finish().expect("gzip")
}

#[test]
fn an_import_is_found_by_every_spelling_and_its_layer_is_unpacked() {
    let (_temp, store) = store();
    let image = import(&store, "hello", &base());
    for name in ["hello", "hello:latest", "docker.io/library/hello", image.id.as_str(), &image.id.hex()[..7]] {
        assert_eq!(store.find(name).expect("no error").expect(name).id, image.id);
    }
    let fixed = format!("hello@{}", image.manifest);
    assert_eq!(store.find(&fixed).expect("no error").expect("by digest").id, image.id);
    assert!(store.find("other").expect("no error").is_none());
    assert!(store.find("../x").is_err());
    let layers = store.layers(&image).expect("layers");
    assert_eq!(listing(layers[0].diff()), ["etc/ 755", "etc/motd 644 hello\n", "gone 644 x"]);
}

#[test]
fn packed_archives_give_the_same_image_content() {
    let (_temp, store) = store();
    let plain = import(&store, "plain", &base());
    let zipped = import(&store, "gzip", &gzip(&base()));
    let zstd = import(&store, "zstd", &zstd::encode_all(base().as_slice(), 1).expect("zstd"));
    assert_eq!(plain.diff_ids, zipped.diff_ids);
    assert_eq!(plain.diff_ids, zstd.diff_ids);
    assert_ne!(plain.manifest, zipped.manifest);
}

#[test]
fn a_refused_import_leaves_the_store_as_it_was() {
    let (_temp, store) = store();
    import(&store, "hello", &base());
    let before = hull_tests::sentinel::fingerprint(&store.root().join("blobs"));
    let bad = [
        Tar::default().file("a", "x").file("../b", "x").end(),
        b"not a tar".to_vec(),
        vec![b'x'; 4096],
        base()[..700].to_vec(),
        gzip(&base())[..60].to_vec(),
    ];
    for tar in bad {
        let name = "bad".parse().expect("a name");
        assert!(store.import(tar.as_slice(), &name, ImportOptions::default()).is_err());
    }
    assert_eq!(hull_tests::sentinel::fingerprint(&store.root().join("blobs")), before);
    assert_eq!(checked(&store, CheckOptions { verify: true, repair: false }, Needs::default()).expect("checked"), []);
}

#[test]
fn a_step_is_adopted_committed_and_unpacked_again_from_its_blob() {
    let (temp, store) = store();
    let image = import(&store, "base", &base());
    let mut layers = store.layers(&image).expect("layers");
    let staging = store.staging().expect("staging");
    let mount = crate::rootfs::overlay(&layers, Some(staging.as_upper()), true).expect("a mount");
    let at = |name: &str| format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(&mount));
    assert_eq!(std::fs::read_to_string(at("etc/motd")).expect("motd"), "hello\n");
    std::fs::write(at("new"), "new").expect("a file");
    std::fs::remove_file(at("gone")).expect("removed");
    std::fs::remove_dir_all(at("etc")).expect("removed");
    std::fs::create_dir(at("etc")).expect("made");
    drop(mount);
    let layer = store.adopt(layers.last(), staging).expect("a layer");
    assert_eq!(store.layer(layer.id()).expect("no error").expect("the layer").id(), layer.id());
    layers.push(layer);
    let name: crate::Reference = "built:1".parse().expect("a name");
    let built = store.commit(ImageConfiguration::default(), &layers, std::slice::from_ref(&name)).expect("an image");
    let again = store.commit(ImageConfiguration::default(), &layers, std::slice::from_ref(&name)).expect("an image");
    assert_eq!(built.manifest, again.manifest);
    let expected = listing(layers[1].diff());
    assert_eq!(expected, ["etc/ 755", "gone whiteout", "new 644 new"]);
    assert_eq!(store.layers(&built).expect("layers")[1].id(), layers[1].id());
    assert_eq!(checked(&store, CheckOptions { verify: true, repair: false }, Needs::default()).expect("checked"), []);

    // A store that has the blobs only, as another tool would have copied them.
    let other = Store::open(&temp.path().join("other")).expect("a store");
    for blob in std::fs::read_dir(store.root().join("blobs/sha256")).expect("blobs") {
        let blob = blob.expect("a blob");
        std::fs::copy(blob.path(), other.root().join("blobs/sha256").join(blob.file_name())).expect("copied");
    }
    std::fs::copy(store.root().join("index.json"), other.root().join("index.json")).expect("copied");
    let image = other.find("built:1").expect("no error").expect("the image");
    let unpacked = other.layers(&image).expect("layers");
    assert_eq!(listing(unpacked[1].diff()), expected);
    let view = crate::rootfs::overlay(&unpacked, None, false).expect("a mount");
    let dest = temp.path().join("rootfs");
    crate::export(view.as_fd(), &dest).expect("exported");
    assert_eq!(listing(&dest), ["etc/ 755", "new 644 new"]);
}

#[test]
fn an_image_without_layers_and_one_with_a_single_read_only_layer_can_be_mounted() {
    let (_temp, store) = store();
    let staging = store.staging().expect("staging");
    let mount = crate::rootfs::overlay(&[], Some(staging.as_upper()), false).expect("a mount");
    std::fs::write(format!("/proc/self/fd/{}/x", std::os::fd::AsRawFd::as_raw_fd(&mount)), "x").expect("a file");
    assert_eq!(listing(staging.upper()), ["x 644 x"]);
    let image = import(&store, "one", &base());
    let layers = store.layers(&image).expect("layers");
    let mount = crate::rootfs::overlay(&layers, None, false).expect("a mount");
    let path = format!("/proc/self/fd/{}/x", std::os::fd::AsRawFd::as_raw_fd(&mount));
    assert!(std::fs::write(path, "x").is_err());
}

#[test]
fn a_blob_or_document_that_is_not_what_its_digest_says_is_refused() {
    let (temp, store) = store();
    let image = import(&store, "hello", &base());
    drop(std::fs::remove_dir_all(store.root().join("layers").join(image.diff_ids[0].hex())));
    let blob = store.root().join(blob_path(&image.layers[0].digest().expect("a digest")));
    let mut data = std::fs::read(&blob).expect("the blob");
    data[600] ^= 1;
    std::fs::write(&blob, &data).expect("changed");
    assert!(store.layers(&image).is_err());
    let findings = checked(&store, CheckOptions { verify: true, repair: false }, Needs::default()).expect("checked");
    assert_eq!(
        findings.iter().map(|finding| finding.kind).collect::<Vec<_>>(),
        [FindingKind::DamagedBlob, FindingKind::BrokenImage]
    );
    std::fs::remove_file(&blob).expect("removed");
    let findings = checked(&store, CheckOptions::default(), Needs::default()).expect("checked");
    assert_eq!(findings.iter().map(|finding| finding.kind).collect::<Vec<_>>(), [FindingKind::BrokenImage]);
    let config = store.root().join(blob_path(&image.id));
    std::fs::write(&config, std::fs::read_to_string(&config).expect("config").replace("linux", "xinul"))
        .expect("changed");
    assert!(matches!(store.find("hello"), Err(Error::Mismatch { .. })));
    drop(temp);
}

#[test]
fn documents_that_mean_two_things_or_too_much_are_refused() {
    let (_temp, store) = store();
    let put = |data: &str| {
        let digest = Digest::of(data.as_bytes());
        std::fs::write(store.root().join(blob_path(&digest)), data).expect("a blob");
        (digest, data.len())
    };
    let (config, size) = put(r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#);
    let descriptor =
        format!(r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":{size}}}"#);
    let layer = format!(r#"{{"mediaType":"x","digest":"{config}","size":{size}}}"#);
    let deep = "[".repeat(10_000);
    let cases = [
        (format!(r#"{{"config":{descriptor},"layers":[]}}"#), true),
        (format!(r#"{{"config":{descriptor},"layers":[],"manifests":[]}}"#), false),
        (format!(r#"{{"config":{descriptor},"layers":[{layer}]}}"#), false),
        (format!(r#"{{"config":{descriptor},"layers":null}}"#), false),
        (format!(r#"{{"config":{descriptor},"layers":[],"layers":[]}}"#), false),
        (format!(r#"{{"mediaType":"text/html","config":{descriptor},"layers":[]}}"#), false),
        (r#"{"manifests":[]}"#.to_owned(), false),
        (format!(r#"{{"config":{deep}"#), false),
        (String::new(), false),
    ];
    for (manifest, is_fine) in cases {
        let (digest, size) = put(&manifest);
        let entry = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},"annotations":{{"org.opencontainers.image.ref.name":"x"}}}}]}}"#
        );
        let entry = if manifest.starts_with(r#"{"manifests"#) {
            entry.replace("image.manifest.v1", "image.index.v1")
        } else {
            entry
        };
        std::fs::write(store.root().join("index.json"), entry).expect("an index");
        assert_eq!(store.find("x").is_ok(), is_fine, "{}", manifest.chars().take(200).collect::<String>());
    }
}

fn checked(store: &Store, options: CheckOptions, needs: Needs) -> Result<Vec<Finding>> {
    store.check(options, || Ok(needs))
}

#[test]
fn removing_the_last_name_removes_what_only_that_image_needs() {
    let (_temp, store) = store();
    let keep = || Ok::<_, Error>(BTreeSet::new());
    let image = import(&store, "a", &base());
    store.tag("a", &"b".parse().expect("a name")).expect("tagged");
    assert!(matches!(store.remove(&image.id.hex()[..12], false, keep), Err(Error::InUse { .. })));
    let removed = store.remove("a", false, keep).expect("removed");
    assert_eq!((removed.untagged.len(), removed.deleted.len()), (1, 0));
    let held = store.layers(&image).expect("layers");
    let removed = store.remove("b", false, keep).expect("removed");
    assert_eq!(removed.deleted, [image.id]);
    assert_eq!(removed.layers, [] as [String; 0], "a process holds the layer");
    drop(held);
    let removed = store.gc(&BTreeSet::new(), keep).expect("collected");
    assert_eq!(removed.layers.len(), 1);
    assert_eq!(
        listing(store.root()).iter().filter(|line| line.contains("sha256/") || line.contains("layers/")).count(),
        2
    );
    assert!(matches!(store.remove("b", false, keep), Err(Error::NotFound { .. })));
}

#[test]
fn a_name_that_moves_leaves_the_other_image_listed_without_it() {
    let (_temp, store) = store();
    let first = import(&store, "a", &base());
    let second = import(&store, "a", &Tar::default().file("x", "").end());
    assert_eq!(store.find("a").expect("no error").expect("a").id, second.id);
    let images = store.images().expect("images");
    assert_eq!(images.len(), 2);
    assert!(images.iter().any(|image| image.id == first.id && image.names.is_empty()));
}

#[test]
fn what_a_dead_writer_left_is_swept_and_what_a_living_one_has_is_not() {
    let (_temp, store) = store();
    let living = store.staging().expect("staging");
    let dead = store.root().join("staging/dead/diff");
    std::fs::create_dir_all(&dead).expect("a folder");
    let findings = checked(&store, CheckOptions::default(), Needs::default()).expect("checked");
    assert_eq!(findings.len(), 1);
    assert!(!findings[0].repaired);
    drop(store.staging().expect("staging"));
    assert!(!dead.exists());
    assert!(living.upper().exists());
    let path = living.upper().to_owned();
    drop(living);
    assert!(!path.exists());
}

#[test]
fn an_unused_layer_is_a_finding_only_when_it_is_said_what_is_needed() {
    let (_temp, store) = store();
    let layer = store.adopt(None, store.staging().expect("staging")).expect("a layer");
    let id = layer.id().to_owned();
    drop(layer);
    assert_eq!(checked(&store, CheckOptions::default(), Needs::default()).expect("checked"), []);
    let keep =
        |ids: &[&str]| Needs { keep: Some(ids.iter().map(|id| (*id).to_owned()).collect()), ..Needs::default() };
    assert_eq!(checked(&store, CheckOptions::default(), keep(&[&id])).expect("checked"), []);
    // One repair clears the layer and what leads to it, wherever that stands in the list.
    for chain in ["0", "f"] {
        std::os::unix::fs::symlink(&id, store.root().join("layers").join(chain.repeat(64))).expect("a link");
    }
    let options = CheckOptions { repair: true, verify: false };
    let findings = checked(&store, options, keep(&[])).expect("checked");
    assert!(findings[0].repaired && findings[0].kind == FindingKind::UnusedLayer);
    assert!(store.layer(&id).expect("no error").is_none());
    assert_eq!(checked(&store, options, keep(&[])).expect("checked"), []);
}

#[test]
fn only_the_owner_may_enter_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::Builder::new().prefix("hull-test-").tempdir().expect("a folder");
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o777)).expect("a mode");
    drop(Store::open(temp.path()).expect("a store"));
    assert_eq!(std::fs::metadata(temp.path()).expect("a status").permissions().mode() & 0o7777, 0o700);
    // A folder as /tmp is one stays as it is.
    let shared = temp.path().join("shared");
    std::fs::create_dir(&shared).expect("a folder");
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o1777)).expect("a mode");
    let error = Store::open(&shared).expect_err("refused").to_string();
    assert!(error.contains(&shared.display().to_string()) && error.contains("everybody uses it"), "{error}");
    assert_eq!(std::fs::metadata(&shared).expect("a status").permissions().mode() & 0o7777, 0o1777);
    assert_eq!(hull_tests::entries(&shared), [""; 0]);
}

#[test]
fn a_tree_that_this_boot_did_not_make_is_made_again_from_its_blob() {
    let (_temp, store) = store();
    let image = import(&store, "hello", &base());
    for (what, meta) in [
        ("of another boot", Some(r#"{"boot":"another"}"#)),
        ("of no boot", Some("{}")),
        ("cut short by a crash", Some("")),
        ("lost", None),
    ] {
        let layer = store.layers(&image).expect("layers").remove(0);
        let path = store.root().join("layers").join(layer.id()).join("layer.json");
        match meta {
            Some(meta) => std::fs::write(path, meta).expect("written"),
            None => std::fs::remove_file(path).expect("removed"),
        }
        std::fs::write(layer.diff().join("etc/motd"), "").expect("a file that lost its content");
        assert!(store.layer(layer.id()).expect("no error").is_none(), "{what}");
        drop(layer);
        let layers = store.layers(&image).expect("layers");
        assert_eq!(std::fs::read_to_string(layers[0].diff().join("etc/motd")).expect("motd"), "hello\n", "{what}");
        assert!(layers[0].is_trusted().expect("its metadata"), "{what}");
    }
}

/// What a killed process forked holds its lock until it has ended too; a living maker is not waited for.
#[test]
fn what_the_children_of_a_killed_maker_hold_is_waited_for() {
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};
    let (_temp, store) = store();
    let living = store.staging().expect("staging");
    let left = store.root().join("staging/left");
    std::fs::create_dir(&left).expect("a folder");
    // The shell takes the lock, leaves a child that has its descriptor, and ends.
    let script = format!("exec 9<{}; flock 9; sleep 0.5 & exit", left.display());
    let maker = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).status().expect("a shell");
    assert!(maker.success());
    let folder = store.folder(c"staging").expect("the folder");
    let start = std::time::Instant::now();
    assert!(layer::sweep(folder.as_fd(), true).expect("a look").is_empty(), "its child has the lock");
    layer::settle(folder.as_fd()).expect("an end");
    assert!(start.elapsed() < std::time::Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(layer::sweep(folder.as_fd(), false).expect("swept"), ["left"]);
    let start = std::time::Instant::now();
    layer::settle(folder.as_fd()).expect("an end");
    assert!(start.elapsed() < std::time::Duration::from_secs(1), "{:?}", start.elapsed());
    drop(living);
}
