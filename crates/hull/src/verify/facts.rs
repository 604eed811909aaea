//! What a process can find out about where it is, read from /proc and the control groups' files.
//!
//! Needs no privilege and nothing of hull's own, so it works in any container. It only reads; what the facts should be
//! is `expect`'s business.
//!
//! Sources: `proc_pid_status(5)`, `namespaces(7)`, `user_namespaces(7)`, `capabilities(7)`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use hull_engine::profile;
use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxFlags};
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::mountinfo::{self, Mount};
use crate::report::Report;

/// Everything, as one process sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub hostname: String,
    /// The process's number as the process itself knows it.
    pub pid: u32,
    /// Its number as /proc shows it.
    pub pid_in_proc: u32,
    /// Its numbers from the PID namespace that /proc belongs to down to its own: one number if the two are the same.
    pub pid_chain: Vec<u32>,
    /// How many processes /proc shows.
    pub processes: usize,
    /// Kind (`net`) to inode number; another number is another namespace.
    pub namespaces: BTreeMap<String, u64>,
    pub mounts: Vec<Mount>,
    /// Network interfaces.
    pub interfaces: Vec<String>,
    pub uid: u32,
    pub gid: u32,
    /// First id inside, first id outside, how many.
    pub uid_map: Vec<[u32; 3]>,
    pub gid_map: Vec<[u32; 3]>,
    pub capabilities: Capabilities,
    /// 0 none, 1 strict, 2 a filter.
    pub seccomp: u32,
    pub no_new_privs: bool,
    pub limits: Limits,
    /// Paths that were looked at.
    pub places: BTreeMap<PathBuf, Place>,
}

/// Capability sets; bit n is capability number n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    #[serde(with = "hex")]
    pub effective: u64,
    #[serde(with = "hex")]
    pub permitted: u64,
    #[serde(with = "hex")]
    pub inheritable: u64,
    #[serde(with = "hex")]
    pub bounding: u64,
    #[serde(with = "hex")]
    pub ambient: u64,
}

/// A path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub exists: bool,
    /// The kind of the file system that is mounted right here.
    pub mounted: Option<String>,
    /// There is nothing to be read: the null device is on top of it, or an empty folder's mount.
    pub hidden: bool,
    pub read_only: bool,
}

impl Facts {
    /// Reads them. `asked` are paths to look at besides those of hull's own profile.
    ///
    /// # Errors
    /// A file of /proc that is not there or is not as its manual page has it.
    pub fn read(asked: &[PathBuf]) -> Result<Self, Report> {
        let status = Status(text("/proc/self/status")?);
        let mounts = mountinfo::parse(&text("/proc/self/mountinfo")?)
            .ok_or_else(|| Report::host("read /proc/self/mountinfo", "a line of it has another form"))?;
        let groups = text("/proc/self/cgroup")?;
        let own = fs::read_link("/proc/self").map_err(|error| Report::host("read /proc/self", error))?;
        let known = profile::masked().into_iter().chain(profile::READ_ONLY.map(str::to_owned)).map(PathBuf::from);
        let mut places = BTreeMap::new();
        for path in known.chain(asked.iter().cloned()) {
            let place = Place::look(&path, &mounts)?;
            places.insert(path, place);
        }
        Ok(Self {
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            pid: std::process::id(),
            pid_in_proc: own.to_string_lossy().parse().map_err(|error| Report::host("read /proc/self", error))?,
            pid_chain: status.numbers("NSpid")?,
            processes: processes()?,
            namespaces: namespaces()?,
            limits: Limits::read(&mounts, &groups),
            mounts,
            interfaces: interfaces(&text("/proc/self/net/dev")?),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            uid_map: id_map("/proc/self/uid_map")?,
            gid_map: id_map("/proc/self/gid_map")?,
            capabilities: Capabilities {
                effective: status.mask("CapEff")?,
                permitted: status.mask("CapPrm")?,
                inheritable: status.mask("CapInh")?,
                bounding: status.mask("CapBnd")?,
                ambient: status.mask("CapAmb")?,
            },
            seccomp: status.number("Seccomp")?,
            no_new_privs: status.number("NoNewPrivs")? == 1,
            places,
        })
    }

    /// The mount that is `/`.
    pub fn root(&self) -> Option<&Mount> {
        self.mounts.iter().rfind(|mount| mount.target == "/")
    }
}

impl Place {
    fn look(path: &Path, mounts: &[Mount]) -> Result<Self, Report> {
        let failed = |error: std::io::Error| Report::host(format!("look at {}", path.display()), error);
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Self { exists: false, mounted: None, hidden: false, read_only: false });
            }
            other => other.map_err(failed)?,
        };
        let errno = |error: rustix::io::Errno| failed(error.into());
        let stat = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID).map_err(errno)?;
        // A mount begins at a path if the mount that the path is in has it as its target.
        let here = mounts.iter().find(|mount| mount.id == stat.stx_mnt_id);
        let mounted = here.filter(|mount| Path::new(&mount.target) == path).map(|mount| mount.kind.clone());
        let hidden = mounted.is_some() && covered(path, &metadata).map_err(failed)?;
        // A pipe or a dangling link has a file system too, but this would follow it.
        let flags = if metadata.is_symlink() { None } else { Some(rustix::fs::statvfs(path).map_err(errno)?.f_flag) };
        let read_only = flags.is_some_and(|flags| flags.contains(StatVfsMountFlags::RDONLY));
        Ok(Self { exists: true, mounted, hidden, read_only })
    }
}

