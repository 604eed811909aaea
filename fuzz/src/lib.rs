//! Fuzz targets: functions of bytes that may come from anybody, each of which panics when a promise is broken.
//!
//! libFuzzer drives them (`make fuzz`) on the stable toolchain: the flags that let the compiler count what is reached are stable
//! ones, and no sanitizer is needed, since the code has no unsafe blocks. The tests run them over the seeds without it.

mod challenge;
mod layer;
mod manifest;
mod program;
mod reference;

/// What is called with bytes; it panics if they break a promise.
pub type Target = fn(&[u8]);

/// All targets by their names.
const TARGETS: [(&str, Target); 4] = [
    ("challenge", challenge::challenge),
    ("layer", layer::layer),
    ("manifest", manifest::manifest),
    ("reference", reference::reference),
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// The names of all targets.
pub fn names() -> Vec<&'static str> {
    TARGETS.map(|(name, _)| name).to_vec()
}
