//! Names of images and digests, as people, registries and archives give them.

use hull_image::{Digest, Reference};

/// What is taken for a name means the same however it is written, and none of its parts leads anywhere else.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = text.parse::<Reference>() {
        for written in [name.to_string(), name.familiar()] {
            let again =
                written.parse::<Reference>().unwrap_or_else(|error| panic!("{text:?} is {written:?}: {error}"));
            assert_eq!(again, name, "{text:?} is written {written:?}");
        }
        assert!(name.tag().is_some() || name.digest().is_some(), "{name} names nothing");
        let whole = name.to_string();
        assert!(whole.bytes().all(|byte| byte.is_ascii_graphic()), "{whole:?} has what no URL has");
        assert!(!whole.contains(['?', '#', '%', '\\', '"']), "{whole:?} means something else in a URL");
        let part = |part: &str| !part.is_empty() && part != "." && part != "..";
        assert!(!name.domain().contains('/') && name.path().split('/').all(part), "{whole:?} leads upwards");
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.as_str(), text);
        let hex = digest.hex();
        assert!(hex.len() >= 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest} is no name of a file");
    }
}
