//! System call numbers by name, per architecture, and i386's calls that stand for several.

use super::numbers::NUMBERS;

/// A name and its number on x86-64, i386 and x32; `u16::MAX` where there is no such call.
pub(super) type Row = (&'static str, [u16; 3]);

/// `AUDIT_ARCH_X86_64`.
pub(super) const AUDIT_X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386`.
pub(super) const AUDIT_I386: u32 = 0x4000_0003;
/// `__X32_SYSCALL_BIT`.
pub(super) const X32_BIT: u32 = 0x4000_0000;
/// i386's `socketcall` and `ipc`.
pub(super) const SOCKETCALL: u32 = 102;
pub(super) const IPC: u32 = 117;

/// An application binary interface of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    X86,
    X32,
}

impl Abi {
    /// The number in `row` as the kernel reports it to a filter.
    pub(super) fn number(self, row: &Row) -> Option<u32> {
        let number = row.1[self as usize];
        let bit = if self == Abi::X32 { X32_BIT } else { 0 };
        (number != u16::MAX).then_some(bit | u32::from(number))
    }
}

/// Finds names. Profiles are mostly sorted as the table is, so the neighbourhood of the last find is tried first.
#[derive(Default)]
pub(super) struct Finder {
    next: usize,
}

impl Finder {
    pub(super) fn find(&mut self, name: &str) -> Option<&'static Row> {
        let near = NUMBERS.iter().enumerate().skip(self.next).take(4);
        let at = match near.clone().find(|(_, row)| row.0 == name) {
            Some((at, _)) => at,
            None => NUMBERS.binary_search_by(|row| row.0.cmp(name)).ok()?,
        };
        self.next = at + 1;
        Some(&NUMBERS[at])
    }
}

/// The other way to a call on i386: through `socketcall` or `ipc`, with this code as the first argument.
pub(super) fn multiplexed(name: &str) -> Option<(u32, u32)> {
    let at = MULTIPLEXED.binary_search_by(|entry| entry.0.cmp(name)).ok()?;
    let (_, call, code) = MULTIPLEXED[at];
    Some((call, code))
}

/// `linux/net.h` and `linux/ipc.h`, sorted by name.
static MULTIPLEXED: [(&str, u32, u32); 32] = [
    ("accept", SOCKETCALL, 5),
    ("accept4", SOCKETCALL, 18),
    ("bind", SOCKETCALL, 2),
    ("connect", SOCKETCALL, 3),
    ("getpeername", SOCKETCALL, 7),
    ("getsockname", SOCKETCALL, 6),
    ("getsockopt", SOCKETCALL, 15),
    ("listen", SOCKETCALL, 4),
    ("msgctl", IPC, 14),
    ("msgget", IPC, 13),
    ("msgrcv", IPC, 12),
    ("msgsnd", IPC, 11),
    ("recv", SOCKETCALL, 10),
    ("recvfrom", SOCKETCALL, 12),
    ("recvmmsg", SOCKETCALL, 19),
    ("recvmsg", SOCKETCALL, 17),
    ("semctl", IPC, 3),
    ("semget", IPC, 2),
    ("semop", IPC, 1),
    ("semtimedop", IPC, 4),
    ("send", SOCKETCALL, 9),
    ("sendmmsg", SOCKETCALL, 20),
    ("sendmsg", SOCKETCALL, 16),
    ("sendto", SOCKETCALL, 11),
    ("setsockopt", SOCKETCALL, 14),
    ("shmat", IPC, 21),
    ("shmctl", IPC, 24),
    ("shmdt", IPC, 22),
    ("shmget", IPC, 23),
    ("shutdown", SOCKETCALL, 13),
    ("socket", SOCKETCALL, 1),
    ("socketpair", SOCKETCALL, 8),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted() {
        assert!(NUMBERS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(MULTIPLEXED.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn the_numbers_are_those_of_another_copy_of_the_kernels_tables() {
        let mut finder = Finder::default();
        let native = syscalls::x86_64::Sysno::iter().map(|number| (Abi::X86_64, number.name(), number.id()));
        let x86 = syscalls::x86::Sysno::iter().map(|number| (Abi::X86, number.name(), number.id()));
        for (abi, name, number) in native.chain(x86) {
            let row = finder.find(name.trim_start_matches("r#")).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(abi.number(row), Some(number as u32), "{name}");
        }
        let execve = finder.find("execve").unwrap();
        assert_eq!(Abi::X32.number(execve), Some(X32_BIT | 520));
    }
}
