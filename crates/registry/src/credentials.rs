//! Who we are to a registry: the files that `docker login` and `podman login` write, and credential helpers.
//!
//! Order as containers' tools have it: the file that was named, podman's `auth.json` in the runtime folder and in the
//! user's configuration, Docker's `config.json`. Sources: `containers-auth.json(5)`, Docker's `credentials-helpers`
//! protocol. Secrets never leave the [`Secret`] type but into a header or a helper's standard input.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::error::{Class, Error, Result, shown};
use crate::registries::config_home;
use crate::secret::Secret;

/// What Docker files its own registry under.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";
/// The largest file and the longest answer of a helper.
const FILE_MAX: u64 = 1 << 20;
/// How long a helper may take.
const HELPER_TIME: Duration = Duration::from_secs(30);

/// What a registry, or its token server, takes for who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password.
    Password(String, Secret),
    /// A token that the token server gives others for.
    Identity(Secret),
}

impl Credentials {
    /// `USER:PASSWORD`, as podman's `--creds` has it.
    pub fn parse(text: &str) -> Option<Self> {
        let (user, password) = text.split_once(':')?;
        (!user.is_empty()).then(|| Credentials::Password(user.to_owned(), Secret::new(password)))
    }

    /// The name, where there is one.
    pub fn user(&self) -> Option<&str> {
        match self {
            Credentials::Password(user, _) => Some(user),
            Credentials::Identity(_) => None,
        }
    }

    /// The value of an `Authorization` header, for a name and a password.
    pub(crate) fn basic(&self) -> Option<Secret> {
        match self {
            Credentials::Password(user, password) => {
                let both = STANDARD.encode(format!("{user}:{}", password.reveal()));
                Some(Secret::new(format!("Basic {both}")))
            }
            Credentials::Identity(_) => None,
        }
    }
}

/// The credentials for `path` at the registry `host`, if any file or helper has some.
///
/// # Errors
/// A file that cannot be read or understood; a helper that fails.
pub fn find(file: Option<&Path>, host: &str, path: &str) -> Result<Option<Credentials>> {
    for path_of_file in files(file) {
        let Some(config) = read(&path_of_file, file.is_some())? else { continue };
        if let Some(found) = find_in(&config, host, path).map_err(|error| at(&path_of_file, error))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn at(path: &Path, why: Error) -> Error {
    match why {
        Error::Failed(failure) if failure.doing.is_empty() => {
            Error::new(Class::Config, format!("read {}", path.display()), failure.why)
        }
        other => other,
    }
}

/// The files that are looked into, in order.
pub fn files(named: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = named {
        return vec![path.to_owned()];
    }
    if let Some(path) = std::env::var_os("REGISTRY_AUTH_FILE") {
        return vec![path.into()];
    }
    let runtime = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) => PathBuf::from(folder).join("containers/auth.json"),
        None => PathBuf::from(format!("/run/containers/{}/auth.json", rustix::process::geteuid().as_raw())),
    };
    let own = config_home().map(|home| home.join("containers/auth.json"));
    [Some(runtime), own, docker_config()].into_iter().flatten().collect()
}

fn docker_config() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    Some(folder.join("config.json"))
}

fn read(path: &Path, needed: bool) -> Result<Option<Map<String, Value>>> {
    let doing = || format!("read {}", path.display());
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !needed => return Ok(None),
        file => file.map_err(|error| Error::new(Class::Config, doing(), error))?,
    };
    let mut data = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut data).map_err(|error| Error::new(Class::Config, doing(), error))?;
    if data.trim_ascii().is_empty() {
        return Ok(None);
    }
    let parsed: Map<String, Value> = serde_json::from_slice(&data)
        // Only the place: the text of the error could quote the file.
        .map_err(|error| Error::new(Class::Config, doing(), format!("line {} is not JSON", error.line())))?;
    Ok(Some(parsed))
}

fn find_in(config: &Map<String, Value>, host: &str, path: &str) -> Result<Option<Credentials>> {
    let helpers = config.get("credHelpers").and_then(Value::as_object);
    for key in keys(host) {
        if let Some(helper) = helpers.and_then(|helpers| helpers.get(key)).and_then(Value::as_str) {
            return ask_helper(helper, helper_key(host));
        }
    }
    if let Some(auths) = config.get("auths").and_then(Value::as_object) {
        let mut scope = format!("{host}/{path}");
        loop {
            let exact = auths.iter().find(|(key, _)| key.as_str() == scope);
            let entry = exact.or_else(|| if scope == host { of_host(auths, host) } else { None });
            if let Some(found) = entry.map(|(_, entry)| entry_credentials(entry)).transpose()?.flatten() {
                return Ok(Some(found));
            }
            match scope.rfind('/') {
                Some(slash) => scope.truncate(slash),
                None => break,
            }
        }
    }
    match config.get("credsStore").and_then(Value::as_str) {
        Some(helper) if !helper.is_empty() => ask_helper(helper, helper_key(host)),
        _ => Ok(None),
    }
}

