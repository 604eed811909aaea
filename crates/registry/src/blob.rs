//! A blob as a stream that goes on after interruptions.
//!
//! When the connection breaks, stalls or ends early, the rest is asked for with `Range`. Only an answer for exactly that range
//! is continued; a server that starts again from the beginning is read up to the place. Whether the bytes are right
//! is told by the digest over all of them, not here.

use std::io::Read;
use std::time::Instant;

use hull_image::Blob;
use ureq::BodyReader;
use ureq::http::header::CONTENT_RANGE;
use ureq::http::{HeaderMap, StatusCode};

use crate::client::{Ask, Client, Waits};
use crate::error::{Class, Error, Result};
use crate::http::stream_text;

/// Attempts in a row that brought next to nothing.
const FRUITLESS_MAX: u32 = 3;
/// Less than this, of a connection or in the time after which silence counts as a stall, is next to nothing: a trickle is
/// no progress.
const LEAST: u64 = 4096;

/// A blob's bytes from a place on.
pub(crate) struct BlobReader<'a> {
    client: &'a Client,
    blob: &'a Blob,
    at: u64,
    /// Where the connection before this one broke off.
    broken_at: u64,
    body: Option<BodyReader<'static>>,
    /// Bytes to come that are here already.
    skip: u64,
    waits: Waits,
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
        let (waits, window) = (Waits::new(FRUITLESS_MAX), (Instant::now(), 0));
        Self { client, blob, at, broken_at: at, body: None, skip: 0, waits, window, failure, progress }
    }

    fn doing(&self) -> String {
        format!("download the layer {} from {}", self.blob.digest.short(), self.client.host())
    }

    /// The rest, and how many bytes of what comes are here already.
    fn open(&self) -> Result<(BodyReader<'static>, u64)> {
        let target = format!("/v2/{}/blobs/{}", self.client.path(), self.blob.digest);
        let mut ask = Ask::get(target, self.doing());
        if self.at > 0 {
            ask.headers.push(("range", format!("bytes={}-", self.at)));
        }
        let response = self.client.send(&ask)?;
        let skip = match (response.status(), self.at) {
            // It does not know ranges: what is here already comes again.
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
        Ok((response.into_body().into_with_config().limit(u64::MAX).reader(), skip))
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
                Ok(length) => return Ok(length),
                Err(error) if error.class() == Some(Class::Network) => error,
                Err(error) => return Err(error),
            };
            self.body = None;
            if self.at - self.broken_at >= LEAST {
                self.waits = Waits::new(FRUITLESS_MAX);
                self.broken_at = self.at;
            }
            self.waits.wait(self.client, error, None)?;
        }
    }

    fn read_once(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.body.is_none() {
            let (body, skip) = self.open()?;
            (self.body, self.skip) = (Some(body), skip);
            self.window = (Instant::now(), 0);
        }
        while self.skip > 0 {
            let most = usize::try_from(self.skip).unwrap_or(usize::MAX).min(buffer.len());
            match self.read_watched(&mut buffer[..most])? {
                0 => return Ok(0),
                length => self.skip -= length as u64,
            }
        }
        self.read_watched(buffer)
    }

    /// One read, which fails if too little came for too long.
    fn read_watched(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Some(body) = &mut self.body else { return Ok(0) };
        let read = body.read(buffer);
        let failed = |why: String| Error::new(Class::Network, self.doing(), why);
        let length = read.map_err(|error| failed(stream_text(&error)))?;
        let (since, bytes) = self.window;
        let bytes = bytes + length as u64;
        if since.elapsed() <= self.client.stall() {
            self.window.1 = bytes;
        } else if bytes < LEAST {
            return Err(failed(format!("only {bytes} bytes came in {} seconds", since.elapsed().as_secs())));
        } else {
            self.window = (Instant::now(), 0);
        }
        Ok(length)
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
