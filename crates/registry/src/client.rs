//! One repository of one registry over HTTP: requests with redirects, retries and authentication.
//!
//! What is held to: credentials go to the registry and to the token server that it names, over no worse a connection than
//! the registry's own, and to nobody behind a redirect; `https` never becomes `http`; every wait, answer and
//! number of attempts is bounded. Sources: the OCI distribution specification; RFC 9110.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use ureq::http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, SendBody};

use crate::auth::{self, Access};
use crate::challenge;
use crate::credentials::{self, Credentials};
use crate::dns::Hosts;
use crate::error::{Class, Error, Result, shown};
use crate::registries::{Source, server};
use crate::secret::Secret;
use crate::{PullOptions, tls};

/// Redirects that are followed, one after the other.
const REDIRECTS_MAX: usize = 10;
/// Attempts at one request.
const ATTEMPTS: u32 = 5;
/// The longest that a registry may ask us to wait.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The most of an error's text that is read.
const ERROR_MAX: u64 = 64 << 10;
/// How long a small answer may take in all.
pub(crate) const SMALL_TIME: Duration = Duration::from_secs(60);

/// What a request is to do.
pub(crate) struct Ask<'a> {
    pub method: Method,
    /// Path and query below the registry's address, or a whole address that the registry gave.
    pub target: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Payload<'a>,
    /// Verb and object, for errors.
    pub doing: String,
}

/// What is sent along.
#[expect(dead_code, reason = "a pull sends nothing; a push will")]
pub(crate) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// A file from its beginning; its length is sent as the content's.
    File(&'a std::fs::File, u64),
}

impl<'a> Ask<'a> {
    pub(crate) fn get(target: String, doing: String) -> Self {
        Self { method: Method::GET, target, headers: Vec::new(), body: Payload::None, doing }
    }

    fn repeatable(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }
}

/// One repository of one registry.
pub struct Client {
    source: Source,
    /// `https://host[:port]`.
    base: String,
    own: Agent,
    others: Agent,
    credentials: Option<Credentials>,
    access: Access,
    authorization: Mutex<Option<Secret>>,
}

/// How one attempt failed.
enum Fault {
    /// Another one may do better, after so long.
    Passing(Error, Option<Duration>),
    Final(Error),
}

impl Client {
    /// A client for `source`; asks the registry nothing unless it may be insecure, since then it is not known how it is
    /// reached.
    ///
    /// # Errors
    /// Configuration that cannot be read; an insecure registry that answers neither way.
    pub fn connect(source: &Source, options: &PullOptions, access: Access) -> Result<Self> {
        let insecure = options.tls_verify.map_or(source.insecure, |verify| !verify);
        let source = Source { insecure, ..source.clone() };
        let credentials = match &options.credentials {
            Some(given) => Some(given.clone()),
            None => credentials::find(options.auth_file.as_deref(), &source.host, &source.path)?,
        };
        let agent = |tls| agent(tls, options.stall());
        let own = agent(tls::config(&source.host, options.cert_dir.as_deref(), !insecure)?)?;
        let others = agent(tls::plain(!insecure)?)?;
        let base = format!("https://{}", server(&source.host));
        let mut client = Self { source, base, own, others, credentials, access, authorization: Mutex::new(None) };
        if insecure {
            client.find_scheme()?;
        }
        Ok(client)
    }

    /// The registry that is asked, as it was named.
    pub fn host(&self) -> &str {
        &self.source.host
    }

