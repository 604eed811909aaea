//! What the facts should be, given as flags, and the comparison. Pure.
//!
//! The flags have the names that `hull run` has for the same things. What is not asked for is not checked.

use std::collections::BTreeSet;
use std::path::PathBuf;

use hull_engine::options;
use hull_runtime::caps;
use serde::Serialize;

use super::facts::Facts;
use super::limits::Limit;

/// Names of the lines, in `verify`'s output, in its JSON and in the demo's table.
pub mod line {
    pub const HOSTNAME: &str = "host name";
    pub const PID: &str = "process";
    pub const PROC: &str = "/proc";
    pub const USER: &str = "user";
    pub const UID_MAP: &str = "uid map";
    pub const GID_MAP: &str = "gid map";
    pub const ROOT: &str = "root";
    pub const MOUNTS: &str = "mounts";
    pub const HIDDEN: &str = "hidden paths";
    pub const FROZEN: &str = "read-only paths";
    pub const INTERFACES: &str = "interfaces";
    pub const CAPABILITIES: &str = "capabilities";
    pub const BOUNDING: &str = "bounding set";
    pub const SECCOMP: &str = "call filter";
    pub const NO_NEW_PRIVS: &str = "no_new_privs";
    pub const PIDS: &str = "pids limit";
    pub const MEMORY: &str = "memory limit";

    /// The line of a namespace, by the kernel's name for its kind.
    pub fn namespace(kind: &str) -> String {
        format!("{kind} namespace")
    }

    /// The line of a scratch file system.
    pub fn tmpfs(path: &std::path::Path) -> String {
        format!("tmpfs {}", path.display())
    }
}

// The flags of `hull verify` that say what should hold.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Expect {
    /// The host name is NAME
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// This process has the number N
    #[arg(long, value_name = "N")]
    pub pid: Option<u32>,
    /// /proc belongs to this process's PID namespace
    #[arg(long)]
    pub own_proc: bool,
    /// The namespace of KIND is another one than that with this inode number, the host's
    #[arg(long, value_name = "KIND:INODE", value_parser = namespace)]
    pub own_ns: Vec<(String, u64)>,
    /// The namespace of KIND is the one with this inode number
    #[arg(long, value_name = "KIND:INODE", value_parser = namespace)]
    pub shared_ns: Vec<(String, u64)>,
    /// User and group in force
    #[arg(long, value_name = "UID:GID", value_parser = user)]
    pub user: Option<(u32, u32)>,
    /// The uid map has this line, and those of the other flags of this name, and no others
    #[arg(long, value_name = "INSIDE:OUTSIDE:COUNT", value_parser = id_map)]
    pub uid_map: Vec<[u32; 3]>,
    /// The gid map has this line, and those of the other flags of this name, and no others
    #[arg(long, value_name = "INSIDE:OUTSIDE:COUNT", value_parser = id_map)]
    pub gid_map: Vec<[u32; 3]>,
    /// The root file system cannot be written to
    #[arg(long)]
    pub read_only: bool,
    /// A scratch file system is mounted at PATH
    #[arg(long, value_name = "PATH")]
    pub tmpfs: Vec<PathBuf>,
    /// Nothing can be read at PATH: it is covered, or there is nothing
    #[arg(long, value_name = "PATH")]
    pub masked: Vec<PathBuf>,
    /// PATH cannot be written to, or there is nothing
    #[arg(long, value_name = "PATH")]
    pub read_only_path: Vec<PathBuf>,
    /// The network interfaces are these and no others
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub interface: Vec<String>,
    /// The capabilities in force are these: names, a mask such as 0x800405fb, all or none
    #[arg(long, value_name = "LIST", value_parser = mask)]
    pub capabilities: Option<u64>,
    /// The capabilities that can ever be gained are these
    #[arg(long, value_name = "LIST", value_parser = mask)]
    pub bounding: Option<u64>,
    /// How system calls are filtered: none, strict or filter
    #[arg(long, value_name = "MODE", value_parser = seccomp)]
    pub seccomp: Option<u32>,
    /// No program that is executed can gain privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// Most processes, as the control group's file has it; -1 for no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = pids)]
    pub pids_limit: Option<Most>,
    /// Most memory, as the control group's file has it; -1 for no limit
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = memory)]
    pub memory: Option<Most>,
}

/// The value of a limit: none is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most(pub Option<u64>);

/// One expectation and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The line it belongs to.
    pub what: String,
    pub expected: String,
    pub found: String,
    pub holds: bool,
}

fn check(what: impl Into<String>, expected: impl ToString, found: impl ToString, holds: bool) -> Check {
    Check { what: what.into(), expected: expected.to_string(), found: found.to_string(), holds }
}

