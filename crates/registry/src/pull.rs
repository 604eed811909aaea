//! The story of a pull: from a name to an image in the store.
//!
//! Each line of [`pull`] and [`from_source`] is a module to open. Nothing is visible in the store until [`Incoming::publish`];
//! what was downloaded before a failure of the network waits there for the next attempt.
//!
//! [`Incoming::publish`]: hull_image::Incoming::publish

use hull_image::{Blob, Digest, Image, MANIFEST_TYPES, Manifest, Part, Platform, Reference, Store};
use ureq::http::header::CONTENT_TYPE;

use crate::auth::Access;
use crate::blob::BlobReader;
use crate::client::{Ask, Client};
use crate::error::{Class, Error, Result, shown};
use crate::progress::Progress;
use crate::referrers::{self, Referrer};
use crate::registries::{Registries, Source};
use crate::{Options, PullOptions, search, workers};

/// The largest manifest or configuration.
const DOCUMENT_MAX: u64 = 4 << 20;
/// How often a pull begins again because somebody removes what it counts on.
const ATTEMPTS: u32 = 5;
/// Indexes inside indexes that are followed.
const NESTED_MAX: usize = 3;
/// Layers that are downloaded at once.
const WORKERS: usize = 3;

/// What a pull brought.
#[derive(Debug)]
pub struct Pulled {
    /// The image, as it is in the store now.
    pub image: Image,
    /// Its full name.
    pub name: Reference,
    /// The digest that the registry has it under: of the index, where there is one.
    pub digest: Digest,
    /// It was not there before.
    pub new: bool,
}

/// Pulls the image that `name` stands for.
///
/// # Errors
/// No registry that the name may mean gives it. What the last of them said, or the first that did not merely lack it.
pub fn pull(store: &Store, name: &str, options: &PullOptions, progress: &dyn Progress) -> Result<Pulled> {
    // Which registries a short name may mean, and which mirrors each of them has.
    let registries = Registries::load()?;
    let mut failure: Option<Error> = None;
    for candidate in registries.candidates(name)? {
        for source in registries.sources(&candidate)? {
            match from_source(store, &candidate, &source, options, progress) {
                Ok(pulled) => return Ok(pulled),
                // What is wrong here with the store or with an image's bytes is wrong, whoever else may be asked.
                Err(error @ Error::Image(_)) => return Err(error),
                Err(error) if failure.as_ref().is_none_or(is_absence) => failure = Some(error),
                Err(_) => {}
            }
        }
    }
    Err(failure.unwrap_or_else(|| unconfigured("pull", name)))
}

fn unconfigured(verb: &str, name: &str) -> Error {
    Error::new(Class::NotFound, format!("{verb} {name}"), "no registry is configured")
}

/// A registry that has no such image says less than one that fails.
fn is_absence(error: &Error) -> bool {
    matches!(error.class(), Some(Class::NotFound | Class::Denied))
}

/// What a registry has under a name, as it has it: a manifest or an index.
///
/// # Errors
/// As [`pull`].
pub fn manifest(name: &str, options: &Options) -> Result<serde_json::Value> {
    let (blob, data) = anywhere(("inspect", name), options, top_manifest)?;
    let wrong = |error| Error::new(Class::Protocol, format!("inspect {name}"), format!("{}: {error}", blob.digest));
    serde_json::from_slice(&data).map_err(wrong)
}

/// All names in a repository, one for each of its tags.
///
/// # Errors
/// As [`pull`]; a tag that is none.
pub fn tags(name: &str, options: &Options) -> Result<Vec<Reference>> {
    anywhere(("list the tags of", name), options, |client, candidate| {
        let tags = search::tags_of(client, usize::MAX)?;
        tags.iter().map(|tag| Ok(format!("{}:{tag}", candidate.name()).parse()?)).collect()
    })
}

/// What refers to the image that `name` stands for, of one type only if that is given.
///
/// # Errors
/// As [`pull`]; a list that is none.
pub fn referrers(name: &str, artifact_type: Option<&str>, options: &Options) -> Result<Vec<Referrer>> {
    anywhere(("list what refers to", name), options, |client, candidate| {
        let digest = match candidate.digest() {
            Some(digest) => digest.clone(),
            None => top_manifest(client, candidate)?.0.digest,
        };
        referrers::list(client, &digest, artifact_type)
    })
}

/// Asks each place that `name` may be at, in turn, until one has an answer.
fn anywhere<T>(
    (verb, name): (&str, &str),
    options: &Options,
    ask: impl Fn(&Client, &Reference) -> Result<T>,
) -> Result<T> {
    let registries = Registries::load()?;
    let mut failure: Option<Error> = None;
    for candidate in registries.candidates(name)? {
        for source in registries.sources(&candidate)? {
            match Client::connect(&source, options, Access::Pull).and_then(|client| ask(&client, &candidate)) {
                Ok(found) => return Ok(found),
                Err(error) if failure.as_ref().is_none_or(is_absence) => failure = Some(error),
                Err(_) => {}
            }
        }
    }
    Err(failure.unwrap_or_else(|| unconfigured(verb, name)))
}

