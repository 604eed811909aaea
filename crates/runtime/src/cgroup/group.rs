//! One group in one hierarchy: a folder, and files in it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hull_sys::Errno;
use hull_sys::fs::{self, CWD};
use rustix::fs::OFlags;

use super::clear::collect_members;
use super::fields::for_field;
use super::host::{Hierarchy, Host, Version};
use crate::error::{Doing, Error, Result};

/// One group in one hierarchy.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) hierarchy: Hierarchy,
    pub(super) path: PathBuf,
    /// Whether it was made for this container, and not there before.
    pub(super) own: bool,
    /// Opened when it is asked for first.
    folder: OnceLock<OwnedFd>,
}

impl Group {
    /// The group at `path`; none if it is in no hierarchy of the host.
    pub(super) fn open_at(host: &Host, path: &Path) -> Option<hull_sys::Result<Self>> {
        let hierarchy = host.hierarchies.iter().find(|hierarchy| path.starts_with(&hierarchy.mount))?.clone();
        let folder = fs::openat(CWD, &c_path(path), OFlags::RDONLY | OFlags::DIRECTORY, 0);
        Some(folder.map(|folder| Self { hierarchy, path: path.to_owned(), own: false, folder: folder.into() }))
    }

    /// A group that is there.
    pub(super) fn at(hierarchy: &Hierarchy, path: PathBuf, own: bool) -> Self {
        Self { hierarchy: hierarchy.clone(), path, own, folder: OnceLock::new() }
    }

    pub(super) fn folder(&self) -> hull_sys::Result<BorrowedFd<'_>> {
        if let Some(folder) = self.folder.get() {
            return Ok(folder.as_fd());
        }
        let folder = fs::openat(CWD, &c_path(&self.path), OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        Ok(self.folder.get_or_init(|| folder).as_fd())
    }

    pub(super) fn set(&self, file: &str, value: &str) -> Result<()> {
        let written = self.open(file).and_then(|open| fs::write(open.as_fd(), value.as_bytes()));
        written.map_err(|error| self.refused(file, value, error))
    }

    pub(super) fn open(&self, file: &str) -> hull_sys::Result<OwnedFd> {
        let name = CString::new(file).unwrap_or_default();
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW;
        match self.folder.get() {
            Some(folder) => fs::openat(folder.as_fd(), &name, flags, 0),
            // For one file that is less than the folder before it.
            None => fs::openat(CWD, &c_path(&self.path.join(file)), flags, 0),
        }
    }

    /// Whether this kernel has `file` here.
    pub(super) fn has(&self, file: &str) -> bool {
        rustix::fs::access(self.path.join(file), rustix::fs::Access::EXISTS).is_ok()
    }

    /// Opens `file` for `value`. `None` where the kernel has no such file, and what it is to say is so anyway.
    pub(super) fn open_for(&self, file: &str, value: &str) -> hull_sys::Result<Option<OwnedFd>> {
        match self.open(file) {
            Err(error) if error.errno() == Errno::NOENT && is_so_anyway(file, value) => Ok(None),
            open => open.map(Some),
        }
    }

    /// Writes `value`, and looks whether it is there where the kernel is known to take one and not to set it: the limit of
    /// kernel memory since Linux 6.6.
    pub(super) fn put(&self, open: BorrowedFd<'_>, file: &str, value: &str) -> hull_sys::Result<()> {
        fs::write(open, value.as_bytes())?;
        if file == "memory.kmem.limit_in_bytes" {
            let number = |text: &str| text.trim().parse::<u64>().unwrap_or(u64::MAX);
            if number(&self.text(file)?) > number(value) {
                return Err(hull_sys::Error::new("write", format!("{value:?}"), Errno::OPNOTSUPP));
            }
        }
        Ok(())
    }

    pub(super) fn refused(&self, file: &str, value: &str, error: hull_sys::Error) -> Error {
        refused(&self.path, file, value, error)
    }

    pub(super) fn get(&self, file: &str) -> Result<String> {
        self.text(file).doing(|| format!("read {}", self.path.join(file).display()))
    }

    pub(super) fn text(&self, file: &str) -> hull_sys::Result<String> {
        let name = CString::new(file).unwrap_or_default();
        let data = fs::read_file(self.folder()?, &name, 16 << 20)?;
        Ok(String::from_utf8_lossy(&data).into_owned())
    }

