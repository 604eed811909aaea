//! Notice of a container that runs out of memory.
//!
//! v1 tells an event descriptor (`cgroup-v1/memory.rst`, "OOM Control"); v2 counts in `memory.events`, whose changes
//! inotify(7) sees.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hull_sys::fs;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};

use super::group::Group;
use super::host::Version;
use super::live::Cgroup;
use crate::error::{Doing, Error, Result};

const DOING: &str = "watch for the end of memory";

/// Tells that memory has run out; readable when there may be something to tell.
#[derive(Debug)]
pub struct OutOfMemory<'a> {
    notice: OwnedFd,
    /// v2's group, and how often it was killed for its memory as far as that was told.
    counted: Option<(&'a Group, u64)>,
}

impl Cgroup {
    /// Watches for the end of the container's memory.
    ///
    /// # Errors
    /// Its memory is not counted here.
    pub fn watch_memory(&self) -> Result<OutOfMemory<'_>> {
        let memory = |group: &&Group| group.hierarchy.controllers.iter().any(|name| name == "memory");
        let group = self.groups.iter().find(memory);
        let group = group.ok_or_else(|| Error::invalid(DOING, "the container is in no group that counts memory"))?;
        match group.hierarchy.version {
            Version::V1 => Ok(OutOfMemory { notice: event(group)?, counted: None }),
            Version::V2 => {
                let notice = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
                let notice = notice.map_err(|error| Error::setup(DOING, error))?;
                // First the watch, then the count: what comes between is seen twice, and told once.
                inotify::add_watch(&notice, group.path.join("memory.events"), WatchFlags::MODIFY)
                    .map_err(|error| Error::setup(DOING, error))?;
                Ok(OutOfMemory { notice, counted: Some((group, kills(group).unwrap_or_default())) })
            }
        }
    }
}

/// An event descriptor that v1's kernel adds to whenever the group's memory is at its end.
fn event(group: &Group) -> Result<OwnedFd> {
    let notice = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let notice = notice.map_err(|error| Error::setup(DOING, error))?;
    let folder = group.folder().doing(|| DOING.to_owned())?;
    let control = rustix::fs::openat(folder, c"memory.oom_control", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let control = control.map_err(|error| Error::setup(DOING, error))?;
    let line = format!("{} {}", notice.as_raw_fd(), control.as_raw_fd());
    let file = group.open("cgroup.event_control").doing(|| DOING.to_owned())?;
    fs::write(file.as_fd(), line.as_bytes()).doing(|| DOING.to_owned())?;
    Ok(notice)
}

/// How often something in the group was killed for its memory.
fn kills(group: &Group) -> Option<u64> {
    let text = group.text("memory.events").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

impl OutOfMemory<'_> {
    /// Readable when [`OutOfMemory::happened`] may have something to tell.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.notice.as_fd()
    }

    /// How often it has happened since the last call. A group that is gone has nothing more to tell.
    pub fn happened(&mut self) -> u64 {
        let Some((group, told)) = &mut self.counted else {
            let mut count = [0; 8];
            // Nothing to read: nothing has happened.
            return rustix::io::read(&self.notice, &mut count).map_or(0, |_| u64::from_ne_bytes(count));
        };
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut events = inotify::Reader::new(&self.notice, &mut buffer);
        while events.next().is_ok() {}
        let now = kills(group).unwrap_or(*told);
        let new = now.saturating_sub(*told);
        *told = now;
        new
    }
}
