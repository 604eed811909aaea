//! What a user can ask of `run`, and the meaning of each value. Pure.

use std::fmt;
use std::path::PathBuf;

use hull_runtime::caps;

use crate::error::{Error, Result};
use crate::profile;

/// Where a container's network is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// A namespace of its own with nothing but loopback.
    #[default]
    None,
    /// The host's.
    Host,
}

impl Network {
    /// `none` or `host`.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            other => Err(Error::usage_hint(
                format!("--network {other} is not supported yet"),
                "--network none (the default) or --network host",
            )),
        }
    }
}

/// A bind mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The host's path.
    pub source: PathBuf,
    /// Where it appears.
    pub target: PathBuf,
    /// Without write access, for the mounts below it as well.
    pub read_only: bool,
}

impl Bind {
    /// `SOURCE:TARGET[:ro|rw]` with an absolute source, as `--volume` takes it.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| Err(Error::usage(format!("--volume {text:?}: {why}")));
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, read_only) = match parts.as_slice() {
            [source, target] | [source, target, "rw"] => (source, target, false),
            [source, target, "ro"] => (source, target, true),
            [_] => return wrong("an anonymous volume is not supported yet; write SOURCE:TARGET"),
            [_, _, mode] => return wrong(&format!("the mode {mode:?} is not supported; ro and rw are")),
            _ => return wrong("it is SOURCE:TARGET[:ro]"),
        };
        if !source.starts_with('/') {
            return wrong("a named volume is not supported yet; the source is an absolute path");
        }
        if !target.starts_with('/') || *target == "/" {
            return wrong("the target is an absolute path other than /");
        }
        Ok(Self { source: source.into(), target: target.into(), read_only })
    }
}

/// A scratch file system in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where it appears.
    pub target: PathBuf,
    /// Its options, Docker's defaults among them.
    pub options: Vec<String>,
}

impl Tmpfs {
    /// `TARGET[:OPTIONS]`.
    pub fn parse(text: &str) -> Result<Self> {
        let (target, given) = text.split_once(':').unwrap_or((text, ""));
        if !target.starts_with('/') || target == "/" {
            return Err(Error::usage(format!("--tmpfs {text:?}: the target is an absolute path other than /")));
        }
        let mut options: Vec<String> = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
        for option in given.split(',').filter(|option| !option.is_empty()) {
            let known = matches!(option, "rw" | "ro" | "suid" | "nosuid" | "dev" | "nodev" | "exec" | "noexec")
                || ["size=", "mode=", "uid=", "gid=", "nr_inodes=", "nr_blocks="]
                    .iter()
                    .any(|key| option.starts_with(key));
            if !known {
                return Err(Error::usage(format!("--tmpfs {text:?}: the option {option:?} is not known")));
            }
            options.push(option.to_owned());
        }
        Ok(Self { target: target.into(), options })
    }
}

/// What `--mount` can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyMount {
    /// `type=bind`
    Bind(Bind),
    /// `type=tmpfs`
    Tmpfs(Tmpfs),
}

