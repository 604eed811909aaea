//! Programs that a specification wants run at points of a container's life.
//!
//! Each gets the container's state on its standard input and the environment that it is given, nothing of ours. One that
//! fails, or does not end in time, ends what was being done. Source: runtime-spec, config.md "POSIX-platform Hooks".

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hull_sys::{Errno, process};
use oci_spec::runtime::{Hook as SpecHook, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The kinds of hooks, in the order in which they are run.
pub const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// One program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Absolute path.
    pub path: PathBuf,
    /// Arguments, the program's name first; empty stands for the path.
    pub args: Vec<String>,
    /// All of its environment, `NAME=VALUE`.
    pub env: Vec<String>,
    /// How long it may take; as long as it wants if not given.
    pub timeout: Option<Duration>,
}

/// All of a container's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before the root is changed, in the caller's namespaces. Deprecated, and still what Docker writes.
    pub prestart: Vec<Hook>,
    /// The same, after those.
    pub create_runtime: Vec<Hook>,
    /// Before the root is changed, in the container's namespaces.
    pub create_container: Vec<Hook>,
    /// Before the command is executed, in the container.
    pub start_container: Vec<Hook>,
    /// When the command runs.
    pub poststart: Vec<Hook>,
    /// When the container is deleted.
    pub poststop: Vec<Hook>,
}

/// What the state that a hook reads says of the container, besides its status and process.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Version of the specification.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// The specification's annotations.
    pub annotations: HashMap<String, String>,
}

impl About {
    /// The state of the container whose process is `pid` (runtime-spec, runtime.md "State").
    pub(crate) fn state(&self, status: &str, pid: i32) -> serde_json::Value {
        serde_json::json!({
            "ociVersion": self.oci_version, "id": self.id, "status": status, "pid": pid, "bundle": self.bundle,
            "annotations": self.annotations,
        })
    }
}

impl Hooks {
    /// The hooks of `spec`. Pure.
    ///
    /// # Errors
    /// A path that is not absolute, a time that is none.
    pub fn from_spec(spec: &Spec) -> Result<Self> {
        let Some(hooks) = spec.hooks() else { return Ok(Self::default()) };
        #[allow(deprecated, reason = "prestart is in use")]
        let prestart = hooks.prestart();
        Ok(Self {
            prestart: list(prestart)?,
            create_runtime: list(hooks.create_runtime())?,
            create_container: list(hooks.create_container())?,
            start_container: list(hooks.start_container())?,
            poststart: list(hooks.poststart())?,
            poststop: list(hooks.poststop())?,
        })
    }

    /// Whether some are the parent's to run while the container is created.
    pub(crate) fn concern_parent(&self) -> bool {
        !self.prestart.is_empty() || !self.create_runtime.is_empty()
    }

    /// Runs those, in their order. `prestart` is told that the container is created already, which it was when that kind
    /// was given its name, by crun as by us.
    pub(crate) fn run_parents(&self, about: &About, pid: i32) -> Result<()> {
        run(&self.prestart, about, "created", pid)?;
        run(&self.create_runtime, about, "creating", pid)
    }
}

/// Whether a `poststart` hook that fails ends the container. Since version 1.2.1 of the specification it does; by a bundle
/// of an earlier version it is a warning.
pub fn poststart_decides(oci_version: &str) -> bool {
    let mut numbers = oci_version.split(['.', '-', '+']).map_while(|number| number.parse::<u32>().ok());
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next()) >= (1, 2, 1)
}

fn list(hooks: &Option<Vec<SpecHook>>) -> Result<Vec<Hook>> {
    let hook = |hook: &SpecHook| {
        let doing = || format!("run the hook {}", hook.path().display());
        if !hook.path().is_absolute() {
            return Err(Error::invalid(doing(), "its path is not absolute"));
        }
        if let Some(entry) = hook.env().iter().flatten().find(|entry| !entry.contains('=')) {
            return Err(Error::invalid(doing(), format!("its environment has {entry:?}, which is not NAME=VALUE")));
        }
        let timeout = match hook.timeout() {
            None => None,
            Some(seconds) if seconds > 0 => Some(Duration::from_secs(seconds.unsigned_abs())),
            Some(seconds) => {
                return Err(Error::invalid(doing(), format!("its timeout of {seconds} is not positive")));
            }
        };
        Ok(Hook {
            path: hook.path().clone(),
            args: hook.args().clone().unwrap_or_default(),
            env: hook.env().clone().unwrap_or_default(),
            timeout,
        })
    };
    hooks.iter().flatten().map(hook).collect()
}

