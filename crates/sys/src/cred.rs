//! Who a process is: ids, groups, capabilities, and the bits that keep it from becoming more.
//!
//! Sources: `credentials(7)`, `capabilities(7)`, `prctl(2)`.

use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use crate::call::{Arg, Result, call};

/// `setgroups(2)`: the supplementary groups.
pub fn setgroups(groups: &[u32]) -> Result<()> {
    let gids: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    call("setgroups", &[Arg::Int(groups.len() as i64), Arg::Flags(&groups)], || {
        rustix::thread::set_thread_groups(&gids)
    })
}

/// `setresgid(2)` with the same id thrice.
pub fn setresgid(gid: u32) -> Result<()> {
    let id = Gid::from_raw(gid);
    call("setresgid", &[Arg::Int(gid.into()), Arg::Int(gid.into()), Arg::Int(gid.into())], || {
        rustix::thread::set_thread_res_gid(id, id, id)
    })
}

/// `setresuid(2)` with the same id thrice.
pub fn setresuid(uid: u32) -> Result<()> {
    let id = Uid::from_raw(uid);
    call("setresuid", &[Arg::Int(uid.into()), Arg::Int(uid.into()), Arg::Int(uid.into())], || {
        rustix::thread::set_thread_res_uid(id, id, id)
    })
}

/// The capability sets of this thread as bits: effective, permitted, inheritable.
pub fn capget() -> Result<(u64, u64, u64)> {
    let mut sets = (0, 0, 0);
    call("capget", &[Arg::Text("{pid=0}")], || {
        let got = rustix::thread::capabilities(None)?;
        sets = (got.effective.bits(), got.permitted.bits(), got.inheritable.bits());
        Ok(())
    })?;
    Ok(sets)
}

/// `capset(2)` on this thread.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(effective),
        permitted: CapabilitySet::from_bits_retain(permitted),
        inheritable: CapabilitySet::from_bits_retain(inheritable),
    };
    let text = format_args!("{{effective={effective:#x}, permitted={permitted:#x}, inheritable={inheritable:#x}}}")
        .to_string();
    call("capset", &[Arg::Text("{pid=0}"), Arg::Text(&text)], || rustix::thread::set_capabilities(None, sets))
}

fn prctl(option: i32, name: &str, second: u64, third: u64) -> Result<i64> {
    call("prctl", &[Arg::Text(name), Arg::Int(second as i64), Arg::Int(third as i64)], || {
        // SAFETY: every option used in this module takes numbers only.
        crate::process::check(i64::from(unsafe { libc::prctl(option, second, third, 0, 0) }))
    })
}

/// `PR_CAPBSET_DROP`: takes one capability out of the bounding set for good.
pub fn drop_bounding(capability: u32) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, "PR_CAPBSET_DROP", capability.into(), 0).map(drop)
}

/// `PR_CAPBSET_READ`: whether the capability is in the bounding set; `EINVAL` for one this kernel does not know.
pub fn has_bounding(capability: u32) -> Result<bool> {
    prctl(libc::PR_CAPBSET_READ, "PR_CAPBSET_READ", capability.into(), 0).map(|answer| answer == 1)
}

/// `PR_CAP_AMBIENT_RAISE`.
pub fn raise_ambient(capability: u32) -> Result<()> {
    let raise = libc::PR_CAP_AMBIENT_RAISE as u64;
    prctl(libc::PR_CAP_AMBIENT, "PR_CAP_AMBIENT", raise, capability.into()).map(drop)
}

/// `PR_CAP_AMBIENT_CLEAR_ALL`.
pub fn clear_ambient() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, "PR_CAP_AMBIENT", libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map(drop)
}

/// `PR_SET_KEEPCAPS`: the permitted set outlives the change from uid 0 to another.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS", keep.into(), 0).map(drop)
}

/// `PR_SET_NO_NEW_PRIVS`: no exec gains anything any more.
pub fn no_new_privs() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS", 1, 0).map(drop)
}

/// `PR_SET_DUMPABLE`: with `false` nobody without `CAP_SYS_PTRACE` over our user namespace may look into this process.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, "PR_SET_DUMPABLE", dumpable.into(), 0).map(drop)
}

/// `PR_SET_PDEATHSIG`: with `SIGKILL` this process ends with its parent, with 0 it does not (any more).
pub fn die_with_parent(tied: bool) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, "PR_SET_PDEATHSIG", if tied { libc::SIGKILL as u64 } else { 0 }, 0).map(drop)
}

/// `PR_SET_CHILD_SUBREAPER`: descendants whose parent has ended become our children.
pub fn become_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, "PR_SET_CHILD_SUBREAPER", 1, 0).map(drop)
}

/// `PR_SET_SECUREBITS`.
pub fn set_securebits(bits: CapabilitiesSecureBits) -> Result<()> {
    prctl(libc::PR_SET_SECUREBITS, "PR_SET_SECUREBITS", bits.bits().into(), 0).map(drop)
}
