//! `--explain`: the log of `hull_sys::trace` as something to read.

mod html;
mod json;
mod text;

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hull_sys::trace::{Event, Role};

use crate::report::Report;

/// How to tell it, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    format: Format,
    file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Html,
}

impl FromStr for Explain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (format, file) = text.split_once(':').map_or((text, None), |(format, file)| (format, Some(file)));
        let format = match format {
            "text" | "" => Format::Text,
            "json" => Format::Json,
            "html" => Format::Html,
            other => return Err(format!("{other:?} is not a format that is supported; text, json and html are")),
        };
        if file == Some("") {
            return Err("a file's name is missing behind the colon".to_owned());
        }
        Ok(Self { format, file: file.map(PathBuf::from) })
    }
}

impl fmt::Display for Explain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.format {
            Format::Text => "text",
            Format::Json => "json",
            Format::Html => "html",
        })?;
        self.file.as_ref().map_or(Ok(()), |file| write!(f, ":{}", file.display()))
    }
}

impl Explain {
    /// Does `what` and tells how, also if it fails: what was done until then is what a reader needs most.
    ///
    /// # Errors
    /// Those of `what`. The file cannot be made, and then nothing was done; or not be written, or the log had no room for
    /// all events.
    pub fn around(&self, what: impl FnOnce() -> Result<i32, Report>) -> Result<i32, Report> {
        let unwritten = |path: &Path, error| Report::usage(format!("cannot write {}: {error}", path.display()), None);
        let file = self.file.as_deref().map(|path| File::create(path).map_err(|error| unwritten(path, error)));
        let file = file.transpose()?;
        hull_sys::trace::enable()
            .map_err(|error| Report::usage(format!("cannot make room for --explain: {error}"), None))?;
        let result = what();
        let (events, dropped) = hull_sys::trace::drain();
        let told = match self.format {
            Format::Text => text::render(&events),
            Format::Json => json::render(&events),
            Format::Html => html::render(&events),
        };
        match (file, &self.file) {
            (Some(mut file), Some(path)) => {
                file.write_all(told.as_bytes()).map_err(|error| unwritten(path, error))?;
            }
            _ => eprint!("{told}"),
        }
        match dropped {
            0 => result,
            count => Err(Report::usage(format!("the explanation lacks {count} events: there was no room"), None)),
        }
    }
}

/// One event on one line.
pub(crate) fn line(event: &Event) -> String {
    use hull_sys::trace::Kind;
    match event.kind {
        Kind::Stage => format!("{}: {}", event.name, event.args),
        Kind::Call | Kind::Walk => {
            let micros = event.duration as f64 / 1000.0;
            format!("[{}] {}({}) = {} in {micros:.1} us", role(event.role), event.name, event.args, result(event))
        }
    }
}

/// Who made a call, as people read it.
fn role(role: Role) -> &'static str {
    match role {
        Role::Parent => "parent",
        Role::Child => "container",
    }
}

/// What the kernel answered, as strace shows it.
fn result(event: &Event) -> String {
    match event.result {
        None => "?".to_owned(),
        Some(Ok(number)) => number.to_string(),
        Some(Err(errno)) => format!("-1 {}", hull_sys::ErrnoText(errno)),
    }
}
