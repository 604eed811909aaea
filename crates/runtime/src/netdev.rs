//! Network devices of the host's that are moved into the container's network namespace.
//!
//! | who | what |
//! |---|---|
//! | parent, before the clone | finds each device and the addresses that it keeps |
//! | child, in its namespaces | finds out which names they get, none of which may be taken |
//! | parent | moves and names each in one request, which takes its state and addresses from it |
//! | child | gives each its addresses back, and sets it up |
//!
//! What becomes of them at the end is the kernel's: physical ones return to the first namespace, others go with theirs
//! (`network_namespaces(7)`). So they do when a creation fails after they were moved, which is why all that can be asked is
//! asked before. Source: runtime-spec, config-linux.md "Network Devices".

use std::ffi::CString;
use std::os::fd::AsFd;

use hull_sys::fs::{self, CWD};
use hull_sys::rtnl::{Address, Rtnl};
use hull_sys::sync::Line;
use hull_sys::{Errno, trace};
use rustix::fs::OFlags;

use crate::created::Created;
use crate::error::{Doing, Error, Result};
use crate::parent;
use crate::plan::NetDevice;

/// A device as the parent finds it.
pub(crate) struct Found {
    index: u32,
    addresses: Vec<Address>,
}

/// The child's word, with the names behind it.
const NAMES: &str = "devices ";

fn doing(device: &NetDevice) -> String {
    format!("move the network device {} (linux.netDevices)", device.host)
}

/// The parent's first part.
///
/// # Errors
/// There is no such device.
pub(crate) fn find(devices: &[NetDevice]) -> Result<Vec<Found>> {
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    let rtnl = Rtnl::open().doing(|| "look for network devices".to_owned())?;
    let one = |device: &NetDevice| {
        let index = rtnl.index(&device.host).doing(|| doing(device))?;
        let addresses = rtnl.permanent_addresses(index).doing(|| doing(device))?;
        Ok(Found { index, addresses })
    };
    devices.iter().map(one).collect()
}

/// The child's part, in the namespace that they come to.
///
/// # Errors
/// A name is taken there.
pub(crate) fn take(devices: &[NetDevice], found: &[Found], line: &Line) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    trace::stage(
        "take network devices",
        "They are moved by the parent, which has rights over where they are. A move takes their addresses and state from them.",
    );
    let rtnl = Rtnl::open().doing(|| "look for network devices".to_owned())?;
    let mut names: Vec<String> = Vec::with_capacity(devices.len());
    for device in devices {
        let name = name_for(device, |name| names.iter().any(|taken| taken == name) || rtnl.index(name).is_ok())?;
        names.push(name);
    }
    line.send(format!("{NAMES}{}", names.join(" ")).as_bytes(), None).doing(|| "report to the parent".to_owned())?;
    parent::wait(line, b"go")?;
    for ((device, name), found) in devices.iter().zip(&names).zip(found) {
        let index = rtnl.index(name).doing(|| doing(device))?;
        for address in &found.addresses {
            match rtnl.add_address(index, address) {
                // What a device keeps by itself.
                Err(error) if error.errno() == Errno::EXIST => {}
                other => {
                    other.doing(|| format!("keep the address {} of the network device {name}", address.text()))?
                }
            }
        }
        rtnl.set_up(index).doing(|| format!("set the network device {name} up"))?;
    }
    Ok(())
}

/// The name that a device gets: its own, or the first that its template gives.
fn name_for(device: &NetDevice, is_taken: impl Fn(&str) -> bool) -> Result<String> {
    let Some((before, after)) = device.name.split_once("%d") else {
        return match is_taken(&device.name) {
            true => Err(Error::invalid(doing(device), format!("the container has a device {} already", device.name))),
            false => Ok(device.name.clone()),
        };
    };
    let mut names = (0..u16::MAX).map(|number| format!("{before}{number}{after}"));
    let free = names.find(|name| name.len() <= NetDevice::LONGEST && !is_taken(name));
    free.ok_or_else(|| Error::invalid(doing(device), format!("no name of {:?} is free", device.name)))
}

/// The parent's second part: moves them when it hears the names that they get.
///
/// # Errors
/// The kernel refuses, for want of rights, or because the device is bound to its namespace.
pub(crate) fn give(devices: &[NetDevice], found: &[Found], created: &Created) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let (message, _) = created.hear()?;
    let text = String::from_utf8_lossy(&message);
    let Some(names) = text.strip_prefix(NAMES) else { return Err(Error::from_message(&message)) };
    let path = CString::new(format!("/proc/{}/ns/net", created.pid)).unwrap_or_default();
    let namespace = fs::openat(CWD, &path, OFlags::RDONLY, 0);
    let namespace = namespace.doing(|| "open the container's network namespace".to_owned())?;
    let rtnl = Rtnl::open().doing(|| "move network devices".to_owned())?;
    for ((device, found), name) in devices.iter().zip(found).zip(names.split(' ')) {
        rtnl.move_to(found.index, name, namespace.as_fd()).doing(|| doing(device))?;
    }
    created.tell(b"go")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_gets_the_first_number_that_is_free() {
        let device = |name: &str| NetDevice { host: "x0".into(), name: name.into() };
        let taken = ["eth0", "eth1", "lo"];
        let name = |wanted: &str| name_for(&device(wanted), |name| taken.contains(&name));
        assert_eq!(name("eth%d").unwrap(), "eth2");
        assert_eq!(name("a%db").unwrap(), "a0b");
        assert_eq!(name("wan").unwrap(), "wan");
        assert!(name("lo").unwrap_err().to_string().contains("has a device lo already"));
        assert!(name_for(&device("long-name-of%d"), |_| true).unwrap_err().to_string().contains("is free"));
    }
}
