//! A process that hull made, as its parent holds it: the way to the command, and the end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::process::{self, Ended};
use hull_sys::sync::Line;
use hull_sys::{Errno, signal, trace};

use crate::agent::Agent;
use crate::error::{Doing, Error, Result};

/// A process on the way to its command, or waiting in front of it: a container's first, or one of an exec.
#[derive(Debug)]
pub struct Created {
    /// The process id as the host sees it.
    pub pid: i32,
    /// The process.
    pub pidfd: OwnedFd,
    /// The multiplexer's side of the container's terminal.
    pub terminal: Option<OwnedFd>,
    told: bool,
    /// None to a process that was restored, which is its command already.
    line: Option<Line>,
    /// Who decides about its system calls, if the filter says that somebody does.
    agent: Option<Agent>,
}

impl Created {
    pub(crate) fn new(pid: i32, pidfd: OwnedFd, line: Line, told: bool) -> Self {
        Self { pid, pidfd, terminal: None, told, line: Some(line), agent: None }
    }

    /// One that criu has made, and that runs.
    pub(crate) fn restored(pid: i32, pidfd: OwnedFd, terminal: Option<OwnedFd>) -> Self {
        Self { pid, pidfd, terminal, told: false, line: None, agent: None }
    }

    fn line(&self) -> Result<&Line> {
        self.line.as_ref().ok_or_else(|| Error::invalid("talk to the container", "it runs already"))
    }

    /// Its filter has a listener, which is for `agent`.
    pub(crate) fn introduce_to(&mut self, agent: Option<Agent>) {
        self.agent = agent;
    }

    /// Takes the terminal that the child has opened.
    pub(crate) fn hear_terminal(&mut self) -> Result<()> {
        let (message, terminal) = self.hear()?;
        if message != b"terminal" || terminal.is_none() {
            return Err(Error::from_message(&message));
        }
        self.terminal = terminal;
        Ok(())
    }

    pub(crate) fn tell(&self, message: &[u8]) -> Result<()> {
        self.tell_all(message, &[])
    }

    pub(crate) fn tell_all(&self, message: &[u8], descriptors: &[OwnedFd]) -> Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        match self.line()?.send_all(message, &descriptors) {
            // It has failed meanwhile and hung up, maybe with something unread: what it said before is the error to tell.
            Err(error) if matches!(error.errno(), Errno::PIPE | Errno::CONNRESET) => Ok(()),
            other => other.doing(|| "release the container".to_owned()),
        }
    }

    pub(crate) fn hear(&self) -> Result<(Vec<u8>, Option<OwnedFd>)> {
        let (message, descriptor) = self.receive()?;
        if message.is_empty() {
            let how = process::wait(self.pidfd.as_fd(), true).ok().flatten();
            let cause = match how {
                Some(Ended::Signaled(signal)) => format!("its process was killed by signal {signal}"),
                Some(Ended::Exited(status)) => format!("its process ended with status {status}"),
                None => "its process is gone".to_owned(),
            };
            return Err(Error::setup("create the container", cause));
        }
        Ok((message, descriptor))
    }

    /// The next message that is not for the seccomp agent, to which those are passed on.
    fn receive(&self) -> Result<(Vec<u8>, Option<OwnedFd>)> {
        let process = (self.pid, self.pidfd.as_fd());
        loop {
            let (message, descriptor) = self.line()?.receive().doing(|| "hear from the container".to_owned())?;
            match &self.agent {
                Some(agent) if agent.hear(&message, descriptor.as_ref(), process, self.line()?)? => {}
                _ => return Ok((message, descriptor)),
            }
        }
    }

    /// Lets the command run, and waits until it does.
    ///
    /// # Errors
    /// It could not be executed: [`crate::Class::NotFound`], [`crate::Class::NotExecutable`], or a setup step.
    pub fn start(&self) -> Result<()> {
        if self.told {
            self.line()?.send(b"start", None).doing(|| "start the container".to_owned())?;
        }
        let heard = match self.receive() {
            Ok((message, _)) if message.is_empty() => Ok(()),
            Ok((message, _)) => Err(Error::from_message(&message)),
            Err(error) => Err(error),
        };
        heard.inspect_err(|_| self.abandon())?;
        // The line closes at exec, and also if the process died on the way there.
        trace::exec_succeeded();
        Ok(())
    }

    /// Waits until the container has ended.
    pub fn wait(&self) -> Result<Ended> {
        let ended = process::wait(self.pidfd.as_fd(), true).doing(|| "wait for the container".to_owned())?;
        ended.ok_or_else(|| Error::setup("wait for the container", "it was reaped by somebody else"))
    }

    /// How it ended, if it has.
    pub fn try_wait(&self) -> Result<Option<Ended>> {
        process::wait(self.pidfd.as_fd(), false).doing(|| "wait for the container".to_owned())
    }

    /// Sends a signal to its first process.
    pub fn signal(&self, signal: i32) -> Result<()> {
        process::pidfd_send_signal(self.pidfd.as_fd(), signal).doing(|| format!("send signal {signal}"))
    }

    /// The process, for polling.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Ends what was created and takes its status, so that nothing of it is left.
    pub fn abandon(&self) {
        const SIGKILL: i32 = 9;
        debug_assert_eq!(signal::parse("KILL"), Ok(SIGKILL));
        // Both fail only if the process has ended and was reaped already.
        let _ = process::pidfd_send_signal(self.pidfd.as_fd(), SIGKILL);
        let _ = process::wait(self.pidfd.as_fd(), true);
    }
}
