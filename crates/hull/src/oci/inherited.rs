//! Descriptors beyond the standard streams that the caller has for the command: those of socket activation, then those that
//! `--preserve-fds` counts. Source: sd_listen_fds(3), runc(8).

use std::fs;

use hull_runtime::plan::Process;

use crate::report::Report;

/// Those that the command gets, from 3 on.
pub struct Inherited {
    listening: u32,
    count: u32,
}

impl Inherited {
    /// Takes over what this process was given, before it opens anything: from here on no other program that it executes, a
    /// hook for example, gets any of it. With `activation` those that systemd has for a container's first process are counted
    /// as well.
    pub fn take(preserved: u32, activation: bool) -> Result<Self, Report> {
        let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
        let ours = activation && number("LISTEN_PID") == Some(std::process::id());
        let listening = if ours { number("LISTEN_FDS").unwrap_or(0) } else { 0 };
        let count = listening.saturating_add(preserved);
        // One that is not there would be whatever hull opens next.
        for descriptor in 0..count {
            fs::symlink_metadata(format!("/proc/self/fd/{}", descriptor.saturating_add(3))).map_err(|error| {
                Report::usage(format!("unable to stat preserved-fd {descriptor} (of {count}): {error}"), None)
            })?;
        }
        // This may begin the program again, which then has to find them, so they are kept back only after it.
        crate::out_of_reach()?;
        Ok(Self { listening, count })
    }

    /// Gives them to the command, and tells it of those that are listened at.
    pub fn give(&self, process: &mut Process) {
        process.descriptors = self.count;
        if self.listening > 0 {
            process.set_env(c"LISTEN_FDS", &self.listening.to_string());
            process.set_env(c"LISTEN_PID", "1");
        }
    }
}
