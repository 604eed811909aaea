//! Image references and digests: the grammar of names, with Docker's defaults.
//!
//! Source: the `reference` package of the distribution project, and the image specification's `descriptor.md`. Pure
//! text; nothing here asks the store or a registry.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// The registry that a name without one means.
const DOCKER: &str = "docker.io";
/// The longest repository name, domain and path together.
const NAME_MAX: usize = 255;

/// A content digest, `sha256:<64 hex>` or `sha512:<128 hex>`, lower case.
///
/// Only a valid one can exist, so its hexadecimal part is safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Box<str>);

impl Digest {
    /// The SHA-256 of `data`.
    pub fn of(data: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(data).into())
    }

    /// A finished SHA-256.
    pub(crate) fn from_sha256(bytes: [u8; 32]) -> Self {
        Self(format!("sha256:{}", hex(&bytes)).into_boxed_str())
    }

    /// The algorithm, `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        &self.0[..6]
    }

    /// The hexadecimal part.
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }

    /// The first twelve hexadecimal digits, as lists show an id.
    pub fn short(&self) -> &str {
        &self.0[7..19]
    }

    /// The whole text with its algorithm.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |why| Err(Error::Reference { text: text.chars().take(200).collect(), why });
        let Some((algorithm, value)) = text.split_once(':') else {
            return refused("a digest is an algorithm, a colon and hexadecimal digits");
        };
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return refused("only sha256 and sha512 digests are used"),
        };
        if value.len() != length || !is_hex(value) {
            return refused("the digest has the wrong length or a character that is not lower-case hexadecimal");
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an image: registry, repository, and a tag, a digest or both.
///
/// Parses every spelling that Docker takes (`hello`, `debian:12`, `host:5000/a/b@sha256:…`) and prints the full one
/// (`docker.io/library/hello:latest`). Without tag and digest the tag is `latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry, `docker.io` for Docker's.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository's path in the registry, `library/debian`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; none only if there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, if the reference is fixed to one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and path in full, `docker.io/library/debian`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Registry and path as people write them, `debian`; in full where the short form would be read as
    /// another registry's, or as an id.
    pub fn familiar_name(&self) -> String {
        if self.domain != DOCKER {
            return self.name();
        }
        let short = match self.path.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short,
            _ => &self.path,
        };
        match short.parse::<Reference>() {
            Ok(read) if (&read.domain, &read.path) == (&self.domain, &self.path) => short.to_owned(),
            _ => self.name(),
        }
    }

    /// The reference as people write it, `debian:12`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |why| Error::Reference { text: text.chars().take(400).collect(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let after_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[after_slash..].find(':') {
            Some(colon) => (&rest[..after_slash + colon], Some(&rest[after_slash + colon + 1..])),
            None => (rest, None),
        };
        if name.is_empty() {
            return Err(refused("the name is empty"));
        }
        if name.len() == 64 && is_hex(name) {
            return Err(refused("64 hexadecimal digits are an id, not a name"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(refused(
                "a tag is up to 128 letters, digits, '_', '.' and '-', and does not start with '.' or '-'",
            ));
        }
        let (domain, path) = split_domain(name);
        if !is_domain(&domain) {
            return Err(refused("the registry is not a host name with an optional port"));
        }
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) && path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(refused("a repository name is lower case"));
        }
        if !path.split('/').all(is_component) {
            return Err(refused(
                "a part of the repository name is not letters and digits joined by '.', '_', '__' or '-'",
            ));
        }
        if domain.len() + 1 + path.len() > NAME_MAX {
            return Err(refused("the name is longer than 255 characters"));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { domain, path, tag, digest })
    }
}

/// Docker's rule: the first part is a registry if it has a dot, a port or a capital, or is `localhost`.
fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DOCKER, name),
    };
    let domain = if domain == "index.docker.io" { DOCKER } else { domain };
    if domain == DOCKER && !path.contains('/') {
        return (domain.to_owned(), format!("library/{path}"));
    }
    (domain.to_owned(), path.to_owned())
}

fn is_domain(domain: &str) -> bool {
    if let Some(rest) = domain.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match domain.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

/// One part of a path: runs of lower-case letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(part: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().copied().is_some_and(alphanumeric) || !bytes.last().copied().is_some_and(alphanumeric) {
        return false;
    }
    part.split(|byte: char| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_get_dockers_defaults_and_lose_them_when_shown() {
        let with = |name: &str| format!("{name}@{D}");
        let id = format!("library/{}", "a".repeat(64));
        for (given, full, familiar) in [
            ("hello", "docker.io/library/hello:latest", "hello:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("docker.io/library/x:y", "docker.io/library/x:y", "x:y"),
            ("index.docker.io/x", "docker.io/library/x:latest", "x:latest"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("docker.io/quay.io/app", "docker.io/quay.io/app:latest", "docker.io/quay.io/app:latest"),
            (&id, &format!("docker.io/{id}:latest"), &format!("docker.io/{id}:latest")),
            ("docker.io/docker.io/a/b", "docker.io/docker.io/a/b:latest", "docker.io/docker.io/a/b:latest"),
            ("localhost/app:1", "localhost/app:1", "localhost/app:1"),
            ("host:5000/a/b_c__d-e.f:T.1", "host:5000/a/b_c__d-e.f:T.1", "host:5000/a/b_c__d-e.f:T.1"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("GHCR.io/a", "GHCR.io/a:latest", "GHCR.io/a:latest"),
            (&with("a"), &with("docker.io/library/a"), &with("a")),
            (&with("a:1"), &with("docker.io/library/a:1"), &with("a:1")),
        ] {
            let reference: Reference = given.parse().expect(given);
            assert_eq!(reference.to_string(), full, "{given}");
            assert_eq!(reference.familiar(), familiar, "{given}");
            assert_eq!(full.parse::<Reference>().expect("its own full form"), reference);
            assert_eq!(familiar.parse::<Reference>().expect("its own familiar form"), reference);
        }
    }

    #[test]
    fn what_is_not_a_reference_is_refused() {
        let long = "a".repeat(256);
        for bad in [
            "",
            ":x",
            "Upper",
            "a b",
            "a/",
            "/a",
            "a//b",
            "../a",
            "a/../b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a:",
            "a:-x",
            "a:.x",
            "a@sha256:00",
            "a@md5:00",
            "host:/a",
            "host:x/a",
            "a\nb",
            "a:x\n",
            &long,
            &D[7..],
            "http://a.b/c",
            "ho_st.x/a",
            "é",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_well_formed_sha256_and_sha512_are_digests() {
        assert_eq!(D.parse::<Digest>().expect("a digest").short(), "e3b0c44298fc");
        assert_eq!(Digest::of(b"").as_str(), D);
        assert!(format!("sha512:{}", "a".repeat(128)).parse::<Digest>().is_ok());
        let upper = D.to_uppercase().replace("SHA256", "sha256");
        let traversal = format!("sha256:../../{}", "a".repeat(58));
        for bad in ["", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", &upper, &D[..70], &traversal, "sha256:é"]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }
}
