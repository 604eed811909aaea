//! Variables and quotes in a word, as Docker's builder has them (BuildKit's `shell/lex.go`), which is near the
//! shell's way but not the same.
//!
//! `$v ${v} ${v:-w} ${v-w} ${v:+w} ${v+w} ${v:?e} ${v?e} ${v#p} ${v##p} ${v%p} ${v%%p} ${v/p/r} ${v//p/r}`. Quotes are
//! taken off: nothing is expanded in single ones; in double ones the escape character only escapes `"`, `$` and itself.

use std::iter::Peekable;
use std::str::Chars;

use crate::glob::{Dialect, Pattern};

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A quote that is never closed.
    #[error("no closing {0} in this word")]
    OpenQuote(char),
    /// `${` without `}`.
    #[error("no closing }} for ${{")]
    OpenBrace,
    /// `${}` or `${:x}`.
    #[error("bad substitution: ${{ needs a name")]
    NoName,
    /// `${v^}` and the like.
    #[error("unsupported modifier {0} in ${{{1}…}}")]
    Modifier(String, String),
    /// `${v:?message}` with v unset.
    #[error("{0}: {1}")]
    Required(String, String),
}

/// The value of a variable, if it is set.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Expands `word` to one string, without quotes.
///
/// # Errors
/// See [`ExpandError`].
pub fn word(word: &str, escape: char, lookup: &Lookup<'_>) -> Result<String, ExpandError> {
    let lexer = Lexer { chars: word.chars().peekable(), escape, lookup, quotes: true };
    lexer.whole()
}

/// Expands the body of a heredoc: variables as in [`word`], quotes are characters like others.
///
/// # Errors
/// See [`ExpandError`].
pub fn heredoc(body: &str, escape: char, lookup: &Lookup<'_>) -> Result<String, ExpandError> {
    let lexer = Lexer { chars: body.chars().peekable(), escape, lookup, quotes: false };
    lexer.whole()
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    escape: char,
    lookup: &'a Lookup<'a>,
    quotes: bool,
}

impl Lexer<'_> {
    fn whole(mut self) -> Result<String, ExpandError> {
        self.until(None, false)
    }

    /// Up to `stop` (taken) or the end. With `raw`, escapes stay in the text: a pattern has its own.
    fn until(&mut self, stop: Option<char>, raw: bool) -> Result<String, ExpandError> {
        let mut out = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                c if Some(c) == stop => return Ok(out),
                '\'' if self.quotes => self.single(&mut out)?,
                '"' if self.quotes => self.double(&mut out)?,
                '$' => self.dollar(&mut out)?,
                c if c == self.escape => {
                    if raw
                        || (!self.quotes && !self.chars.peek().is_some_and(|c| matches!(c, '$') || *c == self.escape))
                    {
                        out.push(c);
                    }
                    out.extend(self.chars.next());
                }
                c => out.push(c),
            }
        }
        if stop.is_some() { Err(ExpandError::OpenBrace) } else { Ok(out) }
    }

    fn single(&mut self, out: &mut String) -> Result<(), ExpandError> {
        loop {
            match self.chars.next() {
                Some('\'') => return Ok(()),
                Some(c) => out.push(c),
                None => return Err(ExpandError::OpenQuote('\'')),
            }
        }
    }

    fn double(&mut self, out: &mut String) -> Result<(), ExpandError> {
        loop {
            match self.chars.next() {
                Some('"') => return Ok(()),
                Some('$') => self.dollar(out)?,
                Some(c) if c == self.escape => match self.chars.next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => out.push(next),
                    next => out.extend([Some(c), next].into_iter().flatten()),
                },
                Some(c) => out.push(c),
                None => return Err(ExpandError::OpenQuote('"')),
            }
        }
    }

    fn dollar(&mut self, out: &mut String) -> Result<(), ExpandError> {
        if self.chars.next_if_eq(&'{').is_none() {
            let name = self.name();
            match name.is_empty() {
                true => out.push('$'),
                false => out.push_str(&(self.lookup)(&name).unwrap_or_default()),
            }
            return Ok(());
        }
        let name = self.name();
        if name.is_empty() {
            return Err(if self.chars.peek().is_none() { ExpandError::OpenBrace } else { ExpandError::NoName });
        }
        let value = (self.lookup)(&name);
        let modifier = self.chars.next().ok_or(ExpandError::OpenBrace)?;
        let expanded = match modifier {
            '}' => value.unwrap_or_default(),
            ':' => {
                let modifier = self.chars.next().ok_or(ExpandError::OpenBrace)?;
                self.default(&name, value.filter(|value| !value.is_empty()), modifier, ":")?
            }
            '-' | '+' | '?' => self.default(&name, value, modifier, "")?,
            '#' | '%' => {
                let greedy = self.chars.next_if_eq(&modifier).is_some();
                let pattern = self.until(Some('}'), true)?;
                trim(&value.unwrap_or_default(), &pattern, modifier == '#', greedy)
            }
            '/' => {
                let all = self.chars.next_if_eq(&'/').is_some();
                let pattern = self.until(Some('/'), true)?;
                let replacement = self.until(Some('}'), false)?;
                replace(&value.unwrap_or_default(), &pattern, &replacement, all)
            }
            other => return Err(ExpandError::Modifier(other.to_string(), name)),
        };
        out.push_str(&expanded);
        Ok(())
    }

    fn default(
        &mut self,
        name: &str,
        value: Option<String>,
        modifier: char,
        colon: &str,
    ) -> Result<String, ExpandError> {
        if !matches!(modifier, '-' | '+' | '?') {
            return Err(ExpandError::Modifier(format!("{colon}{modifier}"), name.to_owned()));
        }
        let other = self.until(Some('}'), false)?;
        match (modifier, value) {
            ('+', Some(_)) => Ok(other),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            ('?', None) => {
                let why = if colon.is_empty() { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if other.is_empty() { why.to_owned() } else { other };
                Err(ExpandError::Required(name.to_owned(), message))
            }
            (_, None) => Ok(other),
        }
    }

    /// A name: letters, digits and `_`; or a number; or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let Some(&first) = self.chars.peek() else { return name };
        if matches!(first, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
            name.extend(self.chars.next());
            return name;
        }
        let digits = first.is_ascii_digit();
        let part = |c: &char| if digits { c.is_ascii_digit() } else { c.is_alphanumeric() || *c == '_' };
        while let Some(c) = self.chars.next_if(part) {
            name.push(c);
        }
        name
    }
}

