//! Options become an OCI specification. Pure.
//!
//! Source: runtime-spec 1.3, config.md and config-linux.md.

use std::collections::HashMap;
use std::path::PathBuf;

use hull_runtime::caps;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxDeviceCgroup,
    LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemoryBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, Mount, MountBuilder, PosixRlimitBuilder,
    PosixRlimitType, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use crate::error::{Error, Result};
use crate::options::{Network, PIDS_LIMIT, RunOptions, Seccomp, Source};
use crate::profile;
use crate::user::User;

/// Docker's search path for commands.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A file of the container's folder that appears in its /etc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcFile {
    /// The host's path.
    pub source: PathBuf,
    /// Where it appears.
    pub target: &'static str,
}

/// The specification for `options`; `hostname` is the default one, for a UTS namespace is always new.
///
/// # Errors
/// A combination that means nothing.
pub fn build(options: &RunOptions, user: &User, id: &str, etc: &[EtcFile]) -> Result<Spec> {
    let hostname = options.hostname.clone().unwrap_or_else(|| id[..12].to_owned());
    if hostname.len() > 64 || hostname.contains(|c: char| c.is_control() || c == '/') {
        return Err(Error::usage(format!("--hostname {hostname:?}: a host name has up to 64 plain characters")));
    }
    spec(options, user, &hostname, etc).map_err(|error| Error::host("write the specification", error))
}

fn spec(
    options: &RunOptions,
    user: &User,
    hostname: &str,
    etc: &[EtcFile],
) -> std::result::Result<Spec, OciSpecError> {
    let bounding = options.capabilities.unwrap_or_else(default_capabilities);
    // A user other than root starts with none in force, as after a setuid in a shell.
    let in_force = if user.uid == 0 { bounding } else { 0 };
    let set = |mask: u64| -> Capabilities {
        caps::names(mask).filter_map(|name| serde_json::from_value(format!("CAP_{name}").into()).ok()).collect()
    };
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set(bounding))
        .effective(set(in_force))
        .permitted(set(in_force))
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()?;
    let mut limits = Vec::new();
    for limit in &options.ulimits {
        let kind: PosixRlimitType = serde_json::from_value(limit.name.clone().into())?;
        limits.push(PosixRlimitBuilder::default().typ(kind).soft(limit.soft).hard(limit.hard).build()?);
    }
    let process = ProcessBuilder::default()
        .terminal(options.tty)
        .user(UserBuilder::default().uid(user.uid).gid(user.gid).additional_gids(user.groups.clone()).build()?)
        .args(options.command.clone())
        .env(environment(options, user, hostname))
        .cwd(options.workdir.clone().unwrap_or_else(|| "/".into()))
        .capabilities(capabilities)
        .rlimits(limits)
        .no_new_privileges(options.no_new_privileges)
        .build()?;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(options)?)
        .resources(resources(options)?)
        .masked_paths(profile::masked())
        .readonly_paths(profile::READ_ONLY.map(str::to_owned).to_vec());
    if options.network == Network::None {
        let open = ("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
        linux = linux.sysctl(HashMap::from([open]));
    }
    if options.seccomp == Seccomp::Default {
        linux = linux.seccomp(profile::seccomp(bounding)?);
    }
    SpecBuilder::default()
        .version("1.3.0")
        .hostname(hostname)
        .root(RootBuilder::default().path(root_path(&options.source)).readonly(options.read_only).build()?)
        .process(process)
        .mounts(mounts(options, etc)?)
        .linux(linux.build()?)
        .build()
}

/// The folder's path; an image's overlay has none, it exists by its descriptor alone.
fn root_path(source: &Source) -> PathBuf {
    match source {
        Source::Folder(path) => path.clone(),
        Source::Image(_) => PathBuf::from("rootfs"),
    }
}

fn default_capabilities() -> u64 {
    profile::CAPABILITIES.iter().filter_map(|name| caps::number(name)).fold(0, |all, number| all | 1 << number)
}

/// PATH, HOSTNAME, HOME and TERM, each unless `--env` has it; a later value of a name replaces an earlier one.
fn environment(options: &RunOptions, user: &User, hostname: &str) -> Vec<String> {
    let mut all = vec![PATH.to_owned(), format!("HOSTNAME={hostname}"), format!("HOME={}", user.home)];
    if options.tty {
        all.push("TERM=xterm".to_owned());
    }
    for entry in &options.env {
        let name = entry.split('=').next().unwrap_or_default();
        all.retain(|known| known.split('=').next() != Some(name));
        all.push(entry.clone());
    }
    all
}

fn namespaces(options: &RunOptions) -> std::result::Result<Vec<oci_spec::runtime::LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType as Type;
    let mut kinds = vec![Type::Mount, Type::Pid, Type::Uts, Type::Ipc, Type::Cgroup];
    if options.network == Network::None {
        kinds.push(Type::Network);
    }
    kinds.into_iter().map(|kind| LinuxNamespaceBuilder::default().typ(kind).build()).collect()
}

fn mount(kind: &str, target: &str, options: &[&str]) -> std::result::Result<Mount, OciSpecError> {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    MountBuilder::default().typ(kind).source(kind).destination(target).options(options).build()
}

