//! The build context: a folder whose files COPY names, and nothing outside it.
//!
//! The folder is opened once; everything in it is found below that handle, symlinks resolved inside it. Only what a
//! COPY names is looked at, and what the ignore file leaves out does not exist. The host's paths appear in messages
//! only.

mod hash;
pub(crate) mod ignore;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_sys::fs::{self, CWD, Stat};
use hull_sys::path::Root;
use hull_sys::{Errno, trace};
use rustix::fs::{FileType, OFlags};

use crate::error::{Error, Result};
use crate::glob::{Dialect, Pattern, is_pattern};
use crate::graph::Problem;
use crate::syntax::did_you_mean;
use crate::walk::{self, Entry, Filter, Visitor};
pub use ignore::Ignore;

/// No Dockerfile or ignore file is larger.
const LARGEST: usize = 4 << 20;

/// An open build context.
#[derive(Debug)]
pub struct Context {
    root: Root,
    path: PathBuf,
    ignore: Ignore,
    ignore_name: String,
}

/// What a COPY source names: a file or a folder of the tree it was looked up in.
pub struct Found {
    /// Its path as looked up, relative and clean; empty for the root.
    pub path: String,
    /// Open for reading.
    pub handle: OwnedFd,
    /// What it is.
    pub stat: Stat,
}

impl Found {
    /// Whether it is a folder, whose contents are copied rather than itself.
    pub fn is_folder(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    /// The last part of its path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

impl Context {
    /// Opens the folder `path`.
    ///
    /// # Errors
    /// If it is none, or cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        trace::stage("open the build context", "every file of the build is found below this one handle");
        let read = |cause: String| Error::Read { path: path.to_owned(), cause };
        let name = c_path(path).map_err(read)?;
        let handle = fs::openat(CWD, &name, OFlags::RDONLY | OFlags::DIRECTORY, 0).map_err(|error| {
            read(match error.errno() {
                Errno::NOTDIR => "the build context must be a folder".to_owned(),
                _ => error.to_string(),
            })
        })?;
        let root = Root::from_fd(handle);
        Ok(Self { root, path: path.to_owned(), ignore: Ignore::default(), ignore_name: String::new() })
    }

    /// The text of the Dockerfile in the context itself; a symlink there leads nowhere but into the context.
    ///
    /// # Errors
    /// If there is none, or it is no regular file of at most 4 MiB.
    pub fn dockerfile(&self) -> Result<String> {
        let read = |cause: String| Error::Read { path: self.path.join("Dockerfile"), cause };
        let handle = self.root.open_read(Path::new("Dockerfile")).map_err(|error| read(error.to_string()))?;
        text(&handle).map_err(read)
    }

    /// Reads the ignore file: `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` in the context.
    ///
    /// # Errors
    /// If it is a symlink or no regular file (it would be read on the host), or has a bad line.
    pub fn read_ignore(&mut self, dockerfile: &Path) -> Result<()> {
        let mut beside = dockerfile.as_os_str().to_owned();
        beside.push(".dockerignore");
        let beside = PathBuf::from(beside);
        let own = self.path.join(".dockerignore");
        let (path, data) = match ignore_text(CWD, &beside, &beside)? {
            Some(data) => (beside, data),
            None => match ignore_text(self.root.as_fd(), Path::new(".dockerignore"), &own)? {
                Some(data) => (own, data),
                None => return Ok(()),
            },
        };
        self.ignore =
            Ignore::parse(&data).map_err(|error| Error::Read { path: path.clone(), cause: error.to_string() })?;
        self.ignore_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(())
    }

    /// What `source` names, sorted by path.
    ///
    /// # Errors
    /// If it names nothing, or leads out of the context.
    pub fn find(&self, source: &str) -> std::result::Result<Vec<Found>, Problem> {
        let place = format!("the build context {}", self.path.display());
        let mut found = find(&self.root, source, &place)?;
        let total = found.len();
        found.retain(|found| !self.is_excluded(found));
        if found.is_empty() {
            return Err(self.missing(source, &place, total > 0));
        }
        Ok(found)
    }

    /// What of a found folder is seen.
    pub fn filter(&self, found: &Found) -> Filter<'_> {
        let path = self.real_path(found);
        Filter { ignore: Some(&self.ignore), state: self.ignore.state(&path), path }
    }

    /// The hash of all that `source` names: names, modes, link targets, data; not times and owners.
    ///
    /// # Errors
    /// As [`Context::find`]; if a file cannot be read.
    pub fn digest(&self, source: &str) -> std::result::Result<String, Problem> {
        let found = self.find(source)?;
        hash::digest(&found, |found| self.filter(found))
            .map_err(|error| Problem { message: format!("cannot read {source}: {error}"), hint: None })
    }

    fn is_excluded(&self, found: &Found) -> bool {
        let excludes = |path: &str| self.ignore.excludes(&self.ignore.state(path));
        if !excludes(&found.path) && !excludes(&self.real_path(found)) {
            return false;
        }
        // Files below an excluded folder may be included again: it is there if one of them is.
        !(found.is_folder() && self.ignore.may_take_back() && self.holds_something(found))
    }

    fn holds_something(&self, found: &Found) -> bool {
        let Ok(handle) = found.handle.try_clone() else { return false };
        let mut seen = Seen(false);
        // What cannot be read counts as there, so that reading it for the hash gives the error.
        walk::contents(handle, &self.filter(found), &mut seen).is_err() || seen.0
    }

    /// Where a found file really lies in the context, after symlinks: only for the ignore rules, never opened.
    fn real_path(&self, found: &Found) -> String {
        let link = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok();
        let (root, file) = (link(self.root.as_fd().as_raw_fd()), link(found.handle.as_raw_fd()));
        let below = root.zip(file).and_then(|(root, file)| file.strip_prefix(root).ok().map(Path::to_owned));
        below.map_or_else(|| found.path.clone(), |path| path.to_string_lossy().into_owned())
    }

