//! Rows R1, R2, R7, R12 and R13 of the table of faults, for images on their way in; R23 is in `registry_faults`.
//!
//! After each: what is listed is whole, `system check` with `--repair` finds nothing more, and the next pull works.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hull_tests::scripted::{Asked, Scripted, TinyImage, noise, pull, pull_command};
use hull_tests::tar::Tar;
use hull_tests::{Corner, Said, entries, hull_bin};

const FLAGS: &[&str] = &["--tls-verify=false"];

/// Three layers of a file each, whose content does not compress.
fn image() -> TinyImage {
    let layer = |seed: u64| {
        let data = noise(seed, 1 << 20);
        let header = Tar::header(tar::EntryType::Regular, &format!("file{seed}"), "", data.len() as u64);
        Tar::default().folder("d").raw(&header, &data).end()
    };
    TinyImage::stack(&[layer(1), layer(2), layer(3)])
}

fn hull(corner: &Corner, arguments: &[&str]) -> Said {
    corner.hull().args(arguments).output().unwrap().into()
}

/// What becomes of a file.
type Damage = fn(&[u8]) -> Vec<u8>;

/// Nothing is left over, and every blob is what its name says.
fn assert_whole(corner: &Corner) {
    let check = hull(corner, &["system", "check"]);
    assert_eq!((check.code, &*check.out), (0, ""), "{check:?}");
    let blobs = corner.root().join("blobs/sha256");
    for name in entries(&blobs) {
        let output = Command::new("sha256sum").arg(blobs.join(&name)).output().unwrap();
        assert!(String::from_utf8(output.stdout).unwrap().starts_with(&name), "{name}");
    }
}

/// R1: whatever moment it is killed at, nothing half is visible, the next pull asks only for the rest, and works.
#[test]
fn r1_a_pull_that_is_killed_at_any_moment_shows_nothing_half_and_is_continued() {
    let corner = Corner::new();
    let image = image();
    let log = image.clone();
    let registry = Scripted::new(move |asked| image.answer(asked));
    let start = Instant::now();
    assert_eq!(pull(&corner, &registry, FLAGS, "a/b:0").code, 0);
    let whole = start.elapsed();
    let (mut left, mut continued) = (0, 0);
    for moment in 0..12u32 {
        // Nothing of it is there.
        for name in hull(&corner, &["images", "-q"]).out.lines() {
            assert_eq!(hull(&corner, &["rmi", "-f", name]).code, 0);
        }
        let mut command = pull_command(&corner, &registry, FLAGS, "a/b:1");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * moment / 12);
        child.kill().unwrap();
        child.wait().unwrap();
        let listed = hull(&corner, &["images"]);
        assert_eq!(listed.code, 0, "after {:?}: {listed:?}", whole * moment / 12);
        left += usize::from(!entries(&corner.root().join("downloads")).is_empty());
        let before = registry.asked().len();
        let next = pull(&corner, &registry, FLAGS, "a/b:1");
        assert_eq!(next.code, 0, "after {:?}: {next:?}", whole * moment / 12);
        let asked = registry.asked().split_off(before);
        continued += asked.iter().filter(|asked| log.is_layer(asked) && asked.range().is_some()).count();
        assert!(entries(&corner.root().join("staging")).is_empty());
        assert_whole(&corner);
    }
    assert!(left > 0, "only {left} kills left a part of a layer");
    eprintln!("{left} kills left parts, {continued} layers were continued");
}

/// R2: what the index lists is on the disk before: blobs are synced and then named, their folder is synced, the index is
/// synced and then named, and its folder is synced. A power cut in between leaves what was listed before.
#[test]
fn r2_what_a_pull_lists_has_reached_the_disk_before() {
    let corner = Corner::new();
    let image = image();
    let registry = Scripted::new(move |asked| image.answer(asked));
    let command = pull_command(&corner, &registry, FLAGS, "a/b:1");
    let seen = corner.path().join("seen");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-y", "-e", "trace=fdatasync,fsync,syncfs,renameat,renameat2", "-o"])
        .arg(&seen)
        .arg(hull_bin());
    for (name, value) in command.get_envs() {
        value.map(|value| strace.env(name, value));
    }
    let said: Said = strace.args(command.get_args()).output().unwrap().into();
    assert_eq!(said.code, 0, "{said:?}");
    let seen = fs::read_to_string(&seen).unwrap();
    let lines: Vec<&str> = seen.lines().filter(|line| !line.contains("resumed")).collect();
    // The last time: a new store has an empty index before.
    let at = |words: &[&str]| lines.iter().rposition(|line| words.iter().all(|word| line.contains(word)));
    let listed = at(&["renameat", "\"index.json\""]).expect("the index is replaced");
    let named: Vec<usize> = (0..lines.len()).filter(|n| lines[*n].contains("\"blobs/sha256/")).collect();
    assert_eq!(named.len(), 5, "three layers, a configuration and a manifest: {seen}");
    let synced = (0..lines.len()).filter(|n| lines[*n].contains("fdatasync") && *n < named[0]).count();
    assert!(synced >= 5, "every blob before the first is named: {seen}");
    let folder = at(&["fsync", "/blobs/sha256>"]).expect("their folder is synced");
    let index = at(&["fdatasync", "/index.json>"]).expect("the index is synced");
    let root = at(&["fsync", &format!("{}>", corner.root().display())]).expect("the store's folder is synced");
    assert!(named.iter().all(|n| *n < folder) && folder < listed && index < listed && listed < root, "{seen}");
}

