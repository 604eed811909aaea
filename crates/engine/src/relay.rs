//! Between the caller and the container: terminal, streams, signals, and the wait for the end.
//!
//! One loop in one thread polls everything. The caller's terminal is never handed to the container (it could push
//! input into it, CVE-2017-5226): with a terminal of its own the bytes are copied, without one they go through pipes.
//! A write never waits where that can be helped: a command that does not read would keep what it writes, and every
//! signal, from getting through.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use hull_runtime::{Created, Ended, Stdio};
use hull_sys::signal::{self, Mask};
use hull_sys::{cred, process, tty};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio;

use crate::error::{Error, Result};
use crate::options::RunOptions;
use crate::run::Streams;

mod flow;

use flow::{Flow, Way};

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGPIPE: i32 = 13;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;

/// What stands between.
pub struct Relay {
    given: Option<Stdio>,
    flows: Vec<Flow>,
    interactive: bool,
    terminal: Option<OwnedFd>,
    cooked: Option<tty::Termios>,
    before: Mask,
    signals: OwnedFd,
    /// Whether other processes than the container's first may be children of ours, which nobody else waits for.
    adopts: bool,
    beside: Option<Beside>,
    ended: Option<Ended>,
}

/// What else goes on beside the container.
pub struct Beside {
    /// At which there is something to read when it goes on.
    pub descriptor: OwnedFd,
    /// What is done then, without waiting; false if that was all.
    pub act: Box<dyn FnMut() -> bool>,
}

fn host<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::host(doing, error)
}

impl Relay {
    /// Opens what the container will read and write, and takes over the signals.
    ///
    /// # Errors
    /// `-t` without a terminal on standard input.
    pub fn prepare(options: &RunOptions) -> Result<Self> {
        if options.tty && options.interactive && !tty::is_terminal(stdio::stdin()) {
            return Err(Error::usage_hint("-it: standard input is not a terminal", "leave -t out"));
        }
        let before = signal::block_all().map_err(host("block the signals"))?;
        let signals = signal::signalfd().map_err(host("listen for signals"))?;
        let mut relay = Self {
            given: None,
            flows: Vec::new(),
            interactive: options.interactive,
            terminal: None,
            cooked: None,
            before,
            signals,
            adopts: false,
            beside: None,
            ended: None,
        };
        relay.given = Some(if options.tty { Stdio::Terminal } else { relay.streams()? });
        Ok(relay)
    }

    /// Standard streams for a container without a terminal: the caller's own, except where they are a terminal.
    fn streams(&mut self) -> Result<Stdio> {
        let copy =
            |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map_err(host("open the standard streams"));
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(host("make a pipe"));
        let input = if !self.interactive {
            File::open("/dev/null").map(OwnedFd::from).map_err(host("open /dev/null"))?
        } else if tty::is_terminal(stdio::stdin()) {
            let (read, write) = pipe()?;
            flow::never_wait(&write)?;
            self.flows.push(Flow::new(copy(stdio::stdin())?, write, Way::In));
            read
        } else {
            copy(stdio::stdin())?
        };
        let mut output = |fd: std::os::fd::BorrowedFd<'_>| -> Result<OwnedFd> {
            if !tty::is_terminal(fd) {
                return copy(fd);
            }
            let (read, write) = pipe()?;
            self.flows.push(Flow::new(read, flow::screen(fd)?, Way::Out));
            Ok(write)
        };
        let (out, error) = (output(stdio::stdout())?, output(stdio::stderr())?);
        Ok(Stdio::Given([input, out, error]))
    }

    /// Makes this process the parent of the container's orphans, where they have no PID namespace of their own whose first
    /// process would be that, and so the one who waits for them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn adopt(&mut self) -> Result<()> {
        self.adopts = true;
        cred::become_subreaper().map_err(host("become the parent of orphans"))
    }

    /// Does this as well until the container has ended.
    pub fn look_beside(&mut self, beside: Beside) {
        self.beside = Some(beside);
    }

    /// Takes the status of every child that has ended; the container's first process's is kept.
    fn reap(&mut self, created: &Created) -> Result<()> {
        while let Some((pid, ended)) = process::reap_any().map_err(host("wait for orphans"))? {
            if pid == created.pid {
                self.ended = Some(ended);
            }
        }
        Ok(())
    }

    fn resize(&self) -> Result<()> {
        let (Some(terminal), Some(size)) = (&self.terminal, tty::size(stdio::stdout())) else { return Ok(()) };
        tty::set_size(terminal.as_fd(), size).map_err(host("resize the terminal"))
    }

    /// As `docker run` does it: everything goes to the container but what is about our own children and sockets.
    fn forward(&mut self, created: &Created) -> Result<()> {
        while let Some(number) = signal::next(self.signals.as_fd()) {
            match number {
                SIGCHLD if self.adopts => self.reap(created)?,
                SIGCHLD | SIGPIPE | SIGURG => {}
                SIGWINCH if self.terminal.is_some() => self.resize()?,
                number => match process::pidfd_send_signal(created.as_fd(), number) {
                    // It has just ended: the loop sees that next.
                    Err(error) if error.errno() == Errno::SRCH => {}
                    other => other.map_err(host("forward a signal"))?,
                },
            }
        }
        Ok(())
    }

    /// After the container's end: what it has written and is still in a pipe or terminal.
    fn copy_rest(&mut self) {
        let Self { flows, signals, .. } = self;
        for flow in flows.iter_mut().filter(|flow| flow.is_output()) {
            while flow.is_open() {
                // What it wrote is there by now; whoever reads it from us may take time.
                let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
                let patience = if flow.is_empty() { Some(&now) } else { None };
                let mut polled = [flow.waits_for(), PollFd::new(&*signals, PollFlags::IN)];
                match poll(&mut polled, patience) {
                    Ok(0) => break,
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(_) => break,
                }
                let [this, signal] = polled.map(|fd| !fd.revents().is_empty());
                // Nobody is left to get it but us.
                if signal && ends(signals) {
                    return;
                }
                if this {
                    flow.go_on();
                }
            }
        }
    }
}

