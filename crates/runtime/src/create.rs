//! The parent's half of a creation, in the order in which it happens.
//!
//! The child's half is `init.rs`. They talk over one line of whole messages:
//!
//! ```text
//!   parent                           child
//!   clone3 ------------------------> joins its groups and what exists already
//!   what only it may do, "go" -----> (if there is something: id maps, oom_score_adj)
//!                                    mounts
//!   runs hooks <-------------------- "hooks"        (if it has some)
//!   "go" --------------------------> root, identity
//!   (terminal) <-------------------- the terminal's other end
//!   created <----------------------- "ready"        (if it is to wait here)
//!   "start" -----------------------> seccomp, exec
//!   (line closes: it runs) <-------- or an error, in words
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::ns::{Fork, Namespaces};
use hull_sys::process::{self, Ended};
use hull_sys::sync::{self, Line};
use hull_sys::{Errno, signal, trace};

use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, Result};
use crate::hooks::About;
use crate::init;
use crate::join;
use crate::lsm;
use crate::mounts;
use crate::plan::Plan;

/// What a creation takes besides the plan: things that live, and that the child inherits.
pub struct Inputs<'a> {
    /// The root file system: a detached mount that nothing on the host shows.
    pub root: OwnedFd,
    /// The groups, with their limits in force already.
    pub cgroup: &'a Cgroup,
    /// What the command reads and writes.
    pub stdio: Stdio,
    /// When the command is executed.
    pub start: Start,
    /// What hooks are told of the container.
    pub about: About,
}

/// When the command is executed, all else being done.
#[derive(Debug)]
pub enum Start {
    /// At once; [`Created::start`] is where the parent hears whether it could be.
    AtOnce,
    /// When [`Created::start`] says so.
    WhenTold,
    /// When a process that connects to this listening socket says so ([`crate::start`]); the parent may be gone by then.
    WhenConnected(OwnedFd),
}

/// Standard input, output and error of the command.
#[derive(Debug)]
pub enum Stdio {
    /// These three.
    Given([OwnedFd; 3]),
    /// A terminal of the container's own devpts; its other end comes back in [`Created::terminal`].
    Terminal,
}

/// A container, with its process on the way to the command or waiting in front of it.
#[derive(Debug)]
pub struct Created {
    /// The process id as the host sees it.
    pub pid: i32,
    /// The process.
    pub pidfd: OwnedFd,
    /// The multiplexer's side of the container's terminal.
    pub terminal: Option<OwnedFd>,
    told: bool,
    line: Line,
}

/// Creates the container: everything but the command's exec.
///
/// # Errors
/// The step that failed, in the parent or in the child. Nothing is left then: the child is dead and reaped, and what
/// it had made went with its namespaces.
pub fn create(plan: &Plan, inputs: Inputs<'_>) -> Result<Created> {
    if let Some(profile) = &plan.process.apparmor {
        lsm::check(profile)?;
    }
    trace::stage(
        "open what the host lends",
        "Bind sources are host paths. They are opened now, as detached copies, while the host's tree is still in view.",
    );
    let sources = mounts::open_sources(plan)?;
    // A copy of a shared mount is its peer: what is mounted in the container would appear on the host.
    mounts::make_private(inputs.root.as_fd()).doing(|| "take the root file system".to_owned())?;
    let joins = join::open(plan)?;

    let (ours, theirs) = sync::pair().doing(|| "make the line to the container".to_owned())?;

    trace::stage(
        "one clone, new namespaces",
        "A container is a process: one clone3 gives it its own mounts, process numbers, host name, IPC and network. \
         The cgroup namespace comes later, once it is in its group, because it is rooted where its maker is.",
    );
    let (pid, pidfd) = match join::clone(plan, &joins, inputs.cgroup.birth(), (&ours, &theirs))? {
        Fork::Child => {
            drop(ours);
            init::main(plan, inputs, sources, joins, theirs)
        }
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    drop(sources);

    let told = matches!(inputs.start, Start::WhenTold);
    let mut created = Created { pid, pidfd, terminal: None, told, line: ours };
    match created.bring_up(plan, &inputs) {
        Ok(()) => Ok(created),
        Err(error) => {
            created.abandon();
            Err(error)
        }
    }
}

impl Created {
    fn bring_up(&mut self, plan: &Plan, inputs: &Inputs<'_>) -> Result<()> {
        if plan.namespaces.new.contains(Namespaces::USER) {
            trace::stage(
                "say who is who",
                "In its user namespace the process is root; the mappings say which plain ids that is outside.",
            );
            join::write_id_maps(&plan.namespaces, self.pid)?;
        } else if plan.namespaces.joins(Namespaces::USER) {
            join::check_id_maps(&plan.namespaces, self.pid)?;
        }
        if let Some(adjustment) = plan.process.oom_score_adj {
            join::set_oom_score(self.pid, adjustment)?;
        }
        if join::waits_for_parent(plan) {
            self.tell(b"go")?;
        }
        if matches!(inputs.stdio, Stdio::Terminal) {
            let (message, terminal) = self.hear()?;
            if message != b"terminal" || terminal.is_none() {
                return Err(Error::from_message(&message));
            }
            self.terminal = terminal;
        }
        if plan.hooks.concern_parent() {
            match self.hear()?.0.as_slice() {
                b"hooks" => plan.hooks.run_parents(&inputs.about, self.pid)?,
                message => return Err(Error::from_message(message)),
            }
            self.tell(b"go")?;
        }
        if matches!(inputs.start, Start::AtOnce) {
            return Ok(());
        }
        match self.hear()?.0.as_slice() {
            b"ready" => Ok(()),
            message => Err(Error::from_message(message)),
        }
    }

    fn tell(&self, message: &[u8]) -> Result<()> {
        match self.line.send(message, None) {
            // It has failed meanwhile and hung up: what it said before is the error to tell.
            Err(error) if error.errno() == Errno::PIPE => Ok(()),
            other => other.doing(|| "release the container".to_owned()),
        }
    }

    fn hear(&self) -> Result<(Vec<u8>, Option<OwnedFd>)> {
        let (message, descriptor) = self.line.receive().doing(|| "hear from the container".to_owned())?;
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

    /// Lets the command run, and waits until it does.
    ///
    /// # Errors
    /// It could not be executed: [`crate::Class::NotFound`], [`crate::Class::NotExecutable`], or a setup step.
    pub fn start(&self) -> Result<()> {
        if self.told {
            self.line.send(b"start", None).doing(|| "start the container".to_owned())?;
        }
        let (message, _) = self.line.receive().doing(|| "hear from the container".to_owned())?;
        if !message.is_empty() {
            self.abandon();
            return Err(Error::from_message(&message));
        }
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
