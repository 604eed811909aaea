//! The rest of a logical line -> words: flags, JSON arrays, `key=value` lists, heredoc openings.
//!
//! Quotes and escapes are left in the words, since variables are expanded later and need them; a word here only knows
//! that it does not end inside a quote.

use std::ops::Range;

/// Words separated by blanks, where quotes and the escape character hold blanks together (as `ENV a="b c" d=e\ f`).
pub(super) fn quoted(text: &str, escape: char) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                words.extend(start.take().map(|start| start..at));
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            // In single quotes the escape character is a character like any other.
            Some('\'') => {}
            _ if c == escape => {
                start.get_or_insert(at);
                chars.next();
                continue;
            }
            _ => {}
        }
        start.get_or_insert(at);
    }
    words.extend(start.map(|start| start..text.len()));
    words
}

/// Words separated by blanks and nothing else.
pub(super) fn plain(text: &str) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices() {
        match (c.is_whitespace(), start) {
            (true, Some(begin)) => {
                words.push(begin..at);
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    words.extend(start.map(|start| start..text.len()));
    words
}

/// The leading `--name=value` words, and where the rest begins. A word `--` alone ends them.
pub(super) fn flags(text: &str, escape: char) -> (Vec<Range<usize>>, usize) {
    let mut flags = Vec::new();
    for word in quoted(text, escape) {
        match &text[word.clone()] {
            "--" => return (flags, word.end),
            flag if flag.starts_with("--") => flags.push(word),
            _ => return (flags, word.start),
        }
    }
    (flags, text.len())
}

/// The strings of a JSON array, if the text is one: anything else is the shell form.
pub(super) fn json(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// A heredoc's opening: `<<EOF`, `<<-EOF`, `<<"EOF"`, with a descriptor number before it or not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) at: Range<usize>,
    pub(super) delimiter: String,
    /// Leading tabs of the body are dropped.
    pub(super) chomp: bool,
    /// Variables in the body are expanded (the delimiter is not quoted).
    pub(super) expand: bool,
}

/// The heredocs that a line opens, in order.
pub(super) fn heredocs(text: &str, escape: char) -> Vec<Opening> {
    quoted(text, escape).into_iter().filter_map(|word| opening(text, word)).collect()
}

fn opening(text: &str, at: Range<usize>) -> Option<Opening> {
    let rest = text[at.clone()].trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let delimiter: String = rest.chars().filter(|c| !matches!(c, '"' | '\'' | '\\')).collect();
    let whole = delimiter.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '/'));
    if delimiter.is_empty() || !whole {
        return None;
    }
    Some(Opening { at, expand: delimiter == rest, delimiter, chomp })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        quoted(text, '\\').into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn quotes_and_escapes_hold_words_together() {
        assert_eq!(words(r#"a="b c" d=e\ f 'g h'"#), [r#"a="b c""#, r"d=e\ f", "'g h'"]);
        assert_eq!(words(r#"a='x\' b"#), [r"a='x\'", "b"]);
        assert_eq!(words("  "), Vec::<&str>::new());
        assert_eq!(words("a\\"), ["a\\"]);
    }

    #[test]
    fn flags_end_at_the_first_word_that_is_none() {
        let text = "--from=a  --chown=1 x --y";
        let (found, rest) = flags(text, '\\');
        assert_eq!(found.into_iter().map(|r| &text[r]).collect::<Vec<_>>(), ["--from=a", "--chown=1"]);
        assert_eq!(&text[rest..], "x --y");
    }

    #[test]
    fn heredoc_openings_are_words_of_their_own() {
        let kinds =
            |text| heredocs(text, '\\').into_iter().map(|o| (o.delimiter, o.chomp, o.expand)).collect::<Vec<_>>();
        assert_eq!(kinds("cat <<EOF 3<<-'X'"), [("EOF".into(), false, true), ("X".into(), true, false)]);
        assert_eq!(kinds("cat <<<word x<<y \"<<no\" << EOF"), []);
    }
}
