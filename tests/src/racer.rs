//! An attacker who exchanges a folder for a link, again and again, while somebody resolves paths through it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Exchanges two names by `renameat2(2)` with `RENAME_EXCHANGE` until it is dropped.
#[derive(Debug)]
pub struct Racer {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    exchanges: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Racer {
    /// Begins to exchange what is at `path` and at `other`.
    ///
    /// # Panics
    /// In its thread, if the kernel refuses.
    pub fn start(path: &Path, other: &Path) -> Self {
        let (stop, exchanges) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, exchanges) = (Arc::clone(&stop), Arc::clone(&exchanges));
            let (path, other) = (path.to_owned(), other.to_owned());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    renameat_with(CWD, &path, CWD, &other, RenameFlags::EXCHANGE).expect("an exchange");
                    exchanges.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { path: path.to_owned(), stop, exchanges, thread: Some(thread) }
    }

    /// How often it has exchanged them.
    pub fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// How often somebody has to look at the path and then use it until what was a folder is used as the link: what a
    /// test that never loses is measured against.
    ///
    /// # Panics
    /// That does not happen within half a minute.
    pub fn catches_the_careless_after(&self) -> u64 {
        let (start, mut attempts) = (Instant::now(), 0);
        loop {
            attempts += 1;
            let looked = fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_dir());
            let used = fs::canonicalize(&self.path);
            if looked && used.is_ok_and(|used| used != self.path) {
                return attempts;
            }
            let patient = start.elapsed() < Duration::from_secs(30);
            assert!(patient, "{} exchanges did not meet one of {attempts} careless users", self.exchanges());
        }
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        if matches!(ended, Some(Err(_))) && !std::thread::panicking() {
            panic!("the racer could not exchange the names");
        }
    }
}
