//! Seccomp: an OCI profile becomes one classic BPF program. Pure.
//!
//! The program looks at the architecture, then finds the system call by binary search over ranges of equal action,
//! so that a call costs about eight comparisons however long the profile is. Calls that are newer than everything the
//! profile names answer `ENOSYS`, so that a C library falls back instead of failing.
//!
//! Sources: `seccomp(2)`, runtime-spec "Seccomp".

mod bpf;
mod table;

use std::collections::BTreeMap;

use hull_sys::seccomp::SockFilter;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSyscall,
};

use crate::error::{Error, Result};
use bpf::Code;

/// A program and the flags to install it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The instructions.
    pub filter: Vec<SockFilter>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
}

/// The kernel's limit for one program (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;

/// What happens to one system call: conditional actions in order, then one for the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rules {
    conditional: Vec<(Vec<LinuxSeccompArg>, u32)>,
    otherwise: Option<u32>,
}

/// Compiles a profile.
///
/// Rules of one system call with conditions are tried in their order; of several without conditions the strictest
/// counts. Names that the tables do not have are passed over, as libseccomp does: a profile speaks of many kernels.
///
/// # Errors
/// An architecture without a table, a listener (not supported yet), a bad argument index, a program that is too long.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program> {
    let doing = "compile the seccomp profile";
    if profile.listener_path().is_some() {
        return Err(Error::invalid(doing, "listenerPath is not supported yet"));
    }
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let arches = Arches::of(profile)?;
    let syscalls = profile.syscalls().as_deref().unwrap_or_default();
    let mut code = Code::default();
    let mut sections = Vec::new();
    if arches.x86_64 {
        sections.push((table::AUDIT_X86_64, section(syscalls, default, table::x86_64, arches.x32)?));
    }
    if arches.x86 {
        sections.push((table::AUDIT_I386, section(syscalls, default, table::x86, true)?));
    }
    code.load(4);
    for (audit, section) in &sections {
        code.skip_unless_equal(*audit, section.len());
        code.append(section);
    }
    code.ret(RET_KILL_PROCESS);
    if code.len() > LONGEST {
        let cause = format!("{} instructions, and the kernel takes {LONGEST}", code.len());
        return Err(Error::invalid(doing, cause));
    }
    Ok(Program { filter: code.finish(), flags: flags(profile)? })
}

#[derive(Default)]
struct Arches {
    x86_64: bool,
    x86: bool,
    x32: bool,
}

impl Arches {
    fn of(profile: &LinuxSeccomp) -> Result<Self> {
        // The native architecture is always there, as with libseccomp.
        let mut arches = Self { x86_64: true, ..Self::default() };
        for arch in profile.architectures().iter().flatten() {
            match arch {
                Arch::ScmpArchNative | Arch::ScmpArchX86_64 => {}
                Arch::ScmpArchX86 => arches.x86 = true,
                Arch::ScmpArchX32 => arches.x32 = true,
                other => {
                    let cause = format!("architecture {other} is not supported on this machine");
                    return Err(Error::invalid("compile the seccomp profile", cause));
                }
            }
        }
        Ok(arches)
    }
}

fn flags(profile: &LinuxSeccomp) -> Result<u32> {
    use LinuxSeccompFilterFlag as Flag;
    let mut flags = 0;
    for flag in profile.flags().iter().flatten() {
        flags |= match flag {
            Flag::SeccompFilterFlagTsync => 1,
            Flag::SeccompFilterFlagLog => 2,
            Flag::SeccompFilterFlagSpecAllow => 4,
            Flag::SeccompFilterFlagWaitKillableRecv => {
                let cause = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a listener, which is not supported yet";
                return Err(Error::invalid("compile the seccomp profile", cause));
            }
        };
    }
    Ok(flags)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32> {
    use LinuxSeccompAction as Action;
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => 0,
        Action::ScmpActKillProcess => RET_KILL_PROCESS,
        Action::ScmpActTrap => 0x0003_0000,
        Action::ScmpActErrno => RET_ERRNO | (errno.unwrap_or(EPERM) & 0xffff),
        Action::ScmpActTrace => 0x7ff0_0000 | (errno.unwrap_or(EPERM) & 0xffff),
        Action::ScmpActLog => 0x7ffc_0000,
        Action::ScmpActAllow => 0x7fff_0000,
        Action::ScmpActNotify => {
            let cause = "SCMP_ACT_NOTIFY needs a listener, which is not supported yet";
            return Err(Error::invalid("compile the seccomp profile", cause));
        }
    })
}

