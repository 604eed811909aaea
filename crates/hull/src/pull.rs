//! `hull pull`, and the pull that `run` and `build` do for an image that is not there.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::Mutex;

use clap::Args;
use hull_image::{Blob, Digest, Image, Part, Platform, Reference, Store};
use hull_registry::progress::{Progress, Quiet};
use hull_registry::{Options, PullOptions, Pulled, Registries};

use crate::bars::Bars;
use crate::images::inspect::find;
use crate::registry::{AccessArgs, RegistryArgs, number};
use crate::report::Report;
use crate::table::escape;

// The flags of `hull pull`.
#[derive(Args)]
pub struct PullArgs {
    /// Tell nothing but the image's name
    #[arg(short, long)]
    quiet: bool,
    /// Platform to take of an image for several; this machine's if not given
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Option<String>,
    #[command(flatten)]
    registry: AccessArgs,
    /// Every tag of the repositories that are named
    #[arg(short, long)]
    all_tags: bool,
    #[arg(long, hide = true)]
    disable_content_trust: Option<bool>,
    /// Names with a tag or digest
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// `hull pull`.
pub fn pull(store: &Store, args: &PullArgs) -> Result<i32, Report> {
    let options = pull_options(args.registry.options()?, args.platform.as_deref().map(str::parse).transpose()?)?;
    for name in &wanted(args, &options)? {
        let pulled = match args.quiet {
            true => hull_registry::pull(store, name, &options, &Quiet)?,
            false => watched(store, name, &options, false)?,
        };
        writeln!(stdout(), "{}", pulled.name).map_err(|error| Report::host("write to standard output", error))?;
    }
    Ok(0)
}

/// The names that were given, or those of all tags in each of them.
fn wanted(args: &PullArgs, options: &PullOptions) -> Result<Vec<String>, Report> {
    if !args.all_tags {
        return Ok(args.names.clone());
    }
    let mut all = Vec::new();
    for name in &args.names {
        let last = name.rsplit('/').next().unwrap_or_default();
        if last.contains([':', '@']) {
            return Err(Report::usage("--all-tags takes names without a tag", None).with_code(1));
        }
        all.extend(hull_registry::tags(name, &options.registry)?.iter().map(Reference::to_string));
    }
    all.sort();
    Ok(all)
}

/// For this machine, if no platform is wanted.
fn pull_options(registry: Options, platform: Option<Platform>) -> Result<PullOptions, Report> {
    let layer_max = number("HULL_LAYER_MAX", u64::MAX)?;
    Ok(PullOptions { registry, layer_max, platform: platform.unwrap_or_else(Platform::host) })
}

/// An image that a verb needs, and what it may do to have it.
pub struct Need<'a> {
    pub name: &'a str,
    /// Any that is there, or this machine's of a registry, if not given.
    pub platform: Option<&'a Platform>,
    pub policy: Policy,
    pub registry: &'a RegistryArgs,
    pub quiet: bool,
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

/// The same as builders spell it: Docker's flag without a value, Podman's words, or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BuildPolicy {
    /// Always
    #[value(alias = "true")]
    Always,
    /// If the image is not in the store
    #[value(alias = "false")]
    Missing,
    /// Never
    Never,
}

impl From<BuildPolicy> for Policy {
    fn from(policy: BuildPolicy) -> Self {
        match policy {
            BuildPolicy::Always => Policy::Always,
            BuildPolicy::Missing => Policy::Missing,
            BuildPolicy::Never => Policy::Never,
        }
    }
}

/// An image of the store, after a pull if the policy says so; progress goes to standard error.
///
/// # Errors
/// It is neither in the store nor at a registry.
pub fn ensure(store: &Store, need: &Need<'_>) -> Result<Image, Report> {
    let name = need.name;
    if need.policy != Policy::Always {
        if let Some(image) = find(store, name, need.platform)? {
            return Ok(image);
        }
        // A short name may stand for what was pulled from a registry that it is searched in.
        for candidate in Registries::load()?.candidates(name)? {
            if let Some(image) = find(store, &candidate.to_string(), need.platform)? {
                return Ok(image);
            }
        }
    }
    if need.policy == Policy::Never {
        return Err(hull_image::Error::NotFound { name: name.to_owned() }.into());
    }
    let options = pull_options(need.registry.options()?, need.platform.cloned())?;
    if need.quiet {
        return Ok(hull_registry::pull(store, name, &options, &Quiet)?.image);
    }
    let pulled = watched(store, name, &options, true)?;
    Ok(pulled.image)
}

/// A pull whose way is told: bars on a terminal, lines elsewhere; on standard output, or on standard error.
fn watched(store: &Store, name: &str, options: &PullOptions, on_error: bool) -> Result<Pulled, Report> {
    let (terminal, out): (bool, Box<dyn Write + Send>) = match on_error {
        true => (stderr().is_terminal(), Box::new(stderr())),
        false => (stdout().is_terminal(), Box::new(stdout())),
    };
    let lines = Lines::new(out);
    let pulled = match terminal {
        true => hull_registry::pull(store, name, options, &Bars::new(on_error))?,
        false => hull_registry::pull(store, name, options, &lines)?,
    };
    lines.finish(&pulled);
    Ok(pulled)
}

/// Docker's lines: one for each layer when it is there.
struct Lines {
    out: Mutex<Box<dyn Write + Send>>,
    name: Mutex<String>,
}

impl Lines {
    fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out: Mutex::new(out), name: Mutex::default() }
    }

    /// Whoever does not listen is told nothing; the pull goes on.
    fn say(&self, line: &str) {
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = writeln!(out, "{}", escape(line));
    }

    fn finish(&self, pulled: &Pulled) {
        let what = if pulled.new { "Downloaded newer image for" } else { "Image is up to date for" };
        self.say(&format!("Digest: {}", pulled.digest));
        self.say(&format!("Status: {what} {}", pulled.name.familiar()));
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
        // Told once, however often the pull begins again.
        if !name.is_empty() {
            self.say(&name);
        }
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
