//! One system call: its name, its arguments, and what came of it.
//!
//! The same record is the error a caller gets and the event a reader of `--explain` sees, so the two cannot tell
//! different stories. Arguments are only turned into text when one of them is wanted.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;

use crate::trace;

/// The result of a traced system call.
pub type Result<T> = std::result::Result<T, Error>;

/// A system call that failed, with the arguments it had.
///
/// Prints in strace's shape: `mkdirat(5, "proc", 0755) = EEXIST (File exists)`.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    name: &'static str,
    args: Box<str>,
    errno: Errno,
}

impl Error {
    /// An error of a call that was made elsewhere (by `pathrs`, for example).
    pub fn new(name: &'static str, args: impl Into<String>, errno: Errno) -> Self {
        Self { name, args: args.into().into_boxed_str(), errno }
    }

    /// The kernel's name of the call.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The arguments as text, without the parentheses.
    pub fn args(&self) -> &str {
        &self.args
    }

    /// What the kernel answered.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}) = {}", self.name, self.args, ErrnoText(self.errno))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::new(std::io::Error::from(error.errno).kind(), error)
    }
}

/// An error number as `ENOENT (No such file or directory)`.
pub struct ErrnoText(pub Errno);

impl fmt::Display for ErrnoText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from(self.0).to_string();
        // The standard library appends " (os error N)"; the name says it better.
        let text = text.split(" (os error").next().unwrap_or_default();
        match errno_name(self.0) {
            Some(name) => write!(f, "{name} ({text})"),
            None => write!(f, "errno {} ({text})", self.0.raw_os_error()),
        }
    }
}

/// The symbolic name of an error number, for those that containers meet.
pub fn errno_name(errno: Errno) -> Option<&'static str> {
    macro_rules! names {
        ($($rustix:ident $name:ident),* $(,)?) => {
            match errno { $(Errno::$rustix => Some(stringify!($name)),)* _ => None }
        };
    }
    names! {
        PERM EPERM, NOENT ENOENT, SRCH ESRCH, INTR EINTR, IO EIO, NXIO ENXIO, TOOBIG E2BIG, NOEXEC ENOEXEC,
        BADF EBADF, CHILD ECHILD, AGAIN EAGAIN, NOMEM ENOMEM, ACCESS EACCES, FAULT EFAULT, BUSY EBUSY,
        EXIST EEXIST, XDEV EXDEV, NODEV ENODEV, NOTDIR ENOTDIR, ISDIR EISDIR, INVAL EINVAL, NFILE ENFILE,
        MFILE EMFILE, NOTTY ENOTTY, TXTBSY ETXTBSY, FBIG EFBIG, NOSPC ENOSPC, SPIPE ESPIPE, ROFS EROFS,
        MLINK EMLINK, PIPE EPIPE, RANGE ERANGE, DEADLK EDEADLK, NAMETOOLONG ENAMETOOLONG, NOSYS ENOSYS,
        NOTEMPTY ENOTEMPTY, LOOP ELOOP, NODATA ENODATA, OVERFLOW EOVERFLOW, USERS EUSERS, OPNOTSUPP EOPNOTSUPP,
        CONNREFUSED ECONNREFUSED, CONNRESET ECONNRESET, TIMEDOUT ETIMEDOUT, STALE ESTALE, DQUOT EDQUOT,
        LIBBAD ELIBBAD, NOTSOCK ENOTSOCK, ADDRINUSE EADDRINUSE, NOTCONN ENOTCONN, PROTOTYPE EPROTOTYPE,
    }
}

