//! One stage: its instructions in order, each applied to what is in effect.

use std::collections::BTreeSet;

use super::{
    Action, Base, BaseImage, CopyAction, Entry, From, Graph, Item, Key, KeyBuilder, Outline, PlanOptions, Platform,
    Problem, RunAction, Stage, Step, World, copy_from, expand_word,
};
use crate::expand;
use crate::syntax::{Command, Copy, CopySource, Dockerfile, Instruction, Kind, Span, SyntaxError, Word};

const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// What Docker gives an image without a base.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An ARG that is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its value, if it has one.
    pub value: Option<String>,
}

/// What the instructions so far have set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InEffect {
    /// ENV, in order. An entry of the base image without `=` is kept with the value `None`.
    pub env: Vec<(String, Option<String>)>,
    /// ARGs declared in this stage.
    pub args: Vec<Argument>,
    /// WORKDIR, absolute, or empty.
    pub workdir: String,
    /// USER, or empty.
    pub user: String,
    /// CMD.
    pub cmd: Option<Vec<String>>,
    /// ENTRYPOINT.
    pub entrypoint: Option<Vec<String>>,
    /// LABELs in order of their first appearance.
    pub labels: Vec<(String, String)>,
    /// EXPOSEd ports as `80/tcp`.
    pub ports: BTreeSet<String>,
}

/// Whether this argument is known without ARG, and is not part of keys or history unless declared.
pub(super) fn is_proxy(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let known = matches!(&*upper, "HTTP_PROXY" | "HTTPS_PROXY" | "FTP_PROXY" | "NO_PROXY" | "ALL_PROXY");
    known && (name == upper || name == name.to_ascii_lowercase())
}

pub(super) fn lookup(args: &[Argument], name: &str) -> Option<String> {
    args.iter().rev().find(|argument| argument.name == name).and_then(|argument| argument.value.clone())
}

fn given(options: &PlanOptions, name: &str) -> Option<String> {
    options.build_args.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value.clone())
}

/// The ARGs before the first FROM, with the platform's.
pub(super) fn globals(
    file: &Dockerfile,
    options: &PlanOptions,
    platform: &Platform,
) -> Result<Vec<Argument>, SyntaxError> {
    let automatic = platform.arguments().into_iter();
    let mut args: Vec<Argument> =
        automatic.map(|(name, value)| Argument { value: given(options, &name).or(Some(value)), name }).collect();
    for instruction in &file.instructions {
        let Kind::Arg(list) = &instruction.kind else { break };
        for (name, default) in list {
            let default =
                default.as_ref().map(|word| expand_word(file, word, &|name| lookup(&args, name))).transpose()?;
            let value = given(options, &name.text).or(default).or_else(|| lookup(&args, &name.text));
            args.push(Argument { name: name.text.clone(), value });
        }
    }
    Ok(args)
}

struct Builder<'a> {
    file: &'a Dockerfile,
    options: &'a PlanOptions,
    global: &'a [Argument],
    earlier: &'a Graph,
    outline: &'a Outline<'a>,
    world: &'a mut dyn World,
    effect: InEffect,
    cmd_set: bool,
    key: Key,
    steps: Vec<Step>,
    history: Vec<Entry>,
}

pub(super) fn plan(
    file: &Dockerfile,
    options: &PlanOptions,
    global: &[Argument],
    outline: &Outline<'_>,
    earlier: &Graph,
    world: &mut dyn World,
    platform: &Platform,
) -> Result<Stage, SyntaxError> {
    let (effect, key, base_digest, base_config) = match &outline.base {
        Base::Scratch => {
            let env = vec![("PATH".to_owned(), Some(DEFAULT_PATH.to_owned()))];
            (InEffect { env, ..InEffect::default() }, KeyBuilder::new("scratch").finish(), None, None)
        }
        Base::Image(name) => {
            let image = world.image(name).map_err(|problem| at(file, outline.base_span, problem))?;
            check_architecture(file, outline.base_span, name, &image, platform)?;
            let key = KeyBuilder::new("image").field(&image.digest).finish();
            (InEffect::of(&image), key, Some(image.digest), Some(image.config))
        }
        Base::Stage(number) => match earlier.stage(*number) {
            Some(stage) => {
                let effect = InEffect { args: Vec::new(), ..stage.effect.clone() };
                (effect, stage.key.clone(), stage.base_digest.clone(), stage.base_config.clone())
            }
            None => return Err(file.error(outline.base_span, "this stage was not planned")),
        },
    };
    let (steps, history) = (Vec::new(), Vec::new());
    let mut builder =
        Builder { file, options, global, earlier, outline, world, effect, cmd_set: false, key, steps, history };
    for instruction in outline.instructions {
        builder.apply(instruction)?;
    }
    Ok(Stage {
        number: outline.number,
        name: outline.name.clone(),
        base: outline.base.clone(),
        base_digest,
        base_config,
        span: outline.from.span,
        text: outline.from.text.clone(),
        steps: builder.steps,
        history: builder.history,
        effect: builder.effect,
        key: builder.key,
    })
}

