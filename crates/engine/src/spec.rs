//! Options become an OCI specification.
//!
//! [`build`] looks at the machine first; the rest is pure. Source: runtime-spec 1.3, config.md and config-linux.md.

use std::collections::HashMap;
use std::path::PathBuf;

use hull_runtime::caps;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Linux, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, LinuxSeccomp, PosixRlimitBuilder, PosixRlimitType, Process,
    ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::options::{Network, RunOptions, Seccomp, Source};
use crate::profile;
use crate::user::User;

mod mounts;
mod resources;

pub use mounts::KERNEL_MOUNTS;

/// Docker's search path for commands.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The name by which hull knows that it is what `--init` starts.
pub const INIT: &str = "hull-init";

type Built<T> = std::result::Result<T, OciSpecError>;

/// The specification for `options` on this machine; a UTS namespace is always new, and without `--hostname` its name is
/// the short `id`.
///
/// # Errors
/// A combination that means nothing, or that this machine does not have.
pub fn build(options: &RunOptions, user: &User, id: &str) -> Result<Spec> {
    of(options, user, id, &Machine::look(options)?)
}

/// The specification for `options` on `machine`. Pure.
fn of(options: &RunOptions, user: &User, id: &str, machine: &Machine) -> Result<Spec> {
    let hostname = options.hostname.clone().unwrap_or_else(|| id[..12].to_owned());
    if hostname.len() > 64 || hostname.contains(|c: char| c.is_control() || c.is_whitespace() || c == '/') {
        return Err(Error::usage(format!("--hostname {hostname:?}: a host name has up to 64 plain characters")));
    }
    let bounding = options.capabilities.unwrap_or_else(|| profile::capabilities() & machine.capabilities);
    let filter = filter(options, bounding, machine.kernel)?;
    let write = || {
        SpecBuilder::default()
            .version("1.3.0")
            .hostname(&*hostname)
            .root(RootBuilder::default().path(root_path(&options.source)).readonly(options.read_only).build()?)
            .process(process(options, user, &hostname, bounding)?)
            .mounts(mounts::mounts(options)?)
            .linux(linux(options, filter, machine)?)
            .build()
    };
    write().map_err(unwritten)
}

fn unwritten(error: OciSpecError) -> Error {
    Error::host("write the specification", error)
}

fn process(options: &RunOptions, user: &User, hostname: &str, bounding: u64) -> Built<Process> {
    let mut limits = Vec::new();
    for limit in &options.ulimits {
        let kind: PosixRlimitType = serde_json::from_value(limit.name.clone().into())?;
        limits.push(PosixRlimitBuilder::default().typ(kind).soft(limit.soft).hard(limit.hard).build()?);
    }
    let mut args = options.command.clone();
    if options.init {
        args.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
    }
    let mut process = ProcessBuilder::default();
    if let Some(profile) = &options.apparmor {
        process = process.apparmor_profile(&**profile);
    }
    process
        .terminal(options.tty)
        .user(UserBuilder::default().uid(user.uid).gid(user.gid).additional_gids(user.groups.clone()).build()?)
        .args(args)
        .env(environment(options, user, hostname))
        .cwd(options.workdir.clone().unwrap_or_else(|| "/".into()))
        .capabilities(capabilities(bounding, user)?)
        .rlimits(limits)
        .no_new_privileges(options.no_new_privileges)
        .build()
}

fn capabilities(bounding: u64, user: &User) -> Built<LinuxCapabilities> {
    // A user other than root starts with none in force, as after a setuid in a shell.
    let in_force = if user.uid == 0 { bounding } else { 0 };
    let set = |mask: u64| -> Capabilities {
        caps::names(mask).filter_map(|name| serde_json::from_value(format!("CAP_{name}").into()).ok()).collect()
    };
    LinuxCapabilitiesBuilder::default()
        .bounding(set(bounding))
        .effective(set(in_force))
        .permitted(set(in_force))
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
}

fn linux(options: &RunOptions, filter: Option<LinuxSeccomp>, machine: &Machine) -> Built<Linux> {
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(options)?)
        .resources(resources::resources(options, machine.counts_swap)?);
    if options.privileged {
        linux = linux.devices(machine.devices.clone()).masked_paths(Vec::new()).readonly_paths(Vec::new());
    } else {
        let read_only = profile::READ_ONLY.map(str::to_owned).to_vec();
        linux = linux.masked_paths(machine.masked.clone()).readonly_paths(read_only);
    }
    if options.network == Network::None {
        let open = ("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
        linux = linux.sysctl(HashMap::from([open]));
    }
    if let Some(filter) = filter {
        linux = linux.seccomp(filter);
    }
    linux.build()
}

/// The system call rules; a privileged container has none unless it is told to.
fn filter(options: &RunOptions, bounding: u64, kernel: (u32, u32)) -> Result<Option<LinuxSeccomp>> {
    match &options.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default if options.privileged => Ok(None),
        Seccomp::Default | Seccomp::Builtin => profile::seccomp(bounding).map(Some).map_err(unwritten),
        Seccomp::Profile { name, text } => {
            profile::parse(name, text, profile::Machine { capabilities: bounding, kernel }).map(Some)
        }
    }
}

/// The folder's path; an image's overlay has none, it exists by its descriptor alone.
fn root_path(source: &Source) -> PathBuf {
    match source {
        Source::Folder(path) => path.clone(),
        Source::Image(_) => PathBuf::from("rootfs"),
    }
}

/// PATH, HOSTNAME and HOME, each unless `--env` has it; a later value of a name replaces an earlier one.
fn environment(options: &RunOptions, user: &User, hostname: &str) -> Vec<String> {
    let mut all = vec![PATH.to_owned(), format!("HOSTNAME={hostname}"), format!("HOME={}", user.home)];
    for entry in &options.env {
        let name = entry.split('=').next().unwrap_or_default();
        all.retain(|known| known.split('=').next() != Some(name));
        all.push(entry.clone());
    }
    all
}

fn namespaces(options: &RunOptions) -> Built<Vec<LinuxNamespace>> {
    use LinuxNamespaceType as Type;
    let mut kinds = vec![Type::Mount, Type::Pid, Type::Uts, Type::Ipc, Type::Cgroup];
    if options.network == Network::None {
        kinds.push(Type::Network);
    }
    kinds.into_iter().map(|kind| LinuxNamespaceBuilder::default().typ(kind).build()).collect()
}

#[cfg(test)]
mod tests;
