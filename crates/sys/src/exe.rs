//! The program's own file, out of a container's reach.
//!
//! A container's command may be `/proc/self/exe`, or name that as its interpreter. Then it is this program, and what is
//! opened through its `/proc/PID/exe` is the file that the host executes next time (CVE-2019-5736). So before anything of
//! ours enters a container, that link is led to the same file on a mount that is read-only and in nobody's mount
//! namespace: no right in a container makes that writable. Where this is refused the program executes itself again from
//! a sealed copy in memory, which costs the time of a second start.
//!
//! Sources: `open_tree(2)`, `mount_setattr(2)`, `PR_SET_MM(2const)`, `memfd_create(2)`, `elf(5)`.

use std::ffi::{CString, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{CWD, MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags};

use crate::call::{Arg, Error, Result, call};
use crate::mount::{self, MountAttr, MountAttrFlags};
use crate::{fs, ns, process};

/// The file where it cannot be written.
static FILE: OnceLock<OwnedFd> = OnceLock::new();

/// The mount that it was opened through.
static MOUNT: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Whether [`seal`] has done its work, here or before the clone.
pub fn is_sealed() -> bool {
    FILE.get().is_some()
}

/// Leads `/proc/self/exe` of this process, and of all that it clones, to where the file cannot be written.
///
/// To be called before anything has been done: it may execute the program again, from its beginning.
///
/// # Errors
/// Neither way is there: the call that was refused last. `EBUSY` if there is more than one thread.
pub fn seal() -> Result<()> {
    if is_sealed() {
        return Ok(());
    }
    let file = match read_only().and_then(move_to) {
        Ok(file) => file,
        Err(_) => sealed_copy()?,
    };
    // One thread, and it was empty above.
    FILE.get_or_init(|| file);
    Ok(())
}

/// The sealed file itself, which [`execute`] needs.
pub fn file() -> Option<BorrowedFd<'static>> {
    FILE.get().map(AsFd::as_fd)
}

/// Executes this program's own file, by its descriptor: no path has to lead to it. Comes back only with an error.
pub fn execute(argv: &[CString], env: &[CString]) -> Error {
    match FILE.get() {
        Some(file) => process::execveat(file.as_fd(), argv, env),
        None => Error::new("execveat", "-1, \"\"", Errno::BADF),
    }
}

/// Closes the mount that [`seal`] has made. It has to have gone in this process and in its clones before anything of a
/// container's can look at one of them: as long as it is in the namespace that a descriptor gives it, whoever is root of any
/// user namespace may make it writable by `/proc/PID/exe`.
///
/// The kernel waits for a grace period when a mount goes, 60 microseconds and more, so this is for when the process would wait
/// anyway; where a clone has the mount as well only the last of the two waits.
pub fn let_go() {
    drop(MOUNT.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// The file, opened through a read-only mount that only this descriptor leads to.
fn read_only() -> Result<OwnedFd> {
    let tree = mount::open_tree_itself(CWD, c"/proc/self/exe", mount::OpenTreeFlags::OPEN_TREE_CLONE)?;
    let attr = MountAttr { set: u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()), ..MountAttr::default() };
    mount::mount_setattr_itself(tree.as_fd(), c"", false, attr)?;
    let path = CString::new(format!("/proc/self/fd/{}", tree.as_raw_fd())).unwrap_or_default();
    let file = fs::openat(CWD, &path, OFlags::RDONLY, 0)?;
    *MOUNT.lock().unwrap_or_else(PoisonError::into_inner) = Some(tree);
    Ok(file)
}

/// Makes `file`, the same file by another way, the one that this process executes.
fn move_to(file: OwnedFd) -> Result<OwnedFd> {
    // Others could write while their pages are copied.
    if ns::threads() != Some(1) {
        return Err(Error::new("mremap", "", Errno::BUSY));
    }
    segments().iter().try_for_each(|segment| segment.leave_for(file.as_fd()))?;
    set_exe_file(file.as_fd())?;
    Ok(file)
}

/// A copy that nobody can write to. If this process is not executing it yet, it does now, from the beginning.
fn sealed_copy() -> Result<OwnedFd> {
    let own = fs::openat(CWD, c"/proc/self/exe", OFlags::RDONLY, 0)?;
    if rustix::fs::fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SealFlags::WRITE | SealFlags::SEAL)) {
        // What was missing the first time is known from the start now.
        mount::look_for_setattr();
        return Ok(own);
    }
    let copy = call("memfd_create", &[Arg::Str(b"hull"), Arg::Text("MFD_CLOEXEC|MFD_ALLOW_SEALING")], || {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        match rustix::fs::memfd_create(c"hull", flags | MemfdFlags::EXEC) {
            // Before Linux 6.3 all can be executed.
            Err(Errno::INVAL) => rustix::fs::memfd_create(c"hull", flags),
            other => other,
        }
    })?;
    fs::copy_all(own.as_fd(), copy.as_fd())?;
    call(
        "fcntl",
        &[Arg::fd(&copy), Arg::Text("F_ADD_SEALS, F_SEAL_SEAL|F_SEAL_SHRINK|F_SEAL_GROW|F_SEAL_WRITE")],
        || {
            let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
            rustix::fs::fcntl_add_seals(&copy, seals)
        },
    )?;
    // What came from the system has no NUL inside.
    let text = |bytes: Vec<u8>| CString::new(bytes).unwrap_or_default();
    let argv: Vec<CString> = std::env::args_os().map(|word| text(word.into_vec())).collect();
    let env: Vec<CString> = std::env::vars_os()
        .map(|(name, value)| text([name.into_vec(), b"=".to_vec(), value.into_vec()].concat()))
        .collect();
    Err(process::execveat(copy.as_fd(), &argv, &env))
}

