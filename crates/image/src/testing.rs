//! What the tests of this crate share: how a tree looks.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A short listing: kind, mode, name and what it holds; times and inodes left out.
pub(crate) fn listing(root: &Path) -> Vec<String> {
    use std::os::unix::fs::FileTypeExt;
    fn walk(root: &Path, path: &Path, found: &mut Vec<String>) {
        let mut names: Vec<_> =
            std::fs::read_dir(path).expect("a list").map(|entry| entry.expect("one").path()).collect();
        names.sort();
        for name in names {
            let stat = std::fs::symlink_metadata(&name).expect("a status");
            let kind = stat.file_type();
            let shown = name.strip_prefix(root).expect("below").display().to_string();
            let mode = stat.mode() & 0o7777;
            found.push(if kind.is_dir() {
                format!("{shown}/ {mode:o}")
            } else if kind.is_symlink() {
                format!("{shown} -> {}", std::fs::read_link(&name).expect("a target").display())
            } else if kind.is_char_device() && stat.rdev() == 0 {
                format!("{shown} whiteout")
            } else if kind.is_file() {
                format!("{shown} {mode:o} {}", String::from_utf8_lossy(&std::fs::read(&name).expect("content")))
            } else {
                format!("{shown} {mode:o} special {}", stat.rdev())
            });
            if kind.is_dir() {
                walk(root, &name, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found
}
