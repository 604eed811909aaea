//! `hull manifest`: lists of images for several platforms.

use clap::{Args, Subcommand};
use hull_image::{Image, List, Reference, Store};
use hull_registry::progress::Quiet;
use hull_registry::{PushOptions, Referrer};

use crate::images::inspect::pretty;
use crate::images::say;
use crate::listing::{Listing, Row};
use crate::pull::{self, Need, Policy};
use crate::registry::{AccessArgs, RegistryArgs, number};
use crate::report::Report;

// The verbs of `hull manifest`.
#[derive(Subcommand)]
pub enum ManifestCommand {
    /// Add an image to a list
    Add(AddArgs),
    /// Change what a list says of an image
    Annotate(AnnotateArgs),
    /// Make a list
    Create(CreateArgs),
    /// Show a list, or what a registry has under a name
    Inspect(InspectArgs),
    /// Upload a list and all its images to a registry
    Push(PushArgs),
    /// List what refers to an image at its registry: signatures, lists of contents and the like
    Referrers(ReferrersArgs),
    /// Remove lists
    Rm {
        /// The lists
        #[arg(required = true, value_name = "LIST")]
        lists: Vec<String>,
    },
}

// What a list is to say of an image, in place of what the image says.
#[derive(Args)]
pub struct Said {
    /// Operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Architecture, by Go's name
    #[arg(long, value_name = "ARCHITECTURE")]
    arch: Option<String>,
    /// Variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Annotation of the entry
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
}

