//! `.dockerignore`: which paths of the context do not exist for a build.
//!
//! The rules are those of moby's patternmatcher: each pattern is anchored at the context's root, a pattern that
//! matches a folder matches all below it, `!` takes back, and the last pattern that matches decides.

use crate::glob::{BadPattern, Dialect, Pattern};

/// The rules of one ignore file.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
    /// Some rule begins with `!`, so that an excluded folder may hold included files.
    takes_back: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    negated: bool,
    line: usize,
    text: String,
}

/// Which rules match a path or one of the folders above it.
#[derive(Clone, Debug, Default)]
pub struct State(Vec<bool>);

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {cause}")]
pub struct BadLine {
    /// From 1.
    pub line: usize,
    /// Why.
    pub cause: String,
}

impl Ignore {
    /// Reads an ignore file.
    ///
    /// # Errors
    /// The first bad line.
    pub fn parse(text: &str) -> Result<Self, BadLine> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut ignore = Self::default();
        for (index, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if line.starts_with('#') || trimmed.is_empty() {
                continue;
            }
            let (negated, body) = match trimmed.strip_prefix('!') {
                Some(body) => (true, body.trim()),
                None => (false, trimmed),
            };
            let bad = |cause: String| BadLine { line: index + 1, cause };
            if body.is_empty() {
                return Err(bad("! without a pattern".into()));
            }
            let cleaned = clean(body);
            // `.` names the context itself, which cannot be taken away.
            if cleaned == "." || cleaned.is_empty() {
                continue;
            }
            let pattern =
                Pattern::new(&cleaned, Dialect::Ignore).map_err(|error: BadPattern| bad(error.to_string()))?;
            ignore.takes_back |= negated;
            ignore.rules.push(Rule { pattern, negated, line: index + 1, text: trimmed.to_owned() });
        }
        Ok(ignore)
    }

    /// The state of `path`, whose folder has the state `parent`.
    pub fn enter(&self, parent: &State, path: &str) -> State {
        let above = |index: usize| parent.0.get(index).copied().unwrap_or(false);
        let chars: Vec<char> = path.chars().collect();
        let matched =
            self.rules.iter().enumerate().map(|(index, rule)| above(index) || rule.pattern.match_chars(&chars));
        State(matched.collect())
    }

    /// The state of a path given whole.
    pub fn state(&self, path: &str) -> State {
        let mut state = State::default();
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).filter(|end| *end > 0);
        ends.for_each(|end| state = self.enter(&state, &path[..end]));
        state
    }

    /// Whether that state means that the path is left out.
    pub fn excludes(&self, state: &State) -> bool {
        let last = self.rules.iter().zip(&state.0).rev().find(|(_, matched)| **matched);
        last.is_some_and(|(rule, _)| !rule.negated)
    }

    /// Whether something below an excluded folder may be included all the same.
    pub fn may_take_back(&self) -> bool {
        self.takes_back
    }

    /// The rule that decides: its line and its text.
    pub fn deciding_rule(&self, path: &str) -> Option<(usize, &str)> {
        let state = self.state(path);
        let last = self.rules.iter().zip(&state.0).rev().find(|(_, matched)| **matched);
        last.map(|(rule, _)| (rule.line, &*rule.text))
    }
}

/// Go's `filepath.Clean`, and without a `/` at the beginning.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if pattern.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(rules: &str, path: &str) -> bool {
        let ignore = Ignore::parse(rules).unwrap();
        ignore.excludes(&ignore.state(path))
    }

    #[test]
    fn paths_are_left_out_as_the_reference_says() {
        for (rules, path, expected) in [
            ("*/temp*", "somedir/temporary.txt", true),
            ("*/temp*", "somedir/temp", true),
            ("*/temp*", "temp", false),
            ("*/temp*", "somedir/sub/temp", false),
            ("*/*/temp*", "somedir/subdir/temporary.txt", true),
            ("temp?", "tempa", true),
            ("temp?", "tempab", false),
            ("**/*.go", "main.go", true),
            ("**/*.go", "a/b/main.go", true),
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README.md", "other.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", false),
            ("node_modules", "node_modules/a/b.js", true),
            ("node_modules", "sub/node_modules", false),
            ("/foo/bar/", "foo/bar/x", true),
            ("foo/../bar", "bar", true),
            ("# comment\n\n  x  ", "x", true),
            (" # no comment", "# no comment", true),
            ("a\n!a/b", "a/b", false),
            ("a\n!a/b", "a/b/c", false),
            ("a\n!a/b\na/b/c", "a/b/c", true),
            ("**", "anything/at/all", true),
            ("*\n!keep", "keep", false),
            ("dir/**", "dir", false),
            ("dir/**", "dir/x/y", true),
            ("**/dir", "a/dir/x", true),
            ("a**b", "a/x/b", true),
            ("[a-c].txt", "b.txt", true),
            ("[^a-c].txt", "b.txt", false),
            (".", "x", false),
            ("\\#x", "#x", true),
            ("*", ".hidden", true),
        ] {
            assert_eq!(excluded(rules, path), expected, "{rules:?} {path}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(Ignore::parse("a\n!\n").unwrap_err().line, 2);
        assert!(Ignore::parse("[x").unwrap_err().to_string().contains("bad pattern"));
    }

    #[test]
    fn the_deciding_rule_is_the_last_that_matches() {
        let ignore = Ignore::parse("*\n!x\nx/secret\n").unwrap();
        assert_eq!(ignore.deciding_rule("x/secret/key"), Some((3, "x/secret")));
    }
}
