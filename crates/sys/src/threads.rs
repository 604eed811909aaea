//! Work that all processors share.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What `look` gives for each of `items`, in their order. Each thread takes the next item that nobody has taken; there is
/// one for every `worth` items, at most one for each processor.
pub fn side_by_side<T: Sync, R: Send>(items: &[T], worth: usize, look: impl Fn(&T) -> R + Sync) -> Vec<R> {
    // Asked first, for the number of processors is a file or two to read.
    let useful = items.len() / worth.max(1);
    if useful < 2 {
        return items.iter().map(look).collect();
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(useful);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, look(item)));
        }
    };
    let mut all = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        others.into_iter().for_each(|other| all.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic))));
        all
    });
    all.sort_unstable_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, found)| found).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_looked_at_once_and_answered_in_its_place() {
        let looked = AtomicUsize::new(0);
        for count in [0, 1, 3, 1000] {
            let items: Vec<usize> = (0..count).collect();
            looked.store(0, Ordering::Relaxed);
            let double = |item: &usize| {
                looked.fetch_add(1, Ordering::Relaxed);
                item * 2
            };
            let found = side_by_side(&items, 1, double);
            assert_eq!(found, (0..count).map(|item| item * 2).collect::<Vec<_>>());
            assert_eq!(looked.load(Ordering::Relaxed), count);
        }
    }
}
