//! What can go wrong with an image, in classes that a caller can branch on.
//!
//! Every variant prints as `cannot <verb> <object>: <cause>`. Wording for people beyond that (hints, exit codes)
//! belongs to the binary.

use std::fmt::Display;

use crate::reference::Digest;

/// The result of an operation on images.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on images failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not an image reference or not a digest.
    #[error("cannot read the reference {text:?}: {why}")]
    Reference {
        /// What was given.
        text: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The store has no such image.
    #[error("cannot find the image {name}: it is not in the store")]
    NotFound {
        /// The name as it was given.
        name: String,
    },
    /// An id prefix that more than one image has.
    #[error("cannot find the image {name}: more than one id starts so")]
    Ambiguous {
        /// The prefix as it was given.
        name: String,
    },
    /// An image cannot be removed as asked.
    #[error("cannot remove the image {name}: {why}")]
    InUse {
        /// The name as it was given.
        name: String,
        /// What stands against it.
        why: String,
    },
    /// A blob that a document names is not there.
    #[error("cannot read the blob {digest}: it is not in the store")]
    MissingBlob {
        /// Its digest.
        digest: Digest,
    },
    /// Something that was there when an image began to come in, and that another process removed.
    #[error("cannot receive the image: {what} was removed by another process")]
    Removed {
        /// What it was.
        what: String,
    },
    /// A blob is not what its digest or its descriptor says.
    #[error("cannot use the blob {digest}: {why}")]
    Mismatch {
        /// The digest it should have.
        digest: String,
        /// What differs.
        why: String,
    },
    /// An index, manifest or configuration that hull refuses.
    #[error("cannot read the {what}: {why}")]
    Document {
        /// Which document.
        what: String,
        /// The rule that it breaks.
        why: String,
    },
    /// An entry of a layer that hull refuses.
    #[error("cannot apply the layer entry {entry:?}: {why}")]
    Entry {
        /// The entry's name as the archive has it.
        entry: String,
        /// The rule that it breaks, or the kernel's answer.
        why: String,
    },
    /// A stream that is not a layer archive.
    #[error("cannot read the archive: {why}")]
    Archive {
        /// What is wrong with it.
        why: String,
    },
    /// An operation on files failed.
    #[error("cannot {verb} {object}: {source}")]
    Io {
        /// What was to be done.
        verb: &'static str,
        /// To what.
        object: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A mount that could not be made.
    #[error("cannot {verb} {object}: {source}")]
    Mount {
        /// What was to be done.
        verb: &'static str,
        /// To what.
        object: String,
        /// The failing call.
        source: hull_sys::Error,
    },
}

impl Error {
    pub(crate) fn document(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Document { what: what.into(), why: why.into() }
    }

    pub(crate) fn archive(why: impl Into<String>) -> Self {
        Error::Archive { why: why.into() }
    }

    /// Whether the disk, or somebody's part of it, is full.
    pub(crate) fn is_full(&self) -> bool {
        let Error::Io { source, .. } = self else { return false };
        matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    }

    pub(crate) fn entry(name: &[u8], why: impl Display) -> Self {
        Error::Entry { entry: String::from_utf8_lossy(name).into_owned(), why: why.to_string() }
    }
}

/// Puts the verb and the object to a failed call.
pub(crate) trait Cannot<T> {
    fn cannot(self, verb: &'static str, object: impl Display) -> Result<T>;
}

impl<T> Cannot<T> for std::io::Result<T> {
    fn cannot(self, verb: &'static str, object: impl Display) -> Result<T> {
        self.map_err(|source| Error::Io { verb, object: object.to_string(), source })
    }
}

impl<T> Cannot<T> for rustix::io::Result<T> {
    fn cannot(self, verb: &'static str, object: impl Display) -> Result<T> {
        self.map_err(|errno| Error::Io { verb, object: object.to_string(), source: errno.into() })
    }
}

impl<T> Cannot<T> for hull_sys::Result<T> {
    fn cannot(self, verb: &'static str, object: impl Display) -> Result<T> {
        self.map_err(|source| Error::Mount { verb, object: object.to_string(), source })
    }
}
