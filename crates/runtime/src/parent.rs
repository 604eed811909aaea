//! The child's side of what ties it to its parent until it is the command.

use std::os::fd::OwnedFd;

use hull_sys::sync::Line;
use hull_sys::{cred, process};

use crate::error::{Doing, Error, Result};

/// From here on the kernel kills us when the parent dies. If it has died before, so do we now.
pub(crate) fn tie(line: &Line) -> Result<()> {
    cred::die_with_parent(true).doing(|| "tie the process to its parent".to_owned())?;
    end_without(line)
}

/// From here on we outlive it, unless it has died before: a change of ids had taken the tie away.
pub(crate) fn untie(line: &Line) -> Result<()> {
    cred::die_with_parent(false).doing(|| "let the process outlive its parent".to_owned())?;
    end_without(line)
}

fn end_without(line: &Line) -> Result<()> {
    if line.is_closed().doing(|| "look for the parent".to_owned())? {
        process::exit_now(0);
    }
    Ok(())
}

/// What it does for us is done when it says `word`. If it is gone, so are we.
pub(crate) fn wait(line: &Line, word: &[u8]) -> Result<()> {
    wait_for_all(line, word).map(drop)
}

/// The same; gives what comes along.
pub(crate) fn wait_for_all(line: &Line, word: &[u8]) -> Result<Vec<OwnedFd>> {
    let (message, descriptors) = line.receive_word().doing(|| "wait for the parent".to_owned())?;
    match message.as_slice() {
        [] => process::exit_now(0),
        said if said == word => Ok(descriptors),
        said => Err(Error::setup(
            format!("wait for the parent's {:?}", String::from_utf8_lossy(word)),
            format!("it says {:?}", String::from_utf8_lossy(said)),
        )),
    }
}
