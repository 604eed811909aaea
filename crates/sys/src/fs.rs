//! Files below a descriptor: the `*at` calls, each one traced.
//!
//! A name given here is one component or a path that hull itself chose. Paths that come from an image, a layer or a
//! context go through [`crate::path::Root`].

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
pub use rustix::fs::{CWD, Stat};

use crate::call::{Arg, Result, call};

/// `openat(2)`; close-on-exec is always set.
pub fn openat(dir: BorrowedFd<'_>, path: &CStr, flags: OFlags, mode: u32) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    call("openat", &[Arg::fd(&dir), Arg::cstr(path), Arg::Prefixed("O_", &flags), Arg::Mode(mode)], || {
        rustix::io::retry_on_intr(|| rustix::fs::openat(dir, path, flags, Mode::from_raw_mode(mode)))
    })
}

/// `mkdirat(2)`.
pub fn mkdirat(dir: BorrowedFd<'_>, path: &CStr, mode: u32) -> Result<()> {
    call("mkdirat", &[Arg::fd(&dir), Arg::cstr(path), Arg::Mode(mode)], || {
        rustix::fs::mkdirat(dir, path, Mode::from_raw_mode(mode))
    })
}

/// `unlinkat(2)`; with `folder` as `rmdir(2)`.
pub fn unlinkat(dir: BorrowedFd<'_>, path: &CStr, folder: bool) -> Result<()> {
    let (flags, shown) = if folder { (AtFlags::REMOVEDIR, "AT_REMOVEDIR") } else { (AtFlags::empty(), "0") };
    call("unlinkat", &[Arg::fd(&dir), Arg::cstr(path), Arg::Text(shown)], || rustix::fs::unlinkat(dir, path, flags))
}

/// `symlinkat(2)`: `path` in `dir` becomes a link that says `target`.
pub fn symlinkat(target: &CStr, dir: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    call("symlinkat", &[Arg::cstr(target), Arg::fd(&dir), Arg::cstr(path)], || {
        rustix::fs::symlinkat(target, dir, path)
    })
}

/// `linkat(2)` without following a symlink at the end of `from_path`.
pub fn linkat(from: BorrowedFd<'_>, from_path: &CStr, to: BorrowedFd<'_>, to_path: &CStr) -> Result<()> {
    call("linkat", &[Arg::fd(&from), Arg::cstr(from_path), Arg::fd(&to), Arg::cstr(to_path), Arg::Int(0)], || {
        rustix::fs::linkat(from, from_path, to, to_path, AtFlags::empty())
    })
}

/// `mknodat(2)` of a device, FIFO or socket.
pub fn mknodat(dir: BorrowedFd<'_>, path: &CStr, kind: FileType, mode: u32, device: (u32, u32)) -> Result<()> {
    let number = format!("makedev({}, {})", device.0, device.1);
    let of_kind = match kind {
        FileType::CharacterDevice => "S_IFCHR",
        FileType::BlockDevice => "S_IFBLK",
        FileType::Fifo => "S_IFIFO",
        FileType::Socket => "S_IFSOCK",
        _ => "S_IFREG",
    };
    call(
        "mknodat",
        &[Arg::fd(&dir), Arg::cstr(path), Arg::Text(of_kind), Arg::Mode(mode), Arg::Text(&number)],
        || {
            let device = rustix::fs::makedev(device.0, device.1);
            rustix::fs::mknodat(dir, path, kind, Mode::from_raw_mode(mode), device)
        },
    )
}

/// `renameat2(2)` without flags.
pub fn renameat(from: BorrowedFd<'_>, from_path: &CStr, to: BorrowedFd<'_>, to_path: &CStr) -> Result<()> {
    call("renameat", &[Arg::fd(&from), Arg::cstr(from_path), Arg::fd(&to), Arg::cstr(to_path)], || {
        rustix::fs::renameat(from, from_path, to, to_path)
    })
}

/// `fchown(2)` on a handle, which may be `O_PATH`.
pub fn chown_handle(file: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    call("fchownat", &[Arg::fd(&file), Arg::Str(b""), Arg::Int(uid.into()), Arg::Int(gid.into())], || {
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(file, c"", owner.0, owner.1, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)
    })
}

