//! The one thing a network namespace of its own needs before anything else: its loopback interface, up.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::call::{Arg, Result, call};

/// A socket of the current network namespace, which it stays of wherever it is used.
pub fn socket() -> Result<OwnedFd> {
    let args = [Arg::Text("AF_INET"), Arg::Text("SOCK_DGRAM|SOCK_CLOEXEC"), Arg::Int(0)];
    call("socket", &args, || {
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
    })
}

/// Brings `lo` of the socket's network namespace up (`netdevice(7)`, `SIOCSIFFLAGS`).
pub fn loopback_up(socket: BorrowedFd<'_>) -> Result<()> {
    let text = "{ifr_name=\"lo\", ifr_flags=IFF_UP|IFF_RUNNING}";
    call("ioctl", &[Arg::fd(&socket), Arg::Text("SIOCSIFFLAGS"), Arg::Text(text)], || {
        // SAFETY: ifreq is plain data; the kernel reads the name and the flags of it during the call.
        unsafe {
            let mut request: libc::ifreq = std::mem::zeroed();
            request.ifr_name[0] = b'l' as libc::c_char;
            request.ifr_name[1] = b'o' as libc::c_char;
            request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
            crate::process::check(i64::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request)))
                .map(drop)
        }
    })
}
