//! Answering a registry's challenge: Basic, or a token from the server that it names.
//!
//! The scope that is asked for is ours, not the one in the challenge: a registry does not choose what we ask a token server
//! for. The token server is reached over no worse a connection than the registry, is not on this machine or its
//! link unless the registry is the same host, and is not followed anywhere else. Source: the distribution project's
//! token specification; Docker's OAuth 2 form of it for identity tokens.

use std::fmt::Write;
use std::net::IpAddr;

use serde::Deserialize;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{Request, Uri};

use crate::challenge::Challenge;
use crate::client::{Client, Fault};
use crate::credentials::Credentials;
use crate::error::{Class, Error};
use crate::http::{Unread, is_passing, retry_after, small};
use crate::secret::Secret;

/// The largest answer of a token server.
const TOKEN_MAX: u64 = 1 << 20;

/// What is asked for at a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading the client's repository.
    Pull,
    /// Reading and writing it, and reading another one to take layers from.
    Push(Vec<String>),
    /// No repository: whether the credentials are right.
    Login,
    /// The list of all repositories.
    Catalogue,
}

impl Access {
    fn scopes(&self, path: &str) -> Vec<String> {
        match self {
            Access::Pull => vec![format!("repository:{path}:pull")],
            Access::Push(others) => {
                let others = others.iter().map(|other| format!("repository:{other}:pull"));
                std::iter::once(format!("repository:{path}:pull,push")).chain(others).collect()
            }
            Access::Login => Vec::new(),
            Access::Catalogue => vec!["registry:catalog:*".to_owned()],
        }
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// The `Authorization` header that answers one of the challenges.
///
/// # Errors
/// A token server that is busy or does not answer is a passing one, for it can be asked again; not so where a token is
/// given for another token, which may be good for one use.
pub(crate) fn answer(
    client: &Client,
    challenges: &[Challenge],
    access: &Access,
) -> std::result::Result<Secret, Fault> {
    let doing = || format!("log in to {}", client.host());
    let bearer = challenges.iter().find(|challenge| challenge.scheme == "bearer");
    if let Some(bearer) = bearer {
        return token(client, bearer, access, &doing());
    }
    if challenges.iter().any(|challenge| challenge.scheme == "basic") {
        let basic = client.credentials().and_then(Credentials::basic);
        return basic.ok_or_else(|| {
            let hint = format!("hull login {}", client.host());
            let error = Error::new(Class::Denied, doing(), "the registry wants a name and a password");
            Fault::Final(error.with_hint(hint))
        });
    }
    let known: Vec<&str> = challenges.iter().map(|challenge| challenge.scheme.as_str()).collect();
    let why = match known.is_empty() {
        true => "it refuses without saying how to log in".to_owned(),
        false => format!("it wants {}, which is not supported", crate::error::shown(&known.join(", "))),
    };
    Err(Fault::Final(Error::new(Class::Protocol, doing(), why)))
}

fn token(client: &Client, challenge: &Challenge, access: &Access, doing: &str) -> std::result::Result<Secret, Fault> {
    let wrong = |why: &str| Error::new(Class::Protocol, doing, format!("the registry's token server: {why}"));
    let realm = challenge.get("realm").ok_or_else(|| wrong("the registry names none"))?;
    let address: Uri = realm.parse().map_err(|_| wrong("its name is no address"))?;
    check_realm(client, &address).map_err(wrong)?;
    let mut fields = Vec::new();
    fields.extend(challenge.get("service").map(|service| ("service", service.to_owned())));
    fields.extend(access.scopes(client.path()).into_iter().map(|scope| ("scope", scope)));
    let response = match client.credentials() {
        Some(Credentials::Identity(token)) => {
            let form = [
                ("grant_type", "refresh_token".to_owned()),
                ("client_id", "hull".to_owned()),
                ("refresh_token", token.reveal().to_owned()),
            ];
            let form = encode(&[&form[..], &joined(&fields)].concat());
            let request = Request::post(&address).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            client.ask_elsewhere(request, &address, form.as_bytes(), doing).map_err(Fault::into_final)?
        }
        credentials => {
            let separator = if address.query().is_some() { '&' } else { '?' };
            let whole = format!("{realm}{separator}{}", encode(&fields));
            let mut request = Request::get(&whole);
            if let Some(basic) = credentials.and_then(Credentials::basic) {
                request = request.header(AUTHORIZATION, basic.reveal());
            }
            client.ask_elsewhere(request, &address, &[], doing)?
        }
    };
    match response.status().as_u16() {
        200 => {}
        401 | 403 => {
            let hint = format!("hull login {}", client.host());
            let error = Error::new(Class::Denied, doing, "the registry's token server refuses");
            return Err(Fault::Final(error.with_hint(hint)));
        }
        status => {
            let why = format!("the registry's token server: it answered {status}");
            let passing = is_passing(status) && !matches!(client.credentials(), Some(Credentials::Identity(_)));
            return Err(match passing {
                true => Fault::Passing(Error::new(Class::Network, doing, why), retry_after(response.headers())),
                false => Fault::Final(Error::new(Class::Protocol, doing, why)),
            });
        }
    }
    let data = small(response, TOKEN_MAX).map_err(|(Unread::Broken(why) | Unread::Wrong(why))| wrong(&why))?;
    let token: Token = serde_json::from_slice(&data).map_err(|_| wrong("its answer is no token"))?;
    let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| wrong("its answer has no token"))?;
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("its token cannot be sent").into());
    }
    Ok(Secret::new(format!("Bearer {token}")))
}

