//! Dockerfile text -> syntax tree, without any I/O.
//!
//! Every word keeps its place, so that an error of any later step can show the line with a caret. Variables are not
//! expanded here: their values are known to [`crate::graph`] only. The language is that of
//! <https://docs.docker.com/reference/dockerfile/>; an instruction or flag that hull does not have yet is an error
//! that says so, none is passed over.

mod error;
mod instruction;
mod lines;
mod words;

use serde::Serialize;

pub use error::{Span, SyntaxError, did_you_mean};
use lines::Source;

/// A whole Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dockerfile {
    /// Its name as the user gave it, for messages.
    #[serde(skip)]
    pub file: String,
    /// The `syntax` directive: the frontend the author wanted. It is reported, not fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syntax: Option<String>,
    /// The escape character: `\`, or the backquote if a directive says so.
    pub escape: char,
    /// Instructions in the order of the file.
    pub instructions: Vec<Instruction>,
    #[serde(skip)]
    lines: Vec<String>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instruction {
    /// Where its keyword stands.
    pub span: Span,
    /// The instruction with its continuations joined and its keyword in capitals, for progress and history.
    pub text: String,
    /// What it says.
    pub kind: Kind,
}

/// A word as written (quotes, escapes and variables still in it) and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Word {
    /// The characters.
    pub text: String,
    /// Where.
    pub span: Span,
}

/// What an instruction says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `FROM [--platform=P] IMAGE [AS NAME]`
    From {
        /// The flag.
        platform: Option<Word>,
        /// An image, `scratch`, or the name of an earlier stage.
        image: Word,
        /// The stage's name, in lower case.
        name: Option<Word>,
    },
    /// `ARG NAME[=DEFAULT]…`
    Arg(Vec<(Word, Option<Word>)>),
    /// `ENV NAME=VALUE…`
    Env(Vec<(Word, Word)>),
    /// `LABEL NAME=VALUE…`
    Label(Vec<(Word, Word)>),
    /// `WORKDIR PATH`
    Workdir(Word),
    /// `USER USER[:GROUP]`
    User(Word),
    /// `COPY [FLAGS] SOURCE… DEST`
    Copy(Copy),
    /// `RUN COMMAND`
    Run(Command),
    /// `CMD COMMAND`
    Cmd(Command),
    /// `ENTRYPOINT COMMAND`
    Entrypoint(Command),
    /// `EXPOSE PORT[/PROTOCOL]…`
    Expose(Vec<Word>),
}

/// The arguments of COPY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copy {
    /// `--from`: a stage's name or number, or an image.
    pub from: Option<Word>,
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`
    pub chmod: Option<Word>,
    /// What to copy, in order.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub dest: Word,
}

/// One source of COPY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CopySource {
    /// A path or pattern.
    Path(Word),
    /// A heredoc: a file of that name with this content.
    Inline {
        /// The delimiter, which is the file's name.
        name: Word,
        /// The lines.
        body: String,
        /// Whether variables in the body are expanded.
        expand: bool,
    },
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// A JSON array: the program and its arguments.
    Exec(Vec<String>),
    /// A line for `/bin/sh -c`.
    Shell(String),
}

/// Reads a Dockerfile; `file` is its name for messages.
///
/// # Errors
/// The first mistake, with its place.
pub fn parse(file: &str, text: &str) -> Result<Dockerfile, SyntaxError> {
    let mut source = Source::new(file, text);
    let syntax = directives(&mut source)?;
    let mut instructions: Vec<Instruction> = Vec::new();
    while let Some(logical) = source.logical() {
        let instruction = instruction::read(&mut source, &logical)?;
        let in_stage = instructions.iter().any(|earlier| matches!(earlier.kind, Kind::From { .. }));
        if !in_stage && !matches!(instruction.kind, Kind::From { .. } | Kind::Arg(_)) {
            let mut error =
                source.error(instruction.span, "no build stage yet: only ARG may stand before the first FROM");
            error.hint = Some("begin the file with FROM and a base image, or FROM scratch".into());
            return Err(error);
        }
        instructions.push(instruction);
    }
    if !instructions.iter().any(|instruction| matches!(instruction.kind, Kind::From { .. })) {
        let span = instructions.last().map_or(Span { line: 1, column: 1, width: 1 }, |last| last.span);
        return Err(source.error(span, "a Dockerfile needs at least one FROM"));
    }
    let escape = source.escape;
    let lines = source.into_lines();
    Ok(Dockerfile { file: file.to_owned(), syntax, escape, instructions, lines })
}

impl Dockerfile {
    /// An error at a place of this file.
    pub fn error(&self, span: Span, message: impl Into<String>) -> SyntaxError {
        let source = self.lines.get(span.line as usize - 1).cloned().unwrap_or_default();
        SyntaxError { message: message.into(), hint: None, span, source, file: self.file.clone() }
    }
}

/// The directives at the top: `# name=value` comments, each name once, before anything else.
fn directives(source: &mut Source<'_>) -> Result<Option<String>, SyntaxError> {
    let mut syntax = None;
    let mut seen: Vec<String> = Vec::new();
    while let Some(line) = source.peek() {
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('=')) else { break };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if !matches!(&*name, "syntax" | "escape" | "check") {
            break;
        }
        let index = source.raw().map_or(0, |(index, _)| index);
        let column = line.chars().take_while(|c| c.is_whitespace()).count() as u32 + 1;
        let span = Span { line: index as u32 + 1, column, width: line.trim().chars().count() as u32 };
        if seen.contains(&name) {
            return Err(source.error(span, format!("the directive {name} is given twice")));
        }
        match (&*name, value) {
            ("syntax", value) => syntax = Some(value.to_owned()),
            ("escape", "\\") => source.escape = '\\',
            ("escape", "`") => source.escape = '`',
            ("escape", value) => {
                return Err(source.error(span, format!("escape is {value:?}, which is neither \\ nor `")));
            }
            _ => return Err(source.error(span, "the directive check is not supported yet")),
        }
        seen.push(name);
    }
    Ok(syntax)
}

#[cfg(test)]
mod tests;
