//! The fuzz targets under libFuzzer; `HULL_FUZZ_TARGET` says which one. `make fuzz` runs them all.

#![no_main]

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<hull_fuzz::Target> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("HULL_FUZZ_TARGET").unwrap_or_default();
        hull_fuzz::target(&name)
            .unwrap_or_else(|| panic!("HULL_FUZZ_TARGET={name:?} is none of {:?}", hull_fuzz::names()))
    });
    target(data);
});
