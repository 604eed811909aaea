//! The limits of a container as OCI resources. Pure.

use hull_runtime::cgroup;
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

/// Nothing but what every container may use, unless privileged.
fn device_rules(privileged: bool) -> Built<Vec<LinuxDeviceCgroup>> {
    let all = LinuxDeviceCgroupBuilder::default().allow(privileged).typ(LinuxDeviceType::A).access("rwm").build()?;
    Ok(if privileged { vec![all] } else { [vec![all], cgroup::standard_devices()].concat() })
}
