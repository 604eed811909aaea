use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hull_tests::sentinel::Sentinel;
use rustix::fs::RenameFlags;

use super::*;

/// C3, CVE-2022-21658. Fails in most runs without `NOFOLLOW` in [`FOLDER`]: the moment is short.
#[test]
fn c3_a_folder_that_becomes_a_link_while_it_is_removed_leads_nowhere() {
    // In memory, where both are fast and meet often.
    let temp = tempfile::Builder::new().prefix("hull-test-").tempdir_in("/dev/shm").expect("a folder");
    let sentinel = Sentinel::new(&temp.path().join("sentinel"));
    let dir = File::open(temp.path()).expect("a folder");
    let victim = temp.path().join("victim");
    let (swaps, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut raced = 0;
    std::thread::scope(|scope| {
        // One waits for the folder's lock while another one has it, so that a swap follows every removal at once.
        let race = || {
            while !done.load(Ordering::Relaxed) {
                let swap = |a, b| rustix::fs::renameat_with(&dir, a, &dir, b, RenameFlags::EXCHANGE);
                // Most of the time one of them is not there.
                swaps.fetch_add(u64::from(swap("victim/folder", "victim/a-link").is_ok()), Ordering::Relaxed);
            }
        };
        for _ in 0..3 {
            scope.spawn(race);
        }
        for _ in 0..5000 {
            fs::create_dir_all(victim.join("folder/inner")).expect("a folder");
            for name in ["file", "inner/file", "setuid"] {
                fs::write(victim.join("folder").join(name), "").expect("a file");
            }
            std::os::unix::fs::symlink(sentinel.path(), victim.join("a-link")).expect("a link");
            let before = swaps.load(Ordering::Relaxed);
            // It may find a link where it saw a folder and say so; the next attempt has the rest.
            while remove(dir.as_fd(), c"victim").is_err() {}
            raced += u32::from(swaps.load(Ordering::Relaxed) > before);
        }
        done.store(true, Ordering::Relaxed);
    });
    sentinel.assert_untouched("removals beside a racer");
    assert!(raced > 0, "no removal met the racer");
}
