//! The process's way into its control groups.

use hull_sys::ns::{self, Namespaces};
use hull_sys::sync::Line;
use hull_sys::{sched, trace};

use crate::cgroup::Cgroup;
use crate::error::{Doing, Result};
use crate::parent;
use crate::plan::Plan;

/// Entered once, by the container's process.
pub(crate) struct Entrance<'a> {
    plan: &'a Plan,
    groups: &'a Cgroup,
    born_inside: bool,
    entered: bool,
}

impl<'a> Entrance<'a> {
    /// Of `groups`; `born_inside` says whether the process is in its v2 group.
    pub(crate) fn new(plan: &'a Plan, groups: &'a Cgroup, born_inside: bool) -> Self {
        Self { plan, groups, born_inside, entered: false }
    }

    /// Whether the parent makes groups while the process may build its tree.
    pub(crate) fn may_wait(&self) -> bool {
        self.groups.is_being_made()
    }

    /// Enters the groups as soon as they are there; nothing the second time.
    pub(crate) fn enter(&mut self, line: &Line) -> Result<()> {
        if std::mem::replace(&mut self.entered, true) {
            return Ok(());
        }
        trace::stage(
            "join the groups",
            "The limits are in force before anything of the container's runs. The process moves itself, which no other process \
             has to wait for; the cgroup namespace is made here because it is rooted where its maker is.",
        );
        let doors = if self.groups.is_whole() { Vec::new() } else { parent::wait_for_all(line, b"go")? };
        // systemd has put it into those of a unit.
        if !self.groups.wants_process() {
            self.groups.join(self.born_inside)?;
            self.groups.join_through(&doors)?;
        }
        // The group says on which processors the container runs, not whoever called: it may be pinned to one.
        sched::any_processor().doing(|| "give up the caller's processors".to_owned())?;
        if self.plan.namespaces.new.contains(Namespaces::CGROUP) {
            ns::unshare(Namespaces::CGROUP).doing(|| "root the cgroup view at the container's group".to_owned())?;
        }
        Ok(())
    }
}
