//! What the tests of this crate share: archives written entry by entry, also wrong ones, and a tree that must not change.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tar::{EntryType, Header};

/// A tar archive in the making. Names and links go into the header as they are.
#[derive(Default)]
pub(crate) struct Tar(pub Vec<u8>);

impl Tar {
    pub(crate) fn header(kind: EntryType, name: &str, link: &str, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_size(size);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1000);
        if let Some(ustar) = header.as_ustar_mut() {
            ustar.set_device_major(0);
            ustar.set_device_minor(0);
        }
        header.set_cksum();
        header
    }

    pub(crate) fn raw(mut self, header: &Header, data: &[u8]) -> Self {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn with(self, header: Header, change: impl FnOnce(&mut Header), data: &[u8]) -> Self {
        let mut header = header;
        change(&mut header);
        header.set_cksum();
        self.raw(&header, data)
    }

    pub(crate) fn file(self, name: &str, data: &str) -> Self {
        self.raw(&Self::header(EntryType::Regular, name, "", data.len() as u64), data.as_bytes())
    }

    pub(crate) fn folder(self, name: &str) -> Self {
        self.raw(&Self::header(EntryType::Directory, name, "", 0), b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(&Self::header(EntryType::Symlink, name, target, 0), b"")
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.raw(&Self::header(EntryType::Link, name, target, 0), b"")
    }

    pub(crate) fn device(self, name: &str, major: u32, minor: u32) -> Self {
        self.with(
            Self::header(EntryType::Char, name, "", 0),
            |header| {
                if let Some(ustar) = header.as_ustar_mut() {
                    ustar.set_device_major(major);
                    ustar.set_device_minor(minor);
                }
            },
            b"",
        )
    }

    pub(crate) fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            data.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
        }
        self.raw(&Self::header(EntryType::XHeader, "PaxHeaders", "", data.len() as u64), &data)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// Everything below a folder: name, inode, mode, owner, time, links and content.
pub(crate) fn fingerprint(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let stat = std::fs::symlink_metadata(path).expect("a status");
    let content = if stat.is_file() { std::fs::read(path).expect("content") } else { Vec::new() };
    found.push(format!(
        "{} {} {:o} {}:{} {}.{} {} {content:?}",
        path.display(),
        stat.ino(),
        stat.mode(),
        stat.uid(),
        stat.gid(),
        stat.mtime(),
        stat.mtime_nsec(),
        stat.nlink()
    ));
    if stat.is_dir() {
        let mut names: Vec<_> =
            std::fs::read_dir(path).expect("a list").map(|entry| entry.expect("one").path()).collect();
        names.sort();
        for name in names {
            found.extend(fingerprint(&name));
        }
    }
    found
}

/// A short listing: kind, mode, name and what it holds; times and inodes left out.
pub(crate) fn listing(root: &Path) -> Vec<String> {
    use std::os::unix::fs::FileTypeExt;
    fn walk(root: &Path, path: &Path, found: &mut Vec<String>) {
        let mut names: Vec<_> =
            std::fs::read_dir(path).expect("a list").map(|entry| entry.expect("one").path()).collect();
        names.sort();
        for name in names {
            let stat = std::fs::symlink_metadata(&name).expect("a status");
            let kind = stat.file_type();
            let shown = name.strip_prefix(root).expect("below").display().to_string();
            let mode = stat.mode() & 0o7777;
            found.push(if kind.is_dir() {
                format!("{shown}/ {mode:o}")
            } else if kind.is_symlink() {
                format!("{shown} -> {}", std::fs::read_link(&name).expect("a target").display())
            } else if kind.is_char_device() && stat.rdev() == 0 {
                format!("{shown} whiteout")
            } else if kind.is_file() {
                format!("{shown} {mode:o} {}", String::from_utf8_lossy(&std::fs::read(&name).expect("content")))
            } else {
                format!("{shown} {mode:o} special {}", stat.rdev())
            });
            if kind.is_dir() {
                walk(root, &name, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found
}
