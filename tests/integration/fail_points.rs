//! Rows R1, R2, R3, R7 and R12 of the table of faults: every step by which a command changes what lasts on disk is a fail point.
//!
//! The points are the system calls themselves, in the very program that is shipped: `strace --inject` kills hull at the Nth of
//! each, or lets that one fail as on a full disk, for each N until the command gets through. None can be forgotten, and a new
//! step is a new point. A kill is done where the call begins: what it would have done has not happened.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_tests::scripted::{Scripted, TinyImage, pull_command};
use hull_tests::tar::Tar;
use hull_tests::{Corner, Said, hull_bin};

/// The calls by which names and bytes come to last, or go.
const DURABLE: &str = "fdatasync,fsync,syncfs,rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,\
                       mkdir,mkdirat,ftruncate";

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Full,
}

/// One command in a corner of its own, begun again and again from the same state.
struct Scene {
    corner: Corner,
    /// What the store was before the command.
    before: PathBuf,
    command: Vec<String>,
    /// More of its environment.
    variables: Vec<(OsString, OsString)>,
    /// How it ends if it is done once more after it was done.
    again: i32,
}

impl Scene {
    /// `prepare` brings the store to where `command` begins.
    fn new(prepare: &[&[&str]], command: &[&str], again: i32) -> Self {
        let corner = Corner::new();
        fs::write(corner.path().join("a.tar"), archive("a")).unwrap();
        fs::write(corner.path().join("b.tar"), archive("b")).unwrap();
        fs::create_dir(corner.path().join("context")).unwrap();
        fs::write(corner.path().join("context/Dockerfile"), "FROM a\nCOPY Dockerfile /one\nLABEL x=y\n").unwrap();
        let place = |word: &&str| word.replace("@", &format!("{}/", corner.path().display()));
        for words in prepare {
            let words: Vec<String> = words.iter().map(place).collect();
            let said: Said = corner.hull().args(&words).output().unwrap().into();
            assert_eq!(said.code, 0, "{words:?}: {said:?}");
        }
        let command = command.iter().map(place).collect();
        let before = corner.path().join("before");
        if corner.root().exists() {
            copy(&corner.root(), &before);
        }
        Self { corner, before, command, variables: Vec::new(), again }
    }

    fn restore(&self) {
        let root = self.corner.root();
        if root.exists() {
            fs::remove_dir_all(&root).unwrap();
        }
        if self.before.exists() {
            copy(&self.before, &root);
        }
    }

    fn hull(&self, arguments: &[&str]) -> Said {
        self.corner.hull().args(arguments).output().unwrap().into()
    }

    fn plain(&self) -> Said {
        self.corner.hull().envs(self.variables.iter().cloned()).args(&self.command).output().unwrap().into()
    }

    /// The command under strace with more of its flags. What it saw, as well.
    fn traced(&self, flags: &[String]) -> (Said, String) {
        let seen = self.corner.path().join("seen");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y", "-o"]).arg(&seen).args(["-e", &format!("trace={DURABLE}")]).args(flags);
        strace.arg(hull_bin()).envs(self.corner.env()).envs(self.variables.iter().cloned()).args(&self.command);
        let said: Said = strace.output().unwrap().into();
        (said, fs::read_to_string(&seen).unwrap())
    }

    /// Every point: a call, and how often it was made by then by the thread that makes it most.
    fn points(&self) -> Vec<(String, usize)> {
        self.restore();
        let (said, seen) = self.traced(&[]);
        assert_eq!(said.code, 0, "{:?}: {said:?}", self.command);
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for line in seen.lines().filter(|line| line.contains('(') && !line.contains("resumed>")) {
            let (thread, rest) = line.split_once(' ').unwrap();
            let call = rest.trim_start().split('(').next().unwrap();
            *counts.entry((call, thread)).or_default() += 1;
        }
        let mut most: BTreeMap<&str, usize> = BTreeMap::new();
        for ((call, _), count) in counts {
            let most = most.entry(call).or_default();
            *most = count.max(*most);
        }
        let points = most.into_iter().flat_map(|(call, count)| (1..=count).map(move |nth| (call.to_owned(), nth)));
        points.collect()
    }

