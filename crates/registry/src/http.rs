//! The parts of HTTP that do not depend on a registry: where a `Location` leads, how long to wait, what an error says.
//!
//! Source: RFC 9110; RFC 3986 for references.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use ureq::Body;
use ureq::http::header::{LOCATION, RETRY_AFTER};
use ureq::http::{HeaderMap, Response, StatusCode, Uri};

use crate::error::{Class, Error, Result, shown};

/// The longest that a registry may ask us to wait.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);
/// The most of an error's text that is read.
const ERROR_MAX: u64 = 64 << 10;
/// How long a small answer may take in all.
const SMALL_TIME: Duration = Duration::from_secs(60);

/// The address that a redirect leads to, also a relative one.
pub(crate) fn next(from: &Uri, headers: &HeaderMap) -> std::result::Result<Uri, String> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).ok_or("it redirects to nowhere")?;
    let whole = resolve(from, location);
    let to: Uri = whole.parse().map_err(|_| format!("it redirects to {:?}, which is no address", shown(location)))?;
    match (from.scheme_str(), to.scheme_str()) {
        (_, Some("https")) | (Some("http"), Some("http")) => Ok(to),
        (Some("https"), Some("http")) => Err(format!("it redirects from https to http ({})", shown(&whole))),
        _ => Err(format!("it redirects to {:?}, which is not HTTP", shown(location))),
    }
}

/// A reference beside the address it was found at (RFC 3986, the cases that a `Location` has).
pub(crate) fn resolve(from: &Uri, location: &str) -> String {
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map(|authority| authority.as_str()).unwrap_or_default();
    if location.starts_with("//") {
        return format!("{scheme}:{location}");
    }
    if location.starts_with('/') {
        return format!("{scheme}://{authority}{location}");
    }
    if location
        .split_once(':')
        .is_some_and(|(start, _)| start.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)))
    {
        return location.to_owned();
    }
    let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{scheme}://{authority}{folder}/{location}")
}

/// Seconds or a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let when = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let seconds = when.as_second() - jiff::Timestamp::now().as_second();
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Whether a status says that another attempt may do better.
pub(crate) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Between half of it and all of it.
pub(crate) fn jitter(pause: Duration) -> Result<Duration> {
    let mut byte = [0u8; 1];
    rustix::rand::getrandom(&mut byte[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::new(Class::Config, "wait before another attempt", error))?;
    Ok(pause / 2 + pause / 2 * u32::from(byte[0]) / 255)
}

/// A status and what the registry says about it.
pub(crate) fn explain(status: StatusCode, response: Response<Body>) -> String {
    let known = status.canonical_reason().unwrap_or_default();
    let status = format!("{} {known}", status.as_u16());
    // What it says besides is no reason to fail in another way.
    let data = small(response, ERROR_MAX).unwrap_or_default();
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(&data) else { return status };
    let error = &document["errors"][0];
    let words = [error["code"].as_str(), error["message"].as_str(), document["details"].as_str()];
    let words: Vec<&str> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    if words.is_empty() { status } else { format!("{status} ({})", shown(&words.join(": "))) }
}

/// Why an answer could not be read.
pub(crate) enum Unread {
    /// The connection ended or stalled: another attempt may get it.
    Broken(String),
    /// It is not what it should be.
    Wrong(String),
}

/// An answer that is small, or it is an error: neither its length nor its time is the server's to choose.
pub(crate) fn small(response: Response<Body>, limit: u64) -> std::result::Result<Vec<u8>, Unread> {
    let deadline = Instant::now() + SMALL_TIME;
    let too_long = || Unread::Wrong(format!("it has more than the {limit} bytes that it may have"));
    let mut body = response.into_body();
    let told = body.content_length();
    if told.is_some_and(|length| length > limit) {
        return Err(too_long());
    }
    let mut reader = body.as_reader();
    let mut data = Vec::new();
    let mut buffer = [0u8; 16 << 10];
    loop {
        match std::io::Read::read(&mut reader, &mut buffer) {
            Ok(0) => match told.filter(|length| *length != data.len() as u64) {
                None => return Ok(data),
                Some(length) => {
                    return Err(Unread::Broken(format!("it ended after {} of {length} bytes", data.len())));
                }
            },
            Ok(length) => data.extend_from_slice(&buffer[..length]),
            Err(error) => return Err(Unread::Broken(stream_text(&error))),
        }
        if data.len() as u64 > limit {
            return Err(too_long());
        }
        if Instant::now() > deadline {
            return Err(Unread::Wrong(format!("it did not arrive within {} seconds", SMALL_TIME.as_secs())));
        }
    }
}

const NOT_TLS: &str = "it does not speak TLS";
const ENDED: &str = "the connection ended early";

/// A failed connection in words.
pub(crate) fn transport_text(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "no such host".to_owned(),
        ureq::Error::Timeout(_) => "nothing came for too long".to_owned(),
        ureq::Error::Rustls(rustls::Error::InvalidMessage(_)) => NOT_TLS.to_owned(),
        ureq::Error::Io(io) => match io.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(rustls::Error::InvalidMessage(_)) => NOT_TLS.to_owned(),
            _ if io.kind() == ErrorKind::UnexpectedEof => ENDED.to_owned(),
            _ => io.to_string(),
        },
        other => other.to_string(),
    }
}

/// A body that broke off, in words.
pub(crate) fn stream_text(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(error) => transport_text(error),
        None if error.kind() == ErrorKind::UnexpectedEof => ENDED.to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().expect("an address")
    }

    #[test]
    fn a_location_is_resolved_beside_where_it_was_found() {
        let from = uri("https://r.test:5000/v2/a/blobs/uploads/1?x=y");
        for (location, whole) in [
            ("/v2/b", "https://r.test:5000/v2/b"),
            ("https://s.test/c", "https://s.test/c"),
            ("//s.test/d", "https://s.test/d"),
            ("2", "https://r.test:5000/v2/a/blobs/uploads/2"),
            ("file:/etc/shadow", "file:/etc/shadow"),
        ] {
            assert_eq!(resolve(&from, location), whole);
        }
    }

    #[test]
    fn a_redirect_keeps_to_https_and_to_http_at_all() {
        let headers = |location: &str| HeaderMap::from_iter([(LOCATION, location.parse().expect("a header"))]);
        let from = uri("https://r.test/x");
        assert!(next(&from, &headers("https://s.test/y")).is_ok());
        for location in ["http://r.test/y", "file:///etc/shadow", "ftp://r.test/y", ""] {
            assert!(next(&from, &headers(location)).is_err() || location.is_empty(), "{location:?}");
        }
        assert!(next(&uri("http://r.test/x"), &headers("http://s.test/y")).is_ok());
        assert!(next(&from, &HeaderMap::new()).is_err());
    }

    #[test]
    fn waiting_is_told_in_seconds_or_as_a_date() {
        let headers = |text: &str| HeaderMap::from_iter([(RETRY_AFTER, text.parse().expect("a header"))]);
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("Fri, 31 Dec 1999 23:59:59 GMT")), Some(Duration::ZERO));
        assert!(retry_after(&headers("Fri, 31 Dec 2100 23:59:59 GMT")).is_some_and(|wait| wait > WAIT_MAX));
        assert_eq!(retry_after(&headers("soon")), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
