//! Copies on real folders, hostile roots among them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::context;

struct Case {
    source: tempfile::TempDir,
    root: tempfile::TempDir,
    host: tempfile::TempDir,
}

impl Case {
    /// A source with a file, a folder and links; an empty root; a host folder that must stay empty.
    fn new() -> Self {
        let folder = |name: &str| tempfile::Builder::new().prefix(&format!("hull-test-{name}-")).tempdir().unwrap();
        let case = Self { source: folder("source"), root: folder("root"), host: folder("host") };
        let at = |path: &str| case.source.path().join(path);
        fs::create_dir_all(at("d/sub")).unwrap();
        fs::write(at("f"), "file").unwrap();
        fs::write(at("d/a"), "a").unwrap();
        fs::write(at("d/sub/b"), "b").unwrap();
        fs::set_permissions(at("d/a"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::set_permissions(at("d/sub"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::hard_link(at("d/a"), at("d/hard")).unwrap();
        symlink("/etc/passwd", at("d/link")).unwrap();
        std::os::unix::fs::chown(at("f"), Some(77), Some(77)).unwrap();
        case
    }

    fn copy(&self, source: &str, dest: &str, look: Look) -> Result<()> {
        let open = |path: &Path| Root::from_fd(fs::File::open(path).unwrap().into());
        let (from, root) = (open(self.source.path()), open(self.root.path()));
        let mut copier = Copier::new(&root, look);
        for found in context::find(&from, source, "the source").map_err(|p| p.message).unwrap() {
            copier.copy(&found, &Filter::default(), dest, false)?;
        }
        Ok(())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }
}

#[test]
fn a_file_goes_to_the_name_or_into_the_folder() {
    let case = Case::new();
    fs::create_dir(case.at("there")).unwrap();
    for (dest, path) in [("/x", "x"), ("/new/x", "new/x"), ("/dir/", "dir/f"), ("/there", "there/f"), ("/", "f")] {
        case.copy("f", dest, Look::default()).unwrap();
        assert_eq!(case.text(path), "file", "{dest}");
        let meta = fs::metadata(case.at(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "the context's owners are not the image's");
    }
    assert_eq!(fs::metadata(case.at("new")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_folder_gives_its_contents_with_modes_links_and_hard_links() {
    let case = Case::new();
    case.copy("d", "/o", Look::default()).unwrap();
    assert_eq!((case.text("o/a"), case.text("o/sub/b")), ("a".into(), "b".into()));
    let a = fs::metadata(case.at("o/a")).unwrap();
    assert_eq!(a.mode() & 0o7777, 0o4751);
    assert_eq!(a.ino(), fs::metadata(case.at("o/hard")).unwrap().ino());
    assert_eq!(fs::metadata(case.at("o/sub")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::read_link(case.at("o/link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(a.mtime(), fs::metadata(case.source.path().join("d/a")).unwrap().mtime());
}

#[test]
fn chown_and_chmod_reach_everything_that_is_new() {
    let case = Case::new();
    case.copy("d", "/p/o/", Look { uid: 5, gid: 6, mode: Some(0o700) }).unwrap();
    for path in ["p", "p/o", "p/o/a", "p/o/sub", "p/o/link"] {
        let meta = fs::symlink_metadata(case.at(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (5, 6), "{path}");
    }
    assert_eq!(fs::metadata(case.at("p/o/a")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn symlinks_in_the_root_never_lead_to_the_host() {
    let case = Case::new();
    let host = case.host.path();
    symlink(host, case.at("abs")).unwrap();
    symlink(format!("../../../../..{}", host.display()), case.at("rel")).unwrap();
    symlink(host.join("file"), case.at("final")).unwrap();
    for dest in ["/abs/", "/abs/x", "/rel/", "/rel/y/z", "/final"] {
        // Whether it succeeds inside the root or fails: the host's folder stays as it was.
        let _inside = case.copy("f", dest, Look::default());
        let _inside = case.copy("d", dest, Look::default());
        assert_eq!(fs::read_dir(host).unwrap().count(), 0, "{dest}");
    }
}

#[test]
fn a_symlink_that_stays_inside_is_followed_at_the_end() {
    let case = Case::new();
    fs::create_dir(case.at("real")).unwrap();
    symlink("/real", case.at("alias")).unwrap();
    symlink("/real/target", case.at("name")).unwrap();
    case.copy("f", "/alias/x", Look::default()).unwrap();
    case.copy("f", "/name", Look::default()).unwrap();
    assert_eq!((case.text("real/x"), case.text("real/target")), ("file".into(), "file".into()));
}

#[test]
fn what_is_in_the_way_is_replaced_not_written_through() {
    let case = Case::new();
    let outside = case.host.path().join("victim");
    fs::write(&outside, "host").unwrap();
    fs::create_dir(case.at("o")).unwrap();
    fs::hard_link(&outside, case.at("o/a")).unwrap();
    symlink(&outside, case.at("o/link")).unwrap();
    symlink(case.host.path(), case.at("o/hard")).unwrap();
    case.copy("d", "/o", Look::default()).unwrap();
    assert_eq!(case.text("o/a"), "a");
    assert_eq!(fs::read_to_string(&outside).unwrap(), "host");
}

#[test]
fn a_symlink_where_a_folder_must_go_is_an_error() {
    let case = Case::new();
    fs::create_dir(case.at("o")).unwrap();
    symlink(case.host.path(), case.at("o/sub")).unwrap();
    let error = case.copy("d", "/o", Look::default()).unwrap_err();
    assert!(matches!(error.errno(), Errno::LOOP | Errno::NOTDIR), "{error}");
    assert_eq!(fs::read_dir(case.host.path()).unwrap().count(), 0);
}

#[test]
fn a_loop_of_symlinks_ends() {
    let case = Case::new();
    symlink("b", case.at("a")).unwrap();
    symlink("a", case.at("b")).unwrap();
    assert_eq!(case.copy("f", "/a", Look::default()).unwrap_err().errno(), Errno::LOOP);
}

#[test]
fn user_attributes_are_kept() {
    let case = Case::new();
    let file = case.source.path().join("f");
    if rustix::fs::setxattr(&file, "user.note", b"kept", XattrFlags::empty()) == Err(Errno::OPNOTSUPP) {
        hull_tests::skipped("user_attributes_are_kept", "this file system has no user. attributes");
        return;
    }
    case.copy("f", "/x", Look::default()).unwrap();
    let mut value = [0u8; 16];
    let length = rustix::fs::getxattr(case.at("x"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"kept");
}

#[test]
fn a_full_file_system_is_an_error_that_names_the_file() {
    let case = Case::new();
    fs::write(case.source.path().join("d/large"), vec![1u8; 256 << 10]).unwrap();
    let size = (c"size".to_owned(), Some(c"64k".to_owned()));
    let full =
        hull_sys::mount::new_filesystem(c"tmpfs", None, &[size], rustix::mount::MountAttrFlags::empty()).unwrap();
    let (from, root) = (Root::from_fd(fs::File::open(case.source.path()).unwrap().into()), Root::from_fd(full));
    let mut copier = Copier::new(&root, Look::default());
    let found = context::find(&from, "d", "the source").map_err(|p| p.message).unwrap();
    let error = copier.copy(&found[0], &Filter::default(), "/o", false).unwrap_err();
    assert_eq!((error.errno(), copier.current.as_path()), (Errno::NOSPC, Path::new("large")));
}
