//! Rows R1, R12 and R13 of the table of faults at every step that lasts: a command is killed before and after each call by
//! which it changes a file, one after the other, and what comes next finds a store in order.
//!
//! The points are taken from a run of the command itself (`hull_tests::failpoint`), so a step that is added later is one.
//! How often such a kill finds the store half changed is counted, for a test that never met anything would show nothing.
//! With the list of a new store written in place instead of renamed, `a_pull` and `an_import` fail: a kill between the
//! file's creation and its first byte leaves a list that nobody can read.

use std::path::PathBuf;
use std::process::Command;

use hull_tests::failpoint::{self, Moment};
use hull_tests::registry::{Kind, Registry};
use hull_tests::scripted::{Scripted, TinyImage, pull, pull_command};
use hull_tests::tar::Tar;
use hull_tests::{Corner, Said, entries};
use sha2::{Digest as _, Sha256};

const FLAGS: &[&str] = &["--tls-verify=false"];

fn hull(corner: &Corner, arguments: &[&str]) -> Said {
    corner.hull().args(arguments).output().unwrap().into()
}

fn with(corner: &Corner, arguments: &[&str]) -> Command {
    let mut command = corner.hull();
    command.args(arguments);
    command
}

/// Every image that is listed can be read, and every blob is what its name says.
fn assert_listed_is_whole(corner: &Corner, moment: &Moment) {
    let listed = hull(corner, &["images", "-q", "--no-trunc"]);
    assert_eq!((listed.code, &*listed.err), (0, ""), "{moment:?}: {listed:?}");
    for id in listed.out.lines() {
        let said = hull(corner, &["image", "inspect", id]);
        assert_eq!(said.code, 0, "{moment:?}: {said:?}");
    }
    let blobs = corner.root().join("blobs/sha256");
    for name in entries(&blobs) {
        let data = std::fs::read(blobs.join(&name)).unwrap();
        let digest: String = Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, name, "{moment:?}");
    }
}

/// A command, what there is before it, and how the same command may end once more after a kill.
struct Case<'a> {
    prepare: &'a dyn Fn(&Corner),
    command: &'a dyn Fn(&Corner) -> Command,
    /// What it may say instead of doing its work, where the killed one had done it.
    done: Option<&'a str>,
    /// Whether a kill can leave something in the store.
    leaves: bool,
    /// What must be true after it.
    after: &'a dyn Fn(&Corner),
}

impl Case<'_> {
    /// Kills the command everywhere; at least `least` points there must be.
    fn killed_at_every_point(&self, least: usize) {
        let corner = Corner::new();
        (self.prepare)(&corner);
        let whole = failpoint::run(&(self.command)(&corner), corner.path(), None);
        assert_eq!(whole.code, Some(0), "{whole:?}");
        assert!(whole.points.len() >= least, "{:#?}", whole.points);
        (self.after)(&corner);
        let (mut killed, mut half) = (0, 0);
        let moments = whole.moments();
        for moment in &moments {
            let corner = Corner::new();
            (self.prepare)(&corner);
            let traced = failpoint::run(&(self.command)(&corner), corner.path(), Some(moment));
            killed += usize::from(traced.killed);
            assert!(traced.killed || traced.code == Some(0), "{moment:?}: {traced:?}");
            assert_listed_is_whole(&corner, moment);
            half += usize::from(hull(&corner, &["system", "check"]).code == 1);
            let next: Said = (self.command)(&corner).output().unwrap().into();
            let nothing_left = self.done.is_some_and(|words| next.err.contains(words));
            assert!(next.code == 0 || nothing_left, "{moment:?}: {next:?}");
            (self.after)(&corner);
            assert_listed_is_whole(&corner, moment);
            let repaired = hull(&corner, &["system", "check", "--repair"]);
            assert_eq!(repaired.code, 0, "{moment:?}: {repaired:?}");
            let check = hull(&corner, &["system", "check"]);
            assert_eq!((check.code, &*check.out), (0, ""), "{moment:?}: {check:?}");
        }
        // Threads come to a point in another order now and then.
        assert!(killed * 10 >= moments.len() * 9, "{killed} of {} moments were met", moments.len());
        assert_eq!(half > 0, self.leaves, "{half} kills left something half done");
        eprintln!("{} points, {killed} kills, {half} left something for a repair", whole.points.len());
    }
}

/// Two layers: a folder with a file and a link, and one that removes the file.
fn image() -> TinyImage {
    let lower = Tar::default().folder("d").file("d/a", "1").file("d/b", "2").end();
    let upper = Tar::default().folder("d").file("d/.wh.a", "").file("d/c", "3").end();
    TinyImage::stack(&[lower, upper])
}

fn honest() -> Scripted {
    let image = image();
    Scripted::new(move |asked| image.answer(asked))
}

fn nothing(_: &Corner) {}

/// The archive of a root file system, in the corner.
fn plain_archive(corner: &Corner) -> PathBuf {
    let path = corner.path().join("plain.tar");
    std::fs::write(&path, Tar::default().folder("d").file("d/a", "1").end()).unwrap();
    path
}

