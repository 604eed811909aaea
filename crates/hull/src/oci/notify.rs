//! sd_notify(3) out of a container: a socket of the container's own stands in for the caller's `NOTIFY_SOCKET`.
//!
//! As with runc, `create` lends the container a folder, and `start` or `run` makes the socket in it, listens there and passes
//! on that the command is ready, and which process it is. No byte of the container's reaches the caller's socket, for that is
//! systemd's, and takes other orders as well.
//! Source: sd_notify(3), "Notes" and "Well-known assignments"; sd_notify_barrier(3).

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use hull_engine::Beside;
use hull_runtime::plan::Process;
use hull_sys::process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::{Value, json};

use super::handover::send_with;
use super::log::Log;
use crate::report::Report;

const VARIABLE: &str = "NOTIFY_SOCKET";
/// In the container's folder.
const FOLDER: &str = "notify";
const SOCKET: &str = "notify.sock";
/// In the container.
const PLACE: &str = "/run/notify";
/// systemd reads no more of a message.
const LARGEST: usize = 4096;
/// How long whoever hears of it may take to look at us: runc's time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The address of the caller's socket, if it has one.
fn address() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|address| !address.is_empty())
}

/// Whether the caller wants to hear of it.
pub(super) fn is_wanted() -> bool {
    address().is_some()
}

/// Adds the folder to the mounts of a specification's text, which a checkpoint reads again. A text that is no specification
/// stays as it is: whoever reads it says what is wrong with it.
pub(super) fn lend(text: Vec<u8>, container: &Path) -> Vec<u8> {
    let Ok(mut spec) = serde_json::from_slice::<Value>(&text) else { return text };
    let mount = json!({
        "destination": PLACE, "source": container.join(FOLDER), "type": "bind",
        "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
    });
    match spec.as_object_mut().map(|spec| spec.entry("mounts").or_insert(Value::Null)) {
        Some(Value::Array(mounts)) => mounts.push(mount),
        Some(mounts @ Value::Null) => *mounts = json!([mount]),
        _ => return text,
    }
    spec.to_string().into_bytes()
}

/// Says to the command where the socket is.
pub(super) fn introduce(process: &mut Process) {
    process.set_env(c"NOTIFY_SOCKET", &format!("{PLACE}/{SOCKET}"));
}

/// Makes the folder.
pub(super) fn make_folder(container: &Path) -> Result<(), Report> {
    let folder = container.join(FOLDER);
    let made = DirBuilder::new().mode(0o755).create(&folder);
    made.map_err(|error| Report::host(format!("make the folder {}", folder.display()), error))
}

/// Both sockets.
pub(super) struct Proxy {
    /// At which the container speaks.
    inside: UnixDatagram,
    /// Connected to the caller's.
    outside: UnixDatagram,
}

impl Proxy {
    /// Makes the socket of a container that does not run yet; none if it has no folder for it, or the caller does not want to
    /// hear of it.
    pub fn open(container: &Path) -> Result<Option<Self>, Report> {
        let Some(address) = address() else { return Ok(None) };
        let path = container.join(FOLDER);
        let doing = || format!("make the socket {}", path.join(SOCKET).display());
        let folder = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            folder => folder.map_err(|error| Report::host(doing(), error))?,
        };
        // Before anything runs: who cannot be told is known while there is nothing to undo.
        let outside =
            connect(&address).map_err(|error| Report::host(format!("connect to {VARIABLE} {address}"), error))?;
        // By descriptor: the name of a socket is short, that of a folder need not be.
        let name = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
        let inside = || {
            match fs::remove_file(&name) {
                // There is one where somebody was killed between this and the start.
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let socket = UnixDatagram::bind(&name)?;
            // Whoever the command is, it may write to it.
            fs::set_permissions(&name, Permissions::from_mode(0o777))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Some(Self { inside: inside().map_err(|error| Report::host(doing(), error))?, outside }))
    }

    /// Waits until the command of process `pid` says that it is ready, or has ended, of which `init` tells.
    pub fn until_ready(self, init: BorrowedFd<'_>, pid: i32) -> Result<(), Report> {
        loop {
            let waited = process::await_end(init, Some(self.inside.as_fd()), None);
            let (ended, _) = waited.map_err(|error| Report::host("wait until the container is ready", error))?;
            if self.is_ready() {
                self.pass_on(pid)?;
                // systemd finds out for whom we speak by our process, which must not be gone by then.
                return self.wait_until_heard();
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// For somebody who stays: that is the process to watch.
    pub fn beside(self, log: Log) -> Result<Beside, Report> {
        let copy = self.inside.try_clone();
        let descriptor = copy.map_err(|error| Report::host("wait until the container is ready", error))?.into();
        let act = move || {
            let ready = self.is_ready();
            if ready {
                log.warn(self.pass_on(std::process::id() as i32).err().map(|report| report.message().to_owned()));
            }
            !ready
        };
        Ok(Beside { descriptor, act: Box::new(act) })
    }

    /// Takes what the container has said.
    fn is_ready(&self) -> bool {
        let mut message = [0; LARGEST];
        // The end is EAGAIN. Descriptors that come along are closed, which is what a barrier waits for.
        while let Ok(length) = self.inside.recv(&mut message) {
            if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return true;
            }
        }
        false
    }

    fn pass_on(&self, pid: i32) -> Result<(), Report> {
        let send = |text: &str| self.outside.send(text.as_bytes());
        let sent = send("READY=1\n").and_then(|_| send(&format!("MAINPID={pid}\n")));
        sent.map(drop).map_err(|error| Report::host("tell that the container is ready", error))
    }

    /// sd_notify_barrier(3): what we send along is closed when all before it was looked at. Others than systemd may not know it.
    fn wait_until_heard(&self) -> Result<(), Report> {
        let wait = || -> rustix::io::Result<()> {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            send_with(self.outside.as_fd(), write.as_fd(), b"BARRIER=1")?;
            drop(write);
            let timeout = Timespec::try_from(PATIENCE).unwrap_or_default();
            let mut polled = [PollFd::new(&read, PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut polled, Some(&timeout))).map(drop)
        };
        wait().map_err(|error| Report::host("tell that the container is ready", error))
    }
}

/// A path, or `@` and an abstract name.
fn connect(address: &str) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match address.strip_prefix('@') {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(address)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_one_mount_more_and_all_else_stays() {
        let lend = |text: &str| String::from_utf8(lend(text.into(), Path::new("/r/c"))).unwrap();
        let mount = json!({"destination": "/run/notify", "source": "/r/c/notify", "type": "bind",
            "options": ["bind", "nosuid", "noexec", "nodev", "ro"]});
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(
            read(&lend(r#"{"mounts": [{"destination": "/proc"}], "x": 18446744073709551615}"#)),
            json!({"mounts": [{"destination": "/proc"}, mount], "x": u64::MAX})
        );
        assert_eq!(read(&lend("{}")), json!({"mounts": [mount]}));
        assert_eq!(read(&lend(r#"{"mounts": null}"#)), json!({"mounts": [mount]}));
        for wrong in [r#"{"mounts": 5}"#, "[]", "{"] {
            assert_eq!(lend(wrong), wrong);
        }
    }
}
