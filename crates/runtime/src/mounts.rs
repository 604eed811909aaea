//! Performs the mount steps of a plan: sources and targets are descriptors, never paths that could be exchanged.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hull_sys::mount::{self, MountAttr, MountAttrFlags};
use hull_sys::ns::Namespaces;
use hull_sys::path::Root;
use hull_sys::{Errno, fs};
use rustix::fs::{FileType, OFlags};

use crate::error::{Doing, Error, Result};
use crate::plan::{MountStep, Plan, What};
use crate::{copyup, idmap, lsm};

const RDONLY: u64 = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;

/// The sources that only the parent can open: one entry per mount step.
pub(crate) type Sources = Vec<Option<OwnedFd>>;

/// Clones the trees of those bind mounts that the child could not, in the parent: it has the rights over the host's mounts,
/// its mounts are the host's peers, and it sees what the child covers for itself. All others are cloned when it is their
/// turn, because the table of mounts is in the order in which they came to be.
pub(crate) fn open_sources(plan: &Plan) -> Result<Sources> {
    let namespaces = &plan.namespaces;
    let all = namespaces.has(Namespaces::USER) || namespaces.joins(Namespaces::MOUNT) || has_shared_root(plan);
    let open = |step: &MountStep| match step.what {
        What::Bind { ref source, recursive } if all || step.ids.is_some() || is_covered(source) => {
            open_source(plan, step, source, recursive).map(Some)
        }
        _ => Ok(None),
    };
    plan.mounts.iter().map(open).collect()
}

/// The tree of a bind: what the parent has opened, else it is cloned now.
pub(crate) fn source(plan: &Plan, step: &MountStep, opened: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
    match (opened, &step.what) {
        (None, What::Bind { source, recursive }) => open_source(plan, step, source, *recursive).map(Some),
        (opened, _) => Ok(opened),
    }
}

/// Whether the child has mounts of its own there by then: it lays them over the host's /proc and /sys, out of sight.
fn is_covered(source: &Path) -> bool {
    let covered =
        |path: &Path| ["/proc", "/sys"].iter().any(|cover| path.starts_with(cover)) || path == Path::new("/");
    std::fs::canonicalize(source).is_ok_and(|path| covered(&path))
}

fn has_shared_root(plan: &Plan) -> bool {
    has_root(plan, mount::MountPropagationFlags::SHARED)
}

fn has_root(plan: &Plan, kind: mount::MountPropagationFlags) -> bool {
    plan.root_propagation.is_some_and(|(planned, _)| planned == u64::from(kind.bits()))
}

fn open_source(plan: &Plan, step: &MountStep, source: &Path, recursive: bool) -> Result<OwnedFd> {
    let doing = || format!("mount {} at {}", source.display(), step.destination.display());
    let path = CString::new(source.as_os_str().as_bytes())
        .map_err(|_| Error::invalid(doing(), "the source's name holds a NUL"))?;
    let tree = mount::clone_tree(&path, recursive).map_err(|error| match error.errno() {
        Errno::NOENT => Error::invalid(doing(), "no such file or directory on the host"),
        _ => Error::setup(doing(), error),
    })?;
    // Before the tree is attached anywhere: ids cannot be mapped later.
    if let Some(ids) = &step.ids {
        let users = idmap::user_namespace(ids, &plan.namespaces)?;
        let attr = MountAttr::idmap(users.as_fd());
        mount::mount_setattr(tree.as_fd(), c"", step.options.idmap == Some(true), attr).map_err(|error| {
            let hint = "not every file system can have its ids mapped, and none twice; see mount_setattr(2)";
            Error::setup(format!("map the ids of {}", source.display()), error).hint(hint)
        })?;
    }
    for (recursive, attr) in step.options.changes(has_shared_root(plan)) {
        mount::mount_setattr(tree.as_fd(), c"", recursive, attr).doing(doing)?;
    }
    Ok(tree)
}

