//! The command line: arguments in, one report out. A library so that the manual can be made from it.
//!
//! Called as `hull-oci` or `runc` the OCI verbs are meant; the name decides, never a guess at the arguments.

#![forbid(unsafe_code)]

mod args;
mod bars;
mod check;
mod containers;
mod demo;
mod explain;
mod images;
mod init;
mod listing;
mod login;
mod manifest;
mod oci;
mod pull;
mod push;
mod registry;
mod report;
mod search;
mod table;
mod verify;

use std::path::Path;

use clap::{CommandFactory, Parser};
use hull_build::graph::Problem;
use hull_build::progress::{Plain, Progress, Quiet};
use hull_build::{BuildOptions, NoStore, StoreWorker};
use hull_engine::Engine;
use hull_engine::options::Source;
use hull_image::{Image, Reference, Store};

use args::{BuildArgs, Cli, Command, RunArgs, SystemCommand, Wanted};
use explain::Explain;
use pull::{Need, Policy};
use registry::RegistryArgs;
use report::Report;

/// The definition of the command line, for the manual.
pub fn command_line() -> clap::Command {
    Cli::command()
}

/// Does what the arguments say, by the name that the program was called by. Gives the exit status; what there is to say
/// has been said.
pub fn main() -> i32 {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let status = match name.as_str() {
        "hull-oci" | "runc" => Ok(oci::oci(std::env::args_os().collect())),
        // What follows the word has flags of its own, some of which hull has too.
        _ if std::env::args_os().nth(1).is_some_and(|word| word == "oci") => {
            Ok(oci::oci(std::env::args_os().skip(1).collect()))
        }
        "hull-init" => Ok(init::init(std::env::args_os().skip(1).collect())),
        _ => match Cli::try_parse() {
            Ok(cli) => hull(cli),
            Err(error) => Report::of_arguments(&error).map(|()| 0),
        },
    };
    status.unwrap_or_else(|report| report.tell())
}

fn hull(cli: Cli) -> Result<i32, Report> {
    let engine = Engine { root: cli.root, runroot: cli.runroot };
    match cli.command {
        Command::Version => {
            println!("hull {}", env!("CARGO_PKG_VERSION"));
            Ok(0)
        }
        Command::Run(args) => run(&engine, *args),
        Command::Build(args) => build(&engine, &args),
        Command::Demo(args) => demo::demo(&engine, &store(&engine)?, &args),
        Command::Gc(args) => with_deep_trees(|| images::gc::gc(&engine, &store(&engine)?, &args)),
        Command::History(args) => images::inspect::history(&store(&engine)?, &args),
        Command::Image { command } => images::image(&engine, &store(&engine)?, &command),
        Command::Images(args) => images::list(&store(&engine)?, &args),
        Command::Import(args) => images::archive::import(&store(&engine)?, &args),
        Command::Inspect(args) => images::inspect::inspect(&store(&engine)?, &args),
        Command::Load(args) => images::archive::load(&store(&engine)?, &args),
        Command::Login(args) => login::login(&args),
        Command::Logout(args) => login::logout(&args),
        Command::Manifest { command } => manifest::manifest(&store(&engine)?, &command),
        Command::Oci { arguments } => Ok(oci::oci([vec!["hull oci".into()], arguments].concat())),
        Command::Ps(args) => {
            root_only()?;
            containers::list(&engine, &args)
        }
        Command::Pull(args) => pull::pull(&store(&engine)?, &args),
        Command::Push(args) => push::push(&store(&engine)?, &args),
        Command::Rm { force, containers } => {
            root_only()?;
            containers::remove(&engine, &containers, force)
        }
        Command::Rmi(args) => images::remove(&engine, &store(&engine)?, &args.images, args.force),
        Command::Save(args) => images::archive::save(&store(&engine)?, &args),
        Command::Info => images::info(&engine, &store(&engine)?),
        Command::Tag(args) => images::tag(&store(&engine)?, &args),
        Command::Verify(args) => verify::verify(&args),
        Command::Search(args) => search::search(&args),
        Command::System { command } => {
            root_only()?;
            match command {
                SystemCommand::Check(args) => with_deep_trees(|| check::check(&engine, &args)),
                SystemCommand::Df(args) => with_deep_trees(|| images::df::df(&engine, &store(&engine)?, &args)),
            }
        }
    }
}

fn store(engine: &Engine) -> Result<Store, Report> {
    root_only()?;
    Ok(Store::open(&engine.root)?)
}

fn root_only() -> Result<(), Report> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Report::usage("hull needs root: running without it is not supported yet", Some("sudo hull …")))
}

/// Does what walks through trees of layers, whose makers say how deep they are: a descriptor is held for each level.
fn with_deep_trees(walk: impl FnOnce() -> Result<i32, Report>) -> Result<i32, Report> {
    hull_sys::process::raise_descriptors().map_err(|error| Report::host("hold more descriptors", error))?;
    walk()
}

