//! A file that one thread writes while another one sends what is there of it.

use std::fs::File;
use std::io::{Error, Result};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// What both know of it.
#[derive(Default)]
pub(crate) struct Growing {
    file: OnceLock<File>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    length: u64,
    ended: bool,
    unwanted: bool,
}

/// The writer's hold on it: when that goes, it grows no more.
pub(crate) struct Writing<'a>(&'a Growing);

impl Growing {
    pub(crate) fn writing(&self) -> Writing<'_> {
        Writing(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it has `length` bytes; gives it with those that it has. None if it ended before.
    pub(crate) fn at_least(&self, length: u64) -> Option<(&File, u64)> {
        let short = |state: &mut State| state.length < length && !state.ended;
        let state = self.changed.wait_while(self.state(), short).unwrap_or_else(PoisonError::into_inner);
        self.file.get().filter(|_| state.length >= length).map(|file| (file, state.length))
    }

    /// The bytes that it has.
    pub(crate) fn length(&self) -> u64 {
        self.state().length
    }

    /// Tells the writer to stop.
    pub(crate) fn unwanted(&self) {
        self.state().unwanted = true;
    }
}

impl Writing<'_> {
    /// The file has `length` bytes now.
    ///
    /// # Errors
    /// Nobody wants it any more.
    pub(crate) fn grown(&self, file: &File, length: u64) -> Result<()> {
        if self.0.file.get().is_none() {
            // Nobody else sets it.
            let _ = self.0.file.set(file.try_clone()?);
        }
        let mut state = self.0.state();
        if state.unwanted {
            return Err(Error::other("it is not sent any more"));
        }
        state.length = length;
        self.0.changed.notify_all();
        Ok(())
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_what_is_there_and_hears_of_the_end() {
        let growing = Growing::default();
        let file = tempfile::tempfile().expect("a file");
        std::thread::scope(|scope| {
            let writing = growing.writing();
            let reader = scope.spawn(|| {
                let first = growing.at_least(10).map(|(_, length)| length);
                (first, growing.at_least(100).is_none())
            });
            writing.grown(&file, 5).expect("somebody waits");
            writing.grown(&file, 20).expect("somebody waits");
            drop(writing);
            // The first may be seen only when the end is there too.
            assert_eq!(reader.join().expect("no panic"), (Some(20), true));
        });
    }

    #[test]
    fn a_writer_that_nobody_hears_any_more_stops() {
        let growing = Growing::default();
        growing.unwanted();
        let file = tempfile::tempfile().expect("a file");
        assert!(growing.writing().grown(&file, 1).is_err());
    }
}
