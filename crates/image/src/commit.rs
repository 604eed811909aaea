//! Writing to the store: importing an archive, committing built layers, naming images.
//!
//! Everything new is written into a staging folder; then, under the writers' lock, blobs and layers are moved to their
//! places and `index.json` is replaced. A process that is killed at any point leaves a staging folder and nothing else.
//!
//! What is listed has reached the disk: blobs are synced before they get their names, their folder before the index is
//! replaced, the index before and after. Unpacked trees are not synced, since that is a call for each of their files (and
//! `syncfs(2)` waits for what every other process wrote: 15 to 50 seconds beside a compiler); they are only trusted
//! during the boot that made them, and are made again from blobs, whose digests are verified.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::AsFd;

use oci_spec::image::{Arch, Config, History, ImageConfiguration, Os, RootFs};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::archive::Archive;
use crate::document::{self, CONFIG, Descriptor, MANIFEST, REF_NAME};
use crate::error::{Cannot, Error, Result};
use crate::find::{Image, name_of, parse_index};
use crate::layer::{Layer, Meta, Staging, boot_id, write_new};
use crate::platform::Platform;
use crate::reference::{Digest, Reference};
use crate::rootfs::LAYERS_MAX;
use crate::store::{Store, blob_path};
use crate::stream::{self, HashWriter, Packing, Wanted};
use crate::{apply, diff, tree};

const INDEX: &CStr = c"index.json";

/// How often a commit begins again because somebody removed what it counted on.
const COMMITS_MAX: usize = 5;

/// What an imported image is to say of itself beyond its files.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Default arguments.
    pub cmd: Option<Vec<String>>,
    /// The program that the arguments go to.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// The folder that commands start in.
    pub workdir: Option<String>,
    /// The user that commands run as.
    pub user: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// A note in the image's history.
    pub comment: Option<String>,
    /// When the image was made, RFC 3339; now, if not given.
    pub created: Option<String>,
    /// What it is for; this machine, if not given.
    pub platform: Option<Platform>,
}

impl ImportOptions {
    fn into_config(self) -> ImageConfiguration {
        let created = Some(self.created.unwrap_or_else(now));
        let mut config = Config::default();
        config.set_cmd(self.cmd);
        config.set_entrypoint(self.entrypoint);
        config.set_env(Some(self.env).filter(|env| !env.is_empty()));
        config.set_working_dir(self.workdir);
        config.set_user(self.user);
        config.set_labels((!self.labels.is_empty()).then(|| self.labels.into_iter().collect::<HashMap<_, _>>()));
        let mut history = History::default();
        history.set_created(created.clone());
        history.set_created_by(Some("hull import".to_owned()));
        history.set_comment(self.comment);
        let mut image = ImageConfiguration::default();
        image.set_created(created);
        let platform = self.platform.unwrap_or_else(Platform::host);
        image.set_architecture(Arch::from(platform.architecture()));
        image.set_os(Os::from(platform.os()));
        image.set_variant(Some(platform.variant().to_owned()).filter(|variant| !variant.is_empty()));
        image.set_config(Some(config));
        image.set_history(Some(vec![history]));
        image
    }
}

fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// New blobs in a staging folder, on their way into the store.
pub(crate) struct Pending<'a> {
    staging: &'a Staging,
    blobs: Vec<(CString, Digest)>,
}

impl<'a> Pending<'a> {
    pub(crate) fn new(staging: &'a Staging) -> Self {
        Self { staging, blobs: Vec::new() }
    }

