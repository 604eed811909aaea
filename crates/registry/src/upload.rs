//! One blob on its way to a registry.
//!
//! If the registry does not have it: taken over from another repository there, or sent, whole where it is small and in
//! chunks where it is not. When the connection breaks, the registry is asked how far it got, and the rest is sent from there.
//! Where the registry wants the bytes is its own to say (`Location`), also on another host, which gets them without our
//! credentials. Source: the OCI distribution specification, "Pushing blobs".

use std::fs::File;
use std::time::Duration;

use hull_image::{Blob, Digest};
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use ureq::http::{Method, Response, StatusCode};
use ureq::{Body, ResponseExt};

use crate::auth::encode;
use crate::body::FilePart;
use crate::client::{Ask, Client, Fault, Payload, Waits};
use crate::error::{Class, Error, Result};
use crate::growing::Growing;
use crate::http::resolve;

/// What is sent in one request, if the registry does not want it larger.
const CHUNK: u64 = 64 << 20;
/// What is worth a request of its own while there is not more.
const EARLY: u64 = 8 << 20;
/// Failures in a row without a byte more.
const ATTEMPTS: u32 = 5;
/// How long a registry may take to file what it got.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where a blob's bytes are.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    File(&'a File),
    Bytes(&'a [u8]),
}

/// Whether the registry has it in this repository.
pub(crate) fn exists(client: &Client, blob: &Blob) -> Result<bool> {
    let target = format!("/v2/{}/blobs/{}", client.path(), blob.digest);
    match client.send(&Ask::new(Method::HEAD, target, doing(client, &blob.digest))) {
        Ok(_) => Ok(true),
        Err(error) if error.class() == Some(Class::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

fn doing(client: &Client, digest: &Digest) -> String {
    format!("upload {} to {}", digest.short(), client.host())
}

/// One upload.
pub(crate) struct Upload<'a> {
    pub client: &'a Client,
    /// What it is called in errors.
    pub name: &'a Digest,
    pub source: Source<'a>,
    /// Gets the place up to which it went out; it may go back.
    pub sent: &'a (dyn Fn(u64) + Sync),
}

/// Where the registry takes the rest.
pub(crate) struct Session {
    location: String,
    at: u64,
    chunk: u64,
    /// The least that the registry takes as a chunk which is not the last.
    least: u64,
}

/// Opens an upload; none if the registry took `digest` from its repository `from`. The bytes of one chunk are `chunk`, if
/// that is given and enough for the registry.
pub(crate) fn begin(
    client: &Client,
    digest: &Digest,
    from: Option<&str>,
    chunk: Option<u64>,
) -> Result<Option<Session>> {
    let mut target = format!("/v2/{}/blobs/uploads/", client.path());
    if let Some(from) = from {
        let fields = [("mount", digest.to_string()), ("from", from.to_owned())];
        target = format!("{target}?{}", encode(&fields));
    }
    // A session that was opened and not heard of costs nobody anything.
    let mut ask = Ask { again: true, ..Ask::new(Method::POST, target, doing(client, digest)) };
    ask.headers.push((CONTENT_LENGTH.as_str(), "0".to_owned()));
    let response = client.send(&ask)?;
    match response.status() {
        StatusCode::CREATED if from.is_some() => Ok(None),
        StatusCode::ACCEPTED => {
            let least = response.headers().get("oci-chunk-min-length").and_then(|value| value.to_str().ok());
            let least = least.and_then(|text| text.parse().ok()).unwrap_or(0);
            let location = location(&response).map_err(|why| wrong(client, digest, why))?;
            Ok(Some(Session { location, at: 0, chunk: chunk.unwrap_or(CHUNK).max(least), least }))
        }
        status => Err(wrong(client, digest, format!("it answered {} to the start of an upload", status.as_u16()))),
    }
}

/// Sends what there is of something that grows and whose digest is not known, as long as it does; gives the session in which it goes on. None
/// if it ended before it was worth one.
///
/// # Errors
/// As [`Upload::send`].
pub(crate) fn early(
    client: &Client,
    name: &Digest,
    growing: &Growing,
    chunk: Option<u64>,
) -> Result<Option<Session>> {
    let Some((file, _)) = growing.at_least(EARLY) else { return Ok(None) };
    let Some(mut session) = begin(client, name, None, chunk)? else { return Ok(None) };
    Upload { client, name, source: Source::File(file), sent: &|_| {} }.follow(growing, &mut session)?;
    Ok(Some(session))
}

fn wrong(client: &Client, digest: &Digest, why: impl std::fmt::Display) -> Error {
    Error::new(Class::Protocol, doing(client, digest), format!("the registry: {why}"))
}

/// Where an answer says that it goes on.
fn location(response: &Response<Body>) -> std::result::Result<String, &'static str> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or("it does not say where the upload goes on")?;
    Ok(resolve(response.get_uri(), location))
}

impl Upload<'_> {
    /// Sends the blob, to its end.
    ///
    /// # Errors
    /// What the registry said, or that it could not be reached any more.
    pub(crate) fn send(&self, blob: &Blob, mut session: Session) -> Result<()> {
        self.insist(&mut session, Some(blob), || blob.size, |session| self.rest(blob, session))
    }

    /// Sends what is there of a file that grows, until it does no more. Its end is for [`Upload::send`], in the same session.
    ///
    /// # Errors
    /// As there.
    fn follow(&self, growing: &Growing, session: &mut Session) -> Result<()> {
        self.insist(
            session,
            None,
            || growing.length(),
            |session| {
                // A registry that takes a blob in one piece only gets it when all of it is there.
                while session.chunk != u64::MAX {
                    let Some((_, length)) = growing.at_least(session.at + EARLY.max(session.least)) else { break };
                    self.patch(session, length.min(session.at.saturating_add(session.chunk)))?;
                }
                Ok(())
            },
        )
    }

    /// Does `rest` again after what may pass, from where the registry has got to, which can be no more than `most`.
    fn insist(
        &self,
        session: &mut Session,
        blob: Option<&Blob>,
        most: impl Fn() -> u64,
        rest: impl Fn(&mut Session) -> std::result::Result<(), Fault>,
    ) -> Result<()> {
        let mut waits = Waits::new(ATTEMPTS);
        loop {
            let before = session.at;
            let (error, after) = match rest(session) {
                Ok(()) => return Ok(()),
                Err(Fault::Passing(error, after)) => (error, after),
                // The rest is to begin elsewhere than we thought.
                Err(Fault::Final(error)) if error.status() == Some(416) => (error, None),
                Err(Fault::Final(error)) if session.refuses_chunks(&error) => {
                    *session = self.anew(u64::MAX)?;
                    continue;
                }
                Err(Fault::Final(error)) => return Err(error),
            };
            if session.at > before {
                waits = Waits::new(ATTEMPTS);
            }
            waits.wait(self.client, error, after)?;
            // It may have arrived, and only the answer was lost.
            if let Some(blob) = blob
                && exists(self.client, blob)?
            {
                return Ok(());
            }
            if !self.look(session, most())? {
                *session = self.anew(session.chunk)?;
            }
        }
    }

    fn anew(&self, chunk: u64) -> Result<Session> {
        let session = begin(self.client, self.name, None, Some(chunk))?;
        session.ok_or_else(|| self.wrong("it took a blob that it was not told of"))
    }

    fn wrong(&self, why: impl std::fmt::Display) -> Error {
        wrong(self.client, self.name, why)
    }

    fn ask(&self, method: Method, target: String) -> Ask<'_> {
        Ask::new(method, target, doing(self.client, self.name))
    }

    /// Everything that the registry does not have yet, and the end.
    fn rest(&self, blob: &Blob, session: &mut Session) -> std::result::Result<(), Fault> {
        let size = blob.size;
        // All of it with the end itself.
        if session.at == 0 && size <= session.chunk {
            return self.finish(blob, session, 0);
        }
        while session.at < size {
            let end = size.min(session.at.saturating_add(session.chunk));
            self.patch(session, end)?;
        }
        self.finish(blob, session, size)
    }

    /// One chunk.
    fn patch(&self, session: &mut Session, end: u64) -> std::result::Result<(), Fault> {
        let mut ask = self.ask(Method::PATCH, session.location.clone());
        ask.headers.push((CONTENT_TYPE.as_str(), "application/octet-stream".to_owned()));
        ask.headers.push((CONTENT_RANGE.as_str(), format!("{}-{}", session.at, end - 1)));
        ask.body = self.body(session.at, end);
        let response = self.client.attempt(&ask)?;
        session.location = location(&response).map_err(|why| Fault::Final(self.wrong(why)))?;
        session.at = match have(&response) {
            Some(have) if have > session.at && have <= end => have,
            Some(have) => {
                let why = format!("it says that it has {have} bytes after byte {end} was sent");
                return Err(Fault::Final(self.wrong(why)));
            }
            None => end,
        };
        Ok(())
    }

    /// The digest, and the bytes from `from` on.
    fn finish(&self, blob: &Blob, session: &Session, from: u64) -> std::result::Result<(), Fault> {
        let separator = if session.location.contains('?') { '&' } else { '?' };
        let digest = encode(&[("digest", blob.digest.to_string())]);
        let mut ask = self.ask(Method::PUT, format!("{}{separator}{digest}", session.location));
        ask.headers.push((CONTENT_TYPE.as_str(), "application/octet-stream".to_owned()));
        ask.patience = Some(PATIENCE);
        match self.body(from, blob.size) {
            Payload::None => ask.headers.push((CONTENT_LENGTH.as_str(), "0".to_owned())),
            body => ask.body = body,
        }
        self.client.attempt(&ask).map(|_| ())
    }

    fn body(&self, from: u64, end: u64) -> Payload<'_> {
        match self.source {
            _ if from == end => Payload::None,
            Source::File(file) => Payload::File(FilePart { file, from, length: end - from, sent: self.sent }),
            // A document: it is in memory, so its length is one of memory.
            Source::Bytes(data) => Payload::Bytes(&data[from as usize..end as usize]),
        }
    }

    /// Asks how far the registry got; false if it knows nothing of the session any more.
    fn look(&self, session: &mut Session, most: u64) -> Result<bool> {
        match self.client.send(&self.ask(Method::GET, session.location.clone())) {
            Ok(response) => {
                session.at = have(&response).filter(|have| *have <= most).unwrap_or(0);
                if response.headers().contains_key(LOCATION) {
                    session.location = location(&response).map_err(|why| self.wrong(why))?;
                }
                (self.sent)(session.at);
                Ok(true)
            }
            // Not every registry can be asked; a new session serves too.
            Err(error) if error.status().is_some() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Session {
    /// Some registries take a blob in one piece only, and say so to the first chunk.
    fn refuses_chunks(&self, error: &Error) -> bool {
        let refuses = matches!(error.status(), Some(400 | 404 | 405 | 411 | 415 | 501));
        refuses && self.at == 0 && self.chunk != u64::MAX
    }
}

/// `Range: 0-99` says that there are 100 bytes. `0-0` is what is said of none, too.
fn have(response: &Response<Body>) -> Option<u64> {
    let range = response.headers().get(RANGE)?.to_str().ok()?;
    let (_, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    let last: u64 = last.parse().ok()?;
    if last == 0 { Some(0) } else { last.checked_add(1) }
}
