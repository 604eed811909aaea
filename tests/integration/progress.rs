//! What is shown of a pull: bars on a terminal, lines elsewhere; and a pull that is interrupted from the keyboard.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use hull_tests::screen::Screen;
use hull_tests::scripted::{Answer, Scripted, TinyImage, pull};
use hull_tests::{Corner, entries};

fn command(corner: &Corner, registry: &Scripted) -> Command {
    let mut hull = corner.hull();
    hull.args(["pull", "--tls-verify=false"]).arg(format!("{}/a/b:1", registry.address()));
    hull.env("HOME", corner.path()).env("CONTAINERS_REGISTRIES_CONF", "/dev/null").env("TERM", "xterm");
    hull
}

#[test]
fn a_terminal_has_a_bar_for_each_layer_and_a_pipe_has_lines() {
    let (corner, image) = (Corner::new(), TinyImage::new(300_000));
    let registry = Scripted::new(move |asked| image.answer(asked));
    let mut screen = Screen::open(&command(&corner, &registry));
    assert!(screen.end().success(), "{}", screen.shown());
    screen.wait_for("Status: Downloaded newer image");
    let shown = screen.shown();
    assert!(shown.contains("Pull complete") && shown.contains("\u{1b}["), "{shown}");

    let corner = Corner::new();
    let told = pull(&corner, &registry, &["--tls-verify=false"], "a/b:1");
    assert!(told.out.contains(": Pull complete\n") && !told.out.contains('\u{1b}'), "{told:?}");
    let quiet = pull(&corner, &registry, &["--tls-verify=false", "-q"], "a/b:1");
    assert_eq!((quiet.out.lines().count(), &*quiet.err), (1, ""), "{quiet:?}");
}

#[test]
fn ctrl_c_ends_a_pull_within_a_second_and_the_next_one_goes_on() {
    let (corner, image) = (Corner::new(), TinyImage::new(300_000));
    let (slow, whole) = (image.clone(), image.clone());
    let stalled = Scripted::new(move |asked| match slow.is_layer(asked) {
        true => hull_tests::scripted::short(
            slow.layers[0].len(),
            slow.layers[0][..100_000].to_vec(),
            Duration::from_secs(30),
        ),
        false => slow.answer(asked),
    });
    let mut screen = Screen::open(&command(&corner, &stalled));
    screen.wait_for("Downloading");
    hull_tests::eventually("a part is kept", || {
        let folder = corner.root().join("downloads");
        entries(&folder)
            .iter()
            .any(|name| std::fs::metadata(folder.join(name)).is_ok_and(|data| data.len() == 100_000))
    });
    let start = Instant::now();
    screen.keyboard.write_all(b"\x03").expect("a key");
    assert!(!screen.end().success());
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(screen.modes().local_modes, screen.before.local_modes);
    drop(screen);

    let log = whole.clone();
    let honest = Scripted::new(move |asked| -> Answer { whole.answer(asked) });
    let said = pull(&corner, &honest, &["--tls-verify=false"], "a/b:1");
    assert_eq!(said.code, 0, "{said:?}");
    let ranges: Vec<_> =
        honest.asked().iter().filter(|asked| log.is_layer(asked)).map(|asked| asked.range()).collect();
    assert_eq!(ranges, [Some(100_000)]);
}
