//! Limits, as the control group's files show them from inside.

use hull_tests::Corner;

#[test]
fn the_process_limit_is_2048_or_what_was_asked() {
    let corner = Corner::new();
    for (flags, expected) in
        [(&[][..], "2048"), (&["--pids-limit", "20"][..], "20"), (&["--pids-limit", "-1"][..], "max")]
    {
        let said = corner.shell(flags, "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null");
        assert_eq!(said.out.trim(), expected);
    }
}

#[test]
fn a_fork_beyond_the_limit_fails() {
    let said = Corner::new().shell(&["--pids-limit", "3"], "sleep 1 & sleep 1 & sleep 1 & sleep 1 & wait");
    assert!(said.err.contains("can't fork"), "{said:?}");
}

#[test]
fn memory_and_cpu_are_in_the_files() {
    let corner = Corner::new();
    let said = corner.shell(
        &["-m", "64m", "--cpus", "0.5", "--cpuset-cpus", "0"],
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max cpu/cpu.cfs_quota_us cpu.max cpuset/cpuset.cpus \
         cpuset.cpus 2>/dev/null",
    );
    let values: Vec<&str> = said.out.lines().collect();
    assert!(values == ["67108864", "50000", "0"] || values == ["67108864", "50000 100000", "0"], "{said:?}");
}

#[test]
fn a_limit_that_cannot_be_set_stops_the_start_and_names_the_file() {
    let said = Corner::new().run(&["--cpuset-cpus", "4000"], &["touch", "/ran"]);
    assert_eq!(said.code, 125);
    assert!(said.err.contains("cpuset.cpus") && said.err.contains("\"4000\""), "{}", said.err);
}

#[test]
fn ulimits_are_set() {
    let said =
        Corner::new().shell(&["--ulimit", "nofile=64:128", "--ulimit", "core=0"], "ulimit -n; ulimit -Hn; ulimit -c");
    assert_eq!(said.out, "64\n128\n0\n", "{}", said.err);
}

#[test]
fn swap_is_as_much_as_memory_unless_told_otherwise() {
    let corner = Corner::new();
    let counted = std::path::Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists();
    let files = "cd /sys/fs/cgroup; cat memory/memory.memsw.limit_in_bytes memory.swap.max 2>/dev/null";
    for (flags, v1, v2) in
        [(&["-m", "64m"][..], "134217728", "67108864"), (&["-m", "64m", "--memory-swap", "64m"][..], "67108864", "0")]
    {
        let said = corner.shell(flags, files);
        let expected = if counted { v1 } else { v2 };
        // A kernel that does not count swap has neither file, and then the default is no limit.
        assert!(said.out.trim() == expected || (flags.len() == 2 && said.out.is_empty()), "{flags:?}: {said:?}");
    }
    let unlimited = corner.shell(&["-m", "64m", "--memory-swap", "-1"], files);
    let unlimited = unlimited.out.trim();
    assert!(unlimited == "max" || unlimited.parse::<u64>().is_ok_and(|bytes| bytes > 1 << 60), "{unlimited}");
}
