//! The parent's half of a creation, in the order in which it happens.
//!
//! The child's half is `init.rs`. They talk over one line of whole messages:
//!
//! ```text
//!   parent                           child
//!   clone3 ------------------------>
//!   systemd makes groups, "go" ----> (if asked to)
//!                                    joins its groups and what exists already
//!   what only it may do, "go" -----> (if there is something: id maps, oom_score_adj)
//!   moves network devices <--------- their names    (if there are some)
//!   "go" -------------------------->
//!   makes v1's groups, "go" -------> mounts, joins them         (these three if the two may work at the same time)
//!   raises lo <--------------------- a socket of its network
//!   "up" --------------------------> all is as it has to be
//!   runs hooks <-------------------- "hooks"        (if it has some)
//!   "go" --------------------------> root, identity
//!   (terminal) <-------------------- the terminal's other end
//!   its agent is told <------------- seccomp        (if calls are notified: see agent.rs)
//!   created <----------------------- "ready"        (if it is to wait here)
//!   "start" -----------------------> seccomp, exec
//!   (line closes: it runs) <-------- or an error, in words
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use hull_sys::ns::{Fork, Namespaces};
use hull_sys::sync;
use hull_sys::{exe, net, trace};

use crate::agent::Agent;
use crate::cgroup::Cgroup;
use crate::created::Created;
use crate::error::{Doing, Error, Result};
use crate::hooks::About;
use crate::init;
use crate::join;
use crate::lsm;
use crate::mounts;
use crate::netdev::{self, Found};
use crate::plan::Plan;
use crate::rootfs;

/// What a creation takes besides the plan: things that live, and that the child inherits.
pub struct Inputs<'a> {
    /// The root file system: a detached mount that nothing on the host shows.
    pub root: OwnedFd,
    /// The groups, with their limits in force: those of v1 may be made while the process builds its tree.
    pub cgroup: &'a mut Cgroup,
    /// What the command reads and writes.
    pub stdio: Stdio,
    /// When the command is executed.
    pub start: Start,
    /// What hooks are told of the container.
    pub about: About,
    /// An empty folder of the container's own, absolute, for the root where the mount namespace is not new. Whoever gives
    /// it takes away what stays mounted there, as [`crate::state::Folder::delete`] does.
    pub place: Option<PathBuf>,
    /// Called with the process, as the host numbers it, while that builds its tree: what has to be written down of it costs
    /// no time then. It may not be waiting or running yet.
    pub born: &'a mut dyn FnMut(i32) -> Result<()>,
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

