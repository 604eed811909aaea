//! Whether a registry takes credentials.

use crate::Options;
use crate::auth::Access;
use crate::client::{Ask, Client};
use crate::credentials::Credentials;
use crate::error::Result;
use crate::registries::Registries;

/// Asks the registry `host` whether it takes `credentials`. One that lets everybody in takes any.
///
/// # Errors
/// It does not, or cannot be reached.
pub fn login(host: &str, credentials: &Credentials, options: &Options) -> Result<()> {
    let source = Registries::load()?.registry(host)?;
    let options = Options { credentials: Some(credentials.clone()), ..options.clone() };
    let client = Client::connect(&source, &options, Access::Login)?;
    client.send(&Ask::get("/v2/".to_owned(), format!("log in to {host}"))).map(|_| ())
}