fn mounts(options: &RunOptions, etc: &[EtcFile]) -> std::result::Result<Vec<Mount>, OciSpecError> {
    let mut all = vec![
        mount("proc", "/proc", &["nosuid", "noexec", "nodev"])?,
        mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"])?,
        mount("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])?,
        mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"])?,
        mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"])?,
        mount("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"])?,
    ];
    for file in etc {
        all.push(bind(&file.source, file.target, &["rbind", "rprivate"])?);
    }
    for tmpfs in &options.tmpfs {
        let given: Vec<&str> = tmpfs.options.iter().map(String::as_str).collect();
        all.push(mount("tmpfs", &tmpfs.target.to_string_lossy(), &given)?);
    }
    for volume in &options.binds {
        let mode: &[&str] = if volume.read_only { &["rbind", "rprivate", "rro"] } else { &["rbind", "rprivate"] };
        all.push(bind(&volume.source, &volume.target.to_string_lossy(), mode)?);
    }
    Ok(all)
}

fn bind(source: &PathBuf, target: &str, options: &[&str]) -> std::result::Result<Mount, OciSpecError> {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    MountBuilder::default().typ("bind").source(source).destination(target).options(options).build()
}

fn resources(options: &RunOptions) -> std::result::Result<LinuxResources, OciSpecError> {
    let pids = options.pids_limit.unwrap_or(PIDS_LIMIT);
    let mut all = LinuxResourcesBuilder::default()
        .pids(LinuxPidsBuilder::default().limit(pids).build()?)
        .devices(device_rules()?);
    if options.memory.is_some() || options.memory_swap.is_some() {
        let mut memory = LinuxMemoryBuilder::default();
        if let Some(limit) = options.memory {
            memory = memory.limit(limit);
        }
        // Without --memory-swap the kernel's own bound on swap stays.
        if let Some(swap) = options.memory_swap {
            memory = memory.swap(swap);
        }
        all = all.memory(memory.build()?);
    }
    if options.cpu_quota.is_some() || options.cpuset.is_some() {
        let mut cpu = LinuxCpuBuilder::default();
        if let Some(quota) = options.cpu_quota {
            cpu = cpu.quota(quota).period(100_000u64);
        }
        if let Some(set) = &options.cpuset {
            cpu = cpu.cpus(set.clone());
        }
        all = all.cpu(cpu.build()?);
    }
    all.build()
}

/// Nothing but the standard devices and terminals; making any node is allowed, opening it is not.
fn device_rules() -> std::result::Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    use LinuxDeviceType as Type;
    let rule = |allow: bool, kind: Type, number: (Option<i64>, Option<i64>), access: &str| {
        let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
        if let Some(major) = number.0 {
            rule = rule.major(major);
        }
        if let Some(minor) = number.1 {
            rule = rule.minor(minor);
        }
        rule.build()
    };
    let mut rules = vec![rule(false, Type::A, (None, None), "rwm")?];
    rules.push(rule(true, Type::C, (None, None), "m")?);
    rules.push(rule(true, Type::B, (None, None), "m")?);
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)] {
        rules.push(rule(true, Type::C, (Some(major), Some(minor)), "rwm")?);
    }
    rules.push(rule(true, Type::C, (Some(136), None), "rwm")?);
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> RunOptions {
        RunOptions { source: Source::Folder("/r".into()), command: vec!["true".into()], ..RunOptions::default() }
    }

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_given_variable_replaces_the_default() {
        let given = RunOptions { env: vec!["PATH=/x".into(), "A=1".into(), "A=2".into()], ..options() };
        let spec = build(&given, &User { home: "/root".into(), ..User::default() }, ID, &[]).unwrap();
        let env = spec.process().as_ref().unwrap().env().clone().unwrap();
        assert_eq!(env, ["HOSTNAME=0123456789ab", "HOME=/root", "PATH=/x", "A=2"]);
    }

    #[test]
    fn the_plan_of_a_default_container_is_this_one() {
        let etc = [EtcFile { source: "/run/hull/hosts".into(), target: "/etc/hosts" }];
        let spec = build(&options(), &User { home: "/".into(), ..User::default() }, ID, &etc).unwrap();
        let plan = hull_runtime::plan::Plan::from_spec(&spec).unwrap();
        // What differs from machine to machine, and the length of a program that is tested elsewhere.
        let text = plan.to_string();
        let lines = text.lines().filter(|line| !line.contains("thermal_throttle"));
        let lines: Vec<&str> =
            lines.map(|line| if line.starts_with("seccomp") { "seccomp     FILTER" } else { line }).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn another_user_has_no_capability_in_force() {
        let user = User { uid: 1000, gid: 1000, home: "/".into(), ..User::default() };
        let plan = hull_runtime::plan::Plan::from_spec(&build(&options(), &user, ID, &[]).unwrap()).unwrap();
        assert_eq!((plan.caps.effective, plan.caps.permitted, plan.caps.inheritable), (0, 0, 0));
        assert_eq!(plan.caps.bounding.count_ones(), 11);
        assert_eq!(plan.groups, [1000]);
    }
}
