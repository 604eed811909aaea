//! Images out of an archive or a folder: what `docker save`, `podman save`, skopeo and hull itself write.
//!
//! An archive is first gone through once, so that it is known where each of its files begins; one that is packed or comes from
//! a pipe is kept in the store meanwhile. Then each image is taken in like one from a registry (`receive`): every
//! document bounded, every byte verified, all of it visible at once. Names in an archive are only looked up
//! among its own files, never on the host. Sources: as `save`.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize;
use serde_json::json;

use crate::archive::{Archive, Kind};
use crate::document::{self, CONFIG, DOCUMENT_MAX, Index, MANIFEST, Target};
use crate::error::{Cannot, Error, Result};
use crate::find::{Image, parse_index};
use crate::layer::Staging;
use crate::outgoing::scratch;
use crate::receive::{Blob, Manifest, is_layer, read_manifest};
use crate::reference::{Digest, Reference};
use crate::save::CONTAINERD_NAME;
use crate::store::Store;
use crate::stream::{self, Packing, Wanted};

/// The most files of an archive, and links that lead to one.
const FILES_MAX: usize = 100_000;
const LINKS_MAX: usize = 8;
/// Indexes inside indexes that are followed.
const NESTED_MAX: usize = 3;

/// What a load brought: an image with the name that it has now, if it has one.
pub type Loaded = (Image, Option<Reference>);

/// A part of a file.
#[derive(Clone, Copy)]
struct Place {
    from: u64,
    size: u64,
}

/// Where the files of an image's archive are.
enum Files {
    Archive { file: File, known: BTreeMap<Vec<u8>, Member> },
    Folder(PathBuf),
}

enum Member {
    File(Place),
    Link(Vec<u8>),
}

/// Bytes of a file from a place on.
struct Part {
    file: File,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read_at(&mut buffer[..most], self.at)?;
        if length == 0 && most > 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.at += length as u64;
        Ok(length)
    }
}

fn no_image(why: impl std::fmt::Display) -> Error {
    Error::archive(format!("it holds no image: {why}"))
}

