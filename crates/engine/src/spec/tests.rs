use hull_runtime::plan::Plan;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::*;
use crate::options::{Bind, Tmpfs, Ulimit};

fn options() -> RunOptions {
    RunOptions { source: Source::Folder("/r".into()), command: vec!["true".into()], ..RunOptions::default() }
}

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A machine that is the same everywhere.
fn machine() -> Machine {
    let device = |path: &str, kind: LinuxDeviceType, number: (i64, i64), mode: u32| -> LinuxDevice {
        let json = serde_json::json!({
            "path": path, "type": kind, "major": number.0, "minor": number.1, "fileMode": mode, "uid": 0, "gid": 6
        });
        serde_json::from_value(json).unwrap()
    };
    Machine {
        capabilities: caps::ALL,
        counts_swap: true,
        kernel: (6, 1),
        masked: profile::MASKED.map(str::to_owned).to_vec(),
        devices: vec![
            device("/dev/loop0", LinuxDeviceType::B, (7, 0), 0o660),
            device("/dev/net/tun", LinuxDeviceType::C, (10, 200), 0o666),
            device("/dev/null", LinuxDeviceType::C, (1, 3), 0o666),
        ],
    }
}

fn root() -> User {
    User { home: "/root".into(), ..User::default() }
}

fn plan(options: &RunOptions, user: &User) -> Plan {
    crate::run::plan(options, ID, &of(options, user, ID, &machine()).unwrap()).unwrap()
}

/// The plan as `--dry-run` prints it, without the length of a program that is tested elsewhere.
fn shown(options: &RunOptions, user: &User) -> String {
    let text = plan(options, user).to_string();
    let line = |line: &str| match line.strip_prefix("seccomp ") {
        Some(program) if program.ends_with("instructions") => "seccomp     FILTER".to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_plan_of_a_default_container_is_this_one() {
    insta::assert_snapshot!(shown(&options(), &root()));
}

#[test]
fn the_plan_of_a_privileged_container_is_this_one() {
    let options = RunOptions { privileged: true, capabilities: Some(caps::ALL), ..options() };
    insta::assert_snapshot!(shown(&options, &root()));
}

#[test]
fn the_plan_of_a_read_only_container_with_a_user_and_limits_is_this_one() {
    let options = RunOptions {
        read_only: true,
        workdir: Some("/srv".into()),
        tty: true,
        network: Network::Host,
        no_new_privileges: true,
        tmpfs: vec![Tmpfs::parse("/tmp:size=1m").unwrap()],
        binds: vec![Bind::parse("/data:/data:ro").unwrap()],
        ulimits: vec![Ulimit::parse("nofile=64:128").unwrap(), Ulimit::parse("core=-1").unwrap()],
        ..options()
    };
    let user = User { uid: 1000, gid: 1001, groups: vec![29], home: "/srv".into() };
    insta::assert_snapshot!(shown(&options, &user));
}

#[test]
fn a_privileged_container_is_filtered_only_when_it_is_asked_for_and_may_open_every_device() {
    let spec = of(&RunOptions { privileged: true, ..options() }, &root(), ID, &machine()).unwrap();
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.seccomp().is_none());
    let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
    assert_eq!((rules.len(), rules[0].allow(), rules[0].typ()), (1, true, Some(LinuxDeviceType::A)));
}

#[test]
fn a_given_variable_replaces_the_default() {
    let given = RunOptions { env: vec!["PATH=/x".into(), "A=1".into(), "A=2".into()], ..options() };
    let spec = of(&given, &root(), ID, &machine()).unwrap();
    let env = spec.process().as_ref().unwrap().env().clone().unwrap();
    assert_eq!(env, ["HOSTNAME=0123456789ab", "HOME=/root", "PATH=/x", "A=2"]);
}

#[test]
fn another_user_has_no_capability_in_force() {
    let user = User { uid: 1000, gid: 1000, home: "/".into(), ..User::default() };
    let plan = plan(&options(), &user);
    assert_eq!((plan.process.caps.effective, plan.process.caps.permitted, plan.process.caps.inheritable), (0, 0, 0));
    assert_eq!(plan.process.caps.bounding.count_ones(), 11);
    assert_eq!(plan.process.groups, Some(vec![1000]));
}

#[test]
fn a_default_capability_that_the_machine_lacks_is_left_out() {
    let machine = Machine { capabilities: caps::ALL & !1, ..machine() };
    let spec = of(&options(), &root(), ID, &machine).unwrap();
    assert_eq!(Plan::from_spec(&spec).unwrap().process.caps.bounding.count_ones(), 10);
}
