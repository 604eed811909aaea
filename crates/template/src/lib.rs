//! Go's templates, as far as `--format` of Docker's and Podman's command lines has them.
//!
//! [`Template::parse`] makes a tree of a text (`lex`, `parse`), [`Template::render`] walks it over JSON (`eval`, with the
//! functions of `functions` and `format`). Known are text, comments, trim marks, fields, variables, pipes, `if`, `range`, `with`,
//! `break`, `continue`, Go's functions for conditions, comparison, access and printing, and Docker's for text.
//! `define`, `template`, `block` and `call` are errors that name them. Sources: the documentation of Go's `text/template` and
//! `fmt`, Docker's "Format command and log output".
//!
//! Pure: a template is the user's, the data may be anybody's, and neither reaches anything but the text that is given back.

#![forbid(unsafe_code)]

mod eval;
mod format;
mod functions;
mod lex;
mod parse;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// Maps with which a field that takes an argument is answered: `.Label "key"` is the entry `key` of the map `Label`, or
/// nothing.
pub type Lookups = BTreeMap<&'static str, BTreeMap<String, String>>;

/// Why a template cannot be read, or not be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The byte of the template at which it is wrong.
    pub at: usize,
    /// What is wrong there.
    pub why: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at character {} of the template)", self.why, self.at + 1)
    }
}

impl std::error::Error for Error {}

impl Error {
    fn new(at: usize, why: impl Into<String>) -> Self {
        Self { at, why: why.into() }
    }
}

/// A template that was understood.
#[derive(Clone, Debug)]
pub struct Template {
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// It is not one, or has something of Go's that is not known here.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self { nodes: parse::parse(lex::lex(text)?)? })
    }

    /// The template filled in with `data`.
    ///
    /// # Errors
    /// A field that the data does not have; a function whose arguments are not of its kind.
    pub fn render(&self, data: &Value) -> Result<String, Error> {
        self.render_with(data, &Lookups::new())
    }

    /// The same with answers for fields that take an argument.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_with(&self, data: &Value, lookups: &Lookups) -> Result<String, Error> {
        eval::render(&self.nodes, data, lookups, &functions::ordinary)
    }

    /// The heading of a table: filled in with the names of columns, which functions leave as they are.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn heading(&self, names: &Value, lookups: &Lookups) -> Result<String, Error> {
        eval::render(&self.nodes, names, lookups, &functions::heading)
    }
}
