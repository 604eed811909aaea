//! Rows F8 to F11: what of the kernel a command can reach.
//!
//! `tests/mutants` has for each row a change of hull with which its test fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_tests::bundle::Bundle;
use hull_tests::screen::Screen;
use hull_tests::{Builder, Corner, Said};

/// Makes calls that no library has, by their numbers and by the old way in, and tells what the kernel says.
const CALLS: &str = r#"
#include <stdio.h>
#include <unistd.h>
#include <errno.h>
#include <sys/syscall.h>
static void tell(const char *name, long answer) {
    printf("%s %s\n", name, answer >= 0 ? "ok" : errno == EPERM ? "EPERM" : errno == ENOSYS ? "ENOSYS"
        : errno == EAFNOSUPPORT ? "EAFNOSUPPORT" : errno == EACCES ? "EACCES" : "other");
    fflush(stdout);
}
static long old(long number, long a, long b) {
    long answer;
    __asm__ volatile("int $0x80" : "=a"(answer) : "0"(number), "b"(a), "c"(b) : "memory", "r8", "r9", "r10", "r11");
    if (answer < 0) { errno = -answer; return -1; }
    return answer;
}
int main(void) {
    tell("socket-inet", syscall(SYS_socket, 2, 1, 0));
    tell("socket-alg", syscall(SYS_socket, 38, 5, 0));
    tell("socket-vsock", syscall(SYS_socket, 40, 1, 0));
    tell("x32-getpid", syscall(0x40000000 + 39));
    tell("clone3", syscall(435, 0, 0));
    tell("unknown", syscall(990));
    tell("unshare-user", syscall(SYS_unshare, 0x10000000));
    tell("unshare-mount", syscall(SYS_unshare, 0x00020000));
    tell("clone-user", syscall(SYS_clone, 0x10000000 | 17, 0, 0, 0, 0));
    tell("setns", syscall(SYS_setns, 0, 0));
    tell("mount", syscall(SYS_mount, "x", "/", "tmpfs", 0, 0));
    tell("fsopen", syscall(430, "tmpfs", 0));
    tell("open_tree", syscall(428, -100, "/", 1));
    tell("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    tell("add_key", syscall(SYS_add_key, "user", "a", "b", 1, -3));
    tell("bpf", syscall(SYS_bpf, 0, 0, 0));
    tell("userfaultfd", syscall(SYS_userfaultfd, 0));
    tell("io_uring", syscall(425, 1, 0));
    tell("perf", syscall(SYS_perf_event_open, 0, 0, -1, -1, 0));
    tell("personality", syscall(SYS_personality, 0x0800000));
    tell("personality-ask", syscall(SYS_personality, 0xffffffff));
    tell("kexec", syscall(SYS_kexec_load, 0, 0, 0, 0));
    tell("init_module", syscall(SYS_init_module, 0, 0, 0));
    tell("reboot", syscall(SYS_reboot, 0, 0, 0, 0));
    tell("open_by_handle", syscall(SYS_open_by_handle_at, -100, 0, 0));
    /* i386: getpid, socketcall(SYS_SOCKET) below 4 GiB, mount, unshare. */
    tell("old-getpid", old(20, 0, 0));
    static unsigned words[3];
    words[0] = 38; words[1] = 5;
    tell("old-socketcall-alg", old(102, 1, (long)words));
    words[0] = 2; words[1] = 1;
    tell("old-socketcall-inet", old(102, 1, (long)words));
    tell("old-unshare-user", old(310, 0x10000000, 0));
    tell("old-mount", old(21, 0, 0));
    return 0;
}
"#;

/// The program, in the root file system's /bin; at a fixed address, so that what it points to can be named in 32 bits.
fn compiled(rootfs: &Path) -> PathBuf {
    let source = rootfs.join("calls.c");
    fs::write(&source, CALLS).unwrap();
    let program = rootfs.join("bin/calls");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-static", "-no-pie", "-o"]).arg(&program).arg(&source);
    assert!(gcc.status().expect("gcc is installed: `make deps` does it").success());
    program
}

/// Whether the answers are those that a command without further rights gets.
fn assert_closed(way: &str, said: &Said) {
    let told = format!("{}{}", said.out, said.err);
    let answer = |name: &str| {
        let line = told.lines().find_map(|line| line.trim_start_matches("| ").strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{way}: no answer to {name}: {told}")).to_owned()
    };
    for name in ["socket-inet", "personality-ask"] {
        assert_eq!(answer(name), "ok", "{way}: {name}");
    }
    for name in ["clone3", "unknown"] {
        assert_eq!(answer(name), "ENOSYS", "{way}: {name}");
    }
    for name in [
        "unshare-user",
        "unshare-mount",
        "clone-user",
        "setns",
        "mount",
        "fsopen",
        "open_tree",
        "keyctl",
        "add_key",
        "bpf",
        "userfaultfd",
        "perf",
        "personality",
        "kexec",
        "init_module",
        "reboot",
        "open_by_handle",
        "io_uring",
        "socket-vsock",
        "socket-alg",
    ] {
        assert!(["EPERM", "EACCES", "EAFNOSUPPORT", "ENOSYS"].contains(&&*answer(name)), "{way}: {name}: {told}");
    }
    // A machine without the old ways says so.
    assert!(["ok", "EPERM", "ENOSYS"].contains(&&*answer("x32-getpid")), "{way}: {told}");
    if answer("old-getpid") == "ok" {
        for name in ["old-unshare-user", "old-mount", "old-socketcall-alg"] {
            assert_ne!(answer(name), "ok", "{way}: {name}: {told}");
        }
    }
}

/// The filter is in force in each verb that executes a command, for every way into the kernel.
#[test]
fn f8_the_filter_closes_what_a_container_does_not_need() {
    let corner = Corner::new();
    compiled(&corner.rootfs());
    let root = corner.root();
    let builder = Builder::with_root(corner, root);
    builder.file("Dockerfile", "FROM base\nRUN calls\n");
    let context = builder.context().to_string_lossy().into_owned();
    let build = builder.hull(&["build", "--no-cache", "-t", "x", &context]);
    for (way, said) in [
        ("hull run", builder.corner().run(&[], &["calls"])),
        ("hull run as a user", builder.corner().run(&["-u", "1000"], &["calls"])),
        (
            "hull run without new privileges",
            builder.corner().run(&["--security-opt", "no-new-privileges"], &["calls"]),
        ),
        ("hull build", build),
    ] {
        assert_closed(way, &said);
    }
}

/// An exec gets the container's own filter.
#[test]
fn f8_an_exec_has_the_containers_filter() {
    let bundle = Bundle::new("grep Seccomp: /proc/self/status; mkdir /x; exec sleep 100");
    bundle.change(|spec| {
        spec["linux"]["seccomp"] = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]
        });
    });
    let id = bundle.id("exec");
    bundle.start(&id);
    let said = bundle.exec(&[], &id, "grep Seccomp: /proc/self/status; busybox mkdir /y");
    bundle.ok(&["delete", "--force", &id]);
    assert!(said.out.contains("Seccomp:\t2") && said.err.contains("Input/output error"), "{said:?}");
}

