//! The log of the OCI verbs, in the two shapes of runc's.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use clap::ValueEnum;
use jiff::Timestamp;

use crate::report::Report;

/// A line's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// Where errors are told.
#[derive(Clone)]
pub struct Log {
    file: Option<PathBuf>,
    format: Format,
}

impl Log {
    pub fn new(file: Option<PathBuf>, format: Format) -> Self {
        Self { file, format }
    }

    /// Tells why nothing more is done; gives the exit status. With a file the reason is on standard error as well, plain.
    pub fn fatal(&self, report: &Report) -> i32 {
        self.write("error", report.message());
        if self.file.is_some() {
            eprintln!("{}", report.message());
        }
        1
    }

    /// Tells what went wrong without changing anything.
    pub fn warn(&self, warnings: impl IntoIterator<Item = impl std::fmt::Display>) {
        warnings.into_iter().for_each(|warning| self.write("warning", &warning.to_string()));
    }

    /// Does `what` and tells every system call of it.
    pub fn explained(&self, what: impl FnOnce() -> Result<i32, Report>) -> Result<i32, Report> {
        hull_sys::trace::enable().map_err(|error| Report::host("make room for --debug", error))?;
        let result = what();
        for event in hull_sys::trace::drain().0 {
            self.write("debug", &crate::explain::line(&event));
        }
        result
    }

    fn write(&self, level: &str, message: &str) {
        let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let line = match self.format {
            Format::Json => format!("{}\n", serde_json::json!({"level": level, "msg": message, "time": time})),
            Format::Text => format!("time={time:?} level={level} msg={message:?}\n"),
        };
        let written = self.file.as_ref().map(|file| {
            let opened = OpenOptions::new().append(true).create(true).open(file);
            opened.and_then(|mut file| file.write_all(line.as_bytes()))
        });
        if !matches!(written, Some(Ok(()))) {
            eprint!("{line}");
        }
    }
}