/// R2: trees are not synced. After a crash of the machine none of them is trusted: they are made again from blobs, whose
/// digests are looked at.
#[test]
fn r2_a_tree_that_a_power_cut_may_have_torn_is_made_again() {
    let corner = Corner::new();
    let image = image();
    let registry = Scripted::new(move |asked| image.answer(asked));
    assert_eq!(pull(&corner, &registry, FLAGS, "a/b:1").code, 0);
    let layers = corner.root().join("layers");
    for id in entries(&layers) {
        let meta = layers.join(&id).join("layer.json");
        let mut told: serde_json::Value = serde_json::from_slice(&fs::read(&meta).unwrap()).unwrap();
        told["boot"] = "another one".into();
        fs::write(&meta, told.to_string()).unwrap();
        for name in ["file1", "file2", "file3"].map(|name| layers.join(&id).join("diff").join(name)) {
            if name.exists() {
                fs::write(name, "torn").unwrap();
            }
        }
    }
    let name = format!("{}/a/b:1", registry.address());
    // There is no program in it, so it cannot start; its root is assembled before that is found out.
    let said = hull(&corner, &["run", "--rm", &name, "/x"]);
    assert!(said.code == 127 || said.code == 125, "{said:?}");
    for id in entries(&layers) {
        let found = (1..4).map(|n| layers.join(&id).join(format!("diff/file{n}"))).find(|path| path.exists());
        assert_eq!(fs::metadata(found.expect("a file")).unwrap().len(), 1 << 20, "{id}");
    }
    assert_whole(&corner);
}

/// R12: a file of the store that is empty, cut short, full of zeros or of another version is told, costs one image at most,
/// and is mended by the next pull.
#[test]
fn r12_a_damaged_file_costs_one_image_and_the_next_pull_mends_it() {
    let damages: [Damage; 4] = [
        |_| Vec::new(),
        |data| data[..data.len() / 2].to_vec(),
        |data| vec![0; data.len()],
        |data| {
            let mut data = data.to_vec();
            let middle = data.len() / 2;
            data[middle] ^= 1;
            data
        },
    ];
    let (other, own) = (TinyImage::new(100), image());
    for damage in damages {
        let corner = Corner::new();
        let (first, second) = (other.clone(), own.clone());
        let registry = Scripted::new(move |asked: &Asked| match asked.target.contains("/other/") {
            true => first.answer(asked),
            false => second.answer(asked),
        });
        assert_eq!(pull(&corner, &registry, FLAGS, "other/x:1").code, 0);
        let before = entries(&corner.root().join("blobs/sha256"));
        assert_eq!(pull(&corner, &registry, FLAGS, "a/b:1").code, 0);
        let after = entries(&corner.root().join("blobs/sha256"));
        for blob in after.iter().filter(|blob| !before.contains(blob)) {
            let path = corner.root().join("blobs/sha256").join(blob);
            let data = fs::read(&path).unwrap();
            fs::write(&path, damage(&data)).unwrap();
            let listed = hull(&corner, &["images"]);
            assert!(listed.out.contains("/other/x") && !listed.err.contains("panicked"), "{listed:?}");
            let next = pull(&corner, &registry, FLAGS, "a/b:1");
            let repaired = fs::read(&path).unwrap() == data;
            // A layer of the same length is only looked at again when somebody needs its bytes.
            let unseen = fs::metadata(&path).unwrap().len() == data.len() as u64 && data.len() > 1 << 16;
            assert!(next.code == 0 && (repaired || unseen), "{next:?}");
            fs::write(&path, &data).unwrap();
        }
        for (name, words) in [("index.json", "index.json"), ("oci-layout", "")] {
            let path = corner.root().join(name);
            let data = fs::read(&path).unwrap();
            fs::write(&path, damage(&data)).unwrap();
            let listed = hull(&corner, &["images"]);
            assert!(listed.err.contains(words) && !listed.err.contains("panicked"), "{name}: {listed:?}");
            fs::write(&path, &data).unwrap();
        }
        assert_whole(&corner);
    }
}