    /// Makes `owner` the owner of the folder and of the files that an owner may write to, as the kernel lists them.
    pub(super) fn give_to(&self, owner: u32) -> Result<()> {
        let doing = || format!("give the control group {} to {owner}", self.path.display());
        let files = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
        // The list of cgroups(7), for kernels before 4.15.
        let files = files.unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned());
        let folder = self.folder().doing(doing)?;
        let group = fs::fstat(folder).doing(doing)?.st_gid;
        fs::chown_handle(folder, owner, group).doing(doing)?;
        for file in files.lines() {
            let name = CString::new(file).unwrap_or_default();
            match fs::chownat(folder, &name, owner, group) {
                // Of a controller that the group does not have.
                Err(error) if error.errno() == Errno::NOENT => {}
                other => other.doing(doing)?,
            }
        }
        Ok(())
    }

    /// Lets `controller` through to this group, from the root of the hierarchy down.
    pub(super) fn enable(&self, controller: &str) -> Result<()> {
        let mut at = self.hierarchy.mount.clone();
        let below = self.path.strip_prefix(&self.hierarchy.mount).unwrap_or(Path::new("")).to_owned();
        for step in below.components() {
            let file = at.join("cgroup.subtree_control");
            let doing = || format!("enable the {controller} controller in {}", file.display());
            let on = fs::read_file(CWD, &c_path(&file), 4096).doing(doing)?;
            if !String::from_utf8_lossy(&on).split_whitespace().any(|name| name == controller) {
                let value = format!("+{controller}");
                fs::write_file(CWD, &c_path(&file), value.as_bytes()).map_err(|error| {
                    Error::setup(doing(), error).hint(
                        "a group that holds processes cannot pass controllers on; start hull in a leaf of its own, \
                         as `systemd-run --scope -p Delegate=yes` makes one",
                    )
                })?;
            }
            at.push(step);
        }
        Ok(())
    }
}

/// The group at `path` does not take `value`.
pub(super) fn refused(path: &Path, file: &str, value: &str, error: hull_sys::Error) -> Error {
    let doing = format!("write {value:?} to {}{}", path.join(file).display(), for_field(file));
    Error::setup(doing, error).hint(advice(file))
}

/// Whether what a missing file is to say is in force without it: no limit, or no swap on a machine that has none.
fn is_so_anyway(file: &str, value: &str) -> bool {
    let swap = || std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1);
    match (file, value) {
        (_, "max" | "-1") => true,
        ("memory.swap.max", "0") => !swap(),
        _ => false,
    }
}

pub(super) fn is_v1_cpuset(hierarchy: &Hierarchy) -> bool {
    hierarchy.version == Version::V1 && hierarchy.controllers.iter().any(|name| name == "cpuset")
}

/// v1 gives a new cpuset neither processors nor memory nodes, and then nothing can join it.
pub(super) fn inherit_cpuset(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(file), path.join(file));
        let value = fs::read_file(CWD, &c_path(&from), 64 << 10).doing(|| format!("read {}", from.display()))?;
        fs::write_file(CWD, &c_path(&to), value.trim_ascii_end()).doing(|| format!("write {}", to.display()))?;
    }
    Ok(())
}

/// Makes the groups above `path` that are missing. They stay when the container's own is removed.
pub(super) fn make_parents(hierarchy: &Hierarchy, path: &Path) -> Result<()> {
    let mut missing: Vec<&Path> =
        path.ancestors().skip(1).take_while(|above| above.starts_with(&hierarchy.mount) && !above.exists()).collect();
    missing.reverse();
    for above in missing {
        match fs::mkdirat(CWD, &c_path(above), 0o755) {
            // Somebody else was faster.
            Err(error) if error.errno() == Errno::EXIST => {}
            other => other.doing(|| format!("make the control group {}", above.display()))?,
        }
        if is_v1_cpuset(hierarchy) {
            inherit_cpuset(above)?;
        }
    }
    Ok(())
}

pub(super) fn refuse_members(path: &Path) -> Result<()> {
    let mut members = Vec::new();
    collect_members(path, &mut members)?;
    match members.first() {
        None => Ok(()),
        Some(pid) => {
            let cause = format!("it holds processes already, such as {pid}");
            Err(Error::invalid(format!("use the control group {}", path.display()), cause))
        }
    }
}

fn advice(file: &str) -> String {
    match file {
        "memory.memsw.limit_in_bytes" => "this kernel may not account swap; leave --memory-swap out".to_owned(),
        _ => format!(
            "the kernel does not take this value for {file} here; a container without its limit is not started"
        ),
    }
}

pub(super) fn c_path(path: &Path) -> CString {
    // The parts come from the mount table and from ids, none of which can hold a NUL.
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}
