//! What will be done, as data: a pure function from the specification.
//!
//! Nothing here asks the kernel. The plan is what `--dry-run` prints, what golden tests compare, and what the two
//! story files perform; the child computes nothing that could be computed here.

use std::borrow::Cow;
use std::ffi::CString;
use std::path::PathBuf;

use hull_sys::mount::MountAttrFlags;
use hull_sys::ns::Namespaces;
use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::hooks::Hooks;

mod devices;
mod display;
mod mounts;
mod namespaces;
mod network;
mod process;
mod running;

pub use devices::{Device, Node};
pub use mounts::{Ids, MountStep, What};
pub use namespaces::{IdMap, Isolation, Join, word, words};
pub use network::NetDevice;
pub use process::{Limit, Process};
pub use running::{ExecAffinity, Running};

/// Everything that the two halves of a creation perform.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Namespaces, new and joined.
    pub namespaces: Isolation,
    /// Host name, in a UTS namespace of its own.
    pub hostname: Option<CString>,
    /// NIS domain name.
    pub domainname: Option<CString>,
    /// Propagation type of the root in the end, and whether for the whole tree; `None` leaves it private.
    pub root_propagation: Option<(u64, bool)>,
    /// Whether the root is changed by pivot_root; else the new one is laid over the old.
    pub pivot: bool,
    /// Whether the root itself becomes read-only at the end.
    pub read_only_root: bool,
    /// The SELinux label of the files in the container's own file systems.
    pub mount_label: Option<CString>,
    /// Mounts, in order.
    pub mounts: Vec<MountStep>,
    /// Network devices of the host's that become its own.
    pub net_devices: Vec<NetDevice>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// Paths hidden by /dev/null or by an empty folder.
    pub masked: Vec<PathBuf>,
    /// Paths made read-only.
    pub read_only: Vec<PathBuf>,
    /// Kernel parameters.
    pub sysctl: Vec<Sysctl>,
    /// What the command is.
    pub process: Process,
    /// Programs that are run at points of its life.
    pub hooks: Hooks,
    /// The name of the session keyring that it gets; without one it has the starter's.
    pub keyring: Option<CString>,
    /// Whether the container ends with its parent.
    pub die_with_parent: bool,
}

/// A kernel parameter that a namespace owns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    /// Its path below /proc/sys.
    pub name: CString,
    /// What is written.
    pub value: String,
    /// The bit of the namespace that owns it.
    pub owner: Namespaces,
}

impl Plan {
    /// The plan for `spec`.
    ///
    /// # Errors
    /// What the specification asks for and no kernel does, or this one does not, by name.
    pub fn from_spec(spec: &Spec) -> Result<Self> {
        let (process, linux) = (process_of(spec)?, linux_of(spec)?);
        let (process, linux) = (process.as_ref(), linux.as_ref());
        let mount_label = optional("apply the SELinux label", linux.mount_label())?;
        let namespaces = Isolation::from_spec(spec, linux)?;
        let paths = |list: &Option<Vec<String>>| list.iter().flatten().map(PathBuf::from).collect();
        Ok(Self {
            sysctl: sysctls(linux, &namespaces)?,
            net_devices: network::devices(linux, &namespaces)?,
            mounts: spec
                .mounts()
                .iter()
                .flatten()
                .map(|one| mounts::mount(one, &namespaces, mount_label.as_ref()))
                .collect::<Result<_>>()?,
            mount_label,
            namespaces,
            hostname: optional("set the host name", spec.hostname())?,
            domainname: optional("set the domain name", spec.domainname())?,
            read_only_root: spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
            root_propagation: mounts::root_propagation(linux)?,
            devices: devices::devices(linux)?,
            masked: paths(linux.masked_paths()),
            read_only: paths(linux.readonly_paths()),
            process: Process::from_spec(process, linux)?,
            hooks: Hooks::from_spec(spec)?,
            pivot: true,
            keyring: None,
            die_with_parent: false,
        })
    }
}

impl Plan {
    /// What the specification says without any effect, as sentences.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        self.mounts.iter().filter(|step| !step.options.idle.is_empty()).map(|step| {
            let options = step.options.idle.join(", ");
            format!(
                "mount {}: {options} without effect: the file system of a bind is the host's",
                step.destination.display()
            )
        })
    }
}

