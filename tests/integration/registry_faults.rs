//! Row R23 of the table of faults: registries and the ways to them fail, and a pull goes on from what it has, or ends soon
//! with the reason.
//!
//! hull speaks HTTP/1.1 alone, so of HTTP/2's GOAWAY there is what a server does instead: it ends a connection between two
//! requests. A server that speaks HTTP/2 all the same is one that does not speak the protocol.

use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hull_tests::scripted::{Answer, Asked, Scripted, TinyImage, noise, pull, pull_command, short};
use hull_tests::tar::Tar;
use hull_tests::world::World;
use hull_tests::{Corner, Said, entries};

const FLAGS: &[&str] = &["--tls-verify=false"];

fn is_manifest(asked: &Asked) -> bool {
    asked.target.contains("/manifests/")
}

/// The ranges that were asked for of a layer, or of all.
fn ranges(registry: &Scripted, wanted: impl Fn(&Asked) -> bool) -> Vec<Option<usize>> {
    registry.asked().iter().filter(|asked| wanted(asked)).map(Asked::range).collect()
}

/// Pulls from a registry that answers so, and finds `why` in the error.
fn given_up(why: &str, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Scripted, Duration) {
    let (corner, registry, start) = (Corner::new(), Scripted::new(answer), Instant::now());
    let said = pull(&corner, &registry, FLAGS, "a/b:1");
    assert!(said.code == 1 && said.err.starts_with("hull: cannot ") && said.err.contains(why), "{said:?}");
    (registry, start.elapsed())
}

/// Whatever is cut off, wherever, and however the connection ends: what has come is not asked for again.
#[test]
fn r23_an_answer_that_is_cut_off_at_any_byte_is_asked_for_again_and_a_layer_from_there() {
    let image = TinyImage::new(100_000);
    let size = image.layer().len();
    for reset in [false, true] {
        for at in [0, 1, 511, 512, 30_000, size - 1] {
            let (cut, seen) = (image.clone(), Mutex::new(Vec::new()));
            let registry = Scripted::new(move |asked| {
                let mut seen = seen.lock().unwrap();
                let answer = cut.answer(asked);
                let first = !seen.contains(&asked.target) && asked.target != "/v2/";
                seen.push(asked.target.clone());
                if first { answer.cut(asked, at, reset) } else { answer }
            });
            let corner = Corner::new();
            let said = pull(&corner, &registry, FLAGS, "a/b:1");
            assert_eq!(said.code, 0, "cut at {at}, reset {reset}: {said:?}");
            let asked = ranges(&registry, |asked| image.is_layer(asked));
            let from = if at == 0 { None } else { Some(at) };
            assert_eq!(asked, [None, from], "cut at {at}, reset {reset}");
            let manifests = ranges(&registry, is_manifest).len();
            assert_eq!(manifests, if at < image.manifest.len() { 2 } else { 1 }, "cut at {at}, reset {reset}");
        }
    }
}

/// In the head of an answer there is nothing yet to go on from.
#[test]
fn r23_a_connection_that_is_reset_before_an_answer_is_made_anew() {
    let image = TinyImage::new(1000);
    let seen = Mutex::new(Vec::new());
    let log = image.clone();
    let registry = Scripted::new(move |asked| {
        let mut seen = seen.lock().unwrap();
        let times = seen.iter().filter(|target| **target == asked.target).count();
        seen.push(asked.target.clone());
        match times {
            0 => Answer::Raw(Box::new(|stream| {
                rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO)).unwrap();
            })),
            1 => Answer::Raw(Box::new(|stream| _ = stream.write_all(b"HTTP/1.1 200 X\r\ncontent-le"))),
            _ => image.answer(asked),
        }
    });
    let corner = Corner::new();
    let said = pull(&corner, &registry, FLAGS, "a/b:1");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(ranges(&registry, |asked| log.is_layer(asked)), [None; 3]);
}

