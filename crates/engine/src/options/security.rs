//! What a user may give to a container or take from it: capabilities. Pure.

use hull_runtime::caps;

use crate::error::{Error, Result};
use crate::profile;

/// `--cap-add` and `--cap-drop` applied to the default set as Docker does it: `ALL` is a start, then what is named is
/// taken away, then what is named is added.
///
/// `available` is what hull can give at all. `ALL`, `--privileged` and the default set mean what of them is there.
///
/// # Errors
/// There is no such capability, or one that was added by name is not available.
pub fn capabilities(add: &[String], drop: &[String], privileged: bool, available: u64) -> Result<u64> {
    let (all_added, added) = named("--cap-add", add)?;
    let (all_dropped, dropped) = named("--cap-drop", drop)?;
    if let Some(missing) = caps::names(added & !available).next() {
        let message = format!("--cap-add {missing}: hull does not have the capability CAP_{missing} itself");
        let hint = "CapBnd and CapPrm in /proc/self/status tell what there is to give; --cap-add ALL gives all of it";
        return Err(Error::usage_hint(message, hint));
    }
    let start = if all_added || (privileged && !all_dropped) {
        available
    } else if all_dropped {
        0
    } else {
        profile::capabilities() & available
    };
    Ok(start & !dropped | added)
}

/// Whether `ALL` is in the list, and what else is.
fn named(flag: &str, list: &[String]) -> Result<(bool, u64)> {
    let (mut all, mut mask) = (false, 0);
    for name in list {
        match caps::number(name) {
            _ if name.eq_ignore_ascii_case("all") => all = true,
            Some(number) => mask |= 1 << number,
            None => return Err(Error::usage(format!("{flag} {name:?}: no such capability"))),
        }
    }
    Ok((all, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str], privileged: bool, available: u64) -> Result<u64> {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        capabilities(&names(add), &names(drop), privileged, available)
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        const CHOWN: u64 = 1;
        let default = of(&[], &[], false, caps::ALL).unwrap();
        assert_eq!(default.count_ones(), 11);
        for (add, drop, expected) in [
            (&["CHOWN"][..], &["ALL"][..], CHOWN),
            (&["all"], &["cap_chown"], caps::ALL & !CHOWN),
            (&["ALL"], &["ALL"], caps::ALL),
            (&[], &["CHOWN"], default & !CHOWN),
            (&["CHOWN"], &["CHOWN"], default),
            (&["SYS_ADMIN"], &[], default | 1 << 21),
        ] {
            assert_eq!(of(add, drop, false, caps::ALL).unwrap(), expected, "{add:?} {drop:?}");
        }
        assert!(of(&["CAP_NONE"], &[], false, caps::ALL).is_err());
        assert!(of(&[], &["CAP_NONE"], false, caps::ALL).is_err());
    }

    #[test]
    fn privileged_is_all_without_what_is_dropped() {
        assert_eq!(of(&[], &[], true, caps::ALL).unwrap(), caps::ALL);
        assert_eq!(of(&[], &["CHOWN"], true, caps::ALL).unwrap(), caps::ALL & !1);
        assert_eq!(of(&["KILL"], &["ALL"], true, caps::ALL).unwrap(), 1 << 5);
    }

    #[test]
    fn all_is_what_there_is_and_a_name_is_not_to_be_missing() {
        let without = caps::ALL & !(1 << 24 | 1);
        assert_eq!(of(&["ALL"], &[], false, without).unwrap(), without);
        assert_eq!(of(&[], &[], true, without).unwrap(), without);
        assert_eq!(of(&[], &[], false, without).unwrap().count_ones(), 10, "the default set without CHOWN");
        for add in [&["SYS_RESOURCE"][..], &["ALL", "cap_sys_resource"]] {
            let error = of(add, &[], false, without).unwrap_err();
            assert!(error.to_string().contains("CAP_SYS_RESOURCE"), "{error}");
        }
    }
}
