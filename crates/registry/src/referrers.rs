//! What refers to a manifest: signatures, lists of contents and the like, found by its digest.
//!
//! A registry that knows the referrers API lists them itself and says so when one is pushed (`OCI-Subject`). For others the
//! list is an index under a tag made of the digest, which whoever pushes a referrer keeps up. Source: the OCI distribution
//! specification, "Listing Referrers" and "Referrers Tag Schema".

use hull_image::{Blob, Digest, MANIFEST_TYPES};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::encode;
use crate::client::{Ask, Client};
use crate::error::{Class, Error, Result};
use crate::push::put_manifest;

/// The largest list of referrers.
const LIST_MAX: u64 = 4 << 20;
const INDEX: &str = MANIFEST_TYPES[1];

/// One that refers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// The media type of its manifest.
    pub media_type: String,
    /// Its manifest's digest.
    pub digest: String,
    /// Its manifest's length in bytes.
    pub size: u64,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What it says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    manifests: Vec<Referrer>,
}

/// What refers to `digest`, of one type only if that is given.
///
/// # Errors
/// The registry's; a list that is none.
pub(crate) fn list(client: &Client, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<Referrer>> {
    let doing = format!("list what refers to {digest} at {}", client.host());
    let mut target = format!("/v2/{}/referrers/{digest}", client.path());
    if let Some(kind) = artifact_type {
        target = format!("{target}?{}", encode(&[("artifactType", kind.to_owned())]));
    }
    let mut all = match read(client, target, &doing)? {
        Some(all) => all,
        None => read(client, tagged(client, digest), &doing)?.unwrap_or_default(),
    };
    // A registry may filter, or leave it to us.
    all.retain(|referrer| artifact_type.is_none_or(|kind| referrer.artifact_type.as_deref() == Some(kind)));
    Ok(all)
}

fn tagged(client: &Client, digest: &Digest) -> String {
    format!("/v2/{}/manifests/{}", client.path(), tag(digest))
}

fn tag(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

/// None if there is no such list.
fn read(client: &Client, target: String, doing: &str) -> Result<Option<Vec<Referrer>>> {
    let mut ask = Ask::get(target, doing.to_owned());
    ask.headers.push(("accept", INDEX.to_owned()));
    let data = match client.read(&ask, LIST_MAX) {
        Ok((_, data)) => data,
        Err(error) if error.class() == Some(Class::NotFound) => return Ok(None),
        Err(error) => return Err(error),
    };
    let wrong = |error| Error::new(Class::Protocol, doing, format!("it is no list: {error}"));
    let list: List = serde_json::from_slice(&data).map_err(wrong)?;
    Ok(Some(list.manifests))
}

/// What a manifest refers to, if it does.
pub(crate) fn subject(manifest: &[u8]) -> Option<Digest> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    manifest["subject"]["digest"].as_str()?.parse().ok()
}

/// Enters a manifest in the list under the tag, for a registry that keeps none itself.
pub(crate) fn enter(client: &Client, subject: &Digest, blob: &Blob, manifest: &[u8]) -> Result<()> {
    let doing = format!("list {} as a referrer of {subject} at {}", blob.digest, client.host());
    let mut all = read(client, tagged(client, subject), &doing)?.unwrap_or_default();
    if all.iter().any(|known| known.digest == blob.digest.as_str()) {
        return Ok(());
    }
    let document: Value = serde_json::from_slice(manifest).unwrap_or_default();
    let kind = document["artifactType"].as_str().or(document["config"]["mediaType"].as_str());
    all.push(Referrer {
        media_type: blob.media_type.clone(),
        digest: blob.digest.to_string(),
        size: blob.size,
        artifact_type: kind.map(str::to_owned),
        annotations: Some(document["annotations"].clone()).filter(Value::is_object),
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": all });
    let data = index.to_string().into_bytes();
    let index = Blob { media_type: INDEX.to_owned(), digest: Digest::of(&data), size: data.len() as u64 };
    put_manifest(client, &tag(subject), &index, &data)
}
