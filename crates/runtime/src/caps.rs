//! Capabilities: names and bits, and the five sets of an OCI process.
//!
//! Source: `capabilities(7)`; runtime-spec, "Linux Process".

use hull_sys::{Errno, cred};
use oci_spec::runtime::{Capabilities, LinuxCapabilities};

use crate::error::{Doing, Result};

/// The names in the order of their numbers (`linux/capability.h`), without `CAP_`.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All capabilities of [`NAMES`] as a mask.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// The five sets as masks; bit n is capability number n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapSets {
    /// What can ever be gained.
    pub bounding: u64,
    /// What is in force.
    pub effective: u64,
    /// What may be put in force.
    pub permitted: u64,
    /// What a file's inheritable set may add at exec.
    pub inheritable: u64,
    /// What an unprivileged exec keeps.
    pub ambient: u64,
}

impl CapSets {
    /// The sets of a specification; absent ones are empty.
    pub fn from_spec(sets: &LinuxCapabilities) -> Self {
        let mask =
            |set: &Option<Capabilities>| set.iter().flatten().map(|cap| bit(*cap)).fold(0, |all, bit| all | bit);
        Self {
            bounding: mask(sets.bounding()),
            effective: mask(sets.effective()),
            permitted: mask(sets.permitted()),
            inheritable: mask(sets.inheritable()),
            // A capability is ambient only while it is permitted and inheritable (capabilities(7)). `runc spec` writes more
            // than that, and runc lets what cannot be be.
            ambient: mask(sets.ambient()) & mask(sets.inheritable()) & mask(sets.permitted()),
        }
    }
}

impl CapSets {
    /// Takes out what this process cannot give, `held` being what it has. Gives what was asked for beyond that.
    ///
    /// "Runtimes SHOULD NOT fail if the container configuration requests capabilities that cannot be granted", and warn
    /// of them (runtime-spec, config.md "Linux Process").
    pub fn restrict(&mut self, held: u64) -> u64 {
        let Self { bounding, effective, permitted, inheritable, ambient } = self;
        let mut missing = 0;
        for set in [bounding, effective, permitted, inheritable, ambient] {
            missing |= *set & !held;
            *set &= held;
        }
        missing
    }
}

/// The permitted capabilities of this process.
///
/// # Errors
/// The kernel does not say.
pub fn held() -> Result<u64> {
    Ok(cred::capget().doing(|| "look at the capabilities of hull".to_owned())?.1)
}

fn bit(capability: oci_spec::runtime::Capability) -> u64 {
    number(&capability.to_string()).map_or(0, |number| 1 << number)
}

/// The number of a capability by name, with or without `CAP_`, in either case.
pub fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).map(|number| number as u32)
}

/// A mask as names in the order of their numbers.
pub fn names(mask: u64) -> impl Iterator<Item = &'static str> {
    NAMES.iter().enumerate().filter(move |(number, _)| mask >> number & 1 == 1).map(|(_, name)| *name)
}

/// A mask as one line, such as `CHOWN,KILL`; `all` and `none` at the ends.
pub fn text(mask: u64) -> String {
    match mask {
        0 => "none".to_owned(),
        ALL => "all".to_owned(),
        mask => names(mask).collect::<Vec<_>>().join(","),
    }
}

/// What this process can give to another at most: its permitted set within its bounding set.
///
/// # Errors
/// The kernel does not say.
pub fn available() -> Result<u64> {
    let doing = || "look at the capabilities of hull".to_owned();
    let permitted = held()?;
    let mut bounding = 0;
    for capability in 0..64 {
        match cred::has_bounding(capability) {
            // The first number that the kernel does not know ends the list.
            Err(error) if error.errno() == Errno::INVAL => break,
            other => bounding |= u64::from(other.doing(doing)?) << capability,
        }
    }
    Ok(permitted & bounding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_specification_has_its_number() {
        for name in NAMES {
            let full = format!("CAP_{name}");
            let parsed: oci_spec::runtime::Capability = serde_json::from_str(&format!("{full:?}")).unwrap();
            assert_eq!(bit(parsed), 1 << number(name).unwrap(), "{full}");
        }
        assert_eq!(number("cap_sys_admin"), Some(21));
        assert_eq!(number("CAP_BPF"), Some(39));
        assert_eq!(number("NONSENSE"), None);
    }

    #[test]
    fn what_is_not_held_is_in_no_set() {
        let mut sets =
            CapSets { bounding: 0b111, effective: 0b11, permitted: 0b11, inheritable: 0b1001, ambient: 0b1 };
        assert_eq!(sets.restrict(0b101), 0b1010);
        assert_eq!(sets, CapSets { bounding: 0b101, effective: 1, permitted: 1, inheritable: 1, ambient: 1 });
        assert_eq!(sets.restrict(ALL), 0);
    }

    #[test]
    fn a_mask_reads_as_names_in_the_order_of_their_numbers() {
        assert_eq!(text(1 << 5 | 1), "CHOWN,KILL");
        assert_eq!((text(0).as_str(), text(ALL).as_str()), ("none", "all"));
    }
}
