use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use hull_tests::tar::Tar;
use tar::EntryType;

use super::*;
use crate::testing::{facts, fill, listing};

fn unpack(root: &Path, tar: Tar, lowers: &[OwnedFd]) -> Result<()> {
    let data = tar.end();
    let root = OwnedFd::from(File::open(root).expect("the root"));
    let mut archive = Archive::new(data.as_slice());
    apply(&mut archive, &root, lowers)?;
    archive.finish().map(drop)
}

/// A root for a layer.
fn place() -> (tempfile::TempDir, std::path::PathBuf) {
    let temp = tempfile::Builder::new().prefix("hull-test-").tempdir().expect("a folder");
    let root = temp.path().join("root");
    std::fs::create_dir(&root).expect("a folder");
    (temp, root)
}

#[test]
fn what_cannot_be_is_refused_before_it_is_made() {
    let regular = |change: fn(&mut tar::Header)| {
        Tar::default().with(Tar::header(EntryType::Regular, "bad", "", 0), change, b"")
    };
    let cases = [
        ("negative size", regular(|header| header.as_old_mut().size = [0xff; 12])),
        ("folder with data", Tar::default().raw(&Tar::header(EntryType::Directory, "bad", "", 512), &[0; 512])),
        ("link to nothing", Tar::default().link("bad", "nothing")),
        ("link to itself", Tar::default().file("a", "").link("a", "a")),
        ("parent that is a file", Tar::default().file("a", "").file("a/bad", "")),
        ("unknown type", Tar::default().raw(&Tar::header(EntryType::new(b'Q'), "bad", "", 0), b"")),
    ];
    for (what, tar) in cases {
        let (_temp, root) = place();
        assert!(unpack(&root, tar, &[]).is_err(), "{what}");
        assert!(std::fs::symlink_metadata(root.join("bad")).is_err(), "{what}");
    }
}

#[test]
fn whiteouts_hide_what_is_below_and_keep_what_the_layer_has() {
    let (_temp, root) = place();
    let tar = Tar::default()
        .file("d/.wh.gone", "")
        .file("d/here", "x")
        .file("d/.wh.here", "")
        .file("e/new", "x")
        .file("e/.wh..wh..opq", "")
        .file(".wh.f", "")
        .folder("f")
        .file("f/x", "")
        .folder("g")
        .file(".wh.g", "")
        .file(".wh..wh.plnk", "")
        .folder(".wh..wh.aufs/x")
        .device("zero", 0, 0);
    unpack(&root, tar, &[]).expect("a layer");
    assert_eq!(
        listing(&root),
        [
            "d/ 755",
            "d/gone whiteout",
            "d/here 644 x",
            "e/ 755",
            "e/new 644 x",
            "f/ 755",
            "f/x 644 ",
            "g/ 755",
            "zero whiteout"
        ]
    );
    let mut value = [0u8; 8];
    for (name, is_opaque) in [("d", false), ("e", true), ("f", true), ("g", true)] {
        let got = rustix::fs::getxattr(root.join(name), OPAQUE, &mut value[..]);
        assert_eq!(got.is_ok(), is_opaque, "{name}");
    }
}

#[test]
fn a_parent_that_is_a_symlink_is_resolved_inside_and_replaced_as_an_entry() {
    let (_temp, root) = place();
    let tar = Tar::default()
        .folder("usr/bin")
        .symlink("bin", "/usr/bin")
        .file("bin/a", "1")
        .symlink("sbin", "../../usr/bin")
        .file("sbin/b", "2")
        .link("usr/c", "bin/a")
        .symlink("x", "usr")
        .folder("x")
        .file("x/y", "3");
    unpack(&root, tar, &[]).expect("a layer");
    assert_eq!(std::fs::read_to_string(root.join("usr/bin/a")).expect("a"), "1");
    assert_eq!(std::fs::read_to_string(root.join("usr/bin/b")).expect("b"), "2");
    assert_eq!(std::fs::metadata(root.join("usr/c")).expect("c").nlink(), 2);
    assert!(std::fs::symlink_metadata(root.join("x")).expect("x").is_dir());
    assert!(!root.join("usr/y").exists());
}

#[test]
fn owners_modes_times_and_attributes_are_as_the_archive_has_them() {
    let (_temp, root) = place();
    let long = "n".repeat(120);
    let tar = Tar::default()
        .with(
            Tar::header(EntryType::Directory, "d", "", 0),
            |header| {
                header.set_mode(0o1777);
                header.set_uid(7);
            },
            b"",
        )
        .pax(&[
            ("path", &format!("d/{long}")),
            ("mtime", "1234.5"),
            ("uid", "3000000"),
            ("size", "2"),
            ("SCHILY.xattr.user.kept", "yes"),
            ("SCHILY.xattr.trusted.overlay.redirect", "/etc"),
            ("SCHILY.xattr.user.overlay.opaque", "y"),
        ])
        .with(Tar::header(EntryType::Regular, "short", "", 2), |header| header.set_mode(0o4755), b"ab");
    unpack(&root, tar, &[]).expect("a layer");
    let folder = std::fs::metadata(root.join("d")).expect("d");
    assert_eq!((folder.mode() & 0o7777, folder.uid(), folder.mtime()), (0o1777, 7, 1000));
    let file = std::fs::metadata(root.join("d").join(&long)).expect("the file");
    assert_eq!((file.mode() & 0o7777, file.uid(), file.size()), (0o4755, 3_000_000, 2));
    assert_eq!((file.mtime(), file.mtime_nsec()), (1234, 500_000_000));
    let dir = File::open(root.join("d")).expect("d");
    let name = CString::new(long).expect("a name");
    let kept = tree::xattrs(dir.as_fd(), &name).expect("attributes");
    assert_eq!(kept, [(c"user.kept".to_owned(), b"yes".to_vec())]);
}

