//! One repository of one registry over HTTP: requests with redirects, retries and authentication.
//!
//! What is held to: credentials go to the registry and to the token server that it names, over no worse a connection than
//! the registry's own, and to nobody behind a redirect; `https` never becomes `http`; every wait, answer and
//! number of attempts is bounded. Sources: the OCI distribution specification; RFC 9110.

use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, WWW_AUTHENTICATE};
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector};
use ureq::{Agent, AsSendBody, Body, ResponseExt, SendBody};

use crate::auth::{self, Access};
use crate::body::FilePart;
use crate::challenge::{self, Challenge};
use crate::connect::Race;
use crate::credentials::{self, Credentials};
use crate::dns::Hosts;
use crate::error::{Class, Error, Result, shown};
use crate::http::{Unread, WAIT_MAX, explain, is_passing, jitter, next, retry_after, small, transport_text};
use crate::registries::{Source, server};
use crate::secret::Secret;
use crate::{Options, tls};

/// Redirects that are followed, one after the other.
const REDIRECTS_MAX: usize = 10;
/// Attempts at one request.
const ATTEMPTS: u32 = 5;

/// What a request is to do.
pub(crate) struct Ask<'a> {
    pub method: Method,
    /// Path and query below the registry's address, or a whole address that the registry gave.
    pub target: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Payload<'a>,
    /// Asking twice does what asking once does, so a failure on the way is no reason to give up.
    pub again: bool,
    /// How long the answer may take, if it is one that takes long.
    pub patience: Option<Duration>,
    /// Verb and object, for errors.
    pub doing: String,
}

/// What is sent along.
pub(crate) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    File(FilePart<'a>),
}

impl<'a> Ask<'a> {
    pub(crate) fn get(target: String, doing: String) -> Self {
        Self::new(Method::GET, target, doing)
    }

    /// A request of any method; one that changes something is not repeated unless it is said that it may be.
    pub(crate) fn new(method: Method, target: String, doing: String) -> Self {
        let again = method == Method::GET || method == Method::HEAD;
        Self { method, target, headers: Vec::new(), body: Payload::None, again, patience: None, doing }
    }

