//! A store on a disk that becomes full: an ext4 of its own, on a loop device.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_tests::{Builder, Corner, Said, entries};
use rustix::mount::{UnmountFlags, unmount};

const MIB: usize = 1 << 20;

/// A mounted file system with as many MiB.
struct Disk {
    _folder: tempfile::TempDir,
    mounted: PathBuf,
}

impl Disk {
    fn new(size: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("hull-disk-").tempdir().unwrap();
        let (image, mounted) = (folder.path().join("image"), folder.path().join("mounted"));
        fs::File::create(&image).unwrap().set_len((size * MIB) as u64).unwrap();
        fs::create_dir(&mounted).unwrap();
        // Without blocks that only root may take: what is left is left for everybody.
        let tool = |program: &str, arguments: &[&str], path: &Path| {
            let output = Command::new(program).args(arguments).arg(&image).arg(path).output().unwrap();
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        };
        tool("mkfs.ext4", &["-q", "-m", "0", "-O", "^has_journal"], Path::new(&format!("{size}M")));
        tool("mount", &["-o", "loop"], &mounted);
        Self { _folder: folder, mounted }
    }

    fn builder(&self) -> Builder {
        Builder::with_root(Corner::new(), self.mounted.join("store"))
    }

    /// Bytes that can still be written.
    fn free(&self) -> usize {
        let stat = rustix::fs::statvfs(&self.mounted).unwrap();
        (stat.f_bavail * stat.f_frsize) as usize
    }

    /// Takes all space but `left` bytes; gives it back when the file is removed.
    fn fill(&self, left: usize) -> PathBuf {
        let path = self.mounted.join("filler");
        let file = fs::File::create(&path).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, (self.free() - left) as u64).unwrap();
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.mounted, UnmountFlags::empty()) {
            eprintln!("cannot unmount {}: {error}", self.mounted.display());
            // Whoever still uses it must not keep it forever.
            unmount(&self.mounted, UnmountFlags::DETACH).expect("detached");
            assert!(std::thread::panicking(), "something still uses the disk");
        }
    }
}

/// It failed because the disk is full and said so, and about what.
fn is_full(said: &Said, about: &str) {
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.err.contains("No space left on device") && said.err.contains(about), "{said:?}");
    assert!(!said.err.contains("panicked"), "{said:?}");
}

fn clean(builder: &Builder) {
    let check = builder.hull(&["system", "check"]);
    assert_eq!((check.code, &*check.out), (0, ""), "{check:?}");
}

#[test]
fn a_step_that_fills_the_disk_is_undone_and_the_next_build_works() {
    let disk = Disk::new(24);
    let builder = disk.builder();
    builder.file("large", &"x".repeat(12 * MIB));
    let room = disk.free();
    let filler = disk.fill(8 * MIB);
    for (dockerfile, about) in [
        ("FROM base\nRUN busybox dd if=/dev/zero of=/large bs=1M count=12\n", "RUN busybox dd"),
        ("FROM base\nCOPY large /folder/\n", "cannot copy large"),
        ("FROM scratch\nCOPY large /\n", "cannot copy large"),
    ] {
        is_full(&builder.build(dockerfile), about);
        assert!(disk.free() > 7 * MIB, "{dockerfile}: what was written is given back: {}", disk.free());
        assert!(!builder.hull(&["images"]).out.contains("made"));
        clean(&builder);
    }
    fs::remove_file(filler).unwrap();
    assert_eq!(builder.build("FROM base\nRUN echo 1 > /one\n").code, 0);
    assert_eq!(builder.shell("cat /one").out, "1\n");
    assert!(disk.free() > room - MIB, "{} of {room}", disk.free());
}

#[test]
fn an_image_that_does_not_fit_is_not_listed_and_its_steps_are_kept() {
    let disk = Disk::new(24);
    let builder = disk.builder();
    let filler = disk.fill(9 * MIB);
    // The step fits, its archive beside it does not.
    let text = "FROM base\nRUN busybox dd if=/dev/zero of=/large bs=1M count=6\n";
    is_full(&builder.build(text), "cannot write the layer");
    assert!(!builder.hull(&["images"]).out.contains("made"));
    clean(&builder);
    fs::remove_file(filler).unwrap();
    let again = builder.build(text);
    assert!(again.code == 0 && again.err.contains("CACHED"), "{again:?}");
    assert_eq!(builder.shell("busybox stat -c %s /large").out, format!("{}\n", 6 * MIB));
}

#[test]
fn an_import_that_does_not_fit_leaves_the_store_as_it_was() {
    let disk = Disk::new(24);
    let builder = disk.builder();
    fs::write(builder.corner().rootfs().join("large"), "x".repeat(6 * MIB)).unwrap();
    let large = builder.archive().to_string_lossy().into_owned();
    for left in [3 * MIB, 10 * MIB] {
        let filler = disk.fill(left);
        let before = disk.free();
        is_full(&builder.hull(&["import", &large, "large"]), "cannot");
        assert!(disk.free() + MIB / 4 > before, "what was written is given back");
        assert!(!builder.hull(&["images"]).out.contains("large"));
        clean(&builder);
        fs::remove_file(filler).unwrap();
    }
    assert_eq!(builder.hull(&["import", &large, "large"]).code, 0);
    assert_eq!(builder.hull(&["run", "--rm", "large", "busybox", "stat", "-c", "%s", "/large"]).out, "6291456\n");
}

#[test]
fn a_disk_without_any_space_left_is_told_by_every_command_and_nothing_is_lost() {
    let disk = Disk::new(24);
    let builder = disk.builder();
    assert_eq!(builder.build("FROM base\nRUN echo 1 > /one\n").code, 0);
    let archive = builder.archive().to_string_lossy().into_owned();
    fs::write(builder.corner().rootfs().join("etc/more"), "makes it another layer").unwrap();
    assert_eq!(builder.hull(&["import", &builder.archive().to_string_lossy(), "large"]).code, 0);
    let filler = disk.fill(0);
    // The last blocks, which the file's own metadata left over.
    let rest = disk.mounted.join("rest");
    let filled = fs::write(&rest, vec![0u8; MIB]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    is_full(&builder.build("FROM base\nRUN echo 2 > /two\n"), "cannot");
    is_full(&builder.build("FROM base\nLABEL a=b\n"), "cannot");
    is_full(&builder.hull(&["import", &archive, "never"]), "cannot");
    is_full(&builder.hull(&["run", "--rm", "base", "true"]), "cannot");
    is_full(&builder.hull(&["rmi", "made"]), "cannot");
    assert_eq!(builder.hull(&["images"]).out.lines().count(), 4, "what can be read is read");

    // An image that has a tree of its own makes the room that its removal needs, and room for a build.
    assert_eq!(builder.hull(&["rmi", "large"]).code, 0);
    assert_eq!(builder.build("FROM base\nRUN echo 2 > /two\n").code, 0);
    fs::remove_file(filler).unwrap();
    fs::remove_file(rest).unwrap();
    assert_eq!(builder.shell("cat /two").out, "2\n");
    assert_eq!(builder.hull(&["rmi", "made"]).code, 0);
    assert_eq!(entries(&builder.root().join("containers")), [""; 0]);
    clean(&builder);
}