/// Creates the container: everything but the command's exec.
///
/// # Errors
/// The step that failed, in the parent or in the child. Nothing is left then: the child is dead and reaped, and what
/// it had made went with its namespaces.
pub fn create(plan: &Plan, mut inputs: Inputs<'_>) -> Result<Created> {
    out_of_reach()?;
    if rootfs::is_shared(plan) && inputs.place.is_none() {
        let cause = "without a mount namespace of its own it would change the caller's mounts";
        return Err(Error::invalid("create the container", cause));
    }
    lsm::check(&plan.process, plan.mount_label.as_ref())?;
    trace::stage(
        "open what the host lends",
        "What only this side can open is opened now, as a detached copy: the sources of binds for a container that has no \
         rights outside of its user namespace, and those that it covers for itself, the host's /proc and /sys.",
    );
    let sources = mounts::open_sources(plan)?;
    // A copy of a shared mount is its peer: what is mounted in the container would appear on the host.
    mounts::cut_off(plan, inputs.root.as_fd()).doing(|| "take the root file system".to_owned())?;
    let joins = join::open(plan)?;
    let devices = netdev::find(&plan.net_devices)?;
    if let Some(owner) = plan.owner_of_groups() {
        // With its limits in force, which stay root's.
        inputs.cgroup.give_to(owner)?;
    }

    let helps = join::parent_helps(plan, &joins);
    if !helps {
        inputs.cgroup.complete()?;
        exe::let_go();
    }

    let (ours, theirs) = sync::pair().doing(|| "make the line to the container".to_owned())?;

    trace::stage(
        "one clone, new namespaces",
        "A container is a process: one clone3 gives it its own mounts, process numbers, host name, IPC and network. \
         The cgroup namespace comes later, once it is in its group, because it is rooted where its maker is.",
    );
    let (pid, pidfd) = match join::clone(plan, &joins, inputs.cgroup.birth(), (&ours, &theirs))? {
        Fork::Child => {
            drop(ours);
            init::main(plan, inputs, init::Opened { sources, joins, devices, helped: helps }, theirs)
        }
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    drop(sources);

    let mut created = Created::new(pid, pidfd, ours, matches!(inputs.start, Start::WhenTold));
    let listener = plan.process.listener();
    created.introduce_to(listener.map(|listener| Agent::new(listener, &inputs.about, "creating", pid)));
    match bring_up(&mut created, plan, &mut inputs, &devices, helps) {
        Ok(()) => Ok(created),
        Err(error) => {
            created.abandon();
            Err(error)
        }
    }
}

fn bring_up(
    created: &mut Created,
    plan: &Plan,
    inputs: &mut Inputs<'_>,
    devices: &[Found],
    helps: bool,
) -> Result<()> {
    if inputs.cgroup.wants_process() {
        // After the clone, for systemd wants the process first.
        inputs.cgroup.adopt(created.pid)?;
        created.tell(b"go")?;
    }
    if plan.namespaces.new.contains(Namespaces::USER) {
        trace::stage(
            "say who is who",
            "In its user namespace the process is root; the mappings say which plain ids that is outside.",
        );
        join::write_id_maps(&plan.namespaces, created.pid)?;
    } else if plan.namespaces.joins(Namespaces::USER) {
        join::check_id_maps(&plan.namespaces, created.pid)?;
    }
    if let Some(adjustment) = plan.process.oom_score_adj {
        join::set_oom_score(Some(created.pid), adjustment)?;
    }
    if join::waits_for_parent(plan) {
        created.tell(b"go")?;
    }
    netdev::give(&plan.net_devices, devices, created)?;
    if helps {
        help(created, plan, inputs.cgroup)?;
    }
    (inputs.born)(created.pid)?;
    if helps {
        created.tell(b"up")?;
    }
    if matches!(inputs.stdio, Stdio::Terminal) {
        created.hear_terminal()?;
    }
    if plan.hooks.concern_parent() {
        match created.hear()?.0.as_slice() {
            b"hooks" => plan.hooks.run_parents(&inputs.about, created.pid)?,
            message => return Err(Error::from_message(message)),
        }
        created.tell(b"go")?;
    }
    if matches!(inputs.start, Start::AtOnce) {
        return Ok(());
    }
    match created.hear()?.0.as_slice() {
        b"ready" => Ok(()),
        message => Err(Error::from_message(message)),
    }
}

/// Does what the child would do as well, while that mounts. Nothing of the container runs before it has heard "up".
fn help(created: &Created, plan: &Plan, groups: &mut Cgroup) -> Result<()> {
    if !groups.is_whole() {
        groups.complete()?;
        created.tell_all(b"go", &groups.doors()?)?;
    }
    if plan.namespaces.new.contains(Namespaces::NETWORK) {
        match created.hear()? {
            (message, Some(socket)) if message == b"network" => {
                net::loopback_up(socket.as_fd()).doing(|| "bring the loopback interface up".to_owned())?;
            }
            (message, _) => return Err(Error::from_message(&message)),
        }
    }
    // The child has let go of it by itself, first thing.
    exe::let_go();
    Ok(())
}

/// A caller that forgot to would not notice until somebody overwrites its file (CVE-2019-5736).
pub(crate) fn out_of_reach() -> Result<()> {
    match exe::is_sealed() {
        true => Ok(()),
        false => Err(Error::invalid("enter the container", "the program's own file would be within its reach")),
    }
}
