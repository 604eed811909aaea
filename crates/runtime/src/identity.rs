//! Who the command is: groups, ids and capabilities, each given up only when nothing after it needs it.

use hull_sys::{Errno, cred};

use crate::error::{Doing, Result};
use crate::plan::Process;

/// Becomes the user. The permitted capabilities stay for what is still to be done; [`limit`] takes them.
pub(crate) fn become_user(plan: &Process) -> Result<()> {
    let doing = || "become the user".to_owned();
    for capability in (0..64).filter(|capability| plan.caps.bounding >> capability & 1 == 0) {
        match cred::drop_bounding(capability) {
            // The first number that the kernel does not know ends the list.
            Err(error) if error.errno() == Errno::INVAL => break,
            // Without the right to drop any it is enough that it is not there.
            Err(error) if error.errno() == Errno::PERM && matches!(cred::has_bounding(capability), Ok(false)) => {}
            other => other.doing(|| "limit the capabilities".to_owned())?,
        }
    }
    // The permitted set must outlive the change of ids: it still loads the filter and sets the final sets below.
    cred::keep_capabilities(true).doing(doing)?;
    if let Some(groups) = &plan.groups {
        cred::setgroups(groups).doing(|| "set the groups".to_owned())?;
    }
    cred::setresgid(plan.gid).doing(doing)?;
    cred::setresuid(plan.uid).doing(doing)?;
    cred::keep_capabilities(false).doing(doing)?;
    if plan.uid != 0 {
        let (_, permitted, _) = cred::capget().doing(doing)?;
        cred::capset(permitted, permitted, 0).doing(doing)?;
    }
    Ok(())
}

/// The command's capabilities and no others.
pub(crate) fn limit(plan: &Process) -> Result<()> {
    let doing = || "set the capabilities".to_owned();
    cred::clear_ambient().doing(doing)?;
    cred::capset(plan.caps.effective, plan.caps.permitted, plan.caps.inheritable).doing(doing)?;
    for capability in (0..64).filter(|capability| plan.caps.ambient >> capability & 1 == 1) {
        cred::raise_ambient(capability).doing(doing)?;
    }
    Ok(())
}
