//! Which network devices are moved into the container, and what they are called there. Pure.

use hull_sys::ns::Namespaces;
use oci_spec::runtime::Linux;

use super::Isolation;
use crate::error::{Error, Result};

/// A network device of the host's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetDevice {
    /// Its name on the host.
    pub host: String,
    /// Its name in the container; a `%d` in it stands for the first number that makes it one that is free.
    pub name: String,
}

impl NetDevice {
    /// Bytes of the longest name (`IFNAMSIZ` less its end).
    pub const LONGEST: usize = 15;
}

/// The devices of `linux.netDevices`, by name.
///
/// # Errors
/// The container has no network namespace of its own, a name is none, two devices would have one name.
pub(super) fn devices(linux: &Linux, namespaces: &Isolation) -> Result<Vec<NetDevice>> {
    let given = linux.net_devices().iter().flatten();
    let mut all: Vec<NetDevice> = given
        .map(|(host, device)| NetDevice {
            host: host.clone(),
            name: device.name().clone().filter(|name| !name.is_empty()).unwrap_or_else(|| host.clone()),
        })
        .collect();
    all.sort();
    for (index, device) in all.iter().enumerate() {
        let refuse = |cause: String| {
            Error::invalid(format!("move the network device {:?} (linux.netDevices)", device.host), cause)
        };
        if !is_name(&device.host) {
            return Err(refuse("it is no name of a device".to_owned()));
        }
        let sample = device.name.replacen("%d", "0", 1);
        if !is_name(&sample) {
            return Err(refuse(format!("{:?} is no name for a device", device.name)));
        }
        if !device.name.contains("%d") && all[..index].iter().any(|other| other.name == device.name) {
            return Err(refuse(format!("another one is to be called {:?} as well", device.name)));
        }
        if !namespaces.has(Namespaces::NETWORK) {
            return Err(refuse("the container shares the host's network namespace".to_owned()));
        }
    }
    Ok(all)
}

/// The kernel's rule (`dev_valid_name`), and none of what it has a meaning for.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| !byte.is_ascii_whitespace() && !matches!(byte, b'/' | b':' | b'%' | 0);
    !matches!(name, "" | "." | "..") && name.len() <= NetDevice::LONGEST && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use serde_json::json;

    fn planned(devices: serde_json::Value, kinds: &[&str]) -> Result<Vec<NetDevice>> {
        let namespaces: Vec<_> = kinds.iter().map(|kind| json!({"type": kind})).collect();
        let spec = json!({"ociVersion": "1.3.0", "linux": {"namespaces": namespaces, "netDevices": devices}});
        Plan::from_spec(&serde_json::from_value(spec).unwrap()).map(|plan| plan.net_devices)
    }

    #[test]
    fn a_device_keeps_its_name_or_gets_another() {
        let device = |host: &str, name: &str| NetDevice { host: host.into(), name: name.into() };
        let devices = json!({"b0": {"name": "eth%d"}, "a0": {}, "c0": {"name": ""}});
        let all = planned(devices, &["mount", "network"]).unwrap();
        assert_eq!(all, [device("a0", "a0"), device("b0", "eth%d"), device("c0", "c0")]);
    }

    #[test]
    fn what_the_kernel_would_not_take_or_would_take_from_the_host_is_refused() {
        let cases = [
            (json!({"a/b": {}}), "\"a/b\" (linux.netDevices): it is no name"),
            (json!({"a%d": {}}), "it is no name"),
            (json!({"a": {"name": "sixteen-bytes-it"}}), "\"sixteen-bytes-it\" is no name"),
            (json!({"a": {"name": "x y"}}), "is no name"),
            (json!({"a": {"name": "x%d%d"}}), "is no name"),
            (json!({"a": {"name": ".."}}), "is no name"),
            (json!({"a": {"name": "same"}, "b": {"name": "same"}}), "another one is to be called \"same\""),
        ];
        for (devices, words) in cases {
            let error = planned(devices, &["mount", "network"]).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
        let error = planned(json!({"a": {}}), &["mount"]).unwrap_err().to_string();
        assert!(error.contains("shares the host's network namespace"), "{error}");
    }
}
