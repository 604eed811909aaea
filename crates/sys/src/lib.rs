//! The system calls that make a container, each one wrapped once.
//!
//! Everything hull asks the kernel to do for a container (namespaces, mounts, roots, credentials, limits,
//! seccomp, exec) goes through this crate. A wrapper is at once the safe call, the error that names the call and
//! its arguments as strace would, and the event that `--explain` shows. It holds no policy: what to call, and in
//! which order, is told by `hull-runtime` and `hull-engine`.
//!
//! This is the only crate of the workspace with unsafe code and the only one that uses `libc`.

pub mod bpf;
mod call;
mod classic;
pub mod cred;
pub mod exe;
pub mod fs;
pub mod keys;
pub mod mount;
pub mod net;
pub mod ns;
pub mod path;
pub mod process;
pub mod rtnl;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod sync;
pub mod threads;
pub mod trace;
pub mod tty;

pub use call::{ErrnoText, Error, Result, errno_name};
pub use rustix::io::Errno;
