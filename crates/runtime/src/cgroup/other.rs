//! The rarer resources as values in files: block devices, huge pages, networks, RDMA, and v2's files by name. Pure.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxBlockIo, LinuxHugepageLimit, LinuxNetwork, LinuxRdma, LinuxThrottleDevice};

use super::host::{Host, Version};
use super::limits::{Write, amount, write};
use crate::error::{Error, Result};

/// The four throttles: v1's file, v2's key in `io.max`, the list.
fn throttles(block: &LinuxBlockIo) -> [(&'static str, &'static str, &Option<Vec<LinuxThrottleDevice>>); 4] {
    [
        ("blkio.throttle.read_bps_device", "rbps", block.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", "wbps", block.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", "riops", block.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", "wiops", block.throttle_write_iops_device()),
    ]
}

pub(super) fn block_v1(block: &LinuxBlockIo, writes: &mut Vec<Write>) {
    // Where the scheduler is BFQ the files have its name.
    let weigh =
        |file, bfq, value: String| Write { instead: Some((bfq, value.clone())), ..write("blkio", file, value) };
    if let Some(weight) = block.weight().filter(|weight| *weight != 0) {
        writes.push(weigh("blkio.weight", "blkio.bfq.weight", weight.to_string()));
    }
    for device in block.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            writes.push(weigh("blkio.weight_device", "blkio.bfq.weight_device", value));
        }
        if let Some(weight) = device.leaf_weight() {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            writes.push(write("blkio", "blkio.leaf_weight_device", value));
        }
    }
    if let Some(weight) = block.leaf_weight().filter(|weight| *weight != 0) {
        writes.push(write("blkio", "blkio.leaf_weight", weight));
    }
    for (file, _, list) in throttles(block) {
        for device in list.iter().flatten() {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            writes.push(write("blkio", file, value));
        }
    }
}

pub(super) fn block_v2(block: &LinuxBlockIo, writes: &mut Vec<Write>) -> Result<()> {
    // BFQ takes v1's range; the kernel's own file has 1..10000, onto which 10..1000 is a straight line for runc and crun.
    let mapped = |weight: u16| 1 + (u32::from(weight.clamp(10, 1000)) - 10) * 9999 / 990;
    let weigh = |device: &str, weight: u16| Write {
        instead: Some(("io.weight", format!("{device}{}", mapped(weight)))),
        ..write("io", "io.bfq.weight", format!("{device}{weight}"))
    };
    let devices = block.weight_device().as_deref().unwrap_or_default();
    let leaf = block.leaf_weight().is_some_and(|weight| weight != 0);
    if leaf || devices.iter().any(|device| device.leaf_weight().is_some()) {
        return Err(Error::invalid("set blockIO.leafWeight", "cgroup v2 does not have it"));
    }
    if let Some(weight) = block.weight().filter(|weight| *weight != 0) {
        writes.push(weigh("", weight));
    }
    for device in devices {
        if let Some(weight) = device.weight() {
            writes.push(weigh(&format!("{}:{} ", device.major(), device.minor()), weight));
        }
    }
    for (_, key, list) in throttles(block) {
        for device in list.iter().flatten() {
            // 0 is v1's word for no limit.
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            writes.push(write("io", "io.max", format!("{}:{} {key}={rate}", device.major(), device.minor())));
        }
    }
    Ok(())
}

/// What is used, and what is reserved beforehand: without the second a mapping is allowed whose pages do not come.
pub(super) fn huge_pages(limit: &LinuxHugepageLimit, v2: bool) -> Result<[Write; 2]> {
    let size = limit.page_size();
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Error::invalid("limit huge pages", format!("{size:?} is not a page size like 2MB")));
    }
    let (end, unlimited) = if v2 { ("max", "max") } else { ("limit_in_bytes", "-1") };
    let file = format!("hugetlb.{size}.{end}");
    let value = amount(&file, limit.limit(), unlimited)?;
    Ok([write("hugetlb", file, &value), write("hugetlb", format!("hugetlb.{size}.rsvd.{end}"), value)])
}

pub(super) fn network(network: &LinuxNetwork, v2: bool, writes: &mut Vec<Write>) -> Result<()> {
    let class = network.class_id().filter(|class| *class != 0);
    let priorities = network.priorities().as_deref().unwrap_or_default();
    if v2 && (class.is_some() || !priorities.is_empty()) {
        let cause = "cgroup v2 has neither net_cls nor net_prio; its packets are matched by firewall rules";
        return Err(Error::invalid("set resources.network", cause));
    }
    if let Some(class) = class {
        writes.push(write("net_cls", "net_cls.classid", class));
    }
    for entry in priorities {
        writes.push(write("net_prio", "net_prio.ifpriomap", format!("{} {}", entry.name(), entry.priority())));
    }
    Ok(())
}

pub(super) fn rdma(devices: Option<&HashMap<String, LinuxRdma>>, writes: &mut Vec<Write>) {
    let mut devices: Vec<_> = devices.into_iter().flatten().collect();
    devices.sort_by_key(|device| device.0);
    for (name, limits) in devices {
        let mut value = name.clone();
        for (key, limit) in [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())] {
            if let Some(limit) = limit {
                value.push_str(&format!(" {key}={limit}"));
            }
        }
        writes.push(write("rdma", "rdma.max", value));
    }
}

/// v2's files by their names, sorted, after everything that the other fields set.
pub(super) fn unified(files: Option<&HashMap<String, String>>, host: &Host, writes: &mut Vec<Write>) -> Result<()> {
    let mut files: Vec<_> = files.into_iter().flatten().collect();
    files.sort();
    for (file, value) in files {
        let doing = || format!("set resources.unified {file:?}");
        if !host.hierarchies.iter().any(|hierarchy| hierarchy.version == Version::V2) || !host.unified() {
            return Err(Error::invalid(doing(), "unified needs cgroup v2, and this machine's controllers are on v1"));
        }
        let (controller, _) = file.split_once('.').unwrap_or_default();
        if controller.is_empty() || file.contains('/') {
            return Err(Error::invalid(doing(), "it is not the name of a file like memory.high"));
        }
        let controller = if controller == "cgroup" { "" } else { controller };
        writes.push(Write {
            controller: controller.to_owned().into(),
            file: file.clone().into(),
            value: value.clone(),
            instead: None,
        });
    }
    Ok(())
}
