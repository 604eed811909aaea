//! How the kernel runs a process: scheduler, processors, input and output priority, personality, memory nodes.
//!
//! Sources: `sched_setattr(2)`, `sched_setaffinity(2)`, `ioprio_set(2)`, `personality(2)`, `set_mempolicy(2)`.

use crate::call::{Arg, Result, call};
use crate::process::check;

/// `struct sched_attr` in its first version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SchedAttr {
    /// Its size in bytes, filled in by [`set_scheduler`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For the time-sharing policies.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Nanoseconds in each period, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub period: u64,
}

/// `sched_setattr(2)` on this process.
pub fn set_scheduler(attr: SchedAttr) -> Result<()> {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..attr };
    let text = format!(
        "{{sched_policy={}, sched_flags={:#x}, sched_nice={}, sched_priority={}, sched_runtime={}, \
         sched_deadline={}, sched_period={}}}",
        attr.policy, attr.flags, attr.nice, attr.priority, attr.runtime, attr.deadline, attr.period
    );
    call("sched_setattr", &[Arg::Int(0), Arg::Text(&text), Arg::Int(0)], || {
        // SAFETY: the structure outlives the call and says its own size.
        check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
    })
}

/// `sched_setaffinity(2)` on this process: bit n of word n / 64 is processor n.
pub fn set_affinity(processors: &[u64]) -> Result<()> {
    let size = size_of_val(processors);
    let text = format!("{processors:x?}");
    call("sched_setaffinity", &[Arg::Int(0), Arg::Int(size as i64), Arg::Text(&text)], || {
        // SAFETY: the kernel reads `size` bytes of the mask.
        check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size, processors.as_ptr()) }).map(drop)
    })
}

/// Lets this process run on every processor that its group has: the kernel takes out of the mask what there is not.
pub fn any_processor() -> Result<()> {
    // More than any kernel is built for: 8192 processors.
    set_affinity(&[u64::MAX; 128])
}

/// `sched_getaffinity(2)` of this process, in the form that [`set_affinity`] takes.
pub fn affinity() -> Result<Vec<u64>> {
    // More than any kernel is built for: 8192 processors.
    let mut processors = vec![0u64; 128];
    let size = size_of_val(processors.as_slice());
    let written = call("sched_getaffinity", &[Arg::Int(0), Arg::Int(size as i64)], || {
        // SAFETY: the kernel writes at most `size` bytes, which the vector has.
        check(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size, processors.as_mut_ptr()) })
    })?;
    processors.truncate(written as usize / size_of::<u64>());
    Ok(processors)
}

/// `ioprio_set(2)` on this process: 1 is real-time, 2 best effort, 3 idle; levels go from 0 to 7, the lower the sooner.
pub fn set_io_priority(class: u16, level: u16) -> Result<()> {
    const WHO_PROCESS: i32 = 1;
    let text = format!("IOPRIO_PRIO_VALUE({class}, {level})");
    call("ioprio_set", &[Arg::Text("IOPRIO_WHO_PROCESS"), Arg::Int(0), Arg::Text(&text)], || {
        // SAFETY: numbers only.
        check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, i32::from(class << 13 | level)) })
            .map(drop)
    })
}

/// `personality(2)`.
pub fn set_personality(persona: u32) -> Result<()> {
    call("personality", &[Arg::Hex(persona.into())], || {
        // SAFETY: numbers only.
        check(unsafe { libc::syscall(libc::SYS_personality, persona) }).map(drop)
    })
}

/// `set_mempolicy(2)`: `mode` with its flags, and the memory nodes as bits; none is the null pointer.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<()> {
    let text = format!("{nodes:x?}");
    // The kernel leaves out the last bit of what it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    call("set_mempolicy", &[Arg::Hex(mode.into()), Arg::Text(&text), Arg::Int(bits as i64)], || {
        let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
        // SAFETY: the kernel reads as many words as hold `bits - 1` bits, which are there, or none.
        check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
    })
}