    pub(crate) fn path(&self) -> &str {
        &self.source.path
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// An insecure registry may speak TLS with a certificate of its own, or none at all.
    fn find_scheme(&mut self) -> Result<()> {
        let doing = format!("reach the registry {}", self.source.host);
        let mut failures = Vec::new();
        for scheme in ["https", "http"] {
            let base = format!("{scheme}://{}", server(&self.source.host));
            let request = Request::get(format!("{base}/v2/")).body(SendBody::none());
            let request = request.map_err(|error| Error::new(Class::Usage, doing.clone(), error))?;
            match self.own.run(request) {
                Ok(_) => {
                    self.base = base;
                    return Ok(());
                }
                Err(error) => failures.push(format!("{scheme}: {}", transport_text(&error))),
            }
        }
        Err(Error::new(Class::Network, doing, failures.join("; ")))
    }

    /// Sends a request until it succeeds: follows redirects, authenticates, tries again what may pass.
    ///
    /// # Errors
    /// What the registry said, or that it could not be reached.
    pub(crate) fn send(&self, ask: &Ask<'_>) -> Result<Response<Body>> {
        let mut pause = Duration::from_millis(250);
        for attempt in 1.. {
            let (error, after) = match self.attempt(ask) {
                Ok(response) => return Ok(response),
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Passing(error, after)) => (error, after),
            };
            if attempt == ATTEMPTS || !ask.repeatable() {
                return Err(error);
            }
            let wait = after.unwrap_or(pause).max(jitter(pause)?);
            if wait > WAIT_MAX {
                return Err(error.with_hint(format!("the registry asks to wait {} seconds", wait.as_secs())));
            }
            std::thread::sleep(wait);
            pause = (pause * 2).min(Duration::from_secs(10));
        }
        unreachable!("the last attempt returns")
    }

    fn attempt(&self, ask: &Ask<'_>) -> std::result::Result<Response<Body>, Fault> {
        let mut authenticated = false;
        loop {
            let used = self.current();
            let response = self.follow(ask, used.as_ref())?;
            let status = response.status();
            if status != StatusCode::UNAUTHORIZED {
                return self.judge(ask, response);
            }
            // Once: a registry that refuses what its own token server gave refuses it again.
            if authenticated {
                return self.judge(ask, response);
            }
            self.authenticate(&response, used.as_ref()).map_err(Fault::Final)?;
            authenticated = true;
        }
    }

    fn current(&self) -> Option<Secret> {
        self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Makes the header that the registry wants, unless another thread has made one meanwhile.
    fn authenticate(&self, response: &Response<Body>, used: Option<&Secret>) -> Result<()> {
        let mut held = self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if held.as_ref() != used {
            return Ok(());
        }
        let headers = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges: Vec<_> = headers.filter_map(|value| value.to_str().ok()).flat_map(challenge::parse).collect();
        *held = Some(auth::answer(self, &challenges, &self.access)?);
        Ok(())
    }

    /// One request with its redirects; the last answer, whatever its status.
    fn follow(&self, ask: &Ask<'_>, authorization: Option<&Secret>) -> std::result::Result<Response<Body>, Fault> {
        let refused = |why: String| Fault::Final(Error::new(Class::Protocol, ask.doing.clone(), why));
        let mut address = self.address(&ask.target).map_err(refused)?;
        for _ in 0..=REDIRECTS_MAX {
            let ours = self.is_ours(&address);
            let mut request = Request::builder().method(&ask.method).uri(&address);
            for (name, value) in &ask.headers {
                request = request.header(*name, value);
            }
            if let (true, Some(authorization)) = (ours, authorization) {
                request = request.header(AUTHORIZATION, authorization.reveal());
            }
            let response = self.run(request, ask, if ours { &self.own } else { &self.others })?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) || !ask.repeatable() {
                return Ok(response);
            }
            address = next(&address, response.headers()).map_err(refused)?;
        }
        Err(refused(format!("it redirects more than {REDIRECTS_MAX} times")))
    }