/// CVE-2017-5226: what a command types into its terminal is not what the caller's shell reads.
#[test]
fn f9_nothing_is_typed_into_the_callers_terminal() {
    const TYPE: &str = "
        #include <sys/ioctl.h>
        #include <stdio.h>
        #include <errno.h>
        int main(void) {
            for (int fd = 0; fd < 3; fd++) {
                char key = 'X', line[2] = {3, 0};
                int typed = ioctl(fd, TIOCSTI, &key), error = errno;
                int pasted = ioctl(fd, 0x541C, line);
                printf(\"fd %d typed %d %d pasted %d %d\\n\", fd, typed, error, pasted, errno);
            }
            return 0;
        }";
    let corner = Corner::new();
    let source = corner.path().join("type.c");
    fs::write(&source, TYPE).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-static", "-o"]).arg(corner.rootfs().join("bin/type")).arg(&source);
    assert!(gcc.status().expect("gcc is installed: `make deps` does it").success());
    for flags in [&[][..], &["-i"], &["-t"], &["-i", "-t"]] {
        let hull = corner.run_command(flags, &["type"]);
        // A shell that waits for what is typed after it, on the caller's terminal.
        let mut shell = Command::new("sh");
        let words: Vec<String> = hull.get_args().map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let script = format!(
            "{} {}; stty -icanon min 0 time 10; echo got:$(dd bs=1 count=1 2>/dev/null):",
            hull_tests::hull_bin().display(),
            words.join(" ")
        );
        shell.args(["-c", &script]).envs(corner.env());
        let mut screen = Screen::open(&shell);
        screen.wait_for("got:");
        screen.end();
        let shown = screen.shown();
        // With -t it is a terminal of the container's own, and what is typed there is read there.
        let typed = if flags.contains(&"-t") {
            shown.matches("fd 0 typed").count()
        } else {
            shown.matches("typed -1").count()
        };
        assert!(typed >= 1 && !shown.contains("pasted 0"), "{flags:?}: {shown}");
        assert!(flags.contains(&"-t") || typed == 3, "{flags:?}: {shown}");
        assert!(shown.contains("got::"), "{flags:?}: something was typed: {shown}");
    }
}

/// GHSA-jq35, GHSA-6fw5 and Docker's list: what tells of the machine is covered, what changes it cannot be written.
#[test]
fn f10_what_leaks_is_covered_and_what_changes_the_machine_is_closed() {
    const MASKED: [&str; 12] = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ];
    const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    let corner = Corner::new();
    let plan = Said::from(
        corner
            .hull()
            .args(["run", "--dry-run", "--rootfs"])
            .arg(corner.rootfs())
            .args(["--", "true"])
            .output()
            .unwrap(),
    );
    for path in MASKED {
        assert!(plan.out.contains(path), "{path} is in the plan: {}", plan.out);
    }
    let script = format!(
        "for path in {} /sys/devices/system/cpu/cpu*/thermal_throttle; do [ -e $path ] || continue; \
         if [ -d $path ]; then [ -z \"$(ls -A $path)\" ] || echo open $path; else [ -z \"$(head -c 1 $path)\" ] || echo open $path; fi; done; \
         for path in {}; do [ -e $path ] || continue; \
         if [ -d $path ]; then (: > $path/new) 2>&1; else (echo b > $path) 2>&1; fi; done; \
         (echo 1 > /proc/sys/vm/drop_caches) 2>&1; (: > /sys/new) 2>&1; (echo b > /proc/sysrq-trigger) 2>&1; echo end",
        MASKED.join(" "),
        READ_ONLY.join(" ")
    );
    let said = corner.shell(&[], &script);
    assert!(said.out.ends_with("end\n") && !said.out.contains("open "), "{said:?}");
    let refused: Vec<&str> = said.out.lines().filter(|line| *line != "end").collect();
    let readable = |line: &&str| line.contains("Read-only file system") || line.contains("nonexistent directory");
    assert!(refused.len() >= 5 && refused.iter().all(readable), "{refused:#?}");
    // What the lists of a specification say is what is done.
    let bundle = Bundle::new(&script);
    bundle.change(|spec| {
        spec["linux"]["maskedPaths"] = serde_json::json!(MASKED);
        spec["linux"]["readonlyPaths"] = serde_json::json!(READ_ONLY);
    });
    let said = bundle.oci(&["run", "-b", ".", &bundle.id("run")]);
    assert!(said.out.ends_with("end\n") && !said.out.contains("open /proc"), "{said:?}");
}