// The flags of `hull manifest create`.
#[derive(Args)]
pub struct CreateArgs {
    /// Add to a list that there is already
    #[arg(short, long)]
    amend: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    /// The list
    list: String,
    /// Its images, here or at a registry
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

// The flags of `hull manifest add`.
#[derive(Args)]
pub struct AddArgs {
    #[command(flatten)]
    said: Said,
    #[command(flatten)]
    registry: RegistryArgs,
    /// The list
    list: String,
    /// An image, here or at a registry
    image: String,
}

// The flags of `hull manifest annotate`.
#[derive(Args)]
pub struct AnnotateArgs {
    #[command(flatten)]
    said: Said,
    /// The list
    list: String,
    /// An image of it
    image: String,
}

// The flags of `hull manifest inspect`.
#[derive(Args)]
pub struct InspectArgs {
    #[command(flatten)]
    registry: AccessArgs,
    /// A list, or a name at a registry
    name: String,
}

// The flags of `hull manifest push`.
#[derive(Args)]
pub struct PushArgs {
    /// Remove the list here when it is there
    #[arg(short, long)]
    purge: bool,
    /// Podman's flag to push all images, which is always done
    #[arg(long, hide = true)]
    all: bool,
    #[command(flatten)]
    registry: AccessArgs,
    /// The list
    list: String,
    /// Where to, if not to where its name leads
    destination: Option<String>,
}

// The flags of `hull manifest referrers`.
#[derive(Args)]
pub struct ReferrersArgs {
    /// Only those of this type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// table, json, table TEMPLATE or a template: .Digest .ArtifactType .MediaType .Size .Annotations
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    #[command(flatten)]
    registry: AccessArgs,
    /// A name at a registry
    name: String,
}

const REFERRERS: Listing = Listing {
    columns: &[
        ("Annotations", "ANNOTATIONS"),
        ("ArtifactType", "ARTIFACT TYPE"),
        ("Digest", "DIGEST"),
        ("MediaType", "MEDIA TYPE"),
        ("Size", "SIZE"),
    ],
    usual: &["Digest", "ArtifactType", "Size"],
};

/// `hull manifest VERB`.
pub fn manifest(store: &Store, command: &ManifestCommand) -> Result<i32, Report> {
    match command {
        ManifestCommand::Add(args) => add(store, args),
        ManifestCommand::Annotate(args) => annotate(store, args),
        ManifestCommand::Create(args) => create(store, args),
        ManifestCommand::Inspect(args) => inspect(store, args),
        ManifestCommand::Push(args) => push(store, args),
        ManifestCommand::Referrers(args) => referrers(args),
        ManifestCommand::Rm { lists } => remove(store, lists),
    }
}

fn create(store: &Store, args: &CreateArgs) -> Result<i32, Report> {
    let name: Reference = args.list.parse()?;
    let mut list = match (store.list_of(&name)?, args.amend) {
        (Some(list), true) => list,
        (Some(_), false) => {
            let said = format!("cannot make the list {}: there is one already", args.list);
            return Err(Report::usage(said, Some("hull manifest create --amend …")).with_code(1));
        }
        (None, _) => List::default(),
    };
    for image in &args.images {
        images(store, image, &args.registry)?.iter().for_each(|image| list.add(image));
    }
    store.keep_list(&name, &list)?;
    say(&format!("Created manifest list {name}\n"))
}

/// All platforms of an image that are here; one that is not here is pulled.
fn images(store: &Store, name: &str, registry: &RegistryArgs) -> Result<Vec<Image>, Report> {
    let name = name.strip_prefix("docker://").unwrap_or(name);
    let here = store.find_all(name)?;
    if !here.is_empty() {
        return Ok(here);
    }
    let need = Need { name, platform: None, policy: Policy::Missing, registry, quiet: false };
    Ok(vec![pull::ensure(store, &need)?])
}

fn known(store: &Store, name: &str) -> Result<(Reference, List), Report> {
    let reference: Reference = name.parse()?;
    let list = store.list_of(&reference)?;
    let missing = || Report::usage(format!("there is no list {name}"), Some("hull manifest create")).with_code(1);
    Ok((reference, list.ok_or_else(missing)?))
}

fn add(store: &Store, args: &AddArgs) -> Result<i32, Report> {
    let (name, mut list) = known(store, &args.list)?;
    for image in images(store, &args.image, &args.registry)? {
        list.add(&image);
        args.said.apply(&mut list, &image)?;
    }
    store.keep_list(&name, &list)?;
    Ok(0)
}

fn annotate(store: &Store, args: &AnnotateArgs) -> Result<i32, Report> {
    let (name, mut list) = known(store, &args.list)?;
    let missing = || hull_image::Error::NotFound { name: args.image.clone() };
    let images = store.find_all(&args.image)?;
    let ours = list.digests();
    let image = images.into_iter().find(|image| ours.contains(&image.manifest)).ok_or_else(missing)?;
    args.said.apply(&mut list, &image)?;
    store.keep_list(&name, &list)?;
    Ok(0)
}

impl Said {
    fn apply(&self, list: &mut List, image: &Image) -> Result<(), Report> {
        let Some(entry) = list.entry(&image.manifest) else { return Ok(()) };
        for (key, value) in [("os", &self.os), ("architecture", &self.arch), ("variant", &self.variant)] {
            if let Some(value) = value {
                entry["platform"][key] = value.as_str().into();
            }
        }
        for annotation in &self.annotation {
            let wrong = || Report::usage(format!("--annotation {annotation:?} is not NAME=VALUE"), None).with_code(1);
            let (name, value) = annotation.split_once('=').ok_or_else(wrong)?;
            entry["annotations"][name] = value.into();
        }
        Ok(())
    }
}

fn inspect(store: &Store, args: &InspectArgs) -> Result<i32, Report> {
    if let Some(list) = store.list_of(&args.name.parse()?)? {
        return say(&pretty(list.document())?);
    }
    let options = args.registry.options()?;
    say(&pretty(&hull_registry::manifest(&args.name, &options)?)?)
}

fn referrers(args: &ReferrersArgs) -> Result<i32, Report> {
    let options = args.registry.options()?;
    let found = hull_registry::referrers(&args.name, args.artifact_type.as_deref(), &options)?;
    let row = |one: Referrer| {
        Row::new([
            ("Annotations", one.annotations.map(|all| all.to_string()).unwrap_or_default()),
            ("ArtifactType", one.artifact_type.unwrap_or_default()),
            ("Digest", one.digest),
            ("MediaType", one.media_type),
            ("Size", one.size.to_string()),
        ])
    };
    say(&REFERRERS.render(args.format.as_deref(), &found.into_iter().map(row).collect::<Vec<_>>())?)
}

fn push(store: &Store, args: &PushArgs) -> Result<i32, Report> {
    let (name, list) = known(store, &args.list)?;
    let registry = args.registry.options()?;
    let options = PushOptions { registry, chunk: number("HULL_UPLOAD_CHUNK", 1 << 40)?, ..PushOptions::default() };
    let to = args.destination.as_deref().map(|text| text.strip_prefix("docker://").unwrap_or(text));
    let to = to.map(str::parse).transpose()?.unwrap_or(name);
    let images = store.find_all(&args.list)?;
    let pushed = hull_registry::push_list(store, &list, &images, &to, &options, &Quiet)?;
    if args.purge {
        remove(store, std::slice::from_ref(&args.list))?;
    }
    say(&format!("{}\n", pushed.digest))
}

fn remove(store: &Store, lists: &[String]) -> Result<i32, Report> {
    for text in lists {
        let (name, _) = known(store, text)?;
        store.forget_list(&name)?;
        say(&format!("Untagged: {}\n", name.familiar()))?;
    }
    Ok(0)
}
