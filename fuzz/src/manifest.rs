//! Manifests, indexes and configurations: JSON from a registry or an archive.

use std::cell::RefCell;

use hull_image::{Blob, Digest, MANIFEST_TYPES, Manifest, Platform, Store, read_manifest};
use tempfile::TempDir;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const LAYERS_MAX: usize = 500;

thread_local! {
    static STORE: RefCell<(TempDir, Store)> = RefCell::new({
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("store")).expect("a store");
        (folder, store)
    });
}

/// The first byte chooses the media type; then a manifest, and behind a NUL a configuration.
pub fn manifest(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let media_type = MANIFEST_TYPES[usize::from(*kind) % MANIFEST_TYPES.len()];
    let (manifest, config) = match rest.iter().position(|byte| *byte == 0) {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &[][..]),
    };
    let layers = match read_manifest(manifest, media_type, &Platform::host()) {
        Ok(Manifest::Image { config, layers }) => {
            assert!(layers.len() <= LAYERS_MAX, "{} layers", layers.len());
            assert!(config.digest.hex().len() >= 64);
            layers
        }
        Ok(Manifest::Index(entry)) => {
            // What it leads to is read as what it says, or not at all.
            let known = MANIFEST_TYPES.contains(&entry.media_type.as_str());
            assert!(known || read_manifest(manifest, &entry.media_type, &Platform::host()).is_err(), "{entry:?}");
            return;
        }
        Err(_) => Vec::new(),
    };
    // A configuration is read beside layers of that number, whatever the manifest says of it.
    let layers = match layers.is_empty() {
        true => (0..usize::from(*kind >> 6)).map(layer).collect(),
        false => layers,
    };
    let blob = |media_type: &str, data: &[u8]| {
        let (digest, size) = (Digest::of(data), data.len() as u64);
        (Blob { media_type: media_type.to_owned(), digest, size }, data.to_vec())
    };
    let config = blob("application/vnd.oci.image.config.v1+json", config);
    STORE.with_borrow(|(_, store)| {
        if let Ok(incoming) = store.incoming(blob(media_type, manifest), config, layers.clone()) {
            assert_eq!(incoming.layers(), layers);
        }
    });
}

fn layer(number: usize) -> Blob {
    Blob { media_type: LAYER.to_owned(), digest: Digest::of(&[u8::try_from(number).unwrap_or(0)]), size: 1 }
}
