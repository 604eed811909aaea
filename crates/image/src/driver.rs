//! How layers become a root file system on this machine: by overlay, or, where that cannot be mounted, by a copy (`vfs`).
//!
//! Overlay is simply tried. If it fails, an overlay of empty folders in the same store tells whether it is overlay that
//! fails here or these layers. Only a store that lies on an overlay is told before: its layers have other marks of deleted
//! names, since the kernel keeps overlay's own to itself there.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use crate::error::{Cannot, Error, Result};
use crate::layer::{Layer, Staging};
use crate::rootfs::{self, Upper};
use crate::store::Store;
use crate::vfs;

/// `OVERLAYFS_SUPER_MAGIC` of `statfs(2)`.
const OVERLAY: u64 = 0x794c_7630;

/// The mode of [`Driver::Vfs`].
const COPIES: &str = "a copy of the image for each container and build step";

/// How a root came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The kernel lays the layers over each other.
    Overlay,
    /// They are copied into one folder.
    Vfs {
        /// Why there is no overlay.
        why: String,
    },
}

impl Driver {
    /// `overlay` or `vfs`.
    pub fn name(&self) -> &'static str {
        match self {
            Driver::Overlay => "overlay",
            Driver::Vfs { .. } => "vfs",
        }
    }

    /// What somebody should know who waits for the copy and pays for its room.
    pub fn remark(&self) -> Option<String> {
        match self {
            Driver::Overlay => None,
            Driver::Vfs { why } => Some(format!("no overlay can be mounted here, so layers are copied (vfs): {why}")),
        }
    }
}

/// A root that is only to be read. The folder, where there is one, must outlive the mount's use.
#[derive(Debug)]
pub struct View {
    /// The detached mount.
    pub mount: OwnedFd,
    /// What it is made of, if it is a copy.
    pub copy: Option<Staging>,
    /// How it came to be.
    pub driver: Driver,
}

impl Store {
    /// What [`Store::mount`] does here, and in which manner.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn driver(&self) -> Result<(Driver, &'static str)> {
        match self.on_overlay()? {
            Some(vfs) => Ok((vfs, COPIES)),
            None => self.probe(),
        }
    }

    /// Mounts `layers` (lowest first) with the empty folder `upper` above them, detached. `volatile` leaves out every sync.
    ///
    /// # Errors
    /// The kernel's, with the failing call; more layers than it takes.
    pub fn mount(&self, layers: &[Layer], upper: Upper<'_>, volatile: bool) -> Result<(OwnedFd, Driver)> {
        let vfs = match self.on_overlay()? {
            Some(vfs) => vfs,
            None => match rootfs::overlay(layers, Some(upper), volatile) {
                Err(error @ Error::Mount { .. }) => self.instead(error)?,
                result => return Ok((result?, Driver::Overlay)),
            },
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(upper.upper, flags, Mode::empty()).cannot("open", upper.upper.display())?;
        vfs::copy(layers, &folder)?;
        Ok((rootfs::bind(upper.upper)?, vfs))
    }

    /// The same in a new folder, for what becomes a layer by [`Store::adopt`].
    ///
    /// # Errors
    /// As [`Store::mount`].
    pub fn stage(&self, layers: &[Layer]) -> Result<(Staging, OwnedFd, Driver)> {
        let mut staging = self.staging()?;
        // What is written here counts only once it is adopted: no need to sync it before.
        let (root, driver) = self.mount(layers, staging.as_upper(), true)?;
        if driver != Driver::Overlay && !layers.is_empty() {
            staging.set_before(vfs::Before::of(&staging.tree()?)?);
        }
        Ok((staging, root, driver))
    }

    /// Mounts `layers` (lowest first), detached; as an overlay it is read-only.
    ///
    /// # Errors
    /// As [`Store::mount`].
    pub fn view(&self, layers: &[Layer]) -> Result<View> {
        if self.on_overlay()?.is_none() {
            match rootfs::overlay(layers, None, false) {
                Err(error @ Error::Mount { .. }) => drop(self.instead(error)?),
                result => return Ok(View { mount: result?, copy: None, driver: Driver::Overlay }),
            }
        }
        let staging = self.staging()?;
        let (mount, driver) = self.mount(layers, staging.as_upper(), true)?;
        Ok(View { mount, copy: Some(staging), driver })
    }

    fn on_overlay(&self) -> Result<Option<Driver>> {
        let shown = || format!("the store {}", self.root().display());
        let kind = rustix::fs::fstatfs(self.dir()).cannot("look at", shown())?.f_type as u64;
        let why = || format!("{} lies on an overlay itself; a volume, or --root elsewhere, is faster", shown());
        Ok((kind == OVERLAY).then(|| Driver::Vfs { why: why() }))
    }

    /// After a mount that failed with `error`: how to do without overlay, or the error, if it is not overlay's absence.
    fn instead(&self, error: Error) -> Result<Driver> {
        match self.probe()?.0 {
            Driver::Overlay => Err(error),
            vfs => Ok(vfs),
        }
    }

    /// An overlay of empty folders in this store.
    fn probe(&self) -> Result<(Driver, &'static str)> {
        let (lower, upper) = (self.staging()?, self.staging()?);
        match rootfs::probe(lower.upper(), upper.as_upper()) {
            Ok(mode) => Ok((Driver::Overlay, mode)),
            Err(Error::Mount { source, .. }) => Ok((Driver::Vfs { why: source.to_string() }, COPIES)),
            Err(error) => Err(error),
        }
    }
}
