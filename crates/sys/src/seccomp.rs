//! Seccomp filters: a classic BPF program over `struct seccomp_data`, installed by `seccomp(2)`.

use std::os::fd::{FromRawFd, OwnedFd};

use crate::call::{Arg, Result, call};

/// One instruction, laid out as the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if the condition holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

#[repr(C)]
struct SockFprog {
    len: u16,
    filter: *const SockFilter,
}

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub const NEW_LISTENER: u32 = 1 << 3;

/// Whether the kernel knows all of `flags`, asked with no program at all, which changes nothing (`seccomp(2)`, `EFAULT`).
pub fn knows(flags: u32) -> bool {
    let nothing: *const SockFprog = std::ptr::null();
    let answer =
        call("seccomp", &[Arg::Text("SECCOMP_SET_MODE_FILTER"), Arg::Hex(flags.into()), Arg::Text("NULL")], || {
            // SAFETY: the kernel looks at the flags first, then answers EFAULT for the null pointer.
            crate::process::check(unsafe {
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, nothing)
            })
        });
    answer.is_err_and(|error| error.errno() == rustix::io::Errno::FAULT)
}

/// `seccomp(2)` with `SECCOMP_SET_MODE_FILTER`. With [`NEW_LISTENER`] in `flags`, the listener's descriptor.
///
/// # Errors
/// `EINVAL` for a program that the kernel refuses, `EACCES` without no_new_privs or CAP_SYS_ADMIN.
pub fn set_filter(filter: &[SockFilter], flags: u32) -> Result<Option<OwnedFd>> {
    let text = format!("{{len={}}}", filter.len());
    let args = [Arg::Text("SECCOMP_SET_MODE_FILTER"), Arg::Hex(flags.into()), Arg::Text(&text)];
    let program = SockFprog { len: filter.len().try_into().unwrap_or(u16::MAX), filter: filter.as_ptr() };
    let answer = call("seccomp", &args, || {
        // SAFETY: the program points to `len` instructions that outlive the call; the kernel copies and checks them.
        crate::process::check(unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        })
    })?;
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with this flag the kernel returns a new descriptor.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(answer as i32) }))
}