/// Runs `hooks` one after the other. `pid` is the container's process as they see it.
///
/// # Errors
/// The first that cannot be executed, fails, or does not end in time; what it said is in the error.
pub fn run(hooks: &[Hook], about: &About, status: &str, pid: i32) -> Result<()> {
    hooks.iter().try_for_each(|hook| run_one(hook, &about.state(status, pid).to_string()))
}

/// Runs each of `hooks`, whatever became of those before. Gives what went wrong.
pub fn run_all(hooks: &[Hook], about: &About, status: &str, pid: i32) -> Vec<Error> {
    let state = about.state(status, pid).to_string();
    hooks.iter().filter_map(|hook| run_one(hook, &state).err()).collect()
}

fn run_one(hook: &Hook, state: &str) -> Result<()> {
    let doing = || format!("run the hook {}", hook.path.display());
    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    let (mut input, stdin) = Input::new(state).map_err(|error| Error::setup(doing(), error))?;
    command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Error::setup(doing(), error))?;
    let (ended, said) =
        until_end(&mut child, &mut input, hook.timeout).map_err(|error| Error::setup(doing(), error))?;
    match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(Error::setup(doing(), format!("{status}: {}", said.trim_end()))),
        None => {
            let waited = hook.timeout.unwrap_or_default().as_secs();
            Err(Error::setup(doing(), format!("it did not end within {waited} s")))
        }
    }
}

/// What a hook reads: written as fast as it is read, for the state may be longer than what a pipe holds, and a hook need not
/// read any of it.
struct Input<'a> {
    rest: &'a [u8],
    /// None once all is written, so that the hook comes to its end.
    writer: Option<OwnedFd>,
    /// Somebody can always read: a write to nobody would be a signal, which would end the command's process.
    _reader: OwnedFd,
}

impl<'a> Input<'a> {
    /// The input, and the hook's end of it.
    fn new(state: &'a str) -> rustix::io::Result<(Self, OwnedFd)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        // Of this end alone: the hook's own would surprise it.
        fcntl_setfl(&writer, OFlags::WRONLY | OFlags::NONBLOCK)?;
        let stdin = rustix::io::fcntl_dupfd_cloexec(&reader, 3)?;
        Ok((Self { rest: state.as_bytes(), writer: Some(writer), _reader: reader }, stdin))
    }

    /// Writes what there is room for.
    fn write(&mut self) -> rustix::io::Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        match rustix::io::write(writer, self.rest) {
            Ok(count) => self.rest = &self.rest[count..],
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        if self.rest.is_empty() {
            self.writer = None;
        }
        Ok(())
    }
}

/// How often an end is looked for.
const LOOK: Duration = Duration::from_millis(5);

/// How much of what it says is told, in bytes, or a little more.
const MOST: usize = 1 << 16;

