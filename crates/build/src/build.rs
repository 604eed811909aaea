//! The story of `hull build`: Dockerfile and context are read, the plan is made, performed, and its result named.

use std::fmt::Write;
use std::path::PathBuf;

use hull_image::Reference;
use hull_sys::fs::{self, CWD};
use hull_sys::{process, trace};
use rustix::fs::OFlags;

use crate::config;
use crate::context::{self, Context};
use crate::error::{Error, Result};
use crate::graph::{self, Action, BaseImage, Graph, PlanOptions, Problem, World};
use crate::progress::Progress;
use crate::solve::{Known, Solver, Worker};
use crate::syntax::{self, Dockerfile};

/// What `hull build` is told.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// `--file`, relative to the current folder; `Dockerfile` in the context if not given.
    pub dockerfile: Option<PathBuf>,
    /// The build context.
    pub context: PathBuf,
    /// `--tag`
    pub tags: Vec<Reference>,
    /// `--output`: a folder that gets the file system. The image is kept as well.
    pub output: Option<PathBuf>,
    /// `--build-arg`
    pub build_args: Vec<(String, String)>,
    /// `--target`
    pub target: Option<String>,
    /// `--label`
    pub labels: Vec<(String, String)>,
    /// `--no-cache`: every step is made anew; what it makes is remembered all the same.
    pub no_cache: bool,
}

/// What came of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The image's id.
    pub image: String,
}

/// Builds the image that a Dockerfile describes.
///
/// # Errors
/// A mistake in the Dockerfile, at its place; the step that failed, at its line. Nothing is left of that step; the
/// steps before it stay in the cache.
pub fn build<W: Worker>(worker: &mut W, options: &BuildOptions, progress: &mut dyn Progress) -> Result<Built> {
    // What is made for an image has the modes that the Dockerfile says, whatever the caller's shell says.
    process::umask(0o022);

    trace::stage("read the Dockerfile", "text becomes a tree whose words know their places");
    let (context, file) = read(options)?;

    trace::stage(
        "make the plan",
        "each step gets a key: its parent's, its words, and the hashes of the files it copies",
    );
    let graph = make_graph(worker, options, &context, &file)?;

    let made = perform(worker, options, &context, &file, &graph, progress);
    let tidied = worker.tidy();
    let image = made?;
    tidied?;
    Ok(Built { image })
}

/// Solves the plan, and commits and exports what it came to.
fn perform<W: Worker>(
    worker: &mut W,
    options: &BuildOptions,
    context: &Context,
    file: &Dockerfile,
    graph: &Graph,
    progress: &mut dyn Progress,
) -> Result<String> {
    let solver = Solver { file, context, worker, progress, no_cache: options.no_cache };
    let solved = solver.solve(graph)?;

    trace::stage("commit the image", "layers that are not blobs yet are written and hashed, once");
    let Some(target) = graph.stages.last() else {
        return Err(Error::host("commit the image", "the plan has no stage"));
    };
    let now = worker.now();
    let config = config::image(target, &solved.history, solved.created.as_deref(), &options.labels, &now)
        .map_err(|error| Error::host("write the image's configuration", error))?;
    let image = worker.commit(config, &solved.layers, &options.tags)?;

    if let Some(folder) = &options.output {
        trace::stage("export the file system", "a copy of it as a plain folder");
        worker.export(&solved.layers, folder)?;
    }
    Ok(image)
}

/// The plan as text (`--dry-run`): each step, its key and whether the cache has it. Does nothing.
///
/// # Errors
/// As [`build`] before its first step.
pub fn plan(known: &mut impl Known, options: &BuildOptions) -> Result<String> {
    let (context, file) = read(options)?;
    let graph = make_graph(known, options, &context, &file)?;
    let mut out = String::new();
    for stage in &graph.stages {
        let name = stage.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "stage {}{name}: {}", stage.number, stage.text);
        for step in &stage.steps {
            let hit = !options.no_cache && known.has(&step.key)?;
            let what = if hit { "cached" } else { "run   " };
            let what = format!("{what} {}", kind(&step.action));
            let text = step.text.lines().next().unwrap_or_default();
            let _ = writeln!(out, "  {} {what} line {}: {text}", step.key.short(), step.span.line);
        }
    }
    graph.notes.iter().for_each(|note| {
        let _ = writeln!(out, "note: {note}");
    });
    Ok(out)
}

fn kind(action: &Action) -> &'static str {
    match action {
        Action::Workdir { .. } => "folder ",
        Action::Copy(_) => "copy   ",
        Action::Run(_) => "command",
    }
}

fn read(options: &BuildOptions) -> Result<(Context, Dockerfile)> {
    let mut context = Context::open(&options.context)?;
    let (path, text) = match &options.dockerfile {
        // The user names this file, as any other path of theirs.
        Some(path) => {
            let read = |cause: String| Error::Read { path: path.clone(), cause };
            let name = context::c_path(path).map_err(read)?;
            let handle = fs::openat(CWD, &name, OFlags::RDONLY | OFlags::NONBLOCK, 0);
            let handle = handle.map_err(|error| read(error.to_string()))?;
            (path.clone(), context::text(&handle).map_err(read)?)
        }
        None => (options.context.join("Dockerfile"), context.dockerfile()?),
    };
    context.read_ignore(&path)?;
    let file = syntax::parse(&path.display().to_string(), &text)?;
    Ok((context, file))
}

fn make_graph(known: &mut impl Known, options: &BuildOptions, context: &Context, file: &Dockerfile) -> Result<Graph> {
    let plan = PlanOptions { build_args: options.build_args.clone(), target: options.target.clone() };
    Ok(graph::plan(file, &plan, &mut Asking { known, context })?)
}

/// Answers the plan's questions from the store and the context.
pub(crate) struct Asking<'a, W> {
    /// The store.
    pub(crate) known: &'a mut W,
    /// The context.
    pub(crate) context: &'a Context,
}

impl<W: Known> World for Asking<'_, W> {
    fn image(&mut self, name: &str) -> std::result::Result<BaseImage, Problem> {
        self.known.base(name)
    }

    fn digest(&mut self, source: &str) -> std::result::Result<String, Problem> {
        self.context.digest(source)
    }
}