/// `type=bind,source=DIR,target=DIR[,readonly]` or `type=tmpfs,target=DIR[,tmpfs-size=…,tmpfs-mode=…]`, with Docker's
/// other spellings of the keys.
///
/// # Errors
/// An unknown key, one that is missing, a type other than these two.
pub fn parse_mount(text: &str) -> Result<AnyMount> {
    let wrong = |why: String| Error::usage(format!("--mount {text:?}: {why}"));
    let (mut kind, mut source, mut target, mut read_only) = ("volume", None, None, false);
    let mut extra = Vec::new();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        match (key, value) {
            ("type", Some(value)) => kind = value,
            ("source" | "src", Some(value)) => source = Some(value),
            ("target" | "destination" | "dst", Some(value)) => target = Some(value),
            ("readonly" | "ro", None | Some("true" | "1")) => read_only = true,
            ("readonly" | "ro", Some("false" | "0")) => read_only = false,
            ("tmpfs-size", Some(value)) => extra.push(format!("size={}", bytes("tmpfs-size", value)?)),
            ("tmpfs-mode", Some(value)) if value.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) => {
                extra.push(format!("mode={value}"));
            }
            _ => return Err(wrong(format!("{field:?} is not supported"))),
        }
    }
    let target = target.ok_or_else(|| wrong("target is missing".to_owned()))?;
    if !target.starts_with('/') || target == "/" {
        return Err(wrong("the target is an absolute path other than /".to_owned()));
    }
    match (kind, source) {
        ("bind", Some(source)) if source.starts_with('/') && extra.is_empty() => {
            Ok(AnyMount::Bind(Bind { source: source.into(), target: target.into(), read_only }))
        }
        ("bind", Some(_)) if !extra.is_empty() => Err(wrong("the tmpfs keys are for type=tmpfs".to_owned())),
        ("bind", _) => Err(wrong("source is an absolute path".to_owned())),
        ("tmpfs", None) => {
            // Not by the other flag's text: a colon is part of the path here.
            let options = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
            let mut tmpfs = Tmpfs { target: target.into(), options };
            tmpfs.options.extend(read_only.then(|| "ro".to_owned()));
            tmpfs.options.extend(extra);
            Ok(AnyMount::Tmpfs(tmpfs))
        }
        ("tmpfs", Some(_)) => Err(wrong("a tmpfs has no source".to_owned())),
        (other, _) => Err(wrong(format!("type={other} is not supported yet; bind and tmpfs are"))),
    }
}

/// Two mounts at one place would hide one another.
///
/// # Errors
/// There are two, in Docker's words.
pub fn distinct_targets(options: &RunOptions) -> Result<()> {
    let targets =
        options.binds.iter().map(|bind| &bind.target).chain(options.tmpfs.iter().map(|tmpfs| &tmpfs.target));
    let mut seen = std::collections::BTreeSet::new();
    for target in targets {
        // Components, so that /a and /a/ are one place.
        if !seen.insert(target.components().collect::<PathBuf>()) {
            return Err(Error::usage(format!("duplicate mount point: {}", target.display())));
        }
    }
    Ok(())
}

/// A resource limit of the process, `NAME=SOFT[:HARD]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// `RLIMIT_NOFILE` and so on.
    pub name: String,
    /// In force; `u64::MAX` is unlimited.
    pub soft: u64,
    /// The most that can be set.
    pub hard: u64,
}

impl Ulimit {
    /// Docker's form, with its names; -1 is unlimited.
    pub fn parse(text: &str) -> Result<Self> {
        const NAMES: [&str; 15] = [
            "core",
            "cpu",
            "data",
            "fsize",
            "locks",
            "memlock",
            "msgqueue",
            "nice",
            "nofile",
            "nproc",
            "rss",
            "rtprio",
            "rttime",
            "sigpending",
            "stack",
        ];
        let wrong = |why: &str| Error::usage(format!("--ulimit {text:?}: {why}"));
        let (name, values) = text.split_once('=').ok_or_else(|| wrong("it is NAME=SOFT[:HARD]"))?;
        if !NAMES.contains(&name) {
            return Err(wrong(&format!("{name:?} is none of {}", NAMES.join(", "))));
        }
        let number = |text: &str| match text {
            "-1" | "unlimited" => Ok(u64::MAX),
            text => text.parse().map_err(|_| wrong(&format!("{text:?} is not a number"))),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (number(soft)?, number(hard)?);
        if soft > hard {
            return Err(wrong("the soft limit is above the hard one"));
        }
        Ok(Self { name: format!("RLIMIT_{}", name.to_uppercase()), soft, hard })
    }
}

/// The system call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Docker's default rules.
    #[default]
    Default,
    /// None.
    Unconfined,
}

