//! Signals: blocked and read from a descriptor, so that one poll loop sees everything in order.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::call::{Arg, Result, call};

/// A set of signals, kept so that a child can get back what its parent had.
#[derive(Clone, Copy)]
pub struct Mask(libc::sigset_t);

/// Blocks all signals and says which were blocked before.
pub fn block_all() -> Result<Mask> {
    // SAFETY: sigset_t is plain data, and sigfillset fills all of it.
    let all = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        set
    };
    set_mask(&Mask(all), "SIG_SETMASK all")
}

/// Blocks no signal.
pub fn unblock_all() -> Result<()> {
    // SAFETY: sigset_t is plain data, and sigemptyset empties all of it.
    let none = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        set
    };
    set_mask(&Mask(none), "SIG_SETMASK []").map(drop)
}

/// Sets the mask; returns the one before.
pub fn restore(mask: &Mask) -> Result<Mask> {
    set_mask(mask, "SIG_SETMASK")
}

fn set_mask(mask: &Mask, text: &str) -> Result<Mask> {
    // SAFETY: as above; both pointers are to whole sets.
    let mut old: libc::sigset_t = unsafe { std::mem::zeroed() };
    call("rt_sigprocmask", &[Arg::Text(text)], || {
        // SAFETY: both sets outlive the call.
        crate::process::check(i64::from(unsafe {
            libc::sigprocmask(libc::SIG_SETMASK, &raw const mask.0, &raw mut old)
        }))
        .map(drop)
    })?;
    Ok(Mask(old))
}

/// The kernel's `struct sigaction`; all zeros is `SIG_DFL`.
#[derive(Default)]
#[repr(C)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Gives every signal its default action: ignored ones survive exec otherwise.
pub fn default_actions() {
    let default = Action::default();
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        // Not by libc, which keeps two of the signals for itself and leaves them as the caller had them.
        // SAFETY: the structure is whole and outlives the call, and SIG_DFL installs no handler.
        unsafe {
            let none: *mut Action = std::ptr::null_mut();
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, none, size_of::<u64>());
        }
    }
}

/// Lets what `command` starts begin as programs expect it: no signal blocked, each one's action the default. std passes on
/// what we block.
pub fn fresh(command: &mut std::process::Command) {
    let begin = || {
        default_actions();
        unblock_all().map_err(std::io::Error::from)
    };
    // SAFETY: both are system calls on values of their own stack.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, begin) };
}

/// `signalfd(2)` for all signals; non-blocking.
pub fn signalfd() -> Result<OwnedFd> {
    call("signalfd4", &[Arg::Int(-1), Arg::Text("~[]"), Arg::Text("SFD_CLOEXEC|SFD_NONBLOCK")], || {
        // SAFETY: the set is whole; the kernel returns a new descriptor or -1.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut set);
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            crate::process::check(i64::from(fd)).map(|fd| OwnedFd::from_raw_fd(fd as i32))
        }
    })
}

/// The next signal that [`signalfd`] holds, or `None`.
pub fn next(fd: BorrowedFd<'_>) -> Option<i32> {
    // SAFETY: the structure is plain data of the size that is read.
    let (info, count) = unsafe {
        let mut info: libc::signalfd_siginfo = std::mem::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        let count = libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size);
        (info, count)
    };
    (count == size_of::<libc::signalfd_siginfo>() as isize).then_some(info.ssi_signo as i32)
}

/// The number of a signal by name, with or without `SIG`, or as a number.
///
/// # Errors
/// `EINVAL` for what is none.
pub fn parse(text: &str) -> std::result::Result<i32, Errno> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    if let Ok(number) = text.parse::<i32>() {
        return if number >= 0 { Ok(number) } else { Err(Errno::INVAL) };
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    NAMES.iter().position(|known| *known == name).map(|index| index as i32 + 1).ok_or(Errno::INVAL)
}
