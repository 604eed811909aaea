//! The few instructions of classic BPF that a filter needs, written from the last one to the first.
//!
//! Classic BPF only jumps forward, so whoever writes backwards knows where every jump goes: a label is a place that
//! is written already. Equal returns are shared, and a jump beyond the 255 instructions that a condition can skip
//! goes over an unconditional one.

use hull_sys::seccomp::SockFilter;
use oci_spec::runtime::LinuxSeccompOperator as Op;

const LD_ABS: u16 = 0x20;
const JMP_JA: u16 = 0x05;
pub(super) const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
pub(super) const JGE: u16 = 0x35;
const ALU_AND: u16 = 0x54;
const RET: u16 = 0x06;

/// A place in the program: how many instructions follow from there to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// One condition on an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Test {
    /// Which of the six.
    pub(super) index: u32,
    pub(super) op: Op,
    pub(super) value: u64,
    /// What the masked argument must be, for [`Op::ScmpCmpMaskedEq`].
    pub(super) second: u64,
}

/// A program in the making, last instruction first.
#[derive(Default)]
pub(super) struct Writer {
    reversed: Vec<SockFilter>,
    returns: Vec<(u32, Label)>,
}

impl Writer {
    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) -> Label {
        self.reversed.push(SockFilter { code, jt, jf, k });
        self.here()
    }

    fn here(&self) -> Label {
        Label(self.reversed.len())
    }

    /// The program in the order of its execution.
    pub(super) fn finish(mut self) -> Vec<SockFilter> {
        self.reversed.reverse();
        self.reversed
    }

    /// `struct seccomp_data`'s word at `offset` becomes the one that is compared; then on to what was written last.
    pub(super) fn load(&mut self, offset: u32) -> Label {
        self.push(LD_ABS, offset, 0, 0)
    }

    /// A place that answers `action`.
    pub(super) fn ret(&mut self, action: u32) -> Label {
        const NEAR: usize = 128;
        let here = self.reversed.len();
        if let Some((_, label)) = self.returns.iter().rev().find(|known| known.0 == action && here - known.1.0 < NEAR)
        {
            return *label;
        }
        let label = self.push(RET, action, 0, 0);
        self.returns.push((action, label));
        label
    }

    /// Compares the loaded word with `k`, then on to `yes` or `no`.
    pub(super) fn jump(&mut self, op: u16, k: u32, mut yes: Label, mut no: Label) -> Label {
        loop {
            let here = self.reversed.len();
            match (u8::try_from(here - yes.0), u8::try_from(here - no.0)) {
                (Ok(jt), Ok(jf)) => return self.push(op, k, jt, jf),
                (Err(_), _) => yes = self.push(JMP_JA, (here - yes.0) as u32, 0, 0),
                (_, Err(_)) => no = self.push(JMP_JA, (here - no.0) as u32, 0, 0),
            }
        }
    }

    /// Tests an argument. On a 32-bit architecture only the low half of both sides counts, as in libseccomp.
    pub(super) fn test(&mut self, test: &Test, narrow: bool, yes: Label, no: Label) -> Label {
        match test.op {
            Op::ScmpCmpEq => self.equal(test, narrow, yes, no),
            Op::ScmpCmpNe => self.equal(test, narrow, no, yes),
            Op::ScmpCmpGt => self.above(test, narrow, JGT, yes, no),
            Op::ScmpCmpLe => self.above(test, narrow, JGT, no, yes),
            Op::ScmpCmpGe => self.above(test, narrow, JGE, yes, no),
            Op::ScmpCmpLt => self.above(test, narrow, JGE, no, yes),
            Op::ScmpCmpMaskedEq => self.masked(test, narrow, yes, no),
        }
    }

    fn equal(&mut self, test: &Test, narrow: bool, yes: Label, no: Label) -> Label {
        self.jump(JEQ, test.value as u32, yes, no);
        let low = self.load(low_half(test.index));
        if narrow {
            return low;
        }
        self.jump(JEQ, (test.value >> 32) as u32, low, no);
        self.load(high_half(test.index))
    }

    fn masked(&mut self, test: &Test, narrow: bool, yes: Label, no: Label) -> Label {
        self.jump(JEQ, test.second as u32, yes, no);
        self.push(ALU_AND, test.value as u32, 0, 0);
        let low = self.load(low_half(test.index));
        if narrow {
            return low;
        }
        self.jump(JEQ, (test.second >> 32) as u32, low, no);
        self.push(ALU_AND, (test.value >> 32) as u32, 0, 0);
        self.load(high_half(test.index))
    }

    /// The high half decides unless it is equal; then the low half does, by `last`.
    fn above(&mut self, test: &Test, narrow: bool, last: u16, yes: Label, no: Label) -> Label {
        self.jump(last, test.value as u32, yes, no);
        let low = self.load(low_half(test.index));
        if narrow {
            return low;
        }
        let high = (test.value >> 32) as u32;
        let equal = self.jump(JEQ, high, low, no);
        self.jump(JGT, high, yes, equal);
        self.load(high_half(test.index))
    }
}

/// The arguments start at byte 16, eight bytes each, little-endian.
fn low_half(index: u32) -> u32 {
    16 + 8 * index
}

fn high_half(index: u32) -> u32 {
    low_half(index) + 4
}
