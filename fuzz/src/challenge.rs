//! `WWW-Authenticate`, from whoever answers at a registry's address.

use hull_registry::challenge::parse;

/// What was understood is understood again when it is written by the grammar, and can be sent on in a line.
pub fn challenge(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let found = parse(text);
    for one in &found {
        assert!(!one.scheme.is_empty() && !one.scheme.bytes().any(|byte| byte.is_ascii_uppercase()), "{one:?}");
        for (at, (name, value)) in one.parameters.iter().enumerate() {
            assert!(!value.contains(char::is_control), "{one:?} has a control character");
            assert!(!one.parameters[..at].iter().any(|(other, _)| other == name), "{one:?} says it twice");
            assert_eq!(one.get(name), Some(value.as_str()));
        }
    }
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
    let written: Vec<String> = found
        .iter()
        .map(|one| {
            let all = one.parameters.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value)));
            format!("{} {}", one.scheme, all.collect::<Vec<_>>().join(","))
        })
        .collect();
    assert_eq!(parse(&written.join(", ")), found, "{written:?}");
}
