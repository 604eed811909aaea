//! A registry that does what a test tells it, right or wrong: a small HTTP/1.1 server on loopback with an image in memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use crate::{Corner, Said};

/// What a client asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// What came with it.
    pub body: Vec<u8>,
}

impl Asked {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first byte that `Range: bytes=N-` asks for.
    pub fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What it gets.
pub enum Answer {
    /// A status, headers and a body with its length.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The test writes everything itself; the connection is closed then.
    Raw(Box<dyn FnOnce(&mut TcpStream) + Send>),
}

impl Answer {
    /// 200 with a body of this type.
    pub fn ok(media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Answer::Whole(200, vec![("content-type", media_type.to_owned())], body.into())
    }

    /// A status without a body.
    pub fn status(status: u16) -> Self {
        Answer::Whole(status, Vec::new(), Vec::new())
    }

    /// The same with one header more.
    #[must_use]
    pub fn with(self, name: &'static str, value: impl Into<String>) -> Self {
        match self {
            Answer::Whole(status, mut headers, body) => {
                headers.push((name, value.into()));
                Answer::Whole(status, headers, body)
            }
            raw => raw,
        }
    }

    /// What goes over the connection; none if the test writes that.
    fn bytes(&self, asked: &Asked) -> Option<Vec<u8>> {
        let Answer::Whole(status, headers, body) = self else { return None };
        let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let body = if asked.method == "HEAD" { &[] } else { &body[..] };
        Some([head.as_bytes(), b"\r\n", body].concat())
    }

    /// The same, of which only the head and the first `length` bytes of the body are sent before the connection ends: as it should,
    /// or with a reset.
    ///
    /// # Panics
    /// The test writes the answer.
    #[must_use]
    pub fn cut(self, asked: &Asked, length: usize, reset: bool) -> Self {
        let Answer::Whole(_, _, body) = &self else { panic!("only an answer whose bytes are known is cut") };
        let left_out = body.len() - length.min(body.len());
        let mut bytes = self.bytes(asked).expect("bytes");
        bytes.truncate(bytes.len() - left_out);
        Answer::Raw(Box::new(move |stream| {
            // The client may have gone.
            let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
            if reset {
                // Whatever has not arrived is lost then, so it gets the time to.
                std::thread::sleep(Duration::from_millis(50));
                rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO)).expect("a socket");
            }
        }))
    }
}

