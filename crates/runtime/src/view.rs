//! What the container sees of its control groups: a mount of the specification's type `cgroup`.
//!
//! In a cgroup namespace the hierarchies themselves are mounted, which begin at the container's groups then. Without one
//! they would begin at the host's root, and a user namespace may not mount them at all: then what the host has is lent,
//! on v1 the container's own groups. On v2 it is all of the host's tree, as with runc and crun.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hull_sys::fs;
use hull_sys::mount::{self, MountAttr, MountAttrFlags};
use hull_sys::path::Root;
use rustix::fs::OFlags;

use crate::cgroup::View;
use crate::error::{Doing, Error, Result};
use crate::mounts;
use crate::plan::{MountStep, What};

/// v2: the unified hierarchy. v1: a tmpfs with one mount for each hierarchy that the container is in. `rooted` is whether
/// the container has a cgroup namespace.
pub(crate) fn mount(root: &Root, step: &MountStep, view: &View, rooted: bool) -> Result<()> {
    let hierarchies = match (view, rooted) {
        (View::Unified(_), true) => {
            let step = MountStep { what: filesystem(c"cgroup2"), label: None, ..step.clone() };
            return mounts::perform(root, &step, None).map(drop);
        }
        (View::Unified(folder), false) => {
            let what = What::Bind { source: folder.clone(), recursive: false };
            let step = MountStep { what, ..step.clone() };
            return mounts::perform(root, &step, Some(&lent(&step, folder)?)).map(drop);
        }
        (View::V1(hierarchies), _) => hierarchies,
    };
    let doing = || format!("mount {}", step.destination.display());
    let mut base = MountStep { what: filesystem(c"tmpfs"), ..step.clone() };
    base.options.set &= !u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    base.options.data = vec![(c"mode".to_owned(), Some(c"755".to_owned()))];
    let tmpfs = mounts::perform(root, &base, None)?;
    for (controllers, folder) in hierarchies {
        let name = controllers.join(",");
        let made = match rooted {
            true => {
                let attributes = MountAttrFlags::from_bits_retain(step.options.set as u32);
                let options = v1_options(controllers)?;
                mount::new_filesystem(c"cgroup", Some(c"cgroup"), &options, attributes).doing(doing)?
            }
            false => lent(step, folder)?,
        };
        // Nobody else has been in this tmpfs yet, so its names lead nowhere else.
        let place = text(name.trim_start_matches("name="))?;
        fs::mkdirat(tmpfs.as_fd(), &place, 0o755).doing(doing)?;
        let place =
            fs::openat(tmpfs.as_fd(), &place, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW, 0).doing(doing)?;
        mount::attach(made.as_fd(), place.as_fd()).doing(doing)?;
        for controller in controllers.iter().filter(|_| controllers.len() > 1) {
            // Programs look for each controller by its own name.
            let (link, target) = (text(controller)?, text(&name)?);
            fs::symlinkat(&target, tmpfs.as_fd(), &link).doing(doing)?;
        }
    }
    if step.options.set & u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()) != 0 {
        let attr = MountAttr { set: step.options.set, ..MountAttr::default() };
        mount::mount_setattr(tmpfs.as_fd(), c"", false, attr).doing(doing)?;
    }
    Ok(())
}

/// A folder of the host's, detached. Its tree is still in view, as a copy in this mount namespace.
fn lent(step: &MountStep, folder: &Path) -> Result<OwnedFd> {
    let doing = || format!("mount {} at {}", folder.display(), step.destination.display());
    let path = CString::new(folder.as_os_str().as_bytes()).map_err(|error| Error::invalid(doing(), error))?;
    let tree = mount::clone_tree(&path, false).doing(doing)?;
    let attr = MountAttr { set: step.options.set, ..MountAttr::default() };
    mount::mount_setattr(tree.as_fd(), c"", false, attr).doing(doing)?;
    Ok(tree)
}

fn filesystem(kind: &CStr) -> What {
    What::Filesystem { kind: kind.to_owned(), source: Some(c"cgroup".to_owned()) }
}

fn text(name: &str) -> Result<CString> {
    CString::new(name).map_err(|error| Error::invalid("mount control groups", error))
}

fn v1_options(controllers: &[String]) -> Result<Vec<(CString, Option<CString>)>> {
    let mut options = Vec::new();
    for controller in controllers {
        match controller.strip_prefix("name=") {
            Some(name) => options.extend([(c"none".to_owned(), None), (c"name".to_owned(), Some(text(name)?))]),
            None => options.push((text(controller)?, None)),
        }
    }
    Ok(options)
}
