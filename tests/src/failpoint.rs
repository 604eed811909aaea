//! Fail points: every call by which a command changes what lasts, and a kill just before or after one of them.
//!
//! The command is traced (`ptrace(2)`), so the points are what the kernel sees it do to the files below a folder: the list
//! is made by a first run and cannot lack a step that somebody adds later, and the binary is the one that ships, without
//! a hook in it. A process that is killed at the entry of a call does not do it; at its exit it has done it and nothing
//! after. x86-64 only, as hull is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How a call names the file that it changes: argument numbers from 0.
#[derive(Clone, Copy)]
enum Names {
    /// A descriptor.
    Fd(usize),
    /// A path.
    Path(usize),
    /// A folder's descriptor and a path.
    At(usize, usize),
    /// The same, if the flags in a third argument make a file.
    Made(usize, usize, usize),
}
use Names::{At, Fd, Made, Path as Named};

/// The calls that change files, by their numbers on x86-64. Times, owners, modes and attributes are not among them: they
/// are set in between, on what has no name in the store yet.
const CALLS: [(u64, &str, Names); 28] = [
    (1, "write", Fd(0)),
    (18, "pwrite64", Fd(0)),
    (20, "writev", Fd(0)),
    (40, "sendfile", Fd(0)),
    (74, "fsync", Fd(0)),
    (75, "fdatasync", Fd(0)),
    (76, "truncate", Named(0)),
    (77, "ftruncate", Fd(0)),
    (82, "rename", Named(1)),
    (83, "mkdir", Named(0)),
    (84, "rmdir", Named(0)),
    (85, "creat", Named(0)),
    (86, "link", Named(1)),
    (87, "unlink", Named(0)),
    (88, "symlink", Named(1)),
    (133, "mknod", Named(0)),
    (257, "openat", Made(0, 1, 2)),
    (258, "mkdirat", At(0, 1)),
    (259, "mknodat", At(0, 1)),
    (263, "unlinkat", At(0, 1)),
    (264, "renameat", At(2, 3)),
    (265, "linkat", At(2, 3)),
    (266, "symlinkat", At(1, 2)),
    (277, "sync_file_range", Fd(0)),
    (285, "fallocate", Fd(0)),
    (306, "syncfs", Fd(0)),
    (316, "renameat2", At(2, 3)),
    (326, "copy_file_range", Fd(2)),
];

/// A call that changes a file below the folder, `renameat2 store/blobs/sha256/*`; what is random in a name is a `*`.
pub type Point = String;

/// Where a command is to be killed.
#[derive(Clone, Debug)]
pub enum Moment {
    /// Before the first call that is this point.
    Before(Point),
    /// After the so-manieth.
    After(Point, usize),
}

/// What became of a command.
#[derive(Debug)]
pub struct Traced {
    /// Each point with how often it was passed.
    pub points: BTreeMap<Point, usize>,
    /// Whether it was killed where it was to be.
    pub killed: bool,
    /// Its exit status, if it was not killed.
    pub code: Option<i32>,
}

impl Traced {
    /// Before the first and after the last time of each point.
    pub fn moments(&self) -> Vec<Moment> {
        let both =
            |(point, times): (&Point, &usize)| [Moment::Before(point.clone()), Moment::After(point.clone(), *times)];
        self.points.iter().flat_map(both).collect()
    }
}

/// Runs `command` without input and output, and kills it with `SIGKILL` at `moment`, if it comes there. `below` is the
/// folder whose files count. Processes that it starts are not followed, its threads are.
///
/// # Panics
/// It cannot be started or traced.
pub fn run(command: &Command, below: &Path, moment: Option<&Moment>) -> Traced {
    // Only a thread without other children can wait for whatever comes next.
    std::thread::scope(|scope| {
        scope.spawn(|| Tracer::start(command, below).follow(moment)).join().expect("a traced command")
    })
}

struct Tracer {
    /// Waited for by its number, as its threads are.
    _child: Child,
    leader: Pid,
    below: PathBuf,
    /// The call that a thread is in, if it is a point.
    inside: BTreeMap<Pid, Point>,
}

