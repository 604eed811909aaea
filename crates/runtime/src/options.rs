//! The options of an OCI mount, sorted into what each of them asks of the kernel. Pure.
//!
//! Source: runtime-spec, "Linux mount options"; `mount(8)`, `mount_setattr(2)`.

use std::ffi::CString;
use std::fmt;

use hull_sys::mount::{MountAttr, MountAttrFlags, MountPropagationFlags};

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
    /// The same on a bind, whose file system is the host's: as with mount(2) it has no effect.
    pub idle: Vec<String>,
    /// `Some(recursive)` if ids are mapped.
    pub idmap: Option<bool>,
    /// A tmpfs gets what the image has in its place.
    pub copy_up: bool,
    /// What is mounted there already is changed.
    pub remount: bool,
}

impl Options {
    /// The changes of a bind's own copy of the host's mount, as few as they can be: whether each is for the whole tree.
    ///
    /// A copy is a peer of what it was copied from. Unless the container's root is to be shared, it becomes its slave
    /// first, or else what the container mounts on it would appear on the host.
    pub fn changes(&self, shared_root: bool) -> Vec<(bool, MountAttr)> {
        const CUTS: [u64; 2] =
            [MountPropagationFlags::PRIVATE.bits() as u64, MountPropagationFlags::DOWNSTREAM.bits() as u64];
        let slave = (u64::from(MountPropagationFlags::DOWNSTREAM.bits()), true);
        let cut = shared_root || self.propagation.first().is_some_and(|(kind, all)| *all && CUTS.contains(kind));
        let types = (!cut).then_some(slave).into_iter().chain(self.propagation.iter().copied());
        let mut changes: Vec<(bool, MountAttr)> =
            types.map(|(propagation, all)| (all, MountAttr { propagation, ..MountAttr::default() })).collect();
        for (all, set, clear) in [(false, self.set, self.clear), (true, self.recursive_set, self.recursive_clear)] {
            if set | clear == 0 {
                continue;
            }
            match changes.last_mut() {
                Some((same, attr)) if *same == all => (attr.set, attr.clear) = (set, clear),
                _ => changes.push((all, MountAttr { set, clear, ..MountAttr::default() })),
            }
        }
        changes
    }
}

/// Sorts `options` of the mount at `destination`.
///
/// # Errors
/// An option that holds a NUL.
pub fn parse(destination: &str, options: &[String]) -> Result<Options> {
    let mut sorted = Options::default();
    for option in options {
        if !attribute(&mut sorted, option) && !propagation(&mut sorted, option) {
            parts(option).try_for_each(|part| own(&mut sorted, destination, part))?;
        }
    }
    if sorted.bind.is_some() {
        // These three say what is so anyway.
        let idle = sorted.data.drain(..).map(|(key, _)| key.to_string_lossy().into_owned());
        sorted.idle = idle.filter(|key| !["async", "nomand", "nolazytime"].contains(&&**key)).collect();
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

/// The words for attributes of a mount: what each sets and clears. The recursive form of each is the same word with an r
/// before it; `rro` is `ro` and so on. The kinds of atime exclude one another, and the kernel wants all cleared at once.
const WORDS: [(&str, u64, u64); 18] = [
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("noatime", NOATIME, ATIME),
    ("atime", 0, ATIME),
    ("relatime", 0, ATIME),
    ("norelatime", 0, 0),
    ("strictatime", STRICTATIME, ATIME),
    ("nostrictatime", 0, ATIME),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
    ("symfollow", 0, NOSYMFOLLOW),
];

/// The words for what is set and what is cleared.
fn words(set: u64, clear: u64) -> impl Iterator<Item = &'static str> {
    let says = move |(word, sets, clears): &&(&str, u64, u64)| match (*sets, *clears) {
        (0, 0) => false,
        // The usual one of the names for this.
        (0, ATIME) => *word == "relatime" && clear & ATIME == ATIME && set & ATIME == 0,
        (0, clears) => clear & clears != 0,
        (sets, _) => set & sets != 0,
    };
    WORDS.iter().filter(says).map(|(word, ..)| *word)
}

impl fmt::Display for Options {
    /// As mount(8) writes them, between commas; those that a bind cannot take are told apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<String> = words(self.set, self.clear).map(str::to_owned).collect();
        all.extend(words(self.recursive_set, self.recursive_clear).map(|word| format!("r{word}")));
        let kind = |(kind, all): &(u64, bool)| format!("{}{}", if *all { "r" } else { "" }, propagation_word(*kind));
        all.extend(self.propagation.iter().map(kind));
        all.extend(self.idmap.map(|all| if all { "ridmap" } else { "idmap" }.to_owned()));
        all.extend(self.copy_up.then(|| "tmpcopyup".to_owned()));
        all.extend(self.data.iter().map(|(key, value)| match value {
            Some(value) => format!("{}={}", key.to_string_lossy(), value.to_string_lossy()),
            None => key.to_string_lossy().into_owned(),
        }));
        f.write_str(&all.join(","))?;
        self.idle.iter().try_for_each(|key| write!(f, " ({key} without effect)"))
    }
}

