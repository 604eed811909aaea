//! Whole builds on the real kernel: overlay mounts, cached steps, failures. Layers are plain folders here; the order
//! and the rules are the solver's. These tests need root.

use std::cell::Cell;
use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;

use super::*;
use crate::build::{Asking, BuildOptions};
use crate::cache::{Cache, Record};
use crate::graph::{self, PlanOptions};
use crate::progress::Plain;
use crate::syntax::parse;

/// A store whose layers are numbered folders.
struct Folders {
    at: tempfile::TempDir,
    cache: Cache,
    next: Cell<u32>,
    runs: Vec<Vec<String>>,
}

struct Staging {
    path: PathBuf,
    kept: bool,
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.kept {
            fs::remove_dir_all(&self.path).unwrap();
        }
    }
}

impl Folders {
    fn new() -> Self {
        let at = tempfile::Builder::new().prefix("hull-test-solve-").tempdir_in("/tmp").unwrap();
        let cache = Cache::new(&at.path().join("cache"));
        Self { at, cache, next: Cell::new(0), runs: Vec::new() }
    }

    fn staged(&self) -> usize {
        fs::read_dir(self.at.path()).unwrap().filter(|e| e.as_ref().unwrap().file_name() != "cache").count()
    }
}

fn overlay(lowers: &[PathBuf], upper: Option<&Path>) -> OwnedFd {
    let text = |key: &str, value: &str| (CString::new(key).unwrap(), Some(CString::new(value).unwrap()));
    if let (Some(upper), true) = (upper, lowers.is_empty()) {
        let path = CString::new(upper.join("upper").to_str().unwrap()).unwrap();
        return hull_sys::mount::clone_tree(&path, false).unwrap();
    }
    let mut lower: Vec<&str> = lowers.iter().rev().map(|path| path.to_str().unwrap()).collect();
    let only = [lower[0]].concat();
    if upper.is_none() && lower.len() == 1 {
        return hull_sys::mount::clone_tree(&CString::new(only).unwrap(), false).unwrap();
    }
    let mut options = vec![text("lowerdir", &std::mem::take(&mut lower).join(":"))];
    if let Some(upper) = upper {
        options.push(text("upperdir", upper.join("upper").to_str().unwrap()));
        options.push(text("workdir", upper.join("work").to_str().unwrap()));
    }
    hull_sys::mount::new_filesystem(c"overlay", None, &options, rustix_attributes()).unwrap()
}

fn rustix_attributes() -> rustix::mount::MountAttrFlags {
    rustix::mount::MountAttrFlags::empty()
}

impl Known for Folders {
    fn base(&mut self, name: &str) -> std::result::Result<BaseImage, Problem> {
        if name == "missing" {
            return Err(Problem { message: "there is no image missing".into(), hint: None });
        }
        let config = r#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        Ok(BaseImage { digest: "sha256:1".into(), config: serde_json::from_str(config).unwrap() })
    }

    fn has(&mut self, key: &Key) -> Result<bool> {
        Ok(self.cached(key)?.is_some())
    }
}

impl Worker for Folders {
    type Layer = PathBuf;
    type Staging = Staging;

    fn commit(&mut self, config: ImageConfiguration, layers: &[PathBuf], names: &[Reference]) -> Result<String> {
        Ok(format!(
            "{} layers, {} lines, {}",
            layers.len(),
            config.history().iter().flatten().count(),
            names.iter().map(Reference::familiar).collect::<Vec<_>>().join(" ")
        ))
    }

    fn export(&mut self, layers: &[PathBuf], dest: &Path) -> Result<()> {
        fs::write(dest, layers.len().to_string()).unwrap();
        Ok(())
    }

    fn image(&mut self, name: &str) -> Result<Vec<PathBuf>> {
        Ok(vec![self.at.path().join(name)])
    }

    fn cached(&mut self, key: &Key) -> Result<Option<Made<PathBuf>>> {
        let Some(record) = self.cache.get(key)? else { return Ok(None) };
        let layer = record.layer.map(PathBuf::from);
        let there = layer.as_ref().is_none_or(|layer| layer.exists());
        Ok(there.then_some(Made { layer, created: record.created }))
    }

    fn remember(&mut self, key: &Key, made: Made<PathBuf>, _: bool) -> Result<Made<PathBuf>> {
        let layer = made.layer.as_ref().map(|layer| layer.to_str().unwrap().to_owned());
        self.cache.replace(key, &Record { layer, created: made.created.clone() })?;
        Ok(made)
    }

    fn tidy(&mut self) -> Result<()> {
        Ok(())
    }

    fn stage(&mut self, parents: &[PathBuf]) -> Result<(Staging, OwnedFd)> {
        self.next.set(self.next.get() + 1);
        let path = self.at.path().join(format!("staging{}", self.next.get()));
        fs::create_dir_all(path.join("upper")).unwrap();
        fs::create_dir_all(path.join("work")).unwrap();
        let root = overlay(parents, Some(&path));
        Ok((Staging { path, kept: false }, root))
    }

