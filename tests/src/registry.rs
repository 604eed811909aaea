//! A registry of a test's own: Debian's docker-registry on loopback, plain, with TLS, a password file or a token server.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::scripted::{Answer, Asked, Scripted};

/// Who may use the registries that want a login.
pub const USER: &str = "tester";
/// Its password, which a test looks for where it must not be.
pub const PASSWORD: &str = "canary-4f1c";

/// How the registry is reached and who may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP, and everybody.
    Plain,
    /// TLS with an authority that nobody knows, and everybody.
    Tls,
    /// The same, and only who has a certificate of that authority.
    ClientCertificate,
    /// HTTP, with a password.
    Basic,
    /// HTTP, with a token that a server of the test gives for a password.
    Token,
}

/// A running registry; it ends when this is dropped.
pub struct Registry {
    folder: PathBuf,
    address: String,
    server: Child,
    tokens: Option<Scripted>,
}

impl Registry {
    /// Starts one below `folder`, which is made.
    ///
    /// # Panics
    /// It is not installed, or does not come up.
    pub fn start(folder: &Path, kind: Kind) -> Self {
        fs::create_dir(folder).expect("a folder for the registry");
        if kind != Kind::Plain && kind != Kind::Basic {
            authority(folder);
        }
        let tokens = (kind == Kind::Token).then(|| token_server(folder));
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let address = format!("127.0.0.1:{port}");
        fs::write(folder.join("config.yml"), config(folder, kind, &address, tokens.as_ref())).expect("a file");
        let log = fs::File::create(folder.join("log")).expect("a log");
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("docker-registry is installed: `make deps` does it");
        let mut registry = Self { folder: folder.to_owned(), address, server, tokens };
        let start = Instant::now();
        while std::net::TcpStream::connect(&registry.address).is_err() {
            let gone = registry.server.try_wait().expect("the registry is our child").is_some();
            let patient = start.elapsed() < Duration::from_secs(30);
            assert!(!gone && patient, "docker-registry does not answer: {}", registry.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its configuration: another one with it has the same address and the same images, for a network of its own.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.yml")
    }

    /// What the registry has to say of what it was asked.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The folder with `ca.crt`, `client.cert` and `client.key`, as `--cert-dir` wants it.
    pub fn certificates(&self) -> PathBuf {
        self.folder.join("certs")
    }

    /// What the token server was asked.
    ///
    /// # Panics
    /// There is none.
    pub fn asked_for_tokens(&self) -> Vec<Asked> {
        self.tokens.as_ref().expect("a token server").asked()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has seen.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn config(folder: &Path, kind: Kind, address: &str, tokens: Option<&Scripted>) -> String {
    let at = |name: &str| folder.join(name).display().to_string();
    let mut text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n",
        at("data")
    );
    if let Kind::Tls | Kind::ClientCertificate = kind {
        text += &format!("  tls:\n    certificate: {}\n    key: {}\n", at("server.crt"), at("server.key"));
        if kind == Kind::ClientCertificate {
            text += &format!("    clientcas: [{}]\n", at("certs/ca.crt"));
        }
    }
    match (kind, tokens) {
        (Kind::Basic, _) => {
            let entry = run(Command::new("htpasswd").args(["-Bbn", USER, PASSWORD]));
            fs::write(folder.join("htpasswd"), entry).expect("a file");
            text += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", at("htpasswd"));
        }
        (_, Some(tokens)) => {
            text += &format!(
                "auth:\n  token:\n    realm: http://{}/token\n    service: registry\n    issuer: tester\n    rootcertbundle: {}\n",
                tokens.address(),
                at("certs/ca.crt")
            );
        }
        _ => {}
    }
    text
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: `make deps` installs it"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// An authority, a certificate of it for loopback and one for a client.
fn authority(folder: &Path) {
    let certs = folder.join("certs");
    fs::create_dir(&certs).expect("a folder");
    let openssl = |arguments: &[&str]| run(Command::new("openssl").current_dir(folder).args(arguments));
    let key = ["-newkey", "rsa:2048", "-nodes", "-days", "2"];
    let ca = ["-keyout", "ca.key", "-out", "certs/ca.crt", "-subj", "/CN=a test's authority"];
    openssl(&[&["req", "-x509"], &key[..], &ca].concat());
    let names = "subjectAltName=IP:127.0.0.1,DNS:localhost";
    for (name, key_file, cert) in
        [("server", "server.key", "server.crt"), ("client", "certs/client.key", "certs/client.cert")]
    {
        let subject = format!("/CN={name}");
        let own = ["-keyout", key_file, "-out", cert, "-subj", &subject, "-addext", names];
        let signed = ["-CA", "certs/ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"];
        openssl(&[&["req", "-x509"], &key[..], &own, &signed].concat());
    }
}

/// Gives a signed token for what is asked, to whoever knows the password.
fn token_server(folder: &Path) -> Scripted {
    let folder = folder.to_owned();
    Scripted::new(move |asked| {
        let basic = format!("Basic {}", base64(format!("{USER}:{PASSWORD}").as_bytes()));
        if asked.header("authorization") != Some(&basic) {
            return Answer::status(401);
        }
        let query = asked.target.split_once('?').map_or("", |(_, query)| query);
        let scopes = query.split('&').filter_map(|field| field.strip_prefix("scope="));
        let scopes =
            scopes.map(|scope| scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",").replace("%2A", "*"));
        let access: Vec<serde_json::Value> = scopes
            .flat_map(|scope| scope.split(['+', ' ']).map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|scope| {
                let (rest, actions) = scope.rsplit_once(':')?;
                let (kind, name) = rest.split_once(':')?;
                let actions: Vec<&str> = actions.split(',').collect();
                Some(serde_json::json!({ "type": kind, "name": name, "actions": actions }))
            })
            .collect();
        let token = token(&folder, &access);
        Answer::ok("application/json", serde_json::json!({ "token": token, "expires_in": 300 }).to_string())
    })
}

/// A JSON web token, signed by the authority, whose certificate is in the head.
fn token(folder: &Path, access: &[serde_json::Value]) -> String {
    let der =
        run(Command::new("openssl").current_dir(folder).args(["x509", "-in", "certs/ca.crt", "-outform", "DER"]));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    let head = serde_json::json!({ "typ": "JWT", "alg": "RS256", "x5c": [base64(&der)] });
    let claims = serde_json::json!({
        "iss": "tester", "sub": USER, "aud": "registry", "exp": now + 300, "nbf": now - 10, "iat": now - 10,
        "jti": "1", "access": access,
    });
    let signed = format!("{}.{}", base64_url(head.to_string().as_bytes()), base64_url(claims.to_string().as_bytes()));
    let mut openssl = Command::new("openssl");
    openssl.current_dir(folder).args(["dgst", "-sha256", "-sign", "ca.key"]);
    let mut child = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("openssl");
    child.stdin.take().expect("a pipe").write_all(signed.as_bytes()).expect("openssl reads");
    let signature = child.wait_with_output().expect("openssl").stdout;
    format!("{signed}.{}", base64_url(&signature))
}

fn base64(data: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in data.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

fn base64_url(data: &[u8]) -> String {
    base64(data).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
}
