//! What `--explain` hears: every call of this crate, in one order, from the parent and the container's first process.
//!
//! The events lie in one shared anonymous mapping, so that the child's reach the parent also when seccomp and exec
//! have closed every other way, and so that a record which is begun but never ended (a successful `execve`) is still
//! there. Nothing is allocated and nothing is mapped until [`enable`] is called; until then a call costs one relaxed
//! load more. The mapping does not survive `execve`: the payload cannot see it.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::call::{Arg, join};

/// Room for the events between two calls of [`drain`]; only pages that are written take memory.
const CAPACITY: usize = 64 << 20;

/// Which of our processes made a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// The process that was started as `hull`.
    Parent = 0,
    /// The container's first process, until it executes the payload.
    Child = 1,
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// One system call.
    Call = 0,
    /// The beginning of a stage of the story: `name` is its title, `args` its reason.
    Stage = 1,
    /// A path resolved inside a root (several `openat2` at most): `name` is the operation.
    Walk = 2,
}

/// One event of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is.
    pub kind: Kind,
    /// Who did it.
    pub role: Role,
    /// The kernel's name of the call, the stage's title, or the walk's operation.
    pub name: String,
    /// The arguments as text, or the stage's reason.
    pub args: String,
    /// When it began, in nanoseconds since [`enable`].
    pub start: u64,
    /// How long it took, in nanoseconds.
    pub duration: u64,
    /// What the kernel answered; `None` if the process ended inside the call.
    pub result: Option<Result<i64, Errno>>,
}

#[repr(C)]
struct Header {
    /// The first free byte.
    cursor: AtomicU64,
    /// Events that found no room.
    dropped: AtomicU64,
    /// The clock when the log was made.
    epoch: u64,
}

#[repr(C)]
struct Record {
    start: u64,
    duration: AtomicU64,
    result: AtomicU64,
    errno: AtomicU32,
    state: AtomicU32,
    name_len: u32,
    args_len: u32,
    kind: u8,
    role: u8,
}

const PENDING: u32 = 1;
const DONE: u32 = 2;

static LOG: AtomicPtr<Header> = AtomicPtr::new(ptr::null_mut());
static ROLE: AtomicU8 = AtomicU8::new(Role::Parent as u8);

/// Whether somebody listens.
#[inline(always)]
pub fn enabled() -> bool {
    !LOG.load(Ordering::Relaxed).is_null()
}

/// Starts the log. Calls before it are not seen.
///
/// # Errors
/// `mmap(2)`'s, if there is no room for the mapping.
pub fn enable() -> Result<(), Errno> {
    if enabled() {
        return Ok(());
    }
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let memory = unsafe {
        rustix::mm::mmap_anonymous(
            ptr::null_mut(),
            CAPACITY,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::NORESERVE,
        )?
    };
    let header: *mut Header = memory.cast();
    // SAFETY: the mapping is page aligned, zeroed, larger than a header and not shared with anybody yet.
    unsafe {
        (*header).cursor = AtomicU64::new(size_of::<Header>() as u64);
        (*header).epoch = now();
    }
    LOG.store(header, Ordering::Release);
    Ok(())
}

/// Says which process this is; called once, right after the clone, by the child.
pub fn set_role(role: Role) {
    ROLE.store(role as u8, Ordering::Relaxed);
}

/// Tells the beginning of a stage: what happens now, and why.
pub fn stage(title: &str, why: &str) {
    if enabled() {
        push_instant(Kind::Stage, title, why);
    }
}

#[cold]
fn push_instant(kind: Kind, name: &str, args: &str) {
    if let Some(pending) = reserve(kind, name, args) {
        pending.end(Ok(0));
    }
}

/// An event that has begun.
pub(crate) struct Pending(NonNull<Record>);

impl Pending {
    /// Writes what came of it.
    pub(crate) fn end(self, result: Result<i64, Errno>) {
        // SAFETY: records are never moved or unmapped, and their fields are atomics.
        let record = unsafe { self.0.as_ref() };
        settle(record, result);
    }
}

fn settle(record: &Record, result: Result<i64, Errno>) {
    record.duration.store(now().saturating_sub(record.start), Ordering::Relaxed);
    match result {
        Ok(number) => record.result.store(number as u64, Ordering::Relaxed),
        Err(errno) => record.errno.store(errno.raw_os_error() as u32, Ordering::Relaxed),
    }
    record.state.store(DONE, Ordering::Release);
}

