//! A template's text in pieces: literal text, and the words of each `{{ … }}`.
//!
//! Source: the documentation of Go's `text/template`, "Text and spaces" and "Actions"; Go's grammar of strings and numbers.

use serde_json::Value;

use crate::Error;

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    Text(String),
    /// The words between `{{` and `}}`, and where it begins.
    Action(usize, Vec<Word>),
}

/// A word of an action, with where it stands and whether space is before it: `.A .B` is two, `.A.B` one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Word {
    pub at: usize,
    pub spaced: bool,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// `.` alone.
    Dot,
    /// `.Name`.
    Field(String),
    /// `$` or `$name`.
    Variable(String),
    /// `name`.
    Name(String),
    Literal(Value),
    Pipe,
    Open,
    Close,
    Comma,
    Declare,
    Assign,
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

pub(crate) fn lex(text: &str) -> Result<Vec<Piece>, Error> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut trim = false;
    while at < text.len() {
        let start = text[at..].find("{{").map_or(text.len(), |found| at + found);
        let inside = start + 2;
        let trim_before = text.get(inside..).is_some_and(trims_before);
        let mut literal = &text[at..start];
        if trim {
            literal = literal.trim_start_matches(SPACE);
        }
        if trim_before {
            literal = literal.trim_end_matches(SPACE);
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.to_owned()));
        }
        if start == text.len() {
            break;
        }
        let from = if trim_before { inside + 2 } else { inside };
        (at, trim) = match comment(text, from)? {
            Some(end) => end,
            None => {
                let (words, end, trim) = action(text, from)?;
                pieces.push(Piece::Action(start, words));
                (end, trim)
            }
        };
    }
    Ok(pieces)
}

/// `-` and a space behind `{{`.
fn trims_before(rest: &str) -> bool {
    rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(SPACE))
}

/// `}}` or ` -}}`: how long it is and whether it trims.
fn end_of_action(rest: &str) -> Option<(usize, bool)> {
    if rest.starts_with("}}") {
        return Some((2, false));
    }
    let trimmed = rest.trim_start_matches(SPACE);
    let spaces = rest.len() - trimmed.len();
    (spaces > 0 && trimmed.starts_with("-}}")).then_some((spaces + 3, true))
}

/// `/* … */`, which is all that an action has then: where it ends, and whether it trims.
fn comment(text: &str, from: usize) -> Result<Option<(usize, bool)>, Error> {
    let Some(rest) = text[from..].strip_prefix("/*") else { return Ok(None) };
    let end = rest.find("*/").ok_or_else(|| Error::new(from, "the comment does not end"))?;
    let behind = from + 2 + end + 2;
    let (length, trim) =
        end_of_action(&text[behind..]).ok_or_else(|| Error::new(behind, "a comment stands alone in its action"))?;
    Ok(Some((behind + length, trim)))
}

fn action(text: &str, from: usize) -> Result<(Vec<Word>, usize, bool), Error> {
    let mut words = Vec::new();
    let mut at = from;
    loop {
        if let Some((length, trim)) = end_of_action(&text[at..]) {
            return Ok((words, at + length, trim));
        }
        let rest = text[at..].trim_start_matches(SPACE);
        let spaced = rest.len() < text.len() - at;
        at = text.len() - rest.len();
        if rest.is_empty() {
            return Err(Error::new(at, "an action does not end: }} is missing"));
        }
        if let Some((length, trim)) = end_of_action(rest) {
            return Ok((words, at + length, trim));
        }
        let (kind, length) = word(rest).map_err(|why| Error::new(at, why))?;
        words.push(Word { at, spaced, kind });
        at += length;
    }
}

fn word(rest: &str) -> Result<(Kind, usize), String> {
    for (sign, kind) in [
        (":=", Kind::Declare),
        ("=", Kind::Assign),
        ("|", Kind::Pipe),
        ("(", Kind::Open),
        (")", Kind::Close),
        (",", Kind::Comma),
    ] {
        if rest.starts_with(sign) {
            return Ok((kind, sign.len()));
        }
    }
    let first = rest.chars().next().unwrap_or_default();
    match first {
        '.' if !rest[1..].starts_with(|next: char| next.is_ascii_digit()) => {
            let name = name(&rest[1..]);
            let kind = if name.is_empty() { Kind::Dot } else { Kind::Field(name.to_owned()) };
            Ok((kind, 1 + name.len()))
        }
        '$' => {
            let name = name(&rest[1..]);
            Ok((Kind::Variable(name.to_owned()), 1 + name.len()))
        }
        '"' => quoted(rest),
        '`' => {
            let end = rest[1..].find('`').ok_or("a text in ` does not end")?;
            Ok((Kind::Literal(Value::from(&rest[1..=end])), end + 2))
        }
        '0'..='9' | '.' | '-' | '+' => number(rest),
        _ if is_letter(first) => {
            let name = name(rest);
            let kind = match name {
                "true" => Kind::Literal(true.into()),
                "false" => Kind::Literal(false.into()),
                "nil" => Kind::Literal(Value::Null),
                name => Kind::Name(name.to_owned()),
            };
            Ok((kind, name.len()))
        }
        other => Err(format!("{other:?} means nothing here")),
    }
}

fn is_letter(character: char) -> bool {
    character == '_' || character.is_alphabetic()
}

fn name(text: &str) -> &str {
    let end = text.find(|character: char| !is_letter(character) && !character.is_numeric());
    &text[..end.unwrap_or(text.len())]
}

fn number(rest: &str) -> Result<(Kind, usize), String> {
    let part = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '+' | '-' | '_');
    let end = rest.find(|character| !part(character)).unwrap_or(rest.len());
    let text = rest[..end].replace('_', "");
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let based = [("0x", 16), ("0X", 16), ("0o", 8), ("0b", 2)];
    let based = based.iter().find_map(|(prefix, base)| Some((digits.strip_prefix(prefix)?, *base)));
    let (digits, base) = based.unwrap_or((digits, 10));
    let whole = i64::from_str_radix(digits, base).ok().map(|whole| if negative { -whole } else { whole });
    let value = match whole {
        Some(whole) => Some(Value::from(whole)),
        None => text.parse::<f64>().ok().filter(|value| value.is_finite()).map(Value::from),
    };
    value.map(|value| (Kind::Literal(value), end)).ok_or_else(|| format!("{:?} is no number", &rest[..end]))
}

/// A text in double quotes, with Go's escapes.
fn quoted(rest: &str) -> Result<(Kind, usize), String> {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((Kind::Literal(text.into()), at + 1)),
            '\n' => break,
            '\\' => {
                let escape = characters.next().map(|(_, escape)| escape).unwrap_or_default();
                let mut code = |digits: usize| -> Option<char> {
                    let digits: String = characters.by_ref().take(digits).map(|(_, digit)| digit).collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
                };
                let meant = match escape {
                    'a' => Some('\u{7}'),
                    'b' => Some('\u{8}'),
                    'f' => Some('\u{c}'),
                    'n' => Some('\n'),
                    'r' => Some('\r'),
                    't' => Some('\t'),
                    'v' => Some('\u{b}'),
                    '\\' | '"' => Some(escape),
                    'x' => code(2).filter(char::is_ascii),
                    'u' => code(4),
                    'U' => code(8),
                    _ => None,
                };
                text.push(meant.ok_or_else(|| format!("\\{escape} is no escape"))?);
            }
            other => text.push(other),
        }
    }
    Err("a text in \" does not end".to_owned())
}
