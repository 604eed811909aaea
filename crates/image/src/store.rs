//! The store: an OCI image layout on disk with unpacked layers beside the blobs. This module reads its files.
//!
//! ```text
//! oci-layout  index.json  blobs/sha256/<hex>      the image layout, as any OCI tool reads and writes it
//! layers/<id>/{diff,layer.json}                   unpacked layers; layers/<chain id> may be a link to one
//! staging/<id>/                                   what is being made, locked by its maker
//! lock                                            held by a writer while it changes what is visible
//! ```
//!
//! Readers take no lock: `index.json` is replaced by a rename, blobs never change. Images are found in `find`, written in
//! `commit` and removed in `collect`. Source: image specification `image-layout.md`.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::archive::Archive;
use crate::document::{self, DOCUMENT_MAX, Descriptor, INDEX_MAX};
use crate::error::{Cannot, Error, Result};
use crate::find::Image;
use crate::layer::{self, Layer, Meta, Staging, boot_id};
use crate::reference::Digest;
use crate::stream::{self, Wanted};
use crate::{apply, tree};

/// A store of images in one folder.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    dir: OwnedFd,
}

impl Store {
    /// Opens the store in the folder `root`; makes one where there is none. Only its owner may enter it.
    ///
    /// # Errors
    /// A folder that cannot be made or opened, or that everybody uses.
    pub fn open(root: &Path) -> Result<Store> {
        let shown = || format!("the image store {}", root.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(root, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                let mut builder = std::fs::DirBuilder::new();
                builder.recursive(true).mode(0o700).create(root).cannot("make", shown())?;
                rustix::fs::open(root, flags, Mode::empty())
            }
            result => result,
        }
        .cannot("open", shown())?;
        let store = Store { root: root.to_owned(), dir };
        let stat = rustix::fs::fstat(&store.dir).cannot("read", shown())?;
        if tree::permissions(&stat) & 0o077 != 0 {
            // To close /tmp, or all of the machine, to everybody else cannot be what was meant.
            let whole = rustix::fs::stat("/").cannot("read", "/")?;
            if tree::permissions(&stat) & 0o1000 != 0 || (stat.st_dev, stat.st_ino) == (whole.st_dev, whole.st_ino) {
                let why =
                    std::io::Error::other("everybody uses it, and a store is its owner's alone: name a folder in it");
                return Err(why).cannot("use", format!("{} as the image store", root.display()));
            }
            // Layers have set-id programs; nobody else may reach them.
            rustix::fs::fchmod(&store.dir, Mode::from_raw_mode(0o700)).cannot("close to others", shown())?;
        }
        // Made last, so that its presence says that all of the layout is there.
        if tree::lstat(store.dir.as_fd(), c"staging").is_err() {
            store.initialize()?;
        }
        Ok(store)
    }

