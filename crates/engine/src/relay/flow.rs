//! One stream on its way between the caller and the container.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// The most that is on its way at one time.
const ROOM: usize = 16 << 10;

/// Where a stream leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Into the container; it stops with it.
    In,
    /// Out of it; it is copied to its end, which may be after the container's.
    Out,
}

/// Copies one stream until it ends: reads only when all that was read before is written.
#[derive(Debug)]
pub(super) struct Flow {
    from: OwnedFd,
    to: OwnedFd,
    way: Way,
    open: bool,
    buffer: Box<[u8; ROOM]>,
    /// What of the buffer is still to be written.
    begin: usize,
    end: usize,
}

impl Flow {
    pub(super) fn new(from: OwnedFd, to: OwnedFd, way: Way) -> Self {
        Self { from, to, way, open: true, buffer: Box::new([0; ROOM]), begin: 0, end: 0 }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn is_output(&self) -> bool {
        self.way == Way::Out
    }

    /// Whether all that was read is written.
    pub(super) fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    /// What has to happen before it can go on.
    pub(super) fn waits_for(&self) -> PollFd<'_> {
        if self.is_empty() { PollFd::new(&self.from, PollFlags::IN) } else { PollFd::new(&self.to, PollFlags::OUT) }
    }

    /// One step, once that has happened.
    pub(super) fn go_on(&mut self) {
        if self.is_empty() {
            match rustix::io::read(&self.from, &mut self.buffer[..]) {
                Err(Errno::INTR | Errno::AGAIN) => return,
                // EIO is how a terminal says that its last other end has closed.
                Ok(0) | Err(_) => return self.close(),
                Ok(count) => (self.begin, self.end) = (0, count),
            }
        }
        match rustix::io::write(&self.to, &self.buffer[self.begin..self.end]) {
            Ok(count) => self.begin += count,
            Err(Errno::INTR | Errno::AGAIN) => {}
            // The reader is gone, ours or the container's: nobody misses the rest.
            Err(_) => self.close(),
        }
    }

    fn close(&mut self) {
        self.open = false;
        if self.way == Way::In {
            // The container sees the end of its input: the write side of the pipe closes.
            if let Ok(null) = File::open("/dev/null") {
                self.to = null.into();
            }
        }
    }
}

/// From here on a write to our own end of a pipe or terminal takes what there is room for.
pub(super) fn never_wait(end: &OwnedFd) -> Result<()> {
    let set = || fcntl_setfl(end, fcntl_getfl(end)? | OFlags::NONBLOCK);
    set().map_err(|error| Error::host("open the container's streams", error))
}

/// The caller's standard output or error, to be written to without waiting. The caller's own descriptor is shared with
/// others, who do not expect that of it, so a terminal or pipe is opened once more.
pub(super) fn screen(given: BorrowedFd<'_>) -> Result<OwnedFd> {
    let again = fstat(given).is_ok_and(|stat| match FileType::from_raw_mode(stat.st_mode) {
        // To open a multiplexer again is to make another terminal.
        FileType::CharacterDevice => stat.st_rdev != rustix::fs::makedev(5, 2),
        kind => kind == FileType::Fifo,
    });
    if again {
        let path = format!("/proc/self/fd/{}", given.as_raw_fd());
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
        // Another user's terminal, or one of another devpts, cannot be opened: then a write may wait.
        if let Ok(file) = OpenOptions::new().write(true).custom_flags(flags).open(path) {
            return Ok(file.into());
        }
    }
    given.as_fd().try_clone_to_owned().map_err(|error| Error::host("open the standard streams", error))
}
