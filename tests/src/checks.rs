//! Several looks at one thing that takes long to set up: each has a name, and all are done before the test fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// The looks that failed.
#[derive(Default)]
pub struct Checks(Vec<String>);

impl Checks {
    /// Does one, whose panic is told with the name at once and counted at the end.
    pub fn check(&mut self, name: &str, look: impl FnOnce()) {
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(look));
        let told = if result.is_ok() { "ok" } else { "FAILED" };
        eprintln!("check {name} ... {told} ({:.1} s)", start.elapsed().as_secs_f32());
        if result.is_err() {
            self.0.push(name.to_owned());
        }
    }

    /// The end of all.
    ///
    /// # Panics
    /// One has failed.
    pub fn end(self) {
        assert!(self.0.is_empty(), "{} failed: {}", self.0.len(), self.0.join(", "));
    }
}
