//! A session keyring of the container's own: without one its processes would have the keys of whoever started it.

use std::ffi::CStr;

use hull_sys::{Errno, keys};

use crate::error::{Doing, Result};

/// Whoever has the keyring's owner's user id may search it; in a user namespace, where the ids are others, everybody.
const SEARCH_OWNER: u32 = 0x8_0000;
const SEARCH_OTHERS: u32 = 0x8;

/// Makes the keyring. An exec joins it by its name.
pub(crate) fn make(name: &CStr, own_users: bool) -> Result<()> {
    let Some(key) = join(name)? else { return Ok(()) };
    let doing = || "let the container's processes search its keyring".to_owned();
    let permissions = keys::permissions(key).doing(doing)?;
    let search = if own_users { SEARCH_OTHERS } else { SEARCH_OWNER };
    if permissions & search == search {
        return Ok(());
    }
    keys::set_permissions(key, permissions | search).doing(doing)
}

/// Joins the keyring; none on a kernel without keys.
pub(crate) fn join(name: &CStr) -> Result<Option<i32>> {
    match keys::join_session(name) {
        Err(error) if error.errno() == Errno::NOSYS => Ok(None),
        other => Ok(Some(other.doing(|| "join a session keyring of its own".to_owned())?)),
    }
}