fn at(file: &Dockerfile, span: Span, problem: Problem) -> SyntaxError {
    let mut error = file.error(span, problem.message);
    error.hint = problem.hint;
    error
}

fn check_architecture(
    file: &Dockerfile,
    span: Span,
    name: &str,
    image: &BaseImage,
    platform: &Platform,
) -> Result<(), SyntaxError> {
    let arch = image.config.architecture().to_string();
    if arch != platform.arch {
        let message = format!("image {name} is for {arch}, this host is {}", platform.name());
        return Err(file.error(span, message));
    }
    Ok(())
}

impl InEffect {
    fn of(image: &BaseImage) -> Self {
        let Some(config) = image.config.config() else { return Self::default() };
        let split = |entry: &String| match entry.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (entry.clone(), None),
        };
        let mut labels: Vec<(String, String)> = config.labels().clone().unwrap_or_default().into_iter().collect();
        labels.sort();
        Self {
            env: config.env().iter().flatten().map(split).collect(),
            args: Vec::new(),
            workdir: config.working_dir().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
            cmd: config.cmd().clone(),
            entrypoint: config.entrypoint().clone(),
            labels,
            ports: config.exposed_ports().iter().flatten().cloned().collect(),
        }
    }

    /// The value of a variable: ENV beats ARG.
    pub fn value(&self, name: &str) -> Option<String> {
        let env = self.env.iter().rev().find(|(own, value)| own == name && value.is_some());
        env.and_then(|(_, value)| value.clone()).or_else(|| lookup(&self.args, name))
    }

    /// The environment of a RUN that counts for its key: arguments with a value, then ENV.
    fn run_env(&self) -> Vec<(String, String)> {
        let mut env: Vec<(String, String)> = Vec::new();
        let args = self.args.iter().map(|argument| (argument.name.clone(), argument.value.clone()));
        for (name, value) in args.chain(self.env.iter().cloned()) {
            // An entry without `=` names a variable and gives it no value: it is never taken from our environment. One
            // without a name is no variable.
            if let Some(value) = value.filter(|_| !name.is_empty()) {
                set(&mut env, name, value);
            }
        }
        if !env.iter().any(|(name, _)| name == "PATH") {
            env.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
        }
        env
    }
}

fn set<V>(list: &mut Vec<(String, V)>, name: String, value: V) {
    match list.iter_mut().find(|(own, _)| *own == name) {
        Some((_, old)) => *old = value,
        None => list.push((name, value)),
    }
}

