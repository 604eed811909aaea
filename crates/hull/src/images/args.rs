//! What can be written after `hull image`, and after `hull` for the verbs that have a short form.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::pull::PullArgs;
use crate::push::PushArgs;

// The verbs of `hull image`.
#[derive(Subcommand)]
pub enum ImageCommand {
    /// Show what images were made by
    History(HistoryArgs),
    /// Make an image of a root file system's archive
    Import(ImportArgs),
    /// Show all that is known of images
    Inspect(InspectArgs),
    /// Take in images from an archive
    Load(LoadArgs),
    /// List images
    #[command(alias = "list")]
    Ls(ListArgs),
    /// Remove images that nothing uses
    Prune(PruneArgs),
    /// Download images
    Pull(PullArgs),
    /// Upload an image to a registry
    Push(PushArgs),
    /// Remove images
    #[command(alias = "remove")]
    Rm(RemoveArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Give an image one more name
    Tag(TagArgs),
}

// The flags of `hull images`, Docker's.
#[derive(Args)]
pub struct ListArgs {
    /// Docker's flag for intermediate images, of which there are none here
    #[arg(short, long)]
    pub all: bool,
    /// Also the digests that registries have the images under
    #[arg(long)]
    pub digests: bool,
    /// Whole ids
    #[arg(long)]
    pub no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// dangling=true|false, label=NAME[=VALUE], before=IMAGE, since=IMAGE or reference=PATTERN
    #[arg(short, long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// table, json, table TEMPLATE or a template: .Repository .Tag .Digest .ID .CreatedAt .CreatedSince .Size
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// A repository or one image of it
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: Option<String>,
}

// The flags of `hull rmi`.
#[derive(Args)]
pub struct RemoveArgs {
    /// Also an id that has several names
    #[arg(short, long)]
    pub force: bool,
    /// Docker's flag for untagged parents, of which there are none here
    #[arg(long)]
    pub no_prune: bool,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

// The flags of `hull inspect`.
#[derive(Args)]
pub struct InspectArgs {
    /// image: what is looked for
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// A template, or json
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// The one for this platform
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    pub platform: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

// The flags of `hull history`.
#[derive(Args)]
pub struct HistoryArgs {
    /// Sizes and times in words; with =false as numbers
    #[arg(short = 'H', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    pub human: bool,
    /// Whole ids and commands
    #[arg(long)]
    pub no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// table, json, table TEMPLATE or a template: .ID .CreatedSince .CreatedAt .CreatedBy .Size .Comment
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// The one for this platform
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    pub platform: Option<String>,
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

// The flags of `hull save`, Docker's and podman's.
#[derive(Args)]
pub struct SaveArgs {
    /// The file, or the folder for oci-dir; standard output, if not given
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// docker-archive, oci-archive or oci-dir
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive")]
    pub format: String,
    /// Tell nothing; nothing is told anyway
    #[arg(short, long, hide = true)]
    pub quiet: bool,
    /// The ones for this platform
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    pub platform: Option<String>,
    /// Names or ids; a name without a tag stands for all tags of its repository
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

// The flags of `hull load`.
#[derive(Args)]
pub struct LoadArgs {
    /// The archive, or the folder of an OCI layout; standard input, if not given
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Tell nothing
    #[arg(short, long)]
    pub quiet: bool,
}

// The flags of `hull import`.
#[derive(Args)]
pub struct ImportArgs {
    /// An instruction of a Dockerfile for the image's configuration: CMD, ENTRYPOINT, ENV, LABEL, USER or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// A note in the image's history
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// What the image is for; this machine, if not given
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    pub platform: Option<String>,
    /// The tar archive, plain, gzip or zstd; - is standard input
    pub file: PathBuf,
    /// The image's name
    pub name: String,
}

// The flags of `hull image prune`.
#[derive(Args)]
pub struct PruneArgs {
    /// All that no container uses, not only those without a name
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// until=AGE|TIME, label=NAME[=VALUE] or label!=NAME[=VALUE]
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
}

// The names of `hull tag`.
#[derive(Args)]
pub struct TagArgs {
    /// Name or id
    pub image: String,
    /// The new name
    pub name: String,
}
