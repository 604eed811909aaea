//! What a container can see and do.

use std::path::Path;

use hull_tests::{Builder, Corner};

const NAMESPACES: [&str; 6] = ["mnt", "pid", "uts", "ipc", "net", "cgroup"];

#[test]
fn every_namespace_is_another_than_the_hosts() {
    let corner = Corner::new();
    let said = corner.shell(&[], "ls -l /proc/self/ns; echo $$; ls /proc/self/fd | head -3");
    for kind in NAMESPACES {
        let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let line =
            said.out.lines().find(|line| line.contains(&format!("{kind}:["))).unwrap_or_else(|| panic!("{said:?}"));
        assert!(!line.ends_with(&*host.to_string_lossy()), "{kind} is the host's: {line}");
    }
    assert!(said.out.lines().any(|line| line == "1"), "the command is process 1: {}", said.out);
}

#[test]
fn the_hosts_tree_is_gone() {
    let corner = Corner::new();
    let marker = corner.path().join("marker");
    std::fs::write(&marker, "host").unwrap();
    let said =
        corner.shell(&[], &format!("cat {0} /proc/1/root{0} /../..{0}; cat /proc/self/mountinfo", marker.display()));
    assert!(!said.out.contains("host\n"), "{}", said.out);
    assert_eq!(said.err.matches("No such file").count(), 3, "{}", said.err);
}

#[test]
fn the_kernels_file_systems_are_where_programs_look_for_them() {
    let corner = Corner::new();
    let said = corner
        .shell(&[], "cat /proc/self/mountinfo; ls -l /dev/fd /dev/stdin /dev/ptmx; echo x > /dev/shm/x && echo shm");
    for (path, kind, options) in [
        ("/proc", "proc", "rw,nosuid,nodev,noexec"),
        ("/dev", "tmpfs", "rw,nosuid"),
        ("/dev/pts", "devpts", "rw,nosuid,noexec"),
        ("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec"),
        ("/dev/mqueue", "mqueue", "rw,nosuid,nodev,noexec"),
        ("/sys", "sysfs", "ro,nosuid,nodev,noexec"),
        ("/sys/fs/cgroup", "", "ro,nosuid,nodev,noexec"),
        ("/etc/hosts", "tmpfs", "rw"),
        ("/etc/hostname", "tmpfs", "rw"),
        ("/etc/resolv.conf", "tmpfs", "rw"),
    ] {
        let mount = said.out.lines().find(|line| line.split(' ').nth(4) == Some(path));
        let mount = mount.unwrap_or_else(|| panic!("nothing at {path}: {said:?}"));
        assert!(mount.contains(&format!(" {path} {options}")) && mount.contains(&format!(" - {kind}")), "{mount}");
    }
    for link in ["/dev/fd -> /proc/self/fd", "/dev/stdin -> /proc/self/fd/0", "/dev/ptmx -> pts/ptmx", "shm"] {
        assert!(said.out.contains(link), "{link}: {said:?}");
    }
}

#[test]
fn the_root_of_an_image_is_an_overlay_that_the_host_does_not_show() {
    use std::io::{BufRead, BufReader, Write};
    let store = Builder::new();
    let mut command =
        store.command(&["run", "--rm", "-i", "base", "sh", "-c", "head -1 /proc/self/mountinfo; read line"]);
    let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut root = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut root).unwrap();
    let folder = store.corner().path().file_name().unwrap().to_string_lossy().into_owned();
    let host = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    child.stdin.take().unwrap().write_all(b"end\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(root.contains(" / / ") && root.contains(" - overlay "), "{root}");
    assert!(!host.contains(&folder), "{host}");
}

/// On a host whose mounts tell each other of changes, systemd's default. Shown to fail when only "/" itself is made private
/// and not what is mounted below: what hull lays over /proc and /sys then covers the host's.
#[test]
fn no_mount_goes_out_of_the_container_or_comes_in_later() {
    let corner = Corner::new();
    let (shared, go, ready) =
        (corner.path().join("shared"), corner.path().join("shared/go"), corner.path().join("shared/ready"));
    std::fs::create_dir(&shared).unwrap();
    let inside = "mount -t tmpfs inside /d/inner && echo mounted; touch /d/ready; \
                  while [ ! -e /d/go ]; do sleep 0.05; done; ls /d/outer";
    let run = corner.run_command(&["--privileged", "-v", &format!("{}:/d", shared.display())], &["sh", "-c", inside]);
    let outside = format!(
        "set -e; mount --make-rshared /; trap 'touch {2}' EXIT; mount -t tmpfs hull-test {0}; mkdir {0}/inner {0}/outer; cat /proc/self/mountinfo > {0}/before
         \"$@\" & while [ ! -e {1} ]; do sleep 0.05; kill -0 $!; done
         cat /proc/self/mountinfo > {0}/during; cmp {0}/before {0}/during
         mount -t tmpfs hull-test {0}/outer; touch {0}/outer/late {2}; wait $!; echo same",
        shared.display(),
        ready.display(),
        go.display(),
    );
    // In a mount namespace of the test's own, that is no peer of the host's.
    let mut shell = std::process::Command::new("unshare");
    shell.args(["--mount", "--propagation", "private", "sh", "-c", &outside, "sh"]);
    let said = hull_tests::Said::from(
        shell.arg(run.get_program()).args(run.get_args()).envs(corner.env()).output().unwrap(),
    );
    assert_eq!((said.code, said.out.as_str()), (0, "mounted\nsame\n"), "{said:?}");
    corner.assert_clean();
}