impl Builder<'_> {
    fn apply(&mut self, instruction: &Instruction) -> Result<(), SyntaxError> {
        let mut created_by = instruction.text.clone();
        let steps = self.steps.len();
        match &instruction.kind {
            Kind::From { .. } => return Ok(()),
            Kind::Arg(list) => self.arg(list)?,
            Kind::Env(list) => {
                let pairs = self.pairs(list)?;
                created_by =
                    pairs.iter().fold("ENV".to_owned(), |line, (name, value)| format!("{line} {name}={value}"));
                pairs.into_iter().for_each(|(name, value)| set(&mut self.effect.env, name, Some(value)));
            }
            Kind::Label(list) => {
                let pairs = self.pairs(list)?;
                created_by =
                    pairs.iter().fold("LABEL".to_owned(), |line, (name, value)| format!("{line} {name}={value}"));
                pairs.into_iter().for_each(|(name, value)| set(&mut self.effect.labels, name, value));
            }
            Kind::User(word) => {
                self.effect.user = self.not_empty(word)?;
                created_by = format!("USER {}", self.effect.user);
            }
            Kind::Expose(list) => self.expose(list)?,
            Kind::Cmd(command) => {
                self.effect.cmd = Some(argv(command));
                self.cmd_set = true;
                created_by = format!("CMD {:?}", argv(command));
            }
            Kind::Entrypoint(command) => {
                self.effect.entrypoint = Some(argv(command));
                // The base image's CMD was made for the base image's ENTRYPOINT.
                if !self.cmd_set {
                    self.effect.cmd = None;
                }
                created_by = format!("ENTRYPOINT {:?}", argv(command));
            }
            Kind::Workdir(word) => {
                self.workdir(instruction, word)?;
                created_by = format!("WORKDIR {}", self.effect.workdir);
            }
            Kind::Copy(copy) => self.copy(instruction, copy)?,
            Kind::Run(command) => created_by = self.run(instruction, command),
        }
        let step = (self.steps.len() > steps).then_some(steps);
        self.history.push(Entry { created_by, step });
        Ok(())
    }

    fn word(&self, word: &Word) -> Result<String, SyntaxError> {
        expand_word(self.file, word, &|name| self.effect.value(name))
    }

    fn not_empty(&self, word: &Word) -> Result<String, SyntaxError> {
        let value = self.word(word)?;
        if value.is_empty() {
            return Err(self.file.error(word.span, format!("{} is empty", word.text)));
        }
        Ok(value)
    }

    /// All pairs of one instruction see the same environment: the one before it.
    fn pairs(&self, list: &[(Word, Word)]) -> Result<Vec<(String, String)>, SyntaxError> {
        list.iter().map(|(name, value)| Ok((self.not_empty(name)?, self.word(value)?))).collect()
    }

    fn arg(&mut self, list: &[(Word, Option<Word>)]) -> Result<(), SyntaxError> {
        for (name, default) in list {
            let default = default.as_ref().map(|word| self.word(word)).transpose()?;
            let name = self.not_empty(name)?;
            let value = given(self.options, &name).or(default).or_else(|| lookup(self.global, &name));
            self.effect.args.retain(|argument| argument.name != name);
            self.effect.args.push(Argument { name, value });
        }
        Ok(())
    }

    fn expose(&mut self, list: &[Word]) -> Result<(), SyntaxError> {
        for word in list {
            for port in self.word(word)?.split_whitespace() {
                let (range, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                let (low, high) = range.split_once('-').unwrap_or((range, range));
                let protocol = protocol.to_ascii_lowercase();
                let numbers = (low.parse::<u16>().ok().filter(|low| *low > 0), high.parse::<u16>().ok());
                let ((Some(low), Some(high)), "tcp" | "udp" | "sctp") = (numbers, &*protocol) else {
                    let message = format!("{port:?} is no port: NUMBER[-NUMBER][/tcp|/udp|/sctp]");
                    return Err(self.file.error(word.span, message));
                };
                if low > high {
                    return Err(self.file.error(word.span, format!("the range {port} ends before it begins")));
                }
                self.effect.ports.extend((low..=high).map(|port| format!("{port}/{protocol}")));
            }
        }
        Ok(())
    }

    fn workdir(&mut self, instruction: &Instruction, word: &Word) -> Result<(), SyntaxError> {
        let path = clean(&join(&self.effect.workdir, &self.not_empty(word)?));
        self.effect.workdir.clone_from(&path);
        if path == "/" {
            return Ok(());
        }
        let user = self.effect.user.clone();
        let key = KeyBuilder::new("workdir").field(self.key.as_str()).field(&path).field(&user).finish();
        self.step(instruction, key, Action::Workdir { path, user });
        Ok(())
    }

    fn step(&mut self, instruction: &Instruction, key: Key, action: Action) {
        self.key = key.clone();
        self.steps.push(Step { span: instruction.span, text: instruction.text.clone(), key, action });
    }

    /// Returns the line for the history.
    fn run(&mut self, instruction: &Instruction, command: &Command) -> String {
        let argv = argv(command);
        let mut env = self.effect.run_env();
        let workdir = if self.effect.workdir.is_empty() { "/".to_owned() } else { self.effect.workdir.clone() };
        let user = self.effect.user.clone();
        let key = KeyBuilder::new("run")
            .field(self.key.as_str())
            .list(argv.iter())
            .list(env.iter().map(|(name, value)| format!("{name}={value}")))
            .field(&workdir)
            .field(&user)
            .finish();
        // Proxies are how this machine reaches the network, not what is built: they are no part of the key.
        for (name, value) in self.options.build_args.iter().filter(|(name, _)| is_proxy(name)) {
            if !env.iter().any(|(own, _)| own == name) {
                env.push((name.clone(), value.clone()));
            }
        }
        let line = format!("RUN {}", argv.join(" "));
        self.step(instruction, key, Action::Run(RunAction { argv, env, workdir, user }));
        line
    }

    fn copy(&mut self, instruction: &Instruction, copy: &Copy) -> Result<(), SyntaxError> {
        let from = match &copy.from {
            Some(word) => copy_from_planned(self.file, word, self.outline, self.earlier)?,
            None => From::Context,
        };
        let chown = copy.chown.as_ref().map(|word| self.not_empty(word)).transpose()?;
        let chmod = copy.chmod.as_ref().map(|word| self.mode(word)).transpose()?;
        let written = self.not_empty(&copy.dest)?;
        let folder = written.ends_with('/') || written == "." || written.ends_with("/.") || written.ends_with("..");
        let path = clean(&join(&self.effect.workdir, &written));
        let dest = if folder && path != "/" { format!("{path}/") } else { path };
        if copy.sources.len() > 1 && !dest.ends_with('/') {
            let mut error = self.file.error(copy.dest.span, "with several sources the destination must be a folder");
            error.hint = Some(format!("end it with a slash: {written}/"));
            return Err(error);
        }
        let origin = match &from {
            From::Context => String::new(),
            From::Stage(number) => {
                self.earlier.stage(*number).map_or_else(String::new, |stage| stage.key.as_str().to_owned())
            }
            From::Image(name) => {
                let span = copy.from.as_ref().map_or(instruction.span, |word| word.span);
                self.world.image(name).map_err(|problem| at(self.file, span, problem))?.digest
            }
        };
        let mut sources = Vec::new();
        let mut key = KeyBuilder::new("copy")
            .field(self.key.as_str())
            .field(&dest)
            .field(chown.as_deref().unwrap_or("0:0"))
            .field(chmod.map_or_else(String::new, |mode| format!("{mode:o}")))
            .field(&origin);
        for source in &copy.sources {
            let item = self.source(source, &from)?;
            key = match &item {
                // From the context the digest says it all, names included; elsewhere the path does, below the origin.
                Item::Path { digest: Some(digest), .. } => key.field("context").field(digest),
                Item::Path { path, .. } => key.field("path").field(path),
                Item::Inline { name, body } => key.field("inline").field(name).field(body),
            };
            sources.push(item);
        }
        self.step(instruction, key.finish(), Action::Copy(CopyAction { from, sources, dest, chown, chmod }));
        Ok(())
    }

    fn source(&mut self, source: &CopySource, from: &From) -> Result<Item, SyntaxError> {
        match source {
            CopySource::Inline { name, body, expand } => {
                let body = match expand {
                    true => expand::heredoc(body, self.file.escape, &|name| self.effect.value(name))
                        .map_err(|error| self.file.error(name.span, error.to_string()))?,
                    false => body.clone(),
                };
                Ok(Item::Inline { name: name.text.clone(), body })
            }
            CopySource::Path(word) => {
                let path = self.not_empty(word)?;
                let digest = match from {
                    From::Context => {
                        Some(self.world.digest(&path).map_err(|problem| at(self.file, word.span, problem))?)
                    }
                    _ => None,
                };
                Ok(Item::Path { path, span: word.span, digest })
            }
        }
    }

    fn mode(&self, word: &Word) -> Result<u32, SyntaxError> {
        let text = self.word(word)?;
        let octal = !text.is_empty() && text.chars().all(|c| c.is_digit(8));
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| octal && *mode <= 0o7777);
        mode.ok_or_else(|| {
            let symbolic = text.contains(['=', '+', '-']) && text.contains(['u', 'g', 'o', 'a', 'r', 'w', 'x']);
            let message = match symbolic {
                true => format!("a symbolic --chmod ({text}) is not supported yet"),
                false => format!("--chmod {text:?} is no octal mode between 0 and 7777"),
            };
            self.file.error(word.span, message)
        })
    }
}

/// As [`copy_from`], over the stages that are planned already.
fn copy_from_planned(
    file: &Dockerfile,
    word: &Word,
    outline: &Outline<'_>,
    earlier: &Graph,
) -> Result<From, SyntaxError> {
    // A number was checked when the outlines were made; a name means the last stage before this one.
    if let Some(number) = word.text.parse::<usize>().ok().filter(|number| *number < outline.number) {
        return Ok(From::Stage(number));
    }
    let named = |stage: &&Stage| {
        stage.number < outline.number && stage.name.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(&word.text))
    };
    match earlier.stages.iter().rev().find(named) {
        Some(stage) => Ok(From::Stage(stage.number)),
        None => copy_from(file, word, &[]),
    }
}

fn argv(command: &Command) -> Vec<String> {
    match command {
        Command::Exec(list) => list.clone(),
        Command::Shell(line) => SHELL.iter().map(|word| (*word).to_owned()).chain([line.clone()]).collect(),
    }
}

fn join(folder: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{folder}/{path}") }
}

/// An absolute path without `.`, `..` and doubled slashes; `..` stops at the root.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
