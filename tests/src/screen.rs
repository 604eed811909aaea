//! A pseudo terminal with a program on it: what a person sees, types and resizes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::{Termios, Winsize};

use crate::eventually;

/// A terminal of 24 lines and 80 columns, and the program whose controlling terminal it is.
pub struct Screen {
    /// What is written here has been typed. It also has the terminal's size.
    pub keyboard: File,
    /// The modes before the program.
    pub before: Termios,
    /// The program.
    pub child: Child,
    terminal: OwnedFd,
    shown: Arc<Mutex<String>>,
}

impl Screen {
    /// Starts `command` on a new terminal.
    ///
    /// # Panics
    /// There is no terminal to be had, or no such program.
    pub fn open(command: &Command) -> Self {
        let screen = Self::unread(command);
        let (mut shows, text) = (screen.keyboard.try_clone().expect("a copy"), Arc::clone(&screen.shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A read fails with EIO when the last holder of the terminal is gone: the end of the show.
            while let Ok(count @ 1..) = shows.read(&mut buffer) {
                text.lock().expect("the text").push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        screen
    }

    /// One that nobody looks at: what is shown stays in the terminal.
    ///
    /// # Panics
    /// As [`Screen::open`].
    pub fn unread(command: &Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).expect("a terminal");
        rustix::pty::grantpt(&master).expect("a terminal");
        rustix::pty::unlockpt(&master).expect("a terminal");
        let name = rustix::pty::ptsname(&master, Vec::new()).expect("its name");
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let terminal = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).expect("its other end");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).expect("a size");
        let before = rustix::termios::tcgetattr(&terminal).expect("modes");
        let side = || File::from(terminal.try_clone().expect("a copy"));
        // setsid gives the program a session whose controlling terminal this is, env takes back what whoever runs the tests
        // in the background has ignored, as a login does; both exec, so the child is the program.
        let mut setsid = Command::new("setsid");
        setsid.args(["-c", "env", "--default-signal=INT,QUIT"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => setsid.env(name, value),
                None => setsid.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            setsid.current_dir(folder);
        }
        let child = setsid.stdin(side()).stdout(side()).stderr(side()).spawn().expect("setsid");
        Self { keyboard: File::from(master), before, child, terminal, shown: Arc::default() }
    }

    /// The modes now.
    ///
    /// # Panics
    /// The terminal is gone.
    pub fn modes(&self) -> Termios {
        rustix::termios::tcgetattr(&self.terminal).expect("modes")
    }

    /// All that was shown so far.
    ///
    /// # Panics
    /// The reader has.
    pub fn shown(&self) -> String {
        self.shown.lock().expect("the text").clone()
    }

    /// Waits until `text` is shown.
    ///
    /// # Panics
    /// It is not within a minute.
    pub fn wait_for(&self, text: &str) {
        eventually(&format!("{text:?} on the screen"), || self.shown().contains(text));
    }

    /// Types without waiting for who reads it.
    ///
    /// # Panics
    /// There is no other keyboard to be had.
    pub fn paste(&self, text: String) {
        let mut keyboard = self.keyboard.try_clone().expect("a copy");
        // It ends with an error when the terminal does.
        std::thread::spawn(move || keyboard.write_all(text.as_bytes()));
    }

    /// Sends the program a signal.
    ///
    /// # Panics
    /// It has ended.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("a program that runs");
    }

    /// Waits for the program's end.
    ///
    /// # Panics
    /// It does not end within a minute.
    pub fn end(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", || {
            status = self.try_end();
            status.is_some()
        });
        status.expect("a status")
    }

    /// How the program ended, if it has.
    ///
    /// # Panics
    /// Somebody else waited for it.
    pub fn try_end(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our child")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Fails only where it has been reaped already.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
