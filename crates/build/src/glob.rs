//! Patterns: Go's `filepath.Match` for COPY sources, `.dockerignore`'s (moby's patternmatcher), and the shell's in
//! `${v#pattern}`.
//!
//! All three are one list of tokens and one matcher, which takes time proportional to pattern times text whatever the
//! pattern is: patterns come from a build context and are not trusted to be kind.

/// What a pattern is for, and so what its characters mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Go's `filepath.Match`: `*` and `?` stop at `/`; `[a-z]`, `[^a-z]`; `\c`.
    Go,
    /// As [`Dialect::Go`], and `**` goes over any number of folders.
    Ignore,
    /// The shell's: `*` and `?` match everything; no classes (as BuildKit has it).
    Shell,
}

/// A pattern that cannot be read: an open `[` or a `\` at the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad pattern {0:?}")]
pub struct BadPattern(pub String);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// One character; with `false` none that is `/`.
    One(bool),
    /// Any number of characters; with `false` none that is `/`.
    Many(bool),
    /// `**/`: nothing, or anything that ends with `/`.
    Folders,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Token>);

/// Whether a COPY source has to be looked up as a pattern.
pub fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '\\'])
}

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// [`BadPattern`] as Go's `ErrBadPattern`.
    pub fn new(text: &str, dialect: Dialect) -> Result<Self, BadPattern> {
        let bad = || BadPattern(text.to_owned());
        let over = dialect == Dialect::Shell;
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' if dialect == Dialect::Ignore && chars.peek() == Some(&'*') => {
                    while chars.next_if_eq(&'*').is_some() {}
                    if chars.next_if_eq(&'/').is_some() { Token::Folders } else { Token::Many(true) }
                }
                '*' => Token::Many(over),
                '?' => Token::One(over),
                '\\' => match chars.next() {
                    Some(c) => Token::Literal(c),
                    None if over => Token::Literal('\\'),
                    None => return Err(bad()),
                },
                '[' if !over => class(&mut chars).ok_or_else(bad)?,
                c => Token::Literal(c),
            });
        }
        Ok(Self(tokens))
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        self.match_chars(&text)
    }

    /// Whether the whole of `text` matches.
    pub fn match_chars(&self, text: &[char]) -> bool {
        // `reach[j]`: the tokens from the current one on match the text from j on. Tokens go from the last to the first.
        let mut reach = vec![false; text.len() + 1];
        reach[text.len()] = true;
        for token in self.0.iter().rev() {
            let mut now = vec![false; text.len() + 1];
            let mut after_slash = false;
            for j in (0..=text.len()).rev() {
                let next = text.get(j).copied();
                let one = |yes: fn(char) -> bool| next.is_some_and(|c| yes(c) && reach[j + 1]);
                now[j] = match token {
                    Token::Literal(c) => next == Some(*c) && reach[j + 1],
                    Token::One(true) => one(|_| true),
                    Token::One(false) => one(|c| c != '/'),
                    Token::Many(over) => reach[j] || next.is_some_and(|c| (*over || c != '/') && now[j + 1]),
                    Token::Folders => {
                        after_slash |= next == Some('/') && reach[j + 1];
                        reach[j] || after_slash
                    }
                    Token::Class { negated, ranges } => next.is_some_and(|c| {
                        c != '/'
                            && ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
                            && reach[j + 1]
                    }),
                };
            }
            reach = now;
        }
        reach[0]
    }
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(Token::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '\\' => chars.next(),
        '-' | ']' => None,
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of Go's own `path/filepath/match_test.go`.
    #[test]
    fn go_patterns_match_as_filepath_match_does() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("*x", "xxx", true),
        ] {
            assert_eq!(Pattern::new(pattern, Dialect::Go).unwrap().matches(text), expected, "{pattern} {text}");
        }
        for bad in ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "\\"] {
            assert!(Pattern::new(bad, Dialect::Go).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        let pattern = Pattern::new(&"*a".repeat(100), Dialect::Ignore).unwrap();
        assert!(!pattern.matches(&"b".repeat(2000)));
    }
}
