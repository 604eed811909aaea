//! The options of an OCI mount, sorted into what each of them asks of the kernel. Pure.
//!
//! Source: runtime-spec, "Linux mount options"; `mount(8)`, `mount_setattr(2)`.

use std::ffi::CString;

use hull_sys::mount::{MountAttrFlags, MountPropagationFlags};

use crate::error::{Error, Result};

/// Mount options, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `Some(recursive)` for a bind mount.
    pub bind: Option<bool>,
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// The same, for the mount and all below it.
    pub recursive_set: u64,
    /// Likewise, to clear.
    pub recursive_clear: u64,
    /// Propagation types in their order, each with whether it is recursive.
    pub propagation: Vec<(u64, bool)>,
    /// What is the file system's own: `size=64m`, or a flag.
    pub data: Vec<(CString, Option<CString>)>,
}

/// Sorts `options` of the mount at `destination`.
///
/// # Errors
/// An option that is known and not supported, or that holds a NUL.
pub fn parse(destination: &str, options: &[String]) -> Result<Options> {
    let mut sorted = Options::default();
    for option in options {
        if !attribute(&mut sorted, option) && !propagation(&mut sorted, option) {
            own(&mut sorted, destination, option)?;
        }
    }
    Ok(sorted)
}

const RDONLY: u64 = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;
const NOSUID: u64 = MountAttrFlags::MOUNT_ATTR_NOSUID.bits() as u64;
const NODEV: u64 = MountAttrFlags::MOUNT_ATTR_NODEV.bits() as u64;
const NOEXEC: u64 = MountAttrFlags::MOUNT_ATTR_NOEXEC.bits() as u64;
const NOATIME: u64 = MountAttrFlags::MOUNT_ATTR_NOATIME.bits() as u64;
const STRICTATIME: u64 = MountAttrFlags::MOUNT_ATTR_STRICTATIME.bits() as u64;
const ATIME: u64 = 0x70;
const NODIRATIME: u64 = MountAttrFlags::MOUNT_ATTR_NODIRATIME.bits() as u64;
const NOSYMFOLLOW: u64 = 0x20_0000;

fn attribute(sorted: &mut Options, option: &str) -> bool {
    // The recursive form of each is the same word with an r before it; `rro` is `ro` and so on.
    const WORDS: [(&str, u64, u64); 17] = [
        ("ro", RDONLY, 0),
        ("rw", 0, RDONLY),
        ("nosuid", NOSUID, 0),
        ("suid", 0, NOSUID),
        ("nodev", NODEV, 0),
        ("dev", 0, NODEV),
        ("noexec", NOEXEC, 0),
        ("exec", 0, NOEXEC),
        ("noatime", NOATIME, ATIME),
        ("atime", 0, NOATIME),
        ("relatime", 0, ATIME),
        ("norelatime", 0, 0),
        ("strictatime", STRICTATIME, ATIME),
        ("nodiratime", NODIRATIME, 0),
        ("diratime", 0, NODIRATIME),
        ("nosymfollow", NOSYMFOLLOW, 0),
        ("symfollow", 0, NOSYMFOLLOW),
    ];
    let find = |word: &str| WORDS.iter().find(|known| known.0 == word);
    if let Some((_, set, clear)) = find(option) {
        sorted.set = (sorted.set & !clear & !if *set & ATIME != 0 { ATIME } else { 0 }) | set;
        sorted.clear = (sorted.clear & !set) | clear;
        return true;
    }
    if let Some((_, set, clear)) = option.strip_prefix('r').and_then(find) {
        sorted.recursive_set = (sorted.recursive_set & !clear) | set;
        sorted.recursive_clear = (sorted.recursive_clear & !set) | clear;
        return true;
    }
    match option {
        "bind" => sorted.bind = Some(sorted.bind.unwrap_or(false)),
        "rbind" => sorted.bind = Some(true),
        "defaults" => {}
        _ => return false,
    }
    true
}

/// The propagation type that `word` names, and whether it is for the whole tree.
pub fn propagation_type(word: &str) -> Option<(u64, bool)> {
    let (word, recursive) = match word.strip_prefix('r') {
        Some(rest) if !rest.is_empty() => (rest, true),
        _ => (word, false),
    };
    let flag = match word {
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "private" => MountPropagationFlags::PRIVATE,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    };
    Some((u64::from(flag.bits()), recursive))
}

fn propagation(sorted: &mut Options, option: &str) -> bool {
    match propagation_type(option) {
        Some(kind) => {
            sorted.propagation.push(kind);
            true
        }
        None => false,
    }
}

fn own(sorted: &mut Options, destination: &str, option: &str) -> Result<()> {
    const UNSUPPORTED: [&str; 9] =
        ["idmap", "ridmap", "tmpcopyup", "remount", "sync", "async", "dirsync", "mand", "lazytime"];
    let doing = || format!("mount {destination}");
    if UNSUPPORTED.contains(&option) {
        return Err(Error::invalid(doing(), format!("option {option:?} is not supported yet")));
    }
    let text = |part: &str| {
        CString::new(part).map_err(|_| Error::invalid(doing(), format!("option {option:?} holds a NUL")))
    };
    let (key, value) = match option.split_once('=') {
        Some((key, value)) => (key, Some(text(value)?)),
        None => (option, None),
    };
    sorted.data.push((text(key)?, value));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sort(options: &[&str]) -> Options {
        let owned: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        parse("/x", &owned).unwrap()
    }

    #[test]
    fn attributes_data_and_propagation_are_told_apart() {
        let sorted = sort(&["nosuid", "ro", "size=64k", "rslave", "mode=1777"]);
        assert_eq!(sorted.set, NOSUID | RDONLY);
        assert_eq!(sorted.propagation, [(u64::from(MountPropagationFlags::DOWNSTREAM.bits()), true)]);
        assert_eq!(sorted.data.len(), 2);
        assert_eq!(sorted.bind, None);
    }

    #[test]
    fn the_later_of_two_opposites_wins() {
        assert_eq!(sort(&["ro", "rw"]).set, 0);
        assert_eq!(sort(&["ro", "rw"]).clear, RDONLY);
        assert_eq!(sort(&["rw", "ro"]).set, RDONLY);
        assert_eq!(sort(&["noatime", "strictatime"]).set, STRICTATIME);
    }

    #[test]
    fn the_recursive_form_is_kept_apart() {
        let sorted = sort(&["rbind", "rro", "nodev"]);
        assert_eq!((sorted.bind, sorted.recursive_set, sorted.set), (Some(true), RDONLY, NODEV));
        assert_eq!(sort(&["relatime"]).recursive_clear, 0);
    }

    #[test]
    fn an_unsupported_option_is_named() {
        let error = parse("/x", &["idmap".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("\"idmap\" is not supported"), "{error}");
    }
}