/// `struct prctl_mm_map`: where the parts of a process are, as /proc shows them, and its file.
#[repr(C)]
struct MemoryMap {
    code: [u64; 2],
    data: [u64; 2],
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arguments: [u64; 2],
    environment: [u64; 2],
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// The kernel leads the link elsewhere once nothing of the old file is mapped any more.
///
/// `PR_SET_MM_EXE_FILE` takes CAP_SYS_RESOURCE in the first user namespace, `PR_SET_MM_MAP` CAP_SYS_ADMIN in the one that we
/// are in, and all the other values, which stay what they are.
fn set_exe_file(file: BorrowedFd<'_>) -> Result<()> {
    const NONE: libc::c_ulong = 0;
    const PR_SET_MM_EXE_FILE: libc::c_ulong = 13;
    const PR_SET_MM_MAP: libc::c_ulong = 14;
    let alone = call("prctl", &[Arg::Text("PR_SET_MM"), Arg::Text("PR_SET_MM_EXE_FILE"), Arg::fd(&file)], || {
        // SAFETY: a descriptor is all that it takes.
        let answer = unsafe {
            libc::prctl(libc::PR_SET_MM, PR_SET_MM_EXE_FILE, file.as_raw_fd() as libc::c_ulong, NONE, NONE)
        };
        process::check(i64::from(answer)).map(drop)
    });
    if alone.is_ok() {
        return Ok(());
    }
    let stat = fs::read_file(CWD, c"/proc/self/stat", 4096)?;
    // The second field is a name in parentheses, which may hold anything.
    let after = stat.rsplit(|byte| *byte == b')').next().unwrap_or_default();
    let fields: Vec<u64> =
        String::from_utf8_lossy(after).split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    // As proc_pid_stat(5) numbers them. A field that is not there is an address that the kernel refuses.
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    // SAFETY: an address that cannot be one makes this a question.
    let brk = unsafe { libc::syscall(libc::SYS_brk, 0) } as u64;
    let map = MemoryMap {
        code: [field(26), field(27)],
        data: [field(45), field(46)],
        start_brk: field(47),
        brk,
        start_stack: field(28),
        arguments: [field(48), field(49)],
        environment: [field(50), field(51)],
        auxv: 0,
        auxv_size: 0,
        exe_fd: file.as_raw_fd() as u32,
    };
    let (text, size) = (format!("{{exe_fd={}, ...}}", map.exe_fd), size_of::<MemoryMap>());
    let args = [Arg::Text("PR_SET_MM"), Arg::Text("PR_SET_MM_MAP"), Arg::Text(&text), Arg::Int(size as i64)];
    call("prctl", &args, || {
        // SAFETY: the structure is the kernel's, with the size that is given; its values are those in force.
        let answer = unsafe { libc::prctl(libc::PR_SET_MM, PR_SET_MM_MAP, &raw const map, size, 0) };
        process::check(i64::from(answer)).map(drop)
    })
}

/// One loaded part of the program, in whole pages.
struct Segment {
    start: *mut c_void,
    length: usize,
    offset: u64,
    protection: ProtFlags,
    /// The part that was made read-only once its addresses were filled in.
    filled: Option<(*mut c_void, usize)>,
}

/// What the program headers say is mapped from the file.
fn segments() -> Vec<Segment> {
    use libc::{AT_PAGESZ, AT_PHDR, AT_PHNUM, Elf64_Phdr, PF_R, PF_W, PF_X, PT_GNU_RELRO, PT_LOAD, PT_PHDR};
    // SAFETY: the kernel says where the headers are and how many; they are part of the program and never change.
    let (headers, page) = unsafe {
        let first: *const Elf64_Phdr = ptr::with_exposed_provenance(libc::getauxval(AT_PHDR) as usize);
        (std::slice::from_raw_parts(first, libc::getauxval(AT_PHNUM) as usize), libc::getauxval(AT_PAGESZ))
    };
    let of_kind = |kind| headers.iter().filter(move |header| header.p_type == kind);
    let shift = of_kind(PT_PHDR).next().map_or(0, |header| headers.as_ptr() as u64 - header.p_vaddr);
    let place = |from: u64, to: u64| -> (*mut c_void, usize) {
        (ptr::with_exposed_provenance_mut((shift + from) as usize), to.saturating_sub(from) as usize)
    };
    let down = |at: u64| at / page * page;
    let up = |at: u64| at.next_multiple_of(page);
    let filled =
        of_kind(PT_GNU_RELRO).next().map(|header| (down(header.p_vaddr), down(header.p_vaddr + header.p_memsz)));
    let segment = |header: &Elf64_Phdr| {
        let (from, to) = (down(header.p_vaddr), up(header.p_vaddr + header.p_filesz));
        let (start, length) = place(from, to);
        let filled = filled.filter(|part| from <= part.0 && part.0 < part.1 && part.1 <= to);
        let mut protection = ProtFlags::empty();
        protection.set(ProtFlags::READ, header.p_flags & PF_R != 0);
        protection.set(ProtFlags::WRITE, header.p_flags & PF_W != 0);
        protection.set(ProtFlags::EXEC, header.p_flags & PF_X != 0);
        let filled = filled.map(|(from, to)| place(from, to));
        Segment { start, length, offset: down(header.p_offset), protection, filled }
    };
    let mut all: Vec<Segment> = Vec::new();
    for next in of_kind(PT_LOAD).filter(|header| header.p_filesz > 0).map(segment) {
        match all.last_mut() {
            // What is copied is copied at once.
            Some(last) if last.is_copied() && next.is_copied() && last.end() == next.start.addr() => {
                last.length += next.length;
                last.filled = last.filled.or(next.filled);
            }
            _ => all.push(next),
        }
    }
    all
}

impl Segment {
    fn is_copied(&self) -> bool {
        self.protection.contains(ProtFlags::WRITE)
    }