    fn run(
        &self,
        request: ureq::http::request::Builder,
        ask: &Ask<'_>,
        agent: &Agent,
    ) -> std::result::Result<Response<Body>, Fault> {
        let wrong = |error| Fault::Final(Error::new(Class::Protocol, ask.doing.clone(), error));
        let result = match ask.body {
            Payload::None => agent.run(request.body(SendBody::none()).map_err(wrong)?),
            Payload::Bytes(data) => agent.run(request.body(data).map_err(wrong)?),
            Payload::File(mut file, size) => {
                std::io::Seek::rewind(&mut file)
                    .map_err(|error| Fault::Final(Error::new(Class::Config, ask.doing.clone(), error)))?;
                let mut reader = std::io::Read::take(file, size);
                let request = request.header("content-length", size);
                agent.run(request.body(SendBody::from_reader(&mut reader)).map_err(wrong)?)
            }
        };
        result.map_err(|error| self.transport(error, &ask.doing))
    }

    fn transport(&self, error: ureq::Error, doing: &str) -> Fault {
        let failed = |class, why: String| Error::new(class, doing, why);
        match error {
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => Fault::Final(self.tls(failed, &error)),
            ureq::Error::Io(io) if io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                Fault::Final(self.tls(failed, &ureq::Error::Io(io)))
            }
            ureq::Error::Http(_) | ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl => {
                Fault::Final(failed(Class::Protocol, error.to_string()))
            }
            error => Fault::Passing(failed(Class::Network, transport_text(&error)), None),
        }
    }

    fn tls(&self, failed: impl Fn(Class, String) -> Error, error: &ureq::Error) -> Error {
        let host = server(&self.source.host);
        failed(Class::Tls, transport_text(error)).with_hint(format!(
            "put the registry's authority into /etc/containers/certs.d/{host}/ca.crt; --tls-verify=false does without"
        ))
    }

    /// The whole address of a target; one that the registry gave may lead elsewhere.
    fn address(&self, target: &str) -> std::result::Result<Uri, String> {
        let whole = if target.starts_with('/') { format!("{}{target}", self.base) } else { target.to_owned() };
        let address: Uri = whole.parse().map_err(|_| format!("{:?} is no address", shown(target)))?;
        self.allowed(&address)?;
        Ok(address)
    }

    fn allowed(&self, address: &Uri) -> std::result::Result<(), String> {
        let ours = self.base.split_once("://").map(|(scheme, _)| scheme);
        match (ours, address.scheme_str()) {
            (_, Some("https")) | (Some("http"), Some("http")) => Ok(()),
            (_, Some("http")) => Err("it leads from https to http".to_owned()),
            (_, other) => Err(format!("it leads to {:?}, which is not HTTP", shown(other.unwrap_or_default()))),
        }
    }

    /// Same scheme, host and port as the registry itself.
    pub(crate) fn is_ours(&self, address: &Uri) -> bool {
        let Ok(base) = self.base.parse::<Uri>() else { return false };
        let port = |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
        // A name in an address would be somebody else's credentials.
        let plain = address.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        plain && base.scheme() == address.scheme() && host(&base) == host(address) && port(&base) == port(address)
    }

    /// For the token server: a request without redirects, with its own credentials.
    pub(crate) fn ask_elsewhere(
        &self,
        request: ureq::http::request::Builder,
        address: &Uri,
        body: &[u8],
        doing: &str,
    ) -> Result<Response<Body>> {
        let agent = if self.is_ours(address) { &self.own } else { &self.others };
        let wrong = |error| Error::new(Class::Protocol, doing, error);
        let result = match body.is_empty() {
            true => agent.run(request.body(SendBody::none()).map_err(wrong)?),
            false => agent.run(request.body(body).map_err(wrong)?),
        };
        result.map_err(|error| match self.transport(error, doing) {
            Fault::Passing(error, _) | Fault::Final(error) => error,
        })
    }

    /// Sorts an answer by its status.
    fn judge(&self, ask: &Ask<'_>, response: Response<Body>) -> std::result::Result<Response<Body>, Fault> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = retry_after(response.headers());
        let doing = ask.doing.clone();
        let said = || format!("the registry {} answered {}", self.source.host, explain(status, response));
        Err(match status.as_u16() {
            401 | 403 => {
                let host = &self.source.host;
                let hint = match self.credentials {
                    None => format!("it may not exist or want a login: hull login {host}"),
                    Some(_) => {
                        format!("the credentials for {host} are wrong or have no right to it: hull login {host}")
                    }
                };
                Fault::Final(Error::new(Class::Denied, doing, said()).with_hint(hint))
            }
            404 => Fault::Final(Error::new(Class::NotFound, doing, said())),
            408 | 429 | 500 | 502 | 503 | 504 => Fault::Passing(Error::new(Class::Network, doing, said()), after),
            _ => Fault::Final(Error::new(Class::Protocol, doing, said())),
        })
    }
}

