//! Several transfers at once, the first failure of which ends all.

use std::sync::{Mutex, PoisonError};

use crate::client::Client;
use crate::error::{Error, Result};

/// Does `work` for each item, by at most `most` threads; gives what it gave, in the order of the items.
///
/// # Errors
/// The first failure. The client is cancelled then, and with it what the other threads do.
pub(crate) fn each<I: Send, T: Send>(
    client: &Client,
    most: usize,
    items: impl ExactSizeIterator<Item = I> + Send,
    work: impl Fn(I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let threads = most.min(items.len());
    let mut done: Vec<Option<T>> = (0..items.len()).map(|_| None).collect();
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let queue = Mutex::new(items.zip(done.iter_mut()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !client.is_cancelled() {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((item, slot)) = next else { return };
                    match work(item) {
                        Ok(made) => *slot = Some(made),
                        Err(error) => {
                            client.cancel();
                            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(done.into_iter().flatten().collect()),
    }
}
