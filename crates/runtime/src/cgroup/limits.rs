//! OCI resources as values in files. Pure.

use oci_spec::runtime::{LinuxCpu, LinuxDeviceType, LinuxMemory, LinuxResources};

use super::host::Host;
use crate::error::{Error, Result};

/// One value for one file of the container's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The controller whose hierarchy it is in.
    pub controller: &'static str,
    /// The file's name.
    pub file: &'static str,
    /// What is written.
    pub value: String,
}

fn write(controller: &'static str, file: &'static str, value: impl ToString) -> Write {
    Write { controller, file, value: value.to_string() }
}

/// The writes that put `resources` in force on this host, in order.
///
/// # Errors
/// A resource that this host has no controller for, or that hull does not set yet; a value that means nothing.
pub fn plan(host: &Host, resources: &LinuxResources) -> Result<Vec<Write>> {
    refuse_unsupported(resources)?;
    let v2 = host.unified();
    let mut writes = Vec::new();
    if let Some(memory) = resources.memory() {
        if v2 { memory_v2(memory, &mut writes)? } else { memory_v1(memory, &mut writes)? }
    }
    if let Some(pids) = resources.pids() {
        let limit = pids.limit();
        writes.push(write("pids", "pids.max", if limit > 0 { limit.to_string() } else { "max".to_owned() }));
    }
    if let Some(cpu) = resources.cpu() {
        if v2 { cpu_v2(cpu, &mut writes)? } else { cpu_v1(cpu, &mut writes)? }
    }
    if let (Some(devices), false) = (resources.devices(), v2) {
        for rule in devices {
            let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
                LinuxDeviceType::B => "b",
                LinuxDeviceType::C | LinuxDeviceType::U => "c",
                _ => "a",
            };
            let number =
                |value: Option<i64>| value.filter(|value| *value >= 0).map_or("*".to_owned(), |v| v.to_string());
            let access = rule.access().clone().unwrap_or_else(|| "rwm".to_owned());
            let value = format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor()));
            let value = if value == "a *:* rwm" { "a".to_owned() } else { value };
            writes.push(write("devices", if rule.allow() { "devices.allow" } else { "devices.deny" }, value));
        }
    }
    for write in &writes {
        if host.controller(write.controller).is_none() {
            let doing = format!("set {} to {}", write.file, write.value);
            let cause = format!("this machine has no {} controller that hull can use", write.controller);
            return Err(Error::invalid(doing, cause).hint("see /proc/cgroups and /proc/self/mountinfo"));
        }
    }
    Ok(writes)
}

fn refuse_unsupported(resources: &LinuxResources) -> Result<()> {
    let names = [
        ("blockIO", resources.block_io().is_some()),
        ("hugepageLimits", resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty())),
        ("network", resources.network().is_some()),
        ("rdma", resources.rdma().is_some()),
        ("unified", resources.unified().is_some()),
    ];
    match names.iter().find(|name| name.1) {
        Some((name, _)) => {
            Err(Error::invalid("limit the container", format!("resources.{name} is not supported yet")))
        }
        None => Ok(()),
    }
}

/// -1 is "no limit", other negative numbers are mistakes.
fn bytes(file: &'static str, value: i64, unlimited: &str) -> Result<String> {
    match value {
        -1 => Ok(unlimited.to_owned()),
        value if value < 0 => {
            Err(Error::invalid(format!("set {file} to {value}"), "a limit is positive, or -1 for none"))
        }
        value => Ok(value.to_string()),
    }
}

fn memory_v1(memory: &LinuxMemory, writes: &mut Vec<Write>) -> Result<()> {
    if let Some(limit) = memory.limit() {
        let file = "memory.limit_in_bytes";
        writes.push(write("memory", file, bytes(file, limit, "-1")?));
    }
    if let Some(swap) = memory.swap() {
        let file = "memory.memsw.limit_in_bytes";
        writes.push(write("memory", file, bytes(file, swap, "-1")?));
    }
    if let Some(reservation) = memory.reservation() {
        let file = "memory.soft_limit_in_bytes";
        writes.push(write("memory", file, bytes(file, reservation, "-1")?));
    }
    if let Some(swappiness) = memory.swappiness() {
        writes.push(write("memory", "memory.swappiness", swappiness));
    }
    if memory.disable_oom_killer() == Some(true) {
        writes.push(write("memory", "memory.oom_control", 1));
    }
    Ok(())
}

