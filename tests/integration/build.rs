//! `hull import`, `build`, `images`, `rmi` and `run IMAGE`, on a store of the test's own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use hull_tests::{Corner, Said, entries};

/// A corner with an image store, in which busybox is the image `base`.
struct Store {
    corner: Corner,
}

impl Store {
    fn new() -> Self {
        let store = Self { corner: Corner::new() };
        let archive = store.corner.path().join("base.tar");
        let tar = Command::new("tar").arg("-C").arg(store.corner.rootfs()).arg("-cf").arg(&archive).arg(".").status();
        assert!(tar.unwrap().success());
        let said = store.hull(&["import", &archive.to_string_lossy(), "base"]);
        assert_eq!(said.code, 0, "{said:?}");
        fs::create_dir(store.context()).unwrap();
        store
    }

    fn context(&self) -> PathBuf {
        self.corner.path().join("context")
    }

    /// hull with this store, to its end; nothing of it is mounted, running or half made afterwards.
    fn hull(&self, arguments: &[&str]) -> Said {
        let output = self.corner.hull().args(arguments).output().unwrap();
        self.corner.assert_clean();
        output.into()
    }

    fn build(&self, dockerfile: &str) -> Said {
        fs::write(self.context().join("Dockerfile"), dockerfile).unwrap();
        self.hull(&["build", "-t", "made", &self.context().to_string_lossy()])
    }
}

#[test]
fn a_dockerfile_becomes_an_image_that_runs() {
    let store = Store::new();
    fs::write(store.context().join("file"), "copied\n").unwrap();
    let said = store.build(
        "FROM base\nARG WHO=nobody\nENV GREETING=hello\nWORKDIR /work\nCOPY file .\n\
         RUN echo $GREETING $WHO > made\nCMD [\"cat\", \"file\", \"made\"]\n",
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(store.hull(&["run", "--rm", "made"]).out, "copied\nhello nobody\n");
    assert_eq!(store.hull(&["run", "--rm", "made", "sh", "-c", "echo $GREETING; pwd"]).out, "hello\n/work\n");
}

#[test]
fn a_second_build_is_cached_until_a_copied_file_changes() {
    let store = Store::new();
    fs::write(store.context().join("file"), "one\n").unwrap();
    let text = "FROM base\nRUN echo first > /first\nCOPY file /file\nRUN cat /file > /last\n";
    assert!(!store.build(text).err.contains("CACHED"));
    let again = store.build(text);
    assert_eq!(again.err.matches("CACHED").count(), 3, "{}", again.err);
    fs::write(store.context().join("file"), "two\n").unwrap();
    let changed = store.build(text);
    assert_eq!(changed.err.matches("CACHED").count(), 1, "{}", changed.err);
    assert_eq!(store.hull(&["run", "--rm", "made", "cat", "/last"]).out, "two\n");
}

#[test]
fn mistakes_in_a_build_name_the_thing_and_show_the_line() {
    let store = Store::new();
    let outside = store.corner.path().join("outside");
    fs::write(&outside, "secret\n").unwrap();
    std::os::unix::fs::symlink(&outside, store.context().join("escape")).unwrap();
    for (text, words) in [
        ("FROM base\nHEALTHCHECK NONE\n", &["HEALTHCHECK", "not supported yet", "^^^^"][..]),
        ("FROM base\nFETCH x /\n", &["FETCH", "^^^^"]),
        ("FROM base\nCOPY ../outside /x\n", &["../outside", "outside the build context", "^^^^"]),
        ("FROM base\nCOPY missing /x\n", &["missing", "not in the build context", "^^^^"]),
        ("FROM base\nUSER no-such-user\nRUN true\n", &["no-such-user", "/etc/passwd"]),
        ("FROM no-such-image\n", &["no-such-image"]),
    ] {
        let said = store.build(text);
        assert_ne!(said.code, 0, "{text}: {said:?}");
        assert!(words.iter().all(|word| said.err.contains(word)), "{text}: {}", said.err);
    }
    let said = store.build("FROM base\nCOPY escape /x\n");
    let read = store.hull(&["run", "--rm", "made", "cat", "/x"]);
    assert!(!read.out.contains("secret"), "a link led out of the context: {said:?} {read:?}");
    let lost = store.hull(&["build", "-f", "/no/such/Dockerfile", "-t", "made", &store.context().to_string_lossy()]);
    assert_ne!(lost.code, 0);
    assert!(lost.err.contains("/no/such/Dockerfile"), "{}", lost.err);
}

#[test]
fn a_failing_run_tells_its_status_and_makes_no_image() {
    let store = Store::new();
    let said = store.build("FROM base\nRUN exit 3\n");
    assert_ne!(said.code, 0);
    assert!(said.err.contains("status 3") && said.err.contains("RUN exit 3"), "{}", said.err);
    assert!(!store.hull(&["images"]).out.contains("made"));
}

#[test]
fn links_in_an_image_do_not_lead_a_working_directory_to_the_host() {
    let store = Store::new();
    let outside = store.corner.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let said =
        store.build(&format!("FROM base\nRUN busybox ln -s {} /link\nWORKDIR /link/inner\n", outside.display()));
    assert_eq!(entries(&outside), [""; 0], "{said:?}");
}

#[test]
fn the_file_system_is_exported_and_the_image_kept() {
    let store = Store::new();
    fs::write(store.context().join("Dockerfile"), "FROM base\nRUN echo made > /made\n").unwrap();
    let (folder, context) = (store.corner.path().join("exported"), store.context());
    let said =
        store.hull(&["build", "-t", "made", "-o", &folder.to_string_lossy(), "-C", &context.to_string_lossy()]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(fs::read_to_string(folder.join("made")).unwrap(), "made\n");
    assert!(store.hull(&["images"]).out.contains("made"));
    assert_eq!(store.hull(&["rmi", "made"]).code, 0);
    assert!(!store.hull(&["images"]).out.contains("made"));
}
