//! Images as an archive or a folder that other tools load.
//!
//! docker-archive has plain layers, as `docker save` has always written them; the OCI forms have every blob as the store has it, so
//! that digests stay. Times, owners and order are fixed: the same images give the same bytes. Sources: Docker's image
//! specification 1.2, "Combined Image JSON + Filesystem Changeset Format"; image specification `image-layout.md`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::document::{self, REF_NAME};
use crate::error::{Cannot, Error, Result};
use crate::find::Image;
use crate::outgoing::PackOptions;
use crate::reference::{Digest, Reference};
use crate::store::Store;
use crate::stream::Packing;

/// The annotation that containerd and Docker take a full name from.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// An image and the names that are saved with it.
pub type Saved = (Image, Vec<Reference>);

/// Where files go, one after the other.
trait Sink {
    fn file(&mut self, name: &str, size: u64, data: &mut dyn Read) -> Result<()>;
}

/// A tar archive.
struct Tar<W: Write>(tar::Builder<W>);

impl<W: Write> Sink for Tar<W> {
    fn file(&mut self, name: &str, size: u64, data: &mut dyn Read) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        self.0.append_data(&mut header, name, data).cannot("write", format!("{name} of the archive"))
    }
}

impl<W: Write> Tar<W> {
    fn finish(self) -> Result<()> {
        let mut out = self.0.into_inner().cannot("write", "the archive")?;
        out.flush().cannot("write", "the archive")
    }
}

/// A folder.
struct Folder(PathBuf);

impl Sink for Folder {
    fn file(&mut self, name: &str, _: u64, data: &mut dyn Read) -> Result<()> {
        let path = self.0.join(name);
        let mut write = || -> std::io::Result<()> {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let mut file = File::create_new(&path)?;
            std::io::copy(data, &mut file)?;
            file.sync_data()
        };
        write().cannot("write", path.display())
    }
}

impl Store {
    /// Writes images as `docker save` does.
    ///
    /// # Errors
    /// A blob that is missing or is not what its digest says; nobody takes the bytes.
    pub fn save_docker(&self, images: &[Saved], out: impl Write) -> Result<()> {
        let plain = PackOptions { packing: Some(Packing::Plain), force: Some(true), level: None };
        let mut sink = Tar(tar::Builder::new(out));
        let mut written = BTreeSet::new();
        let mut manifest = Vec::new();
        for (image, names) in images {
            let outgoing = self.outgoing(image, &plain)?;
            let mut layers = Vec::new();
            for piece in outgoing.layers() {
                let name = format!("{}.tar", piece.diff_id().hex());
                if written.insert(name.clone()) {
                    let mut ready = piece.ready()?;
                    std::io::Seek::rewind(&mut ready.file).cannot("read", "a layer")?;
                    sink.file(&name, ready.blob.size, &mut ready.file)?;
                }
                layers.push(name);
            }
            let (config, data) = outgoing.config();
            let name = format!("{}.json", config.digest.hex());
            if written.insert(name.clone()) {
                sink.file(&name, config.size, &mut &data[..])?;
            }
            let tags: Vec<String> =
                names.iter().filter(|name| name.digest().is_none()).map(Reference::familiar).collect();
            manifest.push(json!({ "Config": name, "RepoTags": tags, "Layers": layers }));
        }
        let manifest = document::bytes(&manifest, "manifest.json")?;
        sink.file("manifest.json", manifest.len() as u64, &mut &manifest[..])?;
        sink.finish()
    }

    /// Writes images as a tar archive of an OCI image layout.
    ///
    /// # Errors
    /// As [`Store::save_docker`].
    pub fn save_oci(&self, images: &[Saved], out: impl Write) -> Result<()> {
        let mut sink = Tar(tar::Builder::new(out));
        self.layout(images, &mut sink)?;
        sink.finish()
    }

    /// Writes images as an OCI image layout into the folder `to`, which is made, or empty.
    ///
    /// # Errors
    /// As [`Store::save_docker`]; there is something in the folder.
    pub fn save_folder(&self, images: &[Saved], to: &Path) -> Result<()> {
        fs::create_dir_all(to).cannot("make", to.display())?;
        if fs::read_dir(to).cannot("read", to.display())?.next().is_some() {
            return Err(Error::document(format!("folder {}", to.display()), "it is not empty"));
        }
        self.layout(images, &mut Folder(to.to_owned()))
    }

    fn layout(&self, images: &[Saved], sink: &mut dyn Sink) -> Result<()> {
        let as_stored = PackOptions { packing: Some(Packing::Plain), force: Some(false), level: None };
        let mut written: BTreeSet<Digest> = BTreeSet::new();
        let mut entries = Vec::new();
        for (image, names) in images {
            let outgoing = self.outgoing(image, &as_stored)?;
            let layers: Vec<_> = outgoing.layers().iter().map(|piece| piece.stored().clone()).collect();
            for piece in outgoing.layers() {
                if written.insert(piece.stored().digest.clone()) {
                    let mut ready = piece.ready()?;
                    sink.file(&path(&ready.blob.digest), ready.blob.size, &mut ready.file)?;
                }
            }
            let manifest = outgoing.manifest(&layers)?;
            for (blob, data) in [outgoing.config(), &manifest] {
                if written.insert(blob.digest.clone()) {
                    sink.file(&path(&blob.digest), blob.size, &mut &data[..])?;
                }
            }
            let entry = json!({
                "mediaType": manifest.0.media_type, "digest": manifest.0.digest.as_str(), "size": manifest.0.size,
                "platform": image.platform,
            });
            if names.is_empty() {
                entries.push(entry.clone());
            }
            for name in names {
                let mut entry = entry.clone();
                entry["annotations"] = json!({ REF_NAME: name.to_string(), CONTAINERD_NAME: name.to_string() });
                entries.push(entry);
            }
        }
        let index: Value = json!({ "schemaVersion": 2, "mediaType": document::INDEX, "manifests": entries });
        let index = document::bytes(&index, "index.json")?;
        sink.file("index.json", index.len() as u64, &mut &index[..])?;
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        sink.file("oci-layout", layout.len() as u64, &mut &layout[..])
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}
