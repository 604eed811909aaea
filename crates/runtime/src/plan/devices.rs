//! The device nodes of a container. Pure.
//!
//! Source: runtime-spec, config-linux.md "Devices" and "Default Devices".

use std::fmt;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};

use crate::error::{Error, Result};

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where, as the container sees it.
    pub path: PathBuf,
    /// Which kind of node.
    pub kind: Node,
    /// Major and minor number; zeros for a FIFO.
    pub number: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// Owner and group, as the container sees them.
    pub owner: (u32, u32),
}

/// The kinds of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A block device.
    Block,
    /// A character device.
    Char,
    /// A FIFO.
    Fifo,
}

/// The devices that every container has: name, major and minor number.
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

pub(super) fn devices(linux: &Linux) -> Result<Vec<Device>> {
    let standard = DEFAULT.iter().map(|(name, major, minor)| Device {
        path: Path::new("/dev").join(name),
        kind: Node::Char,
        number: (*major, *minor),
        mode: 0o666,
        owner: (0, 0),
    });
    let mut all: Vec<Device> = standard.collect();
    for device in linux.devices().iter().flatten().filter(|device| !is_ptmx(device)) {
        all.retain(|known| known.path != *device.path());
        all.push(node(device)?);
    }
    Ok(all)
}

/// The host's /dev/ptmx, which is in the list of whoever lends all devices. The container's own leads to its own terminals
/// (runtime-spec, "Default Devices").
fn is_ptmx(device: &LinuxDevice) -> bool {
    let terminals = matches!(device.typ(), LinuxDeviceType::C | LinuxDeviceType::U);
    device.path() == Path::new("/dev/ptmx") && terminals && (device.major(), device.minor()) == (5, 2)
}

fn node(device: &LinuxDevice) -> Result<Device> {
    use LinuxDeviceType as Type;
    let doing = || format!("make the device {}", device.path().display());
    let number = |value: i64| u32::try_from(value).map_err(|_| Error::invalid(doing(), "number out of range"));
    let kind = match device.typ() {
        Type::B => Node::Block,
        Type::C | Type::U => Node::Char,
        Type::P => Node::Fifo,
        Type::A => return Err(Error::invalid(doing(), "\"a\" is for rules of control groups, not for a node")),
    };
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !device.path().is_absolute() || !device.path().components().all(plain) || device.path().parent().is_none() {
        return Err(Error::invalid(doing(), "its path is not absolute and plain"));
    }
    let number = match kind {
        Node::Fifo => (0, 0),
        _ => (number(device.major())?, number(device.minor())?),
    };
    Ok(Device {
        path: device.path().clone(),
        kind,
        number,
        mode: device.file_mode().unwrap_or(0o666) & 0o777,
        owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
    })
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.number;
        let path = self.path.display();
        match self.kind {
            Node::Block => write!(f, "{path} b {major}:{minor} {:o}", self.mode),
            Node::Char => write!(f, "{path} c {major}:{minor} {:o}", self.mode),
            Node::Fifo => write!(f, "{path} p {:o}", self.mode),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(devices: serde_json::Value) -> Result<Vec<Device>> {
        super::devices(&serde_json::from_value(json!({ "devices": devices })).unwrap())
    }

    #[test]
    fn a_device_of_the_specification_replaces_the_default_of_its_name() {
        let null = json!([{"type": "c", "path": "/dev/null", "major": 1, "minor": 3, "fileMode": 0o20600, "uid": 7}]);
        let all = plan(null).unwrap();
        assert_eq!(all.len(), DEFAULT.len());
        let null = all.last().unwrap();
        assert_eq!((null.mode, null.owner, null.to_string().as_str()), (0o600, (7, 0), "/dev/null c 1:3 600"));
    }

    #[test]
    fn the_hosts_ptmx_is_not_lent() {
        let of =
            |minor: i64| plan(json!([{"type": "c", "path": "/dev/ptmx", "major": 5, "minor": minor}])).unwrap().len();
        assert_eq!((of(2), of(3)), (DEFAULT.len(), DEFAULT.len() + 1));
    }

    #[test]
    fn a_fifo_has_no_number_and_all_kinds_is_no_node() {
        let fifo = json!([{"type": "p", "path": "/run/pipe", "major": 0, "minor": 0}]);
        assert_eq!(plan(fifo).unwrap().last().unwrap().to_string(), "/run/pipe p 666");
        let any = json!([{"type": "a", "path": "/dev/x", "major": 1, "minor": 1}]);
        assert!(plan(any).unwrap_err().to_string().contains("not for a node"));
        for path in ["dev/x", "/dev/../x", "/"] {
            let bad = json!([{"type": "c", "path": path, "major": 1, "minor": 1}]);
            assert!(plan(bad).unwrap_err().to_string().contains("not absolute and plain"), "{path}");
        }
    }
}
