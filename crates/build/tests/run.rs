//! RUN on the real kernel, in a root of busybox. These tests need root and busybox-static.
//!
//! A container is cloned from a process with one thread, and the usual test harness has two: this file has its own
//! `main`, which speaks as much of the harness's command line as nextest uses.

use std::ffi::CString;
use std::fs as files;

use hull_build::Result;
use hull_build::graph::RunAction;
use hull_build::progress::Progress;
use hull_build::run::run;

#[derive(Default)]
struct Heard(Vec<u8>);

impl Progress for Heard {
    fn begin(&mut self, _label: &str, _text: &str) {}
    fn cached(&mut self, _label: &str, _text: &str) {}
    fn output(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
    }
    fn done(&mut self, _label: &str, _took: std::time::Duration) {}
    fn note(&mut self, _text: &str) {}
}

struct Case {
    root: tempfile::TempDir,
    runroot: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let folder = |name: &str| tempfile::Builder::new().prefix(name).tempdir().unwrap();
        let case = Self { root: folder("hull-test-run-root-"), runroot: folder("hull-test-run-state-") };
        files::create_dir(case.root.path().join("bin")).unwrap();
        files::copy("/bin/busybox", case.root.path().join("bin/busybox")).expect("busybox-static is installed");
        std::os::unix::fs::symlink("busybox", case.root.path().join("bin/sh")).unwrap();
        case
    }

    fn run(&self, script: &str, env: &[(&str, &str)]) -> (Result<i32>, String) {
        let path = CString::new(self.root.path().to_str().unwrap()).unwrap();
        let root = hull_sys::mount::clone_tree(&path, false).unwrap();
        let action = RunAction {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            workdir: "/".into(),
            user: String::new(),
        };
        let mut heard = Heard::default();
        let status = run(self.runroot.path(), root, &action, &mut heard);
        (status, String::from_utf8(heard.0).unwrap())
    }
}

fn a_command_writes_its_files_and_its_status_and_output_come_back() {
    let case = Case::new();
    let (status, output) =
        case.run("echo $A; echo no >&2; echo x >/made; exit 3", &[("A", "given"), ("PATH", "/bin")]);
    assert_eq!(status.unwrap(), 3);
    assert_eq!(output, "given\nno\n");
    assert_eq!(files::read_to_string(case.root.path().join("made")).unwrap(), "x\n");
    let left: Vec<_> = files::read_dir(case.runroot.path().join("containers")).unwrap().collect();
    assert!(left.is_empty(), "the step's folder is gone");
}

fn mount_points_that_the_image_lacked_are_not_left_in_it() {
    let case = Case::new();
    assert_eq!(case.run("busybox test -d /proc/1", &[("PATH", "/bin")]).0.unwrap(), 0);
    let mut left: Vec<_> =
        files::read_dir(case.root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert!(!left.iter().any(|name| ["proc", "sys", "dev"].contains(&name.to_str().unwrap())), "{left:?}");
    assert!(!case.root.path().join("etc/resolv.conf").exists());
}

fn a_command_that_swaps_etc_for_a_symlink_makes_hull_remove_nothing_outside() {
    let case = Case::new();
    let outside = tempfile::Builder::new().prefix("hull-test-outside-").tempdir().unwrap();
    for name in ["hosts", "hostname", "resolv.conf"] {
        files::write(outside.path().join(name), "").unwrap();
    }
    let script = format!(
        "busybox mkdir /other; busybox ln -s {} /new; busybox mv /etc /old; busybox ln -s {0} /etc",
        outside.path().display()
    );
    let (_status, _output) = case.run(&script, &[("PATH", "/bin")]);
    assert_eq!(files::read_dir(outside.path()).unwrap().count(), 3);
}

fn nothing_of_our_environment_and_no_input_reaches_a_command() {
    let case = Case::new();
    let (_, output) = case.run(
        "busybox env; busybox readlink /proc/self/fd/0; busybox ls /proc/self/fd | busybox wc -l",
        &[("PATH", "/bin"), ("B", "1")],
    );
    let mut names: Vec<&str> = output.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    for name in &names {
        assert!(["B", "HOME", "HOSTNAME", "PATH", "PWD", "SHLVL", "OLDPWD"].contains(name), "{output}");
    }
    assert!(output.contains("/dev/null"), "{output}");
}

const CASES: [(&str, fn()); 4] = [
    (
        "a_command_writes_its_files_and_its_status_and_output_come_back",
        a_command_writes_its_files_and_its_status_and_output_come_back,
    ),
    ("mount_points_that_the_image_lacked_are_not_left_in_it", mount_points_that_the_image_lacked_are_not_left_in_it),
    (
        "a_command_that_swaps_etc_for_a_symlink_makes_hull_remove_nothing_outside",
        a_command_that_swaps_etc_for_a_symlink_makes_hull_remove_nothing_outside,
    ),
    (
        "nothing_of_our_environment_and_no_input_reaches_a_command",
        nothing_of_our_environment_and_no_input_reaches_a_command,
    ),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let named: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    for (name, case) in CASES {
        if has("--ignored")
            || (!has("--list") && !named.is_empty() && !named.iter().any(|named| name.contains(&**named)))
        {
            continue;
        }
        if has("--list") {
            println!("{name}: test");
            continue;
        }
        case();
        println!("test {name} ... ok");
    }
}
