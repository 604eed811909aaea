//! A tree in overlay's upper form as a layer archive, the same bytes each time.
//!
//! The inverse of `apply`: whiteouts become `.wh.` names again, an opaque folder gets a `.wh..wh..opq`. Entries are
//! sorted by name, times are whole seconds, user and group names are left out, and what a ustar header cannot say is in
//! a PAX header. Sockets have no place in an archive and are left out, as Docker does.
//!
//! Sources: image specification `layer.md`; POSIX `pax`.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use tar::{EntryType, Header};

use crate::apply::{OPAQUE, is_whiteout};
use crate::error::{Cannot, Error, Result};
use crate::tree;

const BLOCK: usize = 512;
/// The largest value of an eight-byte octal field.
const ID_MAX: u32 = 0o777_7777;
/// The largest value of a twelve-byte octal field.
const SIZE_MAX: u64 = 0o777_7777_7777;

/// Writes the tree `root` to `out`.
///
/// # Errors
/// The kernel's; a file that changes its size while it is read.
pub(crate) fn write(root: BorrowedFd<'_>, out: &mut impl Write) -> Result<()> {
    let mut archive = Archive { out, links: HashMap::new(), buffer: vec![0; 1 << 18] };
    let opaque = marked(root, c".").cannot("read", "the layer's root")?;
    archive.folder(root, &mut Vec::new(), opaque, 0)?;
    archive.put(&[0; 2 * BLOCK])
}

struct Archive<'a, W> {
    out: &'a mut W,
    /// The first name of each inode that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

/// The deepest tree: as deep as a path can be.
const DEPTH_MAX: usize = 2048;

