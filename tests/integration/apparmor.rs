//! AppArmor: the profile that a command is to have is the one that it has from its exec on, by every verb that executes one.
//! `make test-vm` does it where the machine has no AppArmor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_tests::bundle::Bundle;
use hull_tests::{Corner, Said, skipped};
use serde_json::json;

fn is_in_force() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

/// A loaded profile; it is removed when this is dropped.
struct Profile {
    name: String,
    file: PathBuf,
}

impl Profile {
    /// One that allows what a shell needs, but not to write to the file at `/` that has its name.
    fn load(folder: &Path, name: &str) -> Self {
        Self::load_with(folder, name, "file, capability, network, signal, deny /@NAME w,")
    }

    /// One with these rules, in which `@NAME` is its name.
    fn load_with(folder: &Path, name: &str, rules: &str) -> Self {
        let name = format!("hull-test-{}-{name}", std::process::id());
        let profile = Self { file: folder.join(&name), name };
        let rules = rules.replace("@NAME", &profile.name);
        fs::write(&profile.file, format!("profile {} flags=(attach_disconnected) {{ {rules} }}\n", profile.name))
            .unwrap();
        profile.parser("-r");
        profile
    }

    fn parser(&self, flag: &str) {
        assert!(Command::new("apparmor_parser").arg(flag).arg(&self.file).status().unwrap().success());
    }

    /// What a shell does that tells its label and tries what the profile denies.
    fn script(&self) -> String {
        format!("cat /proc/self/attr/current; (>/{0}) 2>/dev/null || echo denied; >/other && echo allowed", self.name)
    }

    /// The label was there and held.
    fn assert_held(&self, way: &str, said: &Said) {
        assert_eq!(
            said.out.replace('\r', ""),
            format!("{} (enforce)\ndenied\nallowed\n", self.name),
            "{way}: {said:?}"
        );
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("-R");
    }
}

#[test]
fn a_profile_is_applied_or_the_container_does_not_start() {
    let corner = Corner::new();
    let said = corner.run(&["--security-opt", "apparmor=no-such-profile"], &["true"]);
    assert_eq!(said.code, 125, "{said:?}");
    let why = if is_in_force() { "no such profile is loaded" } else { "not in force on this machine" };
    assert!(said.err.contains("no-such-profile") && said.err.contains(why), "{}", said.err);
    assert_eq!(corner.run(&["--security-opt", "apparmor=unconfined"], &["true"]).code, 0);
    if !is_in_force() {
        return skipped(
            "a_profile_is_applied_or_the_container_does_not_start",
            "the half with a profile: no AppArmor",
        );
    }
    let profile = Profile::load(corner.path(), "run");
    let option = format!("apparmor={}", profile.name);
    for flags in [&[][..], &["-u", "1000"], &["--init"], &["--privileged"], &["--security-opt", "no-new-privileges"]]
    {
        if flags == ["-u", "1000"] {
            fs::set_permissions(corner.rootfs(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        }
        let said = corner.shell(&[&["--security-opt", &option], flags].concat(), &profile.script());
        profile.assert_held(&format!("hull run {flags:?}"), &said);
        fs::remove_file(corner.rootfs().join("other")).unwrap();
    }
}

#[test]
fn a_bundles_profile_and_an_execs_own_are_in_force() {
    if !is_in_force() {
        let name = "a_bundles_profile_and_an_execs_own_are_in_force";
        return skipped(name, "AppArmor is not in force on this machine");
    }
    let bundle = Bundle::new("true");
    let (own, other) = (Profile::load(bundle.corner.path(), "own"), Profile::load(bundle.corner.path(), "other"));
    bundle.change(|spec| {
        spec["process"]["apparmorProfile"] = own.name.as_str().into();
        spec["process"]["args"] = json!(["sh", "-c", own.script()]);
    });
    own.assert_held("run", &bundle.oci(&["run", &bundle.id("run")]));
    bundle.change(|spec| spec["process"]["noNewPrivileges"] = false.into());
    own.assert_held("run with new privileges", &bundle.oci(&["run", &bundle.id("run")]));

    bundle.change(|spec| spec["process"]["args"] = json!(["sleep", "1000"]));
    let id = bundle.id("exec");
    bundle.start(&id);
    let pid = bundle.state(&id)["pid"].as_i64().unwrap();
    let label = fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap();
    assert_eq!(label, format!("{} (enforce)\n", own.name));
    own.assert_held("exec", &bundle.exec(&[], &id, &own.script()));
    own.assert_held("exec as a user", &bundle.exec(&["--user", "0:7"], &id, &own.script()));
    other.assert_held("exec --apparmor", &bundle.exec(&["--apparmor", &other.name], &id, &other.script()));
    let process = json!({
        "apparmorProfile": other.name, "args": ["sh", "-c", other.script()], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
    });
    fs::write(bundle.corner.path().join("process.json"), process.to_string()).unwrap();
    other.assert_held("exec --process", &bundle.oci(&["exec", "--process", "process.json", &id]));
    let said = bundle.exec(&["--apparmor", "no-such-profile"], &id, "echo started");
    assert!(said.code != 0 && said.out.is_empty() && said.err.contains("no such profile is loaded"), "{said:?}");
    bundle.ok(&["delete", "--force", &id]);
}

/// Without a rule for signals a profile keeps them away from the container, also ours.
#[test]
fn a_container_that_no_signal_reaches_is_deleted() {
    let name = "a_container_that_no_signal_reaches_is_deleted";
    if !is_in_force() {
        return skipped(name, "AppArmor is not in force on this machine");
    }
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return skipped(name, "on cgroup v1 there is nothing but signals");
    }
    let bundle = Bundle::new("exec sleep 1000");
    let profile = Profile::load_with(bundle.corner.path(), "deaf", "file, capability, deny signal,");
    bundle.change(|spec| spec["process"]["apparmorProfile"] = profile.name.as_str().into());
    let id = bundle.id("deaf");
    bundle.start(&id);
    let said = bundle.oci(&["kill", &id, "KILL"]);
    assert!(said.code == 1 && said.err.contains("EACCES"), "{said:?}");
    bundle.ok(&["delete", "--force", &id]);
}
