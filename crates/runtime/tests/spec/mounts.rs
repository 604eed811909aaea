//! Mounts and their options, propagation, ids on mounts, devices.

use std::ffi::CString;
use std::fs as files;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use hull_sys::mount;
use serde_json::{Value, json};

use crate::case::Case;
use crate::tests;

/// A folder of the host's with a mount of its own in it, as a user's volume is: shared, so that what is mounted below
/// it shows wherever it is lent.
struct Lent(tempfile::TempDir);

impl Lent {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("hull-test-lent-").tempdir().unwrap();
        let path = CString::new(folder.path().to_str().unwrap()).unwrap();
        let attributes = mount::MountAttrFlags::empty();
        let made = mount::new_filesystem(c"tmpfs", Some(c"hull-test-lent"), &[], attributes).unwrap();
        let at = hull_sys::fs::openat(hull_sys::fs::CWD, &path, rustix::fs::OFlags::PATH, 0).unwrap();
        use std::os::fd::AsFd;
        mount::attach(made.as_fd(), at.as_fd()).unwrap();
        mount::set_propagation(&path, mount::MountPropagationFlags::SHARED).unwrap();
        files::create_dir(folder.path().join("below")).unwrap();
        files::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn mounts(&self) -> usize {
        let table = files::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().filter(|line| line.contains(self.path())).count()
    }

    fn bind(&self, options: &[&str]) -> Value {
        json!({"destination": "/lent", "source": self.path(), "options": options})
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let path = CString::new(self.path()).unwrap();
        while self.mounts() > 0 {
            mount::umount2(&path, mount::UnmountFlags::DETACH).unwrap();
        }
    }
}

fn with(script: &str, mount: Value) -> Case {
    Case::new(script).with("/mounts/-", mount)
}

const TABLE: &str = "grep -F ' /lent ' /proc/self/mountinfo";

