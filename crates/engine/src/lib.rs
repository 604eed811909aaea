//! Containers as people know them: a root file system, options, a name, an exit status.
//!
//! Start at `run.rs`, the story of `hull run`.

#![forbid(unsafe_code)]

pub mod check;
pub mod container;
mod error;
mod etc;
mod hold;
pub mod image;
mod json;
mod machine;
pub mod names;
pub mod options;
pub mod profile;
mod relay;
mod root;
pub mod run;
pub mod spec;
pub mod user;

pub use error::{Error, Result};
pub use hold::Hold;
pub use options::RunOptions;
pub use relay::{Beside, Relay};
pub use run::{Engine, Streams, contain, run};
