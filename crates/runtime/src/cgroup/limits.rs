//! OCI resources as values in files. Pure.

use std::borrow::Cow;

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::host::{Host, Version};
use super::{devices, other};
use crate::error::{Error, Result};

/// One value for one file of the container's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The controller whose hierarchy it is in; empty for v2's own files (`cgroup.…`).
    pub controller: Cow<'static, str>,
    /// The file's name. On v2 `devices.allow` and `devices.deny` are no files: their lines become one program.
    pub file: Cow<'static, str>,
    /// What is written.
    pub value: String,
    /// The file that some kernels have instead, and what is written to that one.
    pub instead: Option<(&'static str, String)>,
}

pub(super) fn write(
    controller: &'static str,
    file: impl Into<Cow<'static, str>>,
    value: impl std::fmt::Display,
) -> Write {
    Write { controller: controller.into(), file: file.into(), value: value.to_string(), instead: None }
}

/// The writes that put `resources` in force on this host, in order.
///
/// # Errors
/// A resource that this host has no controller for, or that its version of control groups does not know; a value
/// that means nothing.
pub fn plan(host: &Host, resources: &LinuxResources) -> Result<Vec<Write>> {
    let v2 = |controller: &str| match host.controller(controller) {
        Some(hierarchy) => hierarchy.version == Version::V2,
        None => host.unified(),
    };
    let mut writes = Vec::new();
    if let Some(memory) = resources.memory() {
        if v2("memory") { memory_v2(memory, &mut writes)? } else { memory_v1(memory, &mut writes)? }
    }
    if let Some(pids) = resources.pids() {
        // 1 forbids all but the first process, as 0 does, and lets that one be born in its group on v2.
        let limit = if pids.limit() == 0 { 1 } else { pids.limit() };
        writes.push(write("pids", "pids.max", amount("pids.max", limit, "max")?));
    }
    if let Some(cpu) = resources.cpu() {
        if v2("cpu") {
            cpu_v2(cpu, &mut writes)?
        } else {
            cpu_v1(cpu, &mut writes)?
        }
        cpuset(cpu, &mut writes);
    }
    if let Some(block) = resources.block_io() {
        let v2 = if host.controller("blkio").is_some() { false } else { v2("io") };
        if v2 { other::block_v2(block, &mut writes)? } else { other::block_v1(block, &mut writes) }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        writes.extend(other::huge_pages(limit, v2("hugetlb"))?);
    }
    if let Some(network) = resources.network() {
        other::network(network, host.unified(), &mut writes)?;
    }
    other::rdma(resources.rdma().as_ref(), &mut writes);
    other::unified(resources.unified().as_ref(), host, &mut writes)?;
    for rule in resources.devices().iter().flatten() {
        writes.push(devices::line(rule)?);
    }
    writes.iter().try_for_each(|write| host.can(write))?;
    Ok(writes)
}

/// -1 is "no limit", other negative numbers are mistakes.
pub(super) fn amount(file: &str, value: i64, unlimited: &str) -> Result<String> {
    match value {
        -1 => Ok(unlimited.to_owned()),
        value if value < 0 => {
            Err(Error::invalid(format!("set {file} to {value}"), "a limit is positive, or -1 for none"))
        }
        value => Ok(value.to_string()),
    }
}

/// A limit that is there: 0 is "not given" in the OCI's older users.
fn given(value: Option<i64>) -> Option<i64> {
    value.filter(|value| *value != 0)
}

/// The limits of memory, and of memory and swap together, which cannot be below it.
fn memory_and_swap(memory: &LinuxMemory) -> Result<(Option<i64>, Option<i64>)> {
    let (limit, swap) = (given(memory.limit()), given(memory.swap()));
    match (limit, swap) {
        (Some(limit), Some(swap)) if swap >= 0 && swap < limit => {
            let cause = format!("it counts memory as well, and memory is limited to {limit}");
            Err(Error::invalid(format!("limit memory and swap to {swap}"), cause))
        }
        both => Ok(both),
    }
}

fn memory_v1(memory: &LinuxMemory, writes: &mut Vec<Write>) -> Result<()> {
    if let Some(hierarchy) = memory.use_hierarchy() {
        writes.push(write("memory", "memory.use_hierarchy", u8::from(hierarchy)));
    }
    let (limit, swap) = memory_and_swap(memory)?;
    let files = [
        ("memory.limit_in_bytes", limit),
        ("memory.memsw.limit_in_bytes", swap),
        ("memory.soft_limit_in_bytes", given(memory.reservation())),
        ("memory.kmem.limit_in_bytes", given(memory.kernel())),
        ("memory.kmem.tcp.limit_in_bytes", given(memory.kernel_tcp())),
    ];
    for (file, value) in files {
        if let Some(value) = value {
            writes.push(write("memory", file, amount(file, value, "-1")?));
        }
    }
    if let Some(swappiness) = memory.swappiness() {
        writes.push(write("memory", "memory.swappiness", swappiness));
    }
    if let Some(disabled) = memory.disable_oom_killer() {
        writes.push(write("memory", "memory.oom_control", u8::from(disabled)));
    }
    Ok(())
}

