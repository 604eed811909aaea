//! Fields of a specification on the real kernel, in a root of busybox. These tests need root and busybox-static.
//!
//! A container is cloned from a process with one thread, and the usual test harness has two: this file has its own
//! `main`, which speaks as much of the harness's command line as nextest uses.

mod case;
mod groups;
mod mounts;
mod namespaces;
mod process;

/// Names tests once: as functions and as rows of the list that `main` goes through.
macro_rules! tests {
    ($($(#[$about:meta])* fn $name:ident() $body:block)*) => {
        $($(#[$about])* fn $name() $body)*
        pub const TESTS: &[(&str, fn())] = &[$((stringify!($name), $name)),*];
    };
}
use tests;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let named: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let files = [
        ("groups", groups::TESTS),
        ("mounts", mounts::TESTS),
        ("namespaces", namespaces::TESTS),
        ("process", process::TESTS),
    ];
    let mut failed = 0;
    for (name, test) in files.iter().flat_map(|(file, tests)| tests.iter().map(move |test| (file, test))) {
        let full = format!("{name}::{}", test.0);
        if has("--ignored") || (!named.is_empty() && !named.iter().any(|named| full.contains(&**named))) {
            continue;
        }
        if has("--list") {
            println!("{full}: test");
            continue;
        }
        let result = std::panic::catch_unwind(test.1);
        println!("test {full} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        failed += usize::from(result.is_err());
    }
    if failed > 0 {
        eprintln!("{failed} failed");
        std::process::exit(101);
    }
}
