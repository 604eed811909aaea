//! The default profile: what a container may do unless it is told otherwise.
//!
//! The system calls are Docker's default rules (moby/profiles, August 2026) for x86-64, the capabilities Podman's
//! eleven, the masked paths moby's list.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

use hull_runtime::caps;
use oci_spec::OciSpecError;

mod file;

pub use file::{Machine, parse};

/// Podman's default capabilities: Docker's without MKNOD, NET_RAW and AUDIT_WRITE.
pub const CAPABILITIES: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// [`CAPABILITIES`] as a mask.
pub fn capabilities() -> u64 {
    CAPABILITIES.iter().filter_map(|name| caps::number(name)).fold(0, |all, number| all | 1 << number)
}

/// Files and folders that tell about the host or change it.
pub const MASKED: [&str; 12] = [
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

/// [`MASKED`], and the counters of each processor's overheating, which tell containers about one another's work.
pub fn masked() -> Vec<String> {
    let mut all: Vec<String> = MASKED.map(str::to_owned).to_vec();
    all.extend(thermal_throttles(std::path::Path::new("/sys/devices/system/cpu")));
    all
}

/// The `thermal_throttle` folders below `processors`; virtual machines have none.
fn thermal_throttles(processors: &std::path::Path) -> Vec<String> {
    // Processors have them all or none, and the first is always there.
    if !processors.join("cpu0/thermal_throttle").is_dir() {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(processors) else { return Vec::new() };
    let mut all: Vec<String> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("cpu"));
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        })
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.is_dir())
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    all.sort();
    all
}

/// Files and folders that may be read only.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The system call rules for a container whose bounding set is `capabilities`.
///
/// # Errors
/// None in practice: the builder's.
pub fn seccomp(capabilities: u64) -> Result<LinuxSeccomp, OciSpecError> {
    let has = |name: &str| caps::number(name).is_some_and(|number| capabilities >> number & 1 == 1);
    let mut syscalls = vec![allow(ALWAYS)?];
    for (capability, names) in BY_CAPABILITY {
        if has(capability) {
            syscalls.push(allow(names)?);
        }
    }
    // Families 38 (AF_ALG) and 40 (AF_VSOCK) stay out.
    syscalls.push(allow_if("socket", LinuxSeccompOperator::ScmpCmpLt, 38, None)?);
    syscalls.push(allow_if("socket", LinuxSeccompOperator::ScmpCmpEq, 39, None)?);
    syscalls.push(allow_if("socket", LinuxSeccompOperator::ScmpCmpGt, 40, None)?);
    for persona in [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        syscalls.push(allow_if("personality", LinuxSeccompOperator::ScmpCmpEq, persona, None)?);
    }
    if !has("SYS_ADMIN") {
        // No CLONE_NEW* flag; clone3 hides its flags in memory, so it "does not exist" and libraries fall back.
        syscalls.push(allow_if("clone", LinuxSeccompOperator::ScmpCmpMaskedEq, NEW_NAMESPACES, Some(0))?);
        let clone3 = LinuxSyscallBuilder::default().names(vec!["clone3".to_owned()]);
        syscalls.push(clone3.action(LinuxSeccompAction::ScmpActErrno).errno_ret(38u32).build()?);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(1u32)
        .architectures(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32])
        .syscalls(syscalls)
        .build()
}

/// `CLONE_NEWNS|NEWCGROUP|NEWUTS|NEWIPC|NEWUSER|NEWPID|NEWNET`.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

fn allow(names: &str) -> Result<LinuxSyscall, OciSpecError> {
    let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow).build()
}

fn allow_if(
    name: &str,
    op: LinuxSeccompOperator,
    value: u64,
    value_two: Option<u64>,
) -> Result<LinuxSyscall, OciSpecError> {
    let mut arg = LinuxSeccompArgBuilder::default().index(0usize).value(value).op(op);
    if let Some(two) = value_two {
        arg = arg.value_two(two);
    }
    let arg: LinuxSeccompArg = arg.build()?;
    LinuxSyscallBuilder::default()
        .names(vec![name.to_owned()])
        .action(LinuxSeccompAction::ScmpActAllow)
        .args(vec![arg])
        .build()
}

const ALWAYS: &str = "_llseek _newselect accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir \
     chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
     clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup \
     dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
     epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 \
     fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync \
     fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync \
     ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat \
     get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid \
     getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom \
     getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid \
     gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 \
     inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit \
     ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown \
     lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek \
     lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat \
     mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open \
     mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget \
     msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 \
     pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 \
     prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 \
     pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom \
     recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 \
     restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo \
     rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max \
     sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
     sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
     sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile \
     sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 \
     setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 \
     setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 \
     setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn \
     socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync \
     sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime \
     timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 \
     timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat \
     uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

const BY_CAPABILITY: &[(&str, &str)] = &[
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
     lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
     quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

#[cfg(test)]
mod tests;