impl Tracer {
    fn start(command: &Command, below: &Path) -> Self {
        // It stops itself, so that nothing happens before it is traced; the command is the same process.
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "kill -STOP $$; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            value.map(|value| shell.env(name, value));
        }
        if let Some(folder) = command.get_current_dir() {
            shell.current_dir(folder);
        }
        let child = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell");
        let leader = Pid::from_raw(child.id() as i32);
        let stopped = waitpid(leader, Some(WaitPidFlag::WUNTRACED)).expect("the shell stops");
        assert_eq!(stopped, WaitStatus::Stopped(leader, Signal::SIGSTOP));
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(leader, options).expect("the shell is traced");
        nix::sys::signal::kill(leader, Signal::SIGCONT).expect("the shell goes on");
        Self { _child: child, leader, below: below.to_owned(), inside: BTreeMap::new() }
    }

    fn follow(mut self, moment: Option<&Moment>) -> Traced {
        let mut traced = Traced { points: BTreeMap::new(), killed: false, code: None };
        loop {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            let (thread, signal) = match waitpid(None, Some(flags)) {
                Ok(WaitStatus::PtraceSyscall(thread)) => {
                    if self.passes(thread, moment, &mut traced) {
                        nix::sys::signal::kill(self.leader, Signal::SIGKILL).expect("it is there to be killed");
                        traced.killed = true;
                    }
                    (thread, None)
                }
                Ok(WaitStatus::Stopped(thread, signal)) => (thread, Some(signal)),
                Ok(WaitStatus::PtraceEvent(thread, ..)) => (thread, None),
                Ok(WaitStatus::Exited(thread, code)) if thread == self.leader => {
                    traced.code = Some(code);
                    return traced;
                }
                Ok(WaitStatus::Signaled(thread, ..)) if thread == self.leader => return traced,
                Ok(_) => continue,
                Err(Errno::EINTR) => continue,
                Err(error) => panic!("cannot wait for what is traced: {error}"),
            };
            match ptrace::syscall(thread, signal) {
                // It was killed meanwhile.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => panic!("cannot continue what is traced: {error}"),
            }
        }
    }

    /// Whether the thread, which is at the entry or the exit of a call, has come to the moment.
    fn passes(&mut self, thread: Pid, moment: Option<&Moment>, traced: &mut Traced) -> bool {
        let Ok(registers) = ptrace::getregs(thread) else { return false };
        // What stands there at the entry of a call, and at no exit of one that the kernel has.
        let entry = registers.rax as i64 == -i64::from(Errno::ENOSYS as i32);
        if entry {
            let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8];
            let Some(point) = self.point(thread, registers.orig_rax, arguments) else { return false };
            let reached = matches!(moment, Some(Moment::Before(wanted)) if *wanted == point);
            self.inside.insert(thread, point);
            return reached;
        }
        let Some(point) = self.inside.remove(&thread) else { return false };
        let passed = traced.points.entry(point.clone()).or_default();
        *passed += 1;
        matches!(moment, Some(Moment::After(wanted, times)) if *wanted == point && times == passed)
    }

    fn point(&self, thread: Pid, number: u64, arguments: [u64; 5]) -> Option<Point> {
        const CREATES: u64 = 0o100 | 0o1000;
        let (_, call, names) = CALLS.iter().find(|(known, ..)| *known == number)?;
        let path = match *names {
            Fd(fd) => descriptor(thread, arguments[fd])?,
            Named(path) => cwd(thread)?.join(string(thread, arguments[path])?),
            At(folder, path) => folder_of(thread, arguments[folder])?.join(string(thread, arguments[path])?),
            Made(.., flags) if arguments[flags] & CREATES == 0 => return None,
            Made(folder, path, _) => folder_of(thread, arguments[folder])?.join(string(thread, arguments[path])?),
        };
        let path = path.strip_prefix(&self.below).ok()?;
        Some(format!("{call} {}", without_chance(&path.to_string_lossy())))
    }
}

fn cwd(thread: Pid) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{thread}/cwd")).ok()
}

fn descriptor(thread: Pid, fd: u64) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{thread}/fd/{}", fd as i32)).ok()
}

fn folder_of(thread: Pid, fd: u64) -> Option<PathBuf> {
    const AT_FDCWD: i32 = -100;
    if fd as i32 == AT_FDCWD { cwd(thread) } else { descriptor(thread, fd) }
}

/// The string at an address of the thread.
fn string(thread: Pid, address: u64) -> Option<String> {
    let memory = File::open(format!("/proc/{thread}/mem")).ok()?;
    let mut text = Vec::new();
    // Not beyond the page, behind which there may be nothing.
    while text.len() < 4096 {
        let at = address + text.len() as u64;
        let mut part = [0u8; 256];
        let rest = (4096 - at % 4096).min(256) as usize;
        let read = memory.read_at(&mut part[..rest], at).ok().filter(|read| *read > 0)?;
        match part[..read].iter().position(|byte| *byte == 0) {
            Some(end) => {
                text.extend_from_slice(&part[..end]);
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
            None => text.extend_from_slice(&part[..read]),
        }
    }
    None
}

/// Digests and random ids, which are runs of hexadecimal digits, as a `*`; other numbers as a `#`.
fn without_chance(path: &str) -> String {
    let mut out = String::new();
    let mut rest = path;
    while !rest.is_empty() {
        let hex = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        if hex >= 12 {
            out.push('*');
            rest = &rest[hex..];
            continue;
        }
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if digits > 0 {
            out.push('#');
            rest = &rest[digits..];
            continue;
        }
        let step = rest.chars().next().map_or(0, char::len_utf8).max(if hex > 0 { hex } else { 1 });
        out.push_str(&rest[..step]);
        rest = &rest[step..];
    }
    out
}
