//! `hull run -t`: the container's own terminal, and the caller's, which is as before after any end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};

use hull_tests::{Corner, eventually, hull_bin};
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Termios, Winsize};

/// hull on a pseudo terminal: what a person sees, types and resizes.
struct Screen {
    keyboard: File,
    terminal: OwnedFd,
    shown: Arc<Mutex<String>>,
    before: Termios,
    child: Child,
}

impl Screen {
    fn open(corner: &Corner, command: &[&str]) -> Self {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let terminal = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).unwrap();
        let before = rustix::termios::tcgetattr(&terminal).unwrap();
        let side = || File::from(terminal.try_clone().unwrap());
        // setsid gives hull a session whose controlling terminal this is; it execs, so the child is hull itself.
        let child = Command::new("setsid")
            .arg("-c")
            .arg(hull_bin())
            .envs(corner.env())
            .args(["run", "--rm", "-it", "--rootfs"])
            .arg(corner.rootfs())
            .arg("--")
            .args(command)
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut screen, text) = (File::from(master.try_clone().unwrap()), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A read fails with EIO when the last holder of the terminal is gone: the end of the show.
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { keyboard: File::from(master), terminal, shown, before, child }
    }

    fn modes(&self) -> Termios {
        rustix::termios::tcgetattr(&self.terminal).unwrap()
    }

    fn wait_for(&self, text: &str) {
        eventually(&format!("{text:?} on the screen"), || self.shown.lock().unwrap().contains(text));
    }

    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("hull ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Fails only where it has been reaped already.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn assert_same(before: &Termios, after: &Termios) {
    assert_eq!(before.local_modes, after.local_modes);
    assert_eq!(before.input_modes, after.input_modes);
    assert_eq!(before.output_modes, after.output_modes);
    assert_eq!(before.control_modes, after.control_modes);
}

#[test]
fn the_terminal_is_the_containers_own_raw_outside_and_restored() {
    let corner = Corner::new();
    let mut screen = Screen::open(&corner, &["sh", "-c", "tty; echo up; read line; echo got-$line; exit 3"]);
    screen.wait_for("up");
    assert!(screen.shown.lock().unwrap().contains("/dev/pts/0"), "{:?}", screen.shown);
    let raw = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    assert!(!screen.modes().local_modes.intersects(raw), "the caller's terminal is raw while the container runs");
    screen.keyboard.write_all(b"abc\r").unwrap();
    screen.wait_for("got-abc");
    assert_eq!(screen.end().code(), Some(3));
    assert_same(&screen.before, &screen.modes());
    corner.assert_clean();
}

#[test]
fn the_size_is_the_callers_and_follows_it() {
    let corner = Corner::new();
    let script = "trap 'exit 0' INT; trap 'echo now-$(stty size | tr \" \" x)' WINCH; echo first-$(stty size | tr ' ' x); \
                  while :; do sleep 0.05; done";
    std::os::unix::fs::symlink("busybox", corner.rootfs().join("bin/tr")).unwrap();
    let mut screen = Screen::open(&corner, &["sh", "-c", script]);
    screen.wait_for("first-24x80");
    let size = Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&screen.keyboard, size).unwrap();
    screen.wait_for("now-50x132");
    screen.keyboard.write_all(b"\x03").unwrap();
    assert_eq!(screen.end().code(), Some(0));
    corner.assert_clean();
}

#[test]
fn a_typed_interrupt_reaches_the_command_and_not_hull() {
    let corner = Corner::new();
    let script = "trap 'echo caught; exit 9' INT; echo up; while :; do sleep 0.05; done";
    let mut screen = Screen::open(&corner, &["sh", "-c", script]);
    screen.wait_for("up");
    screen.keyboard.write_all(b"\x03").unwrap();
    screen.wait_for("caught");
    assert_eq!(screen.end().code(), Some(9));
    corner.assert_clean();
}

#[test]
fn the_terminal_is_restored_after_an_error_and_after_a_signal() {
    let corner = Corner::new();
    let mut failed = Screen::open(&corner, &["not-there"]);
    assert_eq!(failed.end().code(), Some(127));
    assert_same(&failed.before, &failed.modes());
    let mut screen =
        Screen::open(&corner, &["sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"]);
    screen.wait_for("up");
    rustix::process::kill_process(rustix::process::Pid::from_child(&screen.child), rustix::process::Signal::TERM)
        .unwrap();
    assert_eq!(screen.end().code(), Some(5));
    assert_same(&screen.before, &screen.modes());
    corner.assert_clean();
}
