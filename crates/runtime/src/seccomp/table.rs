//! System call numbers by name, per architecture.

/// `AUDIT_ARCH_X86_64`.
pub(super) const AUDIT_X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386`.
pub(super) const AUDIT_I386: u32 = 0x4000_0003;
/// `__X32_SYSCALL_BIT`.
pub(super) const X32_BIT: u32 = 0x4000_0000;

pub(super) fn x86_64(name: &str) -> Option<u32> {
    name.parse::<syscalls::x86_64::Sysno>().ok().map(|number| number.id() as u32)
}

pub(super) fn x86(name: &str) -> Option<u32> {
    name.parse::<syscalls::x86::Sysno>().ok().map(|number| number.id() as u32)
}
