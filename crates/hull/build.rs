//! Tells the linker to lay the functions of a container's start side by side, in the order of the file `order`.
//!
//! A page of the program that is touched brings its neighbours along, 64 KiB at once. Side by side these are needed as well:
//! a third of the memory, and 70 page faults of 250 less. `bench/order` writes the file. A name that a linked program does
//! not have does no harm, so an order of another compiler's is one without effect.

use std::path::Path;
use std::process::Command;

/// The first rustc whose own linker on this target is lld, which has the flags.
const FIRST: u32 = 90;

fn main() {
    println!("cargo:rerun-if-changed=order");
    println!("cargo:rerun-if-env-changed=HULL_MAP");
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let order = Path::new(&folder).join("order");
    if std::env::var("PROFILE").as_deref() != Ok("release") || !own_linker() {
        return;
    }
    let flags = format!("--symbol-ordering-file={},--no-warn-symbol-ordering", order.display());
    println!("cargo:rustc-link-arg-bins=-Wl,{flags}");
    if let Ok(map) = std::env::var("HULL_MAP") {
        println!("cargo:rustc-link-arg-bins=-Wl,-Map={map},--no-demangle");
    }
}

/// Whether rustc links with the linker that came with it.
fn own_linker() -> bool {
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let chosen = std::env::var_os("RUSTC_LINKER").is_some() || flags.contains("linker") || flags.contains("fuse-ld");
    !chosen && minor().is_some_and(|minor| minor >= FIRST)
}

/// The 90 of `rustc 1.90.0 (…)`.
fn minor() -> Option<u32> {
    let said = Command::new(std::env::var_os("RUSTC")?).arg("--version").output().ok()?;
    String::from_utf8_lossy(&said.stdout).split('.').nth(1)?.parse().ok()
}
