//! Syntax tree and build arguments -> stages and steps with cache keys.
//!
//! Pure: what must be asked of the world (an image's configuration, the hash of a file of the context) is asked
//! through [`World`], so that tests answer instead. Nothing is executed here; the result is what `--dry-run` prints
//! and what [`crate::solve`] performs.
//!
//! A step is an instruction that makes a layer: COPY, RUN, WORKDIR. The others only change what is in effect, and a
//! later RUN's key holds what is in effect for it (environment, arguments, user, folder). So a changed LABEL repeats
//! nothing, a changed ENV the RUNs below it, a changed file the COPY that names it and all below that.

mod key;
mod platform;
mod stage;
#[cfg(test)]
mod tests;

use oci_spec::image::ImageConfiguration;

pub use key::{Key, KeyBuilder, hex};
pub use platform::Platform;
pub use stage::{Argument, InEffect};

use crate::expand;
use crate::syntax::{Dockerfile, Instruction, Kind, Span, SyntaxError, Word};

/// What a caller decides about a build's plan.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// `--build-arg`, in order; the last one of a name counts.
    pub build_args: Vec<(String, String)>,
    /// `--target`: a stage's name or number; the last stage if not given.
    pub target: Option<String>,
}

/// An image that a stage begins with or copies from.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// The manifest's digest: what the chain of keys begins with.
    pub digest: String,
    /// Its configuration.
    pub config: ImageConfiguration,
}

/// An answer that could not be given; shown with the place in the Dockerfile that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What planning must know from outside.
pub trait World {
    /// The image of that name in the store.
    ///
    /// # Errors
    /// If there is none.
    fn image(&mut self, name: &str) -> Result<BaseImage, Problem>;

    /// The hash of all that `source` (a path or pattern of the build context) names.
    ///
    /// # Errors
    /// If it names nothing, or cannot be read.
    fn digest(&mut self, source: &str) -> Result<String, Problem>;
}

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An image of the store.
    Image(String),
    /// An earlier stage.
    Stage(usize),
}

/// The whole plan: only the stages that the target needs.
#[derive(Clone, Debug)]
pub struct Graph {
    /// In the order of the file, the target last.
    pub stages: Vec<Stage>,
    /// Things to tell that are no errors.
    pub notes: Vec<String>,
}

impl Graph {
    /// The stage with this number in the file.
    pub fn stage(&self, number: usize) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.number == number)
    }
}

/// One stage.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its number in the file, from 0.
    pub number: usize,
    /// Its name.
    pub name: Option<String>,
    /// What it begins with.
    pub base: Base,
    /// The base's digest, if it is an image.
    pub base_digest: Option<String>,
    /// The configuration of the image at the bottom, if there is one.
    pub base_config: Option<ImageConfiguration>,
    /// Where its FROM stands.
    pub span: Span,
    /// Its FROM, for progress.
    pub text: String,
    /// The steps that make layers.
    pub steps: Vec<Step>,
    /// One entry for each instruction that an image's history tells.
    pub history: Vec<Entry>,
    /// What is in effect at its end.
    pub effect: InEffect,
    /// The key of its last step, or of its base.
    pub key: Key,
}

/// One line of an image's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The instruction.
    pub created_by: String,
    /// The step (index in [`Stage::steps`]) that may have made a layer.
    pub step: Option<usize>,
}

/// A step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where its keyword stands.
    pub span: Span,
    /// The instruction as written, continuations joined.
    pub text: String,
    /// Its key.
    pub key: Key,
    /// What to do.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Makes a folder, unless it is there.
    Workdir {
        /// Absolute.
        path: String,
        /// Whose it is, as USER has it; empty for root.
        user: String,
    },
    /// Copies files.
    Copy(CopyAction),
    /// Runs a command.
    Run(RunAction),
}

