//! Seccomp: an OCI profile becomes one classic BPF program. Pure.
//!
//! The program looks at the architecture, then finds the system call by binary search over ranges of equal action,
//! so that a call costs about eight comparisons however long the profile is. Calls that are newer than everything the
//! profile names answer `ENOSYS`, as with runc, so that a C library falls back instead of failing.
//!
//! Where rules of one system call meet, they are merged as libseccomp merges them: a rule without conditions stands
//! alone, and the first of several is the one; rules with conditions are alternatives, the strictest action first.
//! Two conditions on one argument in one rule are two rules, as runc and crun have it. Names that no table has are
//! passed over, for a profile speaks of many kernels. Calls of an architecture that the profile does not list end the
//! process (libseccomp ends the thread).
//!
//! Sources: `seccomp(2)`; runtime-spec, "Seccomp"; libseccomp 2.5; runc `libcontainer/seccomp/patchbpf`.

mod bpf;
mod numbers;
mod table;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use hull_sys::seccomp::SockFilter;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

use crate::error::{Error, Result};
use bpf::{JEQ, JGE, Label, Test, Writer};
use table::{Abi, Finder, Row};

/// A program and the flags to install it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The instructions.
    pub filter: Vec<SockFilter>,
    /// `SECCOMP_FILTER_FLAG_*`; with a listener, `SECCOMP_FILTER_FLAG_NEW_LISTENER` is among them.
    pub flags: u32,
    /// Who decides about the calls that are notified, if some are.
    pub listener: Option<Listener>,
}

/// A seccomp agent, as the profile names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its stream socket on the host, absolute.
    pub path: CString,
    /// What it is told besides.
    pub metadata: Option<String>,
    /// Whether sendmsg(2) is a call that neither it nor the filter holds up.
    pub sendmsg_passes: bool,
}

/// The kernel's limit for one program (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;
/// The actions: the specification's word, and the kernel's return value without data.
pub const ACTIONS: [(&str, LinuxSeccompAction, u32); 9] = [
    ("SCMP_ACT_ALLOW", LinuxSeccompAction::ScmpActAllow, RET_ALLOW),
    ("SCMP_ACT_ERRNO", LinuxSeccompAction::ScmpActErrno, RET_ERRNO),
    ("SCMP_ACT_KILL", LinuxSeccompAction::ScmpActKill, RET_KILL_THREAD),
    ("SCMP_ACT_KILL_PROCESS", LinuxSeccompAction::ScmpActKillProcess, RET_KILL_PROCESS),
    ("SCMP_ACT_KILL_THREAD", LinuxSeccompAction::ScmpActKillThread, RET_KILL_THREAD),
    ("SCMP_ACT_LOG", LinuxSeccompAction::ScmpActLog, RET_LOG),
    ("SCMP_ACT_NOTIFY", LinuxSeccompAction::ScmpActNotify, RET_NOTIFY),
    ("SCMP_ACT_TRACE", LinuxSeccompAction::ScmpActTrace, RET_TRACE),
    ("SCMP_ACT_TRAP", LinuxSeccompAction::ScmpActTrap, RET_TRAP),
];
/// The comparisons of arguments.
pub const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];
/// The architectures whose calls can happen here.
pub const ARCHITECTURES: [&str; 3] = ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];
/// The flags of a filter: the specification's word, and the kernel's bit.
pub const FLAGS: [(&str, LinuxSeccompFilterFlag, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", LinuxSeccompFilterFlag::SeccompFilterFlagLog, 1 << 1),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow, 1 << 2),
    ("SECCOMP_FILTER_FLAG_TSYNC", LinuxSeccompFilterFlag::SeccompFilterFlagTsync, TSYNC),
    (
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv,
        WAIT_KILLABLE_RECV,
    ),
];
const TSYNC: u32 = 1;
const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The words of those flags that this kernel has.
pub fn supported_flags() -> Vec<&'static str> {
    // By itself the kernel refuses it for what is missing beside it.
    let beside = |bit| if bit == WAIT_KILLABLE_RECV { hull_sys::seccomp::NEW_LISTENER } else { 0 };
    let known = FLAGS.iter().filter(|(_, _, bit)| hull_sys::seccomp::knows(bit | beside(*bit)));
    known.map(|known| known.0).collect()
}

