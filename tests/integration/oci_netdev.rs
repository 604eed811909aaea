//! Network devices that become a container's. They are made in a network of the test's own, which stands for the host's.

use std::process::{Command, Stdio};

use hull_tests::Said;
use hull_tests::bundle::Bundle;
use serde_json::{Value, json};

/// A process in a network namespace of its own; both end with the value.
struct Host(std::process::Child);

impl Host {
    fn new() -> Self {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "sh", "-c", "echo; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = unshare.spawn().unwrap();
        std::io::Read::read_exact(process.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        Self(process)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// `command` as it would be called on this host.
    fn command(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--net={}", self.path())).arg(command.get_program()).args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
        inside
    }

    fn oci(&self, bundle: &Bundle, arguments: &[&str]) -> Said {
        self.command(&bundle.command(arguments)).stdin(Stdio::null()).output().unwrap().into()
    }

    fn ip(&self, words: &str) -> String {
        let mut ip = Command::new("ip");
        ip.args(words.split(' '));
        let said: Said = self.command(&ip).output().unwrap().into();
        assert_eq!(said.code, 0, "ip {words}: {said:?}");
        said.out
    }

    /// Makes the device `name`, whose other end stays here.
    fn add(&self, name: &str) {
        self.ip(&format!("link add {name} type veth peer name end-{name}"));
        self.ip(&format!("link set end-{name} up"));
    }

    /// What there is but other ends.
    fn names(&self) -> Vec<String> {
        let links: Value = serde_json::from_str(&self.ip("-json link show")).unwrap();
        let names = links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned());
        names.filter(|name| !name.starts_with("end-")).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bundle(script: &str, devices: Value) -> Bundle {
    let bundle = Bundle::new(script);
    bundle.change(|spec| {
        spec["ociVersion"] = "1.3.0".into();
        spec["linux"]["netDevices"] = devices;
    });
    bundle
}

/// The attributes that the specification names stay; addresses of the link and such that run out do not.
#[test]
fn a_device_is_moved_named_and_up_with_its_addresses() {
    let host = Host::new();
    ["dev0", "dev1", "eth5"].iter().for_each(|name| host.add(name));
    for command in [
        "link set dev0 mtu 1400 address 02:00:00:00:00:07 up",
        "address add 10.9.8.7/24 broadcast 10.9.8.255 dev dev0",
        "address add 2001:db8::7/64 dev dev0 nodad",
        "address add 10.9.9.9/24 dev dev0 valid_lft 1000 preferred_lft 1000",
        "address add 169.254.1.1/16 scope link dev dev0",
    ] {
        host.ip(command);
    }
    let devices = json!({"dev0": {"name": "wan"}, "dev1": {}, "eth5": {"name": "eth%d"}});
    let bundle = bundle("ip address show; ip route show", devices);
    let said = host.oci(&bundle, &["run", &bundle.id("moved")]);
    assert_eq!(said.code, 0, "{said:?}");
    for words in [
        "02:00:00:00:00:07",
        "inet 10.9.8.7/24 brd 10.9.8.255 scope global wan",
        "inet6 2001:db8::7/64 scope global",
        "10.9.8.0/24 dev wan",
    ] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
    for name in ["wan@", "dev1@", "eth0@"] {
        assert!(
            said.out.lines().any(|line| line.contains(name) && line.contains("UP,LOWER_UP")),
            "{name}: {}",
            said.out
        );
    }
    assert!(said.out.contains("mtu 1400"), "{}", said.out);
    assert!(!said.out.contains("10.9.9.9") && !said.out.contains("169.254.1.1"), "{}", said.out);
    // Virtual ones went with their namespace; nothing has come back.
    assert_eq!(host.names(), ["lo"]);
}

/// Also through a user namespace: the parent moves with the host's rights, the child configures with those inside.
#[test]
fn a_container_with_users_of_its_own_gets_one_too() {
    let host = Host::new();
    host.add("dev0");
    host.ip("address add 10.9.8.7/24 dev dev0");
    let bundle = bundle("ip address show dev0", json!({"dev0": {}}));
    bundle.change(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
    });
    let said = host.oci(&bundle, &["run", &bundle.id("users")]);
    assert!(said.code == 0 && said.out.contains("10.9.8.7/24") && said.out.contains("UP"), "{said:?}");
}

/// In a namespace that is joined they stay when the container has ended, for that is its owner's.
#[test]
fn one_in_a_namespace_that_is_joined_stays_there() {
    let (host, other) = (Host::new(), Host::new());
    host.add("dev0");
    let bundle = bundle("ip link show wan", json!({"dev0": {"name": "wan"}}));
    let join = |path: String| {
        bundle.change(|spec| {
            for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
                if namespace["type"] == "network" {
                    *namespace = json!({"type": "network", "path": path});
                }
            }
        });
    };
    join(other.path());
    let said = host.oci(&bundle, &["run", &bundle.id("joined")]);
    assert!(said.code == 0 && said.out.contains("wan"), "{said:?}");
    assert_eq!((host.names(), other.names()), (vec!["lo".to_owned()], vec!["lo".to_owned(), "wan".to_owned()]));

    // Taken by now: nothing is moved.
    host.add("dev1");
    bundle.change(|spec| spec["linux"]["netDevices"] = json!({"dev1": {"name": "wan"}}));
    let said = host.oci(&bundle, &["run", &bundle.id("taken")]);
    assert!(said.code == 1 && said.err.contains("the container has a device wan already"), "{said:?}");
    assert_eq!(host.names(), ["lo", "dev1"]);

    join(host.path());
    let said = host.oci(&bundle, &["run", &bundle.id("ours")]);
    assert!(said.code == 1 && said.err.contains("namespace that it joins is the host's"), "{said:?}");
}

#[test]
fn what_cannot_be_moved_is_an_error_that_names_it_and_leaves_it_where_it_is() {
    let host = Host::new();
    host.add("dev0");
    let bundle = bundle("true", json!({}));
    let cases = [
        (json!({"nowhere": {}}), "cannot move the network device nowhere (linux.netDevices): ioctl", "ENODEV"),
        (json!({"dev0": {"name": "lo"}}), "move the network device dev0", "has a device lo already"),
        (json!({"dev0": {"name": "a/b"}}), "dev0", "is no name for a device"),
        (json!({"dev0": {}, "zzz": {}}), "zzz", "ENODEV"),
        (json!({"lo": {"name": "own"}}), "cannot move the network device lo", "EINVAL"),
    ];
    for (devices, object, cause) in cases {
        bundle.change(|spec| spec["linux"]["netDevices"] = devices);
        let said = host.oci(&bundle, &["run", &bundle.id("refused")]);
        assert!(
            said.code == 1 && said.err.contains(object) && said.err.contains(cause),
            "{object} {cause}: {said:?}"
        );
        assert_eq!(host.names(), ["lo", "dev0"]);
        assert_eq!(bundle.ok(&["list", "-q"]), "");
    }
    bundle.change(|spec| {
        spec["linux"]["netDevices"] = json!({"dev0": {}});
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "network");
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "sysfs");
    });
    let said = host.oci(&bundle, &["run", &bundle.id("shared")]);
    assert!(said.code == 1 && said.err.contains("shares the host's network namespace"), "{said:?}");
    assert_eq!(host.names(), ["lo", "dev0"]);
}
