//! `hull system check`: what is damaged is found and told with the names that it costs, and a repair takes exactly that away.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use hull_tests::{Builder, Said, entries, eventually};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn ok(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

/// Two images of two layers with the same base, which is an image too; `made` has a second name.
fn store() -> Builder {
    let store = Builder::new();
    ok(store.build_with(&["-t", "other"], "FROM base\nRUN echo 2 > /two\n"));
    ok(store.build("FROM base\nRUN echo 1 > /one && mkdir /d && echo 3 > /d/three\n"));
    ok(store.hull(&["tag", "made", "again"]));
    assert_eq!(check(&store, &[]).out, "", "a whole store has nothing to tell");
    store
}

/// What a check says. Groups of other tests that were killed are on the same machine, and none of this store's business.
fn check(store: &Builder, flags: &[&str]) -> Said {
    let mut said = store.hull(&[&["system", "check"], flags].concat());
    let (others, ours): (Vec<&str>, Vec<&str>) =
        said.out.lines().partition(|line| line.contains("control group without a container"));
    if !others.is_empty() && ours.is_empty() {
        said.code = 0;
    }
    said.out = ours.iter().map(|line| format!("{line}\n")).collect();
    said
}

fn document(store: &Builder, digest: &str) -> Value {
    serde_json::from_slice(&fs::read(blob(store, digest)).unwrap()).unwrap()
}

fn blob(store: &Builder, digest: &str) -> PathBuf {
    store.root().join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
}

/// The digests of the manifest, the configuration and the last layer of an image.
fn parts(store: &Builder, name: &str) -> [String; 3] {
    let index: Value = serde_json::from_slice(&fs::read(store.root().join("index.json")).unwrap()).unwrap();
    let named = |entry: &&Value| {
        entry["annotations"]["org.opencontainers.image.ref.name"] == format!("docker.io/library/{name}:latest")
    };
    let manifest = index["manifests"].as_array().unwrap().iter().find(named).unwrap()["digest"].as_str().unwrap();
    let document = document(store, manifest);
    let digest = |value: &Value| value["digest"].as_str().unwrap().to_owned();
    let layer = digest(document["layers"].as_array().unwrap().last().unwrap());
    [manifest.to_owned(), digest(&document["config"]), layer]
}