impl Files {
    fn open(&self, name: &str) -> Result<Option<Part>> {
        match self {
            Files::Folder(folder) => {
                let path = folder.join(name);
                match File::open(&path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error).cannot("open", path.display()),
                    Ok(file) => {
                        let end = file.metadata().cannot("read", path.display())?.len();
                        Ok(Some(Part { file, at: 0, end }))
                    }
                }
            }
            Files::Archive { file, known } => {
                let mut name = clean(name.as_bytes());
                for _ in 0..=LINKS_MAX {
                    match known.get(&name) {
                        None => return Ok(None),
                        Some(Member::Link(target)) => name.clone_from(target),
                        Some(Member::File(place)) => {
                            let file = file.try_clone().cannot("open", "the archive")?;
                            return Ok(Some(Part { file, at: place.from, end: place.from + place.size }));
                        }
                    }
                }
                Err(no_image(format!("too many links lead to {}", String::from_utf8_lossy(&name))))
            }
        }
    }

    fn need(&self, name: &str) -> Result<Part> {
        self.open(name)?.ok_or_else(|| no_image(format!("{name:?} is missing")))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>> {
        let mut part = self.need(name)?;
        if part.end - part.at > DOCUMENT_MAX {
            return Err(Error::document(name, "it has more than 4 MiB"));
        }
        let mut data = Vec::new();
        part.read_to_end(&mut data).cannot("read", name)?;
        Ok(data)
    }

    fn blob(&self, digest: &Digest) -> Result<Part> {
        self.need(&blob_path(digest))
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// A name in an archive, without what does not tell it from others; `..` goes up and ends at the top.
fn clean(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// Counts what is read through it.
struct Counted<R> {
    inner: R,
    at: Rc<Cell<u64>>,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.at.set(self.at.get() + length as u64);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.at.set(self.at.get() + amount as u64);
        self.inner.consume(amount);
    }
}

impl Store {
    /// Takes in all images of the archive that `input` is, plain, gzip or zstd.
    ///
    /// # Errors
    /// It is no such archive, or an image of it is not what its digests say. Images before that one are in the store then.
    pub fn load(&self, input: File) -> Result<Vec<Loaded>> {
        let staging = self.staging()?;
        let file = plain(input, &staging)?;
        let at = Rc::new(Cell::new(0));
        let reader = BufReader::with_capacity(1 << 20, file.try_clone().cannot("open", "the archive")?);
        let mut archive = Archive::new(Counted { inner: reader, at: at.clone() });
        let mut known = BTreeMap::new();
        while let Some(entry) = archive.next()? {
            let name = clean(&entry.path);
            let member = match entry.kind {
                Kind::File if entry.regions.is_some() => {
                    return Err(Error::archive("a file in it has holes, which no image's archive has"));
                }
                Kind::File => Member::File(Place { from: at.get(), size: entry.size }),
                Kind::Link => Member::Link(clean(&entry.link)),
                Kind::Symlink => {
                    let folder = name.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |slash| &name[..slash]);
                    Member::Link(clean(&[folder, b"/", &entry.link].concat()))
                }
                _ => continue,
            };
            known.insert(name, member);
            if known.len() > FILES_MAX {
                return Err(Error::archive(format!("it has more than {FILES_MAX} files")));
            }
        }
        self.load_files(&Files::Archive { file, known })
    }

    /// Takes in all images of the OCI image layout in a folder.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_folder(&self, folder: &Path) -> Result<Vec<Loaded>> {
        self.load_files(&Files::Folder(folder.to_owned()))
    }

    fn load_files(&self, files: &Files) -> Result<Vec<Loaded>> {
        // Docker's own archives are both; the layout has the image's manifest as it was.
        if files.open("oci-layout")?.is_some() && files.open("index.json")?.is_some() {
            return self.load_layout(files);
        }
        if files.open("manifest.json")?.is_some() {
            return self.load_docker(files);
        }
        Err(no_image("it has neither manifest.json nor oci-layout"))
    }

    fn load_layout(&self, files: &Files) -> Result<Vec<Loaded>> {
        let data = files.document("index.json")?;
        let index = parse_index(&data)?;
        let mut loaded = Vec::new();
        for (entry, name) in index.manifests.iter().zip(names(&data)?) {
            let digest: Digest = entry.digest.parse()?;
            let media_type = entry.media_type.as_deref().unwrap_or(MANIFEST).to_owned();
            let top = Blob { media_type, digest, size: entry.size };
            self.load_manifest(files, &top, name.as_ref(), None, 0, &mut loaded)?;
        }
        Ok(loaded)
    }

    /// `index` is the digest of the index that led here, which keeps its platforms together.
    fn load_manifest(
        &self,
        files: &Files,
        blob: &Blob,
        name: Option<&Reference>,
        index: Option<&Digest>,
        depth: usize,
        loaded: &mut Vec<Loaded>,
    ) -> Result<()> {
        let data = files.document(&blob_path(&blob.digest))?;
        crate::receive::verify(blob, &data)?;
        match document::parse(&data, &blob.digest, Some(&blob.media_type))? {
            Target::Index(_) if depth == NESTED_MAX => {
                Err(Error::document(format!("index {}", blob.digest), "it is too deep in others"))
            }
            Target::Index(entries) => {
                for entry in entries {
                    let next = Blob::new(entry.descriptor)?;
                    // Not all platforms need be there.
                    if files.open(&blob_path(&next.digest))?.is_some() {
                        self.load_manifest(
                            files,
                            &next,
                            name,
                            Some(index.unwrap_or(&blob.digest)),
                            depth + 1,
                            loaded,
                        )?;
                    }
                }
                Ok(())
            }
            // Signatures and the like.
            Target::Manifest(manifest, _)
                if depth > 0 && !manifest.layers.iter().all(|layer| is_layer(&layer.media_type)) =>
            {
                Ok(())
            }
            Target::Manifest(_, media_type) => {
                let Manifest::Image { config, layers } = read_manifest(&data, &media_type, &crate::Platform::host())?
                else {
                    return Err(Error::document(format!("manifest {}", blob.digest), "it is an index"));
                };
                let config_data = files.document(&blob_path(&config.digest))?;
                let manifest = Blob { media_type, ..blob.clone() };
                let open = |layer: &Blob| files.blob(&layer.digest);
                let image = self.take_in((manifest, data), (config, config_data), layers, name, index, &open)?;
                loaded.push((image, name.cloned()));
                Ok(())
            }
        }
    }

    fn take_in(
        &self,
        manifest: (Blob, Vec<u8>),
        config: (Blob, Vec<u8>),
        layers: Vec<Blob>,
        name: Option<&Reference>,
        index: Option<&Digest>,
        open: &dyn Fn(&Blob) -> Result<Part>,
    ) -> Result<Image> {
        let incoming = self.incoming(manifest, config, layers)?;
        let mut parts = incoming.parts(&mut |_| {})?;
        for part in &mut parts {
            let mut rest = open(part.blob())?;
            rest.at = rest.end.min(rest.at + part.have());
            part.receive(rest)?;
        }
        incoming.publish(parts, name, index)
    }

    fn load_docker(&self, files: &Files) -> Result<Vec<Loaded>> {
        let bad = |why: String| Error::document("manifest.json of the archive", why);
        let data = files.document("manifest.json")?;
        let images: Vec<DockerImage> = serde_json::from_slice(&data).map_err(|error| bad(error.to_string()))?;
        let mut loaded = Vec::new();
        for image in images {
            let config = files.document(&image.config)?;
            let digest = Digest::of(&config);
            let (_, diff_ids) = document::configuration(&config, &digest, image.layers.len())?;
            let mut layers: Vec<Blob> = Vec::new();
            // The same layer may lie in the archive under several names, or in an image twice.
            let mut places: BTreeMap<Digest, &String> = BTreeMap::new();
            for (file, diff_id) in image.layers.iter().zip(&diff_ids) {
                let layer = describe(files.need(file)?, diff_id)?;
                places.insert(layer.digest.clone(), file);
                layers.push(layer);
            }
            let config_blob = Blob { media_type: CONFIG.to_owned(), digest, size: config.len() as u64 };
            let descriptors: Vec<_> = layers.iter().map(Blob::descriptor).collect();
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "config": config_blob.descriptor(), "layers": descriptors,
            });
            let manifest = document::bytes(&manifest, "manifest")?;
            let manifest_blob =
                Blob { media_type: MANIFEST.to_owned(), digest: Digest::of(&manifest), size: manifest.len() as u64 };
            let names = image.repo_tags.unwrap_or_default();
            let names = names.iter().map(|name| name.parse()).collect::<Result<BTreeSet<Reference>>>()?;
            let open = |layer: &Blob| files.need(places.get(&layer.digest).copied().map_or("", String::as_str));
            let first = names.first();
            let one = self.take_in((manifest_blob, manifest), (config_blob, config), layers, first, None, &open)?;
            for name in names.iter().skip(1) {
                self.tag(&one.id.to_string(), name)?;
            }
            match names.is_empty() {
                true => loaded.push((one, None)),
                false => loaded.extend(names.into_iter().map(|name| (one.clone(), Some(name)))),
            }
        }
        Ok(loaded)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// What a layer is: by its diff id if it is plain, else by a look at all of it.