    /// Fails at each point in turn. Gives the calls at which it did, with what they were about.
    fn fail_everywhere(&self, fault: Fault) -> BTreeSet<String> {
        let points = self.points();
        assert!(points.len() > 3, "{:?}: {points:?}", self.command);
        let mut reached = BTreeSet::new();
        for (number, (name, nth)) in points.iter().enumerate() {
            self.restore();
            let how = match fault {
                Fault::Kill => "signal=SIGKILL",
                Fault::Full => "error=ENOSPC",
            };
            let (said, seen) = self.traced(&["-e".to_owned(), format!("inject={name}:{how}:when={nth}")]);
            let what = format!("{:?} with {fault:?} at {name} {nth}: {said:?}", self.command);
            assert!(!said.err.contains("panicked"), "{what}");
            if fault == Fault::Full {
                assert!(said.code == 0 || said.err.contains("No space left on device"), "{what}");
            }
            reached.extend(seen.lines().filter(|line| ended_here(line, fault)).map(call));
            self.goes_on(&what, number % 2 == 0);
        }
        reached
    }

    /// What is there is whole, the next command works, and one repair clears all that is left; in either order.
    fn goes_on(&self, what: &str, repair_first: bool) {
        let images = self.hull(&["images"]);
        assert_eq!(images.code, 0, "{what}: {images:?}");
        let found = ours(&self.hull(&["system", "check"]));
        for line in &found {
            let left =
                ["staging folder", "interrupted download", "blob that no", "layer that nothing", "link to a layer"];
            assert!(left.iter().any(|words| line.starts_with(words)), "{what}: damaged: {line}");
        }
        if repair_first {
            self.repaired(what);
        }
        let next = self.plain();
        assert!(next.code == 0 || next.code == self.again, "{what}: the next one: {next:?}");
        self.repaired(what);
        let images = self.hull(&["images"]);
        assert_eq!(images.code, 0, "{what}: {images:?}");
    }

    fn repaired(&self, what: &str) {
        let repaired = self.hull(&["system", "check", "--repair"]);
        assert_eq!(repaired.code, 0, "{what}: {repaired:?}");
        let left = ours(&self.hull(&["system", "check"]));
        assert!(left.is_empty(), "{what}: a repair left {left:?}");
    }
}

