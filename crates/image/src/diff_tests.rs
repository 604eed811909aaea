use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::apply::apply;
use crate::testing::{facts, fill, listing};

struct Case(tempfile::TempDir);

impl Case {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("hull-test-").tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("tree")).expect("a folder");
        Self(folder)
    }

    fn tree(&self) -> PathBuf {
        self.0.path().join("tree")
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.tree().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).expect("a file");
        path
    }

    fn hide(&self, name: &str) {
        let (path, mode) = (self.tree().join(name), Mode::from_raw_mode(0));
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::CharacterDevice, mode, 0).expect("a whiteout");
    }

    fn archive(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        write(File::open(self.tree()).expect("the tree").as_fd(), &mut out).map(|()| out)
    }

    /// The archive as a tree again.
    fn applied(&self, archive: &[u8]) -> PathBuf {
        let path = self.0.path().join("applied");
        std::fs::create_dir(&path).expect("a folder");
        let mut archive = crate::archive::Archive::new(archive);
        apply(&mut archive, &OwnedFd::from(File::open(&path).expect("a folder")), &[]).expect("a layer");
        archive.finish().expect("its end");
        path
    }
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().expect("entries");
    entries.map(|entry| entry.expect("an entry").path().expect("a path").display().to_string()).collect()
}

fn opaque(path: &Path) {
    rustix::fs::setxattr(path, OPAQUE, b"y", rustix::fs::XattrFlags::empty()).expect("an attribute");
}

#[test]
fn what_was_deleted_is_told_by_names_and_comes_back_as_it_was() {
    let case = Case::new();
    case.file("d/here", "x");
    case.hide("d/gone");
    case.file("e/new", "y");
    opaque(&case.tree().join("e"));
    case.hide("a");
    let archive = case.archive().expect("an archive");
    assert_eq!(names(&archive), [".wh.a", "d/", "d/.wh.gone", "d/here", "e/", "e/.wh..wh..opq", "e/new"]);
    let again = case.applied(&archive);
    assert_eq!(listing(&again), listing(&case.tree()));
    assert!(marked(File::open(&again).expect("a folder").as_fd(), c"e").expect("attributes"));
    assert!(!marked(File::open(&again).expect("a folder").as_fd(), c"d").expect("attributes"));
}

#[test]
fn the_same_tree_is_the_same_bytes_however_it_was_made() {
    let made = |order: &[&str]| {
        let case = Case::new();
        for name in order {
            let path = case.file(name, name);
            // Nanoseconds of the moment do not count.
            let time = rustix::fs::Timespec { tv_sec: 1000, tv_nsec: (order[0].len() * 7) as _ };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).expect("times");
        }
        case.archive().expect("an archive")
    };
    let first = made(&["a", "bb", "ccc"]);
    assert!(first == made(&["ccc", "bb", "a"]));
    assert!(first.len() % BLOCK == 0 && first.ends_with(&[0; 2 * BLOCK]));
}

/// Values that a ustar header has no room for, and those that only just fit.
#[test]
fn long_names_large_ids_and_old_times_are_kept() {
    let case = Case::new();
    let (long, exact) = ("l".repeat(200), "e".repeat(100));
    symlink(&long, case.tree().join("link")).expect("a link");
    for name in [&long, &exact] {
        case.file(name, "x");
    }
    let owned = case.file("owned", "");
    chown(&owned, Some(4_000_000_000), Some(ID_MAX)).expect("an owner");
    let old = rustix::fs::Timespec { tv_sec: -5, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: old, last_modification: old };
    rustix::fs::utimensat(rustix::fs::CWD, &owned, &times, rustix::fs::AtFlags::empty()).expect("times");
    rustix::fs::setxattr(&owned, "user.note", b"a=b\n\0c", rustix::fs::XattrFlags::empty()).expect("an attribute");
    let again = case.applied(&case.archive().expect("an archive"));
    for name in [&long, &exact] {
        assert_eq!(std::fs::read_to_string(again.join(name)).expect("a file"), "x");
    }
    assert_eq!(std::fs::read_link(again.join("link")).expect("a link"), Path::new(&long));
    let stat = rustix::fs::stat(again.join("owned")).expect("it is there");
    assert_eq!((stat.st_uid, stat.st_gid, stat.st_mtime), (4_000_000_000, ID_MAX, -5));
    let mut value = [0u8; 16];
    let length = rustix::fs::getxattr(again.join("owned"), "user.note", &mut value[..]).expect("kept");
    assert_eq!(&value[..length], b"a=b\n\0c");
}

#[test]
fn one_inode_is_one_file_and_links_to_it_and_a_socket_is_left_out() {
    let case = Case::new();
    let first = case.file("a", "once");
    std::fs::create_dir(case.tree().join("d")).expect("a folder");
    std::fs::hard_link(&first, case.tree().join("d/b")).expect("a link");
    let _socket = std::os::unix::net::UnixListener::bind(case.tree().join("socket")).expect("a socket");
    let archive = case.archive().expect("an archive");
    assert_eq!(names(&archive), ["a", "d/", "d/b"]);
    assert_eq!(archive.windows(4).filter(|part| part == b"once").count(), 1);
    let again = case.applied(&archive);
    let inode = |name: &str| rustix::fs::stat(again.join(name)).expect("it is there").st_ino;
    assert_eq!(inode("a"), inode("d/b"));
}

#[test]
fn a_file_whose_name_would_mean_a_deletion_is_an_error_that_names_it() {
    let case = Case::new();
    case.file("d/.wh.file", "");
    let error = case.archive().expect_err("not a file's name").to_string();
    assert!(error.contains("d/.wh.file"), "{error}");
}

#[test]
fn devices_set_id_bits_capabilities_links_and_long_paths_come_back_and_other_readers_see_them() {
    let case = Case::new();
    fill(&case.tree());
    let archive = case.archive().expect("an archive");
    let again = case.applied(&archive);
    assert_eq!(listing(&again), listing(&case.tree()));
    assert_eq!(facts(&again), facts(&case.tree()));
    // GNU tar makes the same of it.
    let (file, theirs) = (case.0.path().join("archive"), case.0.path().join("theirs"));
    std::fs::write(&file, &archive).and_then(|()| std::fs::create_dir(&theirs)).expect("an archive");
    let tar = std::process::Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"])
        .arg(&file)
        .arg("-C")
        .arg(&theirs)
        .output()
        .expect("tar");
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    assert_eq!((listing(&theirs), facts(&theirs)), (listing(&again), facts(&again)));
}