/// The propagation types.
const TYPES: [&str; 4] = ["shared", "slave", "private", "unbindable"];

/// The words of what is mounted and how, which are no attributes.
const OTHERS: [&str; 10] =
    ["bind", "rbind", "idmap", "ridmap", "tmpcopyup", "remount", "defaults", "silent", "loud", "noiversion"];

/// Every option that is not a file system's own, sorted.
pub fn known() -> Vec<String> {
    let both = WORDS.iter().map(|word| word.0).chain(TYPES).flat_map(|word| [word.to_owned(), format!("r{word}")]);
    let mut words: Vec<String> = both.chain(OTHERS.map(str::to_owned)).collect();
    words.sort();
    words
}

fn attribute(sorted: &mut Options, option: &str) -> bool {
    let find = |word: &str| WORDS.iter().find(|known| known.0 == word);
    let merge = |set: &mut u64, clear: &mut u64, word: &(&str, u64, u64)| {
        *set = *set & !word.2 | word.1;
        *clear = *clear & !(word.1 & !ATIME) | word.2;
    };
    if let Some(word) = find(option) {
        merge(&mut sorted.set, &mut sorted.clear, word);
        return true;
    }
    if let Some(word) = option.strip_prefix('r').and_then(find) {
        merge(&mut sorted.recursive_set, &mut sorted.recursive_clear, word);
        return true;
    }
    match option {
        "bind" => sorted.bind = Some(sorted.bind.unwrap_or(false)),
        "rbind" => sorted.bind = Some(true),
        "idmap" => sorted.idmap = Some(sorted.idmap.unwrap_or(false)),
        "ridmap" => sorted.idmap = Some(true),
        "tmpcopyup" => sorted.copy_up = true,
        "remount" => sorted.remount = true,
        // The state that every new mount is in; `silent` and `loud` are about the kernel's log.
        "defaults" | "silent" | "loud" | "noiversion" => {}
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

/// The word for a propagation type.
pub fn propagation_word(kind: u64) -> &'static str {
    TYPES.into_iter().find(|word| propagation_type(word).is_some_and(|(known, _)| known == kind)).unwrap_or("unknown")
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

/// A file system's options, of which one string may hold several, as mount(2) takes them: between commas, except for one
/// after a backslash or in quotes, which is a part of a value. Empty ones say nothing.
fn parts(option: &str) -> impl Iterator<Item = &str> {
    let (mut escaped, mut quoted) = (false, false);
    let ends = move |letter: char| {
        let plain = !escaped;
        escaped = plain && letter == '\\';
        quoted ^= plain && letter == '"';
        plain && !quoted && letter == ','
    };
    option.split(ends).filter(|part| !part.is_empty())
}

fn own(sorted: &mut Options, destination: &str, option: &str) -> Result<()> {
    let doing = || format!("mount {destination}");
    let text = |part: &str| {
        CString::new(part).map_err(|_| Error::invalid(doing(), format!("option {option:?} holds a NUL")))
    };
    let (key, value) = match option.split_once('=') {
        // A label may be in quotes, which mount(2) takes away and fsconfig(2) does not.
        Some((key, value)) if key.ends_with("context") => (key, Some(text(value.trim_matches('"'))?)),
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
    fn one_string_may_hold_several_options_of_a_file_system() {
        let data = |option: &str| -> Vec<String> {
            let text = |(key, value): &(CString, Option<CString>)| match value {
                Some(value) => format!("{}={}", key.to_string_lossy(), value.to_string_lossy()),
                None => key.to_string_lossy().into_owned(),
            };
            sort(&[option]).data.iter().map(text).collect()
        };
        assert_eq!(data("size=1m,mode=700"), ["size=1m", "mode=700"]);
        assert_eq!(data(r"lowerdir=/a\,b:/c,index=off"), [r"lowerdir=/a\,b:/c", "index=off"]);
        assert_eq!(data(r#"context="a:s0:c1,c2",size=1m"#), ["context=a:s0:c1,c2", "size=1m"]);
        assert_eq!(data(""), [""; 0]);
        assert_eq!(data(",,noswap,"), ["noswap"]);
    }

    #[test]
    fn the_later_of_two_opposites_wins() {
        assert_eq!(sort(&["ro", "rw"]).set, 0);
        assert_eq!(sort(&["ro", "rw"]).clear, RDONLY);
        assert_eq!(sort(&["rw", "ro"]).set, RDONLY);
        assert_eq!(sort(&["noatime", "strictatime"]).set, STRICTATIME);
    }

    #[test]
    fn no_word_that_is_told_is_taken_for_a_file_systems() {
        for word in known() {
            assert_eq!((sort(&[&word]).data, sort(&[&word, "bind"]).idle), (vec![], vec![]), "{word}");
        }
    }

    #[test]
    fn the_recursive_form_is_kept_apart() {
        let sorted = sort(&["rbind", "rro", "nodev"]);
        assert_eq!((sorted.bind, sorted.recursive_set, sorted.set), (Some(true), RDONLY, NODEV));
        assert_eq!(sort(&["relatime"]).recursive_clear, 0);
    }

    #[test]
    fn every_option_of_the_specifications_table_is_known() {
        let binds = "async atime bind defaults dev diratime exec idmap loud noatime nodev nodiratime noexec \
                     noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev \
                     rdiratime relatime remount rexec ridmap rnoatime rnodiratime rnoexec rnorelatime rnostrictatime \
                     rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow \
                     runbindable rw shared silent slave strictatime suid symfollow unbindable";
        let binds: Vec<&str> = binds.split_whitespace().collect();
        assert_eq!((sort(&binds).data, sort(&binds).idle), (vec![], vec![]));
        // The rest is the superblock's, whose words fsconfig(2) takes as they are, or a file system's.
        assert_eq!(sort(&["sync", "dirsync", "lazytime", "mand", "iversion"]).data.len(), 5);
        assert!(sort(&["tmpcopyup"]).copy_up);
    }

    #[test]
    fn a_file_systems_option_on_a_bind_has_no_effect() {
        let sorted = sort(&["size=5", "bind", "ro", "async"]);
        assert_eq!((sorted.data, sorted.idle, sorted.set), (vec![], vec!["size".to_owned()], RDONLY));
    }

    #[test]
    fn atimes_exclude_one_another() {
        assert_eq!((sort(&["atime"]).set, sort(&["atime"]).clear), (0, ATIME));
        assert_eq!((sort(&["noatime", "relatime"]).set, sort(&["noatime", "relatime"]).clear), (0, ATIME));
        assert_eq!(
            (sort(&["rbind", "rnoatime"]).recursive_set, sort(&["rnoatime"]).recursive_clear),
            (NOATIME, ATIME)
        );
    }

    #[test]
    fn a_bind_is_cut_off_from_the_host_unless_the_root_is_shared() {
        const SLAVE: u64 = MountPropagationFlags::DOWNSTREAM.bits() as u64;
        const SHARED: u64 = MountPropagationFlags::SHARED.bits() as u64;
        const PRIVATE: u64 = MountPropagationFlags::PRIVATE.bits() as u64;
        let kinds = |options: &[&str], shared: bool| -> Vec<u64> {
            sort(options).changes(shared).iter().map(|(_, attr)| attr.propagation).collect()
        };
        assert_eq!(kinds(&["bind"], false), [SLAVE]);
        assert_eq!(kinds(&["bind", "shared"], false), [SLAVE, SHARED]);
        assert_eq!(kinds(&["bind", "shared"], true), [SHARED]);
        assert_eq!(kinds(&["rbind", "rprivate", "rro"], false), [PRIVATE]);
        assert_eq!(sort(&["rbind", "rprivate", "rro"]).changes(false)[0].1.set, RDONLY);
        assert_eq!(kinds(&["rbind", "private"], false), [SLAVE, PRIVATE]);
        assert_eq!(sort(&["bind", "ro", "rnosuid"]).changes(true).len(), 2);
    }
}
