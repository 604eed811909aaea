//! The shape of the workspace: who may depend on whom, where unsafe code is, how long a file may be.

use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => sources(&path, found),
            path if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            _ => {}
        }
    }
}

/// Each crate with the crates of ours that it may use: the arrows of ARCHITECTURE.md.
const ARROWS: [(&str, &[&str]); 9] = [
    ("sys", &[]),
    ("runtime", &["sys"]),
    ("image", &["sys"]),
    ("registry", &["image"]),
    ("engine", &["sys", "runtime", "image"]),
    ("build", &["sys", "runtime", "image", "engine"]),
    ("template", &[]),
    ("hull", &["sys", "runtime", "image", "registry", "engine", "build", "template"]),
    ("manual", &["hull"]),
];

#[test]
fn dependencies_point_one_way() {
    let crates = workspace().join("crates");
    for entry in fs::read_dir(&crates).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let (_, allowed) = ARROWS
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap_or_else(|| panic!("crates/{name} has no row in ARROWS"));
        let manifest = fs::read_to_string(entry.path().join("Cargo.toml")).unwrap();
        for (other, _) in ARROWS {
            let used = manifest.lines().any(|line| {
                line.strip_prefix("hull-")
                    .and_then(|rest| rest.strip_prefix(other))
                    .is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
            });
            assert!(!used || allowed.contains(&other), "{name} depends on {other}");
        }
        assert!(!manifest.contains("\ntokio"), "{name} depends on tokio");
        for (network, only) in [("ureq", "registry"), ("rustls", "registry")] {
            assert!(!manifest.contains(&format!("\n{network}")) || name == only, "{name} depends on {network}");
        }
        assert!(!manifest.contains("\nlibc") || name == "sys", "{name} depends on libc");
    }
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    for (name, _) in ARROWS.iter().filter(|(name, _)| *name != "sys") {
        let source = workspace().join("crates").join(name).join("src");
        for root in ["lib.rs", "main.rs"].map(|file| source.join(file)).into_iter().filter(|path| path.exists()) {
            let text = fs::read_to_string(&root).unwrap();
            // The program's own main, which takes one attribute: its name is the C library's.
            let main = root.ends_with("hull/src/main.rs");
            let rule = if main { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
            assert!(text.contains(rule), "{}", root.display());
            assert!(!main || text.matches("unsafe").count() == 3, "{}", root.display());
        }
    }
}

#[test]
fn files_stay_short() {
    let mut all = Vec::new();
    sources(&workspace().join("crates"), &mut all);
    sources(&workspace().join("tests"), &mut all);
    for path in all {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 600, "{} has {lines} lines", path.display());
    }
}

/// A guard that has moved takes its mutant with it: one whose text is gone shows nothing.
#[test]
fn every_mutant_still_has_its_text() {
    let said = std::process::Command::new(workspace().join("tests/mutants")).arg("--check").output();
    let said: hull_tests::Said = said.expect("python3 is installed: `make deps` does it").into();
    assert_eq!((said.code, &*said.err), (0, ""), "mend it in tests/mutants");
}
