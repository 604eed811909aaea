//! The root file system of a container as a detached mount: an overlay of layers, or a bind of a plain folder.
//!
//! Nothing is attached here; the mount exists by its descriptor alone and ends with it. Features of overlay that carry
//! trust in attributes of a layer (`redirect_dir`, `metacopy`, `index`) are off.
//!
//! How a layer is named to the kernel: by descriptor where it takes that (Linux 6.13), else by a name of one byte in a
//! private folder of links, since `fsconfig(2)` takes at most 255 bytes at once and older kernels (before 6.5) want all
//! lower layers in one string. Sources: `filesystems/overlayfs.rst`, `fsconfig(2)`.

use std::ffi::{CStr, CString};
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hull_sys::mount::{self, MountAttrFlags};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Cannot, Error, Result};
use crate::layer::Layer;

/// The writable side of an overlay: two empty folders on one file system.
#[derive(Clone, Copy, Debug)]
pub struct Upper<'a> {
    /// Where changes go.
    pub upper: &'a Path,
    /// Overlay's own scratch folder.
    pub work: &'a Path,
}

/// The kernel's bound on the lower layers of one overlay (`OVL_MAX_STACK`).
pub(crate) const LAYERS_MAX: usize = 500;
/// What of it can be named in one string: names of one byte with a colon each in 255 bytes.
const LINKS_MAX: usize = 128;

/// Mounts `lowers` (lowest first) with `upper` above them, detached. Without `upper` it is read-only. `volatile` leaves
/// out every sync to disk, for what ends with its container.
///
/// # Errors
/// The kernel's, with the failing call; more than 500 layers, more than 128 on a kernel before 6.8.
pub(crate) fn overlay(lowers: &[Layer], upper: Option<Upper<'_>>, volatile: bool) -> Result<OwnedFd> {
    assemble(lowers, upper, |folders| match by_descriptor(folders, upper, volatile)? {
        Some(mounted) => Ok(mounted),
        None => by_link(folders, upper, volatile),
    })
}

/// How many layers this kernel mounts as one root: as many as overlay takes where each is told by itself, else what their names
/// have room for.
///
/// # Errors
/// The kernel has no overlay.
pub fn layers_max() -> Result<usize> {
    let probe = || -> hull_sys::Result<usize> {
        let context = match mount::fsopen(c"overlay") {
            Err(error) if error.errno() == Errno::NOSYS => return Ok(LINKS_MAX),
            other => other?,
        };
        let folder = hull_sys::fs::openat(CWD, c"/", OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        match mount::fsconfig_fd(context.as_fd(), c"lowerdir+", folder.as_fd()) {
            Err(error) if takes_no_descriptor(error.errno()) => Ok(LINKS_MAX),
            result => result.map(|()| LAYERS_MAX),
        }
    };
    probe().cannot("use", "overlay")
}

fn assemble(
    lowers: &[Layer],
    upper: Option<Upper<'_>>,
    make: impl FnOnce(&[&Path]) -> Result<OwnedFd>,
) -> Result<OwnedFd> {
    // Overlay wants a lower layer beside an upper one, and two without.
    let empty = match (lowers, upper) {
        ([], Some(upper)) => return bind(upper.upper),
        ([], None) => return nothing(),
        ([only], None) => Some(empty_layer(only)?),
        _ => None,
    };
    let folders: Vec<&Path> = lowers.iter().rev().map(Layer::diff).chain(empty.as_deref()).collect();
    if folders.len() > LAYERS_MAX {
        return Err(too_many(folders.len(), LAYERS_MAX));
    }
    make(&folders)
}

fn too_many(count: usize, most: usize) -> Error {
    Error::document("image", format!("it has {count} layers, and this kernel mounts at most {most}"))
}

/// An overlay of two folders, to see whether there can be one; gives the way in which it is mounted.
pub(crate) fn probe(lower: &Path, upper: Upper<'_>) -> Result<&'static str> {
    match by_descriptor(&[lower], Some(upper), true)? {
        Some(_) => Ok("layers by descriptor, at most 500"),
        None => by_link(&[lower], Some(upper), true)
            .map(|_| "layers by name, at most 500, or 128 where they are not appended one by one (before Linux 6.8)"),
    }
}

/// A root without anything in it, which stays so.
fn nothing() -> Result<OwnedFd> {
    let options = [(c"mode".to_owned(), Some(c"0755".to_owned())), (c"size".to_owned(), Some(c"0k".to_owned()))];
    mount::new_filesystem(c"tmpfs", Some(c"hull"), &options, MountAttrFlags::MOUNT_ATTR_RDONLY)
        .cannot("make", "an empty root")
}

/// The store's empty folder, made when it is first needed. It stays: overlay reads it for as long as it is mounted, and
/// kernels before 6.13 refuse one on a file system that is mounted nowhere.
fn empty_layer(layer: &Layer) -> Result<PathBuf> {
    let empty = layer.diff().ancestors().nth(3).unwrap_or(Path::new("/")).join("empty");
    match DirBuilder::new().mode(0o755).create(&empty) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error).cannot("make", empty.display()),
        _ => Ok(empty),
    }
}