/// What a check says of this store; groups of other tests that were killed are on the same machine.
fn ours(said: &Said) -> Vec<String> {
    assert!(said.code <= 1, "{said:?}");
    said.out.lines().filter(|line| !line.contains("control group")).map(str::to_owned).collect()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// A tiny root file system.
fn archive(name: &str) -> Vec<u8> {
    Tar::default().folder("d").file("d/file", name).symlink("link", "d/file").end()
}

fn ended_here(line: &str, fault: Fault) -> bool {
    match fault {
        Fault::Kill => line.trim_end().ends_with("= ?") || line.contains("<unfinished"),
        Fault::Full => line.contains("(INJECTED)"),
    }
}

/// The call and what of the store it was about, without what differs from time to time.
fn call(line: &str) -> String {
    let rest = line.split_once(' ').map_or(line, |(_, rest)| rest.trim_start().trim_start_matches("<... "));
    let name = rest.split(['(', ' ']).next().unwrap_or_default();
    let about = ["index.json", "blobs/sha256", "/layers", "/downloads", "/staging", "/build/cache", "oci-layout"];
    let about = about.iter().find(|about| rest.contains(*about)).unwrap_or(&"");
    format!("{name} {about}")
}

/// Kills and failures everywhere, of which these were some.
fn everywhere(scene: &Scene, among: &[&str]) {
    for fault in [Fault::Kill, Fault::Full] {
        let reached = scene.fail_everywhere(fault);
        eprintln!("{fault:?}: {reached:?}");
        for call in among {
            assert!(
                reached.iter().any(|reached| reached.starts_with(call)),
                "{fault:?}: {call} is none of {reached:?}"
            );
        }
    }
}

/// The order that makes it so is held by `what_the_index_lists_has_reached_the_disk_before`; here each state in between is
/// looked at. Mutant, seen to fail: with the index replaced before the blobs have their names a kill in between leaves
/// an image that cannot be read.
#[test]
fn an_import_fails_at_every_point() {
    let scene = Scene::new(&[&["import", "@a.tar", "a"]], &["import", "@b.tar", "b"], 0);
    everywhere(
        &scene,
        &["mkdir", "fdatasync", "renameat", "fsync blobs/sha256", "renameat index.json", "renameat2 /"],
    );
}

#[test]
fn the_first_import_of_a_store_fails_at_every_point() {
    everywhere(&Scene::new(&[], &["import", "@b.tar", "b"], 0), &["mkdir", "renameat index.json"]);
}

#[test]
fn a_load_fails_at_every_point() {
    let prepare: &[&[&str]] = &[
        &["import", "@a.tar", "a"],
        &["import", "@b.tar", "b"],
        &["save", "-o", "@both.tar", "a", "b"],
        &["rmi", "a"],
        &["rmi", "b"],
    ];
    everywhere(&Scene::new(prepare, &["load", "-i", "@both.tar"], 0), &["fdatasync", "renameat index.json"]);
}

#[test]
fn a_tag_fails_at_every_point() {
    everywhere(&Scene::new(&[&["import", "@a.tar", "a"]], &["tag", "a", "other"], 0), &["renameat index.json"]);
}

#[test]
fn a_build_and_its_commit_fail_at_every_point() {
    let scene = Scene::new(&[&["import", "@a.tar", "a"]], &["build", "-q", "-t", "made", "@context"], 0);
    everywhere(&scene, &["fdatasync", "symlinkat /layers", "renameat index.json"]);
}

#[test]
fn a_removal_fails_at_every_point() {
    let prepare: &[&[&str]] = &[&["import", "@a.tar", "a"], &["build", "-q", "-t", "made", "@context"]];
    everywhere(&Scene::new(prepare, &["rmi", "a"], 1), &["renameat index.json", "unlinkat"]);
}

#[test]
fn a_prune_fails_at_every_point() {
    let prepare: &[&[&str]] = &[&["import", "@a.tar", "a"], &["import", "@b.tar", "b"]];
    everywhere(&Scene::new(prepare, &["image", "prune", "-a", "-f"], 0), &["renameat index.json", "unlinkat"]);
}

#[test]
fn a_collection_fails_at_every_point() {
    let prepare: &[&[&str]] = &[&["import", "@a.tar", "a"], &["build", "-q", "-t", "made", "@context"]];
    everywhere(&Scene::new(prepare, &["gc", "--keep-size", "1b"], 0), &["renameat index.json", "unlinkat"]);
}

#[test]
fn a_repair_fails_at_every_point() {
    let scene =
        Scene::new(&[&["import", "@a.tar", "a"], &["import", "@b.tar", "b"]], &["system", "check", "--repair"], 0);
    // As if the name of `b` had been lost: all of it is left over.
    let index = fs::read_to_string(scene.before.join("index.json")).unwrap();
    let mut index: serde_json::Value = serde_json::from_str(&index).unwrap();
    index["manifests"].as_array_mut().unwrap().truncate(1);
    fs::write(scene.before.join("index.json"), index.to_string()).unwrap();
    fs::create_dir_all(scene.before.join("staging/dead/diff")).unwrap();
    let points = scene.points();
    for (name, nth) in &points {
        scene.restore();
        let (said, _) = scene.traced(&["-e".to_owned(), format!("inject={name}:signal=SIGKILL:when={nth}")]);
        scene.repaired(&format!("{name} {nth}: {said:?}"));
        assert_eq!(scene.hull(&["images", "-q"]).out.lines().count(), 1, "what is whole stays");
    }
    assert!(points.len() > 5, "{points:?}");
}

#[test]
fn a_pull_fails_at_every_point() {
    let image = TinyImage::stack(&[archive("a"), archive("b"), archive("c")]);
    let registry = Scripted::new(move |asked| image.answer(asked));
    let mut scene = Scene::new(&[&["import", "@a.tar", "a"]], &[], 0);
    let command = pull_command(&scene.corner, &registry, &["--tls-verify=false"], "a/b:1");
    scene.variables =
        command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    scene.command = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    everywhere(
        &scene,
        &["fdatasync /downloads", "renameat blobs/sha256", "renameat index.json", "renameat2 /layers"],
    );
}
