//! Which field of the specification a file is for, so that an error can name both.

/// The field below `linux.resources`; `None` of a file that the specification names itself (`unified`) or that no field has.
pub(super) fn field(file: &str) -> Option<&'static str> {
    Some(match file {
        "memory.max" | "memory.limit_in_bytes" => "memory.limit",
        "memory.swap.max" | "memory.memsw.limit_in_bytes" => "memory.swap",
        "memory.low" | "memory.soft_limit_in_bytes" => "memory.reservation",
        "memory.kmem.limit_in_bytes" => "memory.kernel",
        "memory.kmem.tcp.limit_in_bytes" => "memory.kernelTCP",
        "memory.swappiness" => "memory.swappiness",
        "memory.oom_control" => "memory.disableOOMKiller",
        "memory.use_hierarchy" => "memory.useHierarchy",
        "pids.max" => "pids.limit",
        "cpu.weight" | "cpu.shares" => "cpu.shares",
        "cpu.idle" => "cpu.idle",
        "cpu.max" => "cpu.quota and cpu.period",
        "cpu.cfs_quota_us" => "cpu.quota",
        "cpu.cfs_period_us" => "cpu.period",
        "cpu.max.burst" | "cpu.cfs_burst_us" => "cpu.burst",
        "cpu.rt_runtime_us" => "cpu.realtimeRuntime",
        "cpu.rt_period_us" => "cpu.realtimePeriod",
        "cpuset.cpus" => "cpu.cpus",
        "cpuset.mems" => "cpu.mems",
        "io.weight" | "io.bfq.weight" | "blkio.weight" | "blkio.bfq.weight" => "blockIO.weight",
        "blkio.weight_device" | "blkio.bfq.weight_device" => "blockIO.weightDevice",
        "blkio.leaf_weight" => "blockIO.leafWeight",
        "blkio.leaf_weight_device" => "blockIO.weightDevice.leafWeight",
        "io.max" => "blockIO.throttle…",
        "blkio.throttle.read_bps_device" => "blockIO.throttleReadBpsDevice",
        "blkio.throttle.write_bps_device" => "blockIO.throttleWriteBpsDevice",
        "blkio.throttle.read_iops_device" => "blockIO.throttleReadIOPSDevice",
        "blkio.throttle.write_iops_device" => "blockIO.throttleWriteIOPSDevice",
        "net_cls.classid" => "network.classID",
        "net_prio.ifpriomap" => "network.priorities",
        "rdma.max" => "rdma",
        "devices.allow" | "devices.deny" => "devices",
        _ if file.starts_with("hugetlb.") => "hugepageLimits",
        _ => return None,
    })
}

/// ` for resources.memory.limit`, to be put after a file's name.
pub(super) fn for_field(file: &str) -> String {
    field(file).map_or_else(String::new, |field| format!(" for resources.{field}"))
}