/// OAuth 2 has one scope of several words.
fn joined(fields: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let scopes: Vec<&str> =
        fields.iter().filter(|(name, _)| *name == "scope").map(|(_, value)| value.as_str()).collect();
    let mut all: Vec<(&'static str, String)> = fields.iter().filter(|(name, _)| *name != "scope").cloned().collect();
    all.push(("scope", scopes.join(" ")));
    all
}

fn check_realm(client: &Client, address: &Uri) -> std::result::Result<(), &'static str> {
    if client.is_ours(address) {
        return Ok(());
    }
    let host = address.host().unwrap_or_default();
    let registry = client.source().host.rsplit_once(':').map_or(client.source().host.as_str(), |(host, _)| host);
    match address.scheme_str() {
        Some("https") => {}
        Some("http") if client.source().insecure => {}
        Some("http") => return Err("it is not reached over https"),
        _ => return Err("its address is not HTTP"),
    }
    if address.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("its address has a user's name");
    }
    // The metadata services of clouds, and whatever listens here: not for a stranger to send us to.
    if !host.eq_ignore_ascii_case(registry) && is_near(host) {
        return Err("its address is of this machine or its link");
    }
    Ok(())
}

fn is_near(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    match bare.parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local() || address.is_unspecified(),
        Ok(IpAddr::V6(address)) => {
            let inner = address.to_ipv4_mapped().is_some_and(|inner| is_near(&inner.to_string()));
            address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified() || inner
        }
        Err(_) => bare.eq_ignore_ascii_case("localhost") || bare.to_ascii_lowercase().ends_with(".localhost"),
    }
}

/// Fields of a form or a query.
pub(crate) fn encode(fields: &[(&'static str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b',' => {
                    text.push(char::from(byte));
                }
                other => {
                    // Writing to a string does not fail.
                    let _ = write!(text, "%{other:02X}");
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_encoded_for_a_query() {
        let fields = [("service", "a&b c".to_owned()), ("scope", "repository:x/y:pull,push".to_owned())];
        assert_eq!(encode(&fields), "service=a%26b%20c&scope=repository:x/y:pull,push");
    }

    #[test]
    fn addresses_of_this_machine_and_its_link_are_near() {
        for host in
            ["127.0.0.1", "169.254.169.254", "[::1]", "[fe80::1]", "[::ffff:127.0.0.1]", "localhost", "0.0.0.0"]
        {
            assert!(is_near(host), "{host}");
        }
        for host in ["10.0.0.1", "auth.test", "[2001:db8::1]"] {
            assert!(!is_near(host), "{host}");
        }
    }
}
