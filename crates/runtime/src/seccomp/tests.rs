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
fn the_first_of_two_rules_without_conditions_counts() {
    let program = compile(&profile(serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mount"], "action": "SCMP_ACT_LOG"},
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}
        ]
    })))
    .unwrap();
    assert_eq!(run(&program, table::AUDIT_X86_64, 165, [0; 6]), RET_LOG);
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

fn number_of(abi: Abi, name: &str) -> Option<u32> {
    abi.number(Finder::default().find(name)?)
}

#[test]
fn the_x32_calls_have_numbers_of_their_own() {
    let program = compile(&profile(serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["read", "execve"], "action": "SCMP_ACT_ALLOW"}]
    })))
    .unwrap();
    let answers = |number| run(&program, table::AUDIT_X86_64, number, [0; 6]);
    assert_eq!(answers(59), ALLOW);
    assert_eq!(answers(table::X32_BIT), ALLOW);
    assert_eq!(answers(table::X32_BIT | 520), ALLOW, "x32's execve");
    assert_eq!(answers(table::X32_BIT | 59), RET_ERRNO | EPERM);
    assert_eq!(answers(520), RET_ERRNO | ENOSYS);
    assert_eq!(answers(u32::MAX), RET_ERRNO | ENOSYS, "a tracer's skipped call kills nobody");
    assert_eq!(run(&program, table::AUDIT_I386, 3, [0; 6]), RET_KILL_PROCESS);
}

#[test]
fn socketcall_is_no_way_around_a_rule_on_i386() {
    let program = compile(&profile(serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["bind", "shmat"], "action": "SCMP_ACT_ERRNO"}]
    })))
    .unwrap();
    let answers = |number, first| run(&program, table::AUDIT_I386, number, [first, 0, 0, 0, 0, 0]);
    assert_eq!(answers(361, 0), RET_ERRNO | EPERM);
    assert_eq!(answers(table::SOCKETCALL, 2), RET_ERRNO | EPERM);
    assert_eq!(answers(table::SOCKETCALL, 1), ALLOW);
    assert_eq!(answers(table::IPC, 21), RET_ERRNO | EPERM);
    assert_eq!(answers(table::IPC, 1 << 16 | 21), RET_ERRNO | EPERM, "the upper half is a version");
}

#[test]
fn two_conditions_on_one_argument_are_alternatives() {
    let program = compile(&profile(serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]}]
    })))
    .unwrap();
    for (first, expected) in [(1, ALLOW), (2, ALLOW), (3, RET_ERRNO | EPERM)] {
        assert_eq!(run(&program, table::AUDIT_X86_64, 135, [first, 0, 0, 0, 0, 0]), expected);
    }
}

