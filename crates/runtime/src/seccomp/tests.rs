use super::*;
use proptest::prelude::*;

/// What the kernel would do: an interpreter of the instructions that `bpf` emits.
fn run(program: &Program, arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend_from_slice(&number.to_le_bytes());
    data.extend_from_slice(&arch.to_le_bytes());
    data.extend_from_slice(&0u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend_from_slice(&arg.to_le_bytes()));
    let (mut at, mut word) = (0usize, 0u32);
    loop {
        let SockFilter { code, jt, jf, k } = program.filter[at];
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => word = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
            0x54 => word &= k,
            0x15 => jump(word == k),
            0x25 => jump(word > k),
            0x35 => jump(word >= k),
            0x05 => at += k as usize,
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn profile(json: serde_json::Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

const ALLOW: u32 = 0x7fff_0000;

#[test]
fn allowed_denied_and_newer_calls_are_told_apart() {
    let program = compile(&profile(serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{"names": ["read", "openat2", "no_such_call"], "action": "SCMP_ACT_ALLOW"}]
    })))
    .unwrap();
    let native = |number| run(&program, table::AUDIT_X86_64, number, [0; 6]);
    assert_eq!(native(0), ALLOW);
    assert_eq!(native(1), RET_ERRNO | EPERM);
    assert_eq!(native(437), ALLOW);
    assert_eq!(native(438), RET_ERRNO | ENOSYS, "newer than everything the profile names");
    assert_eq!(native(table::X32_BIT), RET_KILL_PROCESS, "x32 was not asked for");
    assert_eq!(run(&program, table::AUDIT_I386, 3, [0; 6]), ALLOW, "read is 3 on i386");
    assert_eq!(run(&program, table::AUDIT_I386, 0, [0; 6]), RET_ERRNO | EPERM);
    assert_eq!(run(&program, 0x1234, 0, [0; 6]), RET_KILL_PROCESS);
}

#[test]
fn the_strictest_of_two_rules_without_conditions_counts() {
    let program = compile(&profile(serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mount"], "action": "SCMP_ACT_LOG"},
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}
        ]
    })))
    .unwrap();
    assert_eq!(run(&program, table::AUDIT_X86_64, 165, [0; 6]), RET_ERRNO | 13);
    assert_eq!(run(&program, table::AUDIT_X86_64, 9999, [0; 6]), ALLOW, "an open profile has no ENOSYS");
}

#[test]
fn what_is_not_supported_is_an_error_that_names_it() {
    let error = compile(&profile(serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]
    })))
    .unwrap_err();
    assert!(error.to_string().contains("SCMP_ACT_NOTIFY"), "{error}");
}

fn holds(op: &str, arg: u64, value: u64, two: u64) -> bool {
    match op {
        "SCMP_CMP_EQ" => arg == value,
        "SCMP_CMP_NE" => arg != value,
        "SCMP_CMP_LT" => arg < value,
        "SCMP_CMP_LE" => arg <= value,
        "SCMP_CMP_GT" => arg > value,
        "SCMP_CMP_GE" => arg >= value,
        "SCMP_CMP_MASKED_EQ" => arg & value == two,
        other => panic!("{other}"),
    }
}

/// Values whose halves are often equal to one another's.
fn word() -> impl Strategy<Value = u64> {
    let half = prop_oneof![Just(0u64), Just(1), Just(2), Just(u64::from(u32::MAX)), 0..=u64::from(u32::MAX)];
    (half.clone(), half).prop_map(|(high, low)| high << 32 | low)
}

proptest! {
    #[test]
    fn a_comparison_agrees_with_arithmetic(
        op in prop::sample::select(vec![
            "SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_GT", "SCMP_CMP_GE",
            "SCMP_CMP_MASKED_EQ",
        ]),
        (value, two, arg, other) in (word(), word(), word(), word()),
        index in 0usize..6,
    ) {
        let program = compile(&profile(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": index, "value": value, "valueTwo": two, "op": op},
                {"index": (index + 1) % 6, "value": other, "op": "SCMP_CMP_EQ"},
            ]}]
        }))).unwrap();
        for second in [other, other ^ 1 << 40] {
            let mut args = [7u64; 6];
            args[index] = arg;
            args[(index + 1) % 6] = second;
            let expected = if holds(op, arg, value, two) && second == other { ALLOW } else { RET_ERRNO | EPERM };
            prop_assert_eq!(run(&program, table::AUDIT_X86_64, 135, args), expected);
        }
    }

    #[test]
    fn the_search_finds_every_number(allowed in prop::collection::btree_set(0u32..330, 1..200)) {
        let names: Vec<String> = allowed.iter()
            .filter_map(|number| syscalls::x86_64::Sysno::new(*number as usize))
            .map(|number| number.name().to_owned())
            .collect();
        let program = compile(&profile(serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": names.clone(), "action": "SCMP_ACT_ALLOW"}]
        }))).unwrap();
        let newest = names.iter().filter_map(|name| table::x86_64(name)).max().unwrap_or(0);
        for number in 0..460 {
            let known = syscalls::x86_64::Sysno::new(number as usize);
            let expected = match known {
                Some(known) if names.iter().any(|name| name == known.name()) => ALLOW,
                _ if number > newest => RET_ERRNO | ENOSYS,
                _ => RET_ERRNO | EPERM,
            };
            prop_assert_eq!(run(&program, table::AUDIT_X86_64, number, [0; 6]), expected, "{}", number);
        }
    }
}