/// What a COPY copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyAction {
    /// From where.
    pub from: From,
    /// What.
    pub sources: Vec<Item>,
    /// Absolute; ends with `/` if it was written as a folder.
    pub dest: String,
    /// `USER[:GROUP]`, or none for 0:0.
    pub chown: Option<String>,
    /// Permission bits, or none for the files' own.
    pub chmod: Option<u32>,
}

/// Where a COPY takes its files from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// The build context.
    Context,
    /// A stage of this build, by number.
    Stage(usize),
    /// An image: its name.
    Image(String),
}

/// One thing to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A path or pattern, with its content's hash if it comes from the context.
    Path {
        /// As written, expanded.
        path: String,
        /// Where it stands.
        span: Span,
        /// What [`World::digest`] said.
        digest: Option<String>,
    },
    /// A file that stands in the Dockerfile itself.
    Inline {
        /// Its name.
        name: String,
        /// Its content.
        body: String,
    },
}

/// What a RUN runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAction {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The environment: arguments, then ENV.
    pub env: Vec<(String, String)>,
    /// Absolute.
    pub workdir: String,
    /// As USER has it; empty for root.
    pub user: String,
}

/// Makes the plan.
///
/// # Errors
/// The first thing that cannot be, at its place in the Dockerfile.
pub fn plan(file: &Dockerfile, options: &PlanOptions, world: &mut dyn World) -> Result<Graph, SyntaxError> {
    let platform = Platform::host();
    let global = stage::globals(file, options, &platform)?;
    let outlines = outlines(file, &global)?;
    let target = target(file, options, &outlines)?;
    let needed = needed(&outlines, target);
    let mut graph = Graph { stages: Vec::new(), notes: Vec::new() };
    if let Some(syntax) = &file.syntax {
        graph.notes.push(format!("syntax {syntax}: hull reads the Dockerfile itself, no frontend is fetched"));
    }
    let mut used: Vec<String> = global.iter().map(|argument| argument.name.clone()).collect();
    for outline in outlines.iter().filter(|outline| needed.contains(&outline.number)) {
        let stage = stage::plan(file, options, &global, outline, &graph, world, &platform)?;
        used.extend(stage.effect.args.iter().map(|argument| argument.name.clone()));
        graph.stages.push(stage);
    }
    let unused = options.build_args.iter().filter(|(name, _)| !used.contains(name) && !stage::is_proxy(name));
    graph
        .notes
        .extend(unused.map(|(name, _)| format!("--build-arg {name} is not used: no ARG {name} in what is built")));
    Ok(graph)
}

/// A stage before its instructions are looked at.
pub(crate) struct Outline<'a> {
    number: usize,
    name: Option<String>,
    base: Base,
    base_span: Span,
    from: &'a Instruction,
    instructions: &'a [Instruction],
    /// The stages that its COPYs need.
    copies: Vec<usize>,
}

fn outlines<'a>(file: &'a Dockerfile, global: &[Argument]) -> Result<Vec<Outline<'a>>, SyntaxError> {
    let mut outlines: Vec<Outline<'a>> = Vec::new();
    let is_from = |instruction: &Instruction| matches!(instruction.kind, Kind::From { .. });
    for (index, from) in file.instructions.iter().enumerate() {
        let Kind::From { platform, image, name } = &from.kind else { continue };
        let rest = &file.instructions[index + 1..];
        let instructions = &rest[..rest.iter().position(is_from).unwrap_or(rest.len())];
        let base = base(file, image, global, &outlines)?;
        if let (Some(platform), Base::Image(_) | Base::Scratch) = (platform, &base) {
            check_platform(file, platform, global)?;
        }
        let mut outline = Outline {
            number: outlines.len(),
            name: name.as_ref().map(|name| name.text.clone()),
            base,
            base_span: image.span,
            from,
            instructions,
            copies: Vec::new(),
        };
        for instruction in instructions {
            if let Kind::Copy(crate::syntax::Copy { from: Some(word), .. }) = &instruction.kind
                && let From::Stage(number) = copy_from(file, word, &outlines)?
            {
                outline.copies.push(number);
            }
        }
        outlines.push(outline);
    }
    Ok(outlines)
}