    /// Only 307 and 308 keep the method and the body.
    fn follows(&self, status: StatusCode) -> bool {
        let reads = self.method == Method::GET || self.method == Method::HEAD;
        matches!(status.as_u16(), 307 | 308) || (reads && matches!(status.as_u16(), 301..=303))
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
    cancelled: AtomicBool,
    stall: Duration,
}

/// How one attempt failed.
pub(crate) enum Fault {
    /// Another one may do better, after so long.
    Passing(Error, Option<Duration>),
    Final(Error),
}

impl Fault {
    /// The same, and no other attempt is to be made.
    pub(crate) fn into_final(self) -> Self {
        match self {
            Fault::Passing(error, _) | Fault::Final(error) => Fault::Final(error),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Final(error)
    }
}

impl Client {
    /// A client for `source`; asks the registry nothing unless it may be insecure, since then it is not known how it is
    /// reached.
    ///
    /// # Errors
    /// Configuration that cannot be read; an insecure registry that answers neither way.
    pub fn connect(source: &Source, options: &Options, access: Access) -> Result<Self> {
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
        let mut client = Self {
            source,
            base,
            own,
            others,
            credentials,
            access,
            authorization: Mutex::new(None),
            cancelled: AtomicBool::new(false),
            stall: options.stall(),
        };
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

    /// How long nothing, or next to nothing, may come.
    pub(crate) fn stall(&self) -> Duration {
        self.stall
    }

    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// An insecure registry may speak TLS with a certificate of its own, or none at all.
    fn find_scheme(&mut self) -> Result<()> {
        let mut waits = Waits::new(ATTEMPTS);
        loop {
            match self.try_schemes() {
                Ok(base) => {
                    self.base = base;
                    return Ok(());
                }
                Err(Fault::Passing(error, after)) => waits.wait(self, error, after)?,
                Err(Fault::Final(error)) => return Err(error),
            }
        }
    }

    /// The address at which the registry answers.
    fn try_schemes(&self) -> std::result::Result<String, Fault> {
        let doing = format!("reach the registry {}", self.source.host);
        let mut failures = Vec::new();
        let mut passing = false;
        for scheme in ["https", "http"] {
            let base = format!("{scheme}://{}", server(&self.source.host));
            let request = Request::get(format!("{base}/v2/")).body(SendBody::none());
            let request = request.map_err(|error| Error::new(Class::Usage, doing.clone(), error))?;
            match self.own.run(request) {
                Ok(_) => return Ok(base),
                Err(error) => {
                    // A name server that fails, or a connection that breaks; who listens nowhere does not come soon.
                    passing = matches!(&error, ureq::Error::Io(io) if io.kind() != ErrorKind::ConnectionRefused);
                    failures.push(format!("{scheme}: {}", transport_text(&error)));
                }
            }
        }
        let error = Error::new(Class::Network, doing, failures.join("; "));
        Err(if passing { Fault::Passing(error, None) } else { Fault::Final(error) })
    }

    /// Ends everything that goes on with this client, from any thread.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Sends a request until it succeeds: follows redirects, authenticates, tries again what may pass.
    ///
    /// # Errors
    /// What the registry said, or that it could not be reached.
    pub(crate) fn send(&self, ask: &Ask<'_>) -> Result<Response<Body>> {
        self.until_done(ask, || self.attempt(ask))
    }

    /// The same for an answer of at most `most` bytes, which is read to its end. One that breaks off is asked for again.
    ///
    /// # Errors
    /// As [`Client::send`]; an answer that is too long, or takes too long in all.
    pub(crate) fn read(&self, ask: &Ask<'_>, most: u64) -> Result<(HeaderMap, Vec<u8>)> {
        self.until_done(ask, || {
            let response = self.attempt(ask)?;
            let headers = response.headers().clone();
            let failed = |class, why: String| Error::new(class, ask.doing.clone(), why);
            match small(response, most) {
                Ok(data) => Ok((headers, data)),
                Err(Unread::Broken(why)) => Err(Fault::Passing(failed(Class::Network, why), None)),
                Err(Unread::Wrong(why)) => Err(Fault::Final(failed(Class::Protocol, why))),
            }
        })
    }

    fn until_done<T>(&self, ask: &Ask<'_>, once: impl Fn() -> std::result::Result<T, Fault>) -> Result<T> {
        let mut waits = Waits::new(ATTEMPTS);
        loop {
            match once() {
                Ok(done) => return Ok(done),
                Err(Fault::Passing(error, after)) if ask.again => waits.wait(self, error, after)?,
                Err(Fault::Final(error) | Fault::Passing(error, _)) => return Err(error),
            }
        }
    }

    /// [`Client::send`], once.
    pub(crate) fn attempt(&self, ask: &Ask<'_>) -> std::result::Result<Response<Body>, Fault> {
        let mut authenticated = false;
        loop {
            let used = self.current();
            let response = self.follow(ask, used.as_ref())?;
            let status = response.status();
            if status != StatusCode::UNAUTHORIZED {
                return self.judge(ask, response);
            }
            // Once: a registry that refuses what its own token server gave refuses it again. And whoever the registry sends
            // us to does not learn who we are there.
            if authenticated || !self.is_ours(response.get_uri()) {
                return self.judge(ask, response);
            }
            self.authenticate(&response, used.as_ref())?;
            authenticated = true;
        }
    }

    fn current(&self) -> Option<Secret> {
        self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Makes the header that the registry wants, unless another thread has made one meanwhile.
    fn authenticate(&self, response: &Response<Body>, used: Option<&Secret>) -> std::result::Result<(), Fault> {
        let mut held = self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if held.as_ref() != used {
            return Ok(());
        }
        *held = Some(auth::answer(self, &challenges(response), &self.access)?);
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
            if !ask.follows(response.status()) {
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
        let patience = ask.patience;
        let result = match &ask.body {
            Payload::None => patient(agent, request.body(SendBody::none()).map_err(wrong)?, patience),
            Payload::Bytes(data) => {
                let mut data = *data;
                patient(agent, request.body(data.as_body()).map_err(wrong)?, patience)
            }
            Payload::File(part) => {
                let mut reader = part.reader();
                let request = request.header(CONTENT_LENGTH, part.length);
                patient(agent, request.body(SendBody::from_reader(&mut reader)).map_err(wrong)?, patience)
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
            // That a name means nothing is an answer, and not a fault of whoever gives it.
            ureq::Error::HostNotFound => Fault::Final(failed(Class::Network, transport_text(&error))),
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
    ) -> std::result::Result<Response<Body>, Fault> {
        let agent = if self.is_ours(address) { &self.own } else { &self.others };
        let wrong = |error| Error::new(Class::Protocol, doing, error);
        let result = match body.is_empty() {
            true => agent.run(request.body(SendBody::none()).map_err(wrong)?),
            false => agent.run(request.body(body).map_err(wrong)?),
        };
        result.map_err(|error| self.transport(error, doing))
    }

    /// Sorts an answer by its status.
    fn judge(&self, ask: &Ask<'_>, response: Response<Body>) -> std::result::Result<Response<Body>, Fault> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = retry_after(response.headers());
        let invalid = challenges(&response).iter().any(|challenge| challenge.get("error") == Some("invalid_token"));
        let doing = ask.doing.clone();
        let said = || format!("the registry {} answered {}", self.source.host, explain(status, response));
        let fault = match status.as_u16() {
            401 | 403 => {
                let host = &self.source.host;
                let hint = match self.credentials {
                    _ if invalid && self.current().is_some() => format!(
                        "{host} does not take the token that its own token server gave just now: their clocks may differ"
                    ),
                    None => format!("it may not exist or want a login: hull login {host}"),
                    Some(_) => {
                        format!("the credentials for {host} are wrong or have no right to it: hull login {host}")
                    }
                };
                Fault::Final(Error::new(Class::Denied, doing, said()).with_hint(hint))
            }
            404 => Fault::Final(Error::new(Class::NotFound, doing, said())),
            status if is_passing(status) => Fault::Passing(Error::new(Class::Network, doing, said()), after),
            _ => Fault::Final(Error::new(Class::Protocol, doing, said())),
        };
        Err(match fault {
            Fault::Final(error) => Fault::Final(error.with_status(status.as_u16())),
            Fault::Passing(error, after) => Fault::Passing(error.with_status(status.as_u16()), after),
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
    let connector = ().chain(ConnectProxyConnector::default()).chain(Race).chain(RustlsConnector::default());
    Ok(Agent::with_parts(config, connector, Hosts))
}

/// What an answer says about logging in.
fn challenges(response: &Response<Body>) -> Vec<Challenge> {
    let headers = response.headers().get_all(WWW_AUTHENTICATE).iter();
    headers.filter_map(|value| value.to_str().ok()).flat_map(challenge::parse).collect()
}

/// Runs a request whose answer may take longer than others.
fn patient(
    agent: &Agent,
    request: Request<SendBody<'_>>,
    patience: Option<Duration>,
) -> std::result::Result<Response<Body>, ureq::Error> {
    match patience {
        Some(patience) => agent.run(agent.configure_request(request).timeout_recv_response(Some(patience)).build()),
        None => agent.run(request),
    }
}

/// The pauses between attempts: longer each time, as long as the registry asks, and never long when all is over.
pub(crate) struct Waits {
    left: u32,
    pause: Duration,
}

impl Waits {
    pub(crate) fn new(attempts: u32) -> Self {
        Self { left: attempts, pause: Duration::from_millis(250) }
    }

    /// Waits before the next attempt; gives `error` back if there is to be none.
    pub(crate) fn wait(&mut self, client: &Client, error: Error, after: Option<Duration>) -> Result<()> {
        self.left -= 1;
        if self.left == 0 {
            return Err(error);
        }
        let wait = after.unwrap_or(self.pause).max(jitter(self.pause)?);
        if wait > WAIT_MAX {
            return Err(error.with_hint(format!("the registry asks to wait {} seconds", wait.as_secs())));
        }
        self.pause = (self.pause * 2).min(Duration::from_secs(10));
        let end = Instant::now() + wait;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if client.is_cancelled() {
                return Err(error);
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }
}