/// What every overlay is mounted with: an upper folder is a whole layer by itself.
const SETTINGS: [(&CStr, &CStr); 3] = [(c"redirect_dir", c"nofollow"), (c"metacopy", c"off"), (c"index", c"off")];

/// None if the kernel takes no descriptor for a layer (before 6.13); it says so before anything is made.
fn by_descriptor(lowers: &[&Path], upper: Option<Upper<'_>>, volatile: bool) -> Result<Option<OwnedFd>> {
    let folder = |path: &Path| {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        hull_sys::fs::openat(CWD, &path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, 0)
    };
    let make = || -> hull_sys::Result<Option<OwnedFd>> {
        let context = match mount::fsopen(c"overlay") {
            // Then by the way that needs no descriptor of it.
            Err(error) if error.errno() == Errno::NOSYS => return Ok(None),
            other => other?,
        };
        mount::fsconfig_string(context.as_fd(), c"source", c"overlay")?;
        for (number, lower) in lowers.iter().enumerate() {
            match mount::fsconfig_fd(context.as_fd(), c"lowerdir+", folder(lower)?.as_fd()) {
                Err(error) if number == 0 && takes_no_descriptor(error.errno()) => return Ok(None),
                result => result?,
            }
        }
        for (key, path) in upper.iter().flat_map(|upper| [(c"upperdir", upper.upper), (c"workdir", upper.work)]) {
            mount::fsconfig_fd(context.as_fd(), key, folder(path)?.as_fd())?;
        }
        finish(&context, upper.is_some(), volatile).map(Some)
    };
    make().cannot("mount", "the layers")
}

/// Before 6.5 overlay is mounted by the old interface behind the new one, to which a descriptor is EOPNOTSUPP; then it
/// knows no such option (EINVAL), or wants a string (EBADF).
fn takes_no_descriptor(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::INVAL | Errno::BADF)
}

fn finish(fs: &OwnedFd, writable: bool, volatile: bool) -> hull_sys::Result<OwnedFd> {
    for (key, value) in SETTINGS {
        mount::fsconfig_string(fs.as_fd(), key, value)?;
    }
    if volatile && writable {
        mount::fsconfig_flag(fs.as_fd(), c"volatile")?;
    }
    mount::fsconfig_create(fs.as_fd())?;
    mount::fsmount(fs.as_fd(), attributes(writable))
}

fn attributes(writable: bool) -> MountAttrFlags {
    if writable { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY }
}

/// A folder on a file system of its own, which goes with this descriptor.
fn scratch_folder() -> Result<OwnedFd> {
    let options = [(c"mode".to_owned(), Some(c"0755".to_owned())), (c"size".to_owned(), Some(c"1m".to_owned()))];
    mount::new_filesystem(c"tmpfs", Some(c"hull"), &options, MountAttrFlags::empty())
        .cannot("make", "a folder for the layers' names")
}