fn from_source(
    store: &Store,
    name: &Reference,
    source: &Source,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Pulled> {
    // Nothing is asked yet: who we are is told when the registry wants to know.
    let client = Client::connect(source, &options.registry, Access::Pull)?;
    progress.resolving(name);

    // From the tag or digest to the manifest for one platform. Every document is verified before it is read.
    let found = find_manifest(&client, name, &options.platform)?;
    let config = document(&client, &found.config, "blobs")?;

    // Somebody may remove what was there: then it is wanted after all.
    let name = listed_name(name)?;
    for attempt in 1.. {
        match receive_image(store, &client, (&found, &config), &name, options.layer_max, progress) {
            Err(Error::Image(hull_image::Error::Removed { .. } | hull_image::Error::MissingBlob { .. }))
                if attempt < ATTEMPTS => {}
            result => {
                let (image, new) = result?;
                return Ok(Pulled { image, name, digest: found.digest, new });
            }
        }
    }
    unreachable!("the last attempt returns")
}

/// Brings what the store lacks; gives the image, and whether it was not there before.
fn receive_image(
    store: &Store,
    client: &Client,
    (found, config): (&Found, &[u8]),
    name: &Reference,
    layer_max: Option<u64>,
    progress: &dyn Progress,
) -> Result<(Image, bool)> {
    // What the store lacks. Others who pull the same are waited for, and then there is nothing left to do.
    let manifest = (found.manifest.clone(), found.data.clone());
    let incoming =
        store.incoming(manifest, (found.config.clone(), config.to_vec()), found.layers.clone())?.limited(layer_max);
    let mut parts = incoming.parts(&mut |digest| progress.waiting(digest))?;
    progress.layers(incoming.layers(), &parts);

    // Each layer in one pass: bytes, digest, decompression, diff id, tree.
    if let Err(error) = fetch(client, &mut parts, progress) {
        // What came is for the next attempt if the network failed. It is not if the bytes are wrong or the disk is full.
        if matches!(error, Error::Image(_)) {
            parts.iter_mut().try_for_each(Part::discard)?;
        }
        return Err(error);
    }

    // All of it appears at once.
    let new = !parts.is_empty() || !matches!(store.find(&found.digest.to_string()), Ok(Some(_)));
    Ok((incoming.publish(parts, Some(name), Some(&found.digest))?, new))
}

/// A reference with a digest is listed by that: what the tag beside it means is not known.
fn listed_name(name: &Reference) -> Result<Reference> {
    match name.digest() {
        Some(digest) => Ok(format!("{}@{digest}", name.name()).parse()?),
        None => Ok(name.clone()),
    }
}

struct Found {
    digest: Digest,
    manifest: Blob,
    data: Vec<u8>,
    config: Blob,
    layers: Vec<Blob>,
}

fn find_manifest(client: &Client, name: &Reference, platform: &Platform) -> Result<Found> {
    let (mut blob, mut data) = top_manifest(client, name)?;
    let digest = blob.digest.clone();
    for _ in 0..=NESTED_MAX {
        match hull_image::read_manifest(&data, &blob.media_type, platform)? {
            Manifest::Image { config, layers } => {
                return Ok(Found { digest, manifest: blob, data, config, layers });
            }
            Manifest::Index(entry) => {
                data = document(client, &entry, "manifests")?;
                blob = entry;
            }
        }
    }
    Err(Error::new(Class::Protocol, format!("pull {name}"), format!("it is more than {NESTED_MAX} indexes deep")))
}

/// What the registry has under the tag or digest.
fn top_manifest(client: &Client, name: &Reference) -> Result<(Blob, Vec<u8>)> {
    let wanted = name.digest().map_or_else(|| name.tag().unwrap_or("latest").to_owned(), Digest::to_string);
    let doing = format!("pull {name}");
    let mut ask = Ask::get(format!("/v2/{}/manifests/{wanted}", client.path()), doing);
    ask.headers.push(("accept", MANIFEST_TYPES.join(", ")));
    let (headers, data) = client.read(&ask, DOCUMENT_MAX)?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let media_type = header(CONTENT_TYPE.as_str()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
    // A digest in a header is text from outside like any other.
    let told = header("docker-content-digest").map(str::parse::<Digest>).transpose()?;
    let wanted = name.digest().or(told.as_ref());
    let blob =
        Blob { media_type, digest: wanted.cloned().unwrap_or_else(|| Digest::of(&data)), size: data.len() as u64 };
    hull_image::verify(&blob, &data)?;
    Ok((blob, data))
}

/// A manifest or configuration by its descriptor, verified.
fn document(client: &Client, blob: &Blob, kind: &str) -> Result<Vec<u8>> {
    let doing = format!("download {} from {}", blob.digest.short(), client.host());
    if blob.size > DOCUMENT_MAX {
        let why = format!("its descriptor says {} bytes, more than 4 MiB", blob.size);
        return Err(Error::new(Class::Protocol, doing, why));
    }
    let mut ask = Ask::get(format!("/v2/{}/{kind}/{}", client.path(), blob.digest), doing);
    if kind == "manifests" {
        ask.headers.push(("accept", shown(&blob.media_type)));
    }
    let (_, data) = client.read(&ask, blob.size)?;
    hull_image::verify(blob, &data)?;
    Ok(data)
}

/// Receives all parts, some at a time. The first failure ends the others; what they have is kept.
fn fetch(client: &Client, parts: &mut [Part<'_>], progress: &dyn Progress) -> Result<()> {
    workers::each(client, WORKERS, parts.iter_mut(), |part| receive(client, part, progress)).map(|_| ())
}

fn receive(client: &Client, part: &mut Part<'_>, progress: &dyn Progress) -> Result<()> {
    let blob = part.blob().clone();
    let mut failure = None;
    let advance = |bytes| progress.advance(&blob.digest, bytes);
    let reader = BlobReader::new(client, &blob, part.have(), &mut failure, &advance);
    let received = part.receive(reader);
    // The network's own error says more than the stream's.
    match (failure, received) {
        (Some(error), Err(_)) => Err(error),
        (_, Err(error)) => Err(error.into()),
        (_, Ok(())) => {
            progress.done(&blob.digest);
            Ok(())
        }
    }
}