fn agent(tls: ureq::tls::TlsConfig, stall: Duration) -> Result<Agent> {
    let config = Agent::config_builder()
        .tls_config(tls)
        .user_agent(concat!("hull/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .accept("*/*")
        .proxy(ureq::Proxy::try_from_env())
        .timeout_connect(Some(stall.min(Duration::from_secs(15))))
        .timeout_recv_response(Some(stall))
        .timeout_per_read(Some(stall))
        .timeout_per_write(Some(stall))
        .build();
    Ok(Agent::with_parts(config, DefaultConnector::new(), Hosts))
}

/// The address that a redirect leads to, also a relative one.
fn next(from: &Uri, headers: &HeaderMap) -> std::result::Result<Uri, String> {
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
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let when = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let seconds = when.as_second() - jiff::Timestamp::now().as_second();
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Between half of it and all of it.
fn jitter(pause: Duration) -> Result<Duration> {
    let mut byte = [0u8; 1];
    rustix::rand::getrandom(&mut byte[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::new(Class::Config, "wait before another attempt", error))?;
    Ok(pause / 2 + pause / 2 * u32::from(byte[0]) / 255)
}

/// A status and what the registry says about it.
fn explain(status: StatusCode, response: Response<Body>) -> String {
    let known = status.canonical_reason().unwrap_or_default();
    let status = format!("{} {known}", status.as_u16());
    let data = small(response, ERROR_MAX).unwrap_or_default();
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(&data) else { return status };
    let error = &document["errors"][0];
    let words = [error["code"].as_str(), error["message"].as_str(), document["details"].as_str()];
    let words: Vec<&str> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    if words.is_empty() { status } else { format!("{status} ({})", shown(&words.join(": "))) }
}

/// An answer that is small, or it is an error: neither its length nor its time is the server's to choose.
pub(crate) fn small(response: Response<Body>, limit: u64) -> std::result::Result<Vec<u8>, String> {
    let deadline = Instant::now() + SMALL_TIME;
    let too_long = || format!("it has more than {limit} bytes");
    let mut body = response.into_body();
    if body.content_length().is_some_and(|length| length > limit) {
        return Err(too_long());
    }
    let mut reader = body.as_reader();
    let mut data = Vec::new();
    let mut buffer = [0u8; 16 << 10];
    loop {
        match std::io::Read::read(&mut reader, &mut buffer) {
            Ok(0) => return Ok(data),
            Ok(length) => data.extend_from_slice(&buffer[..length]),
            Err(error) => return Err(error.to_string()),
        }
        if data.len() as u64 > limit {
            return Err(too_long());
        }
        if Instant::now() > deadline {
            return Err(format!("it did not arrive within {} seconds", SMALL_TIME.as_secs()));
        }
    }
}

const NOT_TLS: &str = "it does not speak TLS";

/// A failed connection in words.
pub(crate) fn transport_text(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "no such host".to_owned(),
        ureq::Error::Timeout(_) => "nothing came for too long".to_owned(),
        ureq::Error::Rustls(rustls::Error::InvalidMessage(_)) => NOT_TLS.to_owned(),
        ureq::Error::Io(io) => match io.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(rustls::Error::InvalidMessage(_)) => NOT_TLS.to_owned(),
            _ => io.to_string(),
        },
        other => other.to_string(),
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
