//! Which devices a container may open: lines of a file on v1, an eBPF program on v2. Pure.
//!
//! v1's kernel keeps an ordered list; v2 asks a program, once per open or mknod. The program reads the same lines
//! from the last to the first: a line that denies a part of what is asked refuses it, one that allows a part takes
//! that part off, and what is still asked at the end is refused. So without any line nothing is allowed.
//!
//! Sources: the kernel's `cgroup-v1/devices.rst` and `cgroup-v2.rst` ("Device controller"), `bpf(2)`.

use hull_sys::bpf::Insn;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::limits::{Write, write};
use crate::error::{Error, Result};

const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// The line of v1's `devices.allow` or `devices.deny` for a rule.
pub(super) fn line(rule: &LinuxDeviceCgroup) -> Result<Write> {
    let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::B => "b",
        LinuxDeviceType::C | LinuxDeviceType::U => "c",
        LinuxDeviceType::A => "a",
        LinuxDeviceType::P => return Err(Error::invalid("limit devices", "a FIFO (type p) has no device rule")),
    };
    let number = |value: Option<i64>| match value {
        None | Some(-1) => Ok("*".to_owned()),
        Some(value) => u32::try_from(value).map(|value| value.to_string()).map_err(|_| {
            Error::invalid("limit devices", format!("{value} is not a device number, nor -1 for all of them"))
        }),
    };
    let access = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
    if let Some(other) = access.chars().find(|letter| !"rwm".contains(*letter)) {
        return Err(Error::invalid("limit devices", format!("access {access:?} has {other:?}, not only r, w and m")));
    }
    let (major, minor) = (number(rule.major())?, number(rule.minor())?);
    let value = match (kind, major.as_str(), minor.as_str()) {
        // The kernel's file takes numbers and kinds apart only together.
        ("a", "*", "*") if access.len() == 3 => "a".to_owned(),
        _ => format!("{kind} {major}:{minor} {access}"),
    };
    Ok(write("devices", if rule.allow() { "devices.allow" } else { "devices.deny" }, value))
}

/// All rules of a container whose specification has `rules`: what they allow and what every container may use, and nothing
/// else, also where none of them denies the rest.
pub fn device_rules(rules: &[LinuxDeviceCgroup]) -> Vec<LinuxDeviceCgroup> {
    let mut nothing = LinuxDeviceCgroup::default();
    nothing.set_allow(false).set_access(Some("rwm".to_owned()));
    let first = (rules.first() != Some(&nothing)).then_some(nothing);
    first.into_iter().chain(rules.iter().cloned()).chain(standard_devices()).collect()
}

/// What every container may use: the standard devices and terminals. Making any node is allowed, opening it is not.
pub fn standard_devices() -> Vec<LinuxDeviceCgroup> {
    use LinuxDeviceType as Type;
    const NUMBERS: [(i64, i64); 7] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];
    let rule = |kind, major, minor, access: &str| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true)
            .set_typ(Some(kind))
            .set_major(major)
            .set_minor(minor)
            .set_access(Some(access.to_owned()));
        rule
    };
    let mut all = vec![rule(Type::C, None, None, "m"), rule(Type::B, None, None, "m")];
    all.extend(NUMBERS.map(|(major, minor)| rule(Type::C, Some(major), Some(minor), "rwm")));
    all.push(rule(Type::C, Some(136), None, "rwm"));
    all
}

/// Registers of the program.
const R0: u8 = 0;
const CONTEXT: u8 = 1;
const ASKED: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const LOAD_WORD: u8 = 0x61;
const MOVE_REG: u8 = 0xbc;
const MOVE: u8 = 0xb4;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_NOT_EQUAL: u8 = 0x56;
const JUMP_EQUAL: u8 = 0x16;
const EXIT: u8 = 0x95;

