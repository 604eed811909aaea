//! `hull import`, `build`, `images`, `rmi` and `run IMAGE`, on a store of the test's own.

use std::fs;

use hull_tests::{Builder, entries};

#[test]
fn a_dockerfile_becomes_an_image_that_runs() {
    let store = Builder::new();
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
    let store = Builder::new();
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
    let store = Builder::new();
    let outside = store.corner().path().join("outside");
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
    let store = Builder::new();
    let said = store.build("FROM base\nRUN exit 3\n");
    assert_ne!(said.code, 0);
    assert!(said.err.contains("status 3") && said.err.contains("RUN exit 3"), "{}", said.err);
    assert!(!store.hull(&["images"]).out.contains("made"));
}

#[test]
fn links_in_an_image_do_not_lead_a_working_directory_to_the_host() {
    let store = Builder::new();
    let outside = store.corner().path().join("outside");
    fs::create_dir(&outside).unwrap();
    let said =
        store.build(&format!("FROM base\nRUN busybox ln -s {} /link\nWORKDIR /link/inner\n", outside.display()));
    assert_eq!(entries(&outside), [""; 0], "{said:?}");
}

#[test]
fn the_file_system_is_exported_and_the_image_kept() {
    let store = Builder::new();
    fs::write(store.context().join("Dockerfile"), "FROM base\nRUN echo made > /made\n").unwrap();
    let (folder, context) = (store.corner().path().join("exported"), store.context());
    let said =
        store.hull(&["build", "-t", "made", "-o", &folder.to_string_lossy(), "-C", &context.to_string_lossy()]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(fs::read_to_string(folder.join("made")).unwrap(), "made\n");
    assert!(store.hull(&["images"]).out.contains("made"));
    assert_eq!(store.hull(&["rmi", "made"]).code, 0);
    assert!(!store.hull(&["images"]).out.contains("made"));
}

#[test]
fn an_image_without_layers_runs_what_is_mounted_into_it() {
    let store = Builder::new();
    let said = store.build("FROM scratch\nLABEL a=b\n");
    assert_eq!(said.code, 0, "{said:?}");
    let lost = store.hull(&["run", "--rm", "made", "/nothing"]);
    assert_eq!(lost.code, 127, "{lost:?}");
    let ran =
        store.hull(&["run", "--rm", "-v", "/bin/busybox:/bin/busybox:ro", "made", "/bin/busybox", "ls", "/bin"]);
    assert_eq!((ran.code, &*ran.out), (0, "busybox\n"), "{ran:?}");
    let folder = store.corner().path().join("exported");
    let said = store.build_with(&["-o", &folder.to_string_lossy()], "FROM scratch\nLABEL a=b\n");
    assert_eq!((said.code, entries(&folder)), (0, Vec::new()), "{said:?}");
}

#[test]
fn a_file_that_a_stage_deleted_is_not_copied_from_it_nor_exported() {
    let store = Builder::new();
    let folder = store.corner().path().join("exported");
    let said = store.build_with(
        &["-o", &folder.to_string_lossy()],
        "FROM base AS one\nRUN echo 1 > /etc/one; echo 2 > /etc/two\nRUN busybox rm /etc/one\n\
         FROM scratch\nCOPY --from=one /etc /e\n",
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(entries(&folder.join("e")), ["two"]);
}

#[test]
fn layers_that_a_build_without_the_cache_replaced_are_removed_unless_something_uses_them() {
    let store = Builder::new();
    let text = "FROM base AS one\nRUN echo 1 > /one\nFROM base\nCOPY --from=one /one /one\nRUN echo 2 > /two\n";
    assert_eq!(store.build(text).code, 0);
    let layers = || entries(&store.root().join("layers")).len();
    let first = layers();
    // Three images: the second and third take the name from the one before, which is still listed.
    for count in [2, 3] {
        assert_eq!(store.build_with(&["--no-cache"], text).code, 0);
        let check = store.hull(&["system", "check"]);
        assert_eq!((check.code, &*check.out), (0, ""), "after {count} builds");
    }
    // The stage that only gave a file is replaced; each image's own two layers have a folder and a link each at most.
    assert!(layers() <= first + 8, "{first} layers became {}", layers());
    for id in store.hull(&["images", "-q"]).out.lines() {
        assert_eq!(store.hull(&["rmi", "-f", id]).code, 0);
    }
    assert_eq!(layers(), 3, "what the cache names");
    assert_eq!(store.hull(&["system", "check"]).code, 0);
}