/// What every verb that puts a process into a container does first; it may begin the program again.
fn out_of_reach() -> Result<(), Report> {
    hull_sys::trace::stage(
        "put hull's own file out of reach",
        "In a container /proc/PID/exe leads to the file that a process executes. Ours becomes the same file on a \
         read-only mount that is in nobody's tree, for the host will execute it again.",
    );
    hull_sys::exe::seal().map_err(|error| Report::host("put hull's own file out of a container's reach", error))?;
    // Not to hooks either, nor to any other program that hull starts.
    hull_sys::process::close_on_exec_from(3)
        .map_err(|error| Report::host("keep what the caller has open to itself", error))
}

fn run(engine: &Engine, mut args: RunArgs) -> Result<i32, Report> {
    let (explain, dry_run) = (args.explain.take(), args.dry_run);
    let (policy, registry) = (args.pull, args.registry.clone());
    let wanted = args.wanted()?;
    let mut options = args.options(Source::default())?;
    root_only()?;
    explained(explain.as_ref(), || {
        if !dry_run {
            out_of_reach()?;
        }
        options.source = match wanted {
            Wanted::Source(source) => source,
            Wanted::Build(_) if dry_run => {
                return Err(Report::usage("--dry-run needs an image that exists", Some("hull build --dry-run")));
            }
            // As for every run whose command did not come to be executed.
            Wanted::Build(build) => {
                let bases = Bases { policy, registry: &registry };
                Source::Image(perform(engine, &build, &bases, false).map_err(|report| report.with_code(125))?)
            }
        };
        if dry_run {
            print!("{}", hull_engine::run::dry_run(engine, &options)?);
            return Ok(0);
        }
        let Source::Image(name) = &options.source else { return Ok(hull_engine::run(engine, &options)?) };
        let (name, platform) = (name.clone(), options.platform.clone());
        let fetch = |policy| -> Result<Source, Report> {
            let need = Need { name: &name, platform: platform.as_ref(), policy, registry: &registry, quiet: false };
            let image = pull::ensure(&store(engine)?, &need).map_err(|report| report.with_code(125))?;
            Ok(Source::Image(named(&name, &image)))
        };
        if policy == Policy::Always {
            options.source = fetch(policy)?;
        }
        match hull_engine::run(engine, &options) {
            // Only now, so that an image that is there costs no look at any configuration.
            Err(hull_engine::Error::Image(hull_image::Error::NotFound { .. })) if policy == Policy::Missing => {
                options.source = fetch(policy)?;
                Ok(hull_engine::run(engine, &options)?)
            }
            result => Ok(result?),
        }
    })
}

/// The name as it was given if it is the image's, else one that leads to it.
fn named(given: &str, image: &Image) -> String {
    match given.parse::<Reference>() {
        Ok(name) if image.names.contains(&name) => given.to_owned(),
        _ => image.names.first().map_or_else(|| image.id.to_string(), Reference::to_string),
    }
}

fn build(engine: &Engine, args: &BuildArgs) -> Result<i32, Report> {
    let options = args.options()?;
    root_only()?;
    explained(args.explain.as_ref(), || {
        if args.dry_run {
            let plan = match Store::open_existing(&engine.root)? {
                Some(store) => hull_build::plan(&mut StoreWorker::new(&store, &engine.runroot), &options)?,
                None => hull_build::plan(&mut NoStore, &options)?,
            };
            print!("{plan}");
            return Ok(0);
        }
        out_of_reach()?;
        let bases = Bases { policy: args.pull.into(), registry: &args.registry };
        println!("{}", perform(engine, &options, &bases, args.quiet)?);
        Ok(0)
    })
}

/// Builds; gives the image's id. Images that the Dockerfile names come as `hull run` gets its own.
fn perform(engine: &Engine, options: &BuildOptions, bases: &Bases<'_>, quiet: bool) -> Result<String, Report> {
    let store = Store::open(&engine.root)?;
    let fetch = |name: &str| {
        let need = Need { name, platform: None, policy: bases.policy, registry: bases.registry, quiet };
        pull::ensure(&store, &need).map_err(|report| Problem {
            message: report.message().to_owned(),
            hint: report.hint().map(str::to_owned),
        })
    };
    let mut worker = StoreWorker::new(&store, &engine.runroot).fetching(Box::new(fetch));
    let mut plain = Plain::new(std::io::stderr());
    let progress: &mut dyn Progress = if quiet { &mut Quiet } else { &mut plain };
    Ok(hull_build::build(&mut worker, options, progress)?.image)
}

/// Where the images come from that a Dockerfile names.
struct Bases<'a> {
    policy: Policy,
    registry: &'a RegistryArgs,
}

/// Does `what`, and tells how if that was asked for.
fn explained(explain: Option<&Explain>, what: impl FnOnce() -> Result<i32, Report>) -> Result<i32, Report> {
    match explain {
        Some(explain) => explain.around(what),
        None => what(),
    }
}
