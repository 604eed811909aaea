//! criu as a process that is talked to: `criu swrk`, which serves whoever holds the other end of its socket and ends with it.

use std::ffi::CString;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hull_sys::ns::{self, Fork, Namespaces};
use hull_sys::sync::{self, Line};
use hull_sys::{process, signal, trace};
use prost::Message;
use rustix::fs::MemfdFlags;
use rustix::net::SendFlags;

use super::rpc::{Kind, Notify, Opts, Request, Response};
use crate::error::{Doing, Error, Result};

/// The first version with all that is asked for here.
const OLDEST: (i32, i32) = (3, 0);
const INSTALL: &str = "install criu, version 3.0 or newer (package criu)";
/// What of a log is looked at for the reason of a failure.
const TAIL: u64 = 64 << 10;
/// How many lines of it are told at most.
const LINES: usize = 4;

/// A running criu.
pub(crate) struct Criu {
    pub pid: i32,
    pidfd: OwnedFd,
    /// Its name in errors, with its version as soon as this is known.
    name: String,
    /// What it says before it has a log.
    said: OwnedFd,
    line: Line,
    /// Closes when criu is executed.
    begins: Line,
}

/// How criu's process is made.
pub(crate) struct Birth<'a> {
    pub namespaces: Namespaces,
    /// The v2 group to be born in.
    pub group: Option<BorrowedFd<'a>>,
    /// What it gets besides its socket, under the same numbers.
    pub descriptors: &'a [BorrowedFd<'a>],
}

impl Criu {
    /// Starts it. `prepare` is done in the new process, before it is criu; the line there is the other end of
    /// [`Criu::tell`].
    pub fn start(birth: &Birth<'_>, prepare: impl FnOnce(&Line) -> Result<()>) -> Result<Self> {
        let program = find()?;
        let doing = || "start criu".to_owned();
        let (line, theirs) = sync::pair().doing(doing)?;
        let (begins, told) = sync::pair().doing(doing)?;
        let said = rustix::fs::memfd_create(c"criu", MemfdFlags::CLOEXEC);
        let said = said.map_err(|error| Error::setup(doing(), error))?;
        let (pid, pidfd) = match ns::clone3(birth.namespaces, birth.group).doing(doing)? {
            Fork::Child => {
                drop((line, begins));
                let Err(error) =
                    prepare(&told).and_then(|()| become_criu(&program, &theirs, &said, birth.descriptors))
                else {
                    process::exit_now(0)
                };
                // If the parent is gone there is nobody to tell.
                let _ = told.send(&error.to_message(), None);
                process::exit_now(1)
            }
            Fork::Parent { pid, pidfd } => (pid, pidfd),
        };
        Ok(Self { pid, pidfd, name: "criu".to_owned(), said, line, begins })
    }

    /// Tells the process something on which it waits before it is criu.
    pub fn tell(&self, word: &[u8]) -> Result<()> {
        self.begins.send(word, None).doing(|| "start criu".to_owned())
    }

    /// Waits until it is criu, one that is new enough.
    pub fn begin(&mut self) -> Result<()> {
        let (message, _) = self.begins.receive().doing(|| "start criu".to_owned())?;
        if !message.is_empty() {
            return Err(Error::from_message(&message));
        }
        trace::exec_succeeded();
        let version = Request { kind: Kind::Version.into(), keep_open: Some(true), ..Request::default() };
        self.send(&version)?;
        let version = self.receive()?.and_then(|(answer, _)| answer.version);
        let Some(version) = version else {
            return Err(Error::setup("ask criu for its version", format!("{}: {INSTALL}", self.last_words(None))));
        };
        self.name = format!("criu {}.{}", version.major, version.minor);
        match (version.major, version.minor) >= OLDEST {
            true => Ok(()),
            false => Err(Error::setup("use criu", format!("it is {}: {INSTALL}", self.name))),
        }
    }