    /// Opens the store in the folder `root` for somebody who only looks; none if there is none.
    ///
    /// # Errors
    /// A folder that cannot be opened.
    pub fn open_existing(root: &Path) -> Result<Option<Store>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(root, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.cannot("open", format!("the image store {}", root.display()))?,
        };
        let is_whole = tree::lstat(dir.as_fd(), c"staging").is_ok();
        Ok(is_whole.then(|| Store { root: root.to_owned(), dir }))
    }

    fn initialize(&self) -> Result<()> {
        let _lock = self.lock()?;
        for name in [c"blobs", c"blobs/sha256", c"layers"] {
            match rustix::fs::mkdirat(&self.dir, name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error).cannot("make", self.root.display()),
            }
        }
        for (name, data) in [
            (c"oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice()),
            (c"index.json", br#"{"schemaVersion":2,"manifests":[]}"#.as_slice()),
        ] {
            if tree::lstat(self.dir.as_fd(), name).is_err() {
                // Whole or not there: a maker that is killed here must leave nothing that the next one takes for a list.
                let shown = || format!("{} of the store {}", name.to_string_lossy(), self.root.display());
                let file = layer::write_new(self.dir.as_fd(), c"new", data)?;
                file.sync_data().cannot("sync", shown())?;
                rustix::fs::renameat(&self.dir, c"new", &self.dir, name).cannot("make", shown())?;
            }
        }
        match rustix::fs::mkdirat(&self.dir, c"staging", Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).cannot("make", self.root.display()),
        }
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(crate) fn folder(&self, name: &CStr) -> Result<OwnedFd> {
        tree::open_folder(self.dir(), name)
            .cannot("open", format!("{} in the store {}", name.to_string_lossy(), self.root.display()))
    }

    /// The writers' lock; it goes with the descriptor, however the process ends.
    pub(crate) fn lock(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let shown = || format!("the image store {}", self.root.display());
        let file =
            rustix::fs::openat(self.dir(), c"lock", flags, Mode::from_raw_mode(0o600)).cannot("lock", shown())?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
            .cannot("lock", shown())?;
        Ok(file)
    }

    /// The bytes of `index.json`.
    pub(crate) fn index(&self) -> Result<Vec<u8>> {
        let shown = || format!("index.json in the store {}", self.root.display());
        match hull_sys::fs::read_file(self.dir(), c"index.json", INDEX_MAX as usize) {
            Ok(data) => Ok(data),
            Err(error) => Err(std::io::Error::from(error)).cannot("read", shown()),
        }
    }

    /// A document, whole and verified: size first, then digest.
    pub(crate) fn document(&self, digest: &Digest, size: u64) -> Result<Vec<u8>> {
        if size > DOCUMENT_MAX {
            let why = format!("its descriptor says {size} bytes, more than 4 MiB");
            return Err(Error::Mismatch { digest: digest.to_string(), why });
        }
        let (file, _) = self.blob(digest, Some(size))?;
        let data = hull_sys::fs::read_all(file.as_fd(), DOCUMENT_MAX as usize)
            .map_err(std::io::Error::from)
            .cannot("read", format!("the blob {digest}"))?;
        if stream::digest_as(digest, &data)? != *digest {
            return Err(Error::Mismatch {
                digest: digest.to_string(),
                why: "its content has another digest".to_owned(),
            });
        }
        Ok(data)
    }

    /// A blob's file with its size, which must be what the descriptor says.
    pub(crate) fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<(File, u64)> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(self.dir(), blob_path(digest), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Err(Error::MissingBlob { digest: digest.clone() }),
            Err(error) => return Err(error).cannot("open", format!("the blob {digest}")),
        };
        let metadata = file.metadata().cannot("read", format!("the blob {digest}"))?;
        let mismatch = |why: String| Err(Error::Mismatch { digest: digest.to_string(), why });
        if !metadata.is_file() {
            return mismatch("it is not a regular file".to_owned());
        }
        match size {
            Some(size) if size != metadata.size() => {
                mismatch(format!("it has {} bytes, its descriptor says {size}", metadata.size()))
            }
            _ => Ok((file, metadata.size())),
        }
    }

    /// The folder for blobs of a digest's algorithm; a new store has that of sha256.
    pub(crate) fn make_blob_folder(&self, digest: &Digest) -> Result<()> {
        if digest.algorithm() == "sha256" {
            return Ok(());
        }
        let path = format!("blobs/{}", digest.algorithm());
        match rustix::fs::mkdirat(self.dir(), path, Mode::from_raw_mode(0o700)) {
            Ok(()) => rustix::fs::fsync(self.folder(c"blobs")?).cannot("sync", "the folders of blobs"),
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).cannot("make", "a folder of blobs"),
        }
    }

    /// The unpacked layers of an image, lowest first. What is not unpacked yet (an image that another tool copied here)
    /// is unpacked now; otherwise nothing but the layers' own folders is touched.
    ///
    /// # Errors
    /// A blob that is missing, is not what its digest says, or has an entry that hull refuses.
    pub fn layers(&self, image: &Image) -> Result<Vec<Layer>> {
        let folder = self.folder(c"layers")?;
        let chain = document::chain_ids(&image.diff_ids);
        let mut layers: Vec<Layer> = Vec::with_capacity(chain.len());
        for (n, id) in chain.iter().enumerate() {
            let layer = match self.by_chain(folder.as_fd(), id)? {
                Some(layer) => layer,
                None => self.unpack(folder.as_fd(), &image.layers[n], &image.diff_ids[n], id, &layers)?,
            };
            layers.push(layer);
        }
        Ok(layers)
    }

    /// The layer with an id that [`Layer::id`] gave; none if it was removed, or did not survive a crash of the machine.
    pub fn layer(&self, id: &str) -> Result<Option<Layer>> {
        if id.is_empty() || id.contains(['/', '\0']) || id.starts_with('.') {
            return Ok(None);
        }
        let folder = self.folder(c"layers")?;
        match Layer::open(&self.root, folder.as_fd(), id)? {
            Some(layer) if layer.is_trusted()? => Ok(Some(layer)),
            _ => Ok(None),
        }
    }

    /// The layer of a chain id: a folder of that name, or where a link of that name leads.
    pub(crate) fn by_chain(&self, layers: BorrowedFd<'_>, chain: &Digest) -> Result<Option<Layer>> {
        let layer = match rustix::fs::readlinkat(layers, chain.hex(), Vec::new()) {
            Ok(target) => match target.to_str() {
                Ok(id) if !id.contains('/') && !id.starts_with('.') => Layer::open(&self.root, layers, id)?,
                _ => None,
            },
            Err(Errno::INVAL) => Layer::open(&self.root, layers, chain.hex())?,
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error).cannot("find", format!("the layer {chain}")),
        };
        match layer {
            // An unpacked tree is not synced to disk, since that costs more than unpacking it. After a reboot it is made
            // again from its blob, whose digest is verified.
            Some(layer) if layer.is_trusted()? => Ok(Some(layer)),
            _ => Ok(None),
        }
    }

    fn unpack(
        &self,
        layers: BorrowedFd<'_>,
        blob: &Descriptor,
        diff_id: &Digest,
        chain: &Digest,
        below: &[Layer],
    ) -> Result<Layer> {
        let staging = self.staging()?;
        self.unpack_into(&staging, blob, diff_id, below)?;
        let meta = Meta {
            diff_id: Some(diff_id.to_string()),
            blob: Some(blob.clone()),
            boot: Some(boot_id()?),
            parent: below.last().map(|layer| layer.id().to_owned()),
        };
        meta.write(staging.folder()?)?;
        let _lock = self.lock()?;
        self.publish_layer(layers, staging, chain)
    }

    /// Unpacks a stored layer; its blob is verified on the way.
    pub(crate) fn unpack_into(
        &self,
        staging: &Staging,
        blob: &Descriptor,
        diff_id: &Digest,
        below: &[Layer],
    ) -> Result<()> {
        let digest = blob.digest()?;
        let (file, size) = self.blob(&digest, Some(blob.size))?;
        let trees = below.iter().rev().map(Layer::tree).collect::<Result<Vec<_>>>()?;
        let wanted = Wanted { blob: Some(&digest), diff_id: Some(diff_id), size: Some(size), ..Wanted::default() };
        let mut source = stream::Layer::new(file, wanted)?;
        let mut archive = Archive::new(source.reader());
        apply::apply(&mut archive, &staging.tree()?, &trees)?;
        archive.finish()?;
        let passed = source.finish()?;
        for (what, is, should) in [("digest", &passed.blob, &digest), ("diff id", &passed.diff_id, diff_id)] {
            if is != should {
                let why = format!("its {what} is {is}, not {should}");
                return Err(Error::Mismatch { digest: digest.to_string(), why });
            }
        }
        Ok(())
    }

    /// Makes a whole layer visible under its chain id, or gives the one that somebody else made meanwhile. Needs the lock.
    pub(crate) fn publish_layer(&self, layers: BorrowedFd<'_>, staging: Staging, chain: &Digest) -> Result<Layer> {
        if let Some(layer) = self.by_chain(layers, chain)? {
            return Ok(layer);
        }
        let name = CString::new(chain.hex()).unwrap_or_default();
        // A link whose layer is gone, or a tree of an earlier boot.
        self.remove_layer(layers, &name)?;
        match staging.become_layer(layers, chain.hex())? {
            Some(folder) => Ok(Layer::held(&self.root, chain.hex(), folder)),
            None => Err(Error::document(format!("layer {chain}"), "it is being removed by another process")),
        }
    }

    /// A new upper and work folder. What dead processes left of theirs is removed on the way.
    pub fn staging(&self) -> Result<Staging> {
        let folder = self.folder(c"staging")?;
        layer::sweep(folder.as_fd(), false)?;
        Staging::new(&self.root, folder)
    }

    /// Makes a step's upper folder a layer, by a rename: no archive, no hash. The overlay that wrote it must be gone.
    ///
    /// The layer is not synced to disk: after a reboot [`Store::layer`] does not give it any more, and an image that was
    /// committed with it unpacks its blob.
    pub fn adopt(&self, parent: Option<&Layer>, mut staging: Staging) -> Result<Layer> {
        staging.reduce()?;
        let parent = parent.map(|layer| layer.id().to_owned());
        let meta = Meta { boot: Some(boot_id()?), parent, ..Meta::default() };
        meta.write(staging.folder()?)?;
        let id = staging.id().to_owned();
        let layers = self.folder(c"layers")?;
        let folder = staging.become_layer(layers.as_fd(), &id)?;
        let folder = folder.ok_or_else(|| Error::document(format!("layer {id}"), "there is one already"))?;
        Ok(Layer::held(&self.root, &id, folder))
    }
}

pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
