//! Integration tests: one binary, one file per feature.

#![forbid(unsafe_code)]

mod bad_input;
mod build;
mod containerd;
mod containers;
mod corner;
mod demo;
mod docker;
mod explain;
mod explain_build;
mod explain_html;
mod full_disk;
mod hostile_exe;
mod hostile_host;
mod hostile_identity;
mod hostile_images;
mod hostile_kernel;
mod hostile_mounts;
mod hostile_registry;
mod hostile_upload;
mod images;
mod isolation;
mod kill;
mod kill_build;
mod lesson;
mod limits;
mod login;
mod manifests;
mod nested;
mod oci;
mod oci_conformance;
mod oci_events;
mod oci_exec;
mod oci_flags;
mod oci_hooks;
mod oci_like_runc;
mod oci_rootless;
mod oci_update;
mod platforms;
mod podman;
mod push;
mod run;
mod store;
mod terminal;
mod verify;