fn insn(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Insn {
    Insn { code, registers: from << 4 | to, offset, value }
}

/// The program for lines as [`line`] makes them.
pub(super) fn program<'a>(lines: impl DoubleEndedIterator<Item = &'a Write>) -> Vec<Insn> {
    // struct bpf_cgroup_dev_ctx: access in the upper and kind in the lower half of the first word, major, minor.
    let mut code = vec![
        insn(LOAD_WORD, ASKED, CONTEXT, 0, 0),
        insn(MOVE_REG, KIND, ASKED, 0, 0),
        insn(AND, KIND, 0, 0, 0xffff),
        insn(SHIFT_RIGHT, ASKED, 0, 0, 16),
        insn(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        insn(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for line in lines.rev() {
        code.extend(block(line.file == "devices.allow", &line.value));
    }
    code.extend([insn(MOVE, R0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    code
}

fn block(allow: bool, line: &str) -> Vec<Insn> {
    let mut words = line.split([' ', ':']);
    let mut next = || words.next().unwrap_or("*");
    let (kind, major, minor, access) = (next(), next(), next(), next());
    let bit = |letter: char, bit: i32| if access == "*" || access.contains(letter) { bit } else { 0 };
    let access = bit('m', MKNOD) | bit('r', READ) | bit('w', WRITE);
    let decide = if allow {
        [insn(AND, ASKED, 0, 0, !access), insn(JUMP_NOT_EQUAL, ASKED, 0, 2, 0), insn(MOVE, R0, 0, 0, 1)].to_vec()
    } else {
        let part = [insn(MOVE_REG, R0, ASKED, 0, 0), insn(AND, R0, 0, 0, access)];
        [&part[..], &[insn(JUMP_EQUAL, R0, 0, 2, 0), insn(MOVE, R0, 0, 0, 0)]].concat()
    };
    let kind = match kind {
        "b" => Some(1),
        "c" => Some(2),
        _ => None,
    };
    // Numbers of 32 bits compare as such: the cast keeps the bits.
    let number = |text: &str| text.parse::<u32>().ok().map(|number| number as i32);
    let tests = [(KIND, kind), (MAJOR, number(major)), (MINOR, number(minor))];
    let tests: Vec<(u8, i32)> = tests.iter().filter_map(|(register, value)| Some((*register, (*value)?))).collect();
    let mut code = Vec::new();
    for (at, (register, value)) in tests.iter().enumerate() {
        let rest = tests.len() - at - 1 + decide.len() + 1;
        code.push(insn(JUMP_NOT_EQUAL, *register, 0, rest as i16, *value));
    }
    code.extend(decide);
    code.push(insn(EXIT, 0, 0, 0, 0));
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel's machine would answer.
    fn run(program: &[Insn], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let mut registers = [0u32; 6];
        let mut at = 0;
        loop {
            let Insn { code, registers: pair, offset, value } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            at += 1;
            match code {
                LOAD_WORD => registers[to] = [access << 16 | kind, major, minor][offset as usize / 4],
                MOVE_REG => registers[to] = registers[from],
                MOVE => registers[to] = value as u32,
                AND => registers[to] &= value as u32,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_NOT_EQUAL if registers[to] != value as u32 => at += offset as usize,
                JUMP_EQUAL if registers[to] == value as u32 => at += offset as usize,
                JUMP_NOT_EQUAL | JUMP_EQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn of(rules: serde_json::Value) -> Vec<Insn> {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_value(rules).unwrap();
        let lines: Vec<Write> = rules.iter().map(|rule| line(rule).unwrap()).collect();
        program(lines.iter())
    }

    #[test]
    fn the_last_line_that_speaks_of_an_access_decides_it() {
        let program = of(serde_json::json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "access": "m"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            {"allow": true, "type": "b", "major": 8, "access": "rwm"},
            {"allow": false, "type": "b", "major": 8, "minor": 1, "access": "w"}
        ]));
        let (block, char, mknod, read, write) = (1, 2, 1, 2, 4);
        assert!(run(&program, char, read | write, 1, 3));
        assert!(run(&program, char, read | mknod, 1, 3), "two lines allow one half each");
        assert!(run(&program, char, mknod, 99, 9));
        assert!(!run(&program, char, read, 1, 5));
        assert!(!run(&program, block, mknod, 7, 0));
        assert!(run(&program, block, read | write, 8, 0));
        assert!(run(&program, block, read, 8, 1));
        assert!(!run(&program, block, read | write, 8, 1));
    }

    #[test]
    fn nothing_is_allowed_without_a_line_and_everything_with_the_widest() {
        assert!(!run(&of(serde_json::json!([])), 2, 2, 1, 3));
        assert!(run(&of(serde_json::json!([{"allow": true, "access": "rwm"}])), 1, 7, 8, u32::MAX));
    }

    #[test]
    fn impossible_rules_are_errors() {
        for (rule, words) in [
            (serde_json::json!({"allow": true, "access": "rx"}), "'x'"),
            (serde_json::json!({"allow": true, "major": -7}), "-7"),
        ] {
            let rule: LinuxDeviceCgroup = serde_json::from_value(rule).unwrap();
            let error = line(&rule).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