    /// A file to write the next blob to.
    fn file(&self) -> Result<(CString, File)> {
        let name = CString::new(format!("blob-{}", self.blobs.len())).unwrap_or_default();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.staging.folder()?, &name, flags, Mode::from_raw_mode(0o600))
            .cannot("create", "a blob in the store")?;
        Ok((name, File::from(file)))
    }

    /// A document; none is written if the store has it.
    pub(crate) fn document(&mut self, store: &Store, media_type: &str, data: &[u8]) -> Result<Descriptor> {
        let digest = Digest::of(data);
        let size = data.len() as u64;
        let descriptor = Descriptor { media_type: media_type.to_owned(), digest: digest.to_string(), size };
        // One that is there and damaged is replaced.
        if store.document(&digest, size).is_err() {
            let (name, mut file) = self.file()?;
            file.write_all(data).cannot("write", format!("the blob {digest}"))?;
            self.blobs.push((name, digest));
        }
        Ok(descriptor)
    }

    /// Whether it is to be published.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.blobs.iter().any(|(_, pending)| pending == digest)
    }

    /// Brings all blobs to the disk, so that a name in the store is never that of a blob whose data a crash took.
    pub(crate) fn sync(&self) -> Result<()> {
        for (name, digest) in &self.blobs {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(self.staging.folder()?, name, flags, Mode::empty())
                .and_then(rustix::fs::fdatasync)
                .cannot("sync", format!("the blob {digest}"))?;
        }
        Ok(())
    }

    /// Moves all blobs, which are on the disk by now, to their places; needs the lock.
    pub(crate) fn publish(&self, store: &Store) -> Result<()> {
        for (name, digest) in &self.blobs {
            let folder = self.staging.folder()?;
            // What has the digest has the content; a damaged one is replaced by what was verified just now.
            store.make_blob_folder(digest)?;
            rustix::fs::renameat_with(folder, name, store.dir(), blob_path(digest), RenameFlags::empty())
                .cannot("write", format!("the blob {digest}"))?;
        }
        Ok(())
    }
}

impl Store {
    /// Imports an archive (plain, gzip or zstd, told by its first bytes) as an image of one layer, in one pass over it.
    ///
    /// # Errors
    /// A stream that is no archive, an entry that hull refuses, a full disk. The store is then as it was.
    pub fn import(&self, tar: impl Read, name: &Reference, options: ImportOptions) -> Result<Image> {
        refuse_digest(name)?;
        let staging = self.staging()?;
        let mut scratch = Pending::new(&staging);
        let (blob_name, file) = scratch.file()?;
        let mut source = stream::Layer::new(tar, Wanted { copy: Some(file), ..Wanted::default() })?;
        let mut archive = Archive::new(source.reader());
        apply::apply(&mut archive, &staging.tree()?, &[])?;
        archive.finish()?;
        let passed = source.finish()?;
        if passed.blob_size == 0 {
            return Err(Error::archive("it is empty"));
        }
        let blob = Descriptor {
            media_type: passed.packing.media_type().to_owned(),
            digest: passed.blob.to_string(),
            size: passed.blob_size,
        };
        scratch.blobs.push((blob_name, passed.blob));
        let mut config = options.into_config();
        set_diff_ids(&mut config, std::slice::from_ref(&passed.diff_id));
        let (manifest, _) = self.documents(&mut scratch, &config, std::slice::from_ref(&blob))?;
        let (diff_id, boot) = (Some(passed.diff_id.to_string()), Some(boot_id()?));
        let meta = Meta { diff_id, blob: Some(blob), boot, parent: None };
        meta.write(staging.folder()?)?;
        scratch.sync()?;
        {
            let _lock = self.lock()?;
            scratch.publish(self)?;
            let layers = self.folder(c"layers")?;
            self.publish_layer(layers.as_fd(), staging, &passed.diff_id)?;
            self.enter(&manifest, std::slice::from_ref(name))?;
        }
        self.committed(&manifest)
    }