/// Whether one of the signals that are there asks for an end.
fn ends(signals: &OwnedFd) -> bool {
    let mut all = std::iter::from_fn(|| signal::next(signals.as_fd()));
    all.any(|number| matches!(number, SIGHUP | SIGINT | SIGQUIT | SIGTERM))
}

impl Streams for Relay {
    fn stdio(&mut self) -> Result<Stdio> {
        self.given.take().ok_or_else(|| Error::host("open the standard streams", "they are given already"))
    }

    /// Connects the caller's terminal to the container's, and makes it raw.
    fn connect(&mut self, created: &mut Created) -> Result<()> {
        let Some(terminal) = created.terminal.take() else { return Ok(()) };
        let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map_err(host("open the terminal"));
        flow::never_wait(&terminal)?;
        self.flows.push(Flow::new(copy(terminal.as_fd())?, flow::screen(stdio::stdout())?, Way::Out));
        if self.interactive {
            self.flows.push(Flow::new(copy(stdio::stdin())?, copy(terminal.as_fd())?, Way::In));
            self.cooked = Some(tty::make_raw(stdio::stdin()).map_err(host("make the terminal raw"))?);
        }
        self.terminal = Some(terminal);
        self.resize()
    }

    /// Copies and forwards until the container has ended; then copies what is still under way.
    fn until_end(&mut self, created: &Created) -> Result<Ended> {
        loop {
            let mut polled = vec![
                PollFd::from_borrowed_fd(created.as_fd(), PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            let open: Vec<usize> = (0..self.flows.len()).filter(|index| self.flows[*index].is_open()).collect();
            polled.extend(open.iter().map(|index| self.flows[*index].waits_for()));
            // Last, so that whatever the container did before its end is seen with it.
            polled.extend(self.beside.as_ref().map(|beside| PollFd::new(&beside.descriptor, PollFlags::IN)));
            match poll(&mut polled, None) {
                Err(Errno::INTR) => continue,
                other => other.map_err(host("wait for the container"))?,
            };
            let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (index, flow) in open.iter().enumerate() {
                if ready[index + 2] {
                    self.flows[*flow].go_on();
                }
            }
            if ready.get(open.len() + 2) == Some(&true) {
                self.beside.take_if(|beside| !(beside.act)());
            }
            if ready[1] {
                self.forward(created)?;
            }
            if ready[0] {
                let ended = self.ended.map_or_else(|| created.wait(), Ok)?;
                self.copy_rest();
                return Ok(ended);
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // On every way out, errors included, the caller's terminal is what it was. If it is gone, so is the reason.
        if let Some(cooked) = &self.cooked {
            let _ = tty::restore(stdio::stdin(), cooked);
        }
        // What came too late for the container is not for us.
        while signal::next(self.signals.as_fd()).is_some() {}
        let _ = signal::restore(&self.before);
    }
}