tests! {
    /// Row A16: a mount that the container makes on a volume stays in the container. Mutant seen failing:
    /// `Options::changes` without the slave.
    fn a16_a_mount_inside_does_not_appear_on_the_host() {
        let lent = Lent::new();
        let script = format!("mount -t tmpfs x /lent/below && {TABLE}");
        for options in [&["rbind"][..], &["bind", "ro"], &["rbind", "rslave"], &["rbind", "shared"], &["rbind", "rprivate"]] {
            with(&script, lent.bind(options)).text();
            assert_eq!(lent.mounts(), 1, "{options:?}");
        }
    }

    fn a_shared_volume_of_a_shared_root_is_shared_with_the_host() {
        let lent = Lent::new();
        let case = with("mount -t tmpfs x /lent/below", lent.bind(&["rbind", "rshared"]))
            .with("/linux/rootfsPropagation", json!("rshared"));
        case.text();
        assert_eq!(lent.mounts(), 2);
        let below = CString::new(format!("{}/below", lent.path())).unwrap();
        mount::umount2(&below, mount::UnmountFlags::empty()).unwrap();
    }

    fn a_slave_sees_what_the_host_mounts_later_and_a_private_one_does_not() {
        let lent = Lent::new();
        for (option, seen) in [("rslave", "1\n"), ("rprivate", "0\n")] {
            let case = with("grep -c ' /lent/below ' /proc/self/mountinfo; true", lent.bind(&["rbind", option]));
            let made = case.create().unwrap();
            let below = CString::new(format!("{}/below", lent.path())).unwrap();
            let at = hull_sys::fs::openat(hull_sys::fs::CWD, &below, rustix::fs::OFlags::PATH, 0).unwrap();
            let tmpfs = mount::new_filesystem(c"tmpfs", None, &[], mount::MountAttrFlags::empty()).unwrap();
            use std::os::fd::AsFd;
            mount::attach(tmpfs.as_fd(), at.as_fd()).unwrap();
            assert_eq!(made.finish().unwrap().text, seen, "{option}");
            mount::umount2(&below, mount::UnmountFlags::DETACH).unwrap();
        }
    }

    fn the_propagation_of_the_root_is_the_one_asked_for() {
        let script = "grep ' / / rw' /proc/self/mountinfo || cat /proc/self/mountinfo";
        let of = |word: &str| Case::new(script).with("/linux/rootfsPropagation", json!(word)).text();
        assert!(of("shared").contains("shared:"), "{}", of("shared"));
        assert!(of("unbindable").contains("unbindable"));
        assert!(!of("private").contains("shared:"));
        assert!(!of("").contains("shared:"));
    }

    fn attributes_are_those_of_the_words() {
        let lent = Lent::new();
        let table = |options: &[&str]| -> String {
            let all: Vec<&str> = ["bind"].iter().chain(options).copied().collect();
            with(TABLE, lent.bind(&all)).text().split(' ').nth(5).unwrap().to_owned()
        };
        assert_eq!(table(&["ro", "nosuid", "nodev", "noexec"]), "ro,nosuid,nodev,noexec,relatime");
        assert_eq!(table(&["noatime", "nodiratime"]), "rw,noatime,nodiratime");
        assert_eq!(table(&["strictatime"]), "rw");
        assert_eq!(table(&["nosymfollow", "atime"]), "rw,relatime,nosymfollow");
        assert_eq!(table(&["ro", "rw"]), "rw,relatime");
    }

    fn recursive_attributes_reach_what_is_mounted_below() {
        let lent = Lent::new();
        let below = CString::new(format!("{}/below", lent.path())).unwrap();
        let at = hull_sys::fs::openat(hull_sys::fs::CWD, &below, rustix::fs::OFlags::PATH, 0).unwrap();
        let tmpfs = mount::new_filesystem(c"tmpfs", None, &[], mount::MountAttrFlags::empty()).unwrap();
        use std::os::fd::AsFd;
        mount::attach(tmpfs.as_fd(), at.as_fd()).unwrap();
        let script = "touch /lent/below/x && echo written; grep ' /lent' /proc/self/mountinfo";
        let fields = |options: &[&str]| -> Vec<String> {
            let text = with(script, lent.bind(options)).run().unwrap().text;
            text.lines().map(|line| line.split(' ').nth(5).unwrap_or(line).to_owned()).collect()
        };
        assert_eq!(fields(&["rbind", "ro"])[..], ["written", "ro,relatime", "rw,relatime"]);
        let all = fields(&["rbind", "rro", "rnosuid", "rnoatime"]);
        assert!(all[0].contains("Read-only file system"), "{all:?}");
        assert_eq!(all[1..], ["ro,nosuid,noatime", "ro,nosuid,noatime"]);
        mount::umount2(&below, mount::UnmountFlags::DETACH).unwrap();
    }

    fn a_recursive_attribute_of_a_new_file_system_is_in_force() {
        let tmpfs = json!({"destination": "/lent", "type": "tmpfs", "source": "tmpfs", "options": ["rro", "nosuid"]});
        let table = with(TABLE, tmpfs).text();
        assert_eq!(table.split(' ').nth(5).unwrap(), "ro,nosuid,relatime");
    }

    fn ids_of_a_volume_are_mapped_by_its_own_mappings() {
        let lent = Lent::new();
        chown(format!("{}/below", lent.path()), Some(1000), Some(1000)).unwrap();
        let mut bind = lent.bind(&["rbind", "idmap"]);
        let map = json!([{"containerID": 0, "hostID": 10_000, "size": 5000}]);
        bind["uidMappings"] = map.clone();
        bind["gidMappings"] = map;
        let case = with("stat -c %u:%g /lent/below", bind);
        assert_eq!(case.text(), "11000:11000\n");
        assert_eq!(files::metadata(format!("{}/below", lent.path())).unwrap().uid(), 1000);
    }

    fn ids_of_a_volume_are_mapped_as_the_container_is() {
        let lent = Lent::new();
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        let case = with("stat -c %u:%g /lent/below; touch /lent/made", lent.bind(&["rbind", "ridmap"]))
            .namespaces(&["mount", "pid", "uts", "ipc", "network", "cgroup", "user"])
            .with("/linux/uidMappings", map.clone())
            .with("/linux/gidMappings", map);
        chown(case.root(), Some(100_000), Some(100_000)).unwrap();
        assert_eq!(case.text(), "0:0\n");
        assert_eq!(files::metadata(format!("{}/made", lent.path())).unwrap().uid(), 0);
        let without = Case::new("true").with("/mounts/-", lent.bind(&["bind", "idmap"]));
        assert!(without.error().ends_with("and it has none"), "{}", without.error());
    }

    fn a_scratch_folder_begins_with_what_the_image_has() {
        let tmpfs = |options: &[&str]| {
            let mount = json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": options});
            let case = with("ls -R /data; cat /data/a/file; stat -c '%a %u' /data /data/a; cat /data/out; touch /data/new", mount);
            let data = case.root().join("data");
            files::create_dir_all(data.join("a")).unwrap();
            files::write(data.join("a/file"), "content\n").unwrap();
            std::os::unix::fs::symlink("/etc/hostname", data.join("out")).unwrap();
            files::set_permissions(&data, PermissionsExt::from_mode(0o1777)).unwrap();
            files::set_permissions(data.join("a"), PermissionsExt::from_mode(0o711)).unwrap();
            chown(data.join("a"), Some(7), None).unwrap();
            let text = case.run().unwrap().text;
            assert!(!data.join("new").exists());
            text
        };
        let text = tmpfs(&["tmpcopyup", "nosuid"]);
        assert!(text.contains("content\n1777 0\n711 7\n"), "{text}");
        assert!(text.contains("can't open '/data/out': No such file"), "a link is not followed: {text}");
        assert!(tmpfs(&["tmpcopyup", "ro"]).contains("touch: /data/new: Read-only file system"));
        // Without it the folder is empty and looks as the image's does.
        let text = tmpfs(&[]);
        assert!(text.contains("1777 0\n") && !text.contains("content"), "{text}");
        assert!(tmpfs(&["mode=700"]).contains("700 0\n"));
        assert!(tmpfs(&["mode=700", "tmpcopyup"]).contains("content\n700 0\n"));
        // Where the image has no folder it is everybody's.
        for options in [&[][..], &["tmpcopyup"]] {
            let mount = json!({"destination": "/new/data", "type": "tmpfs", "source": "tmpfs", "options": options});
            assert_eq!(with("stat -c %a /new/data", mount).text(), "1777\n");
        }
    }

    fn a_remount_changes_what_was_mounted_before() {
        let tmpfs = json!({"destination": "/lent", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k"]});
        let again = json!({"destination": "/lent", "type": "tmpfs", "source": "tmpfs", "options": ["remount", "ro", "size=128k"]});
        let table = with(TABLE, tmpfs).with("/mounts/-", again).text();
        assert!(table.contains(" ro,relatime ") && table.contains("size=128k"), "{table}");
    }

    fn an_unknown_option_is_an_error_that_names_it() {
        let tmpfs = json!({"destination": "/lent", "type": "tmpfs", "source": "tmpfs", "options": ["bogus"]});
        let error = with("true", tmpfs).error();
        assert!(error.contains("mount /lent") && error.contains("\"bogus\""), "{error}");
    }

    fn devices_have_their_kind_number_mode_and_owner() {
        let devices = json!([
            {"type": "c", "path": "/dev/net/fuse", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
            {"type": "b", "path": "/dev/loop99", "major": 7, "minor": 99},
            {"type": "p", "path": "/run/pipe", "fileMode": 0o600, "uid": 9, "major": 0, "minor": 0},
        ]);
        let script = "stat -c '%n %F %t:%T %a %u:%g' /dev/net/fuse /dev/loop99 /run/pipe";
        let text = Case::new(script).with("/linux/devices", devices).text();
        assert_eq!(
            text,
            "/dev/net/fuse character special file a:e5 640 5:6\n/dev/loop99 block special file 7:63 666 0:0\n\
             /run/pipe fifo 0:0 600 9:0\n"
        );
    }

    /// Row A4: what the image has in a device's place is not taken for it. Mutant seen failing: `devices::is` always true.
    fn a4_a_file_in_a_devices_place_is_refused() {
        let mut case = Case::new("true");
        let mounts = case.spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] == "proc");
        files::create_dir(case.root().join("dev")).unwrap();
        files::write(case.root().join("dev/null"), "mine").unwrap();
        assert_eq!(case.error(), "cannot make the device /dev/null: the image has something else there");
    }
}
