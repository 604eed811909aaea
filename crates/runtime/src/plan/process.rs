//! What the command is: who, where, with which rights, limits and words. Pure.
//!
//! Source: runtime-spec, config.md "Process", config-linux.md "Seccomp".

use std::ffi::{CStr, CString};
use std::path::PathBuf;

use oci_spec::runtime::{Linux, PosixRlimitType, Process as SpecProcess};
use rustix::process::Resource;

use super::running::Running;
use super::{optional, text};
use crate::caps::CapSets;
use crate::error::{Error, Result};
use crate::seccomp::{self, Listener, Program};

/// The container's first process, or one that is executed in it later.
#[derive(Clone, Debug)]
pub struct Process {
    /// Resource limits: resource, soft, hard; `None` is unlimited.
    pub rlimits: Vec<Limit>,
    /// Scheduler, priorities, personality, memory nodes.
    pub running: Running,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// Capabilities.
    pub caps: CapSets,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; the group id is always among them. `None` leaves the caller's.
    pub groups: Option<Vec<u32>>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// No exec may gain privileges.
    pub no_new_privs: bool,
    /// The AppArmor profile that the command gets.
    pub apparmor: Option<CString>,
    /// The SELinux label that the command gets.
    pub selinux: Option<CString>,
    /// The system call filter.
    pub seccomp: Option<Program>,
    /// Whether there is a terminal.
    pub terminal: bool,
    /// Working directory.
    pub cwd: PathBuf,
    /// The command.
    pub argv: Vec<CString>,
    /// Whether hull itself is executed with these words, whatever file they name.
    pub itself: bool,
    /// Its environment, each name once.
    pub env: Vec<CString>,
    /// How many descriptors from 3 on it inherits.
    pub descriptors: u32,
}

/// A resource limit: resource, soft, hard; `None` is unlimited.
pub type Limit = (Resource, Option<u64>, Option<u64>);

impl Process {
    /// The plan for `process` in a container with the section `linux`.
    ///
    /// # Errors
    /// What the specification asks for and no kernel does, by name.
    pub fn from_spec(process: &SpecProcess, linux: &Linux) -> Result<Self> {
        let user = process.user();
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        if [user.uid(), user.gid()].iter().chain(&groups).any(|id| *id == u32::MAX) {
            // The kernel takes it as "leave it", and it would be left at 0.
            return Err(Error::invalid("become the user", format!("{} is no user or group id", u32::MAX)));
        }
        if !groups.contains(&user.gid()) {
            groups.insert(0, user.gid());
        }
        let seccomp = match linux.seccomp() {
            Some(profile) => Some(seccomp::compile(profile)?),
            None => None,
        };
        Ok(Self {
            rlimits: rlimits(process)?,
            running: Running::from_spec(process, linux)?,
            oom_score_adj: process.oom_score_adj(),
            caps: process.capabilities().as_ref().map(CapSets::from_spec).unwrap_or_default(),
            uid: user.uid(),
            gid: user.gid(),
            groups: Some(groups),
            umask: user.umask(),
            no_new_privs: process.no_new_privileges().unwrap_or(false),
            apparmor: optional("apply the AppArmor profile", process.apparmor_profile())?,
            selinux: optional("apply the SELinux label", process.selinux_label())?,
            seccomp,
            terminal: process.terminal().unwrap_or(false),
            cwd: process.cwd().clone(),
            argv: strings("execute the command", process.args().iter().flatten())?,
            itself: false,
            env: environment(process.env().as_deref().unwrap_or_default())?,
            descriptors: 0,
        })
    }
}

impl Process {
    /// The seccomp agent, if some of its calls are to be decided by one.
    pub(crate) fn listener(&self) -> Option<&Listener> {
        self.seccomp.as_ref().and_then(|program| program.listener.as_ref())
    }

    /// Sets a variable of the environment. Its value must not hold a NUL, which would make it an empty one.
    pub fn set_env(&mut self, name: &CStr, value: &str) {
        let entry = [name.to_bytes(), b"=", value.as_bytes()].concat();
        let prefix = &entry[..=name.count_bytes()];
        self.env.retain(|known| !known.to_bytes().starts_with(prefix));
        self.env.push(CString::new(entry).unwrap_or_default());
    }
}

/// `NAME=VALUE` each; of several with one name the last one counts.
fn environment(list: &[String]) -> Result<Vec<CString>> {
    let doing = "set the environment";
    let mut all: Vec<(&str, &String)> = Vec::with_capacity(list.len());
    for entry in list {
        let name = match entry.split_once('=') {
            None | Some(("", _)) => {
                return Err(Error::invalid(doing, format!("invalid environment variable: {entry:?}")));
            }
            Some((name, _)) => name,
        };
        all.retain(|(known, _)| *known != name);
        all.push((name, entry));
    }
    strings(doing, all.into_iter().map(|(_, entry)| entry))
}

impl Process {
    /// Leaves the groups that the caller is in, where none can be set.
    ///
    /// # Errors
    /// The specification wants others.
    pub fn leave_groups(&mut self) -> Result<()> {
        match self.groups.take() {
            Some(groups) if groups.iter().any(|group| *group != self.gid) => {
                let cause =
                    "in this user namespace no group can be set, since its ids were mapped without rights to that";
                Err(Error::invalid("set process.user.additionalGids", cause))
            }
            _ => Ok(()),
        }
    }
}

fn strings<'a>(doing: &str, list: impl Iterator<Item = &'a String>) -> Result<Vec<CString>> {
    list.map(|item| text(doing, item)).collect()
}

fn rlimits(process: &SpecProcess) -> Result<Vec<Limit>> {
    use PosixRlimitType as Type;
    let limit = |value: u64| (value != u64::MAX).then_some(value);
    process
        .rlimits()
        .iter()
        .flatten()
        .map(|rlimit| {
            let resource = match rlimit.typ() {
                Type::RlimitCpu => Resource::Cpu,
                Type::RlimitFsize => Resource::Fsize,
                Type::RlimitData => Resource::Data,
                Type::RlimitStack => Resource::Stack,
                Type::RlimitCore => Resource::Core,
                Type::RlimitRss => Resource::Rss,
                Type::RlimitNproc => Resource::Nproc,
                Type::RlimitNofile => Resource::Nofile,
                Type::RlimitMemlock => Resource::Memlock,
                Type::RlimitAs => Resource::As,
                Type::RlimitLocks => Resource::Locks,
                Type::RlimitSigpending => Resource::Sigpending,
                Type::RlimitMsgqueue => Resource::Msgqueue,
                Type::RlimitNice => Resource::Nice,
                Type::RlimitRtprio => Resource::Rtprio,
                Type::RlimitRttime => Resource::Rttime,
            };
            match process.rlimits().iter().flatten().filter(|other| other.typ() == rlimit.typ()).count() {
                1 => Ok((resource, limit(rlimit.soft()), limit(rlimit.hard()))),
                _ => Err(Error::invalid(format!("set the limit {}", rlimit.typ()), "process.rlimits has it twice")),
            }
        })
        .collect()
}
