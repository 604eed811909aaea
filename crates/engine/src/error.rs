//! What can go wrong above the runtime.

use std::fmt;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure: `cannot <verb> <object>: <cause>`, and what helps.
#[derive(Debug)]
pub enum Error {
    /// An option's value, or a combination of options, is wrong or not supported.
    Usage {
        /// What is wrong with it.
        message: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// Something on the host refused.
    Host {
        /// Verb and object.
        doing: String,
        /// Why.
        cause: String,
    },
    /// The runtime's.
    Runtime(hull_runtime::Error),
    /// The image store's.
    Image(hull_image::Error),
}

impl Error {
    /// An option that is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// An option that is wrong, with what to write instead.
    pub fn usage_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// The host refused to do `doing`.
    pub fn host(doing: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self::Host { doing: doing.into(), cause: cause.to_string() }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Usage { hint, .. } => hint.as_deref(),
            Error::Image(hull_image::Error::NotFound { .. }) => {
                Some("`hull images` lists what there is; `hull import TAR NAME` and `hull build -t NAME` add to it")
            }
            Error::Host { .. } | Error::Image(_) => None,
            Error::Runtime(error) => error.hint.as_deref(),
        }
    }

    /// Docker's exit status for it: 127 not found, 126 not executable, 125 all else.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Runtime(error) => match error.class {
                hull_runtime::Class::NotFound => 127,
                hull_runtime::Class::NotExecutable => 126,
                _ => 125,
            },
            _ => 125,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage { message, .. } => f.write_str(message),
            Error::Host { doing, cause } => write!(f, "cannot {doing}: {cause}"),
            Error::Runtime(error) => error.fmt(f),
            Error::Image(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<hull_runtime::Error> for Error {
    fn from(error: hull_runtime::Error) -> Self {
        Error::Runtime(error)
    }
}

impl From<hull_image::Error> for Error {
    fn from(error: hull_image::Error) -> Self {
        Error::Image(error)
    }
}
