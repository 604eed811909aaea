//! Performs the mount steps of a plan: sources and targets are descriptors, never paths that could be exchanged.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hull_sys::mount::{self, MountAttr, MountAttrFlags};
use hull_sys::path::Root;
use hull_sys::{Errno, fs};
use rustix::fs::FileType;

use crate::error::{Doing, Error, Result};
use crate::plan::{MountStep, Plan, What};

/// The sources that only the parent can see: one entry per mount step, `Some` for binds.
pub(crate) type Sources = Vec<Option<OwnedFd>>;

/// Clones the trees of all bind mounts, in the parent, where the host's paths still mean something.
pub(crate) fn open_sources(plan: &Plan) -> Result<Sources> {
    plan.mounts
        .iter()
        .map(|step| match &step.what {
            What::Bind { source, recursive } => {
                let path = CString::new(source.as_os_str().as_bytes()).map_err(|_| {
                    Error::invalid(format!("mount {}", step.destination.display()), "the source's name holds a NUL")
                })?;
                mount::clone_tree(&path, *recursive).map(Some).map_err(|error| {
                    let doing = format!("mount {} at {}", source.display(), step.destination.display());
                    if error.errno() == Errno::NOENT {
                        return Error::invalid(doing, "no such file or directory on the host");
                    }
                    Error::setup(doing, error)
                })
            }
            _ => Ok(None),
        })
        .collect()
}

/// Performs one step that is a bind or a file system. Gives the mount's descriptor.
pub(crate) fn perform(root: &Root, step: &MountStep, source: Option<&OwnedFd>) -> Result<OwnedFd> {
    let doing = || format!("mount {}", step.destination.display());
    let made = match (&step.what, source) {
        (What::Filesystem { kind, source }, _) => {
            refuse_special_target(root, step, kind)?;
            let attributes = MountAttrFlags::from_bits_retain(step.options.set as u32);
            Some(mount::new_filesystem(kind, source.as_deref(), &step.options.data, attributes).doing(doing)?)
        }
        _ => None,
    };
    let tree = match (&made, source) {
        (Some(made), _) => made.as_fd(),
        (None, Some(source)) => source.as_fd(),
        (None, None) => return Err(Error::invalid(doing(), "there is no source")),
    };
    let folder = is_folder(tree).doing(doing)?;
    let target = target(root, &step.destination, folder).doing(doing)?;
    if source.is_some() {
        set_attributes(tree, step).doing(doing)?;
    }
    mount::attach(tree, target.as_fd()).doing(doing)?;
    for (kind, recursive) in &step.options.propagation {
        let attr = MountAttr { propagation: *kind, ..MountAttr::default() };
        mount::mount_setattr(tree, c"", *recursive, attr).doing(doing)?;
    }
    match made {
        Some(made) => Ok(made),
        None => tree.try_clone_to_owned().map_err(|error| Error::setup(doing(), error)),
    }
}

/// /proc and /sys hold what the kernel trusts: an image that has a link there wants them elsewhere.
fn refuse_special_target(root: &Root, step: &MountStep, kind: &CStr) -> Result<()> {
    if kind != c"proc" && kind != c"sysfs" {
        return Ok(());
    }
    let doing = || format!("mount {}", step.destination.display());
    match root.resolve_nofollow(&step.destination) {
        Ok(handle) if is_folder(handle.as_fd()).doing(doing)? => Ok(()),
        Ok(_) => Err(Error::invalid(doing(), "the image has something else there: it must be an ordinary directory")),
        Err(error) if error.errno() == Errno::NOENT => Ok(()),
        Err(error) => Err(Error::setup(doing(), error)),
    }
}

fn is_folder(file: BorrowedFd<'_>) -> hull_sys::Result<bool> {
    let stat = fs::fstat(file)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// The handle to mount on; what is missing is made, inside the root.
pub(crate) fn target(root: &Root, path: &Path, folder: bool) -> hull_sys::Result<OwnedFd> {
    match root.resolve(path) {
        Err(error) if error.errno() == Errno::NOENT && folder => make_folder(root, path),
        Err(error) if error.errno() == Errno::NOENT => make_file(root, path, LINKS),
        other => other,
    }
}

/// Mostly only the last component is missing, and then one `mkdirat` below its parent's handle is enough.
fn make_folder(root: &Root, path: &Path) -> hull_sys::Result<OwnedFd> {
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
        if let (Ok(parent), Ok(name)) = (root.resolve(parent), CString::new(name.as_bytes())) {
            if fs::mkdirat(parent.as_fd(), &name, 0o755).is_ok() {
                return root.resolve(path);
            }
        }
    }
    root.mkdir_all(path, 0o755)
}

