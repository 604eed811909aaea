//! The file /etc/passwd of an image: opened inside its root, regular, read to a bound (CVE-2024-9676).
//!
//! Source: passwd(5).

use std::os::fd::AsFd;
use std::path::Path;

use hull_sys::path::Root;
use hull_sys::{Errno, fs};
use rustix::fs::FileType;

use crate::error::{Doing, Error, Result};

const LARGEST: usize = 10 << 20;

/// The text of such a file, empty if there is none.
///
/// # Errors
/// It is no regular file, larger than 10 MiB, or cannot be read.
pub fn read(root: &Root, path: &str) -> Result<String> {
    let doing = || format!("read {path} of the image");
    let handle = match root.open_read(Path::new(path)) {
        Err(error) if matches!(error.errno(), Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        other => other.doing(doing)?,
    };
    let stat = fs::fstat(handle.as_fd()).doing(doing)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::setup(doing(), "it is not a regular file"));
    }
    let data = fs::read_all(handle.as_fd(), LARGEST).doing(doing)?;
    Ok(String::from_utf8_lossy(&data).into_owned())
}

/// The entries of passwd, each at least up to the home folder.
pub fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 6)
}

/// The home folder in an entry; `/` without one, and for one with a control character, which would be a second line
/// somewhere (CVE-2022-4318).
pub fn home<'a>(entry: Option<&[&'a str]>) -> &'a str {
    let home = entry.map(|fields| fields[5]).filter(|home| home.starts_with('/') && !home.contains(char::is_control));
    home.unwrap_or("/")
}
