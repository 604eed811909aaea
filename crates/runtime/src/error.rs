//! What can go wrong, said once: what was to be done, why it failed, what to try.

use std::fmt;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it is; the command line turns it into an exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The specification asks for something that is wrong or that this kernel does not have.
    Invalid,
    /// The kernel refused a step.
    Setup,
    /// The command was found and cannot be executed (126 by Docker's convention).
    NotExecutable,
    /// The command was not found (127).
    NotFound,
}

/// A failure: `cannot <verb> <object>: <cause>`, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Its kind.
    pub class: Class,
    /// Verb and object, as in `mount /proc`.
    pub doing: String,
    /// The cause, mostly a system call in strace's shape.
    pub cause: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Error {
    /// The kernel refused to do `doing`.
    pub fn setup(doing: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self { class: Class::Setup, doing: doing.into(), cause: cause.to_string(), hint: None }
    }

    /// The specification cannot be done.
    pub fn invalid(doing: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self { class: Class::Invalid, ..Self::setup(doing, cause) }
    }

    /// With advice.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The form that goes from the child to the parent.
    pub(crate) fn to_message(&self) -> Vec<u8> {
        let class = match self.class {
            Class::Invalid => "invalid",
            Class::Setup => "setup",
            Class::NotExecutable => "not-executable",
            Class::NotFound => "not-found",
        };
        [class, &self.doing, &self.cause, self.hint.as_deref().unwrap_or_default()].join("\0").into_bytes()
    }

    /// Reads [`Error::to_message`]'s form. What is no such form is itself the cause.
    pub(crate) fn from_message(message: &[u8]) -> Self {
        let text = String::from_utf8_lossy(message);
        let mut parts = text.split('\0');
        let class = match parts.next() {
            Some("invalid") => Class::Invalid,
            Some("not-executable") => Class::NotExecutable,
            Some("not-found") => Class::NotFound,
            _ => Class::Setup,
        };
        let mut next = || parts.next().unwrap_or_default().to_owned();
        let (doing, cause, hint) = (next(), next(), next());
        Self { class, doing, cause, hint: (!hint.is_empty()).then_some(hint) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.doing, self.cause)
    }
}

impl std::error::Error for Error {}

/// Names what was being done when a system call failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for hull_sys::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::setup(what(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_to_the_parent() {
        let error = Error { class: Class::NotFound, ..Error::setup("execute x", "why") }.hint("do y");
        assert_eq!(Error::from_message(&error.to_message()), error);
    }
}
