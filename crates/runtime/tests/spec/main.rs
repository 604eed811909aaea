//! Fields of a specification on the real kernel, in a root of busybox. These tests need root and busybox-static.
//!
//! A container is cloned from a process with one thread, and the usual test harness has two.

mod case;
mod groups;
mod mounts;
mod namespaces;
mod process;

use hull_tests::alone as tests;

fn main() {
    hull_sys::exe::seal().expect("a process that may do it");
    std::process::exit(hull_tests::alone::main(&[
        ("groups", groups::TESTS),
        ("mounts", mounts::TESTS),
        ("namespaces", namespaces::TESTS),
        ("process", process::TESTS),
    ]));
}
