//! How the machine's control groups are laid out, from /proc/self/mountinfo and /proc/self/cgroup.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

use hull_sys::fs::{CWD, read_file};

use super::fields::for_field;
use super::limits::Write;
use crate::error::{Doing, Error, Result};

/// Which interface a hierarchy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for some controllers.
    V1,
    /// The unified one.
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its interface.
    pub version: Version,
    /// v1: the controllers, or `name=…` for a named one. v2: what `cgroup.controllers` of its root offers.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The group, below `mount`, in which hull makes its own: the parent of the caller's.
    pub parent: PathBuf,
    /// The caller's own group, below `mount`.
    pub own: PathBuf,
}

/// The hierarchies of this machine that hull can see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// In the order of the mount table.
    pub hierarchies: Vec<Hierarchy>,
}

/// Far more than a mount table of some thousand lines.
const LARGEST: usize = 16 << 20;

impl Host {
    /// Reads the two files.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn detect() -> Result<Self> {
        let mut host = Self::parse(&read(c"/proc/self/mountinfo")?, &read(c"/proc/self/cgroup")?);
        for hierarchy in host.hierarchies.iter_mut().filter(|hierarchy| hierarchy.version == Version::V2) {
            let path = hierarchy.mount.join("cgroup.controllers");
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Error::setup(format!("read {}", path.display()), error))?;
            hierarchy.controllers = text.split_whitespace().map(str::to_owned).collect();
        }
        Ok(host)
    }

    /// The group that process `pid` is in.
    ///
    /// # Errors
    /// The kernel does not tell, or the group is in no part of the hierarchy that is mounted here.
    pub fn group_of(pid: i32, hierarchy: &Hierarchy) -> Result<PathBuf> {
        let doing = || format!("find the control group of process {pid}");
        let own = CString::new(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let host = Self::parse(&read(c"/proc/self/mountinfo")?, &read(&own)?);
        let found = host.hierarchies.into_iter().find(|found| found.mount == hierarchy.mount);
        let found = found.ok_or_else(|| Error::setup(doing(), "it is in none that is visible here"))?;
        Ok(found.mount.join(found.own))
    }

    /// What the two texts say. Pure.
    pub fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for line in mountinfo.lines() {
            // Most lines are about something else.
            let Some((before, after)) = line.split_once(" - ").filter(|(_, after)| after.starts_with("cgroup"))
            else {
                continue;
            };
            let fields: Vec<&str> = before.split(' ').collect();
            let mut after = after.split(' ');
            let (Some(kind), _, Some(options)) = (after.next(), after.next(), after.next()) else { continue };
            let (Some(root), Some(mount)) = (fields.get(3), fields.get(4)) else { continue };
            let (version, controllers) = match kind {
                "cgroup2" => (Version::V2, Vec::new()),
                "cgroup" => (Version::V1, v1_controllers(options)),
                _ => continue,
            };
            let known = |other: &Hierarchy| other.version == version && other.controllers == controllers;
            if hierarchies.iter().any(known) {
                continue;
            }
            let Some(own) = own_group(cgroup, version, &controllers) else { continue };
            // The mount may show only a part of the hierarchy: /docker/ID of it, inside a container.
            let own = Path::new(own);
            let visible = own.strip_prefix(root).or_else(|_| own.strip_prefix("/")).unwrap_or(Path::new(""));
            let parent = visible.parent().unwrap_or(Path::new("")).to_owned();
            let (mount, own) = (PathBuf::from(unescape(mount)), visible.to_owned());
            hierarchies.push(Hierarchy { version, controllers, mount, parent, own });
        }
        Self { hierarchies }
    }

    /// The hierarchy that has `controller`.
    pub fn controller(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.controllers.iter().any(|known| known == controller))
    }

    /// The hierarchy in which `write` is done: v2's own files and its device program need no controller.
    pub(super) fn hierarchy(&self, write: &Write) -> Option<&Hierarchy> {
        let own = write.controller.is_empty() || write.controller == "devices";
        let v2 = || self.hierarchies.iter().find(|hierarchy| own && hierarchy.version == Version::V2);
        self.controller(&write.controller).or_else(v2)
    }

    /// Whether this host has the place for `write`.
    pub(super) fn can(&self, write: &Write) -> Result<()> {
        if self.hierarchy(write).is_some() {
            return Ok(());
        }
        let doing = format!("set {} to {}{}", write.file, write.value, for_field(&write.file));
        let cause = format!("this machine has no {} controller that hull can use", write.controller);
        Err(Error::invalid(doing, cause).hint("see /proc/cgroups and /proc/self/mountinfo"))
    }

    /// Whether swap can be limited: the kernel can be built, and started, so that it does not count it.
    pub fn counts_swap(&self) -> bool {
        let Some(memory) = self.controller("memory") else { return false };
        if memory.version == Version::V1 {
            return memory.mount.join("memory.memsw.limit_in_bytes").exists();
        }
        // The root group has no limits: any group below it shows whether there is the file.
        let counts = |group: &Path| group.join("memory.swap.max").exists();
        let below = || std::fs::read_dir(&memory.mount).into_iter().flatten().flatten();
        counts(&memory.mount.join(&memory.own)) || below().any(|entry| counts(&entry.path()))
    }

    /// Whether v2 is where the limits are.
    pub fn unified(&self) -> bool {
        self.controller("pids").is_some_and(|hierarchy| hierarchy.version == Version::V2)
    }
}

