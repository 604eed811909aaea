//! Lines of the file -> logical lines: directives, comments, continuations and heredoc bodies.
//!
//! A logical line remembers where each of its bytes stood in the file, so that whatever is said of it later can point
//! there. It knows nothing of instructions but which of them may have heredocs.

use super::error::{Span, SyntaxError};

/// The file, cut into lines (without their ends).
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    lines: Vec<&'a str>,
    next: usize,
    pub(super) escape: char,
}

/// A line with its continuations joined.
#[derive(Debug, Default)]
pub(super) struct Logical {
    pub(super) text: String,
    pieces: Vec<Piece>,
}

/// Bytes of a logical line from `at` on stand in line `line` (index from 0) from byte `from` on.
#[derive(Debug)]
struct Piece {
    at: usize,
    line: usize,
    from: usize,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines: Vec<&str> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
        if lines.last() == Some(&"") {
            lines.pop();
        }
        Self { file, lines, next: 0, escape: '\\' }
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.into_iter().map(str::to_owned).collect()
    }

    /// The next line as it stands, with its index.
    pub(super) fn raw(&mut self) -> Option<(usize, &'a str)> {
        let line = self.lines.get(self.next)?;
        self.next += 1;
        Some((self.next - 1, line))
    }

    /// The next line, left where it is.
    pub(super) fn peek(&self) -> Option<&'a str> {
        self.lines.get(self.next).copied()
    }

    /// The next logical line: blank lines and comments are passed over, continuations are joined.
    pub(super) fn logical(&mut self) -> Option<Logical> {
        let (index, line) = loop {
            let (index, line) = self.raw()?;
            if !line.trim().is_empty() && !is_comment(line) {
                break (index, line);
            }
        };
        let mut logical = Logical::default();
        let mut open = self.push(&mut logical, index, line, line.len() - line.trim_start().len());
        while open {
            let Some((index, line)) = self.raw() else { break };
            if line.trim().is_empty() || is_comment(line) {
                continue;
            }
            open = self.push(&mut logical, index, line, 0);
        }
        logical.text.truncate(logical.text.trim_end().len());
        Some(logical)
    }

    /// Adds a line; true if it says that it goes on.
    fn push(&self, logical: &mut Logical, index: usize, line: &str, from: usize) -> bool {
        let trimmed = line.trim_end_matches([' ', '\t']);
        let body = match trimmed.strip_suffix(self.escape) {
            // An escaped escape character at the end is a character, not a continuation.
            Some(body) if !body.ends_with(self.escape) => Some(body),
            _ => None,
        };
        logical.pieces.push(Piece { at: logical.text.len(), line: index, from });
        logical.text.push_str(body.unwrap_or(line).get(from..).unwrap_or_default());
        body.is_some()
    }

    /// Where the bytes `start..end` of a logical line stand; a span ends with its line.
    pub(super) fn span(&self, logical: &Logical, start: usize, end: usize) -> Span {
        let piece = logical.pieces.iter().rev().find(|piece| piece.at <= start).or(logical.pieces.first());
        let Some(piece) = piece else { return Span { line: 1, column: 1, width: 1 } };
        let line = self.lines.get(piece.line).copied().unwrap_or_default();
        let from = (piece.from + start - piece.at).min(line.len());
        let to = (from + end.saturating_sub(start)).min(line.len());
        let count = |text: Option<&str>| text.map_or(0, |text| text.chars().count()) as u32;
        Span {
            line: piece.line as u32 + 1,
            column: count(line.get(..from)) + 1,
            width: count(line.get(from..to)).max(1),
        }
    }

    pub(super) fn error(&self, span: Span, message: impl Into<String>) -> SyntaxError {
        let source = self.lines.get(span.line as usize - 1).copied().unwrap_or_default().to_owned();
        SyntaxError { message: message.into(), hint: None, span, source, file: self.file.to_owned() }
    }

    /// The body of a heredoc: the lines up to one that is `delimiter` alone. `None` if there is none.
    pub(super) fn heredoc(&mut self, delimiter: &str, chomp: bool) -> Option<String> {
        let mut body = String::new();
        loop {
            let (_, line) = self.raw()?;
            let line = if chomp { line.trim_start_matches('\t') } else { line };
            if line == delimiter {
                return Some(body);
            }
            body.push_str(line);
            body.push('\n');
        }
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}
