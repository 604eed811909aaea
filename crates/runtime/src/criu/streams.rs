//! The standard streams of a container: at a restore they are others than those at the dump.
//!
//! `descriptors.json` among the images has what the first process had as 0, 1 and 2: an array of three texts, as runc writes
//! it. A pipe or a socket is what its link says. Of a file and of a terminal of the host's, which criu cannot find in the
//! container, it has criu's name for it.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use hull_sys::fs::{self, CWD};
use rustix::fs::FileType;

use super::rpc::InheritFd;
use crate::error::{Doing, Error, Result};

const FILE: &str = "descriptors.json";
/// What criu asks whoever restores for.
const OUTSIDE: [&str; 4] = ["pipe:[", "socket:[", "file[", "tty["];

/// What process `pid` has, and those of it of which criu has to be told that they are not the container's.
pub(super) fn at_dump(pid: i32) -> Result<([String; 3], Vec<String>)> {
    let doing = || "look at the container's standard streams".to_owned();
    let read = |path: &str| {
        let path = CString::new(path).map_err(|error| Error::invalid(doing(), error))?;
        Ok::<_, Error>(String::from_utf8_lossy(&fs::read_file(CWD, &path, 16 << 20).doing(doing)?).into_owned())
    };
    let mounts = read(&format!("/proc/{pid}/mountinfo"))?;
    let own: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').next()).collect();
    let (mut names, mut outside) = ([const { String::new() }; 3], Vec::new());
    for (number, name) in names.iter_mut().enumerate() {
        let path = CString::new(format!("/proc/{pid}/fd/{number}")).unwrap_or_default();
        // One that the container has closed is nobody's to give back.
        let Ok(link) = fs::readlinkat(CWD, &path) else { continue };
        *name = link.to_string_lossy().into_owned();
        if let Some(inode) = name.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            outside.push(format!("unix[{inode}]"));
            continue;
        }
        let about = read(&format!("/proc/{pid}/fdinfo/{number}"))?;
        let mount = about.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap_or_default().trim();
        if !name.starts_with('/') || own.contains(&mount) {
            continue;
        }
        let stat = fs::stat_at(CWD, &path).doing(doing)?;
        *name = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice if is_terminal(stat.st_rdev) => {
                format!("tty[{:x}:{:x}]", stat.st_rdev, stat.st_dev)
            }
            _ => format!("file[{:x}:{:x}]", mount.parse::<u32>().unwrap_or_default(), stat.st_ino),
        };
        outside.push(name.clone());
    }
    outside.sort();
    outside.dedup();
    Ok((names, outside))
}

/// Consoles, virtual ones, and the slaves of pseudoterminals. Source: the kernel's `admin-guide/devices.txt`.
fn is_terminal(device: u64) -> bool {
    matches!(rustix::fs::major(device), 4 | 5 | 136..=143)
}

/// Writes it among the images.
pub(super) fn save(images: &Path, names: &[String; 3]) -> Result<()> {
    let path = images.join(FILE);
    let doing = || format!("write {}", path.display());
    let text = serde_json::to_vec(names).map_err(|error| Error::setup(doing(), error))?;
    std::fs::write(&path, text).map_err(|error| Error::setup(doing(), error))
}

/// What of the images these three streams take the place of.
pub(super) fn at_restore(images: &Path, streams: &[OwnedFd; 3]) -> Result<Vec<InheritFd>> {
    let path = images.join(FILE);
    let doing = || format!("read {}", path.display());
    let text = match std::fs::read(&path) {
        // Images that criu alone has made.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(|error| Error::setup(doing(), error))?,
    };
    let names: Vec<String> = serde_json::from_slice(&text).map_err(|error| Error::setup(doing(), error))?;
    let mut all: Vec<InheritFd> = Vec::new();
    for (name, stream) in names.into_iter().zip(streams) {
        if OUTSIDE.iter().any(|kind| name.starts_with(kind)) && all.iter().all(|other| other.key != name) {
            all.push(InheritFd { key: name, fd: stream.as_raw_fd() });
        }
    }
    Ok(all)
}