fn read(path: &CStr) -> Result<String> {
    let doing = || "read how control groups are mounted".to_owned();
    let data = read_file(CWD, path, LARGEST).doing(doing)?;
    String::from_utf8(data).map_err(|error| Error::setup(doing(), error))
}

fn v1_controllers(options: &str) -> Vec<String> {
    const NO_CONTROLLER: [&str; 6] = ["rw", "ro", "noprefix", "xattr", "clone_children", "all"];
    options
        .split(',')
        .filter(|option| !NO_CONTROLLER.contains(option) && !option.starts_with("release_agent="))
        .map(str::to_owned)
        .collect()
}

fn own_group<'a>(cgroup: &'a str, version: Version, controllers: &[String]) -> Option<&'a str> {
    cgroup.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        let found = match version {
            Version::V2 => names.is_empty(),
            Version::V1 => names.split(',').any(|name| controllers.iter().any(|known| known == name)),
        };
        found.then_some(path)
    })
}

/// mountinfo writes blanks and backslashes as octal.
pub(crate) fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_keeps_its_controllers_apart() {
        let mountinfo = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                         40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                         41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let cgroup = "9:name=systemd:/\n4:memory:/api/06f0\n0::/\n";
        let host = Host::parse(mountinfo, cgroup);
        assert_eq!(host.hierarchies.len(), 3);
        let memory = host.controller("memory").unwrap();
        assert_eq!((memory.version, memory.parent.to_str()), (Version::V1, Some("api")));
        assert!(!host.unified());
    }

    #[test]
    fn inside_a_container_the_mount_shows_a_part() {
        let mountinfo = "35 31 0:32 /docker/77 /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let host = Host::parse(mountinfo, "8:pids:/docker/77\n");
        assert_eq!(host.controller("pids").unwrap().parent, Path::new(""));
        let host = Host::parse(mountinfo, "8:pids:/docker/77/shell\n");
        assert_eq!(host.controller("pids").unwrap().parent, Path::new(""));
    }

    #[test]
    fn on_v2_the_group_is_made_beside_the_callers() {
        let mountinfo = "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let host = Host::parse(mountinfo, "0::/user.slice/user-0.slice/session-1.scope\n");
        assert_eq!(host.hierarchies[0].parent, Path::new("user.slice/user-0.slice"));
    }
}
