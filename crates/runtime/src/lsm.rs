//! Security modules: what AppArmor and SELinux are told of a process.
//!
//! Source: aa_change_onexec(2); setexeccon(3), setkeycreatecon(3), selinuxfs; the kernel's `security/apparmor/lsm.c`,
//! `security/selinux/hooks.c`.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use hull_sys::fs::{self, CWD};
use hull_sys::{Errno, trace};
use rustix::fs::OFlags;

use crate::error::{Doing, Error, Result};
use crate::plan::{MountStep, Process};

/// `SELINUX_MAGIC` of statfs(2).
const SELINUXFS: i64 = 0xf97c_ff8c;
/// The attribute of a file that has its label.
const ATTRIBUTE: &CStr = c"security.selinux";

/// Whether the modules that `process` and the labels of `mounts` need are in force on this machine.
///
/// # Errors
/// One is not.
pub(crate) fn check(process: &Process, mounts: Option<&CString>) -> Result<()> {
    if let Some(profile) = &process.apparmor {
        let enabled = fs::read_file(CWD, c"/sys/module/apparmor/parameters/enabled", 16);
        if !enabled.is_ok_and(|text| text.starts_with(b"Y")) {
            return Err(Error::invalid(with_profile(profile), "AppArmor is not in force on this machine"));
        }
    }
    if let Some(label) = process.selinux.as_ref().or(mounts) {
        let found = rustix::fs::statfs(c"/sys/fs/selinux");
        if !found.is_ok_and(|found| found.f_type == SELINUXFS) {
            return Err(Error::invalid(with_label(label), "SELinux is not in force on this machine"));
        }
    }
    Ok(())
}

fn with_profile(profile: &CStr) -> String {
    format!("apply the AppArmor profile {:?}", profile.to_string_lossy())
}

fn with_label(label: &CStr) -> String {
    format!("apply the SELinux label {:?}", label.to_string_lossy())
}

/// Whether the process has something to write to its own procfs.
pub(crate) fn concerns(process: &Process) -> bool {
    process.apparmor.is_some() || process.selinux.is_some()
}

/// Tells the kernel what the next exec brings. `proc` is a procfs that no path of the image leads to: through the image's a
/// write could be led to a file that only looks like this one (CVE-2019-16884).
pub(crate) fn label_exec(proc: BorrowedFd<'_>, process: &Process) -> Result<()> {
    if let Some(profile) = &process.apparmor {
        trace::stage("choose the profile", "AppArmor confines the command from its exec on.");
        let order = [b"exec ", profile.to_bytes()].concat();
        match fs::write_file(proc, c"thread-self/attr/apparmor/exec", &order) {
            Err(error) if error.errno() == Errno::NOENT => {
                let error = Error::invalid(with_profile(profile), "no such profile is loaded");
                return Err(error.hint("see apparmor_parser(8) and aa-status(8)"));
            }
            other => other.doing(|| with_profile(profile))?,
        }
    }
    let Some(label) = &process.selinux else { return Ok(()) };
    trace::stage("choose the label", "SELinux confines the command from its exec on.");
    write_label(proc, c"thread-self/attr/exec", label)
}

/// Has the keyrings that are made until the next exec belong to the command's label, else it could not use them.
pub(crate) fn label_keys(proc: BorrowedFd<'_>, process: &Process) -> Result<()> {
    let Some(label) = &process.selinux else { return Ok(()) };
    write_label(proc, c"thread-self/attr/keycreate", label)
}

fn write_label(proc: BorrowedFd<'_>, file: &CStr, label: &CStr) -> Result<()> {
    match fs::write_file(proc, file, label.to_bytes()) {
        Err(error) if error.errno() == Errno::INVAL => {
            Err(Error::invalid(with_label(label), "the policy in force does not know it"))
        }
        other => other.doing(|| with_label(label)),
    }
}

/// Labels the root of a mount whose file system takes no label as a whole.
pub(crate) fn label_file(mount: BorrowedFd<'_>, step: &MountStep) -> Result<()> {
    let Some(label) = &step.label else { return Ok(()) };
    let doing = || format!("label {}", step.destination.display());
    let root = fs::openat(mount, c".", OFlags::RDONLY | OFlags::DIRECTORY, 0).doing(doing)?;
    fs::set_attribute(root.as_fd(), ATTRIBUTE, label.to_bytes()).doing(doing)
}
