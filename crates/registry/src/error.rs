//! What can go wrong with a registry, in classes that a caller can branch on.
//!
//! A failure prints as `cannot <verb> <object>: <cause>`. What a server said is part of the cause, shortened and without
//! control characters. Nothing here ever holds a secret.

use std::fmt;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a registry did not give or take what it should.
#[derive(Debug)]
pub enum Error {
    /// The store's, or a document's.
    Image(hull_image::Error),
    /// A registry's, or the way's to it.
    Failed(Box<Failure>),
}

/// A class of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// What was asked for makes no sense.
    Usage,
    /// A configuration file or a credential helper.
    Config,
    /// The registry does not have it.
    NotFound,
    /// The registry does not give it to us.
    Denied,
    /// The registry could not be reached, or not for long enough.
    Network,
    /// The registry's certificate, or that it has none.
    Tls,
    /// The registry answered what the protocol does not allow.
    Protocol,
    /// Somebody else's failure ended this.
    Cancelled,
}

/// A failure with its class.
#[derive(Debug)]
pub struct Failure {
    /// Its class.
    pub class: Class,
    /// Verb and object.
    pub doing: String,
    /// Why.
    pub why: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The status that the registry answered with, if it answered.
    pub status: Option<u16>,
}

impl Error {
    pub(crate) fn new(class: Class, doing: impl Into<String>, why: impl fmt::Display) -> Self {
        Error::Failed(Box::new(Failure {
            class,
            doing: doing.into(),
            why: why.to_string(),
            hint: None,
            status: None,
        }))
    }

    pub(crate) fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Error::Failed(failure) = &mut self {
            failure.hint = Some(text.into());
        }
        self
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        if let Error::Failed(failure) = &mut self {
            failure.status = Some(status);
        }
        self
    }

    /// The status that the registry answered with, if that is what failed.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Image(_) => None,
            Error::Failed(failure) => failure.status,
        }
    }

    /// Its class; none for the store's.
    pub fn class(&self) -> Option<Class> {
        match self {
            Error::Image(_) => None,
            Error::Failed(failure) => Some(failure.class),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Image(_) => None,
            Error::Failed(failure) => failure.hint.as_deref(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Image(error) => error.fmt(f),
            Error::Failed(failure) => write!(f, "cannot {}: {}", failure.doing, failure.why),
        }
    }
}

impl std::error::Error for Error {}

impl From<hull_image::Error> for Error {
    fn from(error: hull_image::Error) -> Self {
        Error::Image(error)
    }
}

/// What a server says, fit for one line of a terminal.
pub(crate) fn shown(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    if text.chars().nth(300).is_some() {
        line.push('…');
    }
    line.trim().to_owned()
}
