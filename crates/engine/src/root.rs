//! A container's root file system: a folder of the host, or an image's layers with a writable one above them.
//!
//! Either is a detached mount. What keeps it alive (locks on the layers, the writable layer's folder) goes when the
//! container has ended.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hull_image::{Image, Layer, Platform, Staging, Store, Upper};
use hull_sys::path::Root;
use hull_sys::{fs, mount};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::container::Lasting;
use crate::error::{Error, Result};
use crate::options::{RunOptions, Source};
use crate::{etc, image};

/// Where what is written to an image's root goes.
#[derive(Debug)]
pub(crate) enum Writes<'a> {
    /// Into a layer that goes with the container.
    Passing,
    /// Into the layer of a container that lasts.
    Lasting(&'a Lasting),
    /// Nowhere: somebody only looks.
    None,
}

/// What a root is made of; to be dropped after the container's end.
#[derive(Debug)]
pub(crate) struct Keep {
    layers: Vec<Layer>,
    _upper: Option<Staging>,
}

impl Keep {
    /// The ids of the layers, lowest first.
    pub(crate) fn layers(&self) -> Vec<String> {
        self.layers.iter().map(|layer| layer.id().to_owned()).collect()
    }
}

/// A root, and the options with what its image says.
#[derive(Debug)]
pub(crate) struct Assembled {
    /// The detached mount.
    pub mount: OwnedFd,
    /// The user's options over the image's.
    pub options: RunOptions,
    /// The image's id; none for a folder.
    pub image: Option<String>,
    /// What to know of how it was made.
    pub remark: Option<String>,
    /// What it stands on.
    pub keep: Keep,
}

/// Assembles the root that `options` name; `store` is asked only for an image.
pub(crate) fn assemble(store: &Path, options: &RunOptions, writes: &Writes<'_>) -> Result<Assembled> {
    match &options.source {
        Source::Folder(path) => {
            let mount = folder(path)?;
            let keep = Keep { layers: Vec::new(), _upper: None };
            Ok(Assembled { mount, options: image::plain(options)?, image: None, remark: None, keep })
        }
        Source::Image(name) => {
            let none = || hull_image::Error::NotFound { name: name.to_owned() };
            let store = match writes {
                Writes::None => Store::open_existing(store)?.ok_or_else(none)?,
                _ => Store::open(store)?,
            };
            of_image(&store, name, options, writes)
        }
    }
}

fn of_image(store: &Store, name: &str, options: &RunOptions, writes: &Writes<'_>) -> Result<Assembled> {
    let found = match &options.platform {
        Some(platform) => store.find_for(name, platform)?,
        None => store.find(name)?,
    };
    let missing = || match &options.platform {
        Some(platform) => format!("{name} for {platform}"),
        None => name.to_owned(),
    };
    let found = found.ok_or_else(|| hull_image::Error::NotFound { name: missing() })?;
    let foreign = foreign(&found, options.platform.is_some());
    let options = image::configure(options, &found.config)?;
    let layers = store.layers(&found)?;
    let (mount, upper, driver) = match writes {
        // What is written there ends with the container, so no sync is worth its time.
        Writes::Passing => {
            let staging = store.staging()?;
            let (mount, driver) = store.mount(&layers, staging.as_upper(), true)?;
            (mount, Some(staging), driver)
        }
        Writes::Lasting(lasting) => {
            let upper = Upper { upper: &lasting.upper(), work: &lasting.work() };
            let (mount, driver) = store.mount(&layers, upper, false)?;
            (mount, None, driver)
        }
        Writes::None => {
            let view = store.view(&layers)?;
            (view.mount, view.copy, view.driver)
        }
    };
    if !matches!(writes, Writes::None) {
        layers.last().iter().for_each(|layer| layer.touch());
        make_room(&mount)?;
    }
    let keep = Keep { layers, _upper: upper };
    let remarks: Vec<String> = driver.remark().into_iter().chain(foreign).collect();
    let remark = (!remarks.is_empty()).then(|| remarks.join("\nhull: "));
    Ok(Assembled { mount, options, image: Some(found.id.to_string()), remark, keep })
}

/// What to know of an image for another machine that nobody asked for by its platform.
fn foreign(image: &Image, asked: bool) -> Option<String> {
    let host = Platform::host();
    let fits = asked || host.runs(&image.platform);
    (!fits).then(|| format!("the image is for {}, and this machine is {host}", image.platform))
}

/// An image may have a directory where a file of the container's /etc is to appear, or no directory for it to be in. What
/// is in the way goes, from the container's own layer: the image keeps it.
fn make_room(mount: &OwnedFd) -> Result<()> {
    let doing = |path: &Path| format!("make room for {}", path.display());
    let root =
        mount.try_clone().map(Root::from_fd).map_err(|error| Error::host("open the root file system", error))?;
    for target in etc::TARGETS.map(Path::new) {
        let in_the_way = match root.resolve_nofollow(target) {
            Ok(found) => {
                let stat = fs::fstat(found.as_fd()).map_err(|error| Error::host(doing(target), error))?;
                (FileType::from_raw_mode(stat.st_mode) == FileType::Directory).then_some(target)
            }
            Err(error) if error.errno() == Errno::NOTDIR => target.parent(),
            // All else the mount's own way to its target tells, or gets past.
            Err(_) => None,
        };
        if let Some(path) = in_the_way {
            root.remove_all(path).map_err(|error| Error::host(doing(path), error))?;
        }
    }
    Ok(())
}

fn folder(path: &Path) -> Result<OwnedFd> {
    let doing = || format!("use {} as the root file system", path.display());
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| Error::host(doing(), error))?;
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::host(doing(), "no such directory"));
        }
        Ok(metadata) if !metadata.is_dir() => return Err(Error::host(doing(), "it is not a directory")),
        Err(error) => return Err(Error::host(doing(), error)),
        Ok(_) => {}
    }
    // Recursive, as runc's: what the user mounted below the folder is part of the file system that was asked for.
    mount::clone_tree(&name, true).map_err(|error| Error::host(doing(), error))
}
