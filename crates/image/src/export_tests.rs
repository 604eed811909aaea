use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::PathBuf;

use super::*;

/// A tree, and a place for its copy.
struct Case {
    _folder: tempfile::TempDir,
    tree: PathBuf,
    copy: PathBuf,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("hull-test-").tempdir().expect("a folder");
        let (tree, copy) = (folder.path().join("tree"), folder.path().join("new/copy"));
        std::fs::create_dir(&tree).expect("a folder");
        Self { _folder: folder, tree, copy }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.tree.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).expect("a file");
        path
    }

    fn export(&self) -> Result<()> {
        export(File::open(&self.tree).expect("the tree").as_fd(), &self.copy)
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
}

#[test]
fn a_copy_has_owners_modes_times_links_attributes_and_devices() {
    let case = Case::new();
    let program = case.file("bin/program", "#!");
    chown(&program, Some(7), Some(8)).expect("an owner");
    set_mode(&program, 0o4755);
    std::fs::hard_link(&program, case.tree.join("twin")).expect("a link");
    // VFS_CAP_REVISION_2, cap_net_raw: what makes ping work.
    let capability = [0, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(&program, "security.capability", &capability, XattrFlags::empty()).expect("an attribute");
    symlink("/no/where", case.tree.join("link")).expect("a link");
    lchown(case.tree.join("link"), Some(9), Some(9)).expect("an owner");
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        case.tree.join("null"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        null,
    )
    .expect("a device");
    rustix::fs::mknodat(rustix::fs::CWD, case.tree.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .expect("a FIFO");
    let _socket = std::os::unix::net::UnixListener::bind(case.tree.join("socket")).expect("a socket");
    std::fs::create_dir(case.tree.join("closed")).expect("a folder");
    set_mode(&case.tree.join("closed"), 0o1700);
    for name in ["bin/program", "link", "bin"] {
        let time = Timespec { tv_sec: 1000, tv_nsec: 5 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, case.tree.join(name), &times, AtFlags::SYMLINK_NOFOLLOW)
            .expect("times");
    }
    case.export().expect("a copy");

    let of = |name: &str| std::fs::symlink_metadata(case.copy.join(name)).expect("it is there");
    let program = of("bin/program");
    assert_eq!((program.mode() & 0o7777, program.uid(), program.gid(), program.mtime()), (0o4755, 7, 8, 1000));
    assert_eq!((program.ino(), program.nlink()), (of("twin").ino(), 2));
    let mut value = [0u8; 32];
    let length = rustix::fs::getxattr(case.copy.join("twin"), "security.capability", &mut value[..]).expect("kept");
    assert_eq!(value[..length], capability);
    assert_eq!(std::fs::read_link(case.copy.join("link")).expect("a link"), Path::new("/no/where"));
    assert_eq!((of("link").uid(), of("link").mtime(), of("bin").mtime()), (9, 1000, 1000));
    assert_eq!((of("null").rdev(), of("null").file_type().is_char_device()), (null, true));
    assert!(of("fifo").file_type().is_fifo());
    assert_eq!(of("closed").mode() & 0o7777, 0o1700);
    assert!(std::fs::symlink_metadata(case.copy.join("socket")).is_err(), "nothing without its process");
}

#[test]
fn a_copy_merges_into_what_is_there_and_follows_no_link() {
    let case = Case::new();
    let outside = case._folder.path().join("outside");
    std::fs::create_dir(&outside).expect("a folder");
    std::fs::write(outside.join("file"), "untouched").expect("a file");
    for name in ["folder/new", "etc/passwd", "over/file", "plain", "dangling"] {
        case.file(name, "new");
    }
    std::fs::create_dir_all(case.copy.join("folder/kept")).expect("a folder");
    // What an older image, or somebody else, has left in the places of folders and files.
    symlink(&outside, case.copy.join("etc")).expect("a link");
    symlink(outside.join("file"), case.copy.join("plain")).expect("a link");
    symlink(outside.join("made"), case.copy.join("dangling")).expect("a link");
    std::fs::write(case.copy.join("over"), "a file in a folder's place").expect("a file");
    case.export().expect("a copy");
    assert!(case.copy.join("folder/kept").exists(), "what else is in a folder stays");
    for name in ["folder/new", "etc/passwd", "over/file", "plain", "dangling"] {
        assert_eq!(std::fs::read_to_string(case.copy.join(name)).expect(name), "new");
    }
    assert_eq!(std::fs::read_to_string(outside.join("file")).expect("a file"), "untouched");
    assert_eq!(hull_tests::entries(&outside), ["file"]);
    // A folder in a file's place.
    std::fs::remove_file(case.copy.join("plain")).expect("a file");
    std::fs::create_dir_all(case.copy.join("plain/deep")).expect("a folder");
    case.export().expect("a second copy");
    assert_eq!(std::fs::read_to_string(case.copy.join("plain")).expect("a file"), "new");
}

#[test]
fn a_place_that_is_no_folder_is_named() {
    let case = Case::new();
    std::fs::create_dir_all(case.copy.parent().expect("a folder")).expect("a folder");
    std::fs::write(&case.copy, "mine").expect("a file");
    let error = case.export().expect_err("a file").to_string();
    assert!(error.contains("copy") && error.contains("Not a directory"), "{error}");
    assert_eq!(std::fs::read_to_string(&case.copy).expect("a file"), "mine");
}

#[test]
fn a_large_file_and_holes_are_whole() {
    let case = Case::new();
    let path = case.file("large", "");
    let file = File::options().write(true).open(&path).expect("a file");
    for at in [0, 1 << 20, 3 << 20] {
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", at).expect("data");
    }
    file.set_len((4 << 20) + 1).expect("a length");
    case.export().expect("a copy");
    assert!(std::fs::read(&path).expect("a file") == std::fs::read(case.copy.join("large")).expect("a file"));
}
