//! An image on its way out: its documents as they are, its layers as a registry wants them.
//!
//! Layers that are packed already go as they are, so that an image which came from a registry has the same digest at the next
//! one. Plain ones are packed on the way; what that gave is kept in `packed/`, so that it is known the next time
//! whether a registry has the layer before it is packed again. Where the bytes go is the caller's business.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document;
use crate::error::{Cannot, Error, Result};
use crate::find::Image;
use crate::layer::{Staging, write_new};
use crate::pack;
use crate::receive::Blob;
use crate::reference::Digest;
use crate::store::Store;
use crate::stream::{self, HashWriter, Packing, Wanted};
use crate::tree;

const PACKED: &CStr = c"packed";
const RECORD_MAX: usize = 4096;

/// How layers are to be packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackOptions {
    /// In what; plain ones in gzip and all others as they are, if not given.
    pub packing: Option<Packing>,
    /// Also those that are packed in something else; if not given, whenever `packing` is.
    pub force: Option<bool>,
    /// How hard it is tried; the usual, if not given.
    pub level: Option<u32>,
}

/// An image whose blobs are held open, so that a removal meanwhile does no harm.
#[derive(Debug)]
pub struct Outgoing<'a> {
    manifest: (Blob, Vec<u8>),
    config: (Blob, Vec<u8>),
    layers: Vec<Piece<'a>>,
}

/// One of its layers.
#[derive(Debug)]
pub struct Piece<'a> {
    store: &'a Store,
    stored: Blob,
    file: File,
    diff_id: Digest,
    /// What it is to be packed in, and how hard; none if it goes as it is.
    packing: Option<(Packing, u32)>,
}

/// A layer that is ready to go: the blob and where its bytes are.
#[derive(Debug)]
pub struct Ready {
    /// What it is.
    pub blob: Blob,
    /// Its bytes, from the beginning of the file.
    pub file: File,
}

impl Store {
    /// Opens all that goes out with an image.
    ///
    /// # Errors
    /// A blob that is missing or is not what its descriptor says; a level of compression that there is not.
    pub fn outgoing(&self, image: &Image, options: &PackOptions) -> Result<Outgoing<'_>> {
        let manifest = (image.manifest_blob.clone(), self.document(&image.manifest, image.manifest_blob.size)?);
        let config = (image.config_blob.clone(), self.document(&image.id, image.config_blob.size)?);
        let mut layers = Vec::with_capacity(image.layers.len());
        for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
            let stored = Blob::new(layer.clone())?;
            let (file, _) = self.blob(&stored.digest, Some(stored.size))?;
            let packing = wanted(Packing::of(&file)?, options);
            let packing = packing.map(|packing| Ok((packing, pack::level(packing, options.level)?))).transpose()?;
            layers.push(Piece { store: self, stored, file, diff_id: diff_id.clone(), packing });
        }
        Ok(Outgoing { manifest, config, layers })
    }
}

/// What a layer that is packed in `is` has to become.
fn wanted(is: Packing, options: &PackOptions) -> Option<Packing> {
    let force = options.force.unwrap_or(options.packing.is_some());
    let packing = options.packing.unwrap_or(Packing::Gzip);
    (packing != is && (is == Packing::Plain || force)).then_some(packing)
}

impl<'a> Outgoing<'a> {
    /// Its configuration and the bytes of it.
    pub fn config(&self) -> &(Blob, Vec<u8>) {
        &self.config
    }

    /// Its layers, lowest first.
    pub fn layers(&self) -> &[Piece<'a>] {
        &self.layers
    }

    /// The manifest for layers that became these: the image's own, byte for byte, if none has changed.
    ///
    /// # Errors
    /// The image's manifest is not what it was.
    pub fn manifest(&self, layers: &[Blob]) -> Result<(Blob, Vec<u8>)> {
        let (blob, data) = &self.manifest;
        if self.layers.iter().map(|piece| &piece.stored).eq(layers) {
            return Ok((blob.clone(), data.clone()));
        }
        let bad = |why: &str| Error::document(format!("manifest {}", blob.digest), why);
        let mut manifest: Value = serde_json::from_slice(data).map_err(|error| bad(&error.to_string()))?;
        let entries = manifest["layers"].as_array_mut().ok_or_else(|| bad("it has no layers"))?;
        for ((entry, piece), layer) in entries.iter_mut().zip(&self.layers).zip(layers) {
            // What is said beside it (a table of contents, a signature) is of the old bytes.
            if piece.stored != *layer {
                *entry = serde_json::to_value(layer.descriptor()).map_err(|error| bad(&error.to_string()))?;
            }
        }
        let data = document::bytes(&manifest, "manifest")?;
        let digest = Digest::of(&data);
        Ok((Blob { media_type: blob.media_type.clone(), digest, size: data.len() as u64 }, data))
    }
}

/// What packing a layer gave.
#[derive(Deserialize, Serialize)]
struct Record {
    version: u32,
    packing: String,
    level: u32,
    digest: String,
    size: u64,
}

