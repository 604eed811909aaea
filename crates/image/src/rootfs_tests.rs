//! Both ways of naming layers to the kernel, on the real kernel. These tests need root.

use std::os::fd::BorrowedFd;
use std::sync::Mutex;

use super::*;
use crate::layer::Staging;
use crate::store::Store;

/// How a test mounts.
type Way = fn(&[Layer], Option<Upper<'_>>, bool) -> Result<OwnedFd>;

/// What this kernel does by itself, and what kernels before 6.13 need.
const WAYS: [(&str, Way); 2] = [("as this kernel does", overlay), ("by links", linked)];

/// `by_link` changes the current folder for a moment, which all threads of the test program share.
fn linked(lowers: &[Layer], upper: Option<Upper<'_>>, volatile: bool) -> Result<OwnedFd> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    assemble(lowers, upper, |folders| by_link(folders, upper, volatile))
}

struct Case {
    _folder: tempfile::TempDir,
    store: Store,
}

impl Case {
    /// A store at a path with the characters that separate overlay's options.
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("hull-test-overlay-").tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("a,b:c\\d")).expect("a store");
        Self { _folder: folder, store }
    }

    /// A layer of files: name and content.
    fn layer(&self, files: &[(&str, &str)]) -> Layer {
        let staging = self.store.staging().expect("staging");
        for (name, text) in files {
            std::fs::write(staging.upper().join(name), text).expect("a file");
        }
        self.store.adopt(None, staging).expect("a layer")
    }

    fn staging(&self) -> Staging {
        self.store.staging().expect("staging")
    }
}

fn read(root: BorrowedFd<'_>, name: &CStr) -> Option<String> {
    let data = hull_sys::fs::read_file(root, name, 1 << 10).ok()?;
    Some(String::from_utf8(data).expect("text"))
}

fn names(root: &OwnedFd) -> Vec<CString> {
    let root = crate::tree::open_folder(root.as_fd(), c".").expect("the root");
    crate::tree::names(root.as_fd()).expect("a list")
}

fn write(root: BorrowedFd<'_>, name: &CStr) -> hull_sys::Result<()> {
    let file = hull_sys::fs::openat(root, name, OFlags::WRONLY | OFlags::CREATE, 0o644)?;
    hull_sys::fs::write(file.as_fd(), b"new")
}

#[test]
fn the_upper_of_two_layers_wins_and_writes_go_to_the_upper_folder() {
    let case = Case::new();
    let layers = [case.layer(&[("a", "1"), ("b", "1")]), case.layer(&[("b", "2")])];
    for (what, way) in WAYS {
        for volatile in [true, false] {
            let staging = case.staging();
            let root = way(&layers, Some(staging.as_upper()), volatile).unwrap_or_else(|e| panic!("{what}: {e}"));
            let root = root.as_fd();
            assert_eq!((read(root, c"a").as_deref(), read(root, c"b").as_deref()), (Some("1"), Some("2")), "{what}");
            write(root, c"a").expect("a file is written");
            assert_eq!(std::fs::read_to_string(staging.upper().join("a")).expect("the copy"), "new", "{what}");
            assert_eq!(std::fs::read_to_string(layers[0].diff().join("a")).expect("the layer's"), "1", "{what}");
        }
    }
}

/// What a step leaves is a layer by itself, whatever this kernel does when it is not told. Shown to fail with `metacopy=on`, and,
/// at the rename, with `redirect_dir=on` alone.
#[test]
fn an_upper_folder_has_all_of_a_file_whose_mode_changes_and_no_folder_is_renamed_by_a_mark() {
    let case = Case::new();
    let staging = case.staging();
    std::fs::create_dir(staging.upper().join("folder")).expect("a folder");
    std::fs::write(staging.upper().join("folder/file"), "x".repeat(1 << 20)).expect("a file");
    let layers = [case.store.adopt(None, staging).expect("a layer")];
    for (what, way) in WAYS {
        let staging = case.staging();
        let root = way(&layers, Some(staging.as_upper()), true).unwrap_or_else(|error| panic!("{what}: {error}"));
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::chmodat(&root, "folder/file", mode, rustix::fs::AtFlags::empty()).expect("a mode");
        let copy = std::fs::read_to_string(staging.upper().join("folder/file")).expect("the copy");
        assert!(copy.len() == 1 << 20 && copy.bytes().all(|byte| byte == b'x'), "{what}");
        for name in [c"folder", c"folder/file"] {
            let upper = crate::tree::open_folder(staging.tree().expect("the tree").as_fd(), c".").expect("the tree");
            let marks = crate::tree::xattrs(upper.as_fd(), name).expect("attributes");
            let leans = |key: &CStr| {
                [&b"trusted.overlay.metacopy"[..], b"trusted.overlay.redirect"].contains(&key.to_bytes())
            };
            assert!(!marks.iter().any(|(key, _)| leans(key)), "{what}: {marks:?}");
        }
        let renamed = rustix::fs::renameat(&root, "folder", &root, "other").expect_err("the caller copies it");
        assert_eq!(renamed, Errno::XDEV, "{what}");
    }
}

#[test]
fn an_image_without_layers_is_an_empty_root() {
    let case = Case::new();
    for (what, way) in WAYS {
        let staging = case.staging();
        let root = way(&[], Some(staging.as_upper()), true).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(names(&root), [c""; 0], "{what}");
        write(root.as_fd(), c"made").expect("a file is written");
        assert!(staging.upper().join("made").exists(), "{what}");
    }
}

#[test]
fn without_an_upper_folder_nothing_can_be_written() {
    let case = Case::new();
    let layers = [case.layer(&[("a", "1")]), case.layer(&[("a", "2")])];
    for (what, way) in WAYS {
        for (count, expected) in [(0, None), (1, Some("1")), (2, Some("2"))] {
            let root = way(&layers[..count], None, false).unwrap_or_else(|error| panic!("{what}, {count}: {error}"));
            assert_eq!(read(root.as_fd(), c"a").as_deref(), expected, "{what}, {count}");
            assert_eq!(write(root.as_fd(), c"x").expect_err("read-only").errno(), Errno::ROFS, "{what}, {count}");
        }
    }
}

#[test]
fn as_many_layers_as_the_kernel_takes_are_mounted_and_one_more_is_told() {
    let case = Case::new();
    let name = |n: usize| format!("f{n}");
    let layers: Vec<Layer> = (0..=LAYERS_MAX).map(|n| case.layer(&[(&*name(n), "x")])).collect();
    for (what, way) in WAYS {
        for count in [LINKS_MAX, LINKS_MAX + 1, LAYERS_MAX] {
            let staging = case.staging();
            for upper in [None, Some(staging.as_upper())] {
                let root =
                    way(&layers[..count], upper, true).unwrap_or_else(|error| panic!("{what}, {count}: {error}"));
                assert_eq!(names(&root).len(), count, "{what}");
            }
        }
        let error = way(&layers, None, false).expect_err("too many").to_string();
        assert!(error.contains("501 layers") && error.contains("at most 500"), "{what}: {error}");
    }
}

#[test]
fn the_error_of_a_failed_mount_is_the_kernels_own() {
    let case = Case::new();
    let staging = case.staging();
    let gone = PathBuf::from("/no/such/folder");
    let upper = Upper { upper: staging.upper(), work: &gone };
    let error = overlay(&[case.layer(&[])], Some(upper), true).expect_err("no work folder");
    assert!(error.to_string().contains("/no/such/folder") && error.to_string().contains("ENOENT"), "{error}");
}
