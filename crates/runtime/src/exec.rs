//! A further command in a container that is there: both halves, in the order in which they happen.
//!
//! ```text
//!   parent                           child
//!   clone3 into the PID namespace -> joins the groups, then all other namespaces at once
//!   (terminal) <-------------------- the terminal's other end
//!   (start) -----------------------> (has been waiting since)
//!   (line closes: it runs) <-------- identity, seccomp, exec; or an error, in words
//! ```
//!
//! The first process stands for the container, and its pidfd for it: what is joined is its own, or there is an error. Nobody
//! in the container is asked for anything, and nothing in it is trusted: it has run for a while.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use hull_sys::fs::{self, CWD};
use hull_sys::ns::{self, Fork, Namespaces};
use hull_sys::path::Root;
use hull_sys::sync::{self, Line};
use hull_sys::{cred, exe, process, sched, trace};
use rustix::fs::OFlags;

use crate::agent::Agent;
use crate::cgroup::Cgroup;
use crate::command::{self, Ready};
use crate::create::{Stdio, out_of_reach};
use crate::created::Created;
use crate::error::{Doing, Result};
use crate::hooks::About;
use crate::identity;
use crate::join;
use crate::keyring;
use crate::lsm;
use crate::parent;
use crate::plan::{ExecAffinity, Process};
use crate::running;
use crate::state::Status;
use crate::streams;

/// What an exec takes besides the plan.
pub struct Inputs<'a> {
    /// The container's first process.
    pub init: BorrowedFd<'a>,
    /// Its number.
    pub pid: i32,
    /// The groups to be in.
    pub cgroup: &'a Cgroup,
    /// What the command reads and writes.
    pub stdio: Stdio,
    /// The container's session keyring, if it has one of its own.
    pub keyring: Option<&'a CStr>,
    /// What a seccomp agent is told of the container.
    pub about: About,
    /// What it does now.
    pub status: Status,
}

/// The parent's half: everything but the command's own exec, of which [`Created::start`] tells.
///
/// # Errors
/// The step that failed, in the parent or in the child; the child is dead and reaped then.
pub fn exec(plan: &Process, inputs: Inputs<'_>) -> Result<Created> {
    out_of_reach()?;
    lsm::check(plan, None)?;
    trace::stage(
        "look for the container",
        "Its first process stands for it; each of its namespaces that is not ours is a part of the way in.",
    );
    let namespaces = join::others(inputs.pid)?;
    let (ours, theirs) = sync::pair().doing(|| "make the line to the process".to_owned())?;
    trace::stage(
        "one clone, born into the container's processes",
        "Only children are born into a PID namespace, so the parent names it, clones, and takes it back.",
    );
    // Before there is a process that those of the container can look at.
    exe::let_go();
    // Its processors until it is in the container's groups are what it is born with.
    let affinity = plan.running.exec_affinity.before.as_deref();
    let (pid, pidfd) = match join::clone_beside(inputs.init, namespaces, inputs.cgroup.birth(), affinity)? {
        Fork::Child => {
            drop(ours);
            child(plan, inputs, namespaces, theirs)
        }
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);

    let terminal = matches!(inputs.stdio, Stdio::Terminal);
    let mut created = Created::new(pid, pidfd, ours, terminal);
    let status = inputs.status.word();
    created.introduce_to(plan.listener().map(|listener| Agent::new(listener, &inputs.about, status, inputs.pid)));
    if !terminal {
        return Ok(created);
    }
    match created.hear_terminal() {
        Ok(()) => Ok(created),
        Err(error) => {
            created.abandon();
            Err(error)
        }
    }
}

fn child(plan: &Process, inputs: Inputs<'_>, namespaces: Namespaces, line: Line) -> ! {
    let Err(error) = story(plan, inputs, namespaces, &line) else { process::exit_now(0) };
    // If the parent is gone there is nobody to tell.
    let _ = line.send(&error.to_message(), None);
    process::exit_now(1)
}

/// The child's half. Comes back only with an error.
fn story(plan: &Process, inputs: Inputs<'_>, namespaces: Namespaces, line: &Line) -> Result<()> {
    // Born into the container's processes, which see it from now on: none of them may look into it (CVE-2016-9962).
    cred::set_dumpable(false).doing(|| "hide the process".to_owned())?;
    // Half-made it ends with its parent, wherever that is killed; whoever waits for it would wait for ever.
    parent::tie(line)?;
    trace::stage(
        "join the groups",
        "Before anything else, while the host's cgroup file systems are in view: the limits hold for all that follows.",
    );
    inputs.cgroup.join(inputs.cgroup.birth().is_some())?;
    match &plan.running.exec_affinity {
        ExecAffinity { after: Some(processors), .. } => {
            sched::set_affinity(processors).doing(|| "set execCPUAffinity.final".to_owned())?;
        }
        ExecAffinity { before: None, .. } => {
            sched::any_processor().doing(|| "give up the caller's processors".to_owned())?;
        }
        // What it was born with is what was asked for.
        ExecAffinity { before: Some(_), after: None } => {}
    }
    // Both by the host's procfs, with the rights that we have there. The label is for the next exec, which is the
    // command's, and no file of the container can come between (CVE-2019-16884).
    if let Some(adjustment) = plan.oom_score_adj {
        join::set_oom_score(None, adjustment)?;
    }
    if lsm::concerns(plan) {
        let proc =
            fs::openat(CWD, c"/proc", OFlags::PATH | OFlags::DIRECTORY, 0).doing(|| "open /proc".to_owned())?;
        lsm::label_exec(proc.as_fd(), plan)?;
    }

    trace::stage(
        "join the namespaces",
        "All of the container's at once, by the descriptor of its first process: no other process can take its place.",
    );
    let rest = namespaces.without(Namespaces::PID);
    ns::setns_process(inputs.init, rest).doing(|| "join the container's namespaces".to_owned())?;
    if namespaces.contains(Namespaces::USER) {
        join::become_root_inside()?;
    }
    process::setsid().doing(|| "start a session".to_owned())?;
    if let Some(name) = inputs.keyring {
        keyring::join(name)?;
    }
    let terminal = matches!(inputs.stdio, Stdio::Terminal);
    let stdio = match inputs.stdio {
        Stdio::Given(given) => given,
        // From the root that came with the mount namespace.
        Stdio::Terminal => streams::all_three(&streams::terminal(&root()?, line)?)?,
    };

    trace::stage(
        "become the user",
        "Limits while still privileged; then groups, ids and capabilities, in this order, because each step needs \
         the rights that the next one gives up.",
    );
    running::limit(plan)?;
    running::schedule(&plan.running)?;
    streams::give(plan, &stdio)?;
    identity::become_user(plan)?;
    // The folder may be one that only the user may enter, and has to be inside the root.
    command::enter_cwd(plan)?;
    streams::take(plan, &stdio)?;
    // A terminal has its size, and somebody at its other end, before anything is written to it.
    if terminal {
        parent::wait(line, b"start")?;
    }
    // The command itself outlives whoever asked for it.
    parent::untie(line)?;
    let command = Ready::new(plan)?;
    command.confine(|| Ok(()), line)?;
    command.execute()
}

fn root() -> Result<Root> {
    let root = fs::openat(CWD, c"/", OFlags::PATH | OFlags::DIRECTORY, 0);
    Ok(Root::from_fd(root.doing(|| "open the container's root".to_owned())?))
}