#[cold]
pub(crate) fn begin(name: &str, args: &[Arg<'_>]) -> Option<Pending> {
    reserve(Kind::Call, name, &join(args))
}

#[cold]
pub(crate) fn begin_walk(operation: &str, path: &str) -> Option<Pending> {
    reserve(Kind::Walk, operation, path)
}

fn reserve(kind: Kind, name: &str, args: &str) -> Option<Pending> {
    let header = NonNull::new(LOG.load(Ordering::Acquire))?;
    let length = (size_of::<Record>() + name.len() + args.len()).next_multiple_of(align_of::<Record>());
    // SAFETY: the header is mapped for as long as the process lives.
    let log = unsafe { header.as_ref() };
    let offset = log.cursor.fetch_add(length as u64, Ordering::Relaxed) as usize;
    if offset + length > CAPACITY {
        log.dropped.fetch_add(1, Ordering::Relaxed);
        return None;
    }
    // SAFETY: [offset, offset + length) was handed to nobody else, lies inside the mapping and is aligned.
    unsafe {
        let record: *mut Record = header.as_ptr().cast::<u8>().add(offset).cast();
        record.write(Record {
            start: now(),
            duration: AtomicU64::new(0),
            result: AtomicU64::new(0),
            errno: AtomicU32::new(0),
            state: AtomicU32::new(0),
            name_len: name.len() as u32,
            args_len: args.len() as u32,
            kind: kind as u8,
            role: ROLE.load(Ordering::Relaxed),
        });
        let text: *mut u8 = record.add(1).cast();
        ptr::copy_nonoverlapping(name.as_ptr(), text, name.len());
        ptr::copy_nonoverlapping(args.as_ptr(), text.add(name.len()), args.len());
        (*record).state.store(PENDING, Ordering::Release);
        NonNull::new(record).map(Pending)
    }
}

/// Tells the log that the child's `execve` succeeded: the call itself never comes back to say so.
pub fn exec_succeeded() {
    for record in records() {
        if record.state.load(Ordering::Acquire) == PENDING && record.name().starts_with("execve") {
            settle(record, Ok(0));
        }
    }
}

/// Takes all events, in the order in which they began, and how many found no room.
///
/// To be called while no child of ours can write: before a clone, or after the child has ended or has executed.
pub fn drain() -> (Vec<Event>, u64) {
    let Some(mut header) = NonNull::new(LOG.load(Ordering::Acquire)) else { return (Vec::new(), 0) };
    // SAFETY: the header is mapped for as long as the process lives.
    let log = unsafe { header.as_ref() };
    let epoch = log.epoch;
    let mut events: Vec<Event> = records().map(|record| record.event(epoch)).collect();
    events.sort_by_key(|event| event.start);
    let dropped = log.dropped.swap(0, Ordering::Relaxed);
    // SAFETY: nobody writes now (the contract above), so the exclusive reference is the only one.
    unsafe { header.as_mut() }.cursor = AtomicU64::new(size_of::<Header>() as u64);
    (events, dropped)
}

impl Record {
    fn text(&self) -> (&str, &str) {
        // SAFETY: `reserve` wrote both texts, which were valid UTF-8, behind the record before it made it visible.
        unsafe {
            let start: *const u8 = ptr::from_ref(self).add(1).cast();
            let name = std::slice::from_raw_parts(start, self.name_len as usize);
            let args = std::slice::from_raw_parts(start.add(self.name_len as usize), self.args_len as usize);
            (std::str::from_utf8_unchecked(name), std::str::from_utf8_unchecked(args))
        }
    }

    fn name(&self) -> &str {
        self.text().0
    }

    fn event(&self, epoch: u64) -> Event {
        let (name, args) = self.text();
        let errno = self.errno.load(Ordering::Relaxed);
        let result = (self.state.load(Ordering::Acquire) == DONE).then(|| match errno {
            0 => Ok(self.result.load(Ordering::Relaxed) as i64),
            errno => Err(Errno::from_raw_os_error(errno as i32)),
        });
        Event {
            kind: [Kind::Call, Kind::Stage, Kind::Walk][usize::from(self.kind)],
            role: if self.role == Role::Parent as u8 { Role::Parent } else { Role::Child },
            name: name.to_owned(),
            args: args.to_owned(),
            start: self.start.saturating_sub(epoch),
            duration: self.duration.load(Ordering::Relaxed),
            result,
        }
    }
}

/// The records that are whole, in the order of their places.
fn records() -> impl Iterator<Item = &'static Record> {
    let header = LOG.load(Ordering::Acquire);
    let mut offset = size_of::<Header>();
    let end = match NonNull::new(header) {
        // SAFETY: the header is mapped for as long as the process lives.
        Some(header) => unsafe { header.as_ref() }.cursor.load(Ordering::Acquire) as usize,
        None => 0,
    };
    std::iter::from_fn(move || {
        if offset + size_of::<Record>() > end.min(CAPACITY) {
            return None;
        }
        // SAFETY: `reserve` left a record at each offset that the lengths lead to; a zeroed one ends the walk below.
        let record: &'static Record = unsafe { &*header.cast::<u8>().add(offset).cast::<Record>() };
        if record.state.load(Ordering::Acquire) == 0 {
            return None;
        }
        let length = size_of::<Record>() + record.name_len as usize + record.args_len as usize;
        offset += length.next_multiple_of(align_of::<Record>());
        Some(record)
    })
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