/// Takes the detached tree of the root out of every peer group. If it is to be a slave it is the host's from now on: what
/// the host mounts or unmounts there appears in the container (runtime-spec, "Rootfs Mount Propagation").
pub(crate) fn cut_off(plan: &Plan, root: BorrowedFd<'_>) -> hull_sys::Result<()> {
    let slave = mount::MountPropagationFlags::DOWNSTREAM;
    if has_root(plan, slave) { propagate(root, slave) } else { make_private(root) }
}

/// Takes a tree out of every peer group.
pub(crate) fn make_private(tree: BorrowedFd<'_>) -> hull_sys::Result<()> {
    propagate(tree, mount::MountPropagationFlags::PRIVATE)
}

fn propagate(tree: BorrowedFd<'_>, kind: mount::MountPropagationFlags) -> hull_sys::Result<()> {
    let propagation = u64::from(kind.bits());
    mount::mount_setattr(tree, c"", true, MountAttr { propagation, ..MountAttr::default() })
}

/// Performs one step that is a bind, a file system or a remount. Gives the mount's descriptor.
pub(crate) fn perform(root: &Root, step: &MountStep, source: Option<&OwnedFd>) -> Result<OwnedFd> {
    let doing = || format!("mount {}", step.destination.display());
    match (&step.what, source) {
        (What::Filesystem { kind, source }, _) => filesystem(root, step, kind, source.as_deref()),
        (What::Remount { bind }, _) => remount(root, step, *bind),
        (What::Bind { source, .. }, Some(tree)) => {
            let doing = || format!("mount {} at {}", source.display(), step.destination.display());
            let folder = is_folder(tree.as_fd()).doing(doing)?;
            let target = target(root, &step.destination, folder).doing(doing)?;
            refuse_inside_proc(step, target.as_fd(), fs::is_procfs(tree.as_fd()).doing(doing)?)?;
            mount::attach(tree.as_fd(), target.as_fd()).map_err(|error| unlike(doing(), error, folder, &target))?;
            tree.try_clone().map_err(|error| Error::setup(doing(), error))
        }
        _ => Err(Error::invalid(doing(), "there is no source")),
    }
}

/// Writes `text` to a new file in `folder`, a mount of our own, and attaches that alone at the step's place.
pub(crate) fn file(root: &Root, step: &MountStep, text: &[u8], folder: BorrowedFd<'_>) -> Result<()> {
    use mount::OpenTreeFlags as Flags;
    let doing = || format!("mount {}", step.destination.display());
    let name = step.destination.file_name().unwrap_or_default();
    let name = CString::new(name.as_bytes()).map_err(|error| Error::invalid(doing(), error))?;
    let made = fs::openat(folder, &name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o644).doing(doing)?;
    fs::write(made.as_fd(), text).doing(doing)?;
    let file = mount::open_tree(folder, &name, Flags::OPEN_TREE_CLONE).doing(doing)?;
    let target = target(root, &step.destination, false).doing(doing)?;
    refuse_inside_proc(step, target.as_fd(), false)?;
    mount::attach(file.as_fd(), target.as_fd()).map_err(|error| unlike(doing(), error, false, &target))
}

/// Whether a mount shows the container's groups, is charged to them, or is of a device that they may not allow.
pub(crate) fn concerns_groups(step: &MountStep) -> bool {
    const PLAIN: [&CStr; 5] = [c"proc", c"sysfs", c"tmpfs", c"devpts", c"mqueue"];
    match &step.what {
        What::Cgroup => true,
        What::Filesystem { kind, .. } => step.options.copy_up || !PLAIN.contains(&kind.as_c_str()),
        _ => false,
    }
}