/// A byte now and then is no progress, and neither is one of each connection.
#[test]
fn r23_a_trickle_is_given_up_and_what_came_is_kept() {
    let image = TinyImage::new(100_000);
    let slow = image.clone();
    let corner = Corner::new();
    let trickle = Scripted::new(move |asked| match slow.is_layer(asked) {
        true => {
            let (size, from) = (slow.layer().len(), asked.range().unwrap_or(0));
            let rest = slow.layer()[from..].to_vec();
            Answer::Raw(Box::new(move |stream| {
                let head = match from {
                    0 => format!("HTTP/1.1 200 X\r\ncontent-length: {size}\r\n\r\n"),
                    _ => format!(
                        "HTTP/1.1 206 X\r\ncontent-range: bytes {from}-{}/{size}\r\ncontent-length: {}\r\n\r\n",
                        size - 1,
                        size - from
                    ),
                };
                let mut sent = stream.write_all(head.as_bytes());
                for byte in rest {
                    if sent.is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_secs(1));
                    sent = stream.write_all(&[byte]);
                }
            }))
        }
        false => slow.answer(asked),
    });
    let start = Instant::now();
    let said = pull(&corner, &trickle, FLAGS, "a/b:1");
    assert!(said.code == 1 && said.err.contains("bytes came in"), "{said:?}");
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    let asked = ranges(&trickle, |asked| image.is_layer(asked));
    assert!(asked.len() == 3 && asked[2] > Some(1), "{asked:?}");
    assert_eq!(entries(&corner.root().join("downloads")).len(), 1);

    let one = image.clone();
    let (registry, took) = given_up("ended early", move |asked| match one.is_layer(asked) {
        true => one.answer(asked).cut(asked, 1, false),
        false => one.answer(asked),
    });
    assert_eq!(ranges(&registry, |asked| image.is_layer(asked)), [None, Some(1), Some(2)]);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// c/image #1145 began all layers again because one was reset.
#[test]
fn r23_one_layer_that_breaks_off_costs_the_others_nothing() {
    let layer = |seed| {
        let data = noise(seed, 100_000);
        let header = Tar::header(tar::EntryType::Regular, &format!("file{seed}"), "", data.len() as u64);
        Tar::default().raw(&header, &data).end()
    };
    let image = TinyImage::stack(&[layer(1), layer(2), layer(3)]);
    let broken = hull_tests::scripted::digest(&image.layers[1]);
    let (answers, own) = (image.clone(), broken.clone());
    let registry = Scripted::new(move |asked| {
        let answer = answers.answer(asked);
        match asked.target.ends_with(&own) && asked.range().unwrap_or(0) < 60_000 {
            true => answer.cut(asked, 20_000, true),
            false => answer,
        }
    });
    let corner = Corner::new();
    let said = pull(&corner, &registry, FLAGS, "a/b:1");
    assert_eq!(said.code, 0, "{said:?}");
    let of = |digest: &str| ranges(&registry, |asked| asked.target.ends_with(digest));
    assert_eq!(of(&broken), [None, Some(20_000), Some(40_000), Some(60_000)]);
    for layer in [&image.layers[0], &image.layers[2]] {
        assert_eq!(of(&hull_tests::scripted::digest(layer)), [None]);
    }
}

#[test]
fn r23_errors_that_may_pass_are_tried_again_with_longer_pauses_and_others_are_not() {
    for status in [500, 502, 503, 504, 408, 429] {
        let (image, tries) = (TinyImage::new(1000), AtomicUsize::new(0));
        let registry =
            Scripted::new(move |asked| match is_manifest(asked) && tries.fetch_add(1, Ordering::Relaxed) < 2 {
                true => Answer::status(status),
                false => image.answer(asked),
            });
        let said = pull(&Corner::new(), &registry, FLAGS, "a/b:1");
        assert_eq!(said.code, 0, "{status}: {said:?}");
        assert_eq!(ranges(&registry, is_manifest).len(), 3, "{status}");
    }
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let log = times.clone();
    given_up("answered 500", move |asked| {
        if is_manifest(asked) {
            log.lock().unwrap().push(Instant::now());
        }
        Answer::status(if asked.target == "/v2/" { 200 } else { 500 })
    });
    let times = times.lock().unwrap();
    let pauses: Vec<u128> = times.windows(2).map(|two| (two[1] - two[0]).as_millis()).collect();
    // Between half of 250 ms, twice that and so on, and all of it; a loaded machine makes them longer.
    assert!(
        pauses.len() == 4 && pauses.iter().zip([125, 250, 500, 1000]).all(|(is, least)| *is >= least),
        "{pauses:?}"
    );

    for status in [400, 403, 404, 405, 406, 410, 418, 451, 501, 505] {
        let (registry, _) = given_up(&format!("answered {status}"), move |asked| {
            Answer::status(if asked.target == "/v2/" { 200 } else { status })
        });
        assert_eq!(ranges(&registry, is_manifest).len(), 1, "{status}");
    }
}

