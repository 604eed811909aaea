//! Whom we trust: the host's certificate authorities, a registry's own ones, and our certificate for it.
//!
//! The folder of a registry is `certs.d/HOST[:PORT]` with `*.crt` (authorities), `*.cert` with `*.key` (ours), as Docker and
//! podman have it. Nothing is read until a connection needs it. Source: `containers-certs.d(5)`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::error::{Class, Error, Result};
use crate::registries::config_home;

/// Where distributions keep the authorities that a host trusts, in one file.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// The settings for one registry; `folder` is used instead of the host's `certs.d` if given.
///
/// # Errors
/// A certificate or key that cannot be read.
pub(crate) fn config(server: &str, folder: Option<&Path>, verify: bool) -> Result<TlsConfig> {
    let mut roots = host_roots()?;
    let mut own = None;
    if let Some(folder) = folder.map(Path::to_owned).or_else(|| registry_folder(server)) {
        own = read_folder(&folder, &mut roots)?;
    }
    Ok(finish(roots, own, verify))
}

/// The settings for everybody else: the host's authorities alone.
pub(crate) fn plain(verify: bool) -> Result<TlsConfig> {
    Ok(finish(host_roots()?, None, verify))
}

fn finish(roots: Vec<Certificate<'static>>, own: Option<ClientCert>, verify: bool) -> TlsConfig {
    TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .client_cert(own)
        .disable_verification(!verify)
        .build()
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::new(Class::Config, format!("read {}", path.display()), why)
}

fn host_roots() -> Result<Vec<Certificate<'static>>> {
    if let Some(path) = std::env::var_os("SSL_CERT_FILE") {
        return certificates(Path::new(&path));
    }
    match BUNDLES.iter().map(Path::new).find(|path| path.exists()) {
        Some(path) => certificates(path),
        // Without any every verification fails, and says so.
        None => Ok(Vec::new()),
    }
}

fn registry_folder(server: &str) -> Option<PathBuf> {
    let own = config_home().map(|home| home.join("containers/certs.d"));
    let all = [own, Some("/etc/containers/certs.d".into()), Some("/etc/docker/certs.d".into())];
    all.into_iter().flatten().map(|folder: PathBuf| folder.join(server)).find(|folder| folder.is_dir())
}

fn read_folder(folder: &Path, roots: &mut Vec<Certificate<'static>>) -> Result<Option<ClientCert>> {
    let list = std::fs::read_dir(folder).map_err(|error| wrong(folder, error))?;
    let mut paths = Vec::new();
    for entry in list {
        paths.push(entry.map_err(|error| wrong(folder, error))?.path());
    }
    paths.sort();
    let mut own = None;
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => roots.extend(certificates(&path)?),
            Some("cert") => {
                let key = path.with_extension("key");
                let data = std::fs::read(&key).map_err(|error| wrong(&key, error))?;
                let private = PrivateKey::from_pem(&data).map_err(|error| wrong(&key, error))?;
                own = Some(ClientCert::new_with_certs(&certificates(&path)?, private));
            }
            _ => {}
        }
    }
    Ok(own)
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let data = std::fs::read(path).map_err(|error| wrong(path, error))?;
    let mut found = Vec::new();
    for item in parse_pem(&data) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(path, error))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(wrong(path, "there is no certificate in it"));
    }
    Ok(found)
}
