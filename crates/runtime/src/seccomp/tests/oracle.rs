//! Our programs against libseccomp's, where python3 and libseccomp.so.2 are there.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

/// libseccomp's program for `rules`, or `None` where it is not installed.
fn libseccomp(rules: &serde_json::Value) -> Option<Program> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/seccomp/tests/oracle.py");
    let mut python = Command::new("/usr/bin/python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    python.stdin.take().unwrap().write_all(rules.to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    if String::from_utf8_lossy(&output.stderr).contains("cannot open shared object file") {
        return None;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let bytes: Vec<u8> =
        (0..text.trim().len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
    let instruction = |raw: &[u8]| SockFilter {
        code: u16::from_le_bytes([raw[0], raw[1]]),
        jt: raw[2],
        jf: raw[3],
        k: u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]),
    };
    Some(Program { filter: bytes.chunks_exact(8).map(instruction).collect(), flags: 0 })
}

fn rules() -> impl Strategy<Value = Vec<serde_json::Value>> {
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
    let arg = (0usize..3, word(), word(), op).prop_map(|(index, value, two, op)| {
        serde_json::json!({"index": index, "value": value, "valueTwo": two & value, "op": op})
    });
    let args = prop::collection::vec(arg, 0..3).prop_map(|mut args| {
        args.dedup_by_key(|arg| arg["index"].clone());
        args
    });
    let rule = (prop::collection::vec(names, 1..4), args)
        .prop_map(|(names, args)| serde_json::json!({"names": names, "args": args, "action": RET_ERRNO | EPERM}));
    prop::collection::vec(rule, 0..6)
}

/// Rules with one action besides the default, so that libseccomp's own order of alternatives does not matter.
#[test]
fn a_program_answers_as_libseccomps() {
    if libseccomp(&serde_json::json!({"default": ALLOW, "rules": []})).is_none() {
        eprintln!("skipped: a_program_answers_as_libseccomps needs /usr/bin/python3 and libseccomp.so.2");
        return;
    }
    let config =
        ProptestConfig { cases: 24, failure_persistence: None, max_shrink_iters: 5, ..ProptestConfig::default() };
    let calls = prop::collection::vec([word(), word(), word()], 12);
    proptest!(config, |(rules in rules(), calls in calls)| {
        let theirs = libseccomp(&serde_json::json!({"default": ALLOW, "rules": rules})).unwrap();
        let mut ours = rules.clone();
        ours.iter_mut().for_each(|rule| rule["action"] = "SCMP_ACT_ERRNO".into());
        let ours = compile(&profile(serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW", "syscalls": ours,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        }))).unwrap();
        for args in calls {
            for name in ["read", "write", "mmap", "personality", "clone", "mount", "execve", "getpid"] {
                // Not x32: libseccomp compares half of each argument there, though its registers have 64 bits.
                for (abi, audit) in [(Abi::X86_64, table::AUDIT_X86_64), (Abi::X86, table::AUDIT_I386)] {
                    // The kernel gives 32-bit processes 32-bit arguments.
                    let narrow = |value: u64| if abi == Abi::X86 { value & 0xffff_ffff } else { value };
                    let args = [narrow(args[0]), narrow(args[1]), narrow(args[2]), 0, 0, 0];
                    let number = number_of(abi, name).unwrap();
                    let (one, other) = (run(&ours, audit, number, args), run(&theirs, audit, number, args));
                    prop_assert_eq!(one, other, "{} {:?} {:x?}", name, abi, args);
                }
            }
        }
    });
}
