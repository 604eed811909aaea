//! Network devices by rtnetlink: where they are, what addresses they have.
//!
//! A request is one message and its answer. Sources: `rtnetlink(7)`, `netlink(7)`, the kernel's `linux/if_link.h` and
//! `linux/if_addr.h`.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::Errno;
use crate::call::{Arg, Error, Result, call};

/// A socket into the network namespace that the caller is in when it makes it, for good.
#[derive(Debug)]
pub struct Rtnl(OwnedFd);

/// An address of a device, as the kernel's messages have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    scope: u8,
    /// Attributes that belong to the address wherever its device is.
    attributes: Vec<(u16, Vec<u8>)>,
}

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// For a request that asks for all there is.
const NLM_F_DUMP: u16 = 0x300;
/// For one that makes something that must not be there.
const NLM_F_MAKE: u16 = 0x600;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_F_PERMANENT: u32 = 0x80;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const RT_SCOPE_UNIVERSE: u8 = 0;
const IFF_UP: u32 = 1;
/// Length of `struct nlmsghdr`, and of `struct ifaddrmsg`.
const HEADER: usize = 16;
const IFADDRMSG: usize = 8;

impl Rtnl {
    /// Opens one.
    pub fn open() -> Result<Self> {
        let args = [Arg::Text("AF_NETLINK"), Arg::Text("SOCK_RAW|SOCK_CLOEXEC"), Arg::Text("NETLINK_ROUTE")];
        call("socket", &args, || {
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
        })
        .map(Self)
    }

    /// The number of the device `name` (`netdevice(7)`, `SIOCGIFINDEX`).
    ///
    /// # Errors
    /// `ENODEV` if there is none.
    pub fn index(&self, name: &str) -> Result<u32> {
        let text = format!("{{ifr_name={name:?}}}");
        let mut index = 0;
        call("ioctl", &[Arg::fd(&self.0), Arg::Text("SIOCGIFINDEX"), Arg::Text(&text)], || {
            index = rustix::net::netdevice::name_to_index(&self.0, name)?;
            Ok(())
        })?;
        Ok(index)
    }

    /// The addresses of the device that are permanent and global: not those that a protocol has found, nor those of the link.
    pub fn permanent_addresses(&self, index: u32) -> Result<Vec<Address>> {
        let mut all = Vec::new();
        let what = format!("{{RTM_GETADDR, ifa_index={index}}}");
        self.ask(RTM_GETADDR, NLM_F_DUMP, &[0; IFADDRMSG], &what, &mut |kind, body| {
            if kind == RTM_NEWADDR && body.len() >= IFADDRMSG && body[4..8] == index.to_ne_bytes() {
                all.extend(Address::read(body));
            }
        })?;
        Ok(all)
    }

