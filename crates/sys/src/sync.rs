//! The line between the two halves of a creation: one socket pair, whole messages, descriptors along with them.

use std::ffi::CStr;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use rustix::io::Errno;

use crate::call::{Arg, Error, Result, call};

/// One end.
#[derive(Debug)]
pub struct Line(OwnedFd);

/// The largest message: an error's text fits.
const MESSAGE: usize = 16 << 10;

/// The most descriptors that a message takes along (`SCM_MAX_FD`).
pub const MOST: usize = 253;

/// Both ends: a `SOCK_SEQPACKET` pair that closes on exec.
pub fn pair() -> Result<(Line, Line)> {
    let args = [Arg::Text("AF_UNIX"), Arg::Text("SOCK_SEQPACKET|SOCK_CLOEXEC"), Arg::Int(0)];
    let (ours, theirs) = call("socketpair", &args, || {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
    })?;
    Ok((Line(ours), Line(theirs)))
}

/// A socket with the name `path`, at which others [`connect`]. A name has up to 107 bytes; `/proc/self/fd/N/NAME` is short.
pub fn listen(path: &CStr) -> Result<OwnedFd> {
    let socket = socket()?;
    let address =
        rustix::net::SocketAddrUnix::new(path).map_err(|errno| Error::new("bind", format!("{path:?}"), errno))?;
    call("bind", &[Arg::fd(&socket), Arg::cstr(path)], || rustix::net::bind(&socket, &address))?;
    call("listen", &[Arg::fd(&socket), Arg::Int(8)], || rustix::net::listen(&socket, 8))?;
    Ok(socket)
}

/// Waits for somebody who connects.
pub fn accept(listener: BorrowedFd<'_>) -> Result<Line> {
    let mut accepted = None;
    call("accept4", &[Arg::fd(&listener), Arg::Text("NULL, NULL, SOCK_CLOEXEC")], || {
        let flags = SocketFlags::CLOEXEC;
        accepted = Some(rustix::io::retry_on_intr(|| rustix::net::accept_with(listener, flags))?);
        Ok(())
    })?;
    accepted.map(Line).ok_or_else(|| Error::new("accept4", "", Errno::IO))
}

/// Connects to the socket that was made by [`listen`].
///
/// # Errors
/// `ECONNREFUSED` if nobody listens any more, `ENOENT` if there is no such socket.
pub fn connect(path: &CStr) -> Result<Line> {
    let socket = socket()?;
    let address =
        rustix::net::SocketAddrUnix::new(path).map_err(|errno| Error::new("connect", format!("{path:?}"), errno))?;
    call("connect", &[Arg::fd(&socket), Arg::cstr(path)], || rustix::net::connect(&socket, &address))?;
    Ok(Line(socket))
}