/// Both as text, equal or not.
fn same(what: impl Into<String>, expected: impl ToString, found: impl ToString) -> Check {
    let (expected, found) = (expected.to_string(), found.to_string());
    let holds = expected == found;
    check(what, expected, found, holds)
}

impl Expect {
    /// Paths that the facts must have looked at.
    pub fn paths(&self) -> Vec<PathBuf> {
        [&self.tmpfs, &self.masked, &self.read_only_path].into_iter().flatten().cloned().collect()
    }

    /// A check for everything that is expected.
    pub fn check(&self, facts: &Facts) -> Vec<Check> {
        let mut all = self.identity(facts);
        all.extend(self.namespaces(facts));
        all.extend(self.files(facts));
        all.extend(self.rights(facts));
        all.extend(self.limits(facts));
        all
    }

    fn identity(&self, facts: &Facts) -> Vec<Check> {
        let mut all = Vec::new();
        all.extend(self.hostname.as_ref().map(|name| same(line::HOSTNAME, name, &facts.hostname)));
        all.extend(self.pid.map(|pid| same(line::PID, pid, facts.pid)));
        if self.own_proc {
            let expected = format!("one PID namespace, where this process is {}", facts.pid);
            let chain: Vec<String> = facts.pid_chain.iter().map(u32::to_string).collect();
            let found = format!("this process is {}, from the outermost namespace in", chain.join(", "));
            let own = facts.pid_chain == [facts.pid] && facts.pid_in_proc == facts.pid;
            all.push(check(line::PROC, expected, found, own));
        }
        if let Some((uid, gid)) = self.user {
            all.push(same(line::USER, format!("{uid}:{gid}"), format!("{}:{}", facts.uid, facts.gid)));
        }
        let maps = [(line::UID_MAP, &self.uid_map, &facts.uid_map), (line::GID_MAP, &self.gid_map, &facts.gid_map)];
        let asked = maps.into_iter().filter(|(_, expected, _)| !expected.is_empty());
        all.extend(asked.map(|(what, expected, found)| same(what, map_text(expected), map_text(found))));
        all
    }

    fn namespaces(&self, facts: &Facts) -> Vec<Check> {
        let found = |kind: &String| facts.namespaces.get(kind).copied();
        let text =
            |inode: Option<u64>| inode.map_or_else(|| "none of this kind".to_owned(), |inode| inode.to_string());
        let own = self.own_ns.iter().map(|(kind, inode)| {
            let expected = format!("another than {inode}");
            let is = found(kind);
            check(line::namespace(kind), expected, text(is), is.is_some_and(|is| is != *inode))
        });
        let shared = self.shared_ns.iter().map(|(kind, inode)| same(line::namespace(kind), inode, text(found(kind))));
        own.chain(shared).collect()
    }

    fn files(&self, facts: &Facts) -> Vec<Check> {
        let mut all = Vec::new();
        if self.read_only {
            let read_only = facts.root().is_some_and(|root| root.read_only());
            all.push(same(line::ROOT, "read-only", if read_only { "read-only" } else { "writable" }));
        }
        for path in &self.tmpfs {
            let kind = facts.places.get(path).and_then(|place| place.mounted.as_deref());
            all.push(same(line::tmpfs(path), "tmpfs", kind.unwrap_or("nothing is mounted there")));
        }
        // A path that was not looked at is not known to be hidden.
        for path in &self.masked {
            let ok = facts.places.get(path).is_some_and(|place| place.hidden || !place.exists);
            let (shown, state) = (path.display(), if ok { "hidden" } else { "in view" });
            all.push(same(line::HIDDEN, format!("{shown} hidden"), format!("{shown} {state}")));
        }
        for path in &self.read_only_path {
            let ok = facts.places.get(path).is_some_and(|place| place.read_only || !place.exists);
            let (shown, state) = (path.display(), if ok { "read-only" } else { "writable" });
            all.push(same(line::FROZEN, format!("{shown} read-only"), format!("{shown} {state}")));
        }
        if !self.interface.is_empty() {
            let expected: BTreeSet<&String> = self.interface.iter().collect();
            let found: BTreeSet<&String> = facts.interfaces.iter().collect();
            all.push(check(line::INTERFACES, words(&expected), words(&found), expected == found));
        }
        all
    }

    fn rights(&self, facts: &Facts) -> Vec<Check> {
        let mut all = Vec::new();
        let sets = [
            (line::CAPABILITIES, self.capabilities, facts.capabilities.effective),
            (line::BOUNDING, self.bounding, facts.capabilities.bounding),
        ];
        for (what, expected, found) in sets {
            all.extend(expected.map(|expected| check(what, names(expected), names(found), expected == found)));
        }
        all.extend(self.seccomp.map(|mode| same(line::SECCOMP, seccomp_text(mode), seccomp_text(facts.seccomp))));
        if self.no_new_privs {
            all.push(same(line::NO_NEW_PRIVS, "yes", if facts.no_new_privs { "yes" } else { "no" }));
        }
        all
    }