#[test]
fn capabilities_are_podmans_eleven_and_none_is_inheritable() {
    let said = Corner::new().shell(&[], "grep Cap /proc/self/status");
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t00000000800405fb\nCapEff:\t00000000800405fb\n\
                    CapBnd:\t00000000800405fb\nCapAmb:\t0000000000000000\n";
    assert_eq!(said.out, expected);
}

#[test]
fn the_filter_is_in_force_and_denies_new_namespaces() {
    let corner = Corner::new();
    let said = corner.shell(&[], "grep Seccomp: /proc/self/status; unshare -U true; mount -t tmpfs x /bin");
    assert!(said.out.contains("Seccomp:\t2"), "{said:?}");
    assert_eq!(said.err.matches("not permitted").count() + said.err.matches("denied").count(), 2, "{}", said.err);
    let open = corner.shell(&["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status");
    assert!(open.out.contains("Seccomp:\t0"), "{}", open.out);
    let locked =
        corner.shell(&["--security-opt", "no-new-privileges"], "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status");
    assert_eq!(locked.out, "NoNewPrivs:\t1\nSeccomp:\t2\n");
}

#[test]
fn leaky_files_are_masked_and_kernel_settings_read_only() {
    let said = Corner::new().shell(
        &[],
        "cat /proc/interrupts /proc/keys; ls /sys/firmware; echo 1 > /proc/sys/kernel/panic; \
         touch /sys/x; touch /sys/fs/cgroup/x; [ ! -d /sys/fs/cgroup/pids ] || touch /sys/fs/cgroup/pids/x",
    );
    assert_eq!(said.out, "");
    // On v2 there is one hierarchy, and no folder for each controller.
    let refused = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { 3 } else { 4 };
    assert_eq!(said.err.matches("Read-only file system").count(), refused, "{}", said.err);
}

#[test]
fn devices_are_the_standard_ones() {
    let said = Corner::new().shell(
        &[],
        "for d in null zero full random urandom tty; do stat -c '%n %a %t:%T' /dev/$d; done; ls /dev/pts; \
         head -c 1 /dev/zero > /dev/null && echo ok",
    );
    let expected = "/dev/null 666 1:3\n/dev/zero 666 1:5\n/dev/full 666 1:7\n/dev/random 666 1:8\n\
                    /dev/urandom 666 1:9\n/dev/tty 666 5:0\nptmx\nok\n";
    assert_eq!(said.out, expected, "{}", said.err);
}

/// The value of a line of /proc/PID/status.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

#[test]
fn a_privileged_container_has_what_the_host_has() {
    let corner = Corner::new();
    let script = "cat /proc/self/status; busybox mkdir /dev/mine; mount -t tmpfs x /dev/mine && echo mounted; \
                  busybox dd if=/dev/kmsg of=/dev/null count=0 && echo kmsg; \
                  grep -q . /proc/interrupts && echo unmasked; \
                  grep -E ' /(proc/|sys/firmware|sys(/fs/cgroup(/pids)?)? )' /proc/self/mountinfo";
    let said = corner.shell(&["--privileged"], script);
    let host = std::fs::read_to_string("/proc/self/status").unwrap();
    for set in ["CapBnd", "CapEff", "CapPrm"] {
        assert_eq!(field(&said.out, set), field(&host, "CapBnd"), "{set}");
    }
    assert_eq!((field(&said.out, "Seccomp"), field(&said.out, "CapInh")), ("0", "0000000000000000"));
    for word in ["mounted", "kmsg", "unmasked", " /sys/fs/cgroup "] {
        assert!(said.out.contains(word), "{word}: {said:?}");
    }
    for mount in said.out.lines().filter(|line| line.contains(" - ")) {
        assert!(mount.contains(" /sys"), "nothing covers a part of /proc: {mount}");
        assert!(mount.split(' ').nth(5).unwrap().starts_with("rw"), "{mount}");
    }
    let plain = corner.shell(&[], script);
    for word in ["mounted", "kmsg", "unmasked"] {
        assert!(!plain.out.contains(word), "{word}: {plain:?}");
    }
}

#[test]
fn a_privileged_container_has_the_hosts_devices_and_its_own_terminals() {
    fn nodes(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            use std::os::unix::fs::FileTypeExt;
            let kind = entry.file_type().unwrap();
            let own = ["pts", "shm", "mqueue", "ptmx", "console"].iter().any(|own| entry.file_name() == *own);
            if kind.is_dir() && !own {
                nodes(&entry.path(), found);
            } else if (kind.is_block_device() || kind.is_char_device()) && !own {
                found.push(entry.path().to_string_lossy().into_owned());
            }
        }
    }
    let mut expected = Vec::new();
    nodes(Path::new("/dev"), &mut expected);
    expected.sort();
    let said = Corner::new()
        .shell(&["--privileged"], "busybox find /dev -type b -o -type c | busybox sort; ls -l /dev/ptmx");
    let (found, ptmx): (Vec<&str>, Vec<&str>) = said.out.lines().partition(|line| !line.contains("->"));
    let found: Vec<&str> = found.into_iter().filter(|path| !path.starts_with("/dev/pts/")).collect();
    assert_eq!(found, expected, "{}", said.err);
    assert!(ptmx[0].ends_with("/dev/ptmx -> pts/ptmx"), "{ptmx:?}");
}

