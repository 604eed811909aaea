//! `hull pull`, and the pull that `run` and `build` do for an image that is not there.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use clap::Args;
use hull_image::{Blob, Digest, Image, Part, Reference, Store};
use hull_registry::progress::{Progress, Quiet};
use hull_registry::{Credentials, PullOptions, Pulled, Registries};

use crate::report::Report;
use crate::table::escape;

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
    pub fn options(&self) -> Result<PullOptions, Report> {
        Ok(PullOptions {
            tls_verify: self.tls_verify,
            auth_file: self.authfile.clone(),
            cert_dir: self.cert_dir.clone(),
            timeout: number("HULL_REGISTRY_TIMEOUT", 3600)?.map(Duration::from_secs),
            layer_max: number("HULL_LAYER_MAX", u64::MAX)?,
            ..PullOptions::default()
        })
    }
}

/// `HULL_REGISTRY_TIMEOUT`: the seconds without anything after which a connection is given up. `HULL_LAYER_MAX`: the most
/// bytes that a layer may unpack to.
fn number(variable: &str, most: u64) -> Result<Option<u64>, Report> {
    let Some(text) = std::env::var_os(variable) else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse::<u64>().ok()).filter(|number| (1..=most).contains(number));
    let wrong = || Report::usage(format!("{variable} is a number from 1 to {most}"), None);
    number.map(Some).ok_or_else(wrong)
}

/// `USER:PASSWORD`.
pub fn credentials(text: &str) -> Result<Credentials, Report> {
    Credentials::parse(text).ok_or_else(|| Report::usage("--creds is USER:PASSWORD", None))
}

// The flags of `hull pull`.
#[derive(Args)]
pub struct PullArgs {
    /// Tell nothing but the image's name
    #[arg(short, long)]
    quiet: bool,
    /// Platform to take of an image for several; this machine's if not given
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Option<String>,
    /// Name and password, in place of those from a login
    #[arg(long, value_name = "USER:PASSWORD")]
    creds: Option<String>,
    #[command(flatten)]
    registry: RegistryArgs,
    #[arg(short, long, hide = true)]
    all_tags: bool,
    #[arg(long, hide = true)]
    disable_content_trust: Option<bool>,
    /// Names with a tag or digest
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// `hull pull`.
pub fn pull(store: &Store, args: &PullArgs) -> Result<i32, Report> {
    if args.all_tags {
        return Err(Report::usage("--all-tags is not supported yet", Some("name each tag")).with_code(1));
    }
    let mut options = args.registry.options()?;
    if let Some(platform) = &args.platform {
        options.platform = platform.parse()?;
    }
    options.credentials = args.creds.as_deref().map(credentials).transpose()?;
    for name in &args.names {
        let pulled = match args.quiet {
            true => hull_registry::pull(store, name, &options, &Quiet)?,
            false => {
                let told = Lines::new(stdout().is_terminal(), Box::new(stdout()));
                let pulled = hull_registry::pull(store, name, &options, &told)?;
                told.finish(&pulled)?;
                pulled
            }
        };
        writeln!(stdout(), "{}", pulled.name).map_err(|error| Report::host("write to standard output", error))?;
    }
    Ok(0)
}

/// When an image's registry is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// Always
    Always,
    /// If the image is not in the store
    #[default]
    Missing,
    /// Never
    Never,
}

/// An image of the store, after a pull if the policy says so; progress goes to standard error.
///
/// # Errors
/// It is neither in the store nor at a registry.
pub fn ensure(store: &Store, name: &str, policy: Policy, args: &RegistryArgs, quiet: bool) -> Result<Image, Report> {
    if policy != Policy::Always {
        if let Some(image) = store.find(name)? {
            return Ok(image);
        }
        // A short name may stand for what was pulled from a registry that it is searched in.
        for candidate in Registries::load()?.candidates(name)? {
            if let Some(image) = store.find(&candidate.to_string())? {
                return Ok(image);
            }
        }
    }
    if policy == Policy::Never {
        return Err(hull_image::Error::NotFound { name: name.to_owned() }.into());
    }
    let options = args.options()?;
    if quiet {
        return Ok(hull_registry::pull(store, name, &options, &Quiet)?.image);
    }
    let told = Lines::new(stderr().is_terminal(), Box::new(stderr()));
    let pulled = hull_registry::pull(store, name, &options, &told)?;
    told.finish(&pulled)?;
    Ok(pulled.image)
}

/// Docker's lines: one for each layer when it is there.
struct Lines {
    out: Mutex<Box<dyn Write + Send>>,
    name: Mutex<String>,
    _terminal: bool,
}

impl Lines {
    fn new(terminal: bool, out: Box<dyn Write + Send>) -> Self {
        Self { out: Mutex::new(out), name: Mutex::default(), _terminal: terminal }
    }

    /// Whoever does not listen is told nothing; the pull goes on.
    fn say(&self, line: &str) {
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = writeln!(out, "{}", escape(line));
    }

    fn finish(&self, pulled: &Pulled) -> Result<(), Report> {
        let what = if pulled.new { "Downloaded newer image for" } else { "Image is up to date for" };
        self.say(&format!("Digest: {}", pulled.digest));
        self.say(&format!("Status: {what} {}", pulled.name.familiar()));
        Ok(())
    }
}

impl Progress for Lines {
    fn resolving(&self, name: &Reference) {
        let tag = name.tag().map_or_else(|| name.digest().map(Digest::to_string).unwrap_or_default(), str::to_owned);
        *self.name.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            format!("{tag}: Pulling from {}", name.path());
    }

    fn waiting(&self, digest: &Digest) {
        self.say(&format!("{}: Waiting for another hull that pulls it", digest.short()));
    }

    fn layers(&self, all: &[Blob], wanted: &[Part<'_>]) {
        let name = std::mem::take(&mut *self.name.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.say(&name);
        let wanted: BTreeSet<&Digest> = wanted.iter().map(|part| &part.blob().digest).collect();
        for blob in all.iter().filter(|blob| !wanted.contains(&blob.digest)) {
            self.say(&format!("{}: Already exists", blob.digest.short()));
        }
    }

    fn advance(&self, _: &Digest, _: u64) {}

    fn done(&self, digest: &Digest) {
        self.say(&format!("{}: Pull complete", digest.short()));
    }
}