/// `fchownat(2)` of one name, never through a symlink.
pub fn chownat(dir: BorrowedFd<'_>, path: &CStr, uid: u32, gid: u32) -> Result<()> {
    call("fchownat", &[Arg::fd(&dir), Arg::cstr(path), Arg::Int(uid.into()), Arg::Int(gid.into())], || {
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(dir, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
    })
}

/// `fchmod(2)`.
pub fn fchmod(file: BorrowedFd<'_>, mode: u32) -> Result<()> {
    call("fchmod", &[Arg::fd(&file), Arg::Mode(mode)], || rustix::fs::fchmod(file, Mode::from_raw_mode(mode)))
}

/// `fstat(2)`.
pub fn fstat(file: BorrowedFd<'_>) -> Result<Stat> {
    let mut stat = None;
    call("fstat", &[Arg::fd(&file)], || {
        stat = Some(rustix::fs::fstat(file)?);
        Ok(())
    })?;
    stat.ok_or_else(|| crate::Error::new("fstat", "", crate::Errno::IO))
}

/// Whether `file` is in a procfs.
pub fn is_procfs(file: BorrowedFd<'_>) -> Result<bool> {
    Ok(magic(file)? == rustix::fs::PROC_SUPER_MAGIC)
}

/// `fstatfs(2)`: the number of the kind of file system that `file` is in.
pub(crate) fn magic(file: BorrowedFd<'_>) -> Result<i64> {
    call("fstatfs", &[Arg::fd(&file)], || rustix::fs::fstatfs(file).map(|stat| stat.f_type))
}

/// `fstatat(2)`, links followed: those of /proc, for example, to what they stand for.
pub fn stat_at(dir: BorrowedFd<'_>, path: &CStr) -> Result<Stat> {
    let mut stat = None;
    call("newfstatat", &[Arg::fd(&dir), Arg::cstr(path), Arg::Int(0)], || {
        stat = Some(rustix::fs::statat(dir, path, AtFlags::empty())?);
        Ok(())
    })?;
    stat.ok_or_else(|| crate::Error::new("newfstatat", "", crate::Errno::IO))
}

/// `fstatat(2)` without following a symlink at the end.
pub fn lstatat(dir: BorrowedFd<'_>, path: &CStr) -> Result<Stat> {
    let mut stat = None;
    call("newfstatat", &[Arg::fd(&dir), Arg::cstr(path), Arg::Text("AT_SYMLINK_NOFOLLOW")], || {
        stat = Some(rustix::fs::statat(dir, path, AtFlags::SYMLINK_NOFOLLOW)?);
        Ok(())
    })?;
    stat.ok_or_else(|| crate::Error::new("newfstatat", "", crate::Errno::IO))
}

/// `write(2)` of all of `data` in one call, as kernel files want it.
///
/// # Errors
/// The kernel's; a short write is `EIO`.
pub fn write(file: BorrowedFd<'_>, data: &[u8]) -> Result<()> {
    let args = [Arg::fd(&file), Arg::Str(data), Arg::Int(data.len() as i64)];
    let written = call("write", &args, || rustix::io::retry_on_intr(|| rustix::io::write(file, data)))?;
    if written != data.len() {
        return Err(crate::Error::new(
            "write",
            format!("{}, {} bytes", file.as_raw_fd(), data.len()),
            crate::Errno::IO,
        ));
    }
    Ok(())
}

/// `sync_file_range(2)` with `SYNC_FILE_RANGE_WRITE`: the disk begins to write these bytes of a file, and nobody waits for it. Whether it
/// could is told by the sync that has to come in the end.
pub fn begin_write_out(file: BorrowedFd<'_>, from: u64, length: u64) -> Result<()> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let (from, length, flag) = (number(from), number(length), libc::SYNC_FILE_RANGE_WRITE);
    let args = [Arg::fd(&file), Arg::Int(from), Arg::Int(length), Arg::Text("SYNC_FILE_RANGE_WRITE")];
    call("sync_file_range", &args, || {
        // SAFETY: the call takes numbers, and changes no memory.
        crate::process::check(i64::from(unsafe { libc::sync_file_range(file.as_raw_fd(), from, length, flag) }))
            .map(drop)
    })
}

/// Copies the rest of `from` to `to`; shown as one call.
pub fn copy_all(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    call("sendfile", &[Arg::fd(&to), Arg::fd(&from), Arg::Text("NULL")], || {
        const CHUNK: usize = 1 << 30;
        while rustix::io::retry_on_intr(|| rustix::fs::sendfile(to, from, None, CHUNK))? > 0 {}
        Ok(())
    })
}

/// `readlinkat(2)`.
pub fn readlinkat(dir: BorrowedFd<'_>, path: &CStr) -> Result<CString> {
    let mut link = CString::default();
    call("readlinkat", &[Arg::fd(&dir), Arg::cstr(path)], || {
        link = rustix::fs::readlinkat(dir, path, Vec::new())?;
        Ok(())
    })?;
    Ok(link)
}

/// Opens an existing kernel file below `dir` and writes `data` to it in one `write(2)`.
pub fn write_file(dir: BorrowedFd<'_>, path: &CStr, data: &[u8]) -> Result<()> {
    let file = openat(dir, path, OFlags::WRONLY | OFlags::NOFOLLOW, 0)?;
    write(file.as_fd(), data)
}

/// `fsetxattr(2)`: gives a file an attribute, or another value of it.
pub fn set_attribute(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    let args = [Arg::fd(&file), Arg::cstr(name), Arg::Str(value), Arg::Int(value.len() as i64), Arg::Int(0)];
    call("fsetxattr", &args, || rustix::fs::fsetxattr(file, name, value, flags))
}

/// Reads a small file below `dir` whole; what is beyond `limit` bytes is an `EFBIG`.
pub fn read_file(dir: BorrowedFd<'_>, path: &CStr, limit: usize) -> Result<Vec<u8>> {
    let file = openat(dir, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0)?;
    read_all(file.as_fd(), limit)
}

/// Reads a descriptor to its end; what is beyond `limit` bytes is an `EFBIG`.
pub fn read_all(file: BorrowedFd<'_>, limit: usize) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    call("read", &[Arg::fd(&file)], || {
        let mut chunk = [0u8; 4096];
        loop {
            let count = rustix::io::retry_on_intr(|| rustix::io::read(file, &mut chunk))?;
            if count == 0 {
                return Ok(data.len());
            }
            data.extend_from_slice(&chunk[..count]);
            if data.len() > limit {
                return Err(crate::Errno::FBIG);
            }
        }
    })?;
    Ok(data)
}