#[test]
fn all_capabilities_are_those_that_hull_has() {
    let corner = Corner::new();
    let said = corner.shell(&["--cap-add", "ALL"], "cat /proc/self/status");
    let host = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(field(&said.out, "CapEff"), field(&host, "CapBnd"));
    let without = corner.shell(&["--privileged", "--cap-drop", "SYS_ADMIN"], "cat /proc/self/status");
    let mask = |text: &str| u64::from_str_radix(text, 16).unwrap();
    assert_eq!(mask(field(&without.out, "CapEff")), mask(field(&host, "CapBnd")) & !(1 << 21));
}

#[test]
fn a_device_node_that_was_made_cannot_be_opened() {
    let said = Corner::new().shell(&["--cap-add", "MKNOD"], "mknod /dev/kmsg-x c 1 11 && cat /dev/kmsg-x");
    assert!(said.err.contains("not permitted"), "{said:?}");
}

#[test]
fn loopback_is_up_and_alone() {
    let said =
        Corner::new().shell(&[], "cat /sys/class/net/lo/operstate; ls /sys/class/net; ip link show lo | head -1");
    assert!(said.out.contains("UP"), "{said:?}");
    assert_eq!(said.out.lines().filter(|line| *line == "lo").count(), 1, "{}", said.out);
    assert_eq!(Corner::new().shell(&[], "cat /proc/sys/net/ipv4/ping_group_range").out, "0\t2147483647\n");
}

#[test]
fn a_profile_of_the_users_replaces_the_default_rules() {
    let corner = Corner::new();
    let profile = corner.path().join("profile.json");
    let rules = r#"{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": "SCMP_ARCH_X86_64"}], "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
        {"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_TIME"]}}]}"#;
    std::fs::write(&profile, rules).unwrap();
    let flag = format!("seccomp={}", profile.display());
    let script = "busybox mkdir /x; busybox ln -s a /y && echo linked; grep Seccomp: /proc/self/status";
    let said = corner.shell(&["--security-opt", &flag], script);
    assert!(said.err.contains("Input/output error"), "{said:?}");
    assert_eq!(said.out, "linked\nSeccomp:\t2\n");
    let more = corner.shell(&["--security-opt", &flag, "--cap-add", "SYS_TIME"], "busybox ln -s a /z");
    assert!(more.err.contains("not permitted"), "{more:?}");
    let builtin = corner.shell(&["--privileged", "--security-opt", "seccomp=builtin"], script);
    assert!(builtin.out.contains("Seccomp:\t2"), "{builtin:?}");

    std::fs::write(&profile, "{").unwrap();
    for flag in [flag.as_str(), "seccomp=/no/such/profile"] {
        let said = corner.run(&["--security-opt", flag], &["true"]);
        assert_eq!(said.code, 125, "{said:?}");
        assert!(said.err.contains(flag.strip_prefix("seccomp=").unwrap()), "{}", said.err);
    }
}

/// hull covers the host's /proc and /sys for itself before the mounts are made: not the ones that are lent.
#[test]
fn trees_of_the_host_are_lent_as_they_are_there() {
    let corner = Corner::new();
    let pid = std::process::id();
    let script = format!(
        "test -d /proc-of/{pid} && test -d /host/proc/{pid} && test -d /sys-of/kernel && test -d /host/sys/kernel"
    );
    let said = corner.shell(&["-v", "/proc:/proc-of:ro", "-v", "/sys:/sys-of:ro", "-v", "/:/host:ro"], &script);
    assert_eq!(said.code, 0, "{said:?}");
}
