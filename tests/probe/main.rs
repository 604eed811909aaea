//! What tests execute inside a container: a hostile command, which tells on one line how far it came. And what they execute
//! hull through, for a kernel that lacks calls.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use hull_sys::seccomp::{SockFilter, set_filter};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::write;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["overwrite", size] => overwrite(size.parse().expect("a number")),
        ["peek", name] => peek(name),
        ["without", calls, ref command @ ..] => without(calls, command),
        ["say", ref messages @ ..] => say(messages),
        _ => panic!("not a thing to try: {words:?}"),
    }
}

/// CVE-2019-5736: looks at every process that there is for a file of `size` bytes behind /proc/PID/exe, keeps a handle of
/// it, and tries to write to it, at once and again when standard input has ended, and with it the processes.
fn overwrite(size: i64) {
    let mut handles: Vec<OwnedFd> = Vec::new();
    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    let mut attempt = |path: &str| {
        let opened = open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let told = match opened.and_then(|file| write(file, b"overwritten")) {
            Ok(_) => "written".to_owned(),
            Err(errno) => errno.raw_os_error().to_string(),
        };
        *answers.entry(told).or_default() += 1;
    };
    println!("looking");
    while !input_ended() {
        for pid in std::fs::read_dir("/proc").expect("a procfs").flatten().map(|entry| entry.file_name()) {
            let exe = format!("/proc/{}/exe", pid.to_string_lossy());
            let Ok(handle) = open(&*exe, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else { continue };
            if fstat(&handle).is_ok_and(|stat| stat.st_size == size) {
                attempt(&exe);
                if handles.len() < 64 {
                    handles.push(handle);
                }
            }
        }
    }
    for handle in &handles {
        attempt(&format!("/proc/self/fd/{}", handle.as_raw_fd()));
    }
    println!("seen {} answers {answers:?}", handles.len());
}

/// Executes `command` where the kernel does not have `calls`, `NAME=NUMBER,...`.
fn without(calls: &str, command: &[&str]) {
    const NOT_THERE: u32 = 38;
    let numbers: Vec<u32> = calls
        .split(',')
        .map(|call| call.rsplit('=').next().and_then(|number| number.parse().ok()).expect("a number"))
        .collect();
    let one = |code, jt, jf, k| SockFilter { code, jt, jf, k };
    // Each comparison that holds jumps to the last instruction but none.
    let jump = |at: usize| u8::try_from(numbers.len() - at).expect("few calls");
    let mut program = vec![one(0x20, 0, 0, 0)];
    program.extend(numbers.iter().enumerate().map(|(at, number)| one(0x15, jump(at), 0, *number)));
    program.extend([one(0x06, 0, 0, 0x7fff_0000), one(0x06, 0, 0, 0x0005_0000 | NOT_THERE)]);
    set_filter(&program, 0).expect("a process that may load a filter");
    let error = Command::new(command[0]).args(&command[1..]).exec();
    panic!("cannot execute {command:?}: {error}");
}

/// sd_notify(3): sends each of `messages`, in which `|` ends a line, to the socket that the environment names.
fn say(messages: &[&str]) {
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    let address = std::env::var("NOTIFY_SOCKET").expect("NOTIFY_SOCKET");
    for message in messages {
        match socket.send_to(message.replace('|', "\n").as_bytes(), &address) {
            Ok(_) => println!("said"),
            Err(error) => println!("{error}"),
        }
    }
}

/// CVE-2016-9962: looks into every process that is called `name`, until standard input has ended.
fn peek(name: &str) {
    let (mut seen, mut opened) = (BTreeSet::new(), BTreeMap::<&str, u32>::new());
    let is_called =
        |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|told| told.trim() == name);
    println!("looking");
    while !input_ended() {
        for pid in std::fs::read_dir("/proc").expect("a procfs").flatten().map(|entry| entry.file_name()) {
            let pid = pid.to_string_lossy().into_owned();
            if !pid.starts_with(|c: char| c.is_ascii_digit()) || !is_called(&pid) {
                continue;
            }
            for file in ["environ", "mem", "maps", "exe", "cwd", "root", "fd/0", "fd/3"] {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let answer = open(format!("/proc/{pid}/{file}"), flags, Mode::empty());
                // If it still has the name it had it when that was opened: no exec of a command lies between.
                if answer.is_ok() && is_called(&pid) {
                    *opened.entry(file).or_default() += 1;
                }
            }
            seen.insert(pid);
        }
    }
    println!("seen {} opened {opened:?}", seen.len());
}

fn input_ended() -> bool {
    let input = rustix::stdio::stdin();
    let mut polled = [PollFd::new(&input, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}
