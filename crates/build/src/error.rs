//! What can go wrong in a build, as callers can tell it apart.

use std::fmt;
use std::path::PathBuf;

use crate::syntax::SyntaxError;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed build.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Dockerfile says something that cannot be; shows the line with a caret.
    #[error("cannot build {0}")]
    Dockerfile(Box<SyntaxError>),
    /// A file that the build needs for itself cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The Dockerfile, the ignore file or the context.
        path: PathBuf,
        /// Why not.
        cause: String,
    },
    /// A step's command ended with another status than 0; shows the line.
    #[error("cannot build {place}\nthe command ended with status {status}: {command}")]
    Command {
        /// The place in the Dockerfile.
        place: Box<SyntaxError>,
        /// The command as it was run.
        command: String,
        /// Its exit status, 128+n if signal n ended it.
        status: i32,
    },
    /// A step could not be performed; shows the line.
    #[error("cannot build {0}")]
    Step(Box<SyntaxError>),
    /// Something hull keeps for itself (store, cache) cannot be read or written.
    #[error("cannot {doing}: {cause}")]
    Host {
        /// Verb and object.
        doing: String,
        /// Why not.
        cause: String,
    },
}

impl Error {
    /// An error of the host.
    pub fn host(doing: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self::Host { doing: doing.into(), cause: cause.to_string() }
    }

    /// What to do about it, if that can be said.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Dockerfile(error) | Self::Step(error) => error.hint.as_deref(),
            Self::Read { .. } | Self::Command { .. } | Self::Host { .. } => None,
        }
    }

    /// The exit status of `hull build` after it: the command's own, else 1.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Command { status, .. } => *status,
            _ => 1,
        }
    }
}

impl From<hull_image::Error> for Error {
    fn from(error: hull_image::Error) -> Self {
        Self::host("keep the store in order", error)
    }
}

impl From<SyntaxError> for Error {
    fn from(error: SyntaxError) -> Self {
        Self::Dockerfile(Box::new(error))
    }
}