/// R13: one image pulled by many at once is downloaded once, also beside removals and collections.
#[test]
fn r13_many_pulls_of_one_image_share_the_work() {
    let corner = Corner::new();
    let image = image();
    let log = image.clone();
    let registry = Scripted::new(move |asked| {
        if image.is_layer(asked) {
            // Long enough for all of them to have come.
            std::thread::sleep(Duration::from_millis(500));
        }
        image.answer(asked)
    });
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let said = pull(&corner, &registry, FLAGS, "a/b:1");
                assert_eq!(said.code, 0, "{said:?}");
            });
        }
    });
    let asked = registry.asked();
    let layers = asked.iter().filter(|asked| log.is_layer(asked)).count();
    assert_eq!(layers, 3, "each layer once: {asked:?}");
    assert_whole(&corner);
}

/// R13: whoever removes and collects beside pulls, what is listed is whole, and nobody waits for ever.
#[test]
fn r13_pulls_beside_removals_and_repairs_end_and_leave_a_whole_store() {
    let corner = Corner::new();
    let image = image();
    let registry = Scripted::new(move |asked| image.answer(asked));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (corner, registry) = (&corner, &registry);
            scope.spawn(move || {
                for round in 0..6 {
                    let said = pull(corner, registry, FLAGS, &format!("a/b:{number}-{round}"));
                    assert_eq!(said.code, 0, "{said:?}");
                    let name = format!("{}/a/b:{number}-{round}", registry.address());
                    let said = hull(corner, &["rmi", &name]);
                    assert_eq!(said.code, 0, "{said:?}");
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..20 {
                let said = hull(&corner, &["system", "check", "--repair"]);
                assert!(said.code <= 1 && !said.err.contains("panicked"), "{said:?}");
            }
        });
    });
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
    assert_eq!(pull(&corner, &registry, FLAGS, "a/b:1").code, 0);
    assert_whole(&corner);
}

/// R7: a disk that is full is told with the file that did not fit, and what was written is given back.
#[test]
fn r7_a_pull_that_fills_the_disk_is_undone_and_what_is_there_still_works() {
    let corner = Corner::new();
    let disk = corner.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=5m", "hull-test"]).arg(&disk).status().unwrap();
    assert!(mounted.success());
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| on_a_full_disk(&corner, &disk)));
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    result.unwrap();
}

fn on_a_full_disk(corner: &Corner, disk: &Path) {
    let (small, large) = (TinyImage::new(1000), image());
    let registry = Scripted::new(move |asked: &Asked| match asked.target.contains("/small/") {
        true => small.answer(asked),
        false => large.answer(asked),
    });
    let store = disk.join("store");
    let run = |mut command: Command| -> Said { command.env("HULL_ROOT", &store).output().unwrap().into() };
    let with = |arguments: &[&str]| {
        let mut command = corner.hull();
        command.args(arguments);
        run(command)
    };
    assert_eq!(run(pull_command(corner, &registry, FLAGS, "small/x:1")).code, 0);
    let free = || rustix::fs::statvfs(disk).unwrap().f_bavail;
    let before = free();
    let said = run(pull_command(corner, &registry, FLAGS, "a/b:1"));
    assert!(said.code == 1 && said.err.contains("No space left on device"), "{said:?}");
    assert!(free() + 16 > before, "{} of {before} blocks are free", free());
    assert!(with(&["images"]).out.contains("/small/x"));
    assert_eq!(with(&["system", "check"]).code, 0);
    // Not one byte is left now, and what takes away still can.
    let rest = fs::write(disk.join("rest"), vec![0u8; 8 << 20]).unwrap_err();
    assert_eq!(rest.kind(), std::io::ErrorKind::StorageFull);
    assert!(with(&["images"]).out.contains("/small/x"));
    assert_eq!(with(&["rmi", &format!("{}/small/x:1", registry.address())]).code, 0);
    fs::remove_file(disk.join("rest")).unwrap();
    assert_eq!(with(&["system", "check"]).code, 0);
}
