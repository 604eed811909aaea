//! How the kernel runs the command: what it may use, and when it gets its turn. The command inherits all of it.

use hull_sys::{Errno, process, sched};
use rustix::process::{Resource, getrlimit};

use crate::error::{Doing, Error, Result};
use crate::plan::{Process, Running};

/// What runc gives a process whose specification says nothing.
const DEFAULT_UMASK: u32 = 0o022;

/// Resource limits and the file mode creation mask. Of open files only what takes rights: see [`limit_files`].
pub(crate) fn limit(plan: &Process) -> Result<()> {
    for (resource, soft, hard) in &plan.rlimits {
        match resource {
            Resource::Nofile if !is_above(*hard, getrlimit(*resource).maximum) => {}
            Resource::Nofile => set(*resource, *hard, *hard)?,
            _ => set(*resource, *soft, *hard)?,
        }
    }
    process::umask(plan.umask.unwrap_or(DEFAULT_UMASK));
    Ok(())
}

/// The limit of open files, at the last moment at which hull opens any: it may be lower than what hull has open.
pub(crate) fn limit_files(plan: &Process) -> Result<()> {
    let mut files = plan.rlimits.iter().filter(|limit| limit.0 == Resource::Nofile);
    files.try_for_each(|(resource, soft, hard)| set(*resource, *soft, *hard))
}

/// Whether a limit is higher than another; `None` is unlimited.
fn is_above(limit: Option<u64>, other: Option<u64>) -> bool {
    limit.unwrap_or(u64::MAX) > other.unwrap_or(u64::MAX)
}

fn set(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> Result<()> {
    let doing = || format!("set the limit {}", process::LimitName(resource));
    process::setrlimit(resource, soft, hard).map_err(|cause| match cause.errno() {
        Errno::PERM if resource == Resource::Nofile => {
            Error::setup(doing(), cause).hint("it can be at most fs.nr_open, which `sysctl fs.nr_open` tells")
        }
        Errno::PERM => Error::setup(doing(), cause).hint("to raise a hard limit takes CAP_SYS_RESOURCE"),
        _ => Error::setup(doing(), cause),
    })
}

/// Scheduler, priorities, memory nodes, personality. While still privileged.
pub(crate) fn schedule(running: &Running) -> Result<()> {
    if let Some(attr) = running.scheduler {
        sched::set_scheduler(attr).doing(|| "set the scheduler".to_owned())?;
    }
    schedule_beside(running)
}

/// All of it but the scheduler.
pub(crate) fn schedule_beside(running: &Running) -> Result<()> {
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
