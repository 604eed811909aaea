//! The hash of what a COPY source names.
//!
//! It changes if and only if the copy would: names, kinds, permission bits, data, link targets, device numbers and the
//! extended attributes that are copied. Times and owners are left out, since the copy has its own owner and a fresh
//! checkout must hit the cache. A symlink inside a folder is hashed as itself, never as what it leads to.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use hull_sys::{Error, Result};
use sha2::{Digest as _, Sha256};

use super::Found;
use crate::copy;
use crate::graph::hex;
use crate::walk::{self, Entry, Filter, Visitor};

struct Hasher {
    sha: Sha256,
    buffer: Vec<u8>,
}

/// The hash over all of `found`.
pub(super) fn digest<'a>(found: &[Found], filter: impl Fn(&Found) -> Filter<'a>) -> Result<String> {
    let mut hasher = Hasher { sha: Sha256::new(), buffer: vec![0; 64 << 10] };
    for found in found {
        // A folder's own name is not copied, a file's is.
        if found.is_folder() {
            hasher.head(b"root", b"", found.stat.st_mode & 0o7777);
            let handle = found.handle.try_clone().map_err(|error| from_io("dup", &error))?;
            walk::contents(handle, &filter(found), &mut hasher)?;
            hasher.field(b"end");
        } else {
            hasher.head(b"file", found.name().as_bytes(), found.stat.st_mode & 0o7777);
            hasher.data(found.handle.as_fd())?;
        }
    }
    Ok(hex(&hasher.sha.finalize()))
}

fn from_io(call: &'static str, error: &std::io::Error) -> Error {
    let errno = rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::IO);
    Error::new(call, "", errno)
}

impl Hasher {
    fn field(&mut self, value: &[u8]) {
        self.sha.update((value.len() as u64).to_le_bytes());
        self.sha.update(value);
    }

    fn head(&mut self, kind: &[u8], name: &[u8], mode: u32) {
        self.field(kind);
        self.field(name);
        self.sha.update(mode.to_le_bytes());
    }

    fn data(&mut self, file: BorrowedFd<'_>) -> Result<()> {
        for (name, value) in copy::attributes(file)? {
            self.field(name.to_bytes());
            self.field(&value);
        }
        let mut length = 0u64;
        loop {
            let count = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut self.buffer[..], length))
                .map_err(|errno| Error::new("pread64", "", errno))?;
            if count == 0 {
                break;
            }
            self.sha.update(&self.buffer[..count]);
            length += count as u64;
        }
        // The length comes last, so that a file that grows meanwhile still has one reading.
        self.sha.update(length.to_le_bytes());
        Ok(())
    }
}

impl Visitor for Hasher {
    fn enter(&mut self, entry: &Entry<'_>, _folder: BorrowedFd<'_>) -> Result<()> {
        self.head(b"folder", entry.path.as_os_str().as_bytes(), entry.stat.st_mode & 0o7777);
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        Ok(())
    }

    fn file(&mut self, entry: &Entry<'_>, file: BorrowedFd<'_>) -> Result<()> {
        self.head(b"file", entry.path.as_os_str().as_bytes(), entry.stat.st_mode & 0o7777);
        self.data(file)
    }

    fn link(&mut self, entry: &Entry<'_>, target: &CStr) -> Result<()> {
        self.head(b"link", entry.path.as_os_str().as_bytes(), 0);
        self.field(target.to_bytes());
        Ok(())
    }

    fn special(&mut self, entry: &Entry<'_>) -> Result<()> {
        self.head(b"special", entry.path.as_os_str().as_bytes(), entry.stat.st_mode);
        self.sha.update(entry.stat.st_rdev.to_le_bytes());
        Ok(())
    }
}
