//! Registries: names, credentials, the distribution protocol.
//!
//! Start at `pull.rs` and `push.rs`, the stories of a pull and a push. Everything that arrives is hostile until its digest says otherwise; what becomes
//! of an image's bytes is the store's business (`hull-image`). Threads are used here and nowhere on the way of `run`;
//! nothing of TLS is touched before a connection is made.

#![forbid(unsafe_code)]

mod auth;
mod blob;
mod body;
pub mod challenge;
mod client;
mod connect;
pub mod credentials;
mod dns;
mod error;
mod growing;
mod http;
mod login;
pub mod progress;
mod pull;
mod push;
mod referrers;
mod registries;
pub mod search;
mod secret;
mod tls;
mod upload;
mod workers;

use std::path::PathBuf;
use std::time::Duration;

use hull_image::Platform;

pub use auth::Access;
pub use client::Client;
pub use credentials::Credentials;
pub use error::{Class, Error, Failure, Result};
pub use login::login;
pub use progress::{Progress, PushProgress, Step};
pub use pull::{Pulled, manifest, pull, referrers, tags};
pub use push::{PushOptions, Pushed, push, push_list};
pub use referrers::Referrer;
pub use registries::{Registries, Source};
pub use secret::Secret;

/// How a registry is used.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether certificates are verified and needed; as configured, if not given.
    pub tls_verify: Option<bool>,
    /// Credentials instead of those in the files.
    pub credentials: Option<Credentials>,
    /// The file of credentials that is read, and no other.
    pub auth_file: Option<PathBuf>,
    /// The folder with the registry's authorities and our certificate for it, instead of `certs.d`.
    pub cert_dir: Option<PathBuf>,
    /// How long nothing may come before a connection is given up; 30 seconds if not given.
    pub timeout: Option<Duration>,
}

impl Options {
    fn stall(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(30))
    }
}

/// What is pulled, and how.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// How its registry is used.
    pub registry: Options,
    /// The platform that is wanted of an image for several.
    pub platform: Platform,
    /// The most bytes that one layer may unpack to; 64 GiB if not given.
    pub layer_max: Option<u64>,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { registry: Options::default(), platform: Platform::host(), layer_max: None }
    }
}
