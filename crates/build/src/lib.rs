//! A Dockerfile becomes an image.
//!
//! The way of a build: text -> syntax tree with spans ([`syntax`]) -> stages and steps with cache keys ([`graph`]),
//! both pure -> the solver, which finds each step in the cache or performs it. Nothing here starts a process or knows
//! how layers are stored: a `RUN` is `hull-engine`'s run path, layers and images are `hull-image`'s.

#![forbid(unsafe_code)]

pub mod build;
pub mod cache;
pub mod config;
pub mod context;
pub mod copy;
mod error;
pub mod expand;
pub mod glob;
pub mod graph;
pub mod progress;
pub mod run;
pub mod solve;
pub mod store;
pub mod syntax;
pub mod walk;

pub use build::{BuildOptions, Built, build, plan};
pub use error::{Error, Result};
pub use store::{NoStore, StoreWorker};
