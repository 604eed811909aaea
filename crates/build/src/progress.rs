//! What a build tells while it goes on, in the manner of BuildKit's plain progress.

use std::io::{self, Write};
use std::time::Duration;

/// Hears of a build's steps.
pub trait Progress {
    /// A step begins: `label` is `[2/5]` or `[stage 2/5]`.
    fn begin(&mut self, label: &str, text: &str);
    /// The step that began last was found in the cache.
    fn cached(&mut self, label: &str, text: &str);
    /// A command's output.
    fn output(&mut self, data: &[u8]);
    /// The step that began last is done.
    fn done(&mut self, label: &str, took: Duration);
    /// Something to know that is no error.
    fn note(&mut self, text: &str);
}

/// Says nothing (`--quiet`).
#[derive(Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn begin(&mut self, _label: &str, _text: &str) {}
    fn cached(&mut self, _label: &str, _text: &str) {}
    fn output(&mut self, _data: &[u8]) {}
    fn done(&mut self, _label: &str, _took: Duration) {}
    fn note(&mut self, _text: &str) {}
}

/// One line for each step, and the commands' output between them.
#[derive(Debug)]
pub struct Plain<W> {
    to: W,
}

impl<W: Write> Plain<W> {
    /// Writes to `to`, standard error for a person.
    pub fn new(to: W) -> Self {
        Self { to }
    }

    fn say(&mut self, line: io::Result<()>) {
        // A build does not fail because nobody listens.
        let _ = line.and_then(|()| self.to.flush());
    }
}

/// The first line of an instruction, of a bearable length.
fn short(text: &str) -> String {
    const LONGEST: usize = 160;
    let line: String = text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    if line.chars().count() <= LONGEST && text.lines().count() <= 1 {
        return line;
    }
    line.chars().take(LONGEST).collect::<String>() + " …"
}

impl<W: Write> Progress for Plain<W> {
    fn begin(&mut self, label: &str, text: &str) {
        let line = writeln!(self.to, "{label} {}", short(text));
        self.say(line);
    }

    fn cached(&mut self, label: &str, text: &str) {
        let line = writeln!(self.to, "{label} CACHED {}", short(text));
        self.say(line);
    }

    fn output(&mut self, data: &[u8]) {
        let written = self.to.write_all(data);
        self.say(written);
    }

    fn done(&mut self, label: &str, took: Duration) {
        let line = writeln!(self.to, "{label} DONE {:.2}s", took.as_secs_f64());
        self.say(line);
    }

    fn note(&mut self, text: &str) {
        let line = writeln!(self.to, "note: {text}");
        self.say(line);
    }
}
