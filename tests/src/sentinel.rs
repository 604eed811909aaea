//! A tree that nothing may touch: every file of it is looked at before and after.
//!
//! It stands for the host. What is hostile (a layer, a link, a mount point) points at it, and a test ends with
//! [`Sentinel::assert_untouched`]. Status change times are compared too, so that a change that was undone is seen.

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

/// What its files say; found anywhere else, something was read that should not have been.
pub const CANARY: &str = "the host's own canary";

/// A tree with a file of every kind, and what it looked like when it was made.
#[derive(Debug)]
pub struct Sentinel {
    path: PathBuf,
    before: Vec<String>,
}

impl Sentinel {
    /// Makes the folder `path` with a tree in it. Who made the folder around it removes it.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn new(path: &Path) -> Self {
        let at = |name: &str| path.join(name);
        for (folder, mode) in [("", 0o755), ("inner", 0o750), ("empty", 0o700), ("dev", 0o755)] {
            fs::create_dir(at(folder)).expect("a folder");
            fs::set_permissions(at(folder), Permissions::from_mode(mode)).expect("a mode");
        }
        for (file, mode) in [("file", 0o640), ("inner/file", 0o600), ("setuid", 0o4755), ("dev/null", 0o644)] {
            fs::write(at(file), format!("{CANARY} in {file}")).expect("a file");
            fs::set_permissions(at(file), Permissions::from_mode(mode)).expect("a mode");
        }
        rustix::fs::setxattr(at("file"), "trusted.canary", CANARY.as_bytes(), XattrFlags::empty())
            .expect("an attribute");
        fs::hard_link(at("file"), at("linked")).expect("a link");
        symlink("file", at("symlink")).expect("a symlink");
        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a FIFO");
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for name in ["file", "inner/file", "setuid", "dev/null", "inner", "empty", "dev", ""] {
            fs::File::open(at(name)).and_then(|file| file.set_modified(old)).expect("a time");
        }
        Self { path: path.to_owned(), before: fingerprint(path) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It is as it was made.
    ///
    /// # Panics
    /// It is not; `what` says after what.
    pub fn assert_untouched(&self, what: &str) {
        let after = fingerprint(&self.path);
        let changed: Vec<_> = after.iter().filter(|line| !self.before.contains(line)).collect();
        let gone: Vec<_> = self.before.iter().filter(|line| !after.contains(line)).collect();
        assert!(changed.is_empty() && gone.is_empty(), "{what}: now {changed:#?}, before {gone:#?}");
    }
}

/// Everything in and below a folder, a line for each: inode, kind and mode, owner, times, links, attributes, content.
///
/// # Panics
/// Something of it cannot be read.
pub fn fingerprint(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let stat = fs::symlink_metadata(path).expect("a status");
    let content = match stat.file_type() {
        kind if kind.is_file() => fs::read(path).expect("content"),
        kind if kind.is_symlink() => fs::read_link(path).expect("a target").as_os_str().as_bytes().to_vec(),
        _ => Vec::new(),
    };
    found.push(format!(
        "{} {} {:o} {}:{} modified {}.{} changed {}.{} {} links {} {:?} {:?}",
        path.display(),
        stat.ino(),
        stat.mode(),
        stat.uid(),
        stat.gid(),
        stat.mtime(),
        stat.mtime_nsec(),
        stat.ctime(),
        stat.ctime_nsec(),
        stat.nlink(),
        stat.rdev(),
        attributes(path),
        String::from_utf8_lossy(&content)
    ));
    if stat.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path).expect("a list").map(|e| e.expect("one").path()).collect();
        names.sort();
        found.extend(names.iter().flat_map(|name| fingerprint(name)));
    }
    found
}

/// Names and values of the extended attributes of a file itself.
fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut list = vec![0u8; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut list[..]).expect("attributes");
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut found: Vec<_> = names
        .map(|name| {
            let name = String::from_utf8_lossy(name).into_owned();
            let mut value = vec![0u8; 64 << 10];
            let length = rustix::fs::lgetxattr(path, &*name, &mut value[..]).expect("an attribute");
            value.truncate(length);
            (name, value)
        })
        .collect();
    found.sort();
    found
}
