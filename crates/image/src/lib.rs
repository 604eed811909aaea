//! Images: references, the OCI layout on disk, unpacked layers, root file systems, export.
//!
//! A [`Store`] is an OCI image layout (what `skopeo` calls `oci:DIR`) with the unpacked trees of its layers beside the
//! blobs. A built layer is adopted by a rename and only becomes an archive when an image is committed with it. Image
//! content is hostile: documents are size-capped and verified, archives are applied by descriptor, nothing that is read
//! from an image becomes a path of the host.
//!
//! Not here: containers and what uses an image (the engine), registries, Dockerfiles.
#![forbid(unsafe_code)]

mod apply;
mod archive;
mod check;
mod collect;
mod commit;
mod compare;
mod diff;
mod document;
mod download;
mod driver;
mod error;
mod export;
mod find;
mod gunzip;
mod layer;
mod list;
mod load;
mod origin;
mod outgoing;
mod pack;
mod pax;
mod pipe;
mod platform;
mod receive;
mod reference;
mod rootfs;
mod save;
mod sparse;
mod store;
mod stream;
#[cfg(test)]
mod testing;
mod tree;
mod usage;
mod vfs;

pub use apply::is_whiteout;
pub use check::{CheckOptions, Finding, FindingKind, Needs};
pub use collect::Removed;
pub use commit::ImportOptions;
pub use driver::{Driver, View};
pub use error::{Error, Result};
pub use export::export;
pub use find::Image;
pub use layer::{Layer, Staging};
pub use list::List;
pub use load::Loaded;
pub use outgoing::{Outgoing, PackOptions, Piece, Ready};
pub use platform::Platform;
pub use receive::{Blob, Incoming, MANIFEST_TYPES, Manifest, Part, read_manifest, verify};
pub use reference::{Digest, Reference};
pub use rootfs::{Upper, bind, layers_max};
pub use save::Saved;
pub use store::Store;
pub use stream::Packing;
pub use usage::{Entry, Thing, Usage, disk_usage};
