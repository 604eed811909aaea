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

#[test]
fn dependencies_point_one_way() {
    let order = ["sys", "runtime", "engine", "hull"];
    for (level, name) in order.iter().enumerate() {
        let manifest = fs::read_to_string(workspace().join("crates").join(name).join("Cargo.toml")).unwrap();
        for above in &order[level + 1..] {
            assert!(!manifest.contains(&format!("hull-{above}.")), "{name} depends on {above}");
        }
        assert!(!manifest.contains("tokio"), "{name} depends on tokio");
        assert_eq!(manifest.contains("\nlibc."), *name == "sys", "{name} and libc");
    }
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    for name in ["runtime/src/lib.rs", "engine/src/lib.rs", "hull/src/main.rs"] {
        let text = fs::read_to_string(workspace().join("crates").join(name)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{name}");
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
