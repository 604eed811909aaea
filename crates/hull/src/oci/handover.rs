//! What a verb that makes a process gives to its caller, and what the caller has given to it.

use std::fs;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use hull_runtime::{Created, Stdio};
use hull_sys::tty;
use oci_spec::runtime::Process;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::stdio;
use rustix::termios::Winsize;

use super::Handover;
use crate::report::Report;

impl Handover {
    /// runc's rule: a terminal that nobody here will watch needs a socket, and no other needs one.
    pub fn check_terminal(&self, terminal: bool, detach: bool) -> Result<(), Report> {
        match self.console_socket {
            None if terminal && detach => {
                Err(Report::usage("cannot allocate tty if runc will detach without setting console socket", None))
            }
            Some(_) if !(terminal && detach) => {
                Err(Report::usage("cannot use console socket if runc will not detach or allocate tty", None))
            }
            _ => Ok(()),
        }
    }

    /// Gives the terminal to whoever listens at the socket for it, in the size that the specification says.
    pub fn give_terminal(&self, created: &mut Created, process: &Process) -> Result<(), Report> {
        if let (Some(terminal), Some(size)) = (&created.terminal, console_size(process)) {
            tty::set_size(terminal.as_fd(), size).map_err(|error| Report::host("set the terminal's size", error))?;
        }
        match (&self.console_socket, created.terminal.take_if(|_| self.console_socket.is_some())) {
            (Some(socket), Some(terminal)) => send(socket, terminal.as_fd(), b"/dev/pts/ptmx"),
            _ => Ok(()),
        }
    }

    /// Tells which process it is.
    pub fn tell(&self, created: &Created) -> Result<(), Report> {
        if let Some(socket) = &self.pidfd_socket {
            send(socket, created.as_fd(), b"pidfd")?;
        }
        let Some(file) = &self.pid_file else { return Ok(()) };
        // Whoever waits for the file finds it whole.
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let new = file.with_file_name(format!(".{name}"));
        let written = fs::write(&new, created.pid.to_string()).and_then(|()| fs::rename(&new, file));
        written.map_err(|error| Report::host(format!("write {}", file.display()), error))
    }
}

fn console_size(process: &Process) -> Option<Winsize> {
    let size = process.console_size()?;
    let number = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    Some(Winsize { ws_row: number(size.height()), ws_col: number(size.width()), ws_xpixel: 0, ws_ypixel: 0 })
}

/// The streams of a process that nobody here will watch: a terminal, or our own.
pub fn given(terminal: bool) -> Result<Stdio, Report> {
    if terminal {
        return Ok(Stdio::Terminal);
    }
    let copy = |fd: BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(|error| Report::host("pass on the standard streams", error))
    };
    Ok(Stdio::Given([copy(stdio::stdin())?, copy(stdio::stdout())?, copy(stdio::stderr())?]))
}

/// Sends a descriptor to the socket at `path`, with a name that its receiver may use.
fn send(path: &Path, descriptor: BorrowedFd<'_>, name: &[u8]) -> Result<(), Report> {
    let send = || -> rustix::io::Result<()> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        send_with(socket.as_fd(), descriptor, name)
    };
    send().map_err(|error| Report::host(format!("send a descriptor to {}", path.display()), error))
}

/// Sends a message with a descriptor.
pub fn send_with(socket: BorrowedFd<'_>, descriptor: BorrowedFd<'_>, message: &[u8]) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let list = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&list));
    rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL).map(drop)
}
