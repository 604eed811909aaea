//! Real images of real size: servers out of Debian's packages, built by hull, pushed to a registry, pulled into a new store, started,
//! and answering. `make test-images` runs it: it takes Debian's archive, which not every machine reaches, and minutes.

#![forbid(unsafe_code)]

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use hull_tests::checks::Checks;
use hull_tests::registry::{Kind, Registry};
use hull_tests::{Builder, Corner, Said, eventually};

fn ok(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

/// A new store, with an image that was pulled into it, and a folder that its containers have as /srv.
struct Pulled {
    corner: Corner,
    name: String,
}

impl Pulled {
    fn new(name: &str) -> Self {
        let corner = Corner::new();
        let pulled = Self { corner, name: name.to_owned() };
        fs::create_dir(pulled.srv()).unwrap();
        // Some servers run as somebody else.
        fs::set_permissions(pulled.srv(), Permissions::from_mode(0o777)).unwrap();
        ok(pulled.hull(&["pull", "-q", "--tls-verify=false", name]));
        pulled
    }

    fn srv(&self) -> PathBuf {
        self.corner.path().join("srv")
    }

    fn hull(&self, arguments: &[&str]) -> Said {
        self.corner.hull().args(arguments).output().unwrap().into()
    }

    /// `hull run` of the image, which goes on until the server is stopped.
    fn start(&self, flags: &[&str]) -> Server {
        let log = fs::File::create(self.corner.path().join("log")).unwrap();
        let mut run = self.corner.hull();
        run.args(["run", "--rm", "-v", &format!("{}:/srv", self.srv().display())]).args(flags).arg(&self.name);
        Server { hull: run.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap() }
    }

    /// A command in another container of the image, beside the server.
    fn beside(&self, command: &[&str]) -> Said {
        let srv = format!("{}:/srv", self.srv().display());
        self.hull(&[&["run", "--rm", "-v", &*srv, &self.name], command].concat())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.corner.path().join("log")).unwrap_or_default()
    }
}

struct Server {
    hull: Child,
}

impl Server {
    /// Ends it as a service manager would.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.hull);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.hull.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been stopped.
        let _ = self.hull.kill();
        let _ = self.hull.wait();
    }
}

/// What a server says to `words` on its socket; nothing as long as there is none.
fn ask(socket: &Path, words: &str) -> String {
    let mut answer = String::new();
    let asked = UnixStream::connect(socket).and_then(|mut stream| {
        stream.write_all(words.as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.read_to_string(&mut answer)
    });
    asked.map(|_| answer).unwrap_or_default()
}

/// Builds one stage of the Dockerfile and pushes it; gives it as it comes out of the registry.
fn through_the_registry(source: &Builder, registry: &Registry, stage: &str) -> Pulled {
    let name = format!("{}/real/{stage}:1", registry.address());
    let context = concat!(env!("CARGO_MANIFEST_DIR"), "/real-images");
    ok(source.hull(&["build", "-q", "--target", stage, "-t", &name, context]));
    ok(source.hull(&["push", "-q", "--tls-verify=false", &name]));
    let pulled = Pulled::new(&name);
    let id = |said: Said| ok(said).trim().to_owned();
    let inspect = ["image", "inspect", "-f", "{{.Id}}", &name];
    assert_eq!(id(pulled.hull(&inspect)), id(source.hull(&inspect)), "the same image");
    pulled
}

#[test]
fn servers_of_debians_packages_are_built_pushed_pulled_and_answer() {
    let base =
        std::env::var("HULL_BASE_TAR").expect("HULL_BASE_TAR is an archive of Debian: `make test-images` makes it");
    let source = Builder::new();
    let registry = Registry::start(&source.corner().path().join("registry"), Kind::Plain);
    ok(source.hull(&["import", &base, "debian"]));
    let mut checks = Checks::default();
    let http = "GET / HTTP/1.0\r\n\r\n";
    // Process 1 is not ended by a signal that it has no handler for, and Python has none.
    for (stage, flags, words, answer) in [
        ("python3", &["--init"][..], http, "\r\n\r\npython 3 answers\n"),
        ("nginx", &[], http, "\r\n\r\nnginx answers\n"),
        ("redis", &[], "SET a 6\r\nINCR a\r\nQUIT\r\n", "+OK\r\n:7\r\n+OK\r\n"),
    ] {
        checks.check(stage, || {
            let pulled = through_the_registry(&source, &registry, stage);
            let server = pulled.start(flags);
            let socket = pulled.srv().join("socket");
            eventually("it answers", || ask(&socket, words).ends_with(answer));
            server.stop();
            pulled.corner.assert_clean();
        });
    }
    checks.check("postgresql", || {
        let pulled = through_the_registry(&source, &registry, "postgresql");
        let server = pulled.start(&[]);
        let query = |text: &str| pulled.beside(&["psql", "-qtA", "-d", "postgres", "-c", text]);
        eventually("it answers", || query("select 6 * 7").out == "42\n");
        ok(query("create table things (name text); insert into things values ('one'), ('two')"));
        assert_eq!(ok(query("select count(*) from things")), "2\n", "{}", pulled.log());
        server.stop();
        assert!(pulled.log().contains("database system is shut down"), "it was stopped in order: {}", pulled.log());
        pulled.corner.assert_clean();
    });
    checks.end();
}