/// How many dangling links may lead to one another, as the kernel's own limit for a walk.
const LINKS: u32 = 40;

/// Makes the file that `path` names; a dangling link there is followed, inside the root, to where it points.
fn make_file(root: &Root, path: &Path, links: u32) -> hull_sys::Result<OwnedFd> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    root.mkdir_all(parent, 0o755)?;
    match root.readlink(path) {
        Ok(link) if links > 0 => make_file(root, &parent.join(link), links - 1),
        _ => {
            root.make_file(path, 0o644)?;
            root.resolve(path)
        }
    }
}

fn set_attributes(tree: BorrowedFd<'_>, step: &MountStep) -> hull_sys::Result<()> {
    let options = &step.options;
    if options.set | options.clear != 0 {
        let attr = MountAttr { set: options.set, clear: options.clear, ..MountAttr::default() };
        mount::mount_setattr(tree, c"", false, attr)?;
    }
    if options.recursive_set | options.recursive_clear != 0 {
        let attr = MountAttr { set: options.recursive_set, clear: options.recursive_clear, ..MountAttr::default() };
        mount::mount_setattr(tree, c"", true, attr)?;
    }
    Ok(())
}

/// Hides paths: a file under the container's own /dev/null, a folder under an empty read-only tmpfs.
///
/// A path that does not exist needs no hiding.
pub(crate) fn mask(root: &Root, plan: &Plan) -> Result<()> {
    if plan.masked.is_empty() {
        return Ok(());
    }
    let null = root.resolve_nofollow(Path::new("/dev/null")).doing(|| "find /dev/null".to_owned())?;
    let stat = fs::fstat(null.as_fd()).doing(|| "look at /dev/null".to_owned())?;
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || device != (1, 3) {
        // A file of the image's in its place would be readable and writable through every masked path.
        return Err(Error::invalid("mask paths", "/dev/null of the container is not the null device"));
    }
    for path in &plan.masked {
        let doing = || format!("mask {}", path.display());
        let target = match root.resolve(path) {
            Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.doing(doing)?,
        };
        let cover = if is_folder(target.as_fd()).doing(doing)? {
            let options =
                [(c"size".to_owned(), Some(c"0k".to_owned())), (c"nr_inodes".to_owned(), Some(c"1".to_owned()))];
            mount::new_filesystem(c"tmpfs", None, &options, MountAttrFlags::MOUNT_ATTR_RDONLY).doing(doing)?
        } else {
            use mount::OpenTreeFlags as Flags;
            mount::open_tree(null.as_fd(), c"", Flags::OPEN_TREE_CLONE | Flags::AT_EMPTY_PATH).doing(doing)?
        };
        mount::attach(cover.as_fd(), target.as_fd()).doing(doing)?;
    }
    Ok(())
}

/// Makes paths read-only by a bind of each onto itself.
pub(crate) fn make_read_only(root: &Root, plan: &Plan) -> Result<()> {
    use mount::OpenTreeFlags as Flags;
    for path in &plan.read_only {
        let doing = || format!("make {} read-only", path.display());
        let target = match root.resolve(path) {
            Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.doing(doing)?,
        };
        let flags = Flags::OPEN_TREE_CLONE | Flags::AT_EMPTY_PATH | Flags::AT_RECURSIVE;
        let copy = mount::open_tree(target.as_fd(), c"", flags).doing(doing)?;
        let attr = MountAttr { set: u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()), ..MountAttr::default() };
        mount::mount_setattr(copy.as_fd(), c"", true, attr).doing(doing)?;
        mount::attach(copy.as_fd(), target.as_fd()).doing(doing)?;
    }
    Ok(())
}