/// Docker files a registry under an address too.
fn of_host<'a>(auths: &'a Map<String, Value>, host: &str) -> Option<(&'a String, &'a Value)> {
    auths.iter().find(|(key, _)| {
        let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
        bare.is_some_and(|bare| keys(host).contains(&bare.split('/').next().unwrap_or_default()))
            || keys(host).contains(&key.as_str())
    })
}

/// The names of one registry.
fn keys(host: &str) -> Vec<&str> {
    match host {
        "docker.io" => vec!["docker.io", "index.docker.io", "registry-1.docker.io", DOCKER_KEY],
        host => vec![host],
    }
}

fn helper_key(host: &str) -> &str {
    if host == "docker.io" { DOCKER_KEY } else { host }
}

fn entry_credentials(entry: &Value) -> Result<Option<Credentials>> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credentials::Identity(Secret::new(token))));
    }
    if let Some(auth) = text("auth") {
        let wrong = || Error::new(Class::Config, "", "an entry's auth is not USER:PASSWORD in base 64");
        let decoded = STANDARD.decode(auth.trim()).map_err(|_| wrong())?;
        let decoded = String::from_utf8(decoded).map_err(|_| wrong())?;
        return Credentials::parse(decoded.trim_end_matches('\0')).map(Some).ok_or_else(wrong);
    }
    match (text("username"), text("password")) {
        (Some(user), Some(password)) => Ok(Some(Credentials::Password(user.to_owned(), Secret::new(password)))),
        _ => Ok(None),
    }
}

/// `docker-credential-NAME get`.
fn ask_helper(name: &str, server: &str) -> Result<Option<Credentials>> {
    let (ok, output) = helper(name, "get", server.as_bytes())?;
    let doing = || format!("ask the credential helper {name}");
    if !ok {
        let said = String::from_utf8_lossy(&output);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(Error::new(Class::Config, doing(), shown(&said)));
    }
    let wrong = || Error::new(Class::Config, doing(), "its answer is not what the protocol says");
    let answer: Value = serde_json::from_slice(&output).map_err(|_| wrong())?;
    let text = |field: &str| answer.get(field).and_then(Value::as_str);
    let secret = Secret::new(text("Secret").ok_or_else(wrong)?);
    if secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(match text("Username").ok_or_else(wrong)? {
        "<token>" => Credentials::Identity(secret),
        user => Credentials::Password(user.to_owned(), secret),
    }))
}

/// Runs a helper; gives whether it succeeded and what it said.
fn helper(name: &str, action: &str, input: &[u8]) -> Result<(bool, Vec<u8>)> {
    let doing = || format!("run the credential helper docker-credential-{name}");
    let failed = |error: std::io::Error| Error::new(Class::Config, doing(), error);
    if name.is_empty() || name.contains('/') {
        return Err(Error::new(Class::Config, doing(), "that is no name of a helper"));
    }
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(failed(error)),
            _ => {}
        }
    }
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut output = Vec::new();
        let read = stdout.map(|stdout| stdout.take(FILE_MAX).read_to_end(&mut output));
        read.transpose().map(|_| output)
    });
    let deadline = Instant::now() + HELPER_TIME;
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                child.kill().map_err(failed)?;
                child.wait().map_err(failed)?;
                let why = format!("it gave no answer within {} seconds", HELPER_TIME.as_secs());
                return Err(Error::new(Class::Config, doing(), why));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let output = reader.join().map_err(|_| Error::new(Class::Config, doing(), "its answer could not be read"))?;
    Ok((status.success(), output.map_err(failed)?))
}

/// Where [`store`] and [`remove`] write if no file is named: Docker's own, which podman and skopeo read too.
///
/// # Errors
/// There is no home folder.
pub fn default_file() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("REGISTRY_AUTH_FILE") {
        return Ok(path.into());
    }
    docker_config().ok_or_else(|| Error::new(Class::Config, "find the file of credentials", "HOME is not set"))
}

/// Where credentials are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In the file itself, as good as plain.
    InFile,
    /// With the helper that the file names.
    WithHelper,
}

