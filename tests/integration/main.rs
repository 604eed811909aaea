//! Integration tests: one binary, one file per feature.

#![forbid(unsafe_code)]

mod bad_input;
mod build;
mod containers;
mod corner;
mod demo;
mod explain;
mod explain_build;
mod full_disk;
mod hostile_registry;
mod isolation;
mod kill;
mod kill_build;
mod limits;
mod manifests;
mod run;
mod store;
mod terminal;
mod verify;
