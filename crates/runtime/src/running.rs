//! How the kernel runs the command: what it may use, and when it gets its turn. The command inherits all of it.

use hull_sys::{process, sched};

use crate::error::{Doing, Result};
use crate::plan::{Process, Running};

/// What runc gives a process whose specification says nothing.
const DEFAULT_UMASK: u32 = 0o022;

/// Resource limits and the file mode creation mask.
pub(crate) fn limit(plan: &Process) -> Result<()> {
    for (resource, soft, hard) in &plan.rlimits {
        process::setrlimit(*resource, *soft, *hard).doing(|| format!("set the limit {resource:?}"))?;
    }
    process::umask(plan.umask.unwrap_or(DEFAULT_UMASK));
    Ok(())
}

/// Scheduler, priorities, memory nodes, personality. While still privileged.
pub(crate) fn schedule(running: &Running) -> Result<()> {
    if let Some(attr) = running.scheduler {
        sched::set_scheduler(attr).doing(|| "set the scheduler".to_owned())?;
    }
    if let Some((class, level)) = running.io_priority {
        sched::set_io_priority(class, level).doing(|| "set the input and output priority".to_owned())?;
    }
    if let Some((mode, nodes)) = &running.memory_policy {
        sched::set_memory_policy(*mode, nodes).doing(|| "set the memory policy".to_owned())?;
    }
    match running.personality {
        Some(persona) => sched::set_personality(persona).doing(|| "set the personality".to_owned()),
        None => Ok(()),
    }
}
