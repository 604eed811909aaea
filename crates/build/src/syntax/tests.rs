//! Golden trees and errors (`testfiles/<case>/`), and that nothing makes the parser panic.

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// `UPDATE_GOLDEN=1` writes the answers anew; they are then to be read before they are committed.
#[test]
fn every_test_file_gives_its_tree_or_its_error() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testfiles");
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 10);
    for case in cases {
        let text = std::fs::read_to_string(case.join("Dockerfile")).unwrap();
        let (name, other, answer) = match parse("Dockerfile", &text) {
            Ok(tree) => ("tree.json", "error.txt", serde_json::to_string_pretty(&tree).unwrap() + "\n"),
            Err(error) => {
                let hint = error.hint.as_ref().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
                ("error.txt", "tree.json", format!("{error}\n{hint}"))
            }
        };
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(case.join(name), &answer).unwrap();
            continue;
        }
        assert!(!case.join(other).exists(), "{}: gave {name}", case.display());
        assert_eq!(answer, std::fs::read_to_string(case.join(name)).unwrap(), "{}", case.display());
    }
}

#[test]
fn crlf_and_a_byte_order_mark_change_nothing() {
    let text = "FROM scratch\nCOPY a \\\n  b /\nRUN <<EOF\nx\nEOF\n";
    let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    assert_eq!(parse("f", text).unwrap().instructions, parse("f", &windows).unwrap().instructions);
}

fn check_span(text: &str, span: Span) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.split('\n').collect();
    let line = lines[span.line as usize - 1];
    assert!(span.column >= 1 && span.width >= 1);
    assert!(span.column as usize <= line.chars().count() + 1, "{span:?} in {line:?}");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_spans_lie_in_their_lines(
        parts in proptest::collection::vec(prop_oneof![
            Just("FROM ".to_owned()), Just("COPY ".into()), Just("RUN ".into()), Just("ENV ".into()), Just("ARG ".into()),
            Just("\n".into()), Just("\\\n".into()), Just("# escape=`\n".into()), Just("<<EOF".into()), Just("EOF\n".into()),
            Just("--from=".into()), Just("[\"".into()), Just("\"".into()), Just("=".into()), Just("\r\n".into()),
            Just("  ".into()), Just("scratch".into()), Just("AS é".into()), ".{0,8}",
        ], 0..24)
    ) {
        let text = parts.concat();
        match parse("f", &text) {
            Ok(tree) => tree.instructions.iter().for_each(|instruction| check_span(&text, instruction.span)),
            Err(error) => {
                check_span(&text, error.span);
                prop_assert!(error.to_string().contains('^'));
            }
        }
    }
}