    fn missing(&self, source: &str, place: &str, excluded: bool) -> Problem {
        let path = clean(source).unwrap_or_default();
        let rule = self.ignore.deciding_rule(&path).filter(|_| excluded);
        let hint = match rule {
            Some((line, rule)) => Some(format!("line {line} of {} excludes it: {rule}", self.ignore_name)),
            None => neighbour(&self.root, &path).map(|near| format!("did you mean {near}?")),
        };
        Problem { message: format!("{source} is not in {place}"), hint }
    }
}

/// Whether a walk shows anything.
struct Seen(bool);

impl Visitor for Seen {
    fn enter(&mut self, _: &Entry<'_>, _: BorrowedFd<'_>) -> hull_sys::Result<()> {
        self.0 = true;
        Ok(())
    }

    fn leave(&mut self) -> hull_sys::Result<()> {
        Ok(())
    }

    fn file(&mut self, _: &Entry<'_>, _: BorrowedFd<'_>) -> hull_sys::Result<()> {
        self.0 = true;
        Ok(())
    }

    fn link(&mut self, _: &Entry<'_>, _: &CStr) -> hull_sys::Result<()> {
        self.0 = true;
        Ok(())
    }

    fn special(&mut self, _: &Entry<'_>) -> hull_sys::Result<()> {
        self.0 = true;
        Ok(())
    }
}

/// What `source` names below `root`; `place` says in messages what that is. Empty if a pattern matches nothing.
///
/// # Errors
/// If a plain path names nothing, or `..` leads out of the root.
pub fn find(root: &Root, source: &str, place: &str) -> std::result::Result<Vec<Found>, Problem> {
    let plain = |message: String| Problem { message, hint: None };
    let Some(path) = clean(source) else {
        return Err(plain(format!("{source} is outside {place}")));
    };
    let mut paths = vec![String::new()];
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if !is_pattern(part) {
            paths.iter_mut().for_each(|path| *path = join(path, part));
            continue;
        }
        let pattern = Pattern::new(part, Dialect::Go).map_err(|error| plain(error.to_string()))?;
        let mut matched = Vec::new();
        for path in &paths {
            let names = names_in(root, path).into_iter().filter(|name| pattern.matches(name));
            matched.extend(names.map(|name| join(path, &name)));
        }
        paths = matched;
    }
    let mut found = Vec::new();
    for path in paths {
        match open(root, &path) {
            Ok(Some((handle, stat))) => found.push(Found { path, handle, stat }),
            Ok(None) => {}
            Err(cause) => return Err(plain(format!("cannot read {path} in {place}: {cause}"))),
        }
    }
    Ok(found)
}

/// Opens a file or folder for reading; `None` if there is none.
fn open(root: &Root, path: &str) -> std::result::Result<Option<(OwnedFd, Stat)>, String> {
    let path = Path::new(if path.is_empty() { "." } else { path });
    let text = |error: hull_sys::Error| error.to_string();
    // What it is is asked before it is opened: opening a device or a FIFO of an image would already do something.
    let handle = match root.resolve(path) {
        Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        other => other.map_err(text)?,
    };
    let stat = fs::fstat(handle.as_fd()).map_err(text)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::Directory => {}
        kind => return Err(format!("it is neither a file nor a folder ({kind:?})")),
    }
    let file = root.open_read(path).map_err(text)?;
    let now = fs::fstat(file.as_fd()).map_err(text)?;
    if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino) {
        return Err("it changed while it was opened".to_owned());
    }
    Ok(Some((file, stat)))
}

/// A path relative to the root without `.` and doubled slashes; `None` if `..` leads above it.
fn clean(source: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in source.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn names_in(root: &Root, path: &str) -> Vec<String> {
    // What is no folder, or is not there, has no names: the caller reports that nothing matched.
    let Ok(Some((handle, _))) = open(root, path) else { return Vec::new() };
    let names = walk::names(handle.as_fd()).unwrap_or_default();
    names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect()
}

fn neighbour(root: &Root, path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let names = names_in(root, folder);
    did_you_mean(name, names.iter().map(String::as_str)).map(|near| join(folder, near))
}

/// The text of an ignore file, if there is one.
fn ignore_text(folder: BorrowedFd<'_>, path: &Path, shown: &Path) -> Result<Option<String>> {
    let read = |cause: String| Error::Read { path: shown.to_owned(), cause };
    let name = c_path(path).map_err(read)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match fs::openat(folder, &name, flags, 0) {
        Ok(handle) => text(&handle).map(Some).map_err(read),
        Err(error) => match error.errno() {
            Errno::NOENT | Errno::NOTDIR => Ok(None),
            Errno::LOOP => Err(read("an ignore file must not be a symlink".to_owned())),
            _ => Err(read(error.to_string())),
        },
    }
}

/// The text of an open regular file.
pub(crate) fn text(handle: &OwnedFd) -> std::result::Result<String, String> {
    let stat = fs::fstat(handle.as_fd()).map_err(|error| error.to_string())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("it is not a regular file".to_owned());
    }
    let data = fs::read_all(handle.as_fd(), LARGEST).map_err(|error| match error.errno() {
        Errno::FBIG => "it is larger than 4 MiB".to_owned(),
        _ => error.to_string(),
    })?;
    String::from_utf8(data).map_err(|_| "it is not UTF-8 text".to_owned())
}

pub(crate) fn c_path(path: &Path) -> std::result::Result<CString, String> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| "a path must not hold a NUL".to_owned())
}