/// The token is of no use any more when the layer is half there.
#[test]
fn r23_a_token_that_expires_within_a_layer_is_exchanged_and_the_layer_continued() {
    let image = TinyImage::new(100_000);
    let (answers, tokens) = (image.clone(), AtomicUsize::new(0));
    let registry = Scripted::new(move |asked| {
        if asked.target.starts_with("/token") {
            let number = tokens.fetch_add(1, Ordering::Relaxed);
            // Its times are those of a clock that is far off, and they are the token server's business.
            let token = format!(r#"{{"token":"t{number}","expires_in":0,"issued_at":"1970-01-01T00:00:00Z"}}"#);
            return Answer::ok("application/json", token);
        }
        let good = format!("Bearer t{}", tokens.load(Ordering::Relaxed).saturating_sub(1));
        let expired = asked.range() == Some(30_000) && tokens.load(Ordering::Relaxed) == 1;
        if expired || asked.header("authorization") != Some(&good) {
            let host = asked.header("host").unwrap_or_default();
            let why = if expired { ",error=\"invalid_token\"" } else { "" };
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"{why}");
            return Answer::status(401).with("www-authenticate", challenge);
        }
        match answers.is_layer(asked) && asked.range().is_none() {
            true => answers.answer(asked).cut(asked, 30_000, false),
            false => answers.answer(asked),
        }
    });
    let said = pull(&Corner::new(), &registry, FLAGS, "a/b:1");
    assert_eq!(said.code, 0, "{said:?}");
    let asked = registry.asked();
    assert_eq!(asked.iter().filter(|asked| asked.target.starts_with("/token")).count(), 2);
    let layers: Vec<_> = asked.iter().filter(|asked| image.is_layer(asked)).collect();
    let seen: Vec<_> = layers.iter().map(|asked| (asked.range(), asked.header("authorization"))).collect();
    assert_eq!(
        seen,
        [(None, Some("Bearer t0")), (Some(30_000), Some("Bearer t0")), (Some(30_000), Some("Bearer t1"))]
    );
}