/// A new file system, made detached and attached in the end.
fn filesystem(root: &Root, step: &MountStep, kind: &CStr, source: Option<&CStr>) -> Result<OwnedFd> {
    let doing = || format!("mount {}", step.destination.display());
    refuse_special_target(root, step, kind)?;
    let mut options = step.options.data.clone();
    let mut attributes = MountAttrFlags::from_bits_retain(step.options.set as u32);
    let has_mode = options.iter().any(|(key, _)| key.as_c_str() == c"mode");
    let covered = if kind == c"tmpfs" { root.resolve(&step.destination).ok() } else { None };
    let target = target(root, &step.destination, true).doing(doing)?;
    refuse_inside_proc(step, target.as_fd(), kind == c"proc")?;
    if let (Some(covered), false) = (&covered, has_mode) {
        // It looks like the folder that it covers, as with runc: the image's /tmp stays everybody's. Where the image has
        // none it is the kernel's, which is everybody's too.
        let mode = fs::fstat(covered.as_fd()).doing(doing)?.st_mode & 0o7777;
        let mode = CString::new(format!("{mode:o}")).map_err(|error| Error::setup(doing(), error))?;
        options.push((c"mode".to_owned(), Some(mode)));
    }
    // A device is read-only below its file system too, and may be one that cannot be written.
    if attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
        && source.is_some_and(|source| source.to_bytes().starts_with(b"/"))
    {
        options.push((c"ro".to_owned(), None));
    }
    if step.options.copy_up || freezes_late(step) {
        attributes -= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    // That of an IPC namespace's queues is there already, and its files cannot be labelled as one.
    let as_one = kind != c"mqueue";
    if let (Some(label), true) = (&step.label, as_one) {
        options.push(context(label));
    }
    let made = mount::new_filesystem(kind, source, &options, attributes).doing(doing)?;
    if !as_one {
        lsm::label_file(made.as_fd(), step)?;
    }
    if let (true, Some(covered)) = (step.options.copy_up, &covered) {
        copyup::copy(covered.as_fd(), made.as_fd()).doing(|| format!("copy up {}", step.destination.display()))?;
    }
    let (set, clear) = (step.options.recursive_set, step.options.recursive_clear);
    if set | clear != 0 {
        let attr = MountAttr { set, clear, ..MountAttr::default() };
        mount::mount_setattr(made.as_fd(), c"", true, attr).doing(doing)?;
    }
    mount::attach(made.as_fd(), target.as_fd()).doing(doing)?;
    for (propagation, recursive) in &step.options.propagation {
        let attr = MountAttr { propagation: *propagation, ..MountAttr::default() };
        mount::mount_setattr(made.as_fd(), c"", *recursive, attr).doing(doing)?;
    }
    Ok(made)
}

/// Whether a step is a tmpfs that is to be read-only: later steps may belong on it, so it is [`freeze`]d after them, as
/// with runc.
pub(crate) fn freezes_late(step: &MountStep) -> bool {
    let tmpfs = matches!(&step.what, What::Filesystem { kind, .. } if kind.as_c_str() == c"tmpfs");
    tmpfs && step.options.set & RDONLY != 0
}

/// Makes what [`perform`] has mounted read-only.
pub(crate) fn freeze(step: &MountStep, made: BorrowedFd<'_>) -> Result<()> {
    let attr = MountAttr { set: RDONLY, ..MountAttr::default() };
    mount::mount_setattr(made, c"", false, attr).doing(|| format!("make {} read-only", step.destination.display()))
}

/// Changes what an earlier step has mounted: of the attributes only those that are given stay, as with mount(2).
fn remount(root: &Root, step: &MountStep, bind: bool) -> Result<OwnedFd> {
    use mount::OpenTreeFlags as Flags;
    const SWITCHES: u64 = 0x1 | 0x2 | 0x4 | 0x8;
    let doing = || format!("remount {}", step.destination.display());
    let target = root.resolve(&step.destination).doing(doing)?;
    let there = mount::open_tree(target.as_fd(), c"", Flags::AT_EMPTY_PATH).doing(doing)?;
    if !bind && !step.options.data.is_empty() {
        mount::reconfigure(there.as_fd(), &step.options.data).doing(doing)?;
    }
    let (set, clear) = (step.options.set, step.options.clear | SWITCHES & !step.options.set);
    mount::mount_setattr(there.as_fd(), c"", false, MountAttr { set, clear, ..MountAttr::default() }).doing(doing)?;
    for (recursive, attr) in
        step.options.changes(true).into_iter().filter(|(all, attr)| *all || attr.propagation != 0)
    {
        mount::mount_setattr(there.as_fd(), c"", recursive, attr).doing(doing)?;
    }
    Ok(there)
}

/// /proc, /sys and /dev are what programs trust: an image that has a link there wants them elsewhere.
fn refuse_special_target(root: &Root, step: &MountStep, kind: &CStr) -> Result<()> {
    if kind != c"proc" && kind != c"sysfs" && step.destination != Path::new("/dev") {
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

/// What programs like lxcfs put their own files over; runc's list. Each only tells something.
const COVERABLE: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// A mount on a file of /proc would let settings and labels be written to somewhere else (CVE-2019-16884,
/// CVE-2025-31133). `over` is whether a procfs is what is mounted, which /proc itself may be covered with.
fn refuse_inside_proc(step: &MountStep, target: BorrowedFd<'_>, over: bool) -> Result<()> {
    let doing = || format!("mount {}", step.destination.display());
    let inside = step.destination.strip_prefix("/proc").ok();
    let coverable = inside.is_some_and(|name| COVERABLE.iter().any(|known| name == Path::new(known)));
    if coverable || (over && inside == Some(Path::new(""))) || !fs::is_procfs(target).doing(doing)? {
        return Ok(());
    }
    Err(Error::invalid(doing(), "it is inside /proc, which the kernel's own files are to fill"))
}

/// Why a tree could not be attached: mostly a file was to cover a folder, or the other way round.
fn unlike(doing: String, error: hull_sys::Error, folder: bool, target: &OwnedFd) -> Error {
    let cause = match (folder, is_folder(target.as_fd())) {
        (false, Ok(true)) => "the source is a file and the target is a directory",
        (true, Ok(false)) => "the source is a directory and the target is a file",
        _ => return Error::setup(doing, error),
    };
    Error::invalid(doing, cause)
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
    // One empty folder serves all: its first mount is made, the others are copies of that.
    let mut empty: Option<OwnedFd> = None;
    for path in &plan.masked {
        let doing = || format!("mask {}", path.display());
        let target = match root.resolve(path) {
            Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.doing(doing)?,
        };
        let folder = is_folder(target.as_fd()).doing(doing)?;
        let cover = match (&empty, folder) {
            (None, true) => empty_folder(plan.mount_label.as_ref()).doing(doing)?,
            (Some(first), true) => copy(first.as_fd()).doing(doing)?,
            (_, false) => copy(null.as_fd()).doing(doing)?,
        };
        mount::attach(cover.as_fd(), target.as_fd()).doing(doing)?;
        if folder {
            empty.get_or_insert(cover);
        }
    }
    Ok(())
}

/// A detached mount of a folder that nothing can be put into.
fn empty_folder(label: Option<&CString>) -> hull_sys::Result<OwnedFd> {
    let options =
        [(c"size", c"0k"), (c"nr_inodes", c"1")].map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
    let options: Vec<_> = options.into_iter().chain(label.map(|label| context(label))).collect();
    mount::new_filesystem(c"tmpfs", None, &options, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// The option by which all files of a file system have one label.
fn context(label: &CStr) -> (CString, Option<CString>) {
    (c"context".to_owned(), Some(label.to_owned()))
}

/// A detached tmpfs.
pub(crate) fn tmpfs(options: &[(&CStr, &CStr)], attributes: MountAttrFlags) -> hull_sys::Result<OwnedFd> {
    let options: Vec<_> = options.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))).collect();
    mount::new_filesystem(c"tmpfs", None, &options, attributes)
}

/// A detached copy of what is mounted.
fn copy(of: BorrowedFd<'_>) -> hull_sys::Result<OwnedFd> {
    use mount::OpenTreeFlags as Flags;
    mount::open_tree(of, c"", Flags::OPEN_TREE_CLONE | Flags::AT_EMPTY_PATH)
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
        let attr = MountAttr { set: RDONLY, ..MountAttr::default() };
        mount::mount_setattr(copy.as_fd(), c"", true, attr).doing(doing)?;
        mount::attach(copy.as_fd(), target.as_fd()).doing(doing)?;
    }
    Ok(())
}
