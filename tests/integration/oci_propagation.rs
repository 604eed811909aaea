//! `linux.rootfsPropagation` of a root that lies on a shared mount, as everything does on a host with systemd.

use std::fs;
use std::process::{Command, Stdio};

use hull_tests::Said;
use hull_tests::bundle::Bundle;
use serde_json::{Value, json};

/// In a mount namespace of its own: makes the shared mount with the root on it, starts a container, mounts something on the
/// host's side of the root and something on the container's, and tells who sees which.
const SCRIPT: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs hull-test "$PLACE"
mount --make-shared "$PLACE"
cp -a rootfs "$PLACE/root"
mkdir -p "$PLACE/root/outside" "$PLACE/root/inside"
"$@" run -d -b . "$ID" </dev/null >/dev/null
mount -t tmpfs hull-test "$PLACE/root/outside"
"$@" exec "$ID" sh -c 'grep -q " /outside " /proc/self/mountinfo && echo the container sees the host' || :
"$@" exec "$ID" mount -t tmpfs hull-test /inside
grep -q "$PLACE/root/inside" /proc/self/mountinfo && echo the host sees the container || :
"$@" exec "$ID" sh -c 'grep -q "/root / .* shared:" /proc/self/mountinfo && echo shared' || :
umount "$PLACE/root/outside"
"$@" exec "$ID" sh -c 'grep -q " /outside " /proc/self/mountinfo && echo the container keeps the host busy' || :
"$@" delete --force "$ID"
"#;

fn told(propagation: &Value) -> String {
    let bundle = Bundle::new("exec sleep 1000");
    let place = bundle.corner.path().join("place");
    fs::create_dir(&place).unwrap();
    bundle.change(|spec| {
        spec["root"]["path"] = json!(place.join("root"));
        spec["linux"]["rootfsPropagation"] = propagation.clone();
        for set in spec["process"]["capabilities"].as_object_mut().unwrap().values_mut() {
            set.as_array_mut().unwrap().push("CAP_SYS_ADMIN".into());
        }
    });
    let hull = bundle.command(&[]);
    let mut own = Command::new("unshare");
    own.args(["-m", "sh", "-c", SCRIPT, "sh"]).arg(hull.get_program()).args(hull.get_args());
    own.env("PLACE", &place).env("ID", bundle.id("root")).current_dir(bundle.corner.path()).stdin(Stdio::null());
    let said: Said = own.output().unwrap().into();
    assert_eq!(said.code, 0, "{propagation}: {said:?}");
    said.out
}

/// runtime-spec: "the rootfs mount receives propagation events from the host but not the other way around". Shown to fail
/// where the root is made private before it becomes a slave, of nobody.
#[test]
fn a_slave_follows_the_host_and_nothing_else_does() {
    for word in ["slave", "rslave"] {
        assert_eq!(told(&word.into()), "the container sees the host\n", "{word}");
    }
    for word in ["private", "rprivate", ""] {
        assert_eq!(told(&word.into()), "", "{word}");
    }
    assert_eq!(told(&"shared".into()), "shared\n");
    assert_eq!(told(&Value::Null), "");
}
