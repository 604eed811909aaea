//! AppArmor: the profile that the command gets with its exec.
//!
//! Source: aa_change_onexec(2); the kernel's `security/apparmor/lsm.c`.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use hull_sys::fs::{self, CWD};
use hull_sys::{Errno, trace};

use crate::error::{Doing, Error, Result};

/// Whether AppArmor is in force on this machine: only then there is something to write a profile's name to.
///
/// # Errors
/// It is not, and `profile` is to be applied.
pub(crate) fn check(profile: &CStr) -> Result<()> {
    let enabled = fs::read_file(CWD, c"/sys/module/apparmor/parameters/enabled", 16);
    if enabled.is_ok_and(|text| text.starts_with(b"Y")) {
        return Ok(());
    }
    let doing = format!("apply the AppArmor profile {:?}", profile.to_string_lossy());
    Err(Error::invalid(doing, "AppArmor is not in force on this machine"))
}

/// Tells the kernel which profile the next exec brings. `proc` is a procfs of our own: through the image's a write
/// could be led to a file that only looks like this one (CVE-2019-16884).
pub(crate) fn label_exec(proc: BorrowedFd<'_>, profile: &CStr) -> Result<()> {
    trace::stage("choose the profile", "AppArmor confines the command from its exec on.");
    let doing = || format!("apply the AppArmor profile {:?}", profile.to_string_lossy());
    let order = [b"exec ", profile.to_bytes()].concat();
    match fs::write_file(proc, c"thread-self/attr/apparmor/exec", &order) {
        Err(error) if error.errno() == Errno::NOENT => {
            Err(Error::invalid(doing(), "no such profile is loaded").hint("see apparmor_parser(8) and aa-status(8)"))
        }
        other => other.doing(doing),
    }
}
