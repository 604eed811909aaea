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

/// What a listing leaves out: owner, device, number of names, time in seconds and file capabilities of each entry.
pub(crate) fn facts(root: &Path) -> Vec<String> {
    fn walk(root: &Path, path: &Path, found: &mut Vec<String>) {
        let stat = std::fs::symlink_metadata(path).expect("a status");
        let kind = stat.file_type();
        let names = if kind.is_dir() { 0 } else { stat.nlink() };
        let mut value = [0u8; 64];
        let capability =
            rustix::fs::lgetxattr(path, "security.capability", &mut value[..]).map_or(0, |length| length);
        let shown = path.strip_prefix(root).expect("below").display();
        if path != root {
            found.push(format!(
                "{shown} {:o} {}:{} {} {names} {} {:?}",
                stat.mode(),
                stat.uid(),
                stat.gid(),
                stat.rdev(),
                stat.mtime(),
                &value[..capability],
            ));
        }
        if kind.is_dir() {
            let mut inside: Vec<_> =
                std::fs::read_dir(path).expect("a list").map(|entry| entry.expect("one").path()).collect();
            inside.sort();
            inside.iter().for_each(|path| walk(root, path, found));
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found
}

/// Fills a folder with everything that a careless reader or writer of archives loses: devices, a pipe, set-id bits and file
/// capabilities of somebody else's files, links, paths of more than 255 bytes, times long ago.
pub(crate) fn fill(root: &Path) {
    use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
    let deep = root.join(["f".repeat(90).as_str(); 3].join("/"));
    std::fs::create_dir_all(&deep).expect("folders");
    let file = |name: &str, mode: u32| {
        let path = root.join(name);
        std::fs::write(&path, name).expect("a file");
        std::os::unix::fs::chown(&path, Some(7), Some(8)).expect("an owner");
        rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).expect("a mode");
        path
    };
    file("setuid", 0o4755);
    file("setgid", 0o2755);
    file("both", 0o6711);
    std::fs::hard_link(root.join("both"), root.join("name-two")).expect("a second name");
    // A vfs_cap_data of revision 2: cap_net_raw, permitted and effective.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let capable = file("capable", 0o755);
    rustix::fs::setxattr(&capable, "security.capability", &capability, XattrFlags::empty()).expect("a capability");
    for (name, kind, (major, minor)) in [
        ("null", FileType::CharacterDevice, (1, 3)),
        ("large", FileType::CharacterDevice, (300, 70_000)),
        ("loop", FileType::BlockDevice, (7, 1)),
        ("pipe", FileType::Fifo, (0, 0)),
    ] {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o640), device).expect("a device");
    }
    std::fs::write(deep.join("n".repeat(200)), "deep").expect("a file");
    std::os::unix::fs::symlink("t/".repeat(150), root.join("link")).expect("a link");
    let shared = root.join("shared");
    std::fs::create_dir(&shared).expect("a folder");
    rustix::fs::chmod(&shared, Mode::from_raw_mode(0o3777)).expect("a mode");
    let old = Timespec { tv_sec: 86_400, tv_nsec: 0 };
    let times = Timestamps { last_access: old, last_modification: old };
    for name in ["setuid", "null", "link", "shared"] {
        rustix::fs::utimensat(CWD, root.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).expect("times");
    }
}
