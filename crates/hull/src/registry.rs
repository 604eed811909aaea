//! How registries are used: the flags and variables that all verbs share which speak to one.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hull_registry::{Credentials, Options};

use crate::report::Report;

// How registries are used; podman's flags.
#[derive(Args, Clone, Debug, Default)]
pub struct RegistryArgs {
    /// Demand valid certificates of registries (the default), or with =false do without
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,
    /// File of credentials
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Folder with the registry's authorities (*.crt) and our certificate for it (*.cert, *.key)
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
}

impl RegistryArgs {
    /// The options that the registry's client takes.
    ///
    /// # Errors
    /// A value in the environment that means nothing.
    pub fn options(&self) -> Result<Options, Report> {
        Ok(Options {
            tls_verify: self.tls_verify,
            credentials: None,
            auth_file: self.authfile.clone(),
            cert_dir: self.cert_dir.clone(),
            timeout: number("HULL_REGISTRY_TIMEOUT", 3600)?.map(Duration::from_secs),
        })
    }
}

// The same with who we are said on the command line, for the verbs that only speak to a registry.
#[derive(Args, Clone, Debug, Default)]
pub struct AccessArgs {
    /// Name and password, in place of those from a login
    #[arg(long, value_name = "USER:PASSWORD")]
    creds: Option<String>,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl AccessArgs {
    /// The options that the registry's client takes.
    ///
    /// # Errors
    /// Credentials that are none; as [`RegistryArgs::options`].
    pub fn options(&self) -> Result<Options, Report> {
        let credentials = self.creds.as_deref().map(credentials).transpose()?;
        Ok(Options { credentials, ..self.registry.options()? })
    }
}

/// `HULL_REGISTRY_TIMEOUT`: the seconds without anything after which a connection is given up. `HULL_LAYER_MAX`: the most
/// bytes that a layer may unpack to.
pub fn number(variable: &str, most: u64) -> Result<Option<u64>, Report> {
    let Some(text) = std::env::var_os(variable) else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse::<u64>().ok()).filter(|number| (1..=most).contains(number));
    let wrong = || Report::usage(format!("{variable} is a number from 1 to {most}"), None);
    number.map(Some).ok_or_else(wrong)
}

/// `USER:PASSWORD`.
fn credentials(text: &str) -> Result<Credentials, Report> {
    Credentials::parse(text).ok_or_else(|| Report::usage("--creds is USER:PASSWORD", None))
}