/// The way for kernels that take no descriptor: links with short names in a folder that becomes the current one for as
/// long as the mount is made.
fn by_link(lowers: &[&Path], upper: Option<Upper<'_>>, volatile: bool) -> Result<OwnedFd> {
    let folder = scratch_folder()?;
    let dir = folder.as_fd();
    let make = |target: &Path, name: &CStr| {
        let target = CString::new(target.as_os_str().as_bytes()).unwrap_or_default();
        hull_sys::fs::symlinkat(&target, dir, name).cannot("name", "a layer for the kernel")
    };
    let names: Vec<CString> = if lowers.len() <= LINKS_MAX {
        (1..=255u8).filter(|byte| !b"/.:,\\".contains(byte)).map(one_byte).take(lowers.len()).collect()
    } else {
        (0..lowers.len()).map(|number| CString::new(format!("layer{number}")).unwrap_or_default()).collect()
    };
    for (layer, name) in lowers.iter().zip(&names) {
        make(&std::path::absolute(layer).cannot("find", layer.display())?, name)?;
    }
    if let Some(upper) = upper {
        make(&std::path::absolute(upper.upper).cannot("find", upper.upper.display())?, c"upper")?;
        make(&std::path::absolute(upper.work).cannot("find", upper.work.display())?, c"work")?;
    }
    let back = rustix::fs::openat(CWD, c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .cannot("open", "the current folder")?;
    rustix::process::fchdir(dir).cannot("enter", "the folder of the layers' names")?;
    let mounted = match names.len() {
        ..=LINKS_MAX => mount_links(&names, upper.is_some(), volatile).cannot("mount", "the layers"),
        _ => append_links(&names, upper.is_some(), volatile),
    };
    rustix::process::fchdir(&back).cannot("return to", "the current folder")?;
    mounted
}

/// More layers than one string names: each by a call of its own, as kernels from 6.8 on take them.
fn append_links(names: &[CString], upper: bool, volatile: bool) -> Result<OwnedFd> {
    let make = || -> hull_sys::Result<Option<OwnedFd>> {
        let context = match mount::fsopen(c"overlay") {
            Err(error) if error.errno() == Errno::NOSYS => return Ok(None),
            other => other?,
        };
        mount::fsconfig_string(context.as_fd(), c"source", c"overlay")?;
        for (number, name) in names.iter().enumerate() {
            match mount::fsconfig_string(context.as_fd(), c"lowerdir+", name) {
                // An option that it does not know.
                Err(error) if number == 0 && error.errno() == Errno::INVAL => return Ok(None),
                result => result?,
            }
        }
        for (key, name) in [(c"upperdir", c"upper"), (c"workdir", c"work")].into_iter().filter(|_| upper) {
            mount::fsconfig_string(context.as_fd(), key, name)?;
        }
        finish(&context, upper, volatile).map(Some)
    };
    make().cannot("mount", "the layers")?.ok_or_else(|| too_many(names.len(), LINKS_MAX))
}

fn mount_links(names: &[CString], upper: bool, volatile: bool) -> hull_sys::Result<OwnedFd> {
    let list = names.iter().map(|name| name.to_bytes()).collect::<Vec<_>>().join(&b':');
    let list = CString::new(list).unwrap_or_default();
    let option = |key: &CStr, value: &CStr| (key.to_owned(), Some(value.to_owned()));
    let mut options = vec![option(c"lowerdir", &list)];
    if upper {
        options.extend([option(c"upperdir", c"upper"), option(c"workdir", c"work")]);
    }
    options.extend(SETTINGS.map(|(key, value)| option(key, value)));
    options.extend((volatile && upper).then(|| (c"volatile".to_owned(), None)));
    mount::new_filesystem(c"overlay", Some(c"overlay"), &options, attributes(upper))
}

fn one_byte(name: u8) -> CString {
    CString::new([name]).unwrap_or_default()
}

/// A plain folder as a detached mount, with everything that is mounted below it: a root folder that somebody
/// prepared with mounts of its own looks inside as it does outside. runc binds it recursively for the same reason.
pub fn bind(dir: &Path) -> Result<OwnedFd> {
    let shown = || format!("the folder {}", dir.display());
    let path =
        CString::new(dir.as_os_str().as_bytes()).map_err(|_| Error::document(shown(), "its name has a NUL"))?;
    mount::clone_tree(&path, true).cannot("bind", shown())
}

#[cfg(test)]
#[path = "rootfs_tests.rs"]
mod tests;
