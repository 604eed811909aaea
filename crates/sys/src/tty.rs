//! Terminals: a pair from the container's own devpts, and what a foreground run does to the caller's.
//!
//! Sources: `pty(7)`, `ioctl_tty(2)`, `termios(3)`.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::OFlags;
pub use rustix::termios::{Termios, Winsize};

use crate::call::{Arg, Result, call};

/// A new pair: `ptmx` is an opened multiplexer of the devpts that the terminal is to belong to.
pub fn unlock(ptmx: BorrowedFd<'_>) -> Result<()> {
    call("ioctl", &[Arg::fd(&ptmx), Arg::Text("TIOCSPTLCK"), Arg::Text("[0]")], || rustix::pty::unlockpt(ptmx))
}

/// The other side of `ptmx` by `TIOCGPTPEER`: no path is looked up, so none can be exchanged.
pub fn peer(ptmx: BorrowedFd<'_>) -> Result<OwnedFd> {
    call("ioctl", &[Arg::fd(&ptmx), Arg::Text("TIOCGPTPEER"), Arg::Text("O_RDWR|O_NOCTTY|O_CLOEXEC")], || {
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        // SAFETY: TIOCGPTPEER takes flags and returns a new descriptor.
        unsafe {
            let fd = libc::ioctl(ptmx.as_raw_fd(), libc::TIOCGPTPEER, flags);
            crate::process::check(i64::from(fd)).map(|fd| OwnedFd::from_raw_fd(fd as i32))
        }
    })
}

/// `TIOCSCTTY`: the terminal becomes the controlling one of this session.
pub fn make_controlling(terminal: BorrowedFd<'_>) -> Result<()> {
    call("ioctl", &[Arg::fd(&terminal), Arg::Text("TIOCSCTTY"), Arg::Int(0)], || {
        rustix::process::ioctl_tiocsctty(terminal)
    })
}

/// Whether it is a terminal.
pub fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    rustix::termios::isatty(fd)
}

/// Columns and rows, as the kernel has them.
pub fn size(terminal: BorrowedFd<'_>) -> Option<Winsize> {
    rustix::termios::tcgetwinsize(terminal).ok()
}

/// `TIOCSWINSZ`.
pub fn set_size(terminal: BorrowedFd<'_>, size: Winsize) -> Result<()> {
    call("ioctl", &[Arg::fd(&terminal), Arg::Text("TIOCSWINSZ"), Arg::Flags(&size)], || {
        rustix::termios::tcsetwinsize(terminal, size)
    })
}

/// Puts the terminal into raw mode and returns what it was, for [`restore`].
pub fn make_raw(terminal: BorrowedFd<'_>) -> Result<Termios> {
    let mut before = None;
    call("ioctl", &[Arg::fd(&terminal), Arg::Text("TCGETS")], || {
        before = Some(rustix::termios::tcgetattr(terminal)?);
        Ok(())
    })?;
    let Some(before) = before else { return Err(crate::Error::new("ioctl", "TCGETS", crate::Errno::IO)) };
    let mut raw = before.clone();
    raw.make_raw();
    restore(terminal, &raw)?;
    Ok(before)
}

/// `TCSETS` after what is queued has been written.
pub fn restore(terminal: BorrowedFd<'_>, attributes: &Termios) -> Result<()> {
    call("ioctl", &[Arg::fd(&terminal), Arg::Text("TCSETSW"), Arg::Text("{...}")], || {
        rustix::termios::tcsetattr(terminal, rustix::termios::OptionalActions::Drain, attributes)
    })
}

/// Opens a multiplexer by a name below `dir`.
pub fn open_ptmx(dir: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    crate::fs::openat(dir, path, OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW, 0)
}

/// Whether `file` is the multiplexer of a devpts: the device 5:2 in a file system of that kind.
pub fn is_ptmx(file: BorrowedFd<'_>) -> Result<bool> {
    const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
    let stat = crate::fs::fstat(file)?;
    let character = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice;
    Ok(character && stat.st_rdev == rustix::fs::makedev(5, 2) && crate::fs::magic(file)? == DEVPTS_SUPER_MAGIC)
}
