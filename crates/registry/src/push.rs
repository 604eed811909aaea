//! The story of a push: from an image of the store to a name at a registry.
//!
//! The blobs go first, several at once, each only if the registry lacks it; then the configuration, and last the manifest, so
//! that the name never leads to something that is not there. A large layer that was never packed before goes out while it is.

use std::collections::{BTreeMap, BTreeSet};

use hull_image::{Blob, Digest, Image, List, MANIFEST_TYPES, Outgoing, PackOptions, Piece, Ready, Reference, Store};
use ureq::http::Method;
use ureq::http::header::CONTENT_TYPE;

use crate::Options;
use crate::auth::Access;
use crate::client::{Ask, Client, Payload};
use crate::error::{Class, Error, Result};
use crate::growing::Growing;
use crate::progress::{PushProgress, Step};
use crate::registries::Registries;
use crate::upload::{self, Session, Source, Upload, exists};
use crate::{referrers, workers};

/// Layers that are packed or sent at once.
const WORKERS: usize = 3;
/// Other repositories for which the right to read is asked, to take layers from.
const OTHERS_MAX: usize = 8;

/// How something is pushed.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// How its registry is used.
    pub registry: Options,
    /// How its layers are packed.
    pub pack: PackOptions,
    /// The bytes of one chunk of an upload; 64 MiB if not given.
    pub chunk: Option<u64>,
}

/// What the registry has now.
#[derive(Debug)]
pub struct Pushed {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's length in bytes.
    pub size: u64,
}

/// Pushes an image to the registry under `name`.
///
/// # Errors
/// A name with a digest, which is not ours to choose; a registry that is blocked, refuses or cannot be reached; a blob that
/// is not what its digest says.
pub fn push(
    store: &Store,
    image: &Image,
    name: &Reference,
    options: &PushOptions,
    progress: &dyn PushProgress,
) -> Result<Pushed> {
    let tag = tag(name)?;

    // Which registry that is, and which of its repositories have layers that need not be sent.
    let registries = Registries::load()?;
    let source = registries.origin(name)?;
    let holders = holders(store, image, name, &registries)?;
    let others: BTreeSet<&String> = holders.values().collect();
    let others = others.into_iter().take(OTHERS_MAX).cloned().collect();
    let client = Client::connect(&source, &options.registry, Access::Push(others))?;

    // Everything that the manifest names, and then the name.
    let (manifest, data) = send_image(store, image, &client, &holders, options, progress)?;
    put_manifest(&client, tag, &manifest, &data)?;
    store.pushed(image, name, &manifest.digest)?;
    Ok(Pushed { digest: manifest.digest, size: manifest.size })
}

/// Pushes a list under `name`, with all of its images, which are `images`. Where packing the layers changes an image's
/// manifest, the list at the registry names the new one.
///
/// # Errors
/// As [`push`]; an image of the list is not here.
pub fn push_list(
    store: &Store,
    list: &List,
    images: &[Image],
    name: &Reference,
    options: &PushOptions,
    progress: &dyn PushProgress,
) -> Result<Pushed> {
    let tag = tag(name)?;
    let client = Client::connect(&Registries::load()?.origin(name)?, &options.registry, Access::Push(Vec::new()))?;
    let mut list = list.clone();
    for digest in list.digests() {
        let image = images.iter().find(|image| image.manifest == digest);
        let missing = || hull_image::Error::NotFound { name: digest.to_string() };
        let image = image.ok_or_else(missing)?;
        let (manifest, data) = send_image(store, image, &client, &BTreeMap::new(), options, progress)?;
        put_manifest(&client, manifest.digest.as_str(), &manifest, &data)?;
        if let Some(entry) = list.entry(&digest) {
            entry["digest"] = manifest.digest.as_str().into();
            entry["size"] = manifest.size.into();
        }
    }
    let (digest, data) = list.bytes()?;
    let blob = Blob { media_type: MANIFEST_TYPES[1].to_owned(), digest, size: data.len() as u64 };
    put_manifest(&client, tag, &blob, &data)?;
    Ok(Pushed { digest: blob.digest, size: blob.size })
}

/// Sends an image's layers and configuration; gives the manifest that they have now.
fn send_image(
    store: &Store,
    image: &Image,
    client: &Client,
    holders: &BTreeMap<Digest, String>,
    options: &PushOptions,
    progress: &dyn PushProgress,
) -> Result<(Blob, Vec<u8>)> {
    // What goes out is held open from here on.
    let outgoing = store.outgoing(image, &options.pack)?;
    let layers = send_layers(client, &outgoing, holders, options, progress)?;
    let (config, data) = outgoing.config();
    send_document(client, config, data)?;
    Ok(outgoing.manifest(&layers)?)
}

fn tag(name: &Reference) -> Result<&str> {
    match (name.tag(), name.digest()) {
        (Some(tag), None) => Ok(tag),
        _ => Err(Error::new(Class::Usage, format!("push {name}"), "a push is to a tag, not to a digest")),
    }
}

