//! Control groups, v1, hybrid and v2: a limit is a value in a file, and a limit that cannot be set stops the start.
//!
//! [`Host::detect`] reads how this machine is laid out, [`plan`] turns OCI resources into folders and writes (pure),
//! [`Cgroup`] owns the folders. The differences between the versions stay inside this module.
//!
//! Sources: `cgroups(7)`, the kernel's `cgroup-v1/` and `cgroup-v2.rst`, runtime-spec "Control groups".

mod adopt;
mod apply;
mod clear;
mod dbus;
mod devices;
pub mod enter;
mod fields;
mod freezer;
mod group;
mod host;
mod limits;
mod live;
mod merge;
mod oom;
mod other;
mod pending;
mod place;
mod stats;
mod systemd;
mod text_form;
mod unit;

pub use adopt::stop_unit;
pub use clear::{is_abandoned, kill_leftover, leftovers, remove_leftover};
pub use devices::{device_rules, standard_devices};
pub use freezer::is_frozen;
pub(crate) use host::unescape;
pub use host::{Hierarchy, Host, Version};
pub use limits::{Write, plan};
pub use live::{Cgroup, View, folders};
pub use merge::merged;
pub use oom::OutOfMemory;
pub use place::Place;
pub use stats::{Interface, Stats, interfaces};
pub use systemd::check as check_systemd;
pub use unit::{Property, Unit, annotated};
