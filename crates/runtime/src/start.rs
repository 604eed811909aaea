//! The start of a container that was created before, by another process: a socket in its folder, at which its first
//! process waits.
//!
//! Whoever connects gets the rest of the line that its creator had: "start", then an error in words, or the end of the
//! line when the command is executed. A process that dies on the way there leaves nobody waiting who could not be asked
//! again.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hull_sys::sync::{self, Line};
use hull_sys::{Errno, fs};

use crate::error::{Doing, Error, Result};

/// The socket's name in the container's folder.
const NAME: &str = "start";

fn path(folder: BorrowedFd<'_>) -> CString {
    // By descriptor: the name of a socket is short, that of a folder need not be.
    CString::new(format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd())).unwrap_or_default()
}

/// The socket, for [`crate::Start::WhenConnected`].
///
/// # Errors
/// It cannot be made in `folder`.
pub fn listen(folder: BorrowedFd<'_>) -> Result<OwnedFd> {
    sync::listen(&path(folder)).doing(|| "make the socket for the start".to_owned())
}

/// The container's side: waits until somebody says so, whoever else connects and goes away.
pub(crate) fn wait(listener: OwnedFd) -> Result<Line> {
    loop {
        let line = sync::accept(listener.as_fd()).doing(|| "wait for the start".to_owned())?;
        if line.receive().is_ok_and(|(message, _)| message == b"start") {
            return Ok(line);
        }
    }
}

/// Whether a process waits at the socket.
///
/// # Errors
/// None but those of a machine without procfs.
pub fn is_waited_for(folder: BorrowedFd<'_>) -> Result<bool> {
    sync::is_held(&path(folder)).doing(|| "look whether the container waits".to_owned())
}

/// Lets the command run, and waits until it does.
///
/// # Errors
/// Nobody waits; the command could not be executed.
pub fn start(folder: BorrowedFd<'_>) -> Result<()> {
    let doing = || "start the container".to_owned();
    let line = match sync::connect(&path(folder)) {
        Err(error) if matches!(error.errno(), Errno::CONNREFUSED | Errno::NOENT) => {
            return Err(Error::invalid(doing(), "it is not waiting to be started"));
        }
        other => other.doing(doing)?,
    };
    line.send(b"start", None).doing(doing)?;
    let (message, _) = line.receive().doing(doing)?;
    if !message.is_empty() {
        return Err(Error::from_message(&message));
    }
    // It has no purpose any more. If this is not reached, nobody listens at it, which says the same.
    match fs::unlinkat(folder, c"start", false) {
        Err(error) if error.errno() != Errno::NOENT => Err(error).doing(doing),
        _ => Ok(()),
    }
}
