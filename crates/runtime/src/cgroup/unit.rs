//! The unit of systemd's that a container's groups are, and what is to be said of it. Pure.
//!
//! Sources: runc's `docs/systemd.md` for names and annotations, systemd.resource-control(5) for properties, and
//! `org.freedesktop.systemd1(5)` for their types.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zvariant::Value;

use super::host::Version;
use super::limits::Write;
use super::text_form;
use crate::error::{Error, Result};

/// A transient unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name, `hull-ID.scope`.
    pub name: String,
    /// The slice that it is in.
    pub slice: String,
    /// Its control group below the root of each hierarchy.
    pub group: PathBuf,
    /// The user whose manager has it; `None` for the system's.
    pub user: Option<u32>,
}

/// A property of a unit.
pub type Property = (String, Value<'static>);

/// How an annotation begins that sets a property of the unit.
const ANNOTATION: &str = "org.systemd.property.";

impl Unit {
    /// The unit that `linux.cgroupsPath` means, `[SLICE]:[PREFIX]:NAME`, or that of the container `id` where there is none.
    /// `user` is whose manager is asked, unless it is the system's.
    ///
    /// # Errors
    /// Another form; a slice's name that systemd would not take.
    pub fn from_spec(path: Option<&Path>, id: &str, user: Option<u32>) -> Result<Self> {
        let default = format!(":hull:{id}");
        let text = path.map_or(default.into(), Path::to_string_lossy);
        let doing = || format!("use linux.cgroupsPath {text:?}");
        let parts: Vec<&str> = text.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            let cause = "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups";
            return Err(Error::invalid(doing(), cause));
        };
        let slice = match (slice, user) {
            ("", None) => "system.slice",
            ("", Some(_)) => "user.slice",
            (slice, _) => slice,
        };
        let name = if name.ends_with(".slice") { name.to_owned() } else { format!("{prefix}-{name}.scope") };
        let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if let Some(part) = [slice, &name].iter().find(|part| !part.chars().all(plain) || part.len() > 255) {
            return Err(Error::invalid(doing(), format!("{part:?} is no name of a unit")));
        }
        let within = expand(slice).ok_or_else(|| Error::invalid(doing(), format!("invalid slice name: {slice}")))?;
        let group = match name.ends_with(".slice") {
            true => expand(&name).ok_or_else(|| Error::invalid(doing(), format!("invalid slice name: {name}")))?,
            false => within.join(&name),
        };
        let manager = user.map_or(PathBuf::new(), |user| {
            PathBuf::from(format!("user.slice/user-{user}.slice/user@{user}.service"))
        });
        Ok(Self { name, slice: slice.to_owned(), group: manager.join(group), user })
    }

    /// What systemd is told when it starts the unit with process `pid` in it.
    pub(super) fn properties(&self, pid: i32) -> Vec<Property> {
        let property = |name: &str, value: Value<'static>| (name.to_owned(), value);
        let mut all = vec![property("Description", Value::from(format!("hull container {}", self.name)))];
        if self.name.ends_with(".slice") {
            all.push(property("Wants", Value::from(vec![self.slice.clone()])));
        } else {
            all.push(property("Slice", Value::from(self.slice.clone())));
            // What is below the unit's group is the container's.
            all.push(property("Delegate", Value::from(true)));
            all.push(property("PIDs", Value::from(vec![u32::try_from(pid).unwrap_or_default()])));
        }
        all.extend(["Memory", "CPU", "IO", "Tasks"].map(|kind| (format!("{kind}Accounting"), Value::from(true))));
        all.push(property("DefaultDependencies", Value::from(false)));
        all
    }
}

/// The properties that annotations set, `org.systemd.property.NAME`, sorted by their names.
///
/// # Errors
/// An annotation that says no property.
pub fn annotated(annotations: &HashMap<String, String>) -> Result<Vec<Property>> {
    let mut given: Vec<_> = annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION)).collect();
    given.sort();
    given.into_iter().map(|(key, text)| one(key, text)).collect()
}

/// `a-b.slice` is in `a.slice`: its folder is `a.slice/a-b.slice`. The root's, `-.slice`, is the root.
fn expand(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice").or_else(|| (slice == "-").then_some("-"))?;
    if name == "-" {
        return Some(PathBuf::new());
    }
    let mut path = PathBuf::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return None;
        }
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
        prefix.push('-');
    }
    Some(path)
}

/// A property from an annotation, whose text is a GVariant's. As for runc, `…Sec` is in seconds and becomes `…USec`.
fn one(key: &str, text: &str) -> Result<Property> {
    let refuse = |cause: String| Error::invalid(format!("use the annotation {key}"), cause);
    let name = key.strip_prefix(ANNOTATION).unwrap_or_default();
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(refuse(format!("{name:?} is no name of a property")));
    }
    let value = text_form::parse(text).map_err(|cause| refuse(format!("{text:?}: {cause}")))?;
    let seconds = name.strip_suffix("Sec").filter(|name| name.ends_with(|c: char| c.is_ascii_lowercase()));
    let Some(name) = seconds else { return Ok((name.to_owned(), value)) };
    let micro = match value {
        Value::U64(value) => value.checked_mul(1_000_000),
        Value::U32(value) => Some(u64::from(value) * 1_000_000),
        Value::I32(value) => u64::try_from(value).ok().map(|value| value * 1_000_000),
        Value::I64(value) => u64::try_from(value).ok().and_then(|value| value.checked_mul(1_000_000)),
        Value::F64(value) if value >= 0.0 => Some((value * 1e6) as u64),
        _ => None,
    };
    let micro = micro.ok_or_else(|| refuse(format!("{text:?} is no number of seconds")))?;
    Ok((format!("{name}USec"), Value::from(micro)))
}