const DOING: &str = "compile the seccomp profile";
/// sendmsg(2) on x86-64.
const SENDMSG: u32 = 46;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;
/// The kernel's `MAX_ERRNO`.
const MAX_ERRNO: u32 = 4095;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_NOTIFY: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

/// Compiles a profile for this machine's architectures. Others in the list need no rules: their calls cannot happen.
///
/// # Errors
/// An argument index beyond 5, an `errnoRet` where the action takes none or that is no error number, a notification
/// without `listenerPath` or for `write`, flags that do not go together, a program longer than the kernel takes.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let abis = abis(profile);
    let rules = Rules::of(profile, default, abis.contains(&Abi::X86))?;
    let mut writer = Writer::default();
    let mut sections = Vec::with_capacity(2);
    if abis.contains(&Abi::X86) {
        let mut ranges = rules.ranges(Abi::X86, 0, default);
        add_range(&mut ranges, u32::MAX, Leaf::Return(rules.unknown));
        sections.push((table::AUDIT_I386, section(&mut writer, &ranges, true)));
    }
    let mut ranges = rules.ranges(Abi::X86_64, 0, default);
    if abis.contains(&Abi::X32) {
        ranges.extend(rules.ranges(Abi::X32, table::X32_BIT, default));
    } else {
        add_range(&mut ranges, table::X32_BIT, Leaf::Return(RET_KILL_PROCESS));
    }
    let sendmsg = ranges.iter().rev().find(|(start, _)| *start <= SENDMSG);
    let sendmsg_passes = matches!(sendmsg, Some((_, Leaf::Return(RET_ALLOW | RET_LOG))));
    // -1 is what a tracer puts in the place of a call that it took over.
    add_range(&mut ranges, u32::MAX, Leaf::Return(rules.unknown));
    sections.push((table::AUDIT_X86_64, section(&mut writer, &ranges, false)));
    let mut otherwise = writer.ret(RET_KILL_PROCESS);
    for (audit, section) in sections {
        otherwise = writer.jump(JEQ, audit, section, otherwise);
    }
    writer.load(4);
    let filter = writer.finish();
    if filter.len() > LONGEST {
        let cause = format!("it needs {} instructions, and the kernel takes {LONGEST}", filter.len());
        return Err(Error::invalid(DOING, cause));
    }
    let listener = listener(profile, sendmsg_passes)?;
    Ok(Program { filter, flags: flags(profile, listener.is_some())?, listener })
}

/// The agent, if a rule needs one; else the path "is ignored" (runtime-spec).
fn listener(profile: &LinuxSeccomp, sendmsg_passes: bool) -> Result<Option<Listener>> {
    let notifies = |rule: &LinuxSyscall| rule.action() == LinuxSeccompAction::ScmpActNotify;
    let needed = profile.syscalls().iter().flatten().any(notifies);
    let Some(path) = profile.listener_path().as_ref().filter(|_| needed) else { return Ok(None) };
    let refuse = |cause: &str| Error::invalid("use linux.seccomp.listenerPath", format!("{path:?} {cause}"));
    if !path.is_absolute() {
        return Err(refuse("is not absolute"));
    }
    Ok(Some(Listener {
        path: CString::new(path.as_os_str().as_bytes()).map_err(|_| refuse("holds a NUL"))?,
        metadata: profile.listener_metadata().clone().filter(|metadata| !metadata.is_empty()),
        sendmsg_passes,
    }))
}

fn abis(profile: &LinuxSeccomp) -> Vec<Abi> {
    // The native architecture is always there, as with libseccomp.
    let mut abis = vec![Abi::X86_64];
    for arch in profile.architectures().iter().flatten() {
        match arch {
            Arch::ScmpArchX86 => abis.push(Abi::X86),
            Arch::ScmpArchX32 => abis.push(Abi::X32),
            _ => {}
        }
    }
    abis
}

fn flags(profile: &LinuxSeccomp, listens: bool) -> Result<u32> {
    let mut flags = if listens { hull_sys::seccomp::NEW_LISTENER } else { 0 };
    for flag in profile.flags().iter().flatten() {
        flags |= FLAGS.iter().find(|known| known.1 == *flag).map_or(0, |known| known.2);
    }
    // The kernel answers both with EINVAL, which names nothing.
    if listens && flags & TSYNC != 0 {
        let cause = "SECCOMP_FILTER_FLAG_TSYNC does not go together with a listener for SCMP_ACT_NOTIFY";
        return Err(Error::invalid(DOING, cause));
    }
    if !listens && flags & WAIT_KILLABLE_RECV != 0 {
        let cause = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a listener, and no rule says SCMP_ACT_NOTIFY";
        return Err(Error::invalid(DOING, cause));
    }
    Ok(flags)
}

