//! The story of a build: each step is found in the cache, or performed on a layer of its own and adopted.
//!
//! Stages come in the order of the file, steps in the order of the stage. What the store does (layers, overlay mounts)
//! and how a command is run is a [`Worker`]'s; the order and the rules are here.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use hull_image::Reference;
use hull_sys::path::Root;
use hull_sys::trace;
use oci_spec::image::ImageConfiguration;

use crate::context::{self, Context};
use crate::copy::{Copier, Look, make_folders};
use crate::error::{Error, Result};
use crate::graph::{Action, Base, BaseImage, CopyAction, From, Graph, Item, Key, Problem, RunAction, Stage, Step};
use crate::progress::Progress;
use crate::syntax::{Dockerfile, Span};
use crate::walk::Filter;

/// What a plan needs to know of the machine: which images there are, and what earlier builds made.
pub trait Known {
    /// The image of that name.
    ///
    /// # Errors
    /// If the store has none.
    fn base(&mut self, name: &str) -> std::result::Result<BaseImage, Problem>;
    /// Whether an earlier build made what is under this key, and it is still there.
    ///
    /// # Errors
    /// If that cannot be read.
    fn has(&mut self, key: &Key) -> Result<bool>;
}

/// What a build needs of the machine: a store of layers, and a way to run a command.
///
/// A staging is undone when it is dropped, whatever happened on it.
pub trait Worker: Known {
    /// A layer that is whole.
    type Layer: Clone;
    /// A layer that is being made.
    type Staging;

    /// The layers of an image of the store, the lowest first.
    fn image(&mut self, name: &str) -> Result<Vec<Self::Layer>>;
    /// What an earlier build made under this key, if it is still there.
    fn cached(&mut self, key: &Key) -> Result<Option<Made<Self::Layer>>>;
    /// Remembers it. What another build remembered meanwhile is given instead, unless it is to be replaced.
    fn remember(&mut self, key: &Key, made: Made<Self::Layer>, replace: bool) -> Result<Made<Self::Layer>>;
    /// A new, empty layer above `parents`, and the file system of all of them, writable, as a detached mount.
    fn stage(&mut self, parents: &[Self::Layer]) -> Result<(Self::Staging, OwnedFd)>;
    /// The file system of `layers`, only for reading.
    fn view(&mut self, layers: &[Self::Layer]) -> Result<OwnedFd>;
    /// The staging becomes a layer above `parents`. Its mount is closed by now.
    fn adopt(&mut self, parents: &[Self::Layer], staging: Self::Staging) -> Result<Self::Layer>;
    /// Runs a command in `root`; its exit status, 128+n for signal n.
    fn run(&mut self, root: OwnedFd, action: &RunAction, progress: &mut dyn Progress) -> Result<i32>;
    /// Writes the image of these layers and gives its id. It gets each of the names, or none.
    fn commit(&mut self, config: ImageConfiguration, layers: &[Self::Layer], names: &[Reference]) -> Result<String>;
    /// Writes the file system of the layers to the folder `dest`.
    fn export(&mut self, layers: &[Self::Layer], dest: &Path) -> Result<()>;
    /// Removes the layers that what was remembered has replaced, where nothing else uses them. The build has ended.
    fn tidy(&mut self) -> Result<()>;
    /// Now, as RFC 3339 has it.
    fn now(&self) -> String;
}

/// What a step made.
#[derive(Clone, Debug)]
pub struct Made<L> {
    /// Its layer; none if it changed nothing.
    pub layer: Option<L>,
    /// When.
    pub created: String,
}

/// What a stage came to.
#[derive(Clone, Debug)]
pub struct Solved<L> {
    /// All its layers, those of its base first.
    pub layers: Vec<L>,
    /// One for each line of its own history and of those of the stages below: who made it, when, and whether it made
    /// a layer.
    pub history: Vec<Line>,
    /// When its last step was made; none if it has no steps.
    pub created: Option<String>,
}

/// A line of an image's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The instruction.
    pub created_by: String,
    /// When, if it was a step.
    pub created: Option<String>,
    /// Whether it made no layer.
    pub empty: bool,
}