#[test]
fn impossible_profiles_are_errors_that_name_the_thing() {
    let rule = |rule: serde_json::Value| serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]});
    let cases = [
        (
            rule(serde_json::json!({"names": ["mount"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1})),
            "takes no errnoRet",
        ),
        (rule(serde_json::json!({"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000})), "5000"),
        (
            rule(serde_json::json!({"names": ["mount"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]})),
            "argument index 6",
        ),
        (
            serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
            "needs a listener",
        ),
        (
            serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x",
                "flags": ["SECCOMP_FILTER_FLAG_TSYNC"], "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]}),
            "SECCOMP_FILTER_FLAG_TSYNC does not go together",
        ),
        (serde_json::json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "default action"),
    ];
    for (json, words) in cases {
        let error = compile(&profile(json)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_program_that_the_kernel_would_refuse_is_an_error() {
    let rules = |count: u64| -> Vec<serde_json::Value> {
        (0..count)
            .map(|value| {
                serde_json::json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
            })
            .collect()
    };
    let of = |count| profile(serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules(count)}));
    assert!(compile(&of(1100)).unwrap_err().to_string().contains("4096"));
    // Many jumps of this one are beyond what a condition can skip.
    let program = compile(&of(900)).unwrap();
    for value in [0, 1, 450, 899, 900, 1 << 32] {
        let expected = if value < 900 { ALLOW } else { RET_ERRNO | EPERM };
        assert_eq!(run(&program, table::AUDIT_X86_64, 135, [value, 0, 0, 0, 0, 0]), expected, "{value}");
        assert_eq!(run(&program, table::AUDIT_X86_64, 136, [value, 0, 0, 0, 0, 0]), RET_ERRNO | ENOSYS);
    }
}

#[test]
fn listeners_carry_their_flags() {
    let program = compile(&profile(serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]
    })))
    .unwrap();
    assert_eq!(program.flags, 0b10_1010);
    assert_eq!(run(&program, table::AUDIT_X86_64, 165, [0; 6]), RET_NOTIFY);
    assert_eq!(program.listener.unwrap().path, CString::from(c"/run/agent"));
    let idle = profile(serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent"}));
    let program = compile(&idle).unwrap();
    assert_eq!(
        (program.flags, program.listener),
        (0, None),
        "the path of a profile that notifies of nothing is ignored"
    );
}

#[test]
fn sendmsg_hands_the_listener_over_only_where_nothing_holds_it_up() {
    let passes = |default: &str, action: &str, names: &[&str], args: serde_json::Value| {
        let program = compile(&profile(serde_json::json!({
            "defaultAction": default, "listenerPath": "/run/agent", "syscalls": [
                {"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}, {"names": names, "action": action, "args": args}]
        })));
        program.unwrap().listener.unwrap().sendmsg_passes
    };
    let none = serde_json::json!([]);
    let one = serde_json::json!([{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}]);
    assert!(passes("SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY", &["sendto", "recvmsg"], none.clone()));
    assert!(passes("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", &["sendmsg"], none.clone()));
    assert!(!passes("SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY", &["sendmsg"], none.clone()));
    assert!(!passes("SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY", &["sendmsg"], one.clone()));
    assert!(!passes("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", &["sendto"], none));
    assert!(!passes("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", &["sendmsg"], one));
}

/// What the module's paragraph says, without any tree: the answer for one call.
fn naive(profile: &LinuxSeccomp, abi: Abi, number: u32, args: [u64; 6]) -> u32 {
    let default = action(profile.default_action(), profile.default_errno_ret()).unwrap();
    let mut newest = None;
    let mut fixed = None;
    let mut best: Option<u32> = None;
    for syscall in profile.syscalls().iter().flatten() {
        let what = action(syscall.action(), syscall.errno_ret()).unwrap();
        for name in syscall.names() {
            let Some(known) = number_of(abi, name) else { continue };
            newest = newest.max(Some(known));
            if known != number || what == default {
                continue;
            }
            let conditions: Vec<&LinuxSeccompArg> = syscall.args().iter().flatten().collect();
            if conditions.is_empty() {
                fixed = fixed.or(Some(what));
            }
            let narrow = |value: u64| if abi == Abi::X86 { value & 0xffff_ffff } else { value };
            let all = conditions.iter().all(|arg| {
                let (value, two) = (narrow(arg.value()), narrow(arg.value_two().unwrap_or(0)));
                holds(&arg.op().to_string(), narrow(args[arg.index()]), value, two)
            });
            if all && !conditions.is_empty() && best.is_none_or(|had| strictness(what) < strictness(had)) {
                best = Some(what);
            }
        }
    }
    let permissive = matches!(default & 0xffff_0000, RET_ALLOW | RET_LOG | RET_TRACE);
    match newest {
        Some(newest) if number > newest && !permissive => RET_ERRNO | ENOSYS,
        _ => fixed.or(best).unwrap_or(default),
    }
}

fn any_profile() -> impl Strategy<Value = LinuxSeccomp> {
    let names =
        prop::sample::select(vec!["read", "write", "mmap", "personality", "clone", "mount", "execve", "nonsense"]);
    let op = prop::sample::select(vec![
        "SCMP_CMP_EQ",
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_GT",
        "SCMP_CMP_GE",
        "SCMP_CMP_MASKED_EQ",
    ]);
    let arg = (0usize..3, word(), word(), op).prop_map(
        |(index, value, two, op)| serde_json::json!({"index": index, "value": value, "valueTwo": two, "op": op}),
    );
    let args = prop::collection::vec(arg, 0..3).prop_map(|mut args| {
        args.dedup_by_key(|arg| arg["index"].clone());
        args.truncate(2);
        args
    });
    let action = prop::sample::select(vec![
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_LOG",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRACE",
    ]);
    let rule = (prop::collection::vec(names, 1..4), args, action.clone())
        .prop_map(|(names, args, action)| serde_json::json!({"names": names, "args": args, "action": action}));
    (action, prop::collection::vec(rule, 0..8)).prop_map(|(action, rules)| {
        profile(serde_json::json!({
            "defaultAction": action, "syscalls": rules,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_S390X"],
        }))
    })
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
    fn a_program_agrees_with_the_rules_read_one_by_one(
        profile in any_profile(),
        calls in prop::collection::vec((0u32..560, [word(), word(), word()]), 64),
    ) {
        let program = compile(&profile).unwrap();
        let named = ["read", "write", "mmap", "personality", "clone", "mount", "execve"];
        for (at, (number, args)) in calls.iter().enumerate() {
            for (abi, audit) in [
                (Abi::X86_64, table::AUDIT_X86_64), (Abi::X86, table::AUDIT_I386), (Abi::X32, table::AUDIT_X86_64),
            ] {
                let bit = if abi == Abi::X32 { table::X32_BIT } else { 0 };
                // Half of the calls are ones that the profile may name.
                let number = if at % 2 == 0 { number_of(abi, named[at % 7]).unwrap() } else { bit | number };
                let args = [args[0], args[1], args[2], 0, 0, 0];
                prop_assert_eq!(run(&program, audit, number, args), naive(&profile, abi, number, args));
            }
        }
    }

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
        let newest = names.iter().filter_map(|name| number_of(Abi::X86_64, name)).max();
        for number in 0..460 {
            let known = syscalls::x86_64::Sysno::new(number as usize);
            let expected = match known {
                Some(known) if names.iter().any(|name| name == known.name()) => ALLOW,
                _ if newest.is_some_and(|newest| number > newest) => RET_ERRNO | ENOSYS,
                _ => RET_ERRNO | EPERM,
            };
            prop_assert_eq!(run(&program, table::AUDIT_X86_64, number, [0; 6]), expected, "{}", number);
        }
    }
}

#[test]
fn every_word_that_is_told_is_one_of_the_profiles() {
    for (action, of_the_types, _) in ACTIONS {
        assert_eq!(action, of_the_types.to_string());
        for operator in OPERATORS {
            let text = serde_json::json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ARCHITECTURES, "listenerPath": "/run/agent",
                "syscalls": [{"names": ["getpid"], "action": action,
                    "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": operator}]}],
            });
            let profile: LinuxSeccomp = serde_json::from_value(text).unwrap();
            assert!(compile(&profile).is_ok(), "{action} {operator}");
        }
    }
    for (word, flag, _) in FLAGS {
        assert_eq!(serde_json::to_value(flag).unwrap(), word);
    }
}
