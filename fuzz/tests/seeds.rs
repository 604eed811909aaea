//! The targets without libFuzzer: the seeds, and each of them cut and changed in a way that is always the same.

use std::fs;
use std::path::Path;

/// Variants of one seed: enough to see that a target works, not to find anything.
const VARIANTS: u64 = 20;

#[test]
fn no_seed_and_no_variant_of_one_breaks_a_promise() {
    for name in hull_fuzz::names() {
        let target = hull_fuzz::target(name).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
        let mut count = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            let seed = fs::read(entry.unwrap().path()).unwrap();
            target(&seed);
            (0..VARIANTS).for_each(|number| target(&variant(&seed, number)));
            count += 1;
        }
        assert!(count > 0, "{name} has no seed");
    }
}

fn variant(seed: &[u8], number: u64) -> Vec<u8> {
    let mut data = seed.to_vec();
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..4 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(state >> 33).unwrap() % data.len().max(1);
        match state >> 30 & 3 {
            0 => data.truncate(at),
            1 => data.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 0x41),
            _ => data.extend_from_within(..at.min(64)),
        }
    }
    data
}