fn base(file: &Dockerfile, image: &Word, global: &[Argument], earlier: &[Outline<'_>]) -> Result<Base, SyntaxError> {
    let name = expand_word(file, image, &|name| stage::lookup(global, name))?;
    if name.is_empty() {
        let mut error = file.error(image.span, format!("the base image's name {} is empty", image.text));
        error.hint = Some("give the ARG before FROM a default, or use --build-arg".into());
        return Err(error);
    }
    // The last stage of a name is the one that is meant.
    if let Some(stage) = earlier.iter().rev().find(|stage| is_named(stage, &name)) {
        return Ok(Base::Stage(stage.number));
    }
    Ok(if name == "scratch" { Base::Scratch } else { Base::Image(name) })
}

fn is_named(stage: &Outline<'_>, name: &str) -> bool {
    stage.name.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(name))
}

fn check_platform(file: &Dockerfile, word: &Word, global: &[Argument]) -> Result<(), SyntaxError> {
    let text = expand_word(file, word, &|name| stage::lookup(global, name))?;
    let host = Platform::host();
    if !text.is_empty() && Platform::parse(&text) != host {
        let message = format!("platform {text:?} is not this host's ({}): others are not supported yet", host.name());
        return Err(file.error(word.span, message));
    }
    Ok(())
}

/// What `--from` means: a stage's number or name, else an image.
fn copy_from(file: &Dockerfile, word: &Word, earlier: &[Outline<'_>]) -> Result<From, SyntaxError> {
    if word.text.contains('$') {
        let mut error = file.error(word.span, "variables are not expanded in --from");
        error.hint = Some("name the image in a stage of its own (FROM $X AS name) and copy --from=name".into());
        return Err(error);
    }
    if let Ok(number) = word.text.parse::<usize>() {
        return match number < earlier.len() {
            true => Ok(From::Stage(number)),
            false => Err(file.error(word.span, format!("there is no stage {number} before this one"))),
        };
    }
    let stage = earlier.iter().rev().find(|stage| is_named(stage, &word.text));
    match (stage, word.text.is_empty()) {
        (Some(stage), _) => Ok(From::Stage(stage.number)),
        (None, true) => Err(file.error(word.span, "--from is empty")),
        (None, false) => Ok(From::Image(word.text.clone())),
    }
}

fn target(file: &Dockerfile, options: &PlanOptions, outlines: &[Outline<'_>]) -> Result<usize, SyntaxError> {
    let Some(target) = &options.target else { return Ok(outlines.len() - 1) };
    let named = outlines.iter().rev().find(|stage| is_named(stage, target)).map(|stage| stage.number);
    let numbered = target.parse().ok().filter(|number| *number < outlines.len());
    named.or(numbered).ok_or_else(|| {
        let span = outlines.last().map_or(Span { line: 1, column: 1, width: 1 }, |last| last.from.span);
        let mut error = file.error(span, format!("there is no stage {target:?} (--target)"));
        let names: Vec<&str> = outlines.iter().filter_map(|stage| stage.name.as_deref()).collect();
        error.hint = (!names.is_empty()).then(|| format!("its stages are: {}", names.join(", ")));
        error
    })
}

fn needed(outlines: &[Outline<'_>], target: usize) -> Vec<usize> {
    let mut needed = vec![target];
    // Stages only refer to earlier ones, so one way down sees all.
    for number in (0..=target).rev() {
        if needed.contains(&number) {
            let stage = &outlines[number];
            needed.extend(&stage.copies);
            needed.extend(match stage.base {
                Base::Stage(base) => Some(base),
                _ => None,
            });
        }
    }
    needed
}

fn expand_word(file: &Dockerfile, word: &Word, lookup: &expand::Lookup<'_>) -> Result<String, SyntaxError> {
    expand::word(&word.text, file.escape, lookup).map_err(|error| file.error(word.span, error.to_string()))
}