fn memory_v2(memory: &LinuxMemory, writes: &mut Vec<Write>) -> Result<()> {
    if let Some(limit) = memory.limit() {
        writes.push(write("memory", "memory.max", bytes("memory.max", limit, "max")?));
    }
    if let Some(swap) = memory.swap() {
        // The specification's number is memory and swap together; v2 counts swap alone.
        let alone = match (swap, memory.limit().unwrap_or(-1)) {
            (-1, _) => -1,
            (swap, limit) if limit >= 0 && swap >= limit => swap - limit,
            (swap, limit) => {
                let cause = format!("it counts memory as well, and memory is limited to {limit}");
                return Err(Error::invalid(format!("limit memory and swap to {swap}"), cause));
            }
        };
        writes.push(write("memory", "memory.swap.max", bytes("memory.swap.max", alone, "max")?));
    }
    if let Some(reservation) = memory.reservation() {
        writes.push(write("memory", "memory.low", bytes("memory.low", reservation, "max")?));
    }
    if memory.swappiness().is_some() || memory.disable_oom_killer() == Some(true) {
        let cause = "cgroup v2 has neither swappiness nor a switch for the OOM killer";
        return Err(Error::invalid("limit memory", cause));
    }
    Ok(())
}

fn refuse_realtime(cpu: &LinuxCpu) -> Result<()> {
    let asked = cpu.realtime_runtime().is_some() || cpu.realtime_period().is_some();
    let newer = cpu.burst().is_some() || cpu.idle().is_some();
    if asked || newer {
        let cause = "realtimeRuntime, realtimePeriod, burst and idle are not supported yet";
        return Err(Error::invalid("limit the CPU", cause));
    }
    Ok(())
}

fn cpuset(cpu: &LinuxCpu, writes: &mut Vec<Write>) {
    if let Some(cpus) = cpu.cpus() {
        writes.push(write("cpuset", "cpuset.cpus", cpus));
    }
    if let Some(mems) = cpu.mems() {
        writes.push(write("cpuset", "cpuset.mems", mems));
    }
}

fn cpu_v1(cpu: &LinuxCpu, writes: &mut Vec<Write>) -> Result<()> {
    refuse_realtime(cpu)?;
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        writes.push(write("cpu", "cpu.shares", shares));
    }
    if let Some(period) = cpu.period().filter(|period| *period != 0) {
        writes.push(write("cpu", "cpu.cfs_period_us", period));
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        writes.push(write("cpu", "cpu.cfs_quota_us", quota));
    }
    cpuset(cpu, writes);
    Ok(())
}

fn cpu_v2(cpu: &LinuxCpu, writes: &mut Vec<Write>) -> Result<()> {
    refuse_realtime(cpu)?;
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        // The range 2..262144 of v1 onto 1..10000, as runc and crun map it.
        let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        writes.push(write("cpu", "cpu.weight", weight));
    }
    let (quota, period) = (cpu.quota().filter(|quota| *quota != 0), cpu.period().filter(|period| *period != 0));
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        writes.push(write("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(100_000))));
    }
    cpuset(cpu, writes);
    Ok(())
}

/// Which version a host has decides the file names; both are exercised by these tables.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{Hierarchy, Version};

    fn host(version: Version) -> Host {
        let controllers = ["memory", "pids", "cpu", "cpuset", "devices"];
        let hierarchy = |controllers: Vec<String>| Hierarchy {
            version,
            controllers,
            mount: "/cg".into(),
            parent: Default::default(),
        };
        let hierarchies = match version {
            Version::V2 => vec![hierarchy(controllers.map(str::to_owned).to_vec())],
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
        assert_eq!(values(Version::V2, unlimited).unwrap(), ["memory.max=max", "pids.max=max"]);
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
}
