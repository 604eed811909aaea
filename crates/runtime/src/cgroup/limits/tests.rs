//! Which version a host has decides the file names, and what can be done at all: each field on both, from one table.

use serde_json::{Value, json};

use super::*;
use crate::cgroup::Hierarchy;

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

fn writes(version: Version, json: &Value) -> Result<Vec<Write>> {
    plan(&host(version), &serde_json::from_value(json.clone()).unwrap())
}

/// The writes, or why there are none; a file that some kernels have instead comes after "or".
fn text(version: Version, json: &Value) -> String {
    let one = |write: &Write| {
        let instead = write.instead.as_ref().map_or(String::new(), |(file, value)| format!(" or {file}={value}"));
        format!("{}={}{instead}", write.file, write.value)
    };
    match writes(version, json) {
        Ok(writes) => writes.iter().map(one).collect::<Vec<_>>().join("; "),
        Err(error) => error.to_string(),
    }
}

/// A field, and what becomes of it on v1 and on v2: writes in order, or the error.
#[test]
fn every_field_has_its_files_or_is_an_error_that_names_it() {
    let device = |rate: u64| json!([{"major": 8, "minor": 0, "rate": rate}]);
    let gone = |field: &str| format!("cannot set memory.{field}: cgroup v2 does not have it");
    let table: Vec<(Value, &str, String)> = vec![
        // memory
        (json!({"memory": {"limit": 100}}), "memory.limit_in_bytes=100", "memory.max=100".into()),
        (json!({"memory": {"limit": -1}}), "memory.limit_in_bytes=-1", "memory.max=max".into()),
        (json!({"memory": {"limit": 0, "swap": 0, "kernel": 0}}), "", "".into()),
        (
            json!({"memory": {"limit": 100, "swap": 150}}),
            "memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=150",
            "memory.max=100; memory.swap.max=50".into(),
        ),
        (
            json!({"memory": {"limit": 100, "swap": 100}}),
            "memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=100",
            "memory.max=100; memory.swap.max=0".into(),
        ),
        (
            json!({"memory": {"limit": 100, "swap": -1}}),
            "memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=-1",
            "memory.max=100; memory.swap.max=max".into(),
        ),
        (
            json!({"memory": {"limit": -1, "swap": 70}}),
            "memory.limit_in_bytes=-1; memory.memsw.limit_in_bytes=70",
            "memory.max=max; memory.swap.max=70".into(),
        ),
        (
            json!({"memory": {"swap": 10}}),
            "memory.memsw.limit_in_bytes=10",
            "cannot limit memory and swap to 10: it counts memory as well, and memory is not limited".into(),
        ),
        (json!({"memory": {"reservation": 50}}), "memory.soft_limit_in_bytes=50", "memory.low=50".into()),
        (json!({"memory": {"kernel": 10}}), "memory.kmem.limit_in_bytes=10", gone("kernel")),
        (json!({"memory": {"kernelTCP": 10}}), "memory.kmem.tcp.limit_in_bytes=10", gone("kernelTCP")),
        (json!({"memory": {"swappiness": 0}}), "memory.swappiness=0", gone("swappiness")),
        (json!({"memory": {"disableOOMKiller": true}}), "memory.oom_control=1", gone("disableOOMKiller")),
        (json!({"memory": {"disableOOMKiller": false}}), "memory.oom_control=0", "".into()),
        (json!({"memory": {"useHierarchy": true}}), "memory.use_hierarchy=1", "".into()),
        (json!({"memory": {"useHierarchy": false}}), "memory.use_hierarchy=0", gone("useHierarchy to false")),
        (json!({"memory": {"checkBeforeUpdate": true}}), "", "".into()),
        // cpu
        (json!({"cpu": {"shares": 1024}}), "cpu.shares=1024", "cpu.weight=100".into()),
        (json!({"cpu": {"shares": 0, "period": 0, "quota": 0}}), "", "".into()),
        (json!({"cpu": {"shares": 512, "idle": 1}}), "cpu.idle=1", "cpu.idle=1".into()),
        (json!({"cpu": {"shares": 2, "idle": 0}}), "cpu.idle=0; cpu.shares=2", "cpu.idle=0; cpu.weight=1".into()),
        (json!({"cpu": {"quota": 50000}}), "cpu.cfs_quota_us=50000", "cpu.max=50000 100000".into()),
        (json!({"cpu": {"period": 200000}}), "cpu.cfs_period_us=200000", "cpu.max=max 200000".into()),
        (json!({"cpu": {"quota": -1}}), "cpu.cfs_quota_us=-1", "cpu.max=max 100000".into()),
        (
            json!({"cpu": {"quota": 500, "period": 2000, "burst": 10}}),
            "cpu.cfs_period_us=2000; cpu.cfs_quota_us=500; cpu.cfs_burst_us=10",
            "cpu.max=500 2000; cpu.max.burst=10".into(),
        ),
        (
            json!({"cpu": {"realtimePeriod": 9, "realtimeRuntime": 8}}),
            "cpu.rt_period_us=9; cpu.rt_runtime_us=8",
            "cannot limit realtime scheduling: cgroup v2 has neither realtimeRuntime nor realtimePeriod".into(),
        ),
        (
            json!({"cpu": {"cpus": "0-1", "mems": "0"}}),
            "cpuset.cpus=0-1; cpuset.mems=0",
            "cpuset.cpus=0-1; cpuset.mems=0".into(),
        ),
        // pids
        (json!({"pids": {"limit": 20}}), "pids.max=20", "pids.max=20".into()),
        (json!({"pids": {"limit": -1}}), "pids.max=max", "pids.max=max".into()),
        (json!({"pids": {"limit": 0}}), "pids.max=1", "pids.max=1".into()),
        // blockIO
        (
            json!({"blockIO": {"weight": 500}}),
            "blkio.weight=500 or blkio.bfq.weight=500",
            "io.bfq.weight=500 or io.weight=4950".into(),
        ),
        (
            json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 1000}]}}),
            "blkio.weight_device=8:0 1000 or blkio.bfq.weight_device=8:0 1000",
            "io.bfq.weight=8:0 1000 or io.weight=8:0 10000".into(),
        ),
        (
            json!({"blockIO": {"leafWeight": 10, "weightDevice": [{"major": 8, "minor": 0, "leafWeight": 9}]}}),
            "blkio.leaf_weight_device=8:0 9; blkio.leaf_weight=10",
            "cannot set blockIO.leafWeight: cgroup v2 does not have it".into(),
        ),
        (
            json!({"blockIO": {"throttleReadBpsDevice": device(600)}}),
            "blkio.throttle.read_bps_device=8:0 600",
            "io.max=8:0 rbps=600".into(),
        ),
        (
            json!({"blockIO": {"throttleWriteBpsDevice": device(601)}}),
            "blkio.throttle.write_bps_device=8:0 601",
            "io.max=8:0 wbps=601".into(),
        ),
        (
            json!({"blockIO": {"throttleReadIOPSDevice": device(30)}}),
            "blkio.throttle.read_iops_device=8:0 30",
            "io.max=8:0 riops=30".into(),
        ),
        (
            json!({"blockIO": {"throttleWriteIOPSDevice": device(0)}}),
            "blkio.throttle.write_iops_device=8:0 0",
            "io.max=8:0 wiops=max".into(),
        ),
        // hugepageLimits
        (
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4096}]}),
            "hugetlb.2MB.limit_in_bytes=4096; hugetlb.2MB.rsvd.limit_in_bytes=4096",
            "hugetlb.2MB.max=4096; hugetlb.2MB.rsvd.max=4096".into(),
        ),
        // network
        (
            json!({"network": {"classID": 5}}),
            "net_cls.classid=5",
            "cannot set resources.network: cgroup v2 has neither net_cls nor net_prio; its packets are matched by firewall \
             rules"
                .into(),
        ),
        (
            json!({"network": {"priorities": [{"name": "eth0", "priority": 7}, {"name": "lo", "priority": 1}]}}),
            "net_prio.ifpriomap=eth0 7; net_prio.ifpriomap=lo 1",
            "cannot set resources.network: cgroup v2 has neither net_cls nor net_prio; its packets are matched by firewall \
             rules"
                .into(),
        ),
        // rdma
        (
            json!({"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}, "mlx4_0": {"hcaObjects": 5}}}),
            "rdma.max=mlx4_0 hca_object=5; rdma.max=mlx5_1 hca_handle=3 hca_object=10",
            "rdma.max=mlx4_0 hca_object=5; rdma.max=mlx5_1 hca_handle=3 hca_object=10".into(),
        ),
        // devices: the same lines, of which v2 makes a program
        (
            json!({"devices": [{"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}]}),
            "devices.deny=a; devices.allow=c 1:3 rw",
            "devices.deny=a; devices.allow=c 1:3 rw".into(),
        ),
        // unified
        (
            json!({"unified": {"memory.high": "max", "cgroup.max.depth": "3"}}),
            "cannot set resources.unified \"cgroup.max.depth\": unified needs cgroup v2, and this machine's controllers are \
             on v1",
            "cgroup.max.depth=3; memory.high=max".into(),
        ),
    ];
    for (json, v1, v2) in table {
        assert_eq!(text(Version::V1, &json), v1, "v1: {json}");
        assert_eq!(text(Version::V2, &json), v2, "v2: {json}");
    }
}

#[test]
fn what_means_nothing_is_an_error_on_both() {
    for (json, words) in [
        (json!({"memory": {"limit": -2}}), "to -2: a limit is positive, or -1 for none"),
        (json!({"memory": {"limit": 20, "swap": 10}}), "memory is limited to 20"),
        (json!({"memory": {"reservation": -7}}), "to -7"),
        (json!({"pids": {"limit": -5}}), "pids.max to -5"),
        (json!({"cpu": {"quota": -5}}), "the CPU quota to -5"),
        (json!({"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}), "\"../x\" is not a page size"),
        (json!({"devices": [{"allow": true, "access": "x"}]}), "access \"x\""),
        (json!({"unified": {"../pids.max": "1"}}), "../pids.max"),
    ] {
        for version in [Version::V1, Version::V2] {
            let error = writes(version, &json).unwrap_err().to_string();
            assert!(error.contains(words), "{json}: {error}");
        }
    }
}

#[test]
fn a_limit_without_its_controller_is_an_error_that_names_the_field() {
    let lacks = |json: Value| plan(&Host::default(), &serde_json::from_value(json).unwrap()).unwrap_err().to_string();
    let error = lacks(json!({"pids": {"limit": 5}}));
    assert!(error.contains("resources.pids.limit") && error.contains("no pids controller"), "{error}");
    let error = lacks(json!({"network": {"classID": 5}}));
    assert!(error.contains("resources.network.classID") && error.contains("no net_cls controller"), "{error}");
    let error = writes(Version::V2, &json!({"unified": {"misc.max": "1"}})).unwrap_err().to_string();
    assert!(error.contains("no misc controller"), "{error}");
}

/// The values that runc 1.4 and crun 1.23 give, by their formula on paper: 10^((l² + 125 l) / 612 - 7 / 34), l = log2 shares.
#[test]
fn shares_become_weights_end_on_end_and_default_on_default() {
    for (shares, expected) in [
        (1, 1),
        (2, 1),
        (3, 2),
        (10, 4),
        (100, 17),
        (512, 59),
        (1024, 100),
        (2000, 170),
        (2048, 174),
        (10_000, 627),
        (100_000, 4340),
        (262_144, 10_000),
        (1_000_000, 10_000),
    ] {
        assert_eq!(weight(shares), expected, "{shares}");
    }
    assert!((2..262_144).step_by(7).all(|shares| weight(shares) <= weight(shares + 7)));
}