    /// Makes an image of `layers` (lowest first): writes and hashes the archives that the store lacks, sets the
    /// configuration's `rootfs` and lists the image under all of `names` at once. With the same input it is the same image,
    /// and nothing is written.
    ///
    /// # Errors
    /// A history whose entries that are not `empty_layer` are not as many as the layers; a layer whose blob is missing and
    /// cannot be made again; a full disk.
    pub fn commit(&self, mut config: ImageConfiguration, layers: &[Layer], names: &[Reference]) -> Result<Image> {
        names.iter().try_for_each(refuse_digest)?;
        if layers.len() > LAYERS_MAX {
            let why = format!("it would have {} layers, and the kernel mounts at most {LAYERS_MAX}", layers.len());
            return Err(Error::document("image", why));
        }
        check_history(&config, layers.len())?;
        for _ in 0..COMMITS_MAX {
            if let Some(image) = self.try_commit(&mut config, layers, names)? {
                return Ok(image);
            }
        }
        Err(Error::document("image", "its blobs are removed by another process again and again"))
    }

    /// None if a blob that the store had was removed before the image was listed.
    fn try_commit(
        &self,
        config: &mut ImageConfiguration,
        layers: &[Layer],
        names: &[Reference],
    ) -> Result<Option<Image>> {
        let staging = self.staging()?;
        let mut pending = Pending::new(&staging);
        let mut blobs = Vec::with_capacity(layers.len());
        let mut diff_ids = Vec::with_capacity(layers.len());
        let mut fresh_metas = Vec::new();
        for layer in layers {
            let (meta, fresh) = self.archive(layer, &mut pending)?;
            if let (Some(diff_id), Some(blob)) = (&meta.diff_id, &meta.blob) {
                diff_ids.push(diff_id.parse::<Digest>()?);
                blobs.push(blob.clone());
            }
            if fresh {
                fresh_metas.push((layer, meta));
            }
        }
        set_diff_ids(config, &diff_ids);
        let (manifest, documents) = self.documents(&mut pending, config, &blobs)?;
        if pending.blobs.is_empty() && fresh_metas.is_empty() && self.is_listed(&manifest, names)? {
            return self.committed(&manifest).map(Some);
        }
        pending.sync()?;
        {
            let _lock = self.lock()?;
            pending.publish(self)?;
            for blob in blobs.iter().chain(&documents) {
                match self.blob(&blob.digest()?, Some(blob.size)) {
                    Err(Error::MissingBlob { .. }) => return Ok(None),
                    result => result?,
                };
            }
            for (layer, meta) in fresh_metas {
                layer.set_meta(&meta)?;
            }
            self.link_chain(&diff_ids, layers)?;
            self.enter(&manifest, names)?;
        }
        self.committed(&manifest).map(Some)
    }

    /// Gives what `source` leads to one more name, on every platform that is here. Another image that has the name loses it.
    ///
    /// # Errors
    /// No such image; a name with a digest.
    pub fn tag(&self, source: &str, name: &Reference) -> Result<()> {
        refuse_digest(name)?;
        let _lock = self.lock()?;
        let image = self.find(source)?.ok_or_else(|| Error::NotFound { name: source.to_owned() })?;
        let named = source.parse::<Reference>().ok().filter(|source| image.names.contains(source));
        if named.as_ref() == Some(name) {
            return Ok(());
        }
        self.change_index(|entries| {
            let ours = |entry: &&Value| match &named {
                Some(_) => entry_name(entry) == named,
                None => entry["digest"] == image.listed.as_str(),
            };
            let mut sources: Vec<Value> = entries.iter().filter(ours).cloned().collect();
            sources.dedup_by(|a, b| a["digest"] == b["digest"]);
            take_name(entries, name);
            for mut entry in sources {
                // The nameless entry of an image that gets a name has done its work.
                entries.retain(|other| other["digest"] != entry["digest"] || entry_name(other).is_some());
                entry["annotations"] = json!({ REF_NAME: name.to_string() });
                entries.push(entry);
            }
        })
    }