/// A build going on.
pub struct Solver<'a, W: Worker> {
    /// The Dockerfile, to show its lines.
    pub file: &'a Dockerfile,
    /// The build context.
    pub context: &'a Context,
    /// The machine.
    pub worker: &'a mut W,
    /// Who hears of it.
    pub progress: &'a mut dyn Progress,
    /// `--no-cache`
    pub no_cache: bool,
}

impl<W: Worker> Solver<'_, W> {
    /// Performs the plan and gives what its last stage came to.
    ///
    /// # Errors
    /// The first step that fails, at its line; what it had begun is undone, the steps before it stay in the cache.
    pub fn solve(mut self, graph: &Graph) -> Result<Solved<W::Layer>> {
        graph.notes.iter().for_each(|note| self.progress.note(note));
        let mut solved: HashMap<usize, Solved<W::Layer>> = HashMap::new();
        let mut last = None;
        for stage in &graph.stages {
            let result = self.stage(stage, graph.stages.len() > 1, &solved)?;
            solved.insert(stage.number, result);
            last = Some(stage.number);
        }
        let target = last.and_then(|number| solved.remove(&number));
        target.ok_or_else(|| Error::host("build the target", "the plan has no stage"))
    }

    fn stage(
        &mut self,
        stage: &Stage,
        several: bool,
        earlier: &HashMap<usize, Solved<W::Layer>>,
    ) -> Result<Solved<W::Layer>> {
        let total = stage.steps.len() + 1;
        let name = stage.name.clone().unwrap_or_else(|| format!("stage-{}", stage.number));
        let label = |number: usize| match several {
            true => format!("[{name} {number}/{total}]"),
            false => format!("[{number}/{total}]"),
        };
        self.progress.begin(&label(1), &stage.text);
        let mut result = match &stage.base {
            Base::Scratch => Solved { layers: Vec::new(), history: Vec::new(), created: None },
            Base::Image(name) => Solved { layers: self.worker.image(name)?, history: Vec::new(), created: None },
            Base::Stage(number) => earlier
                .get(number)
                .cloned()
                .ok_or_else(|| Error::host("build a stage", format!("stage {number} was not built")))?,
        };
        let mut made = Vec::new();
        for (index, step) in stage.steps.iter().enumerate() {
            let one = self.step(&label(index + 2), step, &result.layers, earlier)?;
            result.layers.extend(one.layer.clone());
            result.created = Some(one.created.clone());
            made.push(one);
        }
        for entry in &stage.history {
            let step = entry.step.and_then(|index| made.get(index));
            result.history.push(Line {
                created_by: entry.created_by.clone(),
                created: step.map(|made| made.created.clone()),
                empty: step.is_none_or(|made| made.layer.is_none()),
            });
        }
        Ok(result)
    }

    fn step(
        &mut self,
        label: &str,
        step: &Step,
        parents: &[W::Layer],
        earlier: &HashMap<usize, Solved<W::Layer>>,
    ) -> Result<Made<W::Layer>> {
        if !self.no_cache
            && let Some(made) = self.worker.cached(&step.key)?
        {
            trace::stage(
                &format!("{label} {} is cached", step.text),
                "the same step was made before from the same parent",
            );
            self.progress.cached(label, &step.text);
            return Ok(made);
        }
        trace::stage(&format!("{label} {}", step.text), "no earlier build made this step: it is made on a new layer");
        self.progress.begin(label, &step.text);
        let begun = Instant::now();
        // The mount belongs to the call that changes it and is closed before the layer is adopted.
        let (staging, root) = self.worker.stage(parents).map_err(|error| self.at(step.span, error.to_string()))?;
        let changed = match &step.action {
            Action::Workdir { path, user } => self.workdir(step, root, path, user)?,
            Action::Copy(copy) => self.copy(step, root, copy, earlier)?,
            Action::Run(run) => self.run(step, root, run)?,
        };
        let layer = match changed {
            true => Some(self.worker.adopt(parents, staging).map_err(|error| self.at(step.span, error.to_string()))?),
            false => None,
        };
        let made = Made { layer, created: self.worker.now() };
        let made = self.worker.remember(&step.key, made, self.no_cache)?;
        self.progress.done(label, begun.elapsed());
        Ok(made)
    }

    /// An error of a step, at its place.
    fn at(&self, span: Span, message: String) -> Error {
        Error::Step(Box::new(self.file.error(span, message)))
    }

    fn workdir(&self, step: &Step, root: OwnedFd, path: &str, user: &str) -> Result<bool> {
        let root = Root::from_fd(root);
        let owner = self.owner(step.span, &root, user)?;
        make_folders(&root, Path::new(path), owner.0, owner.1)
            .map_err(|error| self.at(step.span, format!("cannot make {path} in the image: {error}")))
    }

    fn owner(&self, span: Span, root: &Root, user: &str) -> Result<(u32, u32)> {
        if user.is_empty() {
            return Ok((0, 0));
        }
        let found = hull_engine::user::resolve(root, user).map_err(|error| self.at(span, error.to_string()))?;
        // As Docker has it: a number alone is the user and the group.
        let alone = !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_digit());
        Ok((found.uid, if alone { found.uid } else { found.gid }))
    }

    fn run(&mut self, step: &Step, root: OwnedFd, action: &RunAction) -> Result<bool> {
        let status =
            self.worker.run(root, action, self.progress).map_err(|error| self.at(step.span, error.to_string()))?;
        if status != 0 {
            let place =
                self.file.error(step.span, format!("{} failed", step.text.lines().next().unwrap_or_default()));
            return Err(Error::Command { place: Box::new(place), command: action.argv.join(" "), status });
        }
        Ok(true)
    }

    fn copy(
        &mut self,
        step: &Step,
        root: OwnedFd,
        action: &CopyAction,
        earlier: &HashMap<usize, Solved<W::Layer>>,
    ) -> Result<bool> {
        let layers = match &action.from {
            From::Context => None,
            From::Stage(number) => Some(earlier.get(number).map(|stage| stage.layers.clone()).unwrap_or_default()),
            From::Image(name) => Some(self.worker.image(name)?),
        };
        let other = layers.map(|layers| self.worker.view(&layers)).transpose()?.map(Root::from_fd);
        let root = Root::from_fd(root);
        let (uid, gid) = self.owner(step.span, &root, action.chown.as_deref().unwrap_or(""))?;
        let mut copier = Copier::new(&root, Look { uid, gid, mode: action.chmod });
        for item in &action.sources {
            self.item(step, &mut copier, item, other.as_ref(), action)?;
        }
        Ok(true)
    }

    fn item(
        &self,
        step: &Step,
        copier: &mut Copier<'_>,
        item: &Item,
        other: Option<&Root>,
        action: &CopyAction,
    ) -> Result<()> {
        let several = action.sources.len() > 1;
        let (path, span, digest) = match item {
            Item::Inline { name, body } => {
                let copied = copier.inline(name, body, &action.dest, several);
                return copied.map_err(|error| self.at(step.span, format!("cannot write {name}: {error}")));
            }
            Item::Path { path, span, digest } => (path, *span, digest),
        };
        let problem = |problem: Problem| {
            let mut error = self.file.error(span, problem.message);
            error.hint = problem.hint;
            Error::Step(Box::new(error))
        };
        let found = match other {
            None => self.context.find(path),
            Some(other) => context::find(other, path, "the stage or image it is copied from"),
        };
        let found = found.map_err(problem)?;
        if found.is_empty() {
            return Err(self.at(span, format!("{path} is not in the stage or image it is copied from")));
        }
        let into = several || found.len() > 1;
        for found in &found {
            let filter = if other.is_none() { self.context.filter(found) } else { Filter::default() };
            copier
                .copy(found, &filter, &action.dest, into)
                .map_err(|error| self.at(span, format!("cannot copy {}: {error}", copier.current.display())))?;
        }
        // The key says what the files were when they were hashed; a layer of other files must not be kept under it.
        if let (None, Some(before)) = (other, digest)
            && self.context.digest(path).map_err(problem)? != *before
        {
            return Err(self.at(span, format!("{path} changed while it was copied")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
