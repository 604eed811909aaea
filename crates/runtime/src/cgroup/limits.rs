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
        let limit = match pids.limit() {
            0 => "max".to_owned(),
            limit => amount("pids.max", limit, "max")?,
        };
        writes.push(write("pids", "pids.max", limit));
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
        writes.push(other::huge_pages(limit, v2("hugetlb"))?);
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

fn memory_v1(memory: &LinuxMemory, writes: &mut Vec<Write>) -> Result<()> {
    // A new group has no limits, so memory comes before memory and swap together, which must not be below it.
    let files = [
        ("memory.limit_in_bytes", memory.limit()),
        ("memory.memsw.limit_in_bytes", memory.swap()),
        ("memory.soft_limit_in_bytes", memory.reservation()),
        ("memory.kmem.limit_in_bytes", memory.kernel()),
        ("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp()),
    ];
    for (file, value) in files {
        if let Some(value) = given(value) {
            writes.push(write("memory", file, amount(file, value, "-1")?));
        }
    }
    if let Some(swappiness) = memory.swappiness() {
        writes.push(write("memory", "memory.swappiness", swappiness));
    }
    if memory.disable_oom_killer() == Some(true) {
        writes.push(write("memory", "memory.oom_control", 1));
    }
    if memory.use_hierarchy() == Some(true) {
        writes.push(write("memory", "memory.use_hierarchy", 1));
    }
    Ok(())
}

fn memory_v2(memory: &LinuxMemory, writes: &mut Vec<Write>) -> Result<()> {
    let (limit, swap) = (given(memory.limit()), given(memory.swap()));
    if let Some(limit) = limit {
        writes.push(write("memory", "memory.max", amount("memory.max", limit, "max")?));
    }
    // The specification's number is memory and swap together; v2 counts swap alone.
    let alone = match (swap, limit) {
        // Unlimited memory without a word about swap means both, as on v1.
        (Some(-1), _) | (None, Some(-1)) => Some(-1),
        (None, _) => None,
        (Some(swap), Some(limit)) if limit > 0 && swap >= limit => Some(swap - limit),
        (Some(swap), limit) => {
            let memory = limit.map_or("not limited".to_owned(), |limit| format!("limited to {limit}"));
            let cause = format!("it counts memory as well, and memory is {memory}");
            return Err(Error::invalid(format!("limit memory and swap to {swap}"), cause));
        }
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

fn cpu_v1(cpu: &LinuxCpu, writes: &mut Vec<Write>) -> Result<()> {
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        writes.push(write("cpu", "cpu.shares", shares));
    }
    if let Some(idle) = cpu.idle() {
        writes.push(write("cpu", "cpu.idle", idle));
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
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        // The range 2..262144 of v1 onto 1..10000, as runc and crun map it.
        let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        writes.push(write("cpu", "cpu.weight", weight));
    }
    if let Some(idle) = cpu.idle() {
        writes.push(write("cpu", "cpu.idle", idle));
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

/// Which version a host has decides the file names; both are exercised by these tables.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{Hierarchy, Version};

    fn host(version: Version) -> Host {
        let controllers: &[&str] = match version {
            Version::V1 => {
                &["memory", "pids", "cpu", "cpuset", "devices", "blkio", "hugetlb", "net_cls", "net_prio", "rdma"]
            }
            Version::V2 => &["memory", "pids", "cpu", "cpuset", "io", "hugetlb", "rdma"],
        };
        let hierarchy = |controllers: Vec<String>| Hierarchy {
            version,
            controllers,
            mount: "/cg".into(),
            parent: Default::default(),
            own: Default::default(),
        };
        let hierarchies = match version {
            Version::V2 => vec![hierarchy(controllers.iter().map(|name| (*name).to_owned()).collect())],
            Version::V1 => controllers.iter().map(|name| hierarchy(vec![(*name).to_owned()])).collect(),
        };
        Host { hierarchies }
    }

    fn values(version: Version, json: serde_json::Value) -> Result<Vec<String>> {
        let resources: LinuxResources = serde_json::from_value(json).unwrap();
        let writes = plan(&host(version), &resources)?;
        Ok(writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect())
    }

    #[test]
    fn the_same_limits_have_other_files_on_the_two_versions() {
        let json = serde_json::json!({
            "memory": {"limit": 100, "swap": 150}, "pids": {"limit": 20},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0"}
        });
        assert_eq!(
            values(Version::V1, json.clone()).unwrap(),
            [
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=150",
                "pids.max=20",
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpuset.cpus=0"
            ]
        );
        assert_eq!(
            values(Version::V2, json).unwrap(),
            [
                "memory.max=100",
                "memory.swap.max=50",
                "pids.max=20",
                "cpu.weight=39",
                "cpu.max=50000 100000",
                "cpuset.cpus=0"
            ]
        );
    }

    #[test]
    fn unlimited_is_a_word_and_negative_numbers_are_mistakes() {
        let unlimited = serde_json::json!({"memory": {"limit": -1}, "pids": {"limit": -1}});
        assert_eq!(
            values(Version::V2, unlimited).unwrap(),
            ["memory.max=max", "memory.swap.max=max", "pids.max=max"]
        );
        let error = values(Version::V1, serde_json::json!({"memory": {"limit": -2}})).unwrap_err();
        assert!(error.to_string().contains("memory.limit_in_bytes to -2"), "{error}");
    }

    #[test]
    fn a_limit_without_its_controller_is_an_error() {
        let resources: LinuxResources = serde_json::from_value(serde_json::json!({"pids": {"limit": 5}})).unwrap();
        let error = plan(&Host::default(), &resources).unwrap_err();
        assert!(error.to_string().contains("no pids controller"), "{error}");
    }

    #[test]
    fn device_rules_become_lines_of_v1() {
        let json = serde_json::json!({"devices": [
            {"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}
        ]});
        assert_eq!(values(Version::V1, json).unwrap(), ["devices.deny=a", "devices.allow=c 1:3 rw"]);
    }

    #[test]
    fn the_rarer_limits_have_their_files() {
        let json = serde_json::json!({
            "cpu": {"quota": 50000, "period": 100000, "burst": 1000, "idle": 1},
            "blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 30}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}}
        });
        insta::assert_snapshot!(values(Version::V1, json.clone()).unwrap().join("\n"), @r"
        cpu.idle=1
        cpu.cfs_period_us=100000
        cpu.cfs_quota_us=50000
        cpu.cfs_burst_us=1000
        blkio.weight=500
        blkio.weight_device=8:0 1000
        blkio.throttle.read_bps_device=8:0 600
        blkio.throttle.write_iops_device=8:16 30
        hugetlb.2MB.limit_in_bytes=4096
        rdma.max=mlx5_1 hca_handle=3 hca_object=10
        ");
        insta::assert_snapshot!(values(Version::V2, json).unwrap().join("\n"), @r"
        cpu.idle=1
        cpu.max=50000 100000
        cpu.max.burst=1000
        io.weight=4950
        io.weight=8:0 10000
        io.max=8:0 rbps=600
        io.max=8:16 wiops=30
        hugetlb.2MB.max=4096
        rdma.max=mlx5_1 hca_handle=3 hca_object=10
        ");
    }

    #[test]
    fn what_one_version_lacks_is_an_error_there() {
        let cases = [
            (Version::V2, serde_json::json!({"memory": {"swappiness": 10}}), "memory.swappiness"),
            (Version::V2, serde_json::json!({"memory": {"kernel": 10}}), "memory.kernel"),
            (Version::V2, serde_json::json!({"memory": {"swap": 10}}), "not limited"),
            (Version::V2, serde_json::json!({"memory": {"limit": 20, "swap": 10}}), "limited to 20"),
            (Version::V2, serde_json::json!({"cpu": {"realtimeRuntime": 10}}), "realtimeRuntime"),
            (Version::V2, serde_json::json!({"network": {"classID": 10}}), "net_cls"),
            (Version::V2, serde_json::json!({"unified": {"../pids.max": "1"}}), "../pids.max"),
            (Version::V2, serde_json::json!({"unified": {"misc.max": "1"}}), "no misc controller"),
            (Version::V1, serde_json::json!({"unified": {"pids.max": "1"}}), "unified"),
            (Version::V1, serde_json::json!({"pids": {"limit": -5}}), "pids.max to -5"),
            (Version::V1, serde_json::json!({"cpu": {"quota": -5}}), "-5"),
        ];
        for (version, json, words) in cases {
            let error = values(version, json).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn the_unified_map_is_written_as_it_is() {
        let json = serde_json::json!({"unified": {"memory.high": "max", "cgroup.max.depth": "3"}});
        assert_eq!(values(Version::V2, json).unwrap(), ["cgroup.max.depth=3", "memory.high=max"]);
    }
}
