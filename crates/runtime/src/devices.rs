//! Device nodes and the links that programs expect, made below handles inside the container's root.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hull_sys::Errno;
use hull_sys::fs::{self, CWD};
use hull_sys::mount::{self, OpenTreeFlags};
use hull_sys::path::Root;
use rustix::fs::{FileType, OFlags};

use crate::error::{Doing, Error, Result};
use crate::mounts;
use crate::plan::{Device, Node, Plan, What};

/// Makes the plan's nodes and fills /dev, unless /dev is a folder of the host's.
pub(crate) fn make(root: &Root, plan: &Plan) -> Result<()> {
    let lent = |step: &crate::plan::MountStep| {
        step.destination == Path::new("/dev") && matches!(step.what, What::Bind { .. })
    };
    if plan.mounts.iter().any(lent) {
        return Ok(());
    }
    let dev = mounts::target(root, Path::new("/dev"), true).doing(|| "find /dev".to_owned())?;
    for device in &plan.devices {
        let doing = || format!("make the device {}", device.path.display());
        let name = device.path.file_name().map(|name| CString::new(name.as_bytes())).transpose();
        let name = name.map_err(|error| Error::invalid(doing(), error))?.unwrap_or_default();
        let parent = device.path.parent().unwrap_or(Path::new("/"));
        if parent == Path::new("/dev") {
            node(dev.as_fd(), &name, device)?;
        } else {
            let parent = mounts::target(root, parent, true).doing(doing)?;
            node(parent.as_fd(), &name, device)?;
        }
    }
    links(dev.as_fd(), plan.process.terminal)
}

fn file_type(node: Node) -> FileType {
    match node {
        Node::Block => FileType::BlockDevice,
        Node::Char => FileType::CharacterDevice,
        Node::Fifo => FileType::Fifo,
    }
}

fn node(parent: BorrowedFd<'_>, name: &CStr, device: &Device) -> Result<()> {
    let doing = || format!("make the device {}", device.path.display());
    match fs::mknodat(parent, name, file_type(device.kind), device.mode, device.number) {
        Ok(()) => {}
        // What the image has there already is taken if it is the same device; a file in its place would be read and
        // written as one.
        Err(error) if error.errno() == Errno::EXIST => {
            let there = fs::lstatat(parent, name).doing(doing)?;
            return if is(&there, device) {
                Ok(())
            } else {
                Err(Error::invalid(doing(), "the image has something else there"))
            };
        }
        // In a user namespace nobody may make a device: the host's own node is lent.
        Err(error) if error.errno() == Errno::PERM && device.kind != Node::Fifo => {
            return lend(parent, name, device);
        }
        Err(error) => return Err(Error::setup(doing(), error)),
    }
    if device.owner != (0, 0) {
        fs::chownat(parent, name, device.owner.0, device.owner.1).doing(doing)?;
    }
    Ok(())
}

fn is(stat: &fs::Stat, device: &Device) -> bool {
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    FileType::from_raw_mode(stat.st_mode) == file_type(device.kind)
        && (device.kind == Node::Fifo || number == device.number)
}

/// Mounts the host's node of the same path and number. The root is not changed yet, so plain paths are the host's.
fn lend(parent: BorrowedFd<'_>, name: &CStr, device: &Device) -> Result<()> {
    let doing = || format!("lend the host's device {}", device.path.display());
    let path = CString::new(device.path.as_os_str().as_bytes()).map_err(|error| Error::invalid(doing(), error))?;
    let host: OwnedFd = mount::open_tree(CWD, &path, OpenTreeFlags::OPEN_TREE_CLONE).doing(doing)?;
    if !is(&fs::fstat(host.as_fd()).doing(doing)?, device) {
        return Err(Error::invalid(doing(), "the host has something else there"));
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
    let file = fs::openat(parent, name, flags, 0o644).doing(doing)?;
    mount::attach(host.as_fd(), file.as_fd()).doing(doing)
}

fn links(dev: BorrowedFd<'_>, terminal: bool) -> Result<()> {
    const LINKS: [(&CStr, &CStr); 6] = [
        (c"/proc/self/fd", c"fd"),
        (c"/proc/self/fd/0", c"stdin"),
        (c"/proc/self/fd/1", c"stdout"),
        (c"/proc/self/fd/2", c"stderr"),
        (c"/proc/kcore", c"core"),
        (c"pts/ptmx", c"ptmx"),
    ];
    let doing = || "fill /dev".to_owned();
    for (target, name) in LINKS {
        match fs::symlinkat(target, dev, name) {
            Err(error) if error.errno() == Errno::EXIST => {}
            other => other.doing(doing)?,
        }
    }
    if terminal {
        // What the image has there is covered, whatever it is, and not opened: it may be a FIFO.
        match fs::openat(dev, c"console", OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, 0o600) {
            Err(error) if error.errno() == Errno::EXIST => {}
            other => drop(other.doing(doing)?),
        }
    }
    Ok(())
}