fn describe(part: Part, diff_id: &Digest) -> Result<Blob> {
    let size = part.end - part.at;
    let mut start = [0; 4];
    let length = part.file.read_at(&mut start[..size.min(4) as usize], part.at).cannot("read", "a layer")?;
    let packing = Packing::told_by(&start[..length]);
    let digest = match packing {
        Packing::Plain => diff_id.clone(),
        _ => stream::digest_of(part, Wanted { size: Some(size), ..Wanted::default() })?,
    };
    Ok(Blob { media_type: packing.media_type().to_owned(), digest, size })
}

/// The name of each entry of an index, as whoever wrote it has it.
fn names(index: &[u8]) -> Result<Vec<Option<Reference>>> {
    let _: Index<'_> = parse_index(index)?;
    let document: serde_json::Value =
        serde_json::from_slice(index).map_err(|error| Error::document("index.json", error.to_string()))?;
    let name = |entry: &serde_json::Value| {
        let annotations = &entry["annotations"];
        let text = annotations[CONTAINERD_NAME].as_str().or(annotations[document::REF_NAME].as_str());
        // One that no reference can have is none.
        text.and_then(|text| text.parse().ok()).filter(|name: &Reference| name.digest().is_none())
    };
    Ok(document["manifests"].as_array().map(|entries| entries.iter().map(name).collect()).unwrap_or_default())
}

/// A file that can be read at any place and is not packed: the input itself, or a copy of what it unpacks to.
fn plain(mut input: File, staging: &Staging) -> Result<File> {
    let is_file = input.metadata().cannot("read", "the archive")?.is_file();
    if is_file && Packing::of(&input)? == Packing::Plain {
        input.rewind().cannot("read", "the archive")?;
        return Ok(input);
    }
    let mut copy = scratch(staging)?;
    let mut layer = stream::Layer::new(input, Wanted::default())?;
    std::io::copy(layer.reader(), &mut copy).map_err(stream::reading)?;
    copy.flush().and_then(|()| copy.rewind()).cannot("write", "a copy of the archive")?;
    Ok(copy)
}