impl Piece<'_> {
    /// The blob as the store has it.
    pub fn stored(&self) -> &Blob {
        &self.stored
    }

    /// The digest of the plain archive.
    pub fn diff_id(&self) -> &Digest {
        &self.diff_id
    }

    /// What it will be, if that is known without packing it.
    pub fn known(&self) -> Option<Blob> {
        let Some((packing, level)) = self.packing else { return Some(self.stored.clone()) };
        let folder = tree::open_folder(self.store.dir(), PACKED).ok()?;
        let name = CString::new(self.stored.digest.hex()).ok()?;
        // One that is not there, cut short or of another kind says nothing.
        let data = hull_sys::fs::read_file(folder.as_fd(), &name, RECORD_MAX).ok()?;
        let record: Record = serde_json::from_slice(&data).ok()?;
        let same = record.version == pack::VERSION && record.packing == packing.name() && record.level == level;
        let digest = record.digest.parse().ok().filter(|_| same)?;
        Some(Blob { media_type: self.media_type(packing), digest, size: record.size })
    }

    /// Packs it, if it has to be. What is made takes room in the store until the file is closed. To be called once: the
    /// file's position is the piece's own.
    ///
    /// # Errors
    /// A blob that is not what its digest says; a full disk.
    pub fn ready(&self) -> Result<Ready> {
        self.ready_while(&mut |_, _| Ok(()))
    }

    /// The same; `grown` hears of the file that is made and how many bytes it has by now, and may end it by an error.
    ///
    /// # Errors
    /// As [`Piece::ready`]; what `grown` gave.
    pub fn ready_while(&self, grown: &mut dyn FnMut(&File, u64) -> std::io::Result<()>) -> Result<Ready> {
        let mut source = self.file.try_clone().cannot("open", self.shown())?;
        source.rewind().cannot("read", self.shown())?;
        let Some((packing, level)) = self.packing else {
            return Ok(Ready { blob: self.stored.clone(), file: source });
        };
        let staging = self.store.staging()?;
        let file = scratch(&staging)?;
        let wanted = Wanted { blob: Some(&self.stored.digest), diff_id: Some(&self.diff_id), ..Wanted::default() };
        let mut layer = stream::Layer::new(source, wanted)?;
        let told = Told { file: &file, length: 0, grown };
        let mut out = BufWriter::with_capacity(1 << 20, HashWriter::new(told));
        pack::pack(layer.reader(), packing, level, &mut out)?;
        let passed = layer.finish()?;
        for (what, is, should) in
            [("digest", &passed.blob, &self.stored.digest), ("diff id", &passed.diff_id, &self.diff_id)]
        {
            if is != should {
                let why = format!("its {what} is {is}, not {should}");
                return Err(Error::Mismatch { digest: self.stored.digest.to_string(), why });
            }
        }
        let out = out.into_inner().map_err(std::io::IntoInnerError::into_error).cannot("write", self.shown())?;
        let (digest, size) = out.finish();
        let blob = Blob { media_type: self.media_type(packing), digest, size };
        self.remember(&staging, packing, level, &blob)?;
        Ok(Ready { blob, file })
    }

    fn shown(&self) -> String {
        format!("the layer {}", self.stored.digest)
    }

    /// Of the family that its own is of.
    fn media_type(&self, packing: Packing) -> String {
        match self.stored.media_type.starts_with("application/vnd.docker.") {
            true => packing.docker_media_type(),
            false => packing.media_type(),
        }
        .to_owned()
    }

    fn remember(&self, staging: &Staging, packing: Packing, level: u32, blob: &Blob) -> Result<()> {
        match rustix::fs::mkdirat(self.store.dir(), PACKED, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).cannot("make", "the folder of packed layers"),
        }
        let folder = self.store.folder(PACKED)?;
        let record = Record {
            version: pack::VERSION,
            packing: packing.name().to_owned(),
            level,
            digest: blob.digest.to_string(),
            size: blob.size,
        };
        let data = document::bytes(&record, "record of a packed layer")?;
        write_new(staging.folder()?, c"record", &data)?;
        rustix::fs::renameat(staging.folder()?, c"record", &folder, self.stored.digest.hex())
            .cannot("write", "the record of a packed layer")
    }
}

/// Writes to a file, and tells how long it has become.
struct Told<'a> {
    file: &'a File,
    length: u64,
    grown: &'a mut dyn FnMut(&File, u64) -> std::io::Result<()>,
}

impl Write for Told<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let length = self.file.write(data)?;
        self.length += length as u64;
        (self.grown)(self.file, self.length)?;
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// A file of the store's that nothing leads to but the descriptor.
pub(crate) fn scratch(staging: &Staging) -> Result<File> {
    let name = c"packed";
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(staging.folder()?, name, flags, Mode::from_raw_mode(0o600));
    let file = file.cannot("make", "a file for a packed layer")?;
    rustix::fs::unlinkat(staging.folder()?, name, AtFlags::empty()).cannot("make", "a file for a packed layer")?;
    Ok(File::from(file))
}

/// Removes what is known of a blob that is no more.
pub(crate) fn forget(store: &Store, digest: &Digest) -> Result<()> {
    let Ok(folder) = tree::open_folder(store.dir(), PACKED) else { return Ok(()) };
    match rustix::fs::unlinkat(&folder, digest.hex(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).cannot("remove", "the record of a packed layer"),
    }
}