    /// What is known of a layer's archive; it is written if the store has none. True if that is news for the layer.
    fn archive(&self, layer: &Layer, pending: &mut Pending<'_>) -> Result<(Meta, bool)> {
        let mut meta = layer.meta()?;
        if let (Some(blob), Some(_)) = (&meta.blob, &meta.diff_id)
            && self.blob(&blob.digest()?, Some(blob.size)).is_ok()
        {
            return Ok((meta, false));
        }
        let (name, file) = pending.file()?;
        let mut out = BufWriter::with_capacity(1 << 20, HashWriter::new(file));
        diff::write(layer.tree()?.as_fd(), &mut out)?;
        let out = out.into_inner().map_err(|error| error.into_error()).cannot("write", "the layer")?;
        let (digest, size) = out.finish();
        if let Some(known) = &meta.diff_id
            && *known != digest.as_str()
        {
            // An archive of somebody else's making; ours of the same tree is another one.
            let lost = meta.blob.as_ref().map_or(Ok(digest), Descriptor::digest)?;
            return Err(Error::MissingBlob { digest: lost });
        }
        meta.diff_id = Some(digest.to_string());
        meta.blob =
            Some(Descriptor { media_type: Packing::Plain.media_type().to_owned(), digest: digest.to_string(), size });
        pending.blobs.push((name, digest));
        Ok((meta, true))
    }

    fn documents(
        &self,
        pending: &mut Pending<'_>,
        config: &ImageConfiguration,
        layers: &[Descriptor],
    ) -> Result<(Descriptor, [Descriptor; 2])> {
        let config = document::bytes(config, "image configuration")?;
        let config = pending.document(self, CONFIG, &config)?;
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        let manifest = pending.document(self, MANIFEST, &document::bytes(&manifest, "manifest")?)?;
        Ok((manifest.clone(), [config, manifest]))
    }

    /// Lets the chain ids of a built image lead to its layers. Needs the lock.
    fn link_chain(&self, diff_ids: &[Digest], layers: &[Layer]) -> Result<()> {
        let folder = self.folder(c"layers")?;
        for (chain, layer) in document::chain_ids(diff_ids).iter().zip(layers) {
            if self.by_chain(folder.as_fd(), chain)?.is_some() {
                continue;
            }
            let name = CString::new(chain.hex()).unwrap_or_default();
            let shown = || format!("the layer {chain}");
            match tree::lstat(folder.as_fd(), &name) {
                Ok(_) => tree::remove(folder.as_fd(), &name).cannot("replace", shown())?,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).cannot("find", shown()),
            }
            rustix::fs::symlinkat(layer.id(), &folder, &name).cannot("name", shown())?;
        }
        Ok(())
    }

    fn is_listed(&self, manifest: &Descriptor, names: &[Reference]) -> Result<bool> {
        let data = self.index()?;
        let index = parse_index(&data)?;
        let ours: Vec<_> = index.manifests.iter().filter(|entry| entry.digest == manifest.digest).collect();
        let named = |name: &Reference| ours.iter().any(|entry| name_of(entry).as_ref() == Some(name));
        Ok(!ours.is_empty() && names.iter().all(named))
    }

    /// Enters a manifest in the index, under each of `names`, or without one. Needs the lock.
    fn enter(&self, manifest: &Descriptor, names: &[Reference]) -> Result<()> {
        self.change_index(|entries| {
            let plain = json!({
                "mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size,
            });
            let is_ours = |entry: &Value| entry["digest"] == manifest.digest.as_str();
            if names.is_empty() && !entries.iter().any(is_ours) {
                entries.push(plain.clone());
            }
            for name in names {
                take_name(entries, name);
                // The nameless entry of an image that gets a name has done its work.
                entries.retain(|entry| !(is_ours(entry) && entry_name(entry).is_none()));
                let mut entry = plain.clone();
                entry["annotations"] = json!({ REF_NAME: name.to_string() });
                entries.push(entry);
            }
        })
    }

    /// Changes the list of `index.json` and replaces the file. Needs the lock.
    pub(crate) fn change_index(&self, change: impl FnOnce(&mut Vec<Value>)) -> Result<()> {
        let bad = |why: &str| Error::document("index.json of the store", why);
        let mut index: Value = serde_json::from_slice(&self.index()?).map_err(|error| bad(&error.to_string()))?;
        let object = index.as_object_mut().ok_or_else(|| bad("it is not an object"))?;
        let entries = object.entry("manifests").or_insert_with(|| json!([]));
        change(entries.as_array_mut().ok_or_else(|| bad("its manifests are not a list"))?);
        let data = serde_json::to_vec(&index).map_err(|error| bad(&error.to_string()))?;
        let shown = || format!("index.json in the store {}", self.root().display());
        // Under the lock there is one writer, so one name is enough; in `staging` a dead writer's file is swept. Whoever
        // sweeps passes while this is locked.
        let staging = self.folder(c"staging")?;
        rustix::fs::flock(&staging, FlockOperation::LockShared).cannot("write", shown())?;
        let written = write_new(staging.as_fd(), INDEX, &data).and_then(|file| {
            file.sync_data().cannot("sync", shown())?;
            // The blobs' names reach the disk before the index that needs them.
            self.sync_blob_folders()?;
            rustix::fs::renameat(&staging, INDEX, self.dir(), INDEX).cannot("write", shown())
        });
        if written.is_err() {
            // The first failure is the one to tell; what stays is swept by the next writer.
            let _ = rustix::fs::unlinkat(&staging, INDEX, AtFlags::empty());
        }
        written?;
        rustix::fs::fsync(self.dir()).cannot("sync", shown())
    }

    /// Those of all algorithms, of which a store has sha256's at least.
    fn sync_blob_folders(&self) -> Result<()> {
        let folder = self.folder(c"blobs")?;
        for name in tree::names(folder.as_fd()).cannot("list", "the blobs")? {
            // What is no folder is somebody else's.
            if let Ok(inside) = tree::open_folder(folder.as_fd(), &name) {
                rustix::fs::fsync(inside).cannot("sync", format!("the blobs of {}", name.to_string_lossy()))?;
            }
        }
        Ok(())
    }

    pub(crate) fn committed(&self, manifest: &Descriptor) -> Result<Image> {
        let data = self.index()?;
        let index = parse_index(&data)?;
        let entry = index.manifests.iter().find(|entry| entry.digest == manifest.digest);
        let gone = || Error::NotFound { name: manifest.digest.clone() };
        self.listed(&index, entry.ok_or_else(gone)?)?.images.into_iter().next().ok_or_else(gone)
    }
}

