//! The limits of a container as OCI resources. Pure.

use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemoryBuilder,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};

use super::Built;
use crate::options::{PIDS_LIMIT, RunOptions};

/// The limits, and which devices may be opened.
pub(super) fn resources(options: &RunOptions, counts_swap: bool) -> Built<LinuxResources> {
    let pids = options.pids_limit.unwrap_or(PIDS_LIMIT);
    let mut all = LinuxResourcesBuilder::default()
        .pids(LinuxPidsBuilder::default().limit(pids).build()?)
        .devices(device_rules(options.privileged)?);
    if options.memory.is_some() || options.memory_swap.is_some() {
        let mut memory = LinuxMemoryBuilder::default();
        if let Some(limit) = options.memory {
            memory = memory.limit(limit);
        }
        // Docker's default: as much swap as memory. Where the kernel does not count it there is no bound to set.
        let twice = options.memory.filter(|_| counts_swap).map(|limit| limit.saturating_mul(2));
        if let Some(swap) = options.memory_swap.or(twice) {
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

/// Nothing but the standard devices and terminals, unless privileged; making any node is allowed, opening it is not.
fn device_rules(privileged: bool) -> Built<Vec<LinuxDeviceCgroup>> {
    use LinuxDeviceType as Type;
    if privileged {
        return Ok(vec![rule(true, Type::A, (None, None), "rwm")?]);
    }
    let mut rules = vec![rule(false, Type::A, (None, None), "rwm")?];
    rules.push(rule(true, Type::C, (None, None), "m")?);
    rules.push(rule(true, Type::B, (None, None), "m")?);
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)] {
        rules.push(rule(true, Type::C, (Some(major), Some(minor)), "rwm")?);
    }
    rules.push(rule(true, Type::C, (Some(136), None), "rwm")?);
    Ok(rules)
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    number: (Option<i64>, Option<i64>),
    access: &str,
) -> Built<LinuxDeviceCgroup> {
    let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access);
    if let Some(major) = number.0 {
        rule = rule.major(major);
    }
    if let Some(minor) = number.1 {
        rule = rule.minor(minor);
    }
    rule.build()
}
