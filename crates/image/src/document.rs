//! The JSON documents of an image: index, manifest and descriptor, read with little work and checked hard.
//!
//! Only the fields that hull needs are parsed, borrowed from the bytes. Sources: image specification `image-index.md`,
//! `manifest.md`, `descriptor.md`; Docker's schema 2 is read too. Configurations are `oci_spec`'s type.

use std::borrow::Cow;

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::reference::Digest;

/// The annotation of an index entry that holds its name.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The annotation of an index entry that holds the digest under which the name's registry has the image.
pub(crate) const REF_DIGEST: &str = "io.hull.image.digest";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The largest manifest or configuration.
pub(crate) const DOCUMENT_MAX: u64 = 4 << 20;
/// The largest `index.json`.
pub(crate) const INDEX_MAX: u64 = 64 << 20;

#[derive(Deserialize)]
pub(crate) struct Index<'a> {
    #[serde(borrow, default)]
    pub manifests: Vec<IndexEntry<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IndexEntry<'a> {
    #[serde(borrow)]
    pub media_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub digest: Cow<'a, str>,
    pub size: u64,
    #[serde(borrow)]
    pub annotations: Option<Annotations<'a>>,
    #[serde(borrow)]
    pub platform: Option<EntryPlatform<'a>>,
}

#[derive(Deserialize)]
pub(crate) struct Annotations<'a> {
    #[serde(borrow, rename = "org.opencontainers.image.ref.name")]
    pub name: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "io.hull.image.digest")]
    pub digest: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(crate) struct EntryPlatform<'a> {
    #[serde(borrow)]
    pub architecture: Cow<'a, str>,
    #[serde(borrow)]
    pub os: Cow<'a, str>,
    #[serde(borrow, default)]
    pub variant: Cow<'a, str>,
}

/// What a document says another one is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
}

impl Descriptor {
    pub(crate) fn digest(&self) -> Result<Digest> {
        self.digest.parse()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<serde::de::IgnoredAny>,
}

pub(crate) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// What a manifest's bytes turned out to be.
pub(crate) enum Target {
    /// With its media type.
    Manifest(Manifest, String),
    Index(Vec<Entry>),
}

/// One manifest of an index, and what it is for, if the index says so.
pub(crate) struct Entry {
    pub descriptor: Descriptor,
    pub platform: Option<Platform>,
}

/// Parses a manifest or an index, as the media type of its descriptor says.
pub(crate) fn parse(data: &[u8], digest: &Digest, media_type: Option<&str>) -> Result<Target> {
    let what = || format!("manifest {digest}");
    let document: Document =
        serde_json::from_slice(data).map_err(|error| Error::document(what(), error.to_string()))?;
    if document.schema_version == Some(1) {
        return Err(Error::document(what(), "it is Docker's image manifest schema 1, which is not supported"));
    }
    if document.manifests.is_some() && (document.layers.is_some() || document.config.is_some()) {
        return Err(Error::document(what(), "it is a manifest and an index at once"));
    }
    if let (Some(said), Some(given)) = (&document.media_type, media_type)
        && said != given
    {
        return Err(Error::document(what(), format!("it says it is {said}, and is listed as {given}")));
    }
    let is_index = document.manifests.is_some();
    if let Some(kind) = document.media_type.as_deref().or(media_type) {
        let expected = if is_index { [INDEX, DOCKER_INDEX] } else { [MANIFEST, DOCKER_MANIFEST] };
        if !expected.contains(&kind) {
            return Err(Error::document(what(), format!("the media type {kind} is not supported for what it holds")));
        }
    }
    if is_index {
        return entries(data, what).map(Target::Index);
    }
    match (document.config, document.layers) {
        (Some(config), Some(layers)) => {
            // One that nobody names is told by what it leads to.
            let implied = if config.media_type == DOCKER_CONFIG { DOCKER_MANIFEST } else { MANIFEST };
            let media_type = document.media_type.as_deref().or(media_type).unwrap_or(implied).to_owned();
            Ok(Target::Manifest(Manifest { config, layers }, media_type))
        }
        _ => Err(Error::document(what(), "it has no config or no layers")),
    }
}

fn entries(data: &[u8], what: impl Fn() -> String) -> Result<Vec<Entry>> {
    let index: Index<'_> =
        serde_json::from_slice(data).map_err(|error| Error::document(what(), error.to_string()))?;
    let entry = |entry: &IndexEntry<'_>| Entry {
        descriptor: Descriptor {
            media_type: entry.media_type.as_deref().unwrap_or(MANIFEST).to_owned(),
            digest: entry.digest.clone().into_owned(),
            size: entry.size,
        },
        platform: entry.platform.as_ref().map(|given| Platform::new(&given.os, &given.architecture, &given.variant)),
    };
    Ok(index.manifests.iter().map(entry).collect())
}

/// The entry that serves `wanted` best, the first of equals. An index of one entry need not say what it is for.
pub(crate) fn choose(entries: Vec<Entry>, digest: &Digest, wanted: &Platform) -> Result<Descriptor> {
    let alone = entries.len() == 1;
    let distance = |entry: &Entry| match &entry.platform {
        Some(given) => wanted.distance(given),
        None => alone.then_some(0),
    };
    let near = entries.into_iter().filter_map(|entry| Some((distance(&entry)?, entry.descriptor)));
    let nearest = near.min_by_key(|(distance, _)| *distance).map(|(_, descriptor)| descriptor);
    nearest.ok_or_else(|| Error::document(format!("manifest {digest}"), format!("it has no manifest for {wanted}")))
}

/// This host's architecture by the name that images use (`GOARCH`).
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// Parses a configuration and checks it against its manifest.
pub(crate) fn configuration(
    data: &[u8],
    digest: &Digest,
    layers: usize,
) -> Result<(ImageConfiguration, Vec<Digest>)> {
    let bad = |why: String| Error::document(format!("image configuration {digest}"), why);
    let config: ImageConfiguration = serde_json::from_slice(data).map_err(|error| bad(error.to_string()))?;
    let diff_ids = config.rootfs().diff_ids();
    if config.rootfs().typ() != "layers" {
        return Err(bad("its root file system is not made of layers".to_owned()));
    }
    if diff_ids.len() != layers {
        return Err(bad(format!("it has {} layers, its manifest {layers}", diff_ids.len())));
    }
    let diff_ids = diff_ids.iter().map(|digest| digest.parse()).collect::<Result<Vec<Digest>>>()?;
    Ok((config, diff_ids))
}

/// A document as hull writes it: keys sorted, so that the same content has the same digest.
pub(crate) fn bytes(value: &impl Serialize, what: &str) -> Result<Vec<u8>> {
    let failed = |error: serde_json::Error| Error::document(what, error.to_string());
    // `Value` keeps its keys in order; the maps of `oci_spec` do not.
    let value = serde_json::to_value(value).map_err(failed)?;
    serde_json::to_vec(&value).map_err(failed)
}

/// The identity of a stack of layers: what is below matters to what an archive unpacks to.
///
/// Source: image specification `config.md`, "Layer ChainID".
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}