/// Its status, none if it was killed for the time that it took, and what it wrote to its standard error.
fn until_end(
    child: &mut Child,
    input: &mut Input<'_>,
    timeout: Option<Duration>,
) -> std::io::Result<(Option<std::process::ExitStatus>, String)> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let mut said = Vec::new();
    let mut errors = child.stderr.take();
    let end = process::end_of(child.id() as i32).map_err(std::io::Error::other)?;
    loop {
        input.write()?;
        // Where nothing tells of its end it is looked for.
        let wait = if end.is_some() { left() } else { Some(left().unwrap_or(LOOK).min(LOOK)) };
        let wait = wait.map(|wait| Timespec::try_from(wait).unwrap_or_default());
        let mut polled: Vec<PollFd<'_>> = errors.iter().map(|errors| PollFd::new(errors, PollFlags::IN)).collect();
        polled.extend(end.as_ref().map(|end| PollFd::new(end, PollFlags::IN)));
        polled.extend(input.writer.as_ref().map(|writer| PollFd::new(writer, PollFlags::OUT)));
        rustix::io::retry_on_intr(|| poll(&mut polled, wait.as_ref()))?;
        let readable = errors.is_some() && !polled[0].revents().is_empty();
        let ended = child.try_wait()?;
        if readable {
            let mut buffer = [0; 4096];
            match errors.as_mut().map_or(Ok(0), |errors| errors.read(&mut buffer))? {
                0 => errors = None,
                count if said.len() < MOST => said.extend(&buffer[..count]),
                _ => {}
            }
        }
        match ended {
            // What it left behind may go on writing for ever.
            Some(status) if !readable || said.len() >= MOST => {
                return Ok((Some(status), String::from_utf8_lossy(&said).into_owned()));
            }
            None if left().is_some_and(|left| left.is_zero()) => {
                child.kill()?;
                child.wait()?;
                return Ok((None, String::new()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<u64>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook { path: "/bin/sh".into(), args, env: vec!["A=b".into()], timeout: timeout.map(Duration::from_secs) }
    }

    #[test]
    fn a_hook_reads_the_state_and_has_its_own_environment() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let about = About { id: "box".into(), ..About::default() };
        let script = format!("(cat; echo; env) > {}", out.display());
        run(&[hook(&script, Some(10))], &about, "creating", 77).unwrap();
        let text = std::fs::read_to_string(out).unwrap();
        let state: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((&state["id"], &state["pid"], &state["status"]), (&"box".into(), &77.into(), &"creating".into()));
        assert!(text.contains("\nA=b\n") && !text.contains("CARGO"), "{text}");
    }

    #[test]
    fn one_that_fails_or_takes_too_long_is_an_error() {
        let fail = |hook: Hook| run(&[hook], &About::default(), "creating", 1).unwrap_err().to_string();
        assert!(fail(hook("echo why >&2; exit 3", None)).contains("exit status: 3: why"));
        let start = Instant::now();
        assert!(fail(hook("exec sleep 60", Some(1))).contains("did not end within 1 s"));
        // Also one that never stops talking, or leaves somebody behind who does not.
        assert!(fail(hook("while :; do echo word >&2; done", Some(1))).contains("did not end within 1 s"));
        assert!(fail(hook("(while echo word; do :; done) >&2 & exit 4", None)).contains("exit status: 4"));
        assert!(start.elapsed() < Duration::from_secs(20));
        assert!(fail(Hook { path: "/no/such".into(), ..hook("", None) }).contains("/no/such"));
    }

    /// Shown to fail (by not ending) with a state that is written before anything else is looked at.
    #[test]
    fn a_state_that_a_pipe_does_not_hold_is_read_whole_or_not_at_all() {
        let long = "x".repeat(300_000);
        let annotations = HashMap::from([("long".to_owned(), long)]);
        let about = About { annotations, ..About::default() };
        run(&[hook("test $(wc -c) -gt 300000", Some(20))], &about, "creating", 1).unwrap();
        run(&[hook("true", Some(20)), hook("exec <&-; sleep 0.1", Some(20))], &about, "creating", 1).unwrap();
        let error = run(&[hook("exec sleep 60", Some(1))], &about, "creating", 1).unwrap_err();
        assert!(error.to_string().contains("did not end within 1 s"), "{error}");
    }

    #[test]
    fn where_failures_are_warnings_all_are_run() {
        let hooks = [hook("exit 3", None), hook("true", None), hook("exit 4", None)];
        let warnings: Vec<String> =
            run_all(&hooks, &About::default(), "stopped", 0).iter().map(Error::to_string).collect();
        assert!(matches!(&*warnings, [three, four] if three.contains(": 3") && four.contains(": 4")), "{warnings:?}");
    }

    #[test]
    fn the_version_of_the_bundle_says_whether_poststart_decides() {
        for version in ["1.2.1", "1.2.1-dev", "1.3.0", "2.0.0"] {
            assert!(poststart_decides(version), "{version}");
        }
        for version in ["1.0.2-dev", "1.1.0", "1.2.0", "", "x"] {
            assert!(!poststart_decides(version), "{version}");
        }
    }
}