    fn view(&mut self, layers: &[PathBuf]) -> Result<OwnedFd> {
        Ok(overlay(layers, None))
    }

    fn adopt(&mut self, _parents: &[PathBuf], mut staging: Staging) -> Result<PathBuf> {
        staging.kept = true;
        Ok(staging.path.join("upper"))
    }

    /// `/bin/sh` is not there in an empty base: a command is a file to write, `fail` fails.
    fn run(&mut self, root: OwnedFd, action: &RunAction, progress: &mut dyn Progress) -> Result<i32> {
        self.runs.push(action.argv.clone());
        progress.output(b"said\n");
        if action.argv[0] == "fail" {
            return Ok(7);
        }
        let file = Root::from_fd(root).make_file(Path::new(&action.argv[0]), 0o644).unwrap();
        drop(file.as_fd().try_clone_to_owned());
        Ok(0)
    }

    fn now(&self) -> String {
        "2026-11-24T00:00:00Z".into()
    }
}

fn context(files: &[(&str, &str)]) -> (tempfile::TempDir, Context) {
    let folder = tempfile::Builder::new().prefix("hull-test-solve-context-").tempdir().unwrap();
    files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
    let context = Context::open(folder.path()).unwrap();
    (folder, context)
}

/// Builds and gives the result and what was told.
fn build(worker: &mut Folders, context: &Context, text: &str) -> (Result<Solved<PathBuf>>, String) {
    let file = parse("Dockerfile", text).unwrap();
    let graph = match graph::plan(&file, &PlanOptions::default(), &mut Asking { known: worker, context }) {
        Ok(graph) => graph,
        Err(error) => return (Err(error.into()), String::new()),
    };
    let mut told = Vec::new();
    let mut progress = Plain::new(&mut told);
    let solver = Solver { file: &file, context, worker, progress: &mut progress, no_cache: false };
    let result = solver.solve(&graph);
    let told = String::from_utf8(told).unwrap();
    let told = told.lines().map(|line| line.split(" DONE").next().unwrap().to_owned()).collect::<Vec<_>>();
    (result, told.join("\n"))
}

const FIVE: &str = "FROM scratch\nWORKDIR /w\nCOPY a .\nRUN [\"made\"]\nCOPY b /b\nCMD x\n";

#[test]
fn a_build_makes_its_layers_and_a_second_one_finds_them_all() {
    let (_folder, context) = context(&[("a", "one"), ("b", "two")]);
    let mut worker = Folders::new();
    let first = build(&mut worker, &context, FIVE).0.unwrap();
    assert_eq!(first.layers.len(), 4);
    let view = overlay(&first.layers, None);
    let root = Root::from_fd(view);
    for path in ["/w/a", "/made", "/b"] {
        assert!(root.resolve(Path::new(path)).is_ok(), "{path}");
    }
    let (second, told) = build(&mut worker, &context, FIVE);
    assert_eq!(second.unwrap().layers, first.layers);
    assert_eq!(worker.runs.len(), 1);
    assert_eq!(told.matches("CACHED").count(), 4, "{told}");
}

#[test]
fn a_changed_file_repeats_its_copy_and_what_is_below() {
    let (folder, context) = context(&[("a", "one"), ("b", "two")]);
    let mut worker = Folders::new();
    build(&mut worker, &context, FIVE).0.unwrap();
    fs::write(folder.path().join("b"), "other").unwrap();
    assert_eq!(build(&mut worker, &context, FIVE).1.matches("CACHED").count(), 3);
    fs::write(folder.path().join("a"), "other").unwrap();
    assert_eq!(build(&mut worker, &context, FIVE).1.matches("CACHED").count(), 1);
    assert_eq!(worker.runs.len(), 2);
}

#[test]
fn a_record_whose_layer_is_gone_is_a_miss() {
    let (_folder, context) = context(&[("a", "one"), ("b", "two")]);
    let mut worker = Folders::new();
    let first = build(&mut worker, &context, FIVE).0.unwrap();
    fs::remove_dir_all(first.layers[2].parent().unwrap()).unwrap();
    assert_eq!(build(&mut worker, &context, FIVE).1.matches("CACHED").count(), 3);
    assert_eq!(worker.runs.len(), 2);
}

#[test]
fn a_step_that_changes_nothing_makes_no_layer_and_says_so_in_the_history() {
    let (_folder, context) = context(&[]);
    let mut worker = Folders::new();
    let solved = build(&mut worker, &context, "FROM scratch\nWORKDIR /w\nWORKDIR /w\nENV A=1\n").0.unwrap();
    assert_eq!(solved.layers.len(), 1);
    assert_eq!(solved.history.iter().map(|line| line.empty).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(worker.staged(), 1);
}

#[test]
fn a_failed_command_names_its_line_and_leaves_nothing() {
    let (_folder, context) = context(&[]);
    let mut worker = Folders::new();
    let (result, told) = build(&mut worker, &context, "FROM scratch\nWORKDIR /w\nRUN [\"fail\"]\n");
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Command { status: 7, .. }));
    let text = error.to_string();
    assert!(text.contains("Dockerfile:3:1") && text.contains("status 7") && text.contains("^^^"), "{text}");
    assert!(told.ends_with("said"), "{told}");
    assert_eq!(worker.staged(), 1, "only the layer of WORKDIR is there");
    let again = build(&mut worker, &context, "FROM scratch\nWORKDIR /w\nRUN [\"fail\"]\n");
    assert!(again.0.is_err() && worker.runs.len() == 2, "a failure is not cached");
}