    /// Moves the device into another network namespace, under another name.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_ADMIN in both namespaces, `EINVAL` for a device that is bound to its namespace, `EEXIST` for a
    /// name that is taken there.
    pub fn move_to(&self, index: u32, name: &str, namespace: BorrowedFd<'_>) -> Result<()> {
        let mut body = link(index, 0);
        attribute(&mut body, IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
        attribute(&mut body, IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        let what = format!("{{RTM_NEWLINK, ifi_index={index}, IFLA_IFNAME={name:?}, IFLA_NET_NS_FD}}");
        self.ask(RTM_NEWLINK, NLM_F_ACK, &body, &what, &mut |_, _| {})
    }

    /// Sets the state of the device to up.
    pub fn set_up(&self, index: u32) -> Result<()> {
        let what = format!("{{RTM_NEWLINK, ifi_index={index}, ifi_flags=IFF_UP}}");
        self.ask(RTM_NEWLINK, NLM_F_ACK, &link(index, IFF_UP), &what, &mut |_, _| {})
    }

    /// Gives the device an address.
    ///
    /// # Errors
    /// `EEXIST` if it has it.
    pub fn add_address(&self, index: u32, address: &Address) -> Result<()> {
        let mut body = vec![address.family, address.prefix, 0, address.scope];
        body.extend(index.to_ne_bytes());
        for (kind, value) in &address.attributes {
            attribute(&mut body, *kind, value);
        }
        let what = format!("{{RTM_NEWADDR, ifa_index={index}, {}}}", address.text());
        self.ask(RTM_NEWADDR, NLM_F_ACK | NLM_F_MAKE, &body, &what, &mut |_, _| {})
    }

    /// Sends one request and hears its answers to the last.
    fn ask(&self, kind: u16, flags: u16, body: &[u8], what: &str, each: &mut dyn FnMut(u16, &[u8])) -> Result<()> {
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        // One request at a time needs no number; the kernel gives the port.
        message.extend([0; 8]);
        message.extend(body);
        call("sendto", &[Arg::fd(&self.0), Arg::Text(what)], || {
            rustix::net::send(&self.0, &message, SendFlags::empty()).map(drop)
        })?;
        loop {
            let mut buffer = vec![0u8; 32 << 10];
            let mut length = 0;
            call("recvfrom", &[Arg::fd(&self.0)], || {
                let received = rustix::io::retry_on_intr(|| {
                    rustix::net::recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty())
                })?;
                length = received.0;
                Ok(length)
            })?;
            if let Some(answer) = answers(&buffer[..length], each) {
                return answer.map_err(|errno| Error::new("sendto", what, errno));
            }
        }
    }
}

/// Takes the messages of one datagram apart. Gives what they end with, if this was the last.
fn answers(mut rest: &[u8], each: &mut dyn FnMut(u16, &[u8])) -> Option<std::result::Result<(), Errno>> {
    while rest.len() >= HEADER {
        let length = u32::from_ne_bytes(rest[..4].try_into().unwrap_or_default()) as usize;
        if length < HEADER || length > rest.len() {
            return Some(Err(Errno::BADMSG));
        }
        let body = &rest[HEADER..length];
        match u16::from_ne_bytes([rest[4], rest[5]]) {
            // Both may carry a negative error number first; 0 and none are success.
            NLMSG_ERROR | NLMSG_DONE => {
                let number = body.get(..4).map_or(0, |word| i32::from_ne_bytes(word.try_into().unwrap_or_default()));
                return Some(if number < 0 { Err(Errno::from_raw_os_error(-number)) } else { Ok(()) });
            }
            kind => each(kind, body),
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    None
}

impl Address {
    /// From a message of the kernel's; none if the address is not permanent, or not global.
    fn read(body: &[u8]) -> Option<Self> {
        let mut flags = u32::from(body[2]);
        let mut attributes = Vec::new();
        for (kind, value) in Attributes(&body[IFADDRMSG..]) {
            match kind {
                IFA_FLAGS => flags = value.try_into().map_or(flags, u32::from_ne_bytes),
                IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST | IFA_RT_PRIORITY => attributes.push((kind, value.to_vec())),
                _ => {}
            }
        }
        if flags & IFA_F_NOPREFIXROUTE != 0 {
            attributes.push((IFA_FLAGS, IFA_F_NOPREFIXROUTE.to_ne_bytes().to_vec()));
        }
        let kept = flags & IFA_F_PERMANENT != 0 && body[3] == RT_SCOPE_UNIVERSE;
        kept.then_some(Self { family: body[0], prefix: body[1], scope: body[3], attributes })
    }

    /// As people write it.
    pub fn text(&self) -> String {
        let find = |wanted| self.attributes.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| &value[..]);
        let bytes = find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS)).unwrap_or_default();
        let address = match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
            (Ok(four), _) => std::net::Ipv4Addr::from(four).to_string(),
            (_, Ok(sixteen)) => std::net::Ipv6Addr::from(sixteen).to_string(),
            _ => format!("{bytes:?}"),
        };
        format!("{address}/{}", self.prefix)
    }
}

/// `struct ifinfomsg` of a device, with the flags that are to be set.
fn link(index: u32, flags: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), flags.to_ne_bytes()].concat()
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((4 + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(aligned(body.len()), 0);
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The attributes behind a message's fixed part, up to one that is cut off.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?);
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut all = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        all.extend(kind.to_ne_bytes());
        all.extend([0; 10]);
        all.extend(body);
        all
    }

    #[test]
    fn an_answer_ends_with_its_error_or_its_end() {
        let mut heard = Vec::new();
        let mut each = |kind: u16, body: &[u8]| heard.push((kind, body.to_vec()));
        assert_eq!(answers(&message(20, &[1, 2, 3, 4]), &mut each), None);
        let both = [message(20, &[5; 4]), message(NLMSG_DONE, &[0; 4])].concat();
        assert_eq!(answers(&both, &mut each), Some(Ok(())));
        assert_eq!(answers(&message(NLMSG_ERROR, &(-19i32).to_ne_bytes()), &mut each), Some(Err(Errno::NODEV)));
        assert_eq!(heard, [(20, vec![1, 2, 3, 4]), (20, vec![5; 4])]);
        let short = &message(20, &[0; 8])[..20];
        assert_eq!(answers(short, &mut |_, _| panic!("half a message")), Some(Err(Errno::BADMSG)));
    }

    #[test]
    fn only_permanent_global_addresses_go_with_a_device() {
        let address = |flags: u8, scope: u8, wide: Option<u32>| {
            let mut body = vec![2, 24, flags, scope, 7, 0, 0, 0];
            attribute(&mut body, IFA_LOCAL, &[10, 0, 0, 1]);
            attribute(&mut body, 3, b"eth0\0");
            wide.iter().for_each(|flags| attribute(&mut body, IFA_FLAGS, &flags.to_ne_bytes()));
            Address::read(&body)
        };
        let kept = address(0x80, 0, None).unwrap();
        assert_eq!(
            (kept.text(), kept.attributes.len()),
            ("10.0.0.1/24".to_owned(), 1),
            "a label names the old device"
        );
        assert_eq!(address(0, 0, Some(0x280)).unwrap().attributes.len(), 2);
        assert!(address(0x80, 253, None).is_none() && address(0, 0, None).is_none());
        assert!(address(0x80, 0, Some(0)).is_none(), "the wide flags are the ones that count");
    }
}
