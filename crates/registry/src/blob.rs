//! A blob as a stream that goes on after interruptions.
//!
//! When the connection breaks, stalls or ends early, the rest is asked for with `Range`. Only an answer for exactly that range
//! is continued; a server that starts again from the beginning is read up to the place. Whether the bytes are right
//! is told by the digest over all of them, not here.

use std::io::Read;
use std::time::{Duration, Instant};

use hull_image::Blob;
use ureq::BodyReader;
use ureq::http::header::CONTENT_RANGE;
use ureq::http::{HeaderMap, StatusCode};

use crate::client::{Ask, Client};
use crate::error::{Class, Error, Result};
use crate::http::transport_text;

/// Attempts in a row that brought nothing.
const FRUITLESS_MAX: u32 = 3;
/// Less than this in one [`WINDOW`] is no progress.
const WINDOW_BYTES: u64 = 4096;
/// How long a trickle is watched before it counts as stalled.
const WINDOW: Duration = Duration::from_secs(30);

/// A blob's bytes from a place on.
pub(crate) struct BlobReader<'a> {
    client: &'a Client,
    blob: &'a Blob,
    at: u64,
    body: Option<BodyReader<'static>>,
    fruitless: u32,
    window: (Instant, u64),
    /// The error that ended the stream, for whoever gets only an `io::Error` of it.
    failure: &'a mut Option<Error>,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl<'a> BlobReader<'a> {
    pub(crate) fn new(
        client: &'a Client,
        blob: &'a Blob,
        at: u64,
        failure: &'a mut Option<Error>,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        let window = (Instant::now(), 0);
        Self { client, blob, at, body: None, fruitless: 0, window, failure, progress }
    }

    fn doing(&self) -> String {
        format!("download the layer {} from {}", self.blob.digest.short(), self.client.host())
    }

    fn open(&self) -> Result<BodyReader<'static>> {
        let target = format!("/v2/{}/blobs/{}", self.client.path(), self.blob.digest);
        let mut ask = Ask::get(target, self.doing());
        if self.at > 0 {
            ask.headers.push(("range", format!("bytes={}-", self.at)));
        }
        let response = self.client.send(&ask)?;
        let skip = match (response.status(), self.at) {
            (StatusCode::OK, at) => at,
            (StatusCode::PARTIAL_CONTENT, 1..) => {
                check_range(response.headers(), self.at, self.blob.size)
                    .map_err(|why| Error::new(Class::Protocol, self.doing(), why))?;
                0
            }
            (status, _) => {
                let why = format!("the registry answered {} to a request for a blob", status.as_u16());
                return Err(Error::new(Class::Protocol, self.doing(), why));
            }
        };
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        // It does not know ranges: what is here already comes again.
        let skipped = std::io::copy(&mut (&mut body).take(skip), &mut std::io::sink());
        match skipped {
            Ok(length) if length == skip => Ok(body),
            Ok(_) => Err(Error::new(Class::Network, self.doing(), "it ended early")),
            Err(error) => Err(Error::new(Class::Network, self.doing(), error)),
        }
    }

    /// Reads on, beginning again where it broke off.
    fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            if self.client.is_cancelled() {
                return Err(Error::new(Class::Cancelled, self.doing(), "another layer failed"));
            }
            let error = match self.read_once(buffer) {
                // Longer than it should be is for the reader above to refuse.
                Ok(0) if self.at >= self.blob.size => return Ok(0),
                Ok(0) => {
                    let why = format!("it ended after {} of {} bytes", self.at, self.blob.size);
                    Error::new(Class::Network, self.doing(), why)
                }
                Ok(length) => {
                    self.fruitless = 0;
                    return Ok(length);
                }
                Err(error) if error.class() == Some(Class::Network) => error,
                Err(error) => return Err(error),
            };
            self.body = None;
            self.fruitless += 1;
            if self.fruitless == FRUITLESS_MAX {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(200) * self.fruitless);
        }
    }

    fn read_once(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.body.is_none() {
            self.body = Some(self.open()?);
            self.window = (Instant::now(), 0);
        }
        let doing = self.doing();
        let Some(body) = &mut self.body else { return Ok(0) };
        let length = body.read(buffer).map_err(|error| Error::new(Class::Network, doing.clone(), words(&error)))?;
        let (since, bytes) = &mut self.window;
        *bytes += length as u64;
        if since.elapsed() > WINDOW {
            if *bytes < WINDOW_BYTES {
                let why = format!("only {bytes} bytes came in {} seconds", WINDOW.as_secs());
                return Err(Error::new(Class::Network, doing, why));
            }
            self.window = (Instant::now(), 0);
        }
        Ok(length)
    }
}

fn words(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(error) => transport_text(error),
        None => error.to_string(),
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.next(buffer) {
            Ok(length) => {
                self.at += length as u64;
                (self.progress)(length as u64);
                Ok(length)
            }
            Err(error) => {
                let text = error.to_string();
                *self.failure = Some(error);
                Err(std::io::Error::other(text))
            }
        }
    }
}

/// `bytes 100-199/200` for the bytes from 100 of 200.
fn check_range(headers: &HeaderMap, from: u64, size: u64) -> std::result::Result<(), String> {
    let said = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let last = size.saturating_sub(1);
    let fits = said == format!("bytes {from}-{last}/{size}") || said == format!("bytes {from}-{last}/*");
    if fits {
        Ok(())
    } else {
        Err(format!("asked for bytes {from}-{last} of {size}, the registry gives {:?}", crate::error::shown(said)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_range_that_was_asked_for_is_continued() {
        let headers = |text: &str| HeaderMap::from_iter([(CONTENT_RANGE, text.parse().expect("a header"))]);
        assert!(check_range(&headers("bytes 100-199/200"), 100, 200).is_ok());
        assert!(check_range(&headers("bytes 100-199/*"), 100, 200).is_ok());
        for wrong in ["bytes 0-199/200", "bytes 100-150/200", "bytes 100-199/300", "items 100-199/200", ""] {
            assert!(check_range(&headers(wrong), 100, 200).is_err(), "{wrong}");
        }
        assert!(check_range(&HeaderMap::new(), 100, 200).is_err());
    }
}
