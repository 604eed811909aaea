//! The program; all of it is in the library.
//!
//! The C library calls it, and not Rust's own beginning of a program: that reads the map of the process's memory to find the
//! end of its stack, for a message when that overflows, which is a fiftieth of a container's start.

#![no_main]
#![deny(unsafe_code)]

#[cfg(not(target_env = "gnu"))]
compile_error!("the arguments get to std::env by glibc alone: another C library wants Rust's own main");

use std::ffi::{c_char, c_int};

/// As `main(3p)` has it; the arguments are taken from [`std::env`].
#[allow(unsafe_code, reason = "the name is the C library's, and there is no other with it")]
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _words: *const *const c_char) -> c_int {
    hull_sys::process::begin();
    std::process::exit(hull::main())
}
