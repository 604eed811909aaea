//! `hull-oci` without root: an ordinary user, and root of a user namespace, which is where rootless Podman calls it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use hull_tests::agent::Agent;
use hull_tests::bundle::Bundle;
use hull_tests::{Said, eventually};

/// Nobody's on any machine.
const USER: u32 = 54321;

/// A bundle that is `USER`'s, who is to run it.
struct Rootless {
    bundle: Bundle,
    /// What makes a command the user's.
    through: Vec<String>,
}

impl Rootless {
    /// `script` in the bundle of `runc spec --rootless`.
    fn new(script: &str) -> Self {
        let through = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"];
        let rootless =
            Self { bundle: Bundle::new(script), through: through.iter().map(|word| (*word).to_owned()).collect() };
        let folder = rootless.bundle.corner.path();
        for path in [folder, &rootless.bundle.corner.rootfs()] {
            chown(path, Some(USER), Some(USER)).unwrap();
        }
        fs::create_dir(folder.join("xdg")).unwrap();
        chown(folder.join("xdg"), Some(USER), Some(USER)).unwrap();
        fs::remove_file(folder.join("config.json")).unwrap();
        assert!(rootless.user("runc", &["spec", "--rootless"]).status().unwrap().success());
        rootless.bundle.change(|spec| {
            spec["process"]["terminal"] = false.into();
            spec["process"]["args"] = ["sh", "-c", script].as_slice().into();
            spec["root"]["readonly"] = false.into();
        });
        rootless
    }

    fn folder(&self) -> &Path {
        self.bundle.corner.path()
    }

    /// A program as the user, from the bundle.
    fn user(&self, program: &str, arguments: &[&str]) -> Command {
        let (first, rest) = self.through.split_first().unwrap();
        let mut command = Command::new(first);
        command.args(rest).arg(program).args(arguments).current_dir(self.folder()).stdin(Stdio::null());
        command.env("XDG_RUNTIME_DIR", self.folder().join("xdg")).env_remove("USER");
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.user(&self.folder().join("hull-oci").to_string_lossy(), arguments)
    }

    fn oci(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let said = self.oci(arguments);
        assert_eq!((said.code, &*said.err), (0, ""), "{arguments:?}: {said:?}");
        said.out
    }
}

#[test]
fn an_ordinary_user_runs_a_container_in_a_user_namespace_of_its_own() {
    let script = "id -u; cat /proc/self/uid_map; echo $$; ls /dev/null; >/made; exit 7";
    let rootless = Rootless::new(script);
    let said = rootless.oci(&["run", &rootless.bundle.id("run")]);
    let words: Vec<&str> = said.out.split_whitespace().collect();
    assert_eq!((said.code, &*said.err), (7, ""), "{said:?}");
    assert_eq!(words, ["0", "0", "54321", "1", "1", "/dev/null"]);
    assert_eq!(fs::metadata(rootless.bundle.corner.rootfs().join("made")).unwrap().uid(), USER);
    let state = fs::metadata(rootless.folder().join("xdg/hull-oci")).unwrap();
    assert_eq!((state.uid(), state.permissions().mode() & 0o7777), (USER, 0o1700));
}

#[test]
fn every_verb_is_the_users_own() {
    let rootless = Rootless::new("trap 'exit 5' TERM; >/up; while :; do sleep 0.05; done");
    goes_its_way(&rootless);
}