/// `value` without the shortest (or longest) beginning (or end) that matches.
fn trim(value: &str, pattern: &str, prefix: bool, greedy: bool) -> String {
    let Ok(pattern) = Pattern::new(pattern, Dialect::Shell) else { return value.to_owned() };
    let chars: Vec<char> = value.chars().collect();
    let fits = |length: &usize| match prefix {
        true => pattern.match_chars(&chars[..*length]),
        false => pattern.match_chars(&chars[chars.len() - length..]),
    };
    let length = if greedy { (0..=chars.len()).rev().find(fits) } else { (0..=chars.len()).find(fits) };
    let length = length.unwrap_or(0);
    if prefix { chars[length..].iter().collect() } else { chars[..chars.len() - length].iter().collect() }
}

/// `value` with the first (or every) longest match replaced.
fn replace(value: &str, pattern: &str, replacement: &str, all: bool) -> String {
    let Ok(pattern) = Pattern::new(pattern, Dialect::Shell) else { return value.to_owned() };
    let chars: Vec<char> = value.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() {
        match (at + 1..=chars.len()).rev().find(|end| pattern.match_chars(&chars[at..*end])) {
            Some(end) => {
                out.push_str(replacement);
                at = end;
                if !all {
                    break;
                }
            }
            None => {
                out.push(chars[at]);
                at += 1;
            }
        }
    }
    out.extend(&chars[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, ExpandError> {
        word(text, '\\', &|name| match name {
            "v" => Some("value".into()),
            "empty" => Some(String::new()),
            "path" => Some("/usr/lib/x.tar.gz".into()),
            _ => None,
        })
    }

    #[test]
    fn words_expand_as_the_reference_says() {
        for (text, expected) in [
            ("$v", "value"),
            ("${v}", "value"),
            ("x${v}y$none.", "xvaluey."),
            ("$v_1", ""),
            ("\\$v", "$v"),
            ("'$v'", "$v"),
            ("\"$v\"", "value"),
            ("\"\\$v \\\" \\n \\\\\"", "$v \" \\n \\"),
            ("a\\ b", "a b"),
            ("a\\nb", "anb"),
            ("$", "$"),
            ("$ x", "$ x"),
            ("${none:-d}", "d"),
            ("${none:-$v}", "value"),
            ("${none:-a\"}\"b}", "a}b"),
            ("${empty:-d}", "d"),
            ("${empty-d}", ""),
            ("${none-d}", "d"),
            ("${v:+set}", "set"),
            ("${empty:+set}", ""),
            ("${empty+set}", "set"),
            ("${none+set}", ""),
            ("${v:?no}", "value"),
            ("${path#*/}", "usr/lib/x.tar.gz"),
            ("${path##*/}", "x.tar.gz"),
            ("${path%.*}", "/usr/lib/x.tar"),
            ("${path%%.*}", "/usr/lib/x"),
            ("${path#none}", "/usr/lib/x.tar.gz"),
            ("${path/lib/bin}", "/usr/bin/x.tar.gz"),
            ("${path//r/R}", "/usR/lib/x.taR.gz"),
            ("${path/\\//|}", "|usr/lib/x.tar.gz"),
            ("${v//?/x}", "xxxxx"),
            ("${none/a/b}", ""),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        for (text, expected) in [
            ("'a", ExpandError::OpenQuote('\'')),
            ("\"a", ExpandError::OpenQuote('"')),
            ("${v", ExpandError::OpenBrace),
            ("${", ExpandError::OpenBrace),
            ("${v:-x", ExpandError::OpenBrace),
            ("${}", ExpandError::NoName),
            ("${v^}", ExpandError::Modifier("^".into(), "v".into())),
            ("${v:x}", ExpandError::Modifier(":x".into(), "v".into())),
            ("${none:?give it}", ExpandError::Required("none".into(), "give it".into())),
            ("${none?}", ExpandError::Required("none".into(), "is not allowed to be unset".into())),
        ] {
            assert_eq!(expand(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_heredoc_keeps_its_quotes() {
        let lookup = |_: &str| Some("x".to_owned());
        assert_eq!(heredoc("a '$v' \"$v\" \\$v \\n\n", '\\', &lookup).unwrap(), "a 'x' \"x\" $v \\n\n");
    }

    proptest::proptest! {
        #[test]
        fn no_word_makes_it_panic(text in "[a$v{}:/#%?*'\"\\\\ é+-]{0,24}") {
            let _either = expand(&text);
            let _either = heredoc(&text, '\\', &|_| Some("value".into()));
        }
    }
}