/// For each blob of the image another repository of the same registry that is known to have it, by its path there.
fn holders(
    store: &Store,
    image: &Image,
    name: &Reference,
    registries: &Registries,
) -> Result<BTreeMap<Digest, String>> {
    let here = registries.origin(name)?;
    let mut found = BTreeMap::new();
    for (digest, holder) in store.holders(image)? {
        let there = registries.origin(&holder)?;
        if there.host == here.host && there.path != here.path {
            found.entry(digest).or_insert(there.path);
        }
    }
    Ok(found)
}

/// Gives what each layer became.
fn send_layers(
    client: &Client,
    outgoing: &Outgoing<'_>,
    holders: &BTreeMap<Digest, String>,
    options: &PushOptions,
    progress: &dyn PushProgress,
) -> Result<Vec<Blob>> {
    // One that is in the image twice goes once.
    let mut different: Vec<&Piece<'_>> = Vec::new();
    for piece in outgoing.layers() {
        if !different.iter().any(|known| known.stored() == piece.stored()) {
            different.push(piece);
        }
    }
    let shown: Vec<&Digest> = different.iter().map(|piece| piece.diff_id()).collect();
    progress.layers(&shown);
    let made = workers::each(client, WORKERS, different.iter(), |piece| {
        let from = holders.get(&piece.stored().digest).map(String::as_str);
        send_layer(client, piece, from, options, progress)
    })?;
    let became = |piece: &Piece<'_>| {
        let at = different.iter().position(|known| known.stored() == piece.stored());
        at.and_then(|at| made.get(at)).unwrap_or(piece.stored()).clone()
    };
    Ok(outgoing.layers().iter().map(became).collect())
}

fn send_layer(
    client: &Client,
    piece: &Piece<'_>,
    from: Option<&str>,
    options: &PushOptions,
    progress: &dyn PushProgress,
) -> Result<Blob> {
    let tell = |step| progress.layer(piece.diff_id(), step);
    let mut packed = None;
    let blob = match piece.known() {
        Some(blob) => blob,
        None => {
            tell(Step::Packing);
            // What nobody has, as far as we know, is not waited for.
            packed.insert(pack(client, piece, from.is_none(), options)?).0.blob.clone()
        }
    };
    if exists(client, &blob)? {
        tell(Step::Exists);
        return Ok(blob);
    }
    let (ready, session) = packed.map_or((None, None), |(ready, session)| (Some(ready), session));
    let session = match session {
        Some(session) => Some(session),
        None => upload::begin(client, &blob.digest, from, options.chunk)?,
    };
    let Some(session) = session else {
        tell(Step::Mounted(from.unwrap_or_default()));
        return Ok(blob);
    };
    let ready = match ready {
        Some(ready) => ready,
        None => piece.ready()?,
    };
    let size = ready.blob.size;
    let sent = |at| tell(Step::Sending(at, size));
    let upload = Upload { client, name: &ready.blob.digest, source: Source::File(&ready.file), sent: &sent };
    upload.send(&ready.blob, session)?;
    tell(Step::Sent);
    Ok(ready.blob)
}

/// Packs a layer. With `early`, what is there of it is sent meanwhile, if it is much: its digest is only known at its end, so the
/// registry cannot be asked first whether it has it.
fn pack(client: &Client, piece: &Piece<'_>, early: bool, options: &PushOptions) -> Result<(Ready, Option<Session>)> {
    let growing = Growing::default();
    std::thread::scope(|scope| {
        let writing = growing.writing();
        let packer = scope.spawn(move || piece.ready_while(&mut |file, length| writing.grown(file, length)));
        let session = match early {
            true => upload::early(client, &piece.stored().digest, &growing, options.chunk),
            false => Ok(None),
        };
        if session.is_err() {
            growing.unwanted();
        }
        let ready = packer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A packer that was stopped has nothing to say about it.
        let session = session?;
        Ok((ready?, session))
    })
}

/// A configuration, which is a blob like a layer, but small.
pub(crate) fn send_document(client: &Client, blob: &Blob, data: &[u8]) -> Result<()> {
    if exists(client, blob)? {
        return Ok(());
    }
    match upload::begin(client, &blob.digest, None, Some(u64::MAX))? {
        Some(session) => {
            Upload { client, name: &blob.digest, source: Source::Bytes(data), sent: &|_| {} }.send(blob, session)
        }
        None => Ok(()),
    }
}

/// Enters a manifest or an index under a tag or its own digest, and among the referrers of what it refers to.
pub(crate) fn put_manifest(client: &Client, reference: &str, blob: &Blob, data: &[u8]) -> Result<()> {
    let doing = format!("push the manifest {reference} to {}", client.host());
    let mut ask = Ask::new(Method::PUT, format!("/v2/{}/manifests/{reference}", client.path()), doing.clone());
    ask.headers.push((CONTENT_TYPE.as_str(), blob.media_type.clone()));
    ask.body = Payload::Bytes(data);
    ask.again = true;
    let response = client.send(&ask)?;
    let told = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
    if told.is_some_and(|told| told != blob.digest.as_str()) {
        let why = format!(
            "the registry filed it as {}, it is {}",
            crate::error::shown(told.unwrap_or_default()),
            blob.digest
        );
        return Err(Error::new(Class::Protocol, doing, why));
    }
    let listed = response.headers().contains_key("oci-subject");
    match referrers::subject(data) {
        Some(subject) if !listed => referrers::enter(client, &subject, blob, data),
        _ => Ok(()),
    }
}