/// As in Podman's own user namespace; the specification has none then.
#[test]
fn root_of_a_user_namespace_needs_no_other() {
    let mut rootless = Rootless::new("trap 'exit 5' TERM; >/up; while :; do sleep 0.05; done");
    rootless.bundle.change(|spec| {
        let linux = spec["linux"].as_object_mut().unwrap();
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        linux["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "user");
    });
    // One namespace for all verbs, as Podman has it. It ends with its standard input.
    let mut first = rootless.user("unshare", &["--map-root-user", "sh", "-c", "echo; read line"]);
    let mut first = first.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(first.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let target = first.id().to_string();
    rootless.through = ["nsenter", "-t", &target, "-U", "--preserve-credentials"].map(str::to_owned).to_vec();
    rootless
        .through
        .splice(0..0, ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"].map(str::to_owned));
    goes_its_way(&rootless);
    drop(first.stdin.take());
    first.wait().unwrap();
}

fn goes_its_way(rootless: &Rootless) {
    let id = &*rootless.bundle.id("way");
    let said = rootless.command(&["create", id]).stdout(Stdio::null()).status().unwrap();
    assert!(said.success());
    assert!(rootless.ok(&["state", id]).contains("\"status\": \"created\""));
    rootless.ok(&["start", id]);
    eventually("it runs", || rootless.bundle.corner.rootfs().join("up").exists());
    assert!(rootless.ok(&["list"]).contains(id));
    let said = rootless.oci(&["exec", id, "sh", "-c", "id -u; cat /proc/1/comm; exit 3"]);
    assert_eq!((said.code, &*said.out, &*said.err), (3, "0\nsh\n", ""));
    rootless.ok(&["kill", id, "TERM"]);
    eventually("it has ended", || rootless.ok(&["state", id]).contains("\"status\": \"stopped\""));
    rootless.ok(&["delete", id]);
    assert_eq!(rootless.ok(&["list", "-q"]), "");
}

#[test]
fn what_takes_rights_is_an_error_that_names_it() {
    let rootless = Rootless::new("true");
    let path = rootless.folder().join("config.json");
    let good = fs::read_to_string(&path).unwrap();
    let id = &*rootless.bundle.id("bad");
    let fails = |change: &dyn Fn(&mut serde_json::Value), words: &str| {
        fs::write(&path, &good).unwrap();
        rootless.bundle.change(change);
        let said = rootless.oci(&["run", id]);
        assert!(said.code == 1 && said.err.contains(words), "{words:?}: {said:?}");
    };
    fails(&|spec| spec["linux"]["resources"]["pids"]["limit"] = 20.into(), "cannot make the control group");
    fails(&|spec| spec["linux"]["cgroupsPath"] = "/hull-test-rootless".into(), "cannot make the control group");
    fails(&|spec| spec["process"]["user"]["additionalGids"] = [0, 1].as_slice().into(), "group 1 is in no range");
    fails(&|spec| spec["process"]["oomScoreAdj"] = (-1000).into(), "cannot set oom_score_adj to -1000");
    fails(
        &|spec| {
            let linux = spec["linux"].as_object_mut().unwrap();
            linux.remove("uidMappings");
            linux.remove("gidMappings");
            linux["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "user");
        },
        "only root can without a user namespace",
    );
    // Ranges are somebody's to give, and nobody gave this user any.
    fails(
        &|spec| {
            for map in ["uidMappings", "gidMappings"] {
                let more = serde_json::json!({"containerID": 1, "hostID": 100_000, "size": 1000});
                spec["linux"][map].as_array_mut().unwrap().push(more);
            }
        },
        "cannot map the ids of the user namespace by newuidmap",
    );
    assert_eq!(rootless.ok(&["list", "-q"]), "");
    // What has no effect is told, and does not stop it.
    fs::write(&path, &good).unwrap();
    rootless.bundle.change(|spec| {
        spec["linux"]["resources"]["devices"] = serde_json::json!([{"allow": false, "access": "rwm"}]);
    });
    let said = rootless.oci(&["run", id]);
    assert!(said.code == 0 && said.err.contains("linux.resources.devices has no effect without root"), "{said:?}");
}

/// Without the host's root nobody may look into the process, which sends its listener itself; that call must not wait for the
/// agent that the listener is for.
#[test]
fn a_seccomp_agent_gets_its_listener_without_root() {
    let rootless = Rootless::new("busybox mkdir /made");
    let socket = rootless.folder().join("agent");
    let agent = Agent::new(&socket);
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let notify = |calls: &[&str]| {
        rootless.bundle.change(|spec| {
            spec["linux"]["seccomp"] = serde_json::json!({
                "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket,
                "syscalls": [{"names": calls, "action": "SCMP_ACT_NOTIFY"}],
            });
        });
        rootless.oci(&["run", &rootless.bundle.id("asked")])
    };
    let said = notify(&["mkdir", "read", "close"]);
    assert!(said.code == 1 && said.err.contains("No medium found"), "{said:?}");
    assert_eq!(agent.told(1).len(), 1);
    let said = notify(&["mkdir", "sendmsg"]);
    assert!(said.code == 1 && said.err.contains("cannot take the seccomp listener"), "{said:?}");
    assert_eq!((agent.told(1).len(), rootless.ok(&["list", "-q"])), (1, String::new()));
}