/// Whether it is the null device or an empty folder.
fn covered(path: &Path, metadata: &fs::Metadata) -> std::io::Result<bool> {
    if metadata.is_dir() {
        return Ok(fs::read_dir(path)?.next().is_none());
    }
    Ok(metadata.file_type().is_char_device() && metadata.rdev() == rustix::fs::makedev(1, 3))
}

fn text(path: &str) -> Result<String, Report> {
    let data = fs::read(path).map_err(|error| Report::host(format!("read {path}"), error))?;
    Ok(String::from_utf8_lossy(&data).into_owned())
}

/// /proc/self/status: a name and its value on each line.
struct Status(String);

impl Status {
    fn field(&self, name: &str) -> Result<&str, Report> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::trim).ok_or_else(|| Report::host("read /proc/self/status", format!("it has no {name}")))
    }

    fn number(&self, name: &str) -> Result<u32, Report> {
        let wrong = |error| Report::host(format!("read {name} of /proc/self/status"), error);
        self.field(name)?.parse().map_err(wrong)
    }

    fn numbers(&self, name: &str) -> Result<Vec<u32>, Report> {
        let wrong = |error| Report::host(format!("read {name} of /proc/self/status"), error);
        self.field(name)?.split_whitespace().map(|word| word.parse().map_err(wrong)).collect()
    }

    fn mask(&self, name: &str) -> Result<u64, Report> {
        let wrong = |error| Report::host(format!("read {name} of /proc/self/status"), error);
        u64::from_str_radix(self.field(name)?, 16).map_err(wrong)
    }
}

/// `net:[4026531840]` of every link, without those that say where children will be.
fn namespaces() -> Result<BTreeMap<String, u64>, Report> {
    let failed = |error| Report::host("read /proc/self/ns", error);
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/ns").map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with("_for_children") {
            all.insert(name, namespace_inode(&entry.path()).map_err(failed)?);
        }
    }
    Ok(all)
}

/// The inode number that a link of /proc/PID/ns names.
pub fn namespace_inode(link: &Path) -> std::io::Result<u64> {
    let target = fs::read_link(link)?;
    let target = target.to_string_lossy();
    let number = target.split_once(":[").and_then(|(_, rest)| rest.strip_suffix(']')?.parse().ok());
    number.ok_or_else(|| std::io::Error::new(ErrorKind::InvalidData, format!("{target} has no number")))
}

fn processes() -> Result<usize, Report> {
    let entries = fs::read_dir("/proc").map_err(|error| Report::host("read /proc", error))?;
    let is_number = |name: &std::ffi::OsStr| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
    Ok(entries.flatten().filter(|entry| is_number(&entry.file_name())).count())
}

/// The names in /proc/self/net/dev: of the process's own network namespace, whatever is mounted at /sys.
fn interfaces(text: &str) -> Vec<String> {
    let mut names: Vec<String> =
        text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect();
    names.sort();
    names
}

fn id_map(path: &str) -> Result<Vec<[u32; 3]>, Report> {
    let text = text(path)?;
    let row = |line: &str| -> Option<[u32; 3]> {
        let numbers: Vec<u32> = line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
        numbers.try_into().ok()
    };
    let rows: Option<Vec<_>> = text.lines().map(row).collect();
    rows.ok_or_else(|| Report::host(format!("read {path}"), "a line of it is not three numbers"))
}

/// Masks as the kernel writes them: sixteen hexadecimal digits.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(mask: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{mask:016x}"))
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_of_this_process_are_those_that_the_kernel_tells() {
        let facts = Facts::read(&["/proc".into(), "/no/such/path".into()]).unwrap();
        assert_eq!(facts.pid, std::process::id());
        assert_eq!(facts.hostname, fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());
        assert!(facts.namespaces.len() >= 7, "{:?}", facts.namespaces);
        assert_eq!(facts.namespaces["net"], fs::metadata("/proc/self/ns/net").unwrap().ino());
        assert_eq!(facts.places[Path::new("/proc")].mounted.as_deref(), Some("proc"));
        assert!(!facts.places[Path::new("/proc")].hidden && !facts.places[Path::new("/no/such/path")].exists);
        assert!(facts.root().is_some() && facts.processes > 0);
    }

    #[test]
    fn facts_survive_json() {
        let facts = Facts::read(&[]).unwrap();
        let json = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<Facts>(&json).unwrap(), facts);
        assert!(json.contains("\"effective\":\"0"), "{json}");
    }

    #[test]
    fn a_status_without_a_field_is_an_error_that_names_it() {
        let status = Status("Seccomp:\t2\nCapEff:\t00000000800405fb\nNSpid:\t12\t1\n".into());
        assert_eq!((status.number("Seccomp").unwrap(), status.mask("CapEff").unwrap()), (2, 0x8004_05fb));
        assert_eq!(status.numbers("NSpid").unwrap(), [12, 1]);
        assert!(format!("{:?}", status.number("NoNewPrivs").unwrap_err()).contains("NoNewPrivs"));
    }

    #[test]
    fn interfaces_are_the_names_before_the_colons() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 0 0\n  eth0:12 0\n";
        assert_eq!(interfaces(text), ["eth0", "lo"]);
    }
}
