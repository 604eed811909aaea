//! The few instructions of classic BPF that a filter needs, with jumps that may be of any length.

use hull_sys::seccomp::SockFilter;
use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator};

const LD_ABS: u16 = 0x20;
const JMP_JA: u16 = 0x05;
const JMP_JEQ: u16 = 0x15;
const JMP_JGT: u16 = 0x25;
const JMP_JGE: u16 = 0x35;
const ALU_AND: u16 = 0x54;
const RET: u16 = 0x06;

/// A piece of a program; all its jumps are relative, so pieces can be put one behind another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Code(Vec<SockFilter>);

impl Code {
    pub(super) fn returning(action: u32) -> Self {
        let mut code = Self::default();
        code.ret(action);
        code
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn finish(self) -> Vec<SockFilter> {
        self.0
    }

    pub(super) fn append(&mut self, other: &Code) {
        self.0.extend_from_slice(&other.0);
    }

    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) {
        self.0.push(SockFilter { code, jt, jf, k });
    }

    /// Loads the word at `offset` of `struct seccomp_data`.
    pub(super) fn load(&mut self, offset: u32) {
        self.push(LD_ABS, offset, 0, 0);
    }

    pub(super) fn and(&mut self, mask: u32) {
        self.push(ALU_AND, mask, 0, 0);
    }

    pub(super) fn ret(&mut self, action: u32) {
        self.push(RET, action, 0, 0);
    }

    /// Skips the next `count` instructions unless the word equals `value`.
    pub(super) fn skip_unless_equal(&mut self, value: u32, count: usize) {
        self.push(JMP_JEQ, value, 1, 0);
        self.push(JMP_JA, count as u32, 0, 0);
    }

    /// Skips the next `count` instructions if the word is at least `value`.
    pub(super) fn skip_if_at_least(&mut self, value: u32, count: usize) {
        match u8::try_from(count) {
            Ok(count) => self.push(JMP_JGE, value, count, 0),
            Err(_) => {
                self.push(JMP_JGE, value, 0, 1);
                self.push(JMP_JA, count as u32, 0, 0);
            }
        }
    }

    pub(super) fn return_if_at_least(&mut self, value: u32, action: u32) {
        self.push(JMP_JGE, value, 0, 1);
        self.ret(action);
    }
}

/// Where a jump of a condition goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// The next instruction.
    Fall,
    /// The condition holds: to the one after it.
    Holds,
    /// It does not: behind the whole rule.
    Fails,
}

type Draft = (u16, u32, To, To);

/// `action` if all of `args` hold, otherwise on to what follows.
pub(super) fn conditional(args: &[LinuxSeccompArg], action: u32) -> Code {
    let conditions: Vec<Vec<Draft>> = args.iter().map(condition).collect();
    let total: usize = conditions.iter().map(Vec::len).sum::<usize>() + 1;
    let mut code = Code::default();
    for condition in &conditions {
        let end = code.len() + condition.len();
        for (op, k, yes, no) in condition {
            let after = code.len() + 1;
            let distance = |to: To| match to {
                To::Fall => 0,
                To::Holds => (end - after) as u8,
                To::Fails => (total - after) as u8,
            };
            code.push(*op, *k, distance(*yes), distance(*no));
        }
    }
    code.ret(action);
    code
}

/// A comparison of a 64-bit argument: high word first, then the low one.
fn condition(arg: &LinuxSeccompArg) -> Vec<Draft> {
    use LinuxSeccompOperator as Op;
    use To::{Fails, Fall, Holds};
    let low_at = 16 + 8 * arg.index() as u32;
    let (value, second) = (arg.value(), arg.value_two().unwrap_or(0));
    let (high, low) = ((value >> 32) as u32, value as u32);
    let load_high = (LD_ABS, low_at + 4, Fall, Fall);
    let load_low = (LD_ABS, low_at, Fall, Fall);
    match arg.op() {
        Op::ScmpCmpEq => vec![load_high, (JMP_JEQ, high, Fall, Fails), load_low, (JMP_JEQ, low, Fall, Fails)],
        Op::ScmpCmpNe => vec![load_high, (JMP_JEQ, high, Fall, Holds), load_low, (JMP_JEQ, low, Fails, Fall)],
        Op::ScmpCmpMaskedEq => vec![
            load_high,
            (ALU_AND, high, Fall, Fall),
            (JMP_JEQ, (second >> 32) as u32, Fall, Fails),
            load_low,
            (ALU_AND, low, Fall, Fall),
            (JMP_JEQ, second as u32, Fall, Fails),
        ],
        Op::ScmpCmpGt => above(load_high, load_low, high, (JMP_JGT, low, Fall, Fails)),
        Op::ScmpCmpGe => above(load_high, load_low, high, (JMP_JGE, low, Fall, Fails)),
        Op::ScmpCmpLt => below(load_high, load_low, high, (JMP_JGE, low, Fails, Fall)),
        Op::ScmpCmpLe => below(load_high, load_low, high, (JMP_JGT, low, Fails, Fall)),
    }
}

fn above(load_high: Draft, load_low: Draft, high: u32, last: Draft) -> Vec<Draft> {
    vec![load_high, (JMP_JGT, high, To::Holds, To::Fall), (JMP_JEQ, high, To::Fall, To::Fails), load_low, last]
}

fn below(load_high: Draft, load_low: Draft, high: u32, last: Draft) -> Vec<Draft> {
    vec![load_high, (JMP_JGT, high, To::Fails, To::Fall), (JMP_JEQ, high, To::Fall, To::Holds), load_low, last]
}