    fn limits(&self, facts: &Facts) -> Vec<Check> {
        let wanted = [
            (line::PIDS, self.pids_limit, &facts.limits.pids, 1),
            (line::MEMORY, self.memory, &facts.limits.memory, LARGEST_PAGE),
        ];
        let one = |(what, expected, found, grain): (_, Option<Most>, &Limit, _)| {
            expected.map(|Most(expected)| {
                // A limit that no file shows is not known to be absent either.
                let holds = found.file.is_some() && is_limit(expected, found.value, grain);
                check(what, limit_text(expected), found_text(found), holds)
            })
        };
        wanted.into_iter().filter_map(one).collect()
    }
}

/// The kernel keeps a limit of memory in whole pages, rounded down.
const LARGEST_PAGE: u64 = 64 << 10;

fn is_limit(expected: Option<u64>, found: Option<u64>, grain: u64) -> bool {
    match (expected, found) {
        (Some(expected), Some(found)) => found <= expected && expected - found < grain,
        (expected, found) => expected == found,
    }
}

fn limit_text(value: Option<u64>) -> String {
    value.map_or_else(|| "no limit".to_owned(), |value| value.to_string())
}

fn found_text(limit: &Limit) -> String {
    if limit.file.is_some() { limit_text(limit.value) } else { "no file in view".to_owned() }
}

/// A mask as names.
pub fn names(mask: u64) -> String {
    caps::text(mask).replace(',', " ")
}

fn words(set: &BTreeSet<&String>) -> String {
    set.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(" ")
}

/// A map as /proc has it.
pub fn map_text(map: &[[u32; 3]]) -> String {
    let rows: Vec<String> =
        map.iter().map(|[inside, outside, count]| format!("{inside} {outside} {count}")).collect();
    if rows.is_empty() { "none".to_owned() } else { rows.join(", ") }
}

/// A mode of `seccomp(2)` by name.
pub fn seccomp_text(mode: u32) -> String {
    SECCOMP_MODES.get(mode as usize).map_or_else(|| mode.to_string(), |name| (*name).to_owned())
}

const SECCOMP_MODES: [&str; 3] = ["none", "strict", "filter"];

/// `net:4026531840`, or as a link of /proc/self/ns reads: `net:[4026531840]`.
fn namespace(text: &str) -> Result<(String, u64), String> {
    let wrong = || format!("{text:?} is not KIND:INODE, as `readlink /proc/self/ns/net` prints it");
    let (kind, number) = text.split_once(':').ok_or_else(wrong)?;
    let number = number.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(number);
    let known = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    if !known.contains(&kind) {
        return Err(format!("{kind:?} is no kind of namespace; there are {}", known.join(", ")));
    }
    Ok((kind.to_owned(), number.parse().map_err(|_| wrong())?))
}

fn user(text: &str) -> Result<(u32, u32), String> {
    let wrong = |_| format!("{text:?} is not two numbers, UID:GID");
    let (uid, gid) = text.split_once(':').unwrap_or((text, ""));
    Ok((uid.parse().map_err(wrong)?, gid.parse().map_err(wrong)?))
}

fn id_map(text: &str) -> Result<[u32; 3], String> {
    let numbers: Option<Vec<u32>> = text.split(':').map(|word| word.parse().ok()).collect();
    let map = numbers.and_then(|numbers| numbers.try_into().ok());
    map.ok_or_else(|| format!("{text:?} is not three numbers, INSIDE:OUTSIDE:COUNT"))
}

fn mask(text: &str) -> Result<u64, String> {
    match text {
        "none" => return Ok(0),
        "all" => return Ok(caps::ALL),
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).map_err(|_| format!("{text:?} is not a hexadecimal mask"));
    }
    let number = |name: &str| caps::number(name).ok_or_else(|| format!("{name:?} is no capability"));
    text.split(',').try_fold(0, |all, name| Ok(all | 1 << number(name)?))
}

fn seccomp(text: &str) -> Result<u32, String> {
    let found = SECCOMP_MODES.iter().position(|mode| *mode == text);
    found.map(|mode| mode as u32).ok_or_else(|| format!("{text:?} is not a mode; none, strict and filter are"))
}

fn pids(text: &str) -> Result<Most, String> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(Most(None)),
        Ok(limit) if limit >= 0 => Ok(Most(Some(limit.unsigned_abs()))),
        _ => Err(format!("{text:?} is not a number of processes, or -1")),
    }
}

fn memory(text: &str) -> Result<Most, String> {
    if text == "-1" {
        return Ok(Most(None));
    }
    let bytes = options::bytes("--memory", text).map_err(|error| error.to_string())?;
    Ok(Most(Some(bytes.unsigned_abs())))
}
