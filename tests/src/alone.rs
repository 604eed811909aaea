//! A harness for tests that clone containers in their own process, which has to have one thread, where the usual harness
//! has two. It speaks as much of that one's command line as nextest uses, and ends with the same line.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A test: its name, and what it does.
pub type Test = (&'static str, fn());

/// Names tests once: as functions, and as rows of a list `TESTS` for [`main`].
#[macro_export]
macro_rules! alone {
    ($($(#[$about:meta])* fn $name:ident() $body:block)*) => {
        $($(#[$about])* fn $name() $body)*
        /// The tests above.
        pub const TESTS: &[$crate::alone::Test] = &[$((stringify!($name), $name)),*];
    };
}

/// Does the tests of each module, `(module, TESTS)`, that the command line names. Gives the exit status.
pub fn main(modules: &[(&str, &[Test])]) -> i32 {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let named: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let (mut passed, mut failed, mut others) = (0, 0, 0);
    if !has("--list") {
        println!("\nrunning {} tests", modules.iter().map(|(_, tests)| tests.len()).sum::<usize>());
    }
    for (module, (name, test)) in modules.iter().flat_map(|(module, tests)| tests.iter().map(move |t| (module, t))) {
        let full = format!("{module}::{name}");
        if has("--ignored") || (!named.is_empty() && !named.iter().any(|named| full.contains(&**named))) {
            others += 1;
        } else if has("--list") {
            println!("{full}: test");
        } else if catch_unwind(AssertUnwindSafe(test)).is_ok() {
            passed += 1;
            println!("test {full} ... ok");
        } else {
            failed += 1;
            println!("test {full} ... FAILED");
        }
    }
    if !has("--list") {
        let result = if failed == 0 { "ok" } else { "FAILED" };
        println!(
            "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {others} filtered out\n"
        );
    }
    if failed == 0 { 0 } else { 101 }
}