/// The specification's process, which may be left out: then there is nothing to start.
///
/// # Errors
/// None.
pub fn process_of(spec: &Spec) -> Result<Cow<'_, oci_spec::runtime::Process>> {
    given_or(spec.process(), r#"{"cwd": "/", "user": {"uid": 0, "gid": 0}}"#)
}

/// The specification's section for Linux, which may be left out: then nothing is isolated.
///
/// # Errors
/// None.
pub fn linux_of(spec: &Spec) -> Result<Cow<'_, oci_spec::runtime::Linux>> {
    given_or(spec.linux(), "{}")
}

/// What is in the specification, else what `text` says.
fn given_or<'a, T: Clone + DeserializeOwned>(given: &'a Option<T>, text: &str) -> Result<Cow<'a, T>> {
    match given {
        Some(given) => Ok(Cow::Borrowed(given)),
        None => {
            serde_json::from_str(text).map(Cow::Owned).map_err(|error| Error::invalid("create the container", error))
        }
    }
}

impl Plan {
    /// Whose the container's group becomes on v2, if that is somebody else than root: its own root's, where it sees the group as
    /// the root of its view and may write there (runtime-spec, "Cgroup ownership").
    pub fn owner_of_groups(&self) -> Option<u32> {
        let writable = |step: &MountStep| {
            let read_only = step.options.set & u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()) != 0;
            matches!(step.what, What::Cgroup) && !read_only
        };
        let own = self.namespaces.new.contains(Namespaces::CGROUP) && self.mounts.iter().any(writable);
        self.namespaces.uids.outside(self.process.uid).filter(|owner| own && *owner != 0)
    }
}

fn text(doing: &str, value: &str) -> Result<CString> {
    CString::new(value).map_err(|_| Error::invalid(doing, format!("{value:?} holds a NUL")))
}

fn optional(doing: &str, value: &Option<String>) -> Result<Option<CString>> {
    given(value).map(|value| text(doing, value)).transpose()
}

/// The word, unless it is empty, which is what some write where there is none.
fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}

/// Parameters that a namespace owns; all others would change the host.
fn sysctls(linux: &oci_spec::runtime::Linux, namespaces: &Isolation) -> Result<Vec<Sysctl>> {
    const IPC: [&str; 8] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    let mut all = Vec::new();
    for (name, value) in linux.sysctl().iter().flatten() {
        let doing = || format!("set the sysctl {name:?}");
        let path = path_of(name).filter(|_| !value.contains(['\n', '\0']));
        let path =
            path.ok_or_else(|| Error::invalid(doing(), "name or value holds a character that has no place there"))?;
        let owner = match path.as_str() {
            path if path.starts_with("net/") => Namespaces::NETWORK,
            path if path.starts_with("user/") => Namespaces::USER,
            "kernel/domainname" => Namespaces::UTS,
            path if IPC.contains(&path) || path.starts_with("fs/mqueue/") => Namespaces::IPC,
            _ => return Err(Error::invalid(doing(), "it belongs to no namespace, so it would change the host")),
        };
        if !namespaces.has(owner) {
            return Err(Error::invalid(doing(), "the container shares that namespace with the host"));
        }
        all.push(Sysctl { name: text(&doing(), &path)?, value: value.clone(), owner });
    }
    all.sort();
    Ok(all)
}

/// The path below /proc/sys of a parameter, as sysctl(8) reads it: the first `.` or `/` is what stands between the words, and
/// the other one for a `.` in a word (`net.ipv4.conf.eth0/100.forwarding`). None of `+`, `..` and the like is a word.
fn path_of(name: &str) -> Option<String> {
    let path: String = match name.find(['.', '/']).map(|at| &name[at..=at]) {
        Some("/") => name.to_owned(),
        _ => name
            .chars()
            .map(|letter| {
                if letter == '.' {
                    '/'
                } else if letter == '/' {
                    '.'
                } else {
                    letter
                }
            })
            .collect(),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let word = |word: &str| !matches!(word, "" | "." | "..") && word.chars().all(plain);
    path.split('/').all(word).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_named_with_dots_or_with_slashes() {
        for (name, wanted) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
            ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ] {
            assert_eq!(path_of(name).as_deref(), Some(wanted));
        }
        for name in ["", "net..x", "net.//.x", "net/../x", "net/./x", "/net/x", "net/x/", "net.x+", "net/x y", "."] {
            assert_eq!(path_of(name), None, "{name:?}");
        }
    }
}