/// A registry whose clock is behind its token server's refuses what that gives: it is asked no more than once.
#[test]
fn r23_a_token_of_another_clock_is_not_asked_for_again_and_again() {
    let (registry, took) = given_up("their clocks may differ", |asked| {
        if asked.target.starts_with("/token") {
            return Answer::ok("application/json", r#"{"token":"tomorrows"}"#);
        }
        let host = asked.header("host").unwrap_or_default();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\",error=\"invalid_token\"");
        Answer::status(401).with("www-authenticate", challenge)
    });
    let tokens = registry.asked().iter().filter(|asked| asked.target.starts_with("/token")).count();
    assert_eq!((tokens, ranges(&registry, is_manifest).len()), (1, 2));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn r23_a_token_server_that_is_busy_is_asked_again() {
    let (image, tries) = (TinyImage::new(1000), AtomicUsize::new(0));
    let registry = Scripted::new(move |asked| {
        if asked.target.starts_with("/token") {
            return match tries.fetch_add(1, Ordering::Relaxed) {
                0 => Answer::status(503).with("retry-after", "1"),
                1 => Answer::Raw(Box::new(|_| {})),
                _ => Answer::ok("application/json", r#"{"token":"t"}"#),
            };
        }
        let host = asked.header("host").unwrap_or_default();
        match asked.header("authorization") {
            Some(_) => image.answer(asked),
            None => Answer::status(401).with("www-authenticate", format!("Bearer realm=\"http://{host}/token\"")),
        }
    });
    let start = Instant::now();
    let said = pull(&Corner::new(), &registry, FLAGS, "a/b:1");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

/// A server may end a connection after any answer without a word; and one that speaks HTTP/2 speaks something else.
#[test]
fn r23_a_connection_that_ends_between_two_requests_is_made_anew_and_http_2_is_refused() {
    let image = TinyImage::new(1000);
    let registry = Scripted::new(move |asked| image.answer(asked).cut(asked, usize::MAX, false));
    let said = pull(&Corner::new(), &registry, FLAGS, "a/b:1");
    assert_eq!(said.code, 0, "{said:?}");

    // SETTINGS, then GOAWAY of the first stream without an error.
    let frames = [&[0, 0, 0, 4, 0, 0, 0, 0, 0][..], &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    let (_, took) = given_up("hull: cannot ", move |asked| {
        let frames = frames.clone();
        match asked.target.as_str() {
            "/v2/" => Answer::status(200),
            _ => Answer::Raw(Box::new(move |stream| _ = stream.write_all(&frames))),
        }
    });
    assert!(took < Duration::from_secs(15), "{took:?}");
}

/// Ends a server however the test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A name server for the world: the answer to the first questions is a failure, and there is never one about IPv6.
fn name_server(socket: UdpSocket, failures: usize, stop: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut failed = 0;
    let mut buffer = [0; 512];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        let question = &buffer[..length];
        // The header is 12 bytes, then a name, its type and its class.
        let name = question[12..].iter().position(|byte| *byte == 0).expect("the end of a name");
        let end = 12 + name + 5;
        if question[end - 3] != 1 {
            continue;
        }
        let mut answer = question[..end].to_vec();
        (answer[2], answer[3]) = (0x81, 0x80);
        if failed < failures {
            failed += 1;
            answer[3] |= 2;
        } else {
            answer[7] = 1;
            // The name of the question, A, IN, a minute, four bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        socket.send_to(&answer, client).unwrap();
    }
}

/// Puts a file over one of the host's in the world.
fn replace(world: &World, corner: &Corner, path: &str, text: &str) {
    let own = corner.path().join(path.replace('/', "-"));
    std::fs::write(&own, text).unwrap();
    let mount = world.command("mount").arg("--bind").arg(own).arg(path).status().unwrap();
    assert!(mount.success());
}

fn in_world(world: &World, command: &Command) -> Said {
    world.moved(command).output().expect("hull starts").into()
}

fn pull_by_name(corner: &Corner, registry: &Scripted, name: &str) -> Command {
    let mut hull = corner.hull();
    let port = registry.address().rsplit_once(':').expect("a port").1.to_owned();
    hull.args(["pull", "--tls-verify=false"]).arg(format!("{name}:{port}/a/b:1"));
    hull.env("HOME", corner.path()).env("HULL_REGISTRY_TIMEOUT", "20").env_remove("XDG_RUNTIME_DIR");
    hull.env("CONTAINERS_REGISTRIES_CONF", "/dev/null");
    hull
}

/// What is shown to fail: with an error of the second question being one of both no such pull works.
#[test]
fn r23_a_name_server_that_fails_now_and_then_is_asked_again() {
    let corner = Corner::new();
    let world = World::new(corner.path());
    let (listener, names) =
        world.in_network(|| (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:53").unwrap()));
    let image = TinyImage::new(1000);
    let registry = Scripted::at(listener, move |asked| image.answer(asked));
    replace(&world, &corner, "/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| name_server(names, 2, &stop));
        let said = in_world(&world, &pull_by_name(&corner, &registry, "flaky.test"));
        assert_eq!(said.code, 0, "{said:?}");
    });
}

/// Addresses whose packets vanish are passed over. What is shown to fail: one address after the other takes the time of a whole
/// connection for each that is silent.
#[test]
fn r23_an_address_that_is_a_black_hole_does_not_keep_the_next_one_waiting() {
    let corner = Corner::new();
    let world = World::new(corner.path());
    // What goes out at one end is for a station that the other end is not.
    let hole = "ip link add hole type veth peer name end && ip link set end up && ip link set hole up &&
        ip addr add 10.99.0.1/24 dev hole && ip addr add fd99::1/64 dev hole nodad &&
        ip neigh add 10.99.0.2 lladdr 02:00:00:00:00:99 dev hole && ip neigh add fd99::2 lladdr 02:00:00:00:00:99 dev hole";
    assert!(world.command("sh").args(["-c", hole]).status().unwrap().success());
    let listener = world.in_network(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let image = TinyImage::new(1000);
    let registry = Scripted::at(listener, move |asked| image.answer(asked));
    let hosts = "fd99::2 two.test\n10.99.0.2 two.test\n127.0.0.1 two.test\n10.99.0.2 none.test\n";
    replace(&world, &corner, "/etc/hosts", hosts);
    let start = Instant::now();
    let said = in_world(&world, &pull_by_name(&corner, &registry, "two.test"));
    assert_eq!(said.code, 0, "{said:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());

    // And where there is no other, the wait has an end.
    let mut command = pull_by_name(&corner, &registry, "none.test");
    command.env("HULL_REGISTRY_TIMEOUT", "1");
    let start = Instant::now();
    let said = in_world(&world, &command);
    assert!(said.code == 1 && said.err.contains("nothing came for too long"), "{said:?}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

/// An interrupt ends a pull within a second, whatever it waits for. (From a terminal: `progress`.)
#[test]
fn r23_an_interrupt_ends_every_wait_within_a_second() {
    type Wrong = fn(&TinyImage, &Asked) -> Option<Answer>;
    let waits: [Wrong; 3] = [
        |_, asked| is_manifest(asked).then(|| Answer::status(429).with("retry-after", "50")),
        |_, asked| is_manifest(asked).then(|| short(100, Vec::new(), Duration::from_secs(5))),
        |image, asked| image.is_layer(asked).then(|| short(100, vec![0; 50], Duration::from_secs(5))),
    ];
    for (n, wrong) in waits.into_iter().enumerate() {
        let (corner, image) = (Corner::new(), TinyImage::new(1000));
        let waiting = Arc::new(AtomicBool::new(false));
        let seen = waiting.clone();
        let registry = Scripted::new(move |asked| match wrong(&image, asked) {
            Some(answer) => {
                seen.store(true, Ordering::Relaxed);
                answer
            }
            None => image.answer(asked),
        });
        let mut command = pull_command(&corner, &registry, FLAGS, "a/b:1");
        command.env("HULL_REGISTRY_TIMEOUT", "30").stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        hull_tests::eventually("it waits", || waiting.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
            .unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(start.elapsed() < Duration::from_secs(1), "{n}: {:?}", start.elapsed());
        // What it was making is taken away by the next command.
        let next: Said = corner.hull().args(["system", "check", "--repair"]).output().unwrap().into();
        assert_eq!(next.code, 0, "{next:?}");
    }
}

#[test]
fn r23_a_stalled_layer_is_given_up() {
    let corner = Corner::new();
    let image = TinyImage::new(100_000);
    let registry = Scripted::new(move |asked| match image.is_layer(asked) {
        true => short(image.layer().len(), Vec::new(), Duration::from_secs(20)),
        false => image.answer(asked),
    });
    let start = Instant::now();
    let said = pull(&corner, &registry, FLAGS, "a/b:1");
    assert!(said.code == 1 && said.err.contains("nothing came for too long"), "{said:?}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn r23_a_registry_that_is_busy_is_asked_again_when_it_says_so() {
    let image = TinyImage::new(1000);
    let corner = Corner::new();
    let tries = Arc::new(AtomicUsize::new(0));
    let count = tries.clone();
    let registry =
        Scripted::new(move |asked| match is_manifest(asked) && count.fetch_add(1, Ordering::Relaxed) < 2 {
            true => Answer::status(429).with("retry-after", "1"),
            false => image.answer(asked),
        });
    let start = Instant::now();
    let said = pull(&corner, &registry, FLAGS, "a/b:1");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(tries.load(Ordering::Relaxed), 3);
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());

    // Longer than anybody waits.
    let image = TinyImage::new(10);
    let (registry, took) = given_up("answered 503", move |asked| match is_manifest(asked) {
        true => Answer::status(503).with("retry-after", "86400"),
        false => image.answer(asked),
    });
    assert!(took < Duration::from_secs(5) && registry.asked().len() <= 3);
}