impl<W: Write> Archive<'_, W> {
    fn put(&mut self, data: &[u8]) -> Result<()> {
        self.out.write_all(data).cannot("write", "the layer")
    }

    fn folder(&mut self, dir: BorrowedFd<'_>, path: &mut Vec<u8>, opaque: bool, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Error::entry(path, "the tree is too deep"));
        }
        if opaque {
            let name = joined(path, b".wh..wh..opq");
            self.header(&name, &plain(EntryType::Regular, 0), &[], b"")?;
        }
        for name in tree::names(dir).cannot("list", shown(path))? {
            let stat = tree::lstat(dir, &name).cannot("read", shown(path))?;
            let length = path.len();
            path.extend_from_slice(name.to_bytes());
            self.entry(dir, &name, path, &stat, depth)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
        stat: &Stat,
        depth: usize,
    ) -> Result<()> {
        if is_whiteout(stat) {
            let parent = path.len() - name.to_bytes().len();
            let hidden = joined(&path[..parent], &[b".wh.", name.to_bytes()].concat());
            return self.header(&hidden, &plain(EntryType::Regular, 0), &[], b"");
        }
        if name.to_bytes().starts_with(b".wh.") {
            return Err(Error::entry(path, "a name that starts with .wh. means a deletion in a layer"));
        }
        let kind = match tree::file_type(stat) {
            FileType::Directory => EntryType::Directory,
            FileType::RegularFile => EntryType::Regular,
            FileType::Symlink => EntryType::Symlink,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            FileType::Fifo => EntryType::Fifo,
            _ => return Ok(()),
        };
        if kind != EntryType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let first = first.clone();
                return self.header(path, &filled(EntryType::Link, stat), &[], &first);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        let xattrs = tree::xattrs(dir, name).cannot("read the attributes of", shown(path))?;
        let opaque = xattrs.iter().any(|(name, value)| name.as_c_str() == OPAQUE && value == b"y");
        let header = filled(kind, stat);
        match kind {
            EntryType::Directory => {
                path.push(b'/');
                self.header(path, &header, &xattrs, b"")?;
                let child = tree::open_folder(dir, name).cannot("open", shown(path))?;
                self.folder(child.as_fd(), path, opaque, depth + 1)
            }
            EntryType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).cannot("read", shown(path))?;
                self.header(path, &header, &xattrs, target.as_bytes())
            }
            EntryType::Regular => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(dir, name, flags, Mode::empty()).cannot("open", shown(path))?;
                self.header(path, &header, &xattrs, b"")?;
                self.data(file, path, stat.st_size as u64)
            }
            _ => self.header(path, &header, &xattrs, b""),
        }
    }

    fn data(&mut self, file: OwnedFd, path: &[u8], size: u64) -> Result<()> {
        let mut file = File::from(file).take(size);
        let mut left = size;
        while left > 0 {
            let length = file.read(&mut self.buffer).cannot("read", shown(path))?;
            if length == 0 {
                return Err(Error::entry(path, "it became shorter while it was read"));
            }
            self.out.write_all(&self.buffer[..length]).cannot("write", "the layer")?;
            left -= length as u64;
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over == 0 { Ok(()) } else { self.put(&[0; BLOCK][over..]) }
    }

    /// A header, with a PAX header before it for what does not fit.
    fn header(&mut self, path: &[u8], fields: &Fields, xattrs: &[(CString, Vec<u8>)], link: &[u8]) -> Result<()> {
        let mut pax = Vec::new();
        let mut header = Header::new_ustar();
        header.set_entry_type(fields.kind);
        header.set_mode(fields.mode);
        number(&mut pax, "uid", fields.uid.into(), ID_MAX.into(), |value| header.set_uid(value));
        number(&mut pax, "gid", fields.gid.into(), ID_MAX.into(), |value| header.set_gid(value));
        number(&mut pax, "size", fields.size, SIZE_MAX, |value| header.set_size(value));
        match u64::try_from(fields.mtime) {
            Ok(mtime) => number(&mut pax, "mtime", mtime, SIZE_MAX, |value| header.set_mtime(value)),
            Err(_) => {
                record(&mut pax, b"mtime", fields.mtime.to_string().as_bytes());
                header.set_mtime(0);
            }
        }
        if let (EntryType::Char | EntryType::Block, Some(ustar)) = (fields.kind, header.as_ustar_mut()) {
            ustar.set_device_major(fields.device.0);
            ustar.set_device_minor(fields.device.1);
        }
        text(&mut pax, b"path", path, &mut header.as_old_mut().name);
        text(&mut pax, b"linkpath", link, &mut header.as_old_mut().linkname);
        for (name, value) in xattrs {
            let name = name.to_bytes();
            if !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.") {
                record(&mut pax, &[b"SCHILY.xattr.", name].concat(), value);
            }
        }
        header.set_cksum();
        if !pax.is_empty() {
            let mut extension = Header::new_ustar();
            extension.set_entry_type(EntryType::XHeader);
            extension.set_mode(0o644);
            extension.set_uid(0);
            extension.set_gid(0);
            extension.set_mtime(0);
            extension.set_size(pax.len() as u64);
            extension.as_old_mut().name[..10].copy_from_slice(b"PaxHeaders");
            extension.set_cksum();
            self.put(extension.as_bytes())?;
            self.put(&pax)?;
            self.pad(pax.len() as u64)?;
        }
        self.put(header.as_bytes())
    }
}

/// What a header says of an inode.
struct Fields {
    kind: EntryType,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: i64,
    device: (u32, u32),
}

fn plain(kind: EntryType, mode: u32) -> Fields {
    Fields { kind, mode, uid: 0, gid: 0, size: 0, mtime: 0, device: (0, 0) }
}

fn filled(kind: EntryType, stat: &Stat) -> Fields {
    Fields {
        kind,
        mode: tree::permissions(stat),
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: if kind == EntryType::Regular { stat.st_size as u64 } else { 0 },
        mtime: stat.st_mtime,
        device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
    }
}

fn number(pax: &mut Vec<u8>, key: &str, value: u64, max: u64, mut set: impl FnMut(u64)) {
    if value <= max {
        set(value);
    } else {
        record(pax, key.as_bytes(), value.to_string().as_bytes());
        set(0);
    }
}

fn text(pax: &mut Vec<u8>, key: &[u8], value: &[u8], field: &mut [u8]) {
    if value.len() > field.len() {
        record(pax, key, value);
    }
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// `<length> <key>=<value>\n`, where the length counts its own digits.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(format!("{length} ").as_bytes());
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    [folder, name].concat()
}

fn shown(path: &[u8]) -> String {
    format!("{:?} in the layer", String::from_utf8_lossy(path))
}

fn marked(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<bool> {
    Ok(tree::xattrs(dir, name)?.iter().any(|(name, value)| name.as_c_str() == OPAQUE && value == b"y"))
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