#[test]
fn an_implied_folder_is_as_the_layers_below_have_it() {
    let (temp, root) = place();
    let below = temp.path().join("below");
    std::fs::create_dir_all(below.join("tmp")).expect("a folder");
    std::fs::set_permissions(below.join("tmp"), std::fs::Permissions::from_mode(0o1777)).expect("a mode");
    let lower = OwnedFd::from(File::open(&below).expect("a tree"));
    unpack(&root, Tar::default().file("tmp/x", "").file("new/x", ""), &[lower]).expect("a layer");
    assert_eq!(listing(&root), ["new/ 755", "new/x 644 ", "tmp/ 1777", "tmp/x 644 "]);
}

#[test]
fn a_path_deeper_than_the_descriptors_that_are_held_is_applied_and_removed() {
    let (temp, root) = place();
    let deep = vec!["d"; 1000].join("/");
    let tar = Tar::default()
        .pax(&[("path", &format!("{deep}/a"))])
        .file("x", "1")
        .pax(&[("path", &format!("{deep}/b"))])
        .file("x", "2")
        .file("d/c", "3");
    unpack(&root, tar, &[]).expect("a layer");
    assert!(root.join("d/c").exists());
    let dir = File::open(temp.path()).expect("the folder");
    tree::remove(dir.as_fd(), c"root").expect("removed");
    assert!(!root.exists());
    std::fs::create_dir(&root).expect("a root");
}

#[test]
fn a_file_with_holes_is_applied_in_each_of_its_forms_and_keeps_them() {
    let (temp, _) = place();
    let source = temp.path().join("source");
    std::fs::create_dir(&source).expect("a folder");
    let holes = File::create(source.join("holes")).expect("a file");
    // More regions than the header of the old form has room for, at places that end in no block.
    for at in (0..60).map(|n| n * (64 << 10) + 7) {
        std::os::unix::fs::FileExt::write_all_at(&holes, b"some data", at).expect("data");
    }
    holes.set_len((8 << 20) + 3).expect("a length");
    File::create(source.join("nothing")).and_then(|file| file.set_len(1 << 20)).expect("a file without data");
    for flags in [
        ["--format=gnu"].as_slice(),
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let root = temp.path().join("root");
        std::fs::remove_dir_all(&root).and_then(|()| std::fs::create_dir(&root)).expect("a root");
        let tar = std::process::Command::new("tar")
            .arg("-C")
            .arg(&source)
            .args(flags)
            .args(["--sparse", "-cf", "-", "."])
            .output();
        let data = tar.expect("tar").stdout;
        assert!(data.len() < 1 << 20, "{flags:?}: tar found the holes");
        let tree = OwnedFd::from(File::open(&root).expect("the root"));
        apply(&mut Archive::new(data.as_slice()), &tree, &[]).unwrap_or_else(|error| panic!("{flags:?}: {error}"));
        for name in ["holes", "nothing"] {
            let [theirs, ours] = [&source, &root].map(|folder| folder.join(name));
            assert!(std::fs::read(&theirs).expect("data") == std::fs::read(&ours).expect("data"), "{flags:?} {name}");
            let blocks = |path| std::fs::metadata(path).expect("a status").blocks();
            assert!(blocks(&ours) <= blocks(&theirs), "{flags:?} {name}");
        }
    }
}

/// With the owner set after the mode or the attributes, set-id bits and capabilities are lost, and this fails.
#[test]
fn devices_set_id_bits_capabilities_links_and_long_paths_are_as_gnu_tar_packed_them() {
    let (temp, _) = place();
    let source = temp.path().join("source");
    std::fs::create_dir(&source).expect("a folder");
    fill(&source);
    for flags in [["--format=gnu"].as_slice(), &["--format=posix", "--xattrs", "--xattrs-include=*"]] {
        let root = temp.path().join("root");
        std::fs::remove_dir_all(&root).and_then(|()| std::fs::create_dir(&root)).expect("a root");
        let tar =
            std::process::Command::new("tar").arg("-C").arg(&source).args(flags).args(["-cf", "-", "."]).output();
        let data = tar.expect("tar").stdout;
        let tree = OwnedFd::from(File::open(&root).expect("the root"));
        apply(&mut Archive::new(data.as_slice()), &tree, &[]).unwrap_or_else(|error| panic!("{flags:?}: {error}"));
        assert_eq!(listing(&root), listing(&source), "{flags:?}");
        let mut expected = facts(&source);
        if flags.len() == 1 {
            // GNU's own format has no place for attributes.
            let capable = expected.iter_mut().find(|line| line.starts_with("capable ")).expect("the file");
            *capable = capable.split('[').next().unwrap_or_default().to_owned() + "[]";
        }
        assert_eq!(facts(&root), expected, "{flags:?}");
    }
}
