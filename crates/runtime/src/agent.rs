//! The seccomp agent: a process of the host's that decides about system calls which a filter notifies it of.
//!
//! The kernel gives the listener to the process that loads the filter, and from then on that process may be held up by any
//! call that is notified. So with its next call it hands the listener to its parent, which sends it to the agent; whatever
//! is held up meanwhile is the agent's to let go. That call is sendmsg(2) where the filter lets it pass, else a write(2) of
//! the listener's number, which may not be notified: the parent takes a copy then, for which it needs the host's root.
//!
//! Sources: runtime-spec, config-linux.md "Seccomp" (container process state); `seccomp_unotify(2)`; `pidfd_getfd(2)`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hull_sys::sync::{self, Line};
use hull_sys::{process, trace};
use serde_json::json;

use crate::error::{Doing, Result};
use crate::hooks::About;
use crate::seccomp::Listener;
use crate::spec;

/// What the parent needs to introduce a process to its agent.
#[derive(Debug)]
pub(crate) struct Agent {
    listener: Listener,
    /// The container's state, by runtime-spec's "State".
    state: serde_json::Value,
}

/// How the child's message begins; the listener's number follows.
const LISTENER: &str = "listener ";
/// The agent has it.
const DONE: &[u8] = b"go";

impl Agent {
    /// `init` is the container's first process, in the caller's numbers.
    pub(crate) fn new(listener: &Listener, about: &About, status: &str, init: i32) -> Self {
        Self { listener: listener.clone(), state: about.state(status, init) }
    }

    /// The parent's half, when it hears `message` from process `pid`. Gives whether it was about the listener.
    ///
    /// # Errors
    /// Nobody listens at the agent's socket, or the descriptor cannot be had.
    pub(crate) fn hear(
        &self,
        message: &[u8],
        descriptor: Option<&OwnedFd>,
        (pid, pidfd): (i32, BorrowedFd<'_>),
        line: &Line,
    ) -> Result<bool> {
        let text = String::from_utf8_lossy(message);
        let Some(number) = text.strip_prefix(LISTENER).and_then(|number| number.parse().ok()) else {
            return Ok(false);
        };
        trace::stage(
            "introduce it to the seccomp agent",
            "From now on some of the process's calls wait for what another process says, which gets the filter's listener.",
        );
        match descriptor {
            Some(listener) => self.tell(pid, listener.as_fd())?,
            None => self.tell(pid, take(number, pidfd)?.as_fd())?,
        }
        line.send(DONE, None).doing(|| "release the process".to_owned())?;
        Ok(true)
    }

    fn tell(&self, pid: i32, listener: BorrowedFd<'_>) -> Result<()> {
        let Listener { path, .. } = &self.listener;
        sync::send_to(path, self.told(pid).to_string().as_bytes(), listener)
            .doing(|| format!("send the seccomp listener to linux.seccomp.listenerPath {}", path.to_string_lossy()))
    }

    /// The container process state.
    fn told(&self, pid: i32) -> serde_json::Value {
        let mut told = json!({"ociVersion": spec::VERSION, "fds": ["seccompFd"], "pid": pid, "state": self.state});
        if let Some(metadata) = &self.listener.metadata {
            told["metadata"] = json!(metadata);
        }
        told
    }
}

/// Takes what the child, which is not dumpable, cannot send.
fn take(number: i32, pidfd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let hint = "without the host's root the profile has to allow sendmsg, which hands it over then";
    let taken = process::pidfd_getfd(pidfd, number).doing(|| "take the seccomp listener".to_owned());
    taken.map_err(|error| error.hint(hint))
}

/// The child's half: comes back when the agent has `descriptor`, of which no copy stays here. One would keep calls waiting for
/// ever whose agent is gone; without one they answer ENOSYS.
pub(crate) fn give(descriptor: OwnedFd, listener: &Listener, line: &Line) -> Result<()> {
    let message = format!("{LISTENER}{}", descriptor.as_raw_fd());
    let given = match listener.sendmsg_passes {
        true => line.send(message.as_bytes(), Some(descriptor.as_fd())),
        false => line.write(message.as_bytes()),
    };
    let doing = || "give the seccomp listener to the parent".to_owned();
    given.doing(doing)?;
    if line.read().doing(doing)? != DONE {
        // The parent has given up, or is gone.
        process::exit_now(0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_told_what_the_specification_says() {
        let listener = Listener { path: c"/run/agent".into(), metadata: Some("a=b".into()), sendmsg_passes: true };
        let about = About { oci_version: "1.0.2".into(), id: "box".into(), bundle: "/b".into(), ..About::default() };
        let told = Agent::new(&listener, &about, "creating", 7).told(9);
        let state = json!({"ociVersion": "1.0.2", "id": "box", "status": "creating", "pid": 7, "bundle": "/b", "annotations": {}});
        assert_eq!(
            told,
            json!({"ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 9, "metadata": "a=b", "state": state})
        );
        let listener = Listener { metadata: None, ..listener };
        assert!(Agent::new(&listener, &about, "creating", 7).told(9).get("metadata").is_none());
    }
}