fn names(store: &Builder) -> Vec<String> {
    let list = store.hull(&["images", "--format", "{{.Repository}}"]).out;
    let mut names: Vec<String> = list.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// The other image and the base are as they were, and nothing is left to be told.
fn rest_is_whole(store: &Builder, what: &str) {
    let again = check(store, &[]);
    assert_eq!((again.code, &*again.out), (0, ""), "{what}: one repair is enough: {again:?}");
    assert_eq!(store.hull(&["run", "--rm", "other", "cat", "/two"]).out, "2\n", "{what}");
}

/// Without the second look at a blob's digest the flipped byte of a layer is not found; without the images among the findings
/// the names are not told.
#[test]
fn a_damaged_blob_costs_the_images_that_need_it_and_they_are_named() {
    type Damage = fn(&PathBuf);
    let damages: [(&str, Damage); 3] = [
        ("a flipped byte", |path| {
            let mut data = fs::read(path).unwrap();
            let middle = data.len() / 2;
            data[middle] ^= 1;
            fs::write(path, data).unwrap();
        }),
        ("cut short", |path| {
            let data = fs::read(path).unwrap();
            fs::write(path, &data[..data.len() / 2]).unwrap();
        }),
        ("missing", |path| fs::remove_file(path).unwrap()),
    ];
    for part in 0..3 {
        for (how, damage) in damages {
            let what = format!("{how}, part {part}");
            let store = store();
            let digest = parts(&store, "made")[part].clone();
            let before = entries(&store.root().join("blobs/sha256")).len();
            damage(&blob(&store, &digest));
            let found = check(&store, &[]);
            assert_eq!(found.code, 1, "{what}: {found:?}");
            for words in
                ["image that cannot be used: made:latest", "image that cannot be used: again:latest", &*digest]
            {
                assert!(found.out.contains(words), "{what}: {words}: {}", found.out);
            }
            assert!(!found.out.contains("other:") && !found.out.contains("base:"), "{what}: {}", found.out);
            assert_eq!(found.out.contains("damaged blob"), how != "missing", "{what}: {}", found.out);
            assert_eq!(entries(&store.root().join("layers")).len(), 5, "a look changes nothing");

            let repaired = check(&store, &["--repair"]);
            assert_eq!(repaired.code, 0, "{what}: {repaired:?}");
            assert!(repaired.out.lines().all(|line| line.ends_with(" (removed)")), "{what}: {}", repaired.out);
            assert_eq!(names(&store), ["base", "other"], "{what}");
            assert_eq!(entries(&store.root().join("blobs/sha256")).len(), before - 3, "{what}");
            rest_is_whole(&store, &what);
            ok(store.build("FROM base\nRUN echo 1 > /one\n"));
        }
    }
}

#[test]
fn a_quick_check_looks_at_names_and_sizes_alone() {
    let store = store();
    let path = blob(&store, &parts(&store, "made")[2]);
    let data = fs::read(&path).unwrap();
    let mut flipped = data.clone();
    flipped[data.len() / 2] ^= 1;
    fs::write(&path, &flipped).unwrap();
    assert_eq!(check(&store, &["--quick"]).code, 0);
    assert_eq!(check(&store, &[]).code, 1);
    fs::write(&path, &data[1..]).unwrap();
    let found = check(&store, &["-q"]);
    assert!(found.code == 1 && found.out.contains("made:latest"), "{found:?}");
    fs::write(&path, &data).unwrap();
    assert_eq!(check(&store, &[]).code, 0);
}

/// Each is told by the path in it, and made again from the blob at its next use.
#[test]
fn a_tree_that_is_not_what_its_blob_says_is_made_again() {
    type Damage<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let store = store();
    let tree = || {
        let trees = entries(&store.root().join("layers"));
        let trees = trees.into_iter().map(|id| store.root().join("layers").join(id).join("diff"));
        trees.into_iter().find(|tree| tree.join("one").exists()).expect("the layer")
    };
    let xattr = |path: PathBuf| {
        let set = rustix::fs::setxattr(&path, "user.x", b"y", rustix::fs::XattrFlags::empty());
        set.expect("an attribute");
    };
    let damages: [Damage<'_>; 7] = [
        ("/one", Box::new(|| fs::write(tree().join("one"), "2\n").unwrap())),
        ("/one", Box::new(|| fs::remove_file(tree().join("one")).unwrap())),
        ("/stray", Box::new(|| fs::write(tree().join("stray"), "").unwrap())),
        ("/d/three", Box::new(|| fs::remove_file(tree().join("d/three")).unwrap())),
        ("/d/three", Box::new(|| xattr(tree().join("d/three")))),
        ("/d", Box::new(|| std::os::unix::fs::chown(tree().join("d"), Some(7), None).unwrap())),
        ("tree is missing", Box::new(|| fs::rename(tree(), tree().with_file_name("gone")).unwrap())),
    ];
    for (words, damage) in damages {
        damage();
        assert_eq!(check(&store, &["--quick"]).code, i32::from(words.contains("missing")), "{words}");
        let found = check(&store, &[]);
        assert!(found.code == 1 && found.out.lines().count() == 1, "{words}: {found:?}");
        assert!(found.out.starts_with("damaged layer: ") && found.out.contains(words), "{words}: {}", found.out);
        ok(check(&store, &["--repair"]));
        assert_eq!(store.shell("cat /one /d/three; ls / | grep -c stray").out, "1\n3\n0\n", "{words}");
        assert_eq!(names(&store), ["again", "base", "made", "other"], "{words}");
        rest_is_whole(&store, words);
    }
}

#[test]
fn a_tree_that_a_container_stands_on_stays_until_that_is_removed() {
    let store = store();
    ok(store.hull(&["run", "--name", "box", "made", "true"]));
    let layers = store.root().join("layers");
    let has_one = |id: &String| !layers.join(id).is_symlink() && layers.join(id).join("diff/one").exists();
    let id = entries(&layers).into_iter().find(has_one).unwrap();
    fs::write(layers.join(&id).join("diff/one"), "2\n").unwrap();
    let found = check(&store, &["--repair"]);
    assert!(
        found.code == 1 && found.out.contains(&id) && found.out.contains("a container stands on it"),
        "{found:?}"
    );
    ok(store.hull(&["rm", "box"]));
    ok(check(&store, &["--repair"]));
    rest_is_whole(&store, "after the container");
}

#[test]
fn what_nothing_leads_to_is_told_and_removed_and_what_another_tool_is_writing_is_not() {
    let store = store();
    let blobs = store.root().join("blobs/sha256");
    let unused = "0123456789abcdef".repeat(4);
    fs::write(blobs.join(&unused), "x").unwrap();
    let stray = fs::File::create(blobs.join("oci-put-blob1")).unwrap();
    fs::write(blobs.join("oci-put-blob2"), "x").unwrap();
    stray.set_modified(SystemTime::now() - Duration::from_secs(2 * 86400)).unwrap();
    fs::create_dir_all(store.root().join("layers/feed/diff")).unwrap();
    let found = check(&store, &[]);
    assert_eq!(found.code, 1, "{found:?}");
    for words in [&*unused, "oci-put-blob1", "feed"] {
        assert!(found.out.contains(words), "{words}: {}", found.out);
    }
    assert_eq!(found.out.lines().count(), 3, "{}", found.out);
    ok(check(&store, &["--repair"]));
    assert!(blobs.join("oci-put-blob2").exists() && !blobs.join("oci-put-blob1").exists());
    assert_eq!(names(&store), ["again", "base", "made", "other"]);
    rest_is_whole(&store, "after what was left over");
}

/// A repair that has read all bytes and waits for the store's lock, which goes with the file.
fn waiting_repair(store: &Builder) -> (Child, fs::File) {
    let lock = fs::File::options().read(true).write(true).open(store.root().join("lock")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    let mut command = store.command(&["system", "check", "--repair"]);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    let waits = format!(" {} ", child.id());
    eventually("the check waits for the lock", || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains("-> FLOCK") && line.contains(&waits))
    });
    (child, lock)
}

