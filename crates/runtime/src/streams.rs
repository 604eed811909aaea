//! Standard streams and the terminal of a command.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use hull_sys::path::Root;
use hull_sys::sync::Line;
use hull_sys::{Errno, fs, mount, process, tty};
use rustix::fs::FileType;

use crate::error::{Doing, Error, Result};
use crate::plan::Process;

/// A terminal of the container's own devpts, which `root` has at /dev/pts. The multiplexer's end goes to the parent.
pub(crate) fn terminal(root: &Root, line: &Line) -> Result<OwnedFd> {
    let doing = || "open the container's terminal".to_owned();
    let pts = root.open_read(Path::new("/dev/pts")).doing(doing)?;
    let ptmx = tty::open_ptmx(pts.as_fd(), c"ptmx").doing(doing)?;
    // What has its place may be the image's or the container's.
    if !tty::is_ptmx(ptmx.as_fd()).doing(doing)? {
        return Err(Error::invalid(doing(), "its /dev/pts/ptmx is not the multiplexer of a devpts"));
    }
    tty::unlock(ptmx.as_fd()).doing(doing)?;
    // By ioctl on the multiplexer: no name in /dev/pts, which the image may have replaced, is looked up
    // (CVE-2025-52565).
    let peer = tty::peer(ptmx.as_fd()).doing(doing)?;
    line.send(b"terminal", Some(ptmx.as_fd())).doing(doing)?;
    Ok(peer)
}

/// Binds the terminal to /dev/console.
pub(crate) fn console(root: &Root, terminal: &OwnedFd) -> Result<()> {
    let doing = || "bind the terminal to /dev/console".to_owned();
    let flags = mount::OpenTreeFlags::OPEN_TREE_CLONE | mount::OpenTreeFlags::AT_EMPTY_PATH;
    let console = mount::open_tree(terminal.as_fd(), c"", flags).doing(doing)?;
    let target = root.resolve_nofollow(Path::new("/dev/console")).doing(doing)?;
    mount::attach(console.as_fd(), target.as_fd()).doing(doing)
}

/// The terminal as all three streams.
pub(crate) fn all_three(terminal: &OwnedFd) -> Result<[OwnedFd; 3]> {
    let copy = || terminal.try_clone().map_err(|error| Error::setup("open the container's terminal", error));
    Ok([copy()?, copy()?, copy()?])
}

/// Another user than root may open /dev/stdout again only if it is its own. Pipes and the container's own terminal are
/// given away, not files and terminals of the caller's.
pub(crate) fn give(plan: &Process, stdio: &[OwnedFd; 3]) -> Result<()> {
    if plan.uid == 0 {
        return Ok(());
    }
    for file in stdio {
        let doing = || "give the standard streams to the user".to_owned();
        let stat = fs::fstat(file.as_fd()).doing(doing)?;
        let pipe = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
        if stat.st_uid == plan.uid || !(pipe || plan.terminal) {
            continue;
        }
        match fs::chown_handle(file.as_fd(), plan.uid, stat.st_gid) {
            // A pipe from outside of the user namespace belongs to nobody inside; runc and crun let that be.
            Err(error) if matches!(error.errno(), Errno::PERM | Errno::INVAL | Errno::ROFS) => {}
            other => other.doing(doing)?,
        }
    }
    Ok(())
}

/// The streams get their numbers, and a terminal becomes the session's.
pub(crate) fn take(plan: &Process, stdio: &[OwnedFd; 3]) -> Result<()> {
    for (number, file) in stdio.iter().enumerate() {
        process::set_stdio(file.as_fd(), number as i32).doing(|| "hand over the standard streams".to_owned())?;
    }
    if plan.terminal {
        tty::make_controlling(stdio[0].as_fd()).doing(|| "take the terminal".to_owned())?;
    }
    Ok(())
}
