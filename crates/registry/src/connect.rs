//! A connection to whichever of a host's addresses answers first.
//!
//! The next address joins the race when the one before it has failed or has been silent for a quarter of a second; none is
//! given up before the time for all of them is over. So a family of addresses whose packets vanish costs that quarter, and a
//! slow one is still good enough where there is no other. Source: RFC 8305, section 5.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, socket_error};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, connect, recv, socket_with};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

/// How long an address is waited for before the next one is tried as well.
const HEAD_START: Duration = Duration::from_millis(250);
/// What may arrive while nobody reads, since a layer's reader is busy with what came before. The kernel begins with a thirtieth of it, and
/// two processes that wait for each other that often are asleep for a third of a pull.
const ARRIVING: usize = 4 << 20;

/// Opens the connections of ureq, unless a proxy has opened one.
#[derive(Debug)]
pub(crate) struct Race;

impl<In: Transport> Connector<In> for Race {
    type Out = Either<In, Tcp>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        if let Some(through_proxy) = chained {
            return Ok(Some(Either::A(through_proxy)));
        }
        let stream =
            first_of(&details.addrs, limit(details.timeout)).map_err(|error| told(error, details.timeout))?;
        stream.set_nodelay(true)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Tcp { stream, buffers, read: None, write: None })))
    }
}

fn limit(timeout: NextTimeout) -> Option<Duration> {
    timeout.not_zero().map(|limit| *limit)
}

/// The error of a wait that had this limit.
fn told(error: Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => ureq::Error::Timeout(timeout.reason),
        _ => ureq::Error::Io(error),
    }
}

/// Both families in turn, beginning with that of the first address.
fn alternating(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let leads = |address: &&SocketAddr| addresses.first().is_some_and(|first| first.is_ipv4() == address.is_ipv4());
    let (mut ours, mut others) = (addresses.iter().filter(leads), addresses.iter().filter(|address| !leads(address)));
    let mut all = Vec::with_capacity(addresses.len());
    while all.len() < addresses.len() {
        all.extend(ours.next().into_iter().chain(others.next()));
    }
    all
}

/// A connection to the first of the addresses that takes one.
///
/// # Errors
/// Why the first address failed, if all have; [`ErrorKind::TimedOut`] once `limit` is over.
fn first_of(addresses: &[SocketAddr], limit: Option<Duration>) -> Result<TcpStream, Error> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut waiting = alternating(addresses).into_iter().peekable();
    let mut racing: Vec<OwnedFd> = Vec::new();
    let mut failure: Option<Error> = None;
    let mut next_start = Instant::now();
    loop {
        while racing.is_empty() || Instant::now() >= next_start {
            let Some(address) = waiting.next() else { break };
            next_start = Instant::now() + HEAD_START;
            match begin(address) {
                Ok(socket) => racing.push(socket),
                Err(error) => _ = failure.get_or_insert(error.into()),
            }
        }
        if racing.is_empty() {
            return Err(failure.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into()));
        }
        let start = waiting.peek().map(|_| next_start);
        wait(&racing, [start, deadline].into_iter().flatten().min())?;
        let mut n = 0;
        while n < racing.len() {
            match state(&racing[n])? {
                None => n += 1,
                Some(Ok(())) => {
                    let stream = TcpStream::from(racing.swap_remove(n));
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Some(Err(error)) => {
                    racing.remove(n);
                    failure.get_or_insert(error.into());
                    next_start = Instant::now();
                }
            }
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

/// Sends for a connection and does not wait for it.
fn begin(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // Only root may have so much; who may not has what the kernel makes of the connection.
    let _ = set_socket_recv_buffer_size_force(&socket, ARRIVING);
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Waits until one of them knows more, or until then.
fn wait(racing: &[OwnedFd], until: Option<Instant>) -> rustix::io::Result<()> {
    let mut polled: Vec<PollFd<'_>> = racing.iter().map(|socket| PollFd::new(socket, PollFlags::OUT)).collect();
    // A millisecond more, so that the time is over afterwards.
    let left = until.map(|until| until.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
    let left = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
    match poll(&mut polled, left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What became of a connection; none if that is not known yet.
fn state(socket: &OwnedFd) -> rustix::io::Result<Option<rustix::io::Result<()>>> {
    let mut polled = [PollFd::new(socket, PollFlags::OUT)];
    match rustix::io::retry_on_intr(|| poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))? {
        0 => Ok(None),
        _ => socket_error(socket).map(Some),
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Tcp {
    stream: TcpStream,
    buffers: LazyBuffers,
    /// The limits that the socket has now: most calls have the one of the call before.
    read: Option<Duration>,
    write: Option<Duration>,
}

impl Transport for Tcp {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let timeout = timeout.for_write();
        let wanted = limit(timeout);
        if self.write != wanted {
            self.stream.set_write_timeout(wanted)?;
            self.write = wanted;
        }
        self.stream.write_all(&self.buffers.output()[..amount]).map_err(|error| told(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = timeout.for_read();
        let wanted = limit(timeout);
        if self.read != wanted {
            self.stream.set_read_timeout(wanted)?;
            self.read = wanted;
        }
        let input = self.buffers.input_append_buf();
        let length = loop {
            match self.stream.read(input) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other.map_err(|error| told(error, timeout))?,
            }
        };
        self.buffers.input_appended(length);
        Ok(length > 0)
    }

    /// Bytes that nobody asked for are as bad as an end.
    fn is_open(&mut self) -> bool {
        let mut byte = [0u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(recv(&self.stream, &mut byte[..], flags), Err(Errno::WOULDBLOCK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    #[test]
    fn families_alternate_and_no_address_is_lost() {
        let four = |n: u8| SocketAddr::new(Ipv4Addr::new(10, 0, 0, n).into(), 1);
        let six = |n: u16| SocketAddr::new(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n).into(), 1);
        assert_eq!(alternating(&[four(1), four(2), four(3), six(1)]), [four(1), six(1), four(2), four(3)]);
        assert_eq!(alternating(&[six(1), four(1), six(2)]), [six(1), four(1), six(2)]);
        assert!(alternating(&[]).is_empty());
    }

    #[test]
    fn the_address_that_answers_is_taken_and_the_first_failure_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let good = listener.local_addr().expect("its address");
        let closed = TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr()).expect("a port");
        let stream = first_of(&[closed, good], Some(Duration::from_secs(5))).expect("a connection");
        assert_eq!(stream.peer_addr().expect("a peer"), good);
        let error = first_of(&[closed, closed], Some(Duration::from_secs(5))).expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}