/// What a build made while a check read blobs is nobody's leftover. What is shown to fail: with the list of what is needed made
/// before the lock is taken (`check`), the first stage's step is removed, and built again.
#[test]
fn a_repair_leaves_what_a_build_makes_meanwhile() {
    let store = store();
    let (check, lock) = waiting_repair(&store);
    kill_process(Pid::from_child(&check), Signal::STOP).unwrap();
    let stat = format!("/proc/{}/stat", check.id());
    eventually("the check is stopped", || fs::read_to_string(&stat).unwrap().contains(") T "));
    drop(lock);
    let text = "FROM base AS one\nRUN echo x > /x\nFROM base\nCOPY --from=one /x /x\n";
    store.file("Dockerfile", text);
    let context = store.context().to_string_lossy().into_owned();
    let built = store.command(&["build", "-t", "meanwhile", &context]).output().unwrap();
    kill_process(Pid::from_child(&check), Signal::CONT).unwrap();
    let said: Said = check.wait_with_output().unwrap().into();
    assert!(built.status.success(), "{built:?}");
    assert_eq!((said.code, said.out.contains("layer")), (0, false), "{said:?}");
    let again = store.build(text);
    assert_eq!((again.code, again.err.matches("CACHED").count()), (0, 2), "{again:?}");
}

/// What is shown to fail: without the second look (`again`) the tree is removed for what it was.
#[test]
fn a_tree_that_is_right_again_when_the_lock_is_had_stays() {
    let store = store();
    let layers = store.root().join("layers");
    let tree =
        entries(&layers).into_iter().map(|id| layers.join(id).join("diff")).find(|tree| tree.join("one").exists());
    let file = tree.unwrap().join("one");
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "2\n").unwrap();
    let (check, lock) = waiting_repair(&store);
    fs::write(&file, "1\n").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    drop(lock);
    let said: Said = check.wait_with_output().unwrap().into();
    assert_eq!((said.code, said.out.contains("damaged")), (0, false), "{said:?}");
    assert!(file.exists());
    rest_is_whole(&store, "after the second look");
}