fn import(corner: &Corner, name: &str) {
    let said = hull(corner, &["import", &plain_archive(corner).to_string_lossy(), name]);
    assert_eq!(said.code, 0, "{said:?}");
}

fn is_listed(corner: &Corner, name: &str) -> bool {
    hull(corner, &["image", "inspect", name]).code == 0
}

#[test]
fn a_pull() {
    let registry = honest();
    Case {
        prepare: &nothing,
        command: &|corner| pull_command(corner, &registry, FLAGS, "a/b:1"),
        done: None,
        leaves: true,
        after: &|corner| assert!(is_listed(corner, &format!("{}/a/b:1", registry.address()))),
    }
    .killed_at_every_point(15);
}

#[test]
fn an_import() {
    Case {
        prepare: &|corner| drop(plain_archive(corner)),
        command: &|corner| with(corner, &["import", &plain_archive(corner).to_string_lossy(), "made"]),
        done: None,
        leaves: true,
        after: &|corner| assert!(is_listed(corner, "made")),
    }
    .killed_at_every_point(12);
}

/// A build: steps that are commands and copies, the cache's records, and the commit of the image.
#[test]
fn a_build() {
    let prepare = |corner: &Corner| {
        let context = corner.path().join("context");
        std::fs::create_dir(&context).unwrap();
        std::fs::write(context.join("file"), "x").unwrap();
        let steps = "FROM base AS one\nCOPY file /w/file\nRUN echo 1 > /one\nFROM base\nCOPY --from=one /one /w/\n";
        std::fs::write(context.join("Dockerfile"), steps).unwrap();
        let base = corner.path().join("base.tar");
        let mut tar = Command::new("tar");
        assert!(tar.arg("-C").arg(corner.rootfs()).arg("-cf").arg(&base).arg(".").status().unwrap().success());
        assert_eq!(hull(corner, &["import", &base.to_string_lossy(), "base"]).code, 0);
    };
    Case {
        prepare: &prepare,
        command: &|corner| {
            with(corner, &["build", "-q", "-t", "made", &corner.path().join("context").to_string_lossy()])
        },
        done: None,
        leaves: true,
        after: &|corner| assert!(is_listed(corner, "made")),
    }
    .killed_at_every_point(20);
}

#[test]
fn a_save_and_a_load() {
    let archive = |corner: &Corner| corner.path().join("saved.tar").to_string_lossy().into_owned();
    Case {
        prepare: &|corner| import(corner, "made"),
        command: &|corner| with(corner, &["save", "-o", &archive(corner), "made"]),
        done: None,
        leaves: false,
        after: &|corner| assert!(std::fs::metadata(archive(corner)).unwrap().len() > 0),
    }
    .killed_at_every_point(3);
    Case {
        prepare: &|corner| {
            import(corner, "made");
            assert_eq!(hull(corner, &["save", "-o", &archive(corner), "made"]).code, 0);
            assert_eq!(hull(corner, &["rmi", "made"]).code, 0);
        },
        command: &|corner| with(corner, &["load", "-i", &archive(corner)]),
        done: None,
        leaves: true,
        after: &|corner| assert!(is_listed(corner, "made")),
    }
    .killed_at_every_point(12);
}

#[test]
fn a_tag_and_a_removal() {
    Case {
        prepare: &|corner| import(corner, "made"),
        command: &|corner| with(corner, &["tag", "made", "other"]),
        done: None,
        leaves: true,
        after: &|corner| assert!(is_listed(corner, "other")),
    }
    .killed_at_every_point(4);
    Case {
        prepare: &|corner| import(corner, "made"),
        command: &|corner| with(corner, &["rmi", "made"]),
        done: Some("it is not in the store"),
        leaves: true,
        after: &|corner| assert!(!is_listed(corner, "made")),
    }
    .killed_at_every_point(8);
}

#[test]
fn a_prune() {
    let registry = honest();
    Case {
        prepare: &|corner| {
            assert_eq!(pull(corner, &registry, FLAGS, "a/b:1").code, 0);
            import(corner, "made");
        },
        command: &|corner| with(corner, &["image", "prune", "-a", "-f"]),
        done: None,
        leaves: true,
        after: &|corner| assert_eq!(hull(corner, &["images", "-q"]).out, ""),
    }
    .killed_at_every_point(8);
}

/// What a push writes down of the layers that it packs.
#[test]
fn a_push() {
    let home = Corner::new();
    let registry = Registry::start(&home.path().join("registry"), Kind::Plain);
    // A repository of each corner's own, so that no blob is there before.
    let name = |corner: &Corner| {
        let own = corner.path().file_name().unwrap().to_string_lossy().to_lowercase();
        format!("{}/{}:1", registry.address(), own.replace("--", "-"))
    };
    Case {
        prepare: &|corner| import(corner, &name(corner)),
        command: &|corner| {
            let mut command = with(corner, &["push", "--tls-verify=false", &name(corner)]);
            command.env("HOME", corner.path()).env("CONTAINERS_REGISTRIES_CONF", "/dev/null");
            command
        },
        done: None,
        leaves: true,
        after: &|corner| assert!(is_listed(corner, &name(corner))),
    }
    .killed_at_every_point(4);
}
