//! What is wrong in a Dockerfile, and where: the message, the line and the span under which the caret goes.

use std::fmt;

use serde::Serialize;

/// A piece of one line of a Dockerfile. Lines and columns count from 1, columns and widths in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Line, from 1.
    pub line: u32,
    /// Column of the first character, from 1.
    pub column: u32,
    /// Characters; never 0, so that a caret always has a place.
    pub width: u32,
}

/// An error with its place in a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// What is wrong.
    pub message: String,
    /// What to do about it, if that can be said.
    pub hint: Option<String>,
    /// Where.
    pub span: Span,
    /// The line itself, without its end.
    pub source: String,
    /// The Dockerfile as the user named it.
    pub file: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { line, column, width } = self.span;
        writeln!(f, "{}:{line}:{column}: {}", self.file, self.message)?;
        let margin = line.to_string();
        writeln!(f, " {margin} | {}", Printable(&self.source))?;
        let before: String = self.source.chars().take(column as usize - 1).map(keep_tab).collect();
        let room = self.source.chars().count().saturating_sub(column as usize - 1).max(1);
        let carets = "^".repeat((width as usize).clamp(1, room));
        write!(f, " {:1$} | {before}{carets}", "", margin.len())
    }
}

impl std::error::Error for SyntaxError {}

/// A line of somebody else's file on our terminal: control characters but tabs are shown as a replacement.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| write!(f, "{}", if c.is_control() && c != '\t' { '\u{fffd}' } else { c }))
    }
}

fn keep_tab(c: char) -> char {
    if c == '\t' { '\t' } else { ' ' }
}

/// The candidate nearest to `word`, if it is near enough to be a slip of the fingers.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = if word.len() <= 3 { 1 } else { 2 };
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insertion, removal, replacement, swap of neighbours) that lead from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let same = usize::from(a[i - 1] != b[j - 1]);
                    let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + same);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        best = best.min(rows[i - 2][j - 2] + 1);
                    }
                    best
                }
            };
        }
    }
    rows[a.len()][b.len()]
}