/// Takes a name from the entry that has it; the last name of an image leaves a nameless entry, so that it is still listed.
pub(crate) fn take_name(entries: &mut Vec<Value>, name: &Reference) {
    for n in (0..entries.len()).rev() {
        if entry_name(&entries[n]).as_ref() != Some(name) {
            continue;
        }
        let digest = entries[n]["digest"].clone();
        if entries.iter().filter(|entry| entry["digest"] == digest).count() > 1 {
            entries.remove(n);
        } else if let Some(annotations) = entries[n]["annotations"].as_object_mut() {
            annotations.remove(REF_NAME);
        }
    }
}

pub(crate) fn entry_name(entry: &Value) -> Option<Reference> {
    entry["annotations"][REF_NAME].as_str()?.parse().ok()
}

fn refuse_digest(name: &Reference) -> Result<()> {
    match name.digest() {
        Some(_) => {
            Err(Error::Reference { text: name.to_string(), why: "an image is named by a tag, not by a digest" })
        }
        None => Ok(()),
    }
}

fn set_diff_ids(config: &mut ImageConfiguration, diff_ids: &[Digest]) {
    let mut rootfs = RootFs::default();
    rootfs.set_diff_ids(diff_ids.iter().map(Digest::to_string).collect());
    config.set_rootfs(rootfs);
}

fn check_history(config: &ImageConfiguration, layers: usize) -> Result<()> {
    let Some(history) = config.history().as_ref().filter(|history| !history.is_empty()) else { return Ok(()) };
    let told = history.iter().filter(|entry| entry.empty_layer() != Some(true)).count();
    if told != layers {
        let why = format!("its history tells of {told} layers, it has {layers}");
        return Err(Error::document("image configuration", why));
    }
    Ok(())
}