/// Whether somebody holds the socket that was made by [`listen`], without that he notices: a socket of another type can be
/// connected to no such one, and the kernel says so only where there is one (`unix(7)`).
pub fn is_held(path: &CStr) -> Result<bool> {
    let socket = new_socket(SocketType::STREAM, "SOCK_STREAM|SOCK_CLOEXEC")?;
    let address =
        rustix::net::SocketAddrUnix::new(path).map_err(|errno| Error::new("connect", format!("{path:?}"), errno))?;
    let answer = call("connect", &[Arg::fd(&socket), Arg::cstr(path)], || rustix::net::connect(&socket, &address));
    match answer {
        Err(error) if error.errno() == Errno::PROTOTYPE => Ok(true),
        Err(error) if matches!(error.errno(), Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        other => other.map(|()| true),
    }
}

fn socket() -> Result<OwnedFd> {
    new_socket(SocketType::SEQPACKET, "SOCK_SEQPACKET|SOCK_CLOEXEC")
}

fn new_socket(kind: SocketType, text: &str) -> Result<OwnedFd> {
    call("socket", &[Arg::Text("AF_UNIX"), Arg::Text(text), Arg::Int(0)], || {
        rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
    })
}

impl Line {
    /// Sends one message, with a descriptor if there is one.
    ///
    /// # Errors
    /// `EPIPE` if the other side is gone.
    pub fn send(&self, message: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<()> {
        self.send_all(message, descriptor.as_slice())
    }

    /// The same with up to [`MOST`] descriptors.
    ///
    /// # Errors
    /// `EPIPE` if the other side is gone, `EINVAL` for more descriptors.
    pub fn send_all(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        call("sendmsg", &[Arg::fd(&self.0), Arg::Int(message.len() as i64)], || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(Errno::INVAL);
            }
            let data = [IoSlice::new(&message[..message.len().min(MESSAGE)])];
            rustix::net::sendmsg(&self.0, &data, &mut control, SendFlags::NOSIGNAL).map(drop)
        })
    }

    /// Waits for one message. An empty one means that the other side has closed its end: by exec, or by its end.
    pub fn receive(&self) -> Result<(Vec<u8>, Option<OwnedFd>)> {
        let mut buffer = vec![0u8; MESSAGE];
        let mut received = None;
        call("recvmsg", &[Arg::fd(&self.0)], || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let answer = retry_on_reset(|| {
                let mut data = [IoSliceMut::new(&mut buffer)];
                rustix::net::recvmsg(&self.0, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)
            })?;
            buffer.truncate(answer.bytes);
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    received = descriptors.into_iter().next();
                }
            }
            Ok(answer.bytes)
        })?;
        Ok((buffer, received))
    }

    /// Waits for a word, of up to 64 bytes, and the descriptors that come with it. Unlike [`Line::receive`] it has no large
    /// buffer, the pages of which cost more than the call.
    pub fn receive_word(&self) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
        let (mut buffer, mut length, mut received) = ([0u8; 64], 0, Vec::new());
        call("recvmsg", &[Arg::fd(&self.0)], || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let answer = retry_on_reset(|| {
                let mut data = [IoSliceMut::new(&mut buffer)];
                rustix::net::recvmsg(&self.0, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)
            })?;
            length = answer.bytes;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    received.extend(descriptors);
                }
            }
            Ok(length)
        })?;
        Ok((buffer[..length].to_vec(), received))
    }

    /// Sends one message by write(2): for a process whose filter may hold up every other call.
    ///
    /// # Errors
    /// `EPIPE` if the other side is gone.
    pub fn write(&self, message: &[u8]) -> Result<()> {
        call("write", &[Arg::fd(&self.0), Arg::Int(message.len() as i64)], || {
            rustix::io::retry_on_intr(|| rustix::io::write(&self.0, message)).map(drop)
        })
    }

    /// Waits for one message by read(2); an empty one as for [`Line::receive`].
    pub fn read(&self) -> Result<Vec<u8>> {
        let mut buffer = [0u8; 64];
        let mut length = 0;
        call("read", &[Arg::fd(&self.0), Arg::Int(buffer.len() as i64)], || {
            length = retry_on_reset(|| rustix::io::read(&self.0, &mut buffer))?;
            Ok(length)
        })?;
        Ok(buffer[..length].to_vec())
    }

    /// Whether the other side is gone: nobody holds its end any more.
    pub fn is_closed(&self) -> Result<bool> {
        let mut hung_up = false;
        call("poll", &[Arg::fd(&self.0), Arg::Text("POLLHUP"), Arg::Int(0)], || {
            let mut polled = [PollFd::new(&self.0, PollFlags::empty())];
            let count = rustix::io::retry_on_intr(|| poll(&mut polled, Some(&Timespec::default())))?;
            hung_up = polled[0].revents().contains(PollFlags::HUP);
            Ok(count)
        })?;
        Ok(hung_up)
    }
}

/// Connects to the stream socket at `path`, sends `text` with a descriptor, and closes the connection.
///
/// # Errors
/// `ENAMETOOLONG` for a path of more than 107 bytes, `ENOENT` and `ECONNREFUSED` if nobody listens there.
pub fn send_to(path: &CStr, text: &[u8], descriptor: BorrowedFd<'_>) -> Result<()> {
    let socket = new_socket(SocketType::STREAM, "SOCK_STREAM|SOCK_CLOEXEC")?;
    let refuse = |errno| Error::new("connect", format!("{path:?}"), errno);
    let address = rustix::net::SocketAddrUnix::new(path).map_err(refuse)?;
    call("connect", &[Arg::fd(&socket), Arg::cstr(path)], || rustix::net::connect(&socket, &address))?;
    call("sendmsg", &[Arg::fd(&socket), Arg::Int(text.len() as i64)], || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let list = [descriptor];
        control.push(SendAncillaryMessage::ScmRights(&list));
        let mut sent = rustix::net::sendmsg(&socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)?;
        // A stream takes as much as it has room for; the descriptor went with its first byte.
        while sent < text.len() {
            sent += rustix::io::retry_on_intr(|| rustix::net::send(&socket, &text[sent..], SendFlags::NOSIGNAL))?;
        }
        Ok(())
    })
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A peer that closed with something unread in its queue makes the next read fail once with `ECONNRESET`; what it had
/// said before is still there for the one after.
fn retry_on_reset<T>(mut read: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    match rustix::io::retry_on_intr(&mut read) {
        Err(rustix::io::Errno::CONNRESET) => rustix::io::retry_on_intr(read),
        other => other,
    }
}
