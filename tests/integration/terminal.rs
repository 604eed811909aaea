//! `hull run -t`: the container's own terminal, and the caller's, which is as before after any end.

use std::io::Write;
use std::process::Command;

use hull_tests::screen::Screen;
use hull_tests::{Corner, eventually};
use rustix::termios::{LocalModes, Termios, Winsize};

fn hull(corner: &Corner, flag: &str, command: &[&str]) -> Command {
    let mut hull = corner.hull();
    hull.args(["run", "--rm", flag, "--rootfs"]).arg(corner.rootfs()).arg("--").args(command);
    hull
}

fn open(corner: &Corner, flag: &str, command: &[&str]) -> Screen {
    Screen::open(&hull(corner, flag, command))
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
    let mut screen = open(&corner, "-it", &["sh", "-c", "tty; echo up; read line; echo got-$line; exit 3"]);
    screen.wait_for("up");
    assert!(screen.shown().contains("/dev/pts/0"), "{}", screen.shown());
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
    let mut screen = open(&corner, "-it", &["sh", "-c", script]);
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
    let mut screen = open(&corner, "-it", &["sh", "-c", script]);
    screen.wait_for("up");
    screen.keyboard.write_all(b"\x03").unwrap();
    screen.wait_for("caught");
    assert_eq!(screen.end().code(), Some(9));
    corner.assert_clean();
}

#[test]
fn the_terminal_is_restored_after_an_error_and_after_a_signal() {
    let corner = Corner::new();
    let mut failed = open(&corner, "-it", &["not-there"]);
    assert_eq!(failed.end().code(), Some(127));
    assert_same(&failed.before, &failed.modes());
    let mut screen = open(&corner, "-it", &["sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"]);
    screen.wait_for("up");
    screen.signal(rustix::process::Signal::TERM);
    assert_eq!(screen.end().code(), Some(5));
    assert_same(&screen.before, &screen.modes());
    corner.assert_clean();
}

/// Found when each write waited until the command had read: hull and `cat` waited for one another.
#[test]
fn a_long_paste_comes_back_whole() {
    let corner = Corner::new();
    let mut screen = open(&corner, "-it", &["sh", "-c", "stty -echo; echo up; cat; echo end"]);
    screen.wait_for("up");
    // More than all buffers on the way hold together.
    screen.paste(format!("{}\x04", format!("{}\r", "x".repeat(79)).repeat(1500)));
    let seen = || screen.shown().matches('x').count();
    let mut so_far = seen();
    while so_far < 79 * 1500 {
        eventually("it goes on", || seen() > so_far);
        so_far = seen();
    }
    screen.wait_for("end");
    assert_eq!(screen.end().code(), Some(0));
    assert_eq!(screen.shown().matches('x').count(), 79 * 1500);
    assert_same(&screen.before, &screen.modes());
}

/// Found as the one above: the signal stayed with hull.
#[test]
fn a_signal_gets_past_input_that_the_command_does_not_read() {
    let corner = Corner::new();
    for flag in ["-it", "-i"] {
        let script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done";
        let mut screen = open(&corner, flag, &["sh", "-c", script]);
        screen.wait_for("up");
        screen.paste("xxxxxxx\n".repeat(40_000));
        std::thread::sleep(std::time::Duration::from_millis(300));
        screen.signal(rustix::process::Signal::TERM);
        assert_eq!(screen.end().code(), Some(5), "{flag}");
        assert_same(&screen.before, &screen.modes());
    }
}

#[test]
fn a_reader_that_does_not_read_keeps_no_signal_from_the_command() {
    let corner = Corner::new();
    let script = "trap 'echo caught > /caught; exit 5' TERM; (while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done) & \
                  echo up > /up; while :; do sleep 0.05; done";
    let mut screen = Screen::unread(&hull(&corner, "-it", &["sh", "-c", script]));
    eventually("the command runs", || corner.rootfs().join("up").exists());
    // Until nothing more fits.
    std::thread::sleep(std::time::Duration::from_millis(500));
    screen.signal(rustix::process::Signal::TERM);
    eventually("the command gets it", || corner.rootfs().join("caught").exists());
    // Nobody will ever read the rest; a further one ends the wait for that.
    let mut ended = None;
    eventually("hull ends", || {
        ended = screen.try_end();
        if ended.is_none() {
            screen.signal(rustix::process::Signal::TERM);
            // One after the end of the command is enough; the next one could meet hull on its way out.
            for _ in 0..100 {
                ended = ended.or_else(|| screen.try_end());
                std::thread::sleep(std::time::Duration::from_millis(50 * u64::from(ended.is_none())));
            }
        }
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(5));
    corner.assert_clean();
}