    /// Has it done. `notified` hears of each step that it tells of, with the process and the descriptor that come with it.
    ///
    /// # Errors
    /// criu's, with the last lines of its log, `log`; that of `notified`, which makes criu give up.
    pub fn perform(
        &self,
        kind: Kind,
        opts: Opts,
        log: &Path,
        doing: &str,
        mut notified: impl FnMut(&str, i32, Option<OwnedFd>) -> Result<()>,
    ) -> Result<()> {
        self.send(&Request { kind: kind.into(), opts: Some(opts), ..Request::default() })?;
        let mut refused = None;
        loop {
            let Some((answer, descriptor)) = self.receive()? else {
                return Err(refused.unwrap_or_else(|| Error::setup(doing, self.last_words(Some(log)))));
            };
            if answer.kind() == Kind::Notify {
                let Notify { script, pid } = answer.notify.unwrap_or_default();
                let heard = notified(&script.unwrap_or_default(), pid.unwrap_or_default(), descriptor);
                let success = Some(heard.is_ok());
                refused = refused.or(heard.err());
                self.send(&Request { kind: Kind::Notify.into(), notify_success: success, ..Request::default() })?;
                continue;
            }
            return match (answer.success, refused) {
                (true, None) => Ok(()),
                (_, Some(error)) => Err(error),
                (false, None) => Err(Error::setup(doing, self.last_words(Some(log)))),
            };
        }
    }

    /// Hangs up, upon which it ends, and takes its status.
    pub fn end(self) -> Result<()> {
        let Self { pidfd, line, begins, .. } = self;
        drop((line, begins));
        process::wait(pidfd.as_fd(), true).map(drop).doing(|| "wait for criu".to_owned())
    }

    fn send(&self, request: &Request) -> Result<()> {
        let doing = || "talk to criu".to_owned();
        let message = request.encode_to_vec();
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(self.line.as_fd(), &message, SendFlags::NOSIGNAL));
        match sent {
            // It has ended: the next look for an answer tells why.
            Err(rustix::io::Errno::PIPE) => Ok(()),
            other => other.map(drop).map_err(|error| Error::setup(doing(), error)),
        }
    }

    /// Its next message; none if it is gone.
    fn receive(&self) -> Result<Option<(Response, Option<OwnedFd>)>> {
        let doing = || "talk to criu".to_owned();
        let (message, descriptor) = self.line.receive().doing(doing)?;
        if message.is_empty() {
            return Ok(None);
        }
        let answer = Response::decode(&*message).map_err(|error| Error::setup(doing(), error))?;
        Ok(Some((answer, descriptor)))
    }

    /// The errors at the end of its log, or what it said without one.
    fn last_words(&self, log: Option<&Path>) -> String {
        let logged = log.and_then(|log| Some((log, tail(&mut std::fs::File::open(log).ok()?)?)));
        if let Some((log, text)) = logged {
            return format!("{} says: {text} (log: {})", self.name, log.display());
        }
        let said = self.said.try_clone().ok().and_then(|said| tail(&mut std::fs::File::from(said)));
        said.map_or_else(
            || format!("{} ended without a word", self.name),
            |text| format!("{} says: {text}", self.name),
        )
    }
}

