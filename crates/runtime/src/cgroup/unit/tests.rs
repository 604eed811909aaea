use super::*;
use crate::cgroup::limits::write;

fn unit(path: &str) -> Result<Unit> {
    Unit::from_spec(Some(Path::new(path)), "id", None)
}

#[test]
fn a_path_of_systemds_form_is_a_unit_in_its_slice() {
    for (path, name, group) in [
        ("system.slice:docker:77", "docker-77.scope", "system.slice/docker-77.scope"),
        (":hull:77", "hull-77.scope", "system.slice/hull-77.scope"),
        (
            "kubepods-burstable-pod1.slice:cri-containerd:77",
            "cri-containerd-77.scope",
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-77.scope",
        ),
        ("-.slice:p:n", "p-n.scope", "p-n.scope"),
        ("-:p:n", "p-n.scope", "p-n.scope"),
        ("a.slice::b-c.slice", "b-c.slice", "b.slice/b-c.slice"),
    ] {
        let unit = unit(path).unwrap();
        assert_eq!((&*unit.name, &*unit.group), (name, Path::new(group)), "{path}");
    }
    let default = Unit::from_spec(None, "77", None).unwrap();
    assert_eq!((&*default.name, &*default.slice), ("hull-77.scope", "system.slice"));
    let user = Unit::from_spec(None, "77", Some(1000)).unwrap();
    assert_eq!(user.group, Path::new("user.slice/user-1000.slice/user@1000.service/user.slice/hull-77.scope"));
}

#[test]
fn another_path_is_an_error() {
    for (path, cause) in [
        ("/a/b", "slice:prefix:name"),
        ("a:b", "slice:prefix:name"),
        ("a:b:c:d", "slice:prefix:name"),
        ("user.slice/x.slice:p:n", "no name of a unit"),
        ("a--b.slice:p:n", "invalid slice name"),
        ("noslice:p:n", "invalid slice name"),
        ("a.slice:p:../n", "no name of a unit"),
    ] {
        let error = unit(path).unwrap_err().to_string();
        assert!(error.contains(cause), "{path}: {error}");
    }
}

fn show(properties: &[Property]) -> Vec<String> {
    properties.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[test]
fn systemd_is_told_of_the_process_and_that_the_group_is_the_containers() {
    let annotations = HashMap::from([
        ("org.systemd.property.TimeoutStopUSec".to_owned(), "uint64 123456789".to_owned()),
        ("org.systemd.property.CollectMode".to_owned(), "'inactive-or-failed'".to_owned()),
        ("org.systemd.property.RuntimeMaxSec".to_owned(), "1.5".to_owned()),
        ("other".to_owned(), "x".to_owned()),
    ]);
    let mut properties = unit("a.slice:p:n").unwrap().properties(42);
    properties.extend(annotated(&annotations).unwrap());
    insta::assert_snapshot!(show(&properties).join("\n"), @r#"
    Description="hull container p-n.scope"
    Slice="a.slice"
    Delegate=true
    PIDs=[uint32 42]
    MemoryAccounting=true
    CPUAccounting=true
    IOAccounting=true
    TasksAccounting=true
    DefaultDependencies=false
    CollectMode="inactive-or-failed"
    RuntimeMaxUSec=uint64 1500000
    TimeoutStopUSec=uint64 123456789
    "#);
    for (key, text, cause) in [
        ("org.systemd.property.X", "true", "no name of a property"),
        ("org.systemd.property.Re-load", "true", "no name of a property"),
        ("org.systemd.property.Delegate", "maybe", "\"maybe\""),
        ("org.systemd.property.TimeoutStopSec", "'soon'", "no number of seconds"),
    ] {
        let annotations = HashMap::from([(key.to_owned(), text.to_owned())]);
        let error = annotated(&annotations).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(cause), "{error}");
    }
}

#[test]
fn limits_have_their_properties_on_both_versions() {
    let v2 = [
        write("memory", "memory.max", 100),
        write("memory", "memory.swap.max", "max"),
        write("memory", "memory.low", 50),
        write("pids", "pids.max", 20),
        write("cpu", "cpu.weight", 170),
        write("cpu", "cpu.max", "50500 100000"),
        write("cpuset", "cpuset.cpus", "0-2,9"),
        write("cpuset", "cpuset.mems", "0"),
        write("memory", "memory.oom.group", 1),
        write("devices", "devices.deny", "a"),
    ];
    insta::assert_snapshot!(show(&limits(&v2, Version::V2)).join("\n"), @r#"
    MemoryMax=uint64 100
    MemoryLow=uint64 50
    MemorySwapMax=uint64 18446744073709551615
    TasksMax=uint64 20
    CPUWeight=uint64 170
    CPUQuotaPeriodUSec=uint64 100000
    CPUQuotaPerSecUSec=uint64 510000
    AllowedCPUs=[byte 0x07, 0x02]
    AllowedMemoryNodes=[byte 0x01]
    OOMPolicy="kill"
    "#);
    let v1 = [
        write("memory", "memory.limit_in_bytes", -1),
        write("cpu", "cpu.shares", 512),
        write("cpu", "cpu.cfs_quota_us", 50_000),
        write("blkio", "blkio.weight", 300),
        write("devices", "devices.deny", "a"),
        write("devices", "devices.allow", "c 1:3 rwm"),
        write("devices", "devices.allow", "c *:* m"),
        write("devices", "devices.allow", "c 136:* rwm"),
        write("devices", "devices.allow", "b 8:0 r"),
    ];
    insta::assert_snapshot!(show(&limits(&v1, Version::V1)).join("\n"), @r#"
    MemoryLimit=uint64 18446744073709551615
    CPUShares=uint64 512
    BlockIOWeight=uint64 300
    CPUQuotaPerSecUSec=uint64 500000
    DevicePolicy="strict"
    DeviceAllow=[("/dev/char/1:3", "rwm"), ("char-*", "m"), ("char-136", "rwm"), ("/dev/block/8:0", "r")]
    "#);
    let idle = [write("cpu", "cpu.idle", 1)];
    assert_eq!(show(&limits(&idle, Version::V2)), ["CPUWeight=uint64 0"]);
    assert!(limits(&[], Version::V1).is_empty());
    let denied = [write("devices", "devices.deny", "c 1:3 w")];
    assert_eq!(show(&limits(&denied, Version::V1)), ["DevicePolicy=\"auto\""]);
}

#[test]
fn a_quota_is_never_less_than_was_asked_for() {
    let share = |quota, period| bandwidth(Some(quota), period).pop().unwrap().1;
    assert_eq!(share("50000", Some("100000")), Value::from(500_000u64));
    assert_eq!(share("50001", None), Value::from(510_000u64));
    assert_eq!(share("max", Some("100000")), Value::from(u64::MAX));
    assert_eq!(share("-1", None), Value::from(u64::MAX));
}

#[test]
fn a_list_of_processors_is_bits() {
    assert_eq!(bits("0-2,9"), Some(vec![0b111, 0b10]));
    assert_eq!(bits("8"), Some(vec![0, 1]));
    assert_eq!(bits("3-1"), None);
    assert_eq!(bits("x"), None);
}