/// The server. It ends with this value.
pub struct Scripted {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    /// Starts one; `answer` is asked for every request, from several threads.
    ///
    /// # Panics
    /// There is no free port.
    pub fn new(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::at(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"), answer)
    }

    /// The same at a port that is there already.
    ///
    /// # Panics
    /// It has no address.
    pub fn at(listener: TcpListener, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("an address").to_string();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (log, stopped) = (asked.clone(), stop.clone());
        let answer = Arc::new(answer);
        let waker = listener.try_clone().expect("a descriptor");
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Self { address, asked, stop, listener: waker, thread: Some(thread) }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Everything that was asked until now.
    ///
    /// # Panics
    /// A test's thread has.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("the log").clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it up, whatever network it is in: nobody can be accepted any more.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection until its other end goes. A client that hangs up early is part of the script.
fn serve(stream: TcpStream, log: &Mutex<Vec<Asked>>, answer: &(dyn Fn(&Asked) -> Answer + Send + Sync)) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read_request(&mut reader) {
        log.lock().expect("the log").push(asked.clone());
        let answer = answer(&asked);
        match (answer.bytes(&asked), answer) {
            (Some(bytes), _) => {
                if writer.write_all(&bytes).is_err() {
                    return;
                }
            }
            (None, Answer::Raw(write)) => return write(&mut writer),
            (None, Answer::Whole(..)) => unreachable!("it has bytes"),
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut asked = Asked { method, target, headers, body: Vec::new() };
    let length = asked.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_end(&mut asked.body).ok()?;
    Some(asked)
}

/// `hull pull FLAGS` of `name` from a scripted registry, not started yet. It gives up a silent connection after two seconds,
/// and a layer may unpack to 32 MiB.
pub fn pull_command(corner: &Corner, registry: &Scripted, flags: &[&str], name: &str) -> Command {
    let mut hull = corner.hull();
    hull.arg("pull").args(flags).arg(format!("{}/{name}", registry.address()));
    // Nobody's own configuration has a say here.
    hull.env("HOME", corner.path()).env("HULL_REGISTRY_TIMEOUT", "2").env_remove("XDG_RUNTIME_DIR");
    hull.env("CONTAINERS_REGISTRIES_CONF", "/dev/null").env("HULL_LAYER_MAX", (32 << 20).to_string());
    hull
}

/// The same, to its end.
///
/// # Panics
/// hull does not start.
pub fn pull(corner: &Corner, registry: &Scripted, flags: &[&str], name: &str) -> Said {
    pull_command(corner, registry, flags, name).output().expect("hull starts").into()
}

/// `sha256:…` of `data`.
pub fn digest(data: &[u8]) -> String {
    let hash = Sha256::digest(data);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// A small image as a registry has it.
#[derive(Clone, Debug)]
pub struct TinyImage {
    /// The layers as they are packed, lowest first.
    pub layers: Vec<Vec<u8>>,
    /// The configuration.
    pub config: Vec<u8>,
    /// The manifest.
    pub manifest: Vec<u8>,
}

/// The media type of manifests.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of indexes.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl TinyImage {
    /// An image with one file `/hello` of `size` bytes that do not compress well.
    ///
    /// # Panics
    /// Never: it is made in memory.
    pub fn new(size: usize) -> Self {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(size as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "hello", &noise(1, size)[..]).expect("an entry");
        Self::of(&archive.into_inner().expect("an archive"))
    }

    /// An image of this archive.
    pub fn of(plain: &[u8]) -> Self {
        Self::stack(&[plain.to_vec()])
    }

    /// An image of these archives, lowest first.
    ///
    /// # Panics
    /// Never: it is made in memory.
    pub fn stack(plain: &[Vec<u8>]) -> Self {
        let packed = |plain: &Vec<u8>| {
            let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
            packer.write_all(plain).expect("memory");
            packer.finish().expect("memory")
        };
        let diff_ids: Vec<String> = plain.iter().map(|plain| digest(plain)).collect();
        Self::made(plain.iter().map(packed).collect(), &diff_ids)
    }

    /// An image of a packed layer that is said to have this diff id.
    pub fn packed(layer: Vec<u8>, diff_id: &str) -> Self {
        Self::made(vec![layer], &[diff_id.to_owned()])
    }

    fn made(layers: Vec<Vec<u8>>, diff_ids: &[String]) -> Self {
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        Self { layers, config: Vec::new(), manifest: Vec::new() }.with_config(config.to_string())
    }

    /// The same with another configuration, which its manifest names.
    #[must_use]
    pub fn with_config(mut self, config: impl Into<Vec<u8>>) -> Self {
        self.config = config.into();
        let described: Vec<_> = self.layers.iter().map(|layer| (digest(layer), layer.len() as u64)).collect();
        self.manifest = Self::manifest(&self.config, &described);
        self
    }

    fn manifest(config: &[u8], layers: &[(String, u64)]) -> Vec<u8> {
        let layer = |(digest, size): &(String, u64)| serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size});
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": config.len()},
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        });
        manifest.to_string().into_bytes()
    }

    /// The same with another descriptor of its only layer.
    #[must_use]
    pub fn claiming(mut self, layer: &str, size: u64) -> Self {
        self.manifest = Self::manifest(&self.config, &[(layer.to_owned(), size)]);
        self
    }

    /// Its lowest layer.
    pub fn layer(&self) -> &[u8] {
        &self.layers[0]
    }

    /// What an honest registry answers.
    pub fn answer(&self, asked: &Asked) -> Answer {
        let (_, last) = asked.target.rsplit_once('/').unwrap_or_default();
        if asked.target == "/v2/" {
            Answer::ok("application/json", "{}")
        } else if asked.target.contains("/manifests/") {
            Answer::ok(MANIFEST, self.manifest.clone())
        } else if last == digest(&self.config) {
            Answer::ok("application/octet-stream", self.config.clone())
        } else if asked.target.contains("/blobs/") {
            // What a manifest claims need not be the digest of any layer.
            let layer = self.layers.iter().find(|layer| last == digest(layer)).unwrap_or(&self.layers[0]);
            match asked.range() {
                Some(from) if from < layer.len() => {
                    let size = layer.len();
                    Answer::Whole(206, Vec::new(), layer[from..].to_vec())
                        .with("content-range", format!("bytes {from}-{}/{size}", size - 1))
                }
                _ => Answer::ok("application/octet-stream", layer.clone()),
            }
        } else {
            Answer::status(404)
        }
    }

    /// Whether a request is for a layer.
    pub fn is_layer(&self, asked: &Asked) -> bool {
        asked.target.contains("/blobs/") && !asked.target.ends_with(&digest(&self.config))
    }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64.wrapping_mul(seed | 1);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

/// An answer that promises `length` bytes and sends `data`, then keeps the connection open for `pause`.
pub fn short(length: usize, data: Vec<u8>, pause: Duration) -> Answer {
    Answer::Raw(Box::new(move |stream| {
        let head = format!("HTTP/1.1 200 X\r\ncontent-type: x/y\r\ncontent-length: {length}\r\n\r\n");
        // The client may have gone.
        let _ =
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&data)).and_then(|()| stream.flush());
        std::thread::sleep(pause);
    }))
}