#[test]
fn a_stage_gives_its_files_and_only_its_own() {
    let (_folder, context) = context(&[("a", "one")]);
    let mut worker = Folders::new();
    let text = "FROM scratch AS one\nCOPY a /etc/a\nFROM scratch\nCOPY --from=one --chmod=600 /etc /here/\n";
    let solved = build(&mut worker, &context, text).0.unwrap();
    assert_eq!(fs::read_to_string(solved.layers[0].join("here/a")).unwrap(), "one");
    let missing =
        build(&mut worker, &context, "FROM scratch AS one\nCOPY a /a\nFROM scratch\nCOPY --from=one /b /\n");
    let text = missing.0.unwrap_err().to_string();
    assert!(text.contains("/b is not in the stage") && text.contains(":4:17"), "{text}");
}

#[test]
fn a_workdir_through_a_symlink_to_the_host_stays_in_the_image() {
    let outside = tempfile::Builder::new().prefix("hull-test-outside-").tempdir().unwrap();
    let (_folder, context) = context(&[]);
    let mut worker = Folders::new();
    let base = worker.at.path().join("evil");
    fs::create_dir(&base).unwrap();
    std::os::unix::fs::symlink(outside.path(), base.join("out")).unwrap();
    std::os::unix::fs::symlink("/proc/self/cwd", base.join("cwd")).unwrap();
    for path in ["/out/x", "/cwd/x", "/out/../../../../x"] {
        // Whether it is an error or a folder inside the image: the host's folder stays empty.
        let _either = build(&mut worker, &context, &format!("FROM evil\nWORKDIR {path}\n"));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{path}");
    }
}

#[test]
fn an_unknown_owner_is_an_error_with_its_line() {
    let (_folder, context) = context(&[("a", "")]);
    let mut worker = Folders::new();
    let text =
        build(&mut worker, &context, "FROM scratch\nCOPY --chown=nobody-here a /a\n").0.unwrap_err().to_string();
    assert!(text.contains("nobody-here") && text.contains("Dockerfile:2:1"), "{text}");
    assert_eq!(worker.staged(), 0);
    build(&mut worker, &context, "FROM scratch\nCOPY --chown=12 a /a\n").0.unwrap();
}

#[test]
fn the_configuration_of_a_cached_build_is_the_same_to_the_byte() {
    let (_folder, context) = context(&[("a", "one"), ("b", "two")]);
    let mut worker = Folders::new();
    let file = parse("Dockerfile", FIVE).unwrap();
    let graph =
        graph::plan(&file, &PlanOptions::default(), &mut Asking { known: &mut worker, context: &context }).unwrap();
    let mut config = || {
        let solved = build(&mut worker, &context, FIVE).0.unwrap();
        let labels = [("l".to_owned(), "1".to_owned())];
        let created = solved.created.as_deref();
        crate::config::image(&graph.stages[0], &solved.history, created, &labels, "now").unwrap().to_string().unwrap()
    };
    let first = config();
    assert_eq!(first, config());
    assert!(first.contains(r#""Cmd":["/bin/sh","-c","x"]"#) && first.contains(r#""l":"1""#), "{first}");
}

#[test]
fn a_whole_build_is_planned_made_named_and_exported() {
    let (folder, _) = context(&[("a", "one"), ("b", "two"), ("Dockerfile", FIVE)]);
    let mut worker = Folders::new();
    let out = worker.at.path().join("cache/exported");
    let options = BuildOptions {
        context: folder.path().to_owned(),
        tags: vec!["hull-test:1".parse().unwrap()],
        output: Some(out.clone()),
        ..BuildOptions::default()
    };
    let planned = crate::build::plan(&mut worker, &options).unwrap();
    assert_eq!(planned.matches(" run ").count(), 4, "{planned}");
    assert_eq!(worker.staged(), 0, "a plan makes nothing");
    let built = crate::build::build(&mut worker, &options, &mut crate::progress::Quiet).unwrap();
    assert_eq!(built.image, "4 layers, 5 lines, hull-test:1");
    assert_eq!(fs::read_to_string(out).unwrap(), "4");
    assert_eq!(crate::build::plan(&mut worker, &options).unwrap().matches(" cached ").count(), 4);
}

#[test]
fn a_dockerfile_that_leaves_the_context_by_a_symlink_is_not_read() {
    let (folder, _) = context(&[]);
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("Dockerfile")).unwrap();
    let options = BuildOptions { context: folder.path().to_owned(), ..BuildOptions::default() };
    let error = crate::build::plan(&mut Folders::new(), &options).unwrap_err();
    assert!(matches!(error, Error::Read { .. }) && !error.to_string().contains("root:"), "{error}");
}