/// The kernel's return value for an action.
fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32> {
    let value = errno.unwrap_or(EPERM);
    let code = ACTIONS.iter().find(|known| known.1 == action).map_or(RET_KILL_PROCESS, |known| known.2);
    let most = match code {
        RET_ERRNO => MAX_ERRNO,
        RET_TRACE => 0xffff,
        _ if errno.is_some() => {
            return Err(Error::invalid(DOING, format!("{action} takes no errnoRet, and the profile gives {value}")));
        }
        code => return Ok(code),
    };
    if value > most {
        return Err(Error::invalid(DOING, format!("errnoRet {value} of {action} is beyond {most}")));
    }
    Ok(code | value)
}

/// `seccomp(2)`: of two actions the kernel prefers the lower one, as a signed number.
fn strictness(action: u32) -> i32 {
    (action & 0xffff_0000) as i32
}

/// A rule with the profile's names taken apart: an action, and the conditions that must all hold.
struct Rule {
    action: u32,
    tests: Vec<Test>,
}

/// The rules, and which system call each is for.
struct Rules {
    rules: Vec<Rule>,
    /// Table row and rule, in the order of the profile.
    named: Vec<(&'static Row, u32)>,
    /// i386's calls by another way: number and rule.
    multiplexed: Vec<(u32, u32)>,
    /// What a call answers that is newer than the profile.
    unknown: u32,
}

/// What happens in one range of system call numbers.
enum Leaf<'a> {
    Return(u32),
    Tests(Vec<&'a Rule>, u32),
}

type Ranges<'a> = Vec<(u32, Leaf<'a>)>;

impl Rules {
    fn of(profile: &LinuxSeccomp, default: u32, with_x86: bool) -> Result<Self> {
        let permissive = matches!(default & 0xffff_0000, RET_ALLOW | RET_LOG | RET_TRACE);
        let unknown = if permissive { default } else { RET_ERRNO | ENOSYS };
        let syscalls = profile.syscalls().as_deref().unwrap_or_default();
        let names = syscalls.iter().map(|syscall| syscall.names().len()).sum();
        let mut all = Self { rules: Vec::new(), named: Vec::with_capacity(names), multiplexed: Vec::new(), unknown };
        let listens = profile.listener_path().is_some();
        if default == RET_NOTIFY {
            return Err(Error::invalid(DOING, "SCMP_ACT_NOTIFY cannot be the default action"));
        }
        let mut finder = Finder::default();
        for syscall in syscalls {
            let action = action(syscall.action(), syscall.errno_ret())?;
            if action == RET_NOTIFY {
                check_notify(syscall, listens)?;
            }
            for tests in alternatives(syscall)? {
                all.add(syscall, Rule { action, tests }, default, with_x86, &mut finder);
            }
        }
        Ok(all)
    }

    fn add(&mut self, syscall: &LinuxSyscall, rule: Rule, default: u32, with_x86: bool, finder: &mut Finder) {
        let index = self.rules.len() as u32;
        let simple = rule.tests.is_empty();
        let action = rule.action;
        self.rules.push(rule);
        for name in syscall.names() {
            if let Some(row) = finder.find(name) {
                self.named.push((row, index));
            }
            // What a condition would look at is behind a pointer there, so such rules stay with the direct call.
            if let (true, true, Some((call, code))) =
                (with_x86 && action != default, simple, table::multiplexed(name))
            {
                // ipc's upper half is a version.
                let value = if call == table::IPC { 0xffff } else { 0xffff_ffff };
                let op = LinuxSeccompOperator::ScmpCmpMaskedEq;
                self.multiplexed.push((call, self.rules.len() as u32));
                self.rules.push(Rule { action, tests: vec![Test { index: 0, op, value, second: code.into() }] });
            }
        }
    }

