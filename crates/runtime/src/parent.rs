//! The child's side of what ties it to its parent until it is the command.

use hull_sys::sync::Line;
use hull_sys::{cred, process};

use crate::error::{Doing, Result};

/// From here on the kernel kills us when the parent dies. If it has died before, so do we now.
pub(crate) fn tie(line: &Line) -> Result<()> {
    cred::die_with_parent(true).doing(|| "tie the process to its parent".to_owned())?;
    if line.is_closed().doing(|| "look for the parent".to_owned())? {
        process::exit_now(0);
    }
    Ok(())
}

/// Whatever it does for us is done when it says so. If it is gone, so are we.
pub(crate) fn wait(line: &Line) -> Result<()> {
    let (message, _) = line.receive().doing(|| "wait for the parent".to_owned())?;
    if message != b"go" {
        process::exit_now(0);
    }
    Ok(())
}
