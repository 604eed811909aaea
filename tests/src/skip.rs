//! Tests that cannot be done on some machine.

use std::io::Write;

/// Says that a test is skipped and why; the test returns then. `tests/all` names and counts what was said.
///
/// # Panics
/// There is a file for it, and it cannot be written.
pub fn skipped(test: &str, why: &str) {
    eprintln!("skipped: {test}: {why}");
    if let Some(path) = std::env::var_os("HULL_SKIPPED") {
        let mut file = std::fs::OpenOptions::new().append(true).open(path).expect("the list of skipped tests");
        // At once, for other tests write as well.
        file.write_all(format!("{test}: {why}\n").as_bytes()).expect("a line of the list of skipped tests");
    }
}