/// The part of the program for one architecture.
fn section(
    syscalls: &[LinuxSyscall],
    default: u32,
    number_of: impl Fn(&str) -> Option<u32>,
    fold_x32: bool,
) -> Result<Code> {
    let mut rules: BTreeMap<u32, Rules> = BTreeMap::new();
    let mut newest = 0;
    for syscall in syscalls {
        let what = action(syscall.action(), syscall.errno_ret())?;
        let args = syscall.args().as_deref().unwrap_or_default();
        if let Some(arg) = args.iter().find(|arg| arg.index() > 5) {
            let cause = format!("argument index {} of {:?}: a system call has six", arg.index(), syscall.names());
            return Err(Error::invalid("compile the seccomp profile", cause));
        }
        for number in syscall.names().iter().filter_map(|name| number_of(name)) {
            newest = newest.max(number);
            let rules = rules.entry(number).or_default();
            if args.is_empty() {
                rules.otherwise = Some(rules.otherwise.map_or(what, |had| strictest(had, what)));
            } else {
                rules.conditional.push((args.to_vec(), what));
            }
        }
    }
    let unknown =
        if matches!(default & 0xffff_0000, 0x7fff_0000 | 0x7ffc_0000) { default } else { RET_ERRNO | ENOSYS };
    let mut ranges: Vec<(u32, Code)> = Vec::new();
    let mut push = |start: u32, leaf: Code| {
        if ranges.last().is_none_or(|(_, last)| *last != leaf) {
            ranges.push((start, leaf));
        }
    };
    let mut next = 0;
    for (number, rules) in &rules {
        if next < *number {
            push(next, Code::returning(default));
        }
        push(*number, leaf(rules, default));
        next = number + 1;
    }
    push(newest + 1, Code::returning(unknown));
    if ranges[0].0 != 0 {
        ranges.insert(0, (0, Code::returning(default)));
    }
    let mut code = Code::default();
    code.load(0);
    if fold_x32 {
        // An x32 number is the native one with bit 30 set; the kernel knows no other calls there.
        code.and(!table::X32_BIT);
    } else {
        code.return_if_at_least(table::X32_BIT, RET_KILL_PROCESS);
    }
    code.append(&search(&ranges));
    Ok(code)
}

/// The one of two actions that the kernel would prefer (`seccomp(2)`: as a signed number, the lower wins).
fn strictest(one: u32, other: u32) -> u32 {
    let order = |action: u32| (action & 0xffff_0000) as i32;
    if order(one) <= order(other) { one } else { other }
}

fn leaf(rules: &Rules, default: u32) -> Code {
    let mut code = Code::default();
    for (args, action) in &rules.conditional {
        code.append(&bpf::conditional(args, *action));
    }
    code.ret(rules.otherwise.unwrap_or(default));
    code
}

fn search(ranges: &[(u32, Code)]) -> Code {
    match ranges {
        [] => Code::default(),
        [(_, only)] => only.clone(),
        ranges => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let (left, pivot, right) = (search(left), right[0].0, search(right));
            let mut code = Code::default();
            code.skip_if_at_least(pivot, left.len());
            code.append(&left);
            code.append(&right);
            code
        }
    }
}

#[cfg(test)]
mod tests;
