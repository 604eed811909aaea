//! Process 1 of a container that was asked for with `--init`.
//!
//! A command that runs as process 1 has duties that few programs know: the kernel gives it every orphan to reap, and
//! keeps signals from it that it has no handler for. This one does both and runs the command as its child. It executes
//! in the container, with the command's rights; when the command has ended it ends, and the kernel takes the rest along.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use hull_sys::process::{self, Ended};
use hull_sys::signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::report::Report;

const SIGCHLD: i32 = 17;
/// About our own terminal, which the command has: SIGTTIN, SIGTTOU.
const OURS: [i32; 2] = [21, 22];

/// Runs the command, whose words follow `--`; gives the exit status of the container.
pub fn init(args: Vec<OsString>) -> i32 {
    let words = match args.split_first() {
        Some((dashes, words)) if dashes == "--" && !words.is_empty() => words,
        _ => return Report::usage("hull-init is what --init starts; it takes -- and a command", None).tell(),
    };
    match run(words) {
        Ok(ended) => ended.code(),
        Err(report) => report.tell(),
    }
}

fn run(words: &[OsString]) -> Result<Ended, Report> {
    let failed = |error: hull_sys::Error| Report::usage(format!("cannot be the container's init: {error}"), None);
    // It was executed without a path that would name it.
    rustix::thread::set_name(c"hull-init")
        .map_err(|error| Report::usage(format!("cannot be the container's init: {error}"), None))?;
    // Before there is a child: none of its signals may be lost.
    signal::block_all().map_err(failed)?;
    let signals = signal::signalfd().map_err(failed)?;
    // A process group of its own, so that a signal for all of the command's reaches it and not us.
    let mut command = Command::new(&words[0]);
    signal::fresh(command.args(&words[1..]).process_group(0));
    let child = command.spawn().map_err(|error| not_executed(&words[0], &error))?;
    let main = Pid::from_child(&child);
    let command = process::pidfd_open(main.as_raw_nonzero().get()).map_err(failed)?;
    give_terminal(main);
    loop {
        while let Some((pid, how)) = process::reap_any().map_err(failed)? {
            if pid == main.as_raw_nonzero().get() {
                return Ok(how);
            }
        }
        match poll(&mut [PollFd::new(&signals, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Report::usage(format!("cannot be the container's init: {error}"), None)),
        }
        while let Some(number) = signal::next(signals.as_fd()) {
            if number == SIGCHLD || OURS.contains(&number) {
                continue;
            }
            match process::pidfd_send_signal(command.as_fd(), number) {
                // It has ended this moment, which the next round sees.
                Err(error) if error.errno() == Errno::SRCH => {}
                other => other.map_err(failed)?,
            }
        }
    }
}

/// The command is what reads from the terminal.
fn give_terminal(main: Pid) {
    let stdin = rustix::stdio::stdin();
    if rustix::termios::isatty(stdin) {
        // SIGTTOU, which this brings, is blocked. Where it fails the command reads as part of the background.
        let _ = rustix::termios::tcsetpgrp(stdin, main);
    }
}

fn not_executed(word: &OsString, error: &std::io::Error) -> Report {
    let code = match error.kind() {
        ErrorKind::NotFound => 127,
        _ => 126,
    };
    Report::usage(format!("cannot execute {word:?}: {error}"), None).with_code(code)
}
