//! Layers: archives from anybody, applied as root.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use hull_image::{Blob, Digest, Image, Reference, Result, Store};
use hull_tests::sentinel::Sentinel;
use serde_json::json;
use tempfile::TempDir;

use crate::program;

/// The most that a layer may unpack to here.
const PLAIN_MAX: u64 = 16 << 20;

/// A tree that stands for the host, in a folder beside the stores.
struct Scene {
    folder: TempDir,
    sentinel: Sentinel,
}

thread_local! {
    /// In `HULL_FUZZ_DIR`, or where temporary files are.
    static SCENE: Scene = {
        let parent = std::env::var_os("HULL_FUZZ_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = tempfile::Builder::new().prefix("hull-fuzz-").tempdir_in(parent).expect("a folder");
        let sentinel = Sentinel::new(&folder.path().join("sentinel"));
        Scene { folder, sentinel }
    };
}

/// An image of a few layers is received as from a registry, and exported if it was accepted. The host is as it was.
pub fn layer(data: &[u8]) {
    SCENE.with(|scene| try_layer(scene, data));
}

fn try_layer(scene: &Scene, data: &[u8]) {
    let folder = tempfile::tempdir_in(scene.folder.path()).expect("a folder");
    let layers = program::layers(data, scene.sentinel.path());
    let done = receive(&folder.path().join("store"), &layers)
        .and_then(|(store, image)| export(&store, &image, &folder.path().join("exported")));
    // Whether it was refused or not.
    scene.sentinel.assert_untouched(&format!("{done:?}"));
    let mut names = hull_tests::entries(scene.folder.path());
    names.retain(|name| {
        *name != "sentinel" && *name != folder.path().file_name().unwrap_or_default().to_string_lossy()
    });
    assert!(names.is_empty(), "{names:?} lie beside the store");
    if let Ok(staging) = std::fs::read_dir(folder.path().join("store/staging")) {
        assert_eq!(staging.count(), 0, "something is left in staging: {done:?}");
    }
}

fn receive(root: &Path, layers: &[Vec<u8>]) -> Result<(Store, Image)> {
    let blob = |kind: &str, data: &[u8]| Blob {
        media_type: kind.to_owned(),
        digest: Digest::of(data),
        size: data.len() as u64,
    };
    let blobs: Vec<Blob> = layers.iter().map(|data| blob("application/vnd.oci.image.layer.v1.tar", data)).collect();
    let document =
        |blob: &Blob| json!({ "mediaType": blob.media_type, "digest": blob.digest.as_str(), "size": blob.size });
    let diff_ids: Vec<&str> = blobs.iter().map(|blob| blob.digest.as_str()).collect();
    let config =
        json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = config.to_string().into_bytes();
    let config = (blob("application/vnd.oci.image.config.v1+json", &config), config);
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let data = json!({
        "schemaVersion": 2, "mediaType": manifest, "config": document(&config.0),
        "layers": blobs.iter().map(document).collect::<Vec<_>>(),
    });
    let data = data.to_string().into_bytes();

    let store = Store::open(root)?;
    let name: Reference = "fuzz/image:1".parse()?;
    let image = {
        let incoming = store.incoming((blob(manifest, &data), data), config, blobs)?.limited(Some(PLAIN_MAX));
        let mut parts = incoming.parts(&mut |_| {})?;
        for part in &mut parts {
            let bytes =
                layers.iter().find(|data| Digest::of(data) == part.blob().digest).map_or(&[][..], |data| data);
            part.receive(bytes)?;
        }
        incoming.publish(parts, Some(&name), None)?
    };
    Ok((store, image))
}

fn export(store: &Store, image: &Image, to: &Path) -> Result<()> {
    let layers = store.layers(image)?;
    let view = store.view(&layers)?;
    hull_image::export(view.mount.as_fd(), to)
}