    fn end(&self) -> usize {
        self.start.addr() + self.length
    }

    /// Maps the same bytes in place of the old file's: those of `file`, or a copy of what may have been written.
    fn leave_for(&self, file: BorrowedFd<'_>) -> Result<()> {
        if !self.is_copied() {
            return self.map(file);
        }
        self.copy()?;
        let Some((start, length)) = self.filled else { return Ok(()) };
        call("mprotect", &[Arg::Hex(start as u64), Arg::Int(length as i64), Arg::Text("PROT_READ")], || {
            // SAFETY: these pages had this protection before they were copied.
            unsafe { rustix::mm::mprotect(start, length, MprotectFlags::READ) }
        })
    }

    fn map(&self, file: BorrowedFd<'_>) -> Result<()> {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        let args = [
            Arg::Hex(self.start as u64),
            Arg::Int(self.length as i64),
            Arg::Prefixed("PROT_", &self.protection),
            Arg::Prefixed("MAP_", &flags),
            Arg::fd(&file),
            Arg::Hex(self.offset),
        ];
        call("mmap", &args, || {
            // SAFETY: pages that are never written are replaced, in one step, by the same bytes of the same file.
            unsafe { rustix::mm::mmap(self.start, self.length, self.protection, flags, file, self.offset) }.map(drop)
        })
    }

    fn copy(&self) -> Result<()> {
        let (length, to) = (Arg::Int(self.length as i64), Arg::Hex(self.start as u64));
        call("mremap", &[Arg::Text("..."), length, length, Arg::Text("MREMAP_MAYMOVE|MREMAP_FIXED"), to], || {
            let readable = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: the copy is a new mapping at a place of the kernel's choice. There is one thread, and nothing
            // between the copy and the move allocates or writes to a static, so the same bytes come in their place.
            unsafe {
                let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
                let copy = rustix::mm::mmap_anonymous(ptr::null_mut(), self.length, readable, flags)?;
                ptr::copy_nonoverlapping(self.start.cast::<u8>(), copy.cast(), self.length);
                rustix::mm::mremap_fixed(copy, self.length, self.length, MremapFlags::MAYMOVE, self.start).map(drop)
            }
        })
    }
}