/// Keeps credentials for a registry: with the helper that the file names, else in the file.
///
/// # Errors
/// A file or helper that does not take them.
pub fn store(file: &Path, host: &str, credentials: &Credentials) -> Result<Kept> {
    let mut config = read(file, false)?.unwrap_or_default();
    if let Some(name) = helper_of(&config, host) {
        let (user, secret) = match credentials {
            Credentials::Password(user, secret) => (user.as_str(), secret),
            Credentials::Identity(secret) => ("<token>", secret),
        };
        let input = serde_json::json!({ "ServerURL": helper_key(host), "Username": user, "Secret": secret.reveal() });
        let (ok, said) = helper(&name, "store", input.to_string().as_bytes())?;
        if !ok {
            let said = shown(&String::from_utf8_lossy(&said));
            return Err(Error::new(Class::Config, format!("store with the credential helper {name}"), said));
        }
        // Docker's own mark that a helper has it.
        entries(&mut config).insert(helper_key(host).to_owned(), serde_json::json!({}));
        return write(file, &config).map(|()| Kept::WithHelper);
    }
    let entry = match credentials {
        Credentials::Password(user, password) => {
            serde_json::json!({ "auth": STANDARD.encode(format!("{user}:{}", password.reveal())) })
        }
        Credentials::Identity(token) => serde_json::json!({ "identitytoken": token.reveal() }),
    };
    forget(&mut config, host);
    entries(&mut config).insert(helper_key(host).to_owned(), entry);
    write(file, &config).map(|()| Kept::InFile)
}

/// Forgets the credentials for a registry; false if there were none.
///
/// # Errors
/// A file or helper that does not let go.
pub fn remove(file: &Path, host: &str) -> Result<bool> {
    let Some(mut config) = read(file, false)? else { return Ok(false) };
    let entries = config.get("auths").and_then(Value::as_object);
    let known = entries.is_some_and(|entries| of_host(entries, host).is_some());
    if !known && helper_of(&config, host).is_none() {
        return Ok(false);
    }
    let mut removed = forget(&mut config, host);
    if let Some(name) = helper_of(&config, host) {
        let (ok, said) = helper(&name, "erase", helper_key(host).as_bytes())?;
        let said = String::from_utf8_lossy(&said);
        if !ok && !said.contains("credentials not found") {
            return Err(Error::new(Class::Config, format!("erase with the credential helper {name}"), shown(&said)));
        }
        removed |= ok;
    }
    write(file, &config)?;
    Ok(removed)
}

/// Every registry that the file has credentials for.
///
/// # Errors
/// A file that cannot be read.
pub fn hosts(file: &Path) -> Result<Vec<String>> {
    let config = read(file, false)?.unwrap_or_default();
    let auths = config.get("auths").and_then(Value::as_object);
    Ok(auths.map(|auths| auths.keys().cloned().collect()).unwrap_or_default())
}

fn helper_of(config: &Map<String, Value>, host: &str) -> Option<String> {
    let helpers = config.get("credHelpers").and_then(Value::as_object);
    let own = keys(host).into_iter().find_map(|key| helpers?.get(key)?.as_str());
    let named = own.or_else(|| config.get("credsStore")?.as_str());
    named.filter(|name| !name.is_empty()).map(str::to_owned)
}

fn entries(config: &mut Map<String, Value>) -> &mut Map<String, Value> {
    let auths = config.entry("auths").or_insert_with(|| Value::Object(Map::new()));
    if !auths.is_object() {
        *auths = Value::Object(Map::new());
    }
    match auths {
        Value::Object(entries) => entries,
        _ => unreachable!("made an object above"),
    }
}

fn forget(config: &mut Map<String, Value>, host: &str) -> bool {
    let entries = entries(config);
    let mut removed = false;
    while let Some(key) = of_host(entries, host).map(|(key, _)| key.clone()) {
        entries.remove(&key);
        removed = true;
    }
    removed
}

/// Whole or not at all, and for its owner's eyes only.
fn write(path: &Path, config: &Map<String, Value>) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        // A link is somebody's arrangement: what it leads to is replaced.
        let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let sorted: BTreeMap<&String, &Value> = config.iter().collect();
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let temporary = target.with_file_name(name);
        // One that a dead process of our number left.
        let _ = std::fs::remove_file(&temporary);
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let written = serde_json::to_vec_pretty(&sorted)
            .map_err(std::io::Error::other)
            .and_then(|data| file.write_all(&data))
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&temporary, &target));
        written.inspect_err(|_| _ = std::fs::remove_file(&temporary))
    };
    write().map_err(|error| Error::new(Class::Config, format!("write {}", path.display()), error))
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
