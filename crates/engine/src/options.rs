//! What a user can ask of `run`, and the meaning of each value. Pure.

use std::fmt;
use std::path::PathBuf;

use hull_image::Platform;

use crate::error::{Error, Result};

mod limits;
mod mounts;
mod security;

pub use limits::{Ulimit, bytes, cpus, memory};
pub use mounts::{AnyMount, Bind, Tmpfs, distinct_targets, parse_mount};
pub use security::capabilities;

/// Where a container's network is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// A namespace of its own with nothing but loopback.
    #[default]
    None,
    /// The host's.
    Host,
}

impl Network {
    /// `none` or `host`.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            other => Err(Error::usage_hint(
                format!("--network {other} is not supported yet"),
                "--network none (the default) or --network host",
            )),
        }
    }
}

/// The system call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Docker's default rules; none with `--privileged`.
    #[default]
    Default,
    /// Docker's default rules, also with `--privileged`.
    Builtin,
    /// None.
    Unconfined,
    /// A profile in Docker's format.
    Profile {
        /// The file's name, for errors.
        name: String,
        /// What it says.
        text: Vec<u8>,
    },
}

/// Where a container's root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder of the host; what is written in the container is written there.
    Folder(PathBuf),
    /// An image of the store, by name or id; what is written goes with the container.
    Image(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Folder(path) => write!(f, "{}", path.display()),
            Source::Image(name) => f.write_str(name),
        }
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::Folder(PathBuf::new())
    }
}

/// Everything `run` takes.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The root file system.
    pub source: Source,
    /// `--name`; without it one is invented.
    pub name: Option<String>,
    /// `--rm`: nothing of it lasts after its end.
    pub remove: bool,
    /// `--entrypoint`: the program that gets `command` as its arguments; empty takes the image's away.
    pub entrypoint: Option<String>,
    /// The command; if empty, the image's.
    pub command: Vec<String>,
    /// `--interactive`.
    pub interactive: bool,
    /// `--tty`.
    pub tty: bool,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--workdir`.
    pub workdir: Option<PathBuf>,
    /// `--env`, already with values.
    pub env: Vec<String>,
    /// `--user`.
    pub user: Option<String>,
    /// `--volume` and `--mount type=bind`.
    pub binds: Vec<Bind>,
    /// `--tmpfs`.
    pub tmpfs: Vec<Tmpfs>,
    /// `--read-only`.
    pub read_only: bool,
    /// `--pids-limit`; -1 or 0 is unlimited.
    pub pids_limit: Option<i64>,
    /// `--memory`, bytes.
    pub memory: Option<i64>,
    /// `--memory-swap`, bytes, -1 unlimited.
    pub memory_swap: Option<i64>,
    /// `--cpus`, in microseconds of each 100 000.
    pub cpu_quota: Option<i64>,
    /// `--cpuset-cpus`.
    pub cpuset: Option<String>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--privileged`: the host's devices, nothing masked or read-only, no filter.
    pub privileged: bool,
    /// The capabilities that `--privileged`, `--cap-add` and `--cap-drop` leave; without a word the default ones.
    pub capabilities: Option<u64>,
    /// `--security-opt seccomp=`.
    pub seccomp: Seccomp,
    /// `--security-opt apparmor=`: the profile; none is the host's default, which is unconfined.
    pub apparmor: Option<String>,
    /// `--init`: hull itself is process 1, reaps what ends and passes signals on to the command.
    pub init: bool,
    /// `--security-opt no-new-privileges`.
    pub no_new_privileges: bool,
    /// `--network`.
    pub network: Network,
    /// `--platform`: of an image for several, the one to take.
    pub platform: Option<Platform>,
}

/// The default limit of processes.
pub const PIDS_LIMIT: i64 = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_a_closed_list() {
        assert!(Network::parse("bridge").unwrap_err().to_string().contains("bridge is not supported"));
    }
}