    /// The ranges of one interface, from `first` on.
    fn ranges(&self, abi: Abi, first: u32, default: u32) -> Ranges<'_> {
        let numbers = self.named.iter().filter_map(|(row, rule)| Some((abi.number(row)?, *rule)));
        let mut calls: Vec<(u32, u32)> = numbers.collect();
        if abi == Abi::X86 {
            calls.extend_from_slice(&self.multiplexed);
        }
        // By number, then in the order of the profile.
        calls.sort_unstable();
        let mut ranges = Vec::with_capacity(64);
        add_range(&mut ranges, first, Leaf::Return(default));
        for group in calls.chunk_by(|one, other| one.0 == other.0) {
            let number = group[0].0;
            add_range(&mut ranges, number, self.leaf(group, default));
            add_range(&mut ranges, number + 1, Leaf::Return(default));
        }
        if let Some((newest, _)) = calls.last() {
            add_range(&mut ranges, newest + 1, Leaf::Return(self.unknown));
        }
        ranges
    }

    fn leaf(&self, group: &[(u32, u32)], default: u32) -> Leaf<'_> {
        // A rule that says what the default says is none, for runc as for crun.
        let rules = group.iter().map(|(_, rule)| &self.rules[*rule as usize]).filter(|rule| rule.action != default);
        if let Some(rule) = rules.clone().find(|rule| rule.tests.is_empty()) {
            return Leaf::Return(rule.action);
        }
        let mut rules: Vec<&Rule> = rules.collect();
        rules.sort_by_key(|rule| strictness(rule.action));
        if rules.is_empty() { Leaf::Return(default) } else { Leaf::Tests(rules, default) }
    }
}

fn check_notify(syscall: &LinuxSyscall, listens: bool) -> Result<()> {
    if !listens {
        return Err(Error::invalid(DOING, "SCMP_ACT_NOTIFY needs listenerPath"));
    }
    if syscall.names().iter().any(|name| name == "write") {
        // The runtime hands the listener over by a write of its own.
        return Err(Error::invalid(DOING, "SCMP_ACT_NOTIFY cannot be used for the write system call"));
    }
    Ok(())
}

/// The conditions of a rule: one list whose members must all hold or, where an argument occurs twice, one list each.
fn alternatives(syscall: &LinuxSyscall) -> Result<Vec<Vec<Test>>> {
    let args = syscall.args().as_deref().unwrap_or_default();
    let mut seen = [false; 6];
    let mut twice = false;
    let mut tests = Vec::with_capacity(args.len());
    for arg in args {
        let Some(seen) = seen.get_mut(arg.index()) else {
            let cause = format!("argument index {} of {:?}: a system call has six", arg.index(), syscall.names());
            return Err(Error::invalid(DOING, cause));
        };
        twice |= std::mem::replace(seen, true);
        tests.push(test(arg));
    }
    Ok(if twice { tests.into_iter().map(|test| vec![test]).collect() } else { vec![tests] })
}

fn test(arg: &LinuxSeccompArg) -> Test {
    let second = arg.value_two().unwrap_or(0);
    Test { index: arg.index() as u32, op: arg.op(), value: arg.value(), second }
}

/// Appends a range; one that starts where the last does replaces it, one that answers the same continues it.
fn add_range<'a>(ranges: &mut Ranges<'a>, start: u32, leaf: Leaf<'a>) {
    if ranges.last().is_some_and(|last| last.0 == start) {
        ranges.pop();
    }
    if let (Some((_, Leaf::Return(before))), Leaf::Return(now)) = (ranges.last(), &leaf) {
        if before == now {
            return;
        }
    }
    ranges.push((start, leaf));
}

/// Writes the search over `ranges`, which start at 0.
fn section(writer: &mut Writer, ranges: &[(u32, Leaf<'_>)], narrow: bool) -> Label {
    if let [(_, Leaf::Return(action))] = ranges {
        return writer.ret(*action);
    }
    search(writer, ranges, narrow);
    // The search was written last, so the loaded number goes straight into it.
    writer.load(0)
}

fn search(writer: &mut Writer, ranges: &[(u32, Leaf<'_>)], narrow: bool) -> Label {
    match ranges {
        [(_, Leaf::Return(action))] => writer.ret(*action),
        [(_, Leaf::Tests(rules, otherwise))] => {
            let mut fails = writer.ret(*otherwise);
            for rule in rules.iter().rev() {
                let mut holds = writer.ret(rule.action);
                for test in rule.tests.iter().rev() {
                    holds = writer.test(test, narrow, holds, fails);
                }
                fails = holds;
            }
            fails
        }
        ranges => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let pivot = right[0].0;
            let right = search(writer, right, narrow);
            let left = search(writer, left, narrow);
            writer.jump(JGE, pivot, right, left)
        }
    }
}

#[cfg(test)]
mod tests;