/// The limits among `writes` that systemd has words for. It is told, so that it does not take them back; what is in force is
/// what is written afterwards, for it rounds.
pub fn limits(writes: &[Write], version: Version) -> Vec<Property> {
    let mut all = Vec::new();
    let said = |write: &'_ Write, file: &str| match &write.instead {
        _ if write.file == file => Some(write.value.trim().to_owned()),
        Some((name, value)) if *name == file => Some(value.clone()),
        _ => None,
    };
    let found = |file: &str| writes.iter().rev().find_map(|write| said(write, file));
    for (file, name) in [
        ("memory.max", "MemoryMax"),
        ("memory.high", "MemoryHigh"),
        ("memory.low", "MemoryLow"),
        ("memory.min", "MemoryMin"),
        ("memory.swap.max", "MemorySwapMax"),
        ("memory.limit_in_bytes", "MemoryLimit"),
        ("pids.max", "TasksMax"),
        ("cpu.weight", "CPUWeight"),
        ("cpu.shares", "CPUShares"),
        ("io.weight", "IOWeight"),
        ("blkio.weight", "BlockIOWeight"),
    ] {
        let number = found(file).and_then(|value| match &*value {
            "max" | "-1" => Some(u64::MAX),
            value => value.parse().ok(),
        });
        all.extend(number.map(|number| (name.to_owned(), Value::from(number))));
    }
    if found("cpu.idle").as_deref() == Some("1") && version == Version::V2 {
        // systemd's word for an idle group is a weight of 0.
        all.push(("CPUWeight".to_owned(), Value::from(0u64)));
    }
    let both = found("cpu.max");
    let (quota, period) = match both.as_deref().map(|both| both.split_once(' ').unwrap_or((both, ""))) {
        Some((quota, period)) => (Some(quota.to_owned()), Some(period.to_owned())),
        None => (found("cpu.cfs_quota_us"), found("cpu.cfs_period_us")),
    };
    all.extend(bandwidth(quota.as_deref(), period.as_deref()));
    for (file, name) in [("cpuset.cpus", "AllowedCPUs"), ("cpuset.mems", "AllowedMemoryNodes")] {
        if let Some(bits) = found(file).and_then(|list| bits(&list)) {
            all.push((name.to_owned(), Value::from(bits)));
        }
    }
    match found("memory.oom.group").as_deref() {
        Some("0") => all.push(("OOMPolicy".to_owned(), Value::from("continue"))),
        Some("1") => all.push(("OOMPolicy".to_owned(), Value::from("kill"))),
        _ => {}
    }
    if version == Version::V1 {
        all.extend(devices(writes));
    }
    all
}

/// The quota in microseconds of a second. systemd keeps whole percents of a processor: rounded up, so that it never takes
/// more than was asked for.
fn bandwidth(quota: Option<&str>, period: Option<&str>) -> Vec<Property> {
    let mut all = Vec::new();
    let period: Option<u64> = period.and_then(|period| period.parse().ok()).filter(|period| *period > 0);
    if let Some(period) = period {
        all.push(("CPUQuotaPeriodUSec".to_owned(), Value::from(period)));
    }
    if quota.is_some() || period.is_some() {
        let quota = quota.and_then(|quota| quota.parse::<u64>().ok());
        let share = quota.map_or(u64::MAX, |quota| {
            let exact = u128::from(quota) * 1_000_000 / u128::from(period.unwrap_or(100_000));
            u64::try_from(exact.div_ceil(10_000) * 10_000).unwrap_or(u64::MAX)
        });
        all.push(("CPUQuotaPerSecUSec".to_owned(), Value::from(share)));
    }
    all
}

/// `0-2,7` as bits, the lowest in the first byte.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > 65_535 {
            return None;
        }
        if bytes.len() <= last / 8 {
            bytes.resize(last / 8 + 1, 0);
        }
        (first..=last).for_each(|bit| bytes[bit / 8] |= 1 << (bit % 8));
    }
    Some(bytes)
}

/// v1's rules for devices, for systemd writes the group's file again at every reload of its units. Rules that are no list of
/// what is allowed it has no words for; then it is told to leave all open, and what is written is in force until a reload.
fn devices(writes: &[Write]) -> Vec<Property> {
    let mut lines = writes.iter().filter(|write| write.controller == "devices").peekable();
    if lines.peek().is_none() {
        return Vec::new();
    }
    let mut allowed: Vec<(String, String)> = Vec::new();
    let mut listed = false;
    for line in lines {
        match (&*line.file, &*line.value) {
            ("devices.deny", "a") => (listed, allowed) = (true, Vec::new()),
            ("devices.allow", "a") => (listed, allowed) = (false, Vec::new()),
            ("devices.allow", value) if listed => {
                let words: Vec<&str> = value.split([' ', ':']).collect();
                let (kind, major, minor, access) = match words[..] {
                    ["c", major, minor, access] => ("char", major, minor, access),
                    ["b", major, minor, access] => ("block", major, minor, access),
                    _ => return vec![("DevicePolicy".to_owned(), Value::from("auto"))],
                };
                let name = match (major, minor) {
                    ("*", "*") => format!("{kind}-*"),
                    // The name of a kind of devices, or its number.
                    (major, "*") => format!("{kind}-{major}"),
                    (major, minor) => format!("/dev/{kind}/{major}:{minor}"),
                };
                allowed.push((name, access.to_owned()));
            }
            ("devices.allow", _) => {}
            _ => return vec![("DevicePolicy".to_owned(), Value::from("auto"))],
        }
    }
    let policy = if listed { "strict" } else { "auto" };
    vec![("DevicePolicy".to_owned(), Value::from(policy)), ("DeviceAllow".to_owned(), Value::from(allowed))]
}

#[cfg(test)]
mod tests;
