//! The last steps of a process that hull made, of a creation as of an exec, and then the command.

use std::borrow::Cow;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use hull_sys::fs::{self, CWD};
use hull_sys::path::Root;
use hull_sys::sync::Line;
use hull_sys::{Errno, cred, process, seccomp, signal, trace};
use rustix::fs::OFlags;

use crate::agent;
use crate::diagnose;
use crate::error::{Doing, Error, Result};
use crate::identity;
use crate::passwd;
use crate::plan::Process;
use crate::running;

/// Into the working directory, and a look whether it is inside the root: an inherited folder is not (CVE-2024-21626).
pub(crate) fn enter_cwd(plan: &Process) -> Result<()> {
    let doing = || format!("change to the working directory {}", plan.cwd.display());
    let path = CString::new(plan.cwd.as_os_str().as_bytes()).map_err(|error| Error::invalid(doing(), error))?;
    process::chdir(&path).doing(doing)?;
    let actual = process::getcwd().doing(doing)?;
    if !actual.to_bytes().starts_with(b"/") {
        return Err(Error::invalid(doing(), "it is outside the container's root"));
    }
    Ok(())
}

/// A command with everything found out and set that its system call filter need not allow.
pub(crate) struct Ready<'a> {
    plan: &'a Process,
    env: Cow<'a, [CString]>,
    candidates: Vec<CString>,
}

impl<'a> Ready<'a> {
    pub(crate) fn new(plan: &'a Process) -> Result<Self> {
        let env = environment(plan)?;
        // Nothing that hull holds reaches the command: all but the three streams, and what was given for it, close at exec.
        // What the caller had open was marked at the start, and what hull opens is by itself, so that the call may be missing.
        match process::close_on_exec_from(3) {
            Err(error) if error.errno() == Errno::NOSYS => {}
            other => other.doing(|| "close descriptors".to_owned())?,
        }
        process::keep_through_exec(3, plan.descriptors).doing(|| "pass on descriptors".to_owned())?;
        signal::default_actions();
        signal::unblock_all().doing(|| "unblock signals".to_owned())?;
        Ok(Self { plan, env, candidates: diagnose::candidates(plan) })
    }

    /// Gives up what the command may not do. `label` is what has to be said to the kernel right before; a listener for calls
    /// that are notified goes over `line`.
    pub(crate) fn confine(&self, label: impl FnOnce() -> Result<()>, line: &Line) -> Result<()> {
        let plan = self.plan;
        label()?;
        running::limit_files(plan)?;
        if plan.no_new_privs {
            cred::no_new_privs().doing(|| "set no_new_privs".to_owned())?;
            identity::limit(plan)?;
            self.filter("With no_new_privs the filter needs no privilege, so it comes last.", line)
        } else {
            // Without no_new_privs only CAP_SYS_ADMIN may load a filter, so it comes before the capabilities go.
            self.filter("Loaded while CAP_SYS_ADMIN is still there; the filter itself allows what comes now.", line)?;
            identity::limit(plan)
        }
    }

    fn filter(&self, when: &'static str, line: &Line) -> Result<()> {
        let Some(program) = &self.plan.seccomp else { return Ok(()) };
        trace::stage("filter the system calls", when);
        let loaded = seccomp::set_filter(&program.filter, program.flags);
        let descriptor = loaded.doing(|| "load the seccomp filter".to_owned())?;
        match (descriptor, &program.listener) {
            (Some(descriptor), Some(listener)) => agent::give(descriptor, listener, line),
            _ => Ok(()),
        }
    }

    /// Comes back only with the reason why the command could not be executed.
    pub(crate) fn execute(&self) -> Result<()> {
        trace::stage(
            "execute the command",
            "From here on the process is the command: same process id, other program.",
        );
        Err(diagnose::execute(self.plan, &self.candidates, &self.env))
    }
}

/// The environment with a home in it, which is where the container's own passwd says. A file that cannot be taken for
/// one says nothing.
fn environment(plan: &Process) -> Result<Cow<'_, [CString]>> {
    let home = |entry: &CString| entry.to_bytes().strip_prefix(b"HOME=").is_some_and(|home| !home.is_empty());
    if plan.env.iter().any(home) {
        return Ok(Cow::Borrowed(&plan.env));
    }
    let root = fs::openat(CWD, c"/", OFlags::PATH | OFlags::DIRECTORY, 0).doing(|| "open the root".to_owned())?;
    let passwd = passwd::read(&Root::from_fd(root), "/etc/passwd").unwrap_or_default();
    let entry = passwd::entries(&passwd).find(|fields| fields[2].parse() == Ok(plan.uid));
    let home = CString::new(format!("HOME={}", passwd::home(entry.as_deref())));
    let home = home.map_err(|error| Error::invalid("set the environment", error))?;
    let others = plan.env.iter().filter(|entry| !entry.to_bytes().starts_with(b"HOME=")).cloned();
    Ok(Cow::Owned(others.chain([home]).collect()))
}
