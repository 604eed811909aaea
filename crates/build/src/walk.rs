//! One way through a folder's files, by descriptors, in one order: what hashes a COPY's source and what copies it see
//! the same files.
//!
//! Nothing is followed: a symlink is shown as itself, and a file is opened below its folder's descriptor without
//! following one, so that a name exchanged meanwhile is an error and not another file.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hull_sys::fs::{self, Stat};
use hull_sys::{Errno, Error, Result};
use rustix::fs::{FileType, OFlags};

use crate::context::ignore::{Ignore, State};

/// Something found on the way.
pub struct Entry<'a> {
    /// Its path below the folder the walk began in.
    pub path: &'a Path,
    /// Its last part.
    pub name: &'a CStr,
    /// What it is.
    pub stat: &'a Stat,
}

impl Entry<'_> {
    /// Its kind.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Who is shown what is found.
pub trait Visitor {
    /// A folder; what follows is in it until [`Visitor::leave`].
    fn enter(&mut self, entry: &Entry<'_>, folder: BorrowedFd<'_>) -> Result<()>;
    /// The end of the folder entered last.
    fn leave(&mut self) -> Result<()>;
    /// A regular file, open for reading.
    fn file(&mut self, entry: &Entry<'_>, file: BorrowedFd<'_>) -> Result<()>;
    /// A symlink and what it says.
    fn link(&mut self, entry: &Entry<'_>, target: &CStr) -> Result<()>;
    /// A device or FIFO. Sockets are passed over: they mean nothing without their process.
    fn special(&mut self, entry: &Entry<'_>) -> Result<()>;
}

/// What of a folder is seen.
#[derive(Clone, Default)]
pub struct Filter<'a> {
    /// The rules, if there are any.
    pub ignore: Option<&'a Ignore>,
    /// The folder's own state.
    pub state: State,
    /// The folder's path as the rules see it, empty for the context's root.
    pub path: String,
}

/// Shows `visitor` all that is in `folder`, sorted by name, folders before what is in them.
///
/// # Errors
/// The first failed call, its path named; the visitor's.
pub fn contents(folder: OwnedFd, filter: &Filter<'_>, visitor: &mut dyn Visitor) -> Result<()> {
    let mut walk = Walk { ignore: filter.ignore, visitor, path: PathBuf::new(), waiting: Vec::new() };
    walk.folder(folder, &filter.state, &filter.path)
}

struct Walk<'a> {
    ignore: Option<&'a Ignore>,
    visitor: &'a mut dyn Visitor,
    path: PathBuf,
    /// Excluded folders on the way here: shown only when something in them is included.
    waiting: Vec<Waiting>,
}

struct Waiting {
    path: PathBuf,
    name: CString,
    stat: Stat,
    folder: OwnedFd,
}

impl Walk<'_> {
    fn folder(&mut self, folder: OwnedFd, state: &State, shown: &str) -> Result<()> {
        for name in names(folder.as_fd())? {
            let text = name.to_string_lossy();
            let shown = if shown.is_empty() { text.into_owned() } else { format!("{shown}/{text}") };
            let state = self.ignore.map_or_else(State::default, |ignore| ignore.enter(state, &shown));
            let excluded = self.ignore.is_some_and(|ignore| ignore.excludes(&state));
            let back = self.ignore.is_some_and(Ignore::may_take_back);
            if excluded && !back {
                continue;
            }
            self.path.push(std::ffi::OsStr::from_bytes(name.to_bytes()));
            self.entry(folder.as_fd(), &name, excluded, &state, &shown)?;
            self.path.pop();
        }
        Ok(())
    }

    fn entry(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        excluded: bool,
        state: &State,
        shown: &str,
    ) -> Result<()> {
        let stat = fs::lstatat(folder, name)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let below = open_checked(folder, name, &stat, OFlags::DIRECTORY)?;
            let inner = fs::openat(below.as_fd(), c".", OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
            let depth = self.waiting.len();
            self.waiting.push(Waiting { path: self.path.clone(), name: name.to_owned(), stat, folder: below });
            if !excluded {
                self.show_waiting()?;
            }
            self.folder(inner, state, shown)?;
            // Still waiting: nothing in it was included, and it was never shown.
            if self.waiting.len() > depth {
                self.waiting.truncate(depth);
                return Ok(());
            }
            return self.visitor.leave();
        }
        if excluded {
            return Ok(());
        }
        self.show_waiting()?;
        let entry = Entry { path: &self.path, name, stat: &stat };
        match kind {
            FileType::RegularFile => {
                let file = open_checked(folder, name, &stat, OFlags::empty())?;
                self.visitor.file(&entry, file.as_fd())
            }
            FileType::Symlink => {
                let target = read_link(folder, name)?;
                self.visitor.link(&entry, &target)
            }
            FileType::Socket => Ok(()),
            // Overlay's mark that a name is deleted; seen where a layer is looked at without one.
            FileType::CharacterDevice if hull_image::is_whiteout(&stat) => Ok(()),
            _ => self.visitor.special(&entry),
        }
    }

    fn show_waiting(&mut self) -> Result<()> {
        for folder in self.waiting.drain(..) {
            let entry = Entry { path: &folder.path, name: &folder.name, stat: &folder.stat };
            self.visitor.enter(&entry, folder.folder.as_fd())?;
        }
        Ok(())
    }
}

/// The names in a folder, sorted, without `.` and `..`.
pub fn names(folder: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let wrong = |errno| Error::new("getdents64", "", errno);
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder).map_err(wrong)? {
        let name = entry.map_err(wrong)?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// What a symlink says.
pub fn read_link(folder: BorrowedFd<'_>, name: &CStr) -> Result<CString> {
    rustix::fs::readlinkat(folder, name, Vec::new())
        .map_err(|errno| Error::new("readlinkat", format!("{:?}", name.to_string_lossy()), errno))
}

/// Opens what `stat` described, and nothing else of that name.
fn open_checked(folder: BorrowedFd<'_>, name: &CStr, stat: &Stat, flags: OFlags) -> Result<OwnedFd> {
    let file = fs::openat(folder, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | flags, 0)?;
    let now = fs::fstat(file.as_fd())?;
    if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino) {
        return Err(Error::new("openat", format!("{:?}", name.to_string_lossy()), Errno::STALE));
    }
    Ok(file)
}
