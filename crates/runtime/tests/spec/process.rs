//! How the process runs and who it is.

use serde_json::{Value, json};

use crate::case::Case;
use crate::tests;

fn with(script: &str, field: &str, value: Value) -> Case {
    Case::new(script).with(&format!("/process/{field}"), value)
}

/// A field of /proc/self/stat, by its number in `proc(5)`.
fn stat(field: usize) -> String {
    format!("read -r all </proc/self/stat; set -- ${{all##*) }}; echo ${{{}}}", field - 2)
}

tests! {
    fn the_scheduler_is_the_one_asked_for() {
        let script = format!("{}; {}", stat(41), stat(19));
        assert_eq!(with(&script, "scheduler", json!({"policy": "SCHED_BATCH", "nice": 7})).text(), "3\n7\n");
        assert_eq!(with(&script, "scheduler", json!({"policy": "SCHED_IDLE"})).text(), "5\n0\n");
        // The kernel has the name and no such scheduler.
        let error = with("true", "scheduler", json!({"policy": "SCHED_ISO"})).error();
        assert!(error.starts_with("cannot set the scheduler: sched_setattr(0, {sched_policy=4,"), "{error}");
    }

    fn the_io_priority_is_the_one_asked_for() {
        let script = "busybox ionice -p $$";
        let io = |class: &str, level: i32| with(script, "ioPriority", json!({"class": class, "priority": level})).text();
        assert_eq!(io("IOPRIO_CLASS_BE", 6), "best-effort: prio 6\n");
        assert_eq!(io("IOPRIO_CLASS_IDLE", 0), "idle\n");
    }

    fn the_personality_is_the_one_asked_for() {
        let case = Case::new("busybox uname -m").with("/linux/personality", json!({"domain": "LINUX32"}));
        assert_eq!(case.text(), "i686\n");
    }

    fn the_memory_policy_is_in_force() {
        let policy = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
        let case = Case::new("cat /proc/self/numa_maps").with("/linux/memoryPolicy", policy);
        assert!(case.text().contains("bind=static:0"), "{}", case.text());
        let nowhere = case.with("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "63"}));
        assert!(nowhere.error().starts_with("cannot set the memory policy: set_mempolicy("), "{}", nowhere.error());
    }

    fn mask_groups_and_limits_are_those_of_the_specification() {
        let user = json!({"uid": 1000, "gid": 1001, "umask": 0o27, "additionalGids": [5, 6]});
        let limits = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
        let case = with("umask; id -u; id -g; id -G; ulimit -n; ulimit -Hn", "user", user).with("/process/rlimits", limits);
        assert_eq!(case.text(), "0027\n1000\n1001\n1001 5 6\n100\n200\n");
    }

    /// Row B1: no capability is inheritable unless the specification says so, and ambient ones are those asked for.
    /// Mutant seen failing: `limit_capabilities` with the permitted set for the inheritable one.
    fn b1_all_five_capability_sets_are_those_of_the_specification() {
        let caps = |sets: Value| {
            with("grep ^Cap /proc/self/status", "capabilities", sets)
                .with("/process/user", json!({"uid": 1000, "gid": 1000}))
                .text()
        };
        let of = |text: &str, set: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(set)).unwrap();
            u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
        };
        let kill = json!(["CAP_KILL"]);
        let text = caps(json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": kill, "permitted": kill}));
        assert_eq!(["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| of(&text, set)), [0, 0, 0, 1 << 5 | 1, 0]);
        let text = caps(json!({
            "bounding": kill, "effective": kill, "permitted": kill, "inheritable": kill, "ambient": kill,
        }));
        assert_eq!(["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| of(&text, set)), [1 << 5; 5]);
    }

    /// Mutant seen failing: `give_stdio` that gives nothing.
    fn a_user_can_write_to_its_standard_output_again() {
        let user = json!({"uid": 1000, "gid": 1000});
        assert_eq!(with("echo again >/dev/stdout", "user", user).text(), "again\n");
    }

    /// In force they are held by the integration tests, in a virtual machine.
    fn without_selinux_a_label_is_an_error_that_names_it() {
        if std::path::Path::new("/sys/fs/selinux/load").exists() {
            return;
        }
        let cause = "cannot apply the SELinux label \"a:b:c:d\": SELinux is not in force on this machine";
        assert_eq!(with("true", "selinuxLabel", json!("a:b:c:d")).error(), cause);
        assert_eq!(Case::new("true").with("/linux/mountLabel", json!("a:b:c:d")).error(), cause);
        assert_eq!(with("true", "selinuxLabel", json!("")).text(), "");
    }
}
