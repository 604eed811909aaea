//! eBPF programs of one kind: those that decide which devices a control group of v2 may open. Source: `bpf(2)`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::call::{Arg, Result, call};

/// One instruction, laid out as the kernel's `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    /// Operation.
    pub code: u8,
    /// Destination register in the lower half, source in the upper one.
    pub registers: u8,
    /// Of a jump, in instructions; of a load, in bytes.
    pub offset: i16,
    /// Immediate operand.
    pub value: i32,
}

const PROG_LOAD: i64 = 5;
const PROG_ATTACH: i64 = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of this group and of those above it are all asked, and all must agree.
const ALLOW_MULTI: u32 = 1 << 1;

/// The part of `union bpf_attr` that loading reads.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that attaching reads.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn bpf<T>(command: i64, name: &'static str, detail: &str, attributes: &T) -> Result<i64> {
    let args = [Arg::Text(name), Arg::Text(detail), Arg::Int(size_of::<T>() as i64)];
    call("bpf", &args, || {
        // SAFETY: both attribute types begin as the kernel's union does for their command, every pointer in them
        // points to memory that outlives the call, and the kernel reads no more than the given size.
        crate::process::check(unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) })
    })
}

/// Loads a device program (`BPF_PROG_LOAD`, `BPF_PROG_TYPE_CGROUP_DEVICE`).
///
/// # Errors
/// `EINVAL` for a program that the kernel refuses, `EPERM` without CAP_BPF or CAP_SYS_ADMIN in the first user namespace.
pub fn load_device_program(code: &[Insn]) -> Result<OwnedFd> {
    let attributes = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: code.len().try_into().unwrap_or(u32::MAX),
        code: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let detail = format!("{{prog_type=BPF_PROG_TYPE_CGROUP_DEVICE, insn_cnt={}}}", code.len());
    let program = bpf(PROG_LOAD, "BPF_PROG_LOAD", &detail, &attributes)?;
    // SAFETY: the kernel returns a new descriptor, which is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(program as i32) })
}

/// Attaches a device program to a group of v2 (`BPF_PROG_ATTACH`); it stays until the group goes.
pub fn attach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let attributes = Attach {
        target: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    let (group, program) = (group.as_raw_fd(), program.as_raw_fd());
    let detail = format!("{{target_fd={group}, attach_bpf_fd={program}, attach_type=BPF_CGROUP_DEVICE}}");
    bpf(PROG_ATTACH, "BPF_PROG_ATTACH", &detail, &attributes).map(drop)
}