fn memory_v2(memory: &LinuxMemory, writes: &mut Vec<Write>) -> Result<()> {
    let (limit, swap) = memory_and_swap(memory)?;
    if let Some(limit) = limit {
        writes.push(write("memory", "memory.max", amount("memory.max", limit, "max")?));
    }
    // The specification's number is memory and swap together; v2 counts swap alone.
    let alone = match (swap, limit) {
        (Some(swap), Some(limit)) if swap > 0 && limit > 0 => Some(swap - limit),
        (Some(swap), None) if swap > 0 => {
            let cause = "it counts memory as well, and memory is not limited";
            return Err(Error::invalid(format!("limit memory and swap to {swap}"), cause));
        }
        (swap, _) => swap,
    };
    if let Some(alone) = alone {
        writes.push(write("memory", "memory.swap.max", amount("memory.swap.max", alone, "max")?));
    }
    if let Some(reservation) = given(memory.reservation()) {
        writes.push(write("memory", "memory.low", amount("memory.low", reservation, "max")?));
    }
    let missing = [
        ("swappiness", memory.swappiness().is_some()),
        ("disableOOMKiller", memory.disable_oom_killer() == Some(true)),
        ("useHierarchy to false", memory.use_hierarchy() == Some(false)),
        ("kernel", given(memory.kernel()).is_some()),
        ("kernelTCP", given(memory.kernel_tcp()).is_some()),
    ];
    match missing.iter().find(|field| field.1) {
        Some((field, _)) => Err(Error::invalid(format!("set memory.{field}"), "cgroup v2 does not have it")),
        None => Ok(()),
    }
}

fn cpuset(cpu: &LinuxCpu, writes: &mut Vec<Write>) {
    let files = [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())];
    for (file, value) in files {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            writes.push(write("cpuset", file, value));
        }
    }
}

/// A quota: -1 is unlimited, 0 not given.
fn quota(cpu: &LinuxCpu) -> Result<Option<i64>> {
    match given(cpu.quota()) {
        Some(quota) if quota < -1 => {
            Err(Error::invalid(format!("set the CPU quota to {quota}"), "a quota is positive, or -1 for none"))
        }
        quota => Ok(quota),
    }
}

/// The weight that is given, of a group that has one: an idle one has the least, and the kernel refuses another.
fn shares(cpu: &LinuxCpu) -> Option<u64> {
    cpu.shares().filter(|shares| *shares != 0 && cpu.idle() != Some(1))
}

/// v1's shares, 2 to 262144, as v2's weight, 1 to 10000, by the formula of runc 1.3.2 and crun 1.23: ends on ends, and v1's
/// default of 1024 on v2's of 100. Their older versions had a straight line, on which 1024 was 39.
fn weight(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // At the ends the sum of the fractions may be a trifle more or less than 0 and 4.
    (10f64.powf(exponent) - 1e-9).ceil().clamp(1.0, 10_000.0) as u64
}

fn cpu_v1(cpu: &LinuxCpu, writes: &mut Vec<Write>) -> Result<()> {
    if let Some(idle) = cpu.idle() {
        writes.push(write("cpu", "cpu.idle", idle));
    }
    if let Some(shares) = shares(cpu) {
        writes.push(write("cpu", "cpu.shares", shares));
    }
    if let Some(period) = cpu.period().filter(|period| *period != 0) {
        writes.push(write("cpu", "cpu.cfs_period_us", period));
    }
    if let Some(quota) = quota(cpu)? {
        writes.push(write("cpu", "cpu.cfs_quota_us", quota));
    }
    // The burst must not be above the quota, so it comes after it.
    if let Some(burst) = cpu.burst() {
        writes.push(write("cpu", "cpu.cfs_burst_us", burst));
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        writes.push(write("cpu", "cpu.rt_period_us", period));
    }
    if let Some(runtime) = given(cpu.realtime_runtime()) {
        writes.push(write("cpu", "cpu.rt_runtime_us", runtime));
    }
    Ok(())
}

fn cpu_v2(cpu: &LinuxCpu, writes: &mut Vec<Write>) -> Result<()> {
    if given(cpu.realtime_runtime()).is_some() || cpu.realtime_period().is_some_and(|period| period != 0) {
        let cause = "cgroup v2 has neither realtimeRuntime nor realtimePeriod";
        return Err(Error::invalid("limit realtime scheduling", cause));
    }
    if let Some(idle) = cpu.idle() {
        writes.push(write("cpu", "cpu.idle", idle));
    }
    if let Some(shares) = shares(cpu) {
        writes.push(write("cpu", "cpu.weight", weight(shares)));
    }
    let (quota, period) = (quota(cpu)?, cpu.period().filter(|period| *period != 0));
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        writes.push(write("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(100_000))));
    }
    if let Some(burst) = cpu.burst() {
        writes.push(write("cpu", "cpu.max.burst", burst));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
