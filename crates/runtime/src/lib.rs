//! The OCI runtime: a specification and a root become a contained process.
//!
//! Read [`create`] for the parent's half and `init.rs` for the child's, and [`exec`] for both of a further command.
//! Everything they do is computed before, in [`plan`], by pure functions; [`cgroup`], [`caps`] and [`seccomp`] are the three larger tables behind it.

#![forbid(unsafe_code)]

mod agent;
pub mod caps;
pub mod cgroup;
mod command;
mod copyup;
mod create;
mod created;
pub mod criu;
mod devices;
mod diagnose;
mod entrance;
mod error;
pub mod exec;
pub mod hooks;
mod identity;
mod idmap;
mod init;
mod join;
mod keyring;
mod lsm;
mod mounts;
mod netdev;
pub mod objects;
pub mod options;
mod parent;
pub mod passwd;
pub mod plan;
pub mod rdt;
mod rootfs;
mod running;
pub mod seccomp;
pub mod spec;
pub mod start;
pub mod state;
mod streams;
pub mod unprivileged;
mod view;

pub use create::{Inputs, Start, Stdio, create};
pub use created::Created;
pub use error::{Class, Error, Result};
pub use hull_sys::process::Ended;
