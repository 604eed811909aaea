//! Looking for repositories: Docker's search, and the catalogue that other registries may have.
//!
//! Sources: Docker Registry API 1, "Search"; the distribution project's API 2, "Listing Repositories"; the OCI distribution
//! specification, "Listing Tags".

use serde::{Deserialize, Serialize};
use ureq::http::header::LINK;

use crate::Options;
use crate::auth::{Access, encode};
use crate::client::{Ask, Client};
use crate::error::{Class, Error, Result};
use crate::registries::{Registries, Source};

/// The largest answer, and how many are asked for.
const PAGE_MAX: u64 = 4 << 20;
const PAGES_MAX: usize = 100;
const DOCKER: &str = "docker.io";

/// A repository that was found.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Repository {
    /// Its name, with the registry if that is not Docker's.
    #[serde(default)]
    pub name: String,
    /// What it says of itself.
    #[serde(default)]
    pub description: String,
    /// How many like it.
    #[serde(default)]
    pub star_count: u64,
    /// Docker looks after it.
    #[serde(default)]
    pub is_official: bool,
}

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    results: Vec<Repository>,
}

#[derive(Deserialize)]
struct Catalogue {
    #[serde(default)]
    repositories: Option<Vec<String>>,
    #[serde(default)]
    tags: Option<Vec<String>>,
}

/// The repositories of a registry whose names have `term` in them, at most `limit`.
///
/// # Errors
/// The registry can be searched in neither way, refuses or cannot be reached.
pub fn search(host: &str, term: &str, limit: usize, options: &Options) -> Result<Vec<Repository>> {
    let doing = format!("search {host}");
    let source = Registries::load()?.registry(host)?;
    let client = Client::connect(&source, options, Access::Catalogue)?;
    let query = encode(&[("q", term.to_owned()), ("n", limit.to_string())]);
    let target = match host {
        DOCKER => format!("https://index.docker.io/v1/search?{query}"),
        _ => format!("/v1/search?{query}"),
    };
    match client.read(&Ask::get(target, doing.clone()), PAGE_MAX) {
        Ok((_, data)) => {
            let wrong = |why: String| Error::new(Class::Protocol, doing.clone(), why);
            let found: Results =
                serde_json::from_slice(&data).map_err(|error| wrong(format!("it is no list: {error}")))?;
            let named = |mut repository: Repository| {
                if host != DOCKER {
                    repository.name = format!("{host}/{}", repository.name);
                }
                repository
            };
            Ok(found.results.into_iter().take(limit).map(named).collect())
        }
        Err(error) if host != DOCKER && error.status().is_some() => catalogue(&client, term, limit, &doing),
        Err(error) => Err(error),
    }
}

fn catalogue(client: &Client, term: &str, limit: usize, doing: &str) -> Result<Vec<Repository>> {
    let mut found = Vec::new();
    pages(client, "/v2/_catalog?n=1000".to_owned(), doing, &mut |page| {
        let names = page.repositories.unwrap_or_default().into_iter().filter(|name| name.contains(term));
        found.extend(
            names.map(|name| Repository { name: format!("{}/{name}", client.host()), ..Repository::default() }),
        );
        found.len() < limit
    })
    .map_err(|error| match error.class() {
        Some(Class::NotFound) => {
            Error::new(Class::NotFound, doing, "the registry has neither a search nor a catalogue")
        }
        _ => error,
    })?;
    found.truncate(limit);
    Ok(found)
}

/// The tags of a repository, at most `limit`.
///
/// # Errors
/// There is no such repository; the registry's.
pub fn tags(source: &Source, limit: usize, options: &Options) -> Result<Vec<String>> {
    tags_of(&Client::connect(source, options, Access::Pull)?, limit)
}

pub(crate) fn tags_of(client: &Client, limit: usize) -> Result<Vec<String>> {
    let doing = format!("list the tags of {}/{}", client.host(), client.path());
    let mut found = Vec::new();
    pages(client, format!("/v2/{}/tags/list", client.path()), &doing, &mut |page| {
        found.extend(page.tags.unwrap_or_default());
        found.len() < limit
    })?;
    found.truncate(limit);
    Ok(found)
}

/// Reads page after page, as long as there is one and `more` is wanted.
fn pages(client: &Client, first: String, doing: &str, more: &mut dyn FnMut(Catalogue) -> bool) -> Result<()> {
    let mut target = first;
    for _ in 0..PAGES_MAX {
        let (headers, data) = client.read(&Ask::get(target, doing.to_owned()), PAGE_MAX)?;
        let link = headers.get(LINK).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let wrong = |error| Error::new(Class::Protocol, doing, format!("it is no list: {error}"));
        let page = serde_json::from_slice(&data).map_err(wrong)?;
        if !more(page) {
            return Ok(());
        }
        // `</v2/_catalog?last=x>; rel="next"`, on the same registry: only its path is taken.
        let next = link.as_deref().and_then(|link| link.strip_prefix('<')?.split_once('>'));
        match next.filter(|(path, rest)| path.starts_with('/') && !path.starts_with("//") && rest.contains("next")) {
            Some((path, _)) => target = path.to_owned(),
            None => return Ok(()),
        }
    }
    Ok(())
}
