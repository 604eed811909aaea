use std::collections::BTreeMap;

use oci_spec::runtime::LinuxSeccomp;

use super::*;

const KERNEL: (u32, u32) = (6, 1);

/// Each system call with its rules, in any order of the profile.
fn rules(profile: &LinuxSeccomp) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for rule in profile.syscalls().iter().flatten() {
        let args: Vec<String> = rule
            .args()
            .iter()
            .flatten()
            .map(|arg| {
                let (value, two) = (arg.value(), arg.value_two().unwrap_or(0));
                format!("{} {:?} {value} {two}", arg.index(), arg.op())
            })
            .collect();
        for name in rule.names() {
            let text = format!("{:?} {:?} {args:?}", rule.action(), rule.errno_ret());
            all.entry(name.clone()).or_default().push(text);
        }
    }
    for rules in all.values_mut() {
        rules.sort();
        rules.dedup();
    }
    all
}

#[test]
fn our_table_says_what_dockers_file_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/seccomp-docker-default.json");
    let Ok(text) = std::fs::read(path) else {
        let why = "../shared/data/seccomp-docker-default.json is not beside this checkout";
        hull_tests::skipped("our_table_says_what_dockers_file_says", why);
        return;
    };
    let default = CAPABILITIES.iter().filter_map(|name| caps::number(name)).fold(0, |all, n| all | 1 << n);
    let single = (0..41).map(|number| 1 << number);
    for capabilities in [0, default, caps::ALL, caps::ALL & !(1 << 21)].into_iter().chain(single) {
        let theirs = parse("docker", &text, Machine { capabilities, kernel: KERNEL }).unwrap();
        let ours = seccomp(capabilities).unwrap();
        assert_eq!(rules(&ours), rules(&theirs), "{capabilities:#x}");
        assert_eq!(ours.architectures(), theirs.architectures());
        let program = |profile| hull_runtime::seccomp::compile(profile).unwrap();
        assert_eq!(program(&ours), program(&theirs), "{capabilities:#x}");
    }
}

#[test]
fn conditions_of_a_file_are_asked() {
    let file = br#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"name": "mount", "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "9.0"}},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "arm64"]}}]}"#;
    let names = |capabilities| {
        let profile = parse("x", file, Machine { capabilities, kernel: KERNEL }).unwrap();
        rules(&profile).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(names(0), ["ptrace", "read"]);
    assert_eq!(names(1 << 21), ["mount", "ptrace", "read"]);
}

#[test]
fn a_bad_file_is_an_error_that_names_it() {
    let cases: [(&str, &str); 5] = [
        ("{", "EOF"),
        (r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#, "SCMP_ACT_MAYBE"),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW",
            "includes": {"caps": ["CAP_NONSENSE"]}}]}"#,
            "CAP_NONSENSE",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "names": ["b"],
            "action": "SCMP_ACT_ALLOW"}]}"#,
            "both name",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
            "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}"#,
            "both architectures",
        ),
    ];
    for (text, words) in cases {
        let error = parse("p.json", text.as_bytes(), Machine { capabilities: 0, kernel: KERNEL }).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("p.json") && error.contains(words), "{error}");
    }
}

#[test]
fn the_masked_paths_are_mobys_and_one_per_processor() {
    assert_eq!(MASKED.len(), 12);
    let folder = tempfile::tempdir().unwrap();
    for cpu in ["cpu0", "cpu11", "cpufreq"] {
        std::fs::create_dir_all(folder.path().join(cpu).join("thermal_throttle")).unwrap();
    }
    std::fs::create_dir(folder.path().join("cpu2")).unwrap();
    let throttles = thermal_throttles(folder.path());
    let names: Vec<&str> = throttles.iter().map(|path| path.rsplit('/').nth(1).unwrap()).collect();
    assert_eq!(names, ["cpu0", "cpu11"]);
}

/// The kernel checks and translates each instruction at every start.
#[test]
fn the_default_filter_is_small() {
    let default = CAPABILITIES.iter().filter_map(|name| caps::number(name)).fold(0, |all, n| all | 1 << n);
    let length = hull_runtime::seccomp::compile(&seccomp(default).unwrap()).unwrap().filter.len();
    assert!(length < 600, "{length} instructions");
}
