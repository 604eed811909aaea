//! `hull push`.

use std::io::{IsTerminal, Write, stdout};
use std::path::PathBuf;
use std::sync::Mutex;

use clap::Args;
use hull_image::{Digest, Image, PackOptions, Packing, Reference, Store};
use hull_registry::progress::Quiet;
use hull_registry::{PushOptions, PushProgress, Pushed, Step};

use crate::bars::Bars;
use crate::registry::{AccessArgs, number};
use crate::report::Report;
use crate::table::escape;

// The flags of `hull push`, Docker's and podman's.
#[derive(Args)]
pub struct PushArgs {
    /// Tell nothing but the name that was pushed
    #[arg(short, long)]
    quiet: bool,
    /// Push all tags that the repository has here
    #[arg(short, long, conflicts_with = "destination")]
    all_tags: bool,
    /// Write the digest of the manifest to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// What layers are packed in, also those that are packed otherwise; gzip for plain ones, if not given
    #[arg(long, value_name = "gzip|zstd|none")]
    compression_format: Option<String>,
    /// How hard it is tried: 1 to 9 for gzip, 1 to 20 for zstd
    #[arg(long, value_name = "N")]
    compression_level: Option<u32>,
    /// With =false, layers that are packed otherwise stay as they are
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    force_compression: Option<bool>,
    #[command(flatten)]
    registry: AccessArgs,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<bool>,
    /// The image
    #[arg(value_name = "NAME")]
    name: String,
    /// Where to, if not to where its name leads
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
}

impl PushArgs {
    fn options(&self) -> Result<PushOptions, Report> {
        let packing = self.compression_format.as_deref().map(packing).transpose()?;
        let registry = self.registry.options()?;
        let pack = PackOptions { packing, force: self.force_compression, level: self.compression_level };
        Ok(PushOptions { registry, pack, chunk: number("HULL_UPLOAD_CHUNK", 1 << 40)? })
    }
}

fn packing(name: &str) -> Result<Packing, Report> {
    match name {
        "gzip" => Ok(Packing::Gzip),
        "zstd" => Ok(Packing::Zstd),
        "none" => Ok(Packing::Plain),
        other => Err(Report::usage(format!("--compression-format {other:?} is not gzip, zstd or none"), None)),
    }
}

/// `hull push`.
pub fn push(store: &Store, args: &PushArgs) -> Result<i32, Report> {
    let options = args.options()?;
    let mut told = String::new();
    for (image, name) in args.wanted(store)? {
        let pushed = match args.quiet {
            true => hull_registry::push(store, &image, &name, &options, &Quiet)?,
            false => {
                let lines = Lines::new();
                lines.say(&format!("The push refers to repository [{}]", name.name()));
                let pushed = match stdout().is_terminal() {
                    true => hull_registry::push(store, &image, &name, &options, &Bars::new(false))?,
                    false => hull_registry::push(store, &image, &name, &options, &lines)?,
                };
                lines.finish(&name, &pushed);
                pushed
            }
        };
        if args.quiet {
            told += &format!("{name}\n");
        }
        if let Some(file) = &args.digestfile {
            let written = std::fs::write(file, pushed.digest.as_str());
            written.map_err(|error| Report::host(format!("write {}", file.display()), error))?;
        }
    }
    stdout().write_all(told.as_bytes()).map_err(|error| Report::host("write to standard output", error))?;
    Ok(0)
}

impl PushArgs {
    /// Each image with the name that it is to have at the registry.
    fn wanted(&self, store: &Store) -> Result<Vec<(Image, Reference)>, Report> {
        let missing = || hull_image::Error::NotFound { name: self.name.clone() };
        if self.all_tags {
            let repository: Reference = self.name.parse()?;
            if self.name.rsplit('/').next().is_some_and(|last| last.contains([':', '@'])) {
                return Err(Report::usage("--all-tags takes a name without a tag", None).with_code(1));
            }
            let mut all = Vec::new();
            for image in store.images()? {
                let ours = |name: &&Reference| name.name() == repository.name() && name.digest().is_none();
                all.extend(image.names.iter().filter(ours).map(|name| (image.clone(), name.clone())));
            }
            return if all.is_empty() { Err(missing().into()) } else { Ok(all) };
        }
        let image = store.find(&self.name)?.ok_or_else(missing)?;
        let destination = self.destination.as_deref().map(|text| text.strip_prefix("docker://").unwrap_or(text));
        let name: Reference = destination.unwrap_or(&self.name).parse()?;
        if destination.is_none() && !image.names.contains(&name) {
            let said = format!("{} is an id, which says no registry", self.name);
            return Err(Report::usage(said, Some("hull push ID NAME")).with_code(1));
        }
        Ok(vec![(image, name)])
    }
}

/// Docker's lines: one for each layer when it is known what becomes of it, and one when it is there.
struct Lines(Mutex<()>);

impl Lines {
    fn new() -> Self {
        Self(Mutex::new(()))
    }

    /// Whoever does not listen is told nothing; the push goes on.
    fn say(&self, line: &str) {
        let _whole = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = writeln!(stdout(), "{}", escape(line));
    }

    fn finish(&self, name: &Reference, pushed: &Pushed) {
        let tag = name.tag().unwrap_or_default();
        self.say(&format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size));
    }
}

impl PushProgress for Lines {
    fn layers(&self, all: &[&Digest]) {
        all.iter().for_each(|layer| self.say(&format!("{}: Preparing", layer.short())));
    }

    fn layer(&self, layer: &Digest, step: Step<'_>) {
        let what = match step {
            Step::Packing | Step::Sending(..) => return,
            Step::Exists => "Layer already exists".to_owned(),
            Step::Mounted(from) => format!("Mounted from {from}"),
            Step::Sent => "Pushed".to_owned(),
        };
        self.say(&format!("{}: {what}", layer.short()));
    }
}