/// Where a container's root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder of the host; what is written in the container is written there.
    Folder(PathBuf),
    /// An image of the store, by name or id; what is written goes with the container.
    Image(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Folder(path) => write!(f, "{}", path.display()),
            Source::Image(name) => f.write_str(name),
        }
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::Folder(PathBuf::new())
    }
}

/// Everything `run` takes.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The root file system.
    pub source: Source,
    /// `--name`; without it one is invented.
    pub name: Option<String>,
    /// `--rm`: nothing of it lasts after its end.
    pub remove: bool,
    /// `--entrypoint`: the program that gets `command` as its arguments; empty takes the image's away.
    pub entrypoint: Option<String>,
    /// The command; if empty, the image's.
    pub command: Vec<String>,
    /// `--interactive`.
    pub interactive: bool,
    /// `--tty`.
    pub tty: bool,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--workdir`.
    pub workdir: Option<PathBuf>,
    /// `--env`, already with values.
    pub env: Vec<String>,
    /// `--user`.
    pub user: Option<String>,
    /// `--volume` and `--mount type=bind`.
    pub binds: Vec<Bind>,
    /// `--tmpfs`.
    pub tmpfs: Vec<Tmpfs>,
    /// `--read-only`.
    pub read_only: bool,
    /// `--pids-limit`; -1 or 0 is unlimited.
    pub pids_limit: Option<i64>,
    /// `--memory`, bytes.
    pub memory: Option<i64>,
    /// `--memory-swap`, bytes, -1 unlimited.
    pub memory_swap: Option<i64>,
    /// `--cpus`, in microseconds of each 100 000.
    pub cpu_quota: Option<i64>,
    /// `--cpuset-cpus`.
    pub cpuset: Option<String>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// The capabilities that `--cap-add` and `--cap-drop` leave.
    pub capabilities: Option<u64>,
    /// `--security-opt seccomp=`.
    pub seccomp: Seccomp,
    /// `--security-opt no-new-privileges`.
    pub no_new_privileges: bool,
    /// `--network`.
    pub network: Network,
}

/// The default limit of processes.
pub const PIDS_LIMIT: i64 = 2048;

/// `512m`, `1g`, `4096`: bytes with Docker's suffixes (powers of 1024).
pub fn bytes(flag: &str, text: &str) -> Result<i64> {
    let wrong = |why: &str| Error::usage(format!("{flag} {text:?}: {why}"));
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match lower.chars().last() {
        Some('k') => (&lower[..lower.len() - 1], 10),
        Some('m') => (&lower[..lower.len() - 1], 20),
        Some('g') => (&lower[..lower.len() - 1], 30),
        Some('t') => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    let number: u64 = digits.trim().parse().map_err(|_| wrong("it is a size such as 512m or 1g"))?;
    let value = number.checked_mul(1 << shift).and_then(|value| i64::try_from(value).ok());
    value.ok_or_else(|| wrong("it is too large"))
}

/// `--memory`: Docker's minimum is 6 MiB, below which a process cannot even be started.
pub fn memory(text: &str) -> Result<i64> {
    match bytes("--memory", text)? {
        0 => Err(Error::usage_hint("--memory 0 means nothing", "leave it out for no limit")),
        value if value < 6 << 20 => Err(Error::usage(format!("--memory {text}: the minimum is 6m"))),
        value => Ok(value),
    }
}

/// `--cpus` as a quota of 100 000 microseconds.
pub fn cpus(text: &str) -> Result<i64> {
    let number: f64 = text.parse().map_err(|_| Error::usage(format!("--cpus {text:?} is not a number")))?;
    let most = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
    if !(0.01..=most).contains(&number) {
        return Err(Error::usage(format!("--cpus {text}: this machine has from 0.01 to {most:.2}")));
    }
    Ok((number * 100_000.0).round() as i64)
}

/// `--cap-add` and `--cap-drop` applied to the default set, drops last but for what is added by name.
pub fn capabilities(add: &[String], drop: &[String]) -> Result<u64> {
    let mask = |flag: &str, list: &[String]| -> Result<u64> {
        let mut mask = 0;
        for name in list {
            mask |= match caps::number(name) {
                _ if name.eq_ignore_ascii_case("all") => caps::ALL,
                Some(number) => 1 << number,
                None => return Err(Error::usage(format!("{flag} {name:?}: no such capability"))),
            };
        }
        Ok(mask)
    };
    let default = profile::CAPABILITIES.iter().filter_map(|name| caps::number(name)).fold(0, |all, n| all | 1 << n);
    let (added, dropped) = (mask("--cap-add", add)?, mask("--cap-drop", drop)?);
    Ok(match (added == caps::ALL, dropped == caps::ALL) {
        (_, true) => added,
        (true, false) => caps::ALL & !dropped,
        (false, false) => (default | added) & !dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_dockers_suffixes() {
        for (text, value) in [("1", 1), ("4k", 4096), ("512M", 512 << 20), ("1gb", 1 << 30), ("2GiB", 2 << 30)] {
            assert_eq!(bytes("-m", text).unwrap(), value, "{text}");
        }
        for text in ["", "m", "-5m", "1x", "99999999999999999999g", "9999999t9"] {
            assert!(bytes("-m", text).is_err(), "{text}");
        }
        assert!(memory("5m").unwrap_err().to_string().contains("minimum is 6m"));
    }

    #[test]
    fn volumes_are_absolute_and_their_modes_known() {
        let bind = Bind::parse("/a:/b:ro").unwrap();
        assert_eq!((bind.target.to_str(), bind.read_only), (Some("/b"), true));
        for text in ["data:/b", "/a", "/a:b", "/a:/", "/a:/b:z", "/a:/b:ro:x"] {
            assert!(Bind::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts_have_dockers_keys_and_one_place_each() {
        let bind = parse_mount("type=bind,src=/a,dst=/b,readonly").unwrap();
        assert_eq!(bind, AnyMount::Bind(Bind { source: "/a".into(), target: "/b".into(), read_only: true }));
        let AnyMount::Tmpfs(tmpfs) = parse_mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap()
        else {
            panic!("a tmpfs");
        };
        assert_eq!(tmpfs.options[3..], ["size=1048576", "mode=1770"]);
        for text in [
            "type=bind,target=/b",
            "type=bind,source=a,target=/b",
            "type=volume,target=/b",
            "target=/b",
            "type=tmpfs,source=/a,target=/b",
            "type=bind,source=/a,target=/b,bind-propagation=shared",
            "type=tmpfs,target=/",
            "type=bind,source=/a,target=/b,tmpfs-size=1",
            "",
        ] {
            assert!(parse_mount(text).is_err(), "{text}");
        }
        let mut options = RunOptions { tmpfs: vec![tmpfs], ..RunOptions::default() };
        assert!(distinct_targets(&options).is_ok());
        options.binds.push(Bind { source: "/a".into(), target: "/t/".into(), read_only: false });
        assert_eq!(distinct_targets(&options).unwrap_err().to_string(), "duplicate mount point: /t");
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let default = capabilities(&[], &[]).unwrap();
        assert_eq!(default.count_ones(), 11);
        assert_eq!(capabilities(&names(&["CHOWN"]), &names(&["ALL"])).unwrap(), 1);
        assert_eq!(capabilities(&names(&["all"]), &names(&["cap_chown"])).unwrap(), caps::ALL & !1);
        assert!(capabilities(&names(&["CAP_NONE"]), &[]).is_err());
    }

    #[test]
    fn ulimits_and_networks_are_closed_lists() {
        let limit = Ulimit::parse("nofile=10:20").unwrap();
        assert_eq!((limit.name.as_str(), limit.soft, limit.hard), ("RLIMIT_NOFILE", 10, 20));
        assert!(Ulimit::parse("nofile=20:10").is_err());
        assert!(Ulimit::parse("files=1").is_err());
        assert!(Network::parse("bridge").unwrap_err().to_string().contains("bridge is not supported"));
    }
}
