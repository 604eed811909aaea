//! A RUN: the path of `hull run` without a name, on the host's network, with nothing to read.
//!
//! The command gets Docker's default rules for system calls, the default capabilities and limits, and the environment
//! that the Dockerfile says and nothing of ours. Its output comes through a pipe, so that it never holds our terminal.
//! Mount points that had to be made for it and are empty afterwards are taken away again: they are not the image's.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use hull_engine::options::{Network, RunOptions};
use hull_engine::{Hold, Streams};
use hull_runtime::{Created, Ended, Stdio};
use hull_sys::path::Root;
use hull_sys::{fs, process, signal, trace};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::graph::RunAction;
use crate::progress::Progress;

const SIGKILL: i32 = 9;
/// The signals that end a build: hang-up, interrupt, quit, termination.
const ENDING: [i32; 4] = [1, 2, 3, 15];
/// What a container's set-up makes in a root that lacks it, files after folders.
const STUBS: [&str; 6] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/proc", "/sys", "/dev"];

fn host<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::host(doing, error)
}

/// Runs `action` in `root` and waits for it: its exit status, 128+n for signal n.
///
/// `runroot` is where the step's hold is made, as every container's.
///
/// # Errors
/// What of the container could not be made; an interrupt. Nothing is left behind then.
pub fn run(runroot: &Path, root: OwnedFd, action: &RunAction, progress: &mut dyn Progress) -> Result<i32> {
    let again = root.try_clone().map(Root::from_fd).map_err(host("open the step's root"))?;
    let missing = missing_stubs(&again)?;
    let id = hull_engine::run::new_id().map_err(host("run the step"))?;
    let hold = Hold::create(runroot, &id).map_err(host("run the step"))?;
    let options = RunOptions {
        command: action.argv.clone(),
        workdir: Some(action.workdir.clone().into()),
        env: action.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        user: Some(action.user.clone()),
        hostname: Some("buildkitsandbox".into()),
        network: Network::Host,
        ..RunOptions::default()
    };
    let mut output = Output::new(progress)?;
    let ended = hull_engine::contain(&hold, root, &options, &mut output, || Ok(())).map_err(host("run the step"))?;
    drop(output);
    drop(hold);
    trace::stage("take away what was lent", "mount points that the image did not have are not part of the layer");
    remove_stubs(&again, &missing)?;
    Ok(ended.code())
}

/// The command's output on its way to the progress, and the signals that end a build.
struct Output<'a> {
    progress: &'a mut dyn Progress,
    reading: OwnedFd,
    given: Option<Stdio>,
    signals: Signals,
}

impl<'a> Output<'a> {
    fn new(progress: &'a mut dyn Progress) -> Result<Self> {
        let signals = Signals::block()?;
        let (reading, writing) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(host("make a pipe"))?;
        let null = fs::openat(fs::CWD, c"/dev/null", OFlags::RDONLY, 0).map_err(host("open /dev/null"))?;
        let error_side = writing.try_clone().map_err(host("make a pipe"))?;
        Ok(Self { progress, reading, given: Some(Stdio::Given([null, writing, error_side])), signals })
    }
}

impl Streams for Output<'_> {
    fn stdio(&mut self) -> hull_engine::Result<Stdio> {
        self.given.take().ok_or_else(|| hull_engine::Error::host("open the step's streams", "they are given already"))
    }

    fn connect(&mut self, _: &mut Created) -> hull_engine::Result<()> {
        Ok(())
    }

    fn until_end(&mut self, created: &Created) -> hull_engine::Result<Ended> {
        let doing = |error: Errno| hull_engine::Error::host("wait for the step", error);
        let mut open = true;
        loop {
            let mut polled = vec![
                PollFd::from_borrowed_fd(created.as_fd(), PollFlags::IN),
                PollFd::new(&self.signals.waiting, PollFlags::IN),
            ];
            polled.extend(open.then(|| PollFd::new(&self.reading, PollFlags::IN)));
            match poll(&mut polled, None) {
                Err(Errno::INTR) => continue,
                other => other.map_err(doing)?,
            };
            let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready.get(2) == Some(&true) {
                open = pump(&self.reading, self.progress);
            }
            if ready[1] {
                while let Some(number) = signal::next(self.signals.waiting.as_fd()) {
                    if ENDING.contains(&number) {
                        return interrupted(created, number);
                    }
                }
            }
            if ready[0] {
                let ended = created.wait()?;
                // What is still in the pipe. All its writers are dead: the first process of a PID namespace takes
                // them along.
                while pump(&self.reading, self.progress) {}
                return Ok(ended);
            }
        }
    }
}

/// All signals are read from a descriptor while a command runs; the mask before comes back on drop.
struct Signals {
    before: signal::Mask,
    waiting: OwnedFd,
}

impl Signals {
    fn block() -> Result<Self> {
        let before = signal::block_all().map_err(host("block the signals"))?;
        match signal::signalfd() {
            Ok(waiting) => Ok(Self { before, waiting }),
            Err(error) => {
                signal::restore(&before).map_err(host("restore the signals"))?;
                Err(host("listen for signals")(error))
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // The mask was the process's own a moment ago; the kernel has no reason to refuse it.
        let _ = signal::restore(&self.before);
    }
}

fn interrupted(created: &Created, number: i32) -> hull_engine::Result<Ended> {
    match process::pidfd_send_signal(created.as_fd(), SIGKILL) {
        Err(error) if error.errno() != Errno::SRCH => return Err(hull_engine::Error::host("end the step", error)),
        _ => {}
    }
    created.wait()?;
    Err(hull_engine::Error::host("finish the build", format!("it was interrupted by signal {number}")))
}

/// Passes on what is there; false at the end of the stream.
fn pump(output: &OwnedFd, progress: &mut dyn Progress) -> bool {
    let mut buffer = [0u8; 16 << 10];
    match rustix::io::read(output, &mut buffer) {
        Ok(0) => false,
        Ok(count) => {
            progress.output(&buffer[..count]);
            true
        }
        Err(errno) => matches!(errno, Errno::INTR | Errno::AGAIN),
    }
}

fn missing_stubs(root: &Root) -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    for stub in STUBS {
        match root.resolve_nofollow(Path::new(stub)) {
            Ok(_) => {}
            Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NOTDIR) => missing.push(stub),
            Err(error) => return Err(Error::host(format!("look at {stub} of the image"), error)),
        }
    }
    Ok(missing)
}

/// Removes those that are still what the set-up made: an empty file or folder. The root is the command's by now, so
/// the folder above is resolved in it again and the name is taken as itself.
fn remove_stubs(root: &Root, missing: &[&str]) -> Result<()> {
    for stub in missing {
        let (folder, name) = stub.rsplit_once('/').unwrap_or(("", stub));
        let Ok(folder) = root.resolve(Path::new(if folder.is_empty() { "/" } else { folder })) else { continue };
        let name = crate::context::c_path(Path::new(name)).map_err(|error| Error::host("clean up", error))?;
        let Ok(stat) = fs::lstatat(folder.as_fd(), &name) else { continue };
        let removed = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => fs::unlinkat(folder.as_fd(), &name, true),
            FileType::RegularFile if stat.st_size == 0 => fs::unlinkat(folder.as_fd(), &name, false),
            _ => Ok(()),
        };
        match removed {
            Err(error) if !matches!(error.errno(), Errno::NOTEMPTY | Errno::NOENT) => {
                return Err(Error::host(format!("take {stub} out of the layer"), error));
            }
            _ => {}
        }
    }
    Ok(())
}