/// The first and the last errors of a log, without their times; such lines of it if there is none.
fn tail(log: &mut std::fs::File) -> Option<String> {
    let length = log.metadata().ok()?.len();
    log.seek(std::io::SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut text = Vec::new();
    log.take(TAIL).read_to_end(&mut text).ok()?;
    last_errors(&String::from_utf8_lossy(&text))
}

fn last_errors(text: &str) -> Option<String> {
    // "(00.012345) Error (criu/mount.c:123): why"
    let plain = |line: &str| -> String {
        match line.strip_prefix('(').and_then(|rest| rest.split_once(") ")) {
            Some((_, rest)) => rest.trim().to_owned(),
            None => line.trim().to_owned(),
        }
    };
    let all: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(plain).collect();
    let errors: Vec<&String> = all.iter().filter(|line| line.contains("Error (")).collect();
    let errors = if errors.is_empty() { all.iter().collect() } else { errors };
    // The first is mostly the cause, the last ones are what came of it.
    let told = errors.iter().enumerate().filter(|(index, _)| *index == 0 || index + LINES > errors.len());
    let told: Vec<&str> = told.map(|(_, line)| line.as_str()).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// The program, where PATH has it.
///
/// # Errors
/// PATH does not.
pub fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let runs = |file: &PathBuf| {
        file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let found = std::env::split_paths(&path).map(|folder| folder.join("criu")).find(runs);
    found.ok_or_else(|| Error::invalid("start criu", format!("there is no criu in PATH: {INSTALL}")))
}

/// Comes back only with an error.
fn become_criu(program: &Path, socket: &Line, said: &OwnedFd, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    let doing = || "start criu".to_owned();
    let null = std::fs::File::open("/dev/null").map_err(|error| Error::setup(doing(), error))?;
    let own = [null.as_fd(), said.as_fd(), said.as_fd()];
    // Standard streams that are lent to it, too, are numbers above these.
    for (number, stream) in own.into_iter().enumerate() {
        process::set_stdio(stream, number as i32).doing(doing)?;
    }
    for kept in descriptors.iter().chain(&[socket.as_fd()]) {
        process::keep_through_exec(kept.as_raw_fd() as u32, 1).doing(doing)?;
    }
    signal::default_actions();
    signal::unblock_all().doing(doing)?;
    let text = |bytes: Vec<u8>| CString::new(bytes).map_err(|error| Error::invalid(doing(), error));
    let path = text(program.as_os_str().as_bytes().to_vec())?;
    let number = text(socket.as_fd().as_raw_fd().to_string().into_bytes())?;
    let env = std::env::vars_os()
        .map(|(name, value)| text([name.into_vec(), b"=".to_vec(), value.into_vec()].concat()))
        .collect::<Result<Vec<_>>>()?;
    trace::stage("execute criu", "It serves at its end of the socket that it inherits, and at no other place.");
    Err(Error::setup(doing(), process::execve(&path, &[c"criu".to_owned(), c"swrk".to_owned(), number], &env)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_the_first_and_last_errors_are_told_without_their_times() {
        let log = "(00.000001) Version: 3.17\n(00.1) Error (criu/a.c:1): one\n(00.2) more\n\n(00.3)      1: Error (criu/b.c:2): two\n";
        assert_eq!(last_errors(log).unwrap(), "Error (criu/a.c:1): one; 1: Error (criu/b.c:2): two");
        assert_eq!(last_errors("only\nthis\n").unwrap(), "only; this");
        let many: String = (0..9).map(|number| format!("Error (criu/a.c:{number}): x\n")).collect();
        let told = last_errors(&many).unwrap();
        let numbers: Vec<&str> = told.split("a.c:").skip(1).map(|rest| &rest[..1]).collect();
        assert_eq!(numbers, ["0", "6", "7", "8"]);
        assert_eq!(last_errors("\n"), None);
    }

    #[test]
    fn a_request_is_what_protobuf_says() {
        let opts = Opts { images_dir: 5, pid: Some(300), root: Some("/r".into()), ..Opts::default() };
        let request = Request { kind: Kind::Dump.into(), opts: Some(opts), ..Request::default() };
        let bytes = request.encode_to_vec();
        assert_eq!(bytes, [0x08, 1, 0x12, 9, 0x08, 5, 0x10, 0xac, 2, 0x6a, 2, b'/', b'r']);
        let answer = [0x08, 6, 0x10, 1, 0x2a, 4, 0x0a, 0, 0x10, 7];
        let answer = Response::decode(&answer[..]).unwrap();
        assert_eq!((answer.kind(), answer.success, answer.notify.unwrap().pid), (Kind::Notify, true, Some(7)));
    }
}
