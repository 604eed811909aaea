//! Copies of layers, and what a step changed in one, compared with what overlay makes of the same. These tests need root.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::*;
use crate::layer::Staging;
use crate::rootfs::{Upper, overlay};
use crate::store::Store;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::Builder::new().prefix("hull-test-vfs-").tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("store")).expect("a store");
    (folder, store)
}

fn open(path: &Path) -> OwnedFd {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("a folder")
}

/// A layer that is made by `change` in the root above `below`.
fn step(store: &Store, below: &[Layer], change: fn(&Path)) -> Layer {
    let staging = store.staging().expect("staging");
    if below.is_empty() {
        change(staging.upper());
    } else {
        let root = overlay(below, Some(staging.as_upper()), true).expect("an overlay");
        change(&in_root(&root));
    }
    store.adopt(below.last(), staging).expect("a layer")
}

/// The way into a detached mount.
fn in_root(root: &OwnedFd) -> std::path::PathBuf {
    use std::os::fd::AsRawFd;
    Path::new("/proc/self/fd").join(root.as_raw_fd().to_string())
}

/// The same step on a copy.
fn step_on_a_copy(store: &Store, below: &[Layer], change: fn(&Path)) -> Layer {
    let mut staging: Staging = store.staging().expect("staging");
    let tree = open(staging.upper());
    copy(below, &tree).expect("a copy");
    staging.set_before(Before::of(&tree).expect("marks"));
    change(staging.upper());
    store.adopt(below.last(), staging).expect("a layer")
}

fn base(root: &Path) {
    for folder in ["kept", "gone", "again", "deep/er"] {
        std::fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    for file in
        ["kept/a", "kept/b", "gone/a", "again/a", "again/b", "deep/er/a", "deep/er/b", "becomes-folder", "mode"]
    {
        std::fs::write(root.join(file), file).expect("a file");
    }
    std::fs::hard_link(root.join("kept/a"), root.join("linked")).expect("a link");
    symlink("kept/a", root.join("symbolic")).expect("a link");
}

/// Each kind of change.
fn change(root: &Path) {
    std::fs::remove_file(root.join("kept/b")).expect("removed");
    std::fs::remove_dir_all(root.join("gone")).expect("removed");
    // A folder of the same name with one of the old names in it: the others must not come back.
    std::fs::remove_dir_all(root.join("again")).expect("removed");
    std::fs::create_dir(root.join("again")).expect("made");
    std::fs::write(root.join("again/a"), "new").expect("written");
    std::fs::write(root.join("deep/er/a"), "deep/er/b").expect("written");
    std::fs::remove_file(root.join("becomes-folder")).expect("removed");
    std::fs::create_dir(root.join("becomes-folder")).expect("made");
    std::fs::write(root.join("becomes-folder/x"), "x").expect("written");
    std::fs::set_permissions(root.join("mode"), std::fs::Permissions::from_mode(0o600)).expect("a mode");
    std::fs::create_dir_all(root.join("new/er")).expect("made");
    std::fs::remove_file(root.join("symbolic")).expect("removed");
    symlink("kept", root.join("symbolic")).expect("made");
}

/// Names with type, mode, link and content, as a reader of the root finds them.
fn listing(root: &Path) -> Vec<String> {
    let find = "find . -printf '%P %y %m %l\\n' | sort; find . -type f | sort | xargs cat";
    let output = std::process::Command::new("sh").args(["-c", find]).current_dir(root).output().expect("find");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn a_copy_is_what_overlay_shows_of_the_layers() {
    let (_folder, store) = store();
    let lower = step(&store, &[], base);
    let layers = [lower.clone(), step(&store, std::slice::from_ref(&lower), change)];
    let staging = store.staging().expect("staging");
    copy(&layers, &open(staging.upper())).expect("a copy");
    let root = overlay(&layers, None, false).expect("an overlay");
    assert_eq!(listing(staging.upper()), listing(&in_root(&root)));
    assert!(!staging.upper().join("kept/b").exists() && staging.upper().join("again/a").exists());
}

/// Without the marks of replaced folders (`apply::opaque`), or with the changes looked for while names are removed, it fails.
#[test]
fn what_a_step_changes_in_a_copy_becomes_the_layer_that_overlay_makes() {
    let (_folder, store) = store();
    let lower = step(&store, &[], base);
    let below = std::slice::from_ref(&lower);
    let made = step_on_a_copy(&store, below, change);
    let seen = |top: Layer| {
        let staging = store.staging().expect("staging");
        let upper = Upper { upper: staging.upper(), work: staging.work() };
        let root = overlay(&[lower.clone(), top], Some(upper), true).expect("an overlay");
        listing(&in_root(&root))
    };
    assert_eq!(seen(made.clone()), seen(step(&store, below, change)));
    // And nothing of what did not change is in it.
    for unchanged in ["kept/a", "linked", "deep/er/b"] {
        assert!(!made.diff().join(unchanged).exists(), "{unchanged}");
    }
    assert!(step_on_a_copy(&store, below, |_| {}).diff().read_dir().expect("a list").next().is_none());
}
