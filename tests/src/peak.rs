//! How much memory a command took at most, as the kernel counted it for whoever waited for it (`wait4(2)`).

use std::process::Command;

use crate::Said;

/// Runs a command to its end; gives what it said, and the most memory that it had at once, in bytes.
///
/// # Panics
/// It does not start.
pub fn output(command: &Command) -> (Said, u64) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    // A small parent, since a process counts the memory of the one that it was forked from.
    let mut time = Command::new("/usr/bin/time");
    time.args(["--quiet", "-f", "%M", "-o"]).arg(file.path()).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => time.env(name, value),
            None => time.env_remove(name),
        };
    }
    let said = Said::from(time.output().expect("time is installed: `make deps` does it"));
    let told = std::fs::read_to_string(file.path()).expect("a number");
    let kilobytes: u64 = told.trim().parse().unwrap_or_else(|_| panic!("{told:?}: {said:?}"));
    (said, kilobytes << 10)
}