/// CVE-2022-0185, CVE-2022-0492, CVE-2024-1086: a container makes no namespace and mounts no group, by whatever means.
#[test]
fn f11_no_namespace_and_no_control_group_is_made_inside() {
    let script = "unshare -U true && echo user; unshare -m true && echo mount; unshare -n true && echo network; \
                  unshare -C true && echo group; busybox mkdir -p /g; mount -t cgroup -o memory x /g && echo mounted; \
                  mount -t cgroup2 x /g && echo mounted; mount -t tmpfs x /g && echo mounted; \
                  mount -o remount,rw /sys/fs/cgroup && echo remounted; \
                  (for file in $(busybox find /sys/fs/cgroup -name release_agent); do echo /x > $file && echo agent; done) 2>/dev/null; \
                  mount -o remount,rw,bind /proc/sys && echo remounted; echo end";
    let corner = Corner::new();
    for flags in [&[][..], &["-u", "1000"], &["--cap-add", "NET_ADMIN"], &["--cap-add", "SYS_CHROOT"]] {
        let said = corner.shell(flags, script);
        assert_eq!(said.out, "end\n", "{flags:?}: {said:?}");
        let refused = said.err.matches("not permitted").count()
            + said.err.matches("denied").count()
            + said.err.matches("are you root").count();
        assert!(refused >= 8, "{flags:?}: {refused}: {}", said.err);
    }
}
