//! The session keyring, which no namespace makes a process's own.
//!
//! Sources: `keyrings(7)`, `session-keyring(7)`, `keyctl(2)`.

use std::ffi::CStr;

use rustix::io::Errno;

use crate::call::{Arg, Error, Result, call};
use crate::process::check;

/// `KEYCTL_JOIN_SESSION_KEYRING`: the keyring of this name becomes this process's session keyring, made if there is none that
/// may be joined. Gives its number.
///
/// # Errors
/// `ENOSYS` from a kernel without keys.
pub fn join_session(name: &CStr) -> Result<i32> {
    let answer = call("keyctl", &[Arg::Text("KEYCTL_JOIN_SESSION_KEYRING"), Arg::cstr(name)], || {
        // SAFETY: the name is terminated.
        check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
    })?;
    Ok(answer as i32)
}

/// `KEYCTL_DESCRIBE`: the permissions of a key.
pub fn permissions(key: i32) -> Result<u32> {
    let mut text = [0u8; 4096];
    let args = [Arg::Text("KEYCTL_DESCRIBE"), Arg::Int(key.into()), Arg::Int(text.len() as i64)];
    let length = call("keyctl", &args, || {
        // SAFETY: the kernel writes at most `len` bytes.
        check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_DESCRIBE, key, text.as_mut_ptr(), text.len()) })
    })?;
    // TYPE;UID;GID;PERMISSIONS;NAME, the permissions in hexadecimal.
    let text = String::from_utf8_lossy(&text[..text.len().min(length as usize)]);
    let field = text.split(';').nth(3).and_then(|field| u32::from_str_radix(field, 16).ok());
    field.ok_or_else(|| Error::new("keyctl", "KEYCTL_DESCRIBE", Errno::INVAL))
}

/// `KEYCTL_SETPERM`.
pub fn set_permissions(key: i32, permissions: u32) -> Result<()> {
    call("keyctl", &[Arg::Text("KEYCTL_SETPERM"), Arg::Int(key.into()), Arg::Hex(permissions.into())], || {
        // SAFETY: numbers only.
        check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, key, permissions) }).map(drop)
    })
}