/// An argument of a call, kept as it is until somebody wants to read it.
#[derive(Clone, Copy)]
pub(crate) enum Arg<'a> {
    Int(i64),
    Hex(u64),
    Mode(u32),
    Fd(i32),
    Str(&'a [u8]),
    Text(&'a str),
    /// A flags type of rustix: its `Debug` form is `Type(A | B)`.
    Flags(&'a dyn fmt::Debug),
    /// One whose names lack what the kernel's begin with.
    Prefixed(&'static str, &'a dyn fmt::Debug),
    List(&'a [CString]),
    Show(&'a dyn fmt::Display),
}

impl<'a> Arg<'a> {
    pub(crate) fn cstr(text: &'a CStr) -> Self {
        Arg::Str(text.to_bytes())
    }

    pub(crate) fn fd(fd: &impl AsRawFd) -> Self {
        Arg::Fd(fd.as_raw_fd())
    }
}

/// Longer strings are cut, as strace does, so that one event stays readable.
const SHOWN: usize = 256;

impl fmt::Display for Arg<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arg::Int(value) => write!(f, "{value}"),
            Arg::Hex(value) => write!(f, "{value:#x}"),
            Arg::Mode(mode) => write!(f, "0{mode:o}"),
            Arg::Fd(fd) if *fd == libc::AT_FDCWD => f.write_str("AT_FDCWD"),
            Arg::Fd(fd) => write!(f, "{fd}"),
            Arg::Str(bytes) => quoted(f, bytes),
            Arg::Text(text) => f.write_str(text),
            Arg::Flags(flags) => named(f, "", *flags),
            Arg::Prefixed(prefix, flags) => named(f, prefix, *flags),
            Arg::List(list) => {
                f.write_str("[")?;
                for (n, item) in list.iter().enumerate() {
                    if n > 0 {
                        f.write_str(", ")?;
                    }
                    if n == 16 {
                        write!(f, "... {} more", list.len() - n)?;
                        break;
                    }
                    quoted(f, item.to_bytes())?;
                }
                f.write_str("]")
            }
            Arg::Show(value) => value.fmt(f),
        }
    }
}

/// The names of flags, as strace joins them; what has no name is its number.
fn named(f: &mut fmt::Formatter<'_>, prefix: &str, flags: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{flags:?}");
    let inner = text.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(&text);
    if inner == "0x0" {
        return f.write_str("0");
    }
    for (n, name) in inner.split(" | ").enumerate() {
        let number = name.starts_with(|c: char| c.is_ascii_digit());
        // Names that rustix has made plainer.
        let name = match name {
            "CREATE" => "CREAT",
            "DOWNSTREAM" => "SLAVE",
            name => name,
        };
        write!(f, "{}{}{name}", if n > 0 { "|" } else { "" }, if number { "" } else { prefix })?;
    }
    Ok(())
}

fn quoted(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let (shown, cut) = if bytes.len() > SHOWN { (&bytes[..SHOWN], "...") } else { (bytes, "") };
    write!(f, "\"{}\"{cut}", shown.escape_ascii())
}

pub(crate) fn join(args: &[Arg<'_>]) -> String {
    use fmt::Write;
    let mut text = String::with_capacity(64);
    for (n, arg) in args.iter().enumerate() {
        let comma = if n > 0 { ", " } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{arg}");
    }
    text
}

/// What a call returned, as the one number the kernel gave.
pub(crate) trait Returned {
    fn number(&self) -> i64;
}

impl Returned for () {
    fn number(&self) -> i64 {
        0
    }
}

impl Returned for OwnedFd {
    fn number(&self) -> i64 {
        i64::from(self.as_raw_fd())
    }
}

impl Returned for usize {
    fn number(&self) -> i64 {
        *self as i64
    }
}

impl Returned for i64 {
    fn number(&self) -> i64 {
        *self
    }
}

impl Returned for (OwnedFd, OwnedFd) {
    fn number(&self) -> i64 {
        0
    }
}

/// Makes the call `name`. Without a listener this is the call itself and one relaxed load.
#[inline]
pub(crate) fn call<T: Returned>(
    name: &'static str,
    args: &[Arg<'_>],
    body: impl FnOnce() -> rustix::io::Result<T>,
) -> Result<T> {
    let pending = if trace::enabled() { trace::begin(name, args) } else { None };
    let result = body();
    if let Some(pending) = pending {
        pending.end(result.as_ref().map(Returned::number).map_err(|errno| *errno));
    }
    result.map_err(|errno| failed(name, args, errno))
}

#[cold]
fn failed(name: &'static str, args: &[Arg<'_>], errno: Errno) -> Error {
    Error::new(name, join(args), errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_as_strace_does() {
        let error = failed("mkdirat", &[Arg::Fd(5), Arg::Str(b"a\nb"), Arg::Mode(0o755)], Errno::EXIST);
        assert_eq!(error.to_string(), r#"mkdirat(5, "a\nb", 0755) = EEXIST (File exists)"#);
    }

    #[test]
    fn flags_lose_their_type_name() {
        let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        assert_eq!(Arg::Flags(&flags).to_string(), "MOVE_MOUNT_F_EMPTY_PATH");
        assert_eq!(Arg::Flags(&rustix::mount::MoveMountFlags::empty()).to_string(), "0");
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
        assert_eq!(Arg::Prefixed("O_", &flags).to_string(), "O_WRONLY|O_CLOEXEC");
    }
}
