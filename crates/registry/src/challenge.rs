//! The `WWW-Authenticate` header: which schemes a registry takes, and where tokens come from.
//!
//! Source: RFC 9110, section 11.6.1. Pure text from a server that may be hostile: what does not follow the grammar ends
//! the reading, nothing is guessed.

/// One challenge: a scheme in lower case and its parameters, names in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// `bearer`, `basic`, …
    pub scheme: String,
    /// Each name once.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// All challenges of one header, as far as it follows the grammar.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut rest = header;
    let mut found: Vec<Challenge> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let word = token(rest);
        if word.is_empty() {
            return found;
        }
        let after = &rest[word.len()..];
        let value = after.trim_start_matches([' ', '\t']);
        match (value.strip_prefix('='), found.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, after)) = parameter(value.trim_start_matches([' ', '\t'])) else { return found };
                let name = word.to_ascii_lowercase();
                // Said twice it means different things to different readers.
                if challenge.get(&name).is_some() {
                    return found;
                }
                challenge.parameters.push((name, value));
                rest = after;
            }
            (Some(_), None) => return found,
            (None, _) => {
                found.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                rest = after;
            }
        }
    }
}

fn token(text: &str) -> &str {
    let end = text.bytes().position(|byte| !(byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)));
    &text[..end.unwrap_or(text.len())]
}

/// A token or a quoted string, and what follows it.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let word = token(text);
        return (!word.is_empty()).then(|| (word.to_owned(), &text[word.len()..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            _ => {
                let said = if character == '\\' { characters.next()?.1 } else { character };
                if said.is_control() {
                    return None;
                }
                value.push(said);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Challenge { scheme: scheme.to_owned(), parameters }
    }

    #[test]
    fn challenges_are_read_by_the_grammar() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(
            parse(docker),
            [one(
                "bearer",
                &[
                    ("realm", "https://auth.docker.io/token"),
                    ("service", "registry.docker.io"),
                    ("scope", "repository:a/b:pull,push")
                ]
            )]
        );
        assert_eq!(
            parse(r#"Basic realm="a \"b\", c" , BEARER Realm = x"#),
            [one("basic", &[("realm", "a \"b\", c")]), one("bearer", &[("realm", "x")])]
        );
        assert_eq!(parse("Negotiate, Basic realm=x"), [one("negotiate", &[]), one("basic", &[("realm", "x")])]);
    }

    #[test]
    fn what_breaks_the_grammar_ends_the_reading() {
        for (header, scheme) in [
            ("", None),
            ("=x", None),
            ("\u{1}", None),
            (r#"Bearer realm="open"#, Some("bearer")),
            (r#"Bearer realm="a",realm="b""#, Some("bearer")),
            ("Bearer realm=\"a\u{7}\"", Some("bearer")),
            ("Bearer realm=\"a\\\u{7}\"", Some("bearer")),
        ] {
            let found = parse(header);
            assert_eq!(found.first().map(|challenge| challenge.scheme.as_str()), scheme, "{header:?}");
        }
        assert_eq!(parse(r#"Bearer realm="a",realm="b""#)[0].get("realm"), Some("a"));
        assert_eq!(parse(r#"Bearer realm="open"#)[0].get("realm"), None);
        assert_eq!(parse("Bearer realm=\"a\\\u{7}\"")[0].get("realm"), None);
    }
}
