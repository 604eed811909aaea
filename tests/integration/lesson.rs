//! docs/how-containers-work.md and README.md, held against what hull really does and says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hull_tests::{Corner, Said};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Stages, `title [role]`, each with the names of its calls.
fn stages(text: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut all: Vec<(String, BTreeSet<String>)> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(title) = line.strip_prefix("== ") {
            all.push((title.to_owned(), BTreeSet::new()));
        }
        let call = line.split_once(" us  ").and_then(|(_, call)| call.split_once('('));
        if let (Some((name, _)), Some((_, calls))) = (call, all.last_mut()) {
            calls.insert(name.to_owned());
        }
    }
    all
}

#[test]
fn the_lesson_has_the_stages_and_calls_of_a_real_run_in_their_order() {
    let lesson = fs::read_to_string(project().join("docs/how-containers-work.md")).unwrap();
    let corner = Corner::new();
    let flags = ["--explain", "--hostname", "container", "--tmpfs", "/mytemp", "--pids-limit", "20"];
    assert!(lesson.contains(&flags.join(" ")), "the lesson's command is the test's");
    let said = corner.run(&flags, &["sh", "-c", "true"]);
    let (told, real) = (stages(&lesson), stages(&said.err));
    let titles = |all: &[(String, BTreeSet<String>)]| all.iter().map(|stage| stage.0.clone()).collect::<Vec<_>>();
    assert_eq!(titles(&told), titles(&real));
    // On v2 the process is born in its group, and the device lines are a program.
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    for ((title, told), (_, real)) in told.iter().zip(&real) {
        assert!(!told.is_empty(), "{title} shows no call");
        let missing: Vec<_> = told.difference(real).collect();
        assert!(
            missing.is_empty() || (unified && title.starts_with("join")),
            "{title} does no {missing:?}: {real:?}"
        );
    }
    let sections = lesson.lines().filter(|line| line.starts_with("## ") && line.contains(". ")).count();
    assert_eq!(sections, real.len(), "one section for each stage");
}

#[test]
fn every_link_of_the_documents_leads_to_a_file() {
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/how-containers-work.md"] {
        let path = project().join(document);
        let text = fs::read_to_string(&path).unwrap();
        let links: Vec<&str> = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        for link in links.iter().filter(|link| !link.contains("://") && !link.starts_with('#')) {
            assert!(path.parent().unwrap().join(link).exists(), "{document}: {link}");
        }
    }
}

/// The long flags that a text names.
fn flags(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_lowercase() || c == '-');
    text.split(word).filter(|word| word.starts_with("--") && word.len() > 3).map(str::to_owned).collect()
}

#[test]
fn the_readme_names_every_flag_of_run_and_every_verb() {
    let corner = Corner::new();
    let hull = |arguments: &[&str]| Said::from(corner.hull().args(arguments).output().unwrap()).out;
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let list = readme.split("Flags of `run`:").nth(1).expect("a list of flags").split("\n\n").next().unwrap();
    let help = hull(&["run", "--help"]);
    let (named, known) = (flags(list), flags(&help));
    let unnamed: Vec<_> =
        known.difference(&named).filter(|flag| !["--help", "--net"].contains(&flag.as_str())).collect();
    assert!(unnamed.is_empty(), "not in README: {unnamed:?}");
    let unknown: Vec<_> = named.difference(&known).collect();
    assert!(unknown.is_empty(), "no flags of run: {unknown:?}");
    let verbs = hull(&["--help"]);
    let verbs = verbs.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    for verb in verbs.lines().filter_map(|line| line.split_whitespace().next()) {
        let row = readme.lines().any(|line| line.starts_with('|') && line.contains(verb));
        assert!(row, "README's table of commands lacks {verb}");
    }
}

#[test]
fn the_readmes_demo_is_what_the_demo_prints() {
    let corner = Corner::new();
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let said = Said::from(corner.hull().arg("demo").output().unwrap());
    // The first column: titles, explanations and the names of what is compared. Values are a machine's own.
    let label = |line: &str| {
        let line = line.strip_prefix("    ").unwrap_or(line);
        line.trim_end().split("   ").find(|part| !part.is_empty()).map(|part| part.trim().to_owned())
    };
    let end = |line: &&str| !line.trim_start().starts_with("All ");
    let told: Vec<String> =
        said.out.lines().take_while(end).filter_map(|line| label(&format!("    {line}"))).collect();
    let shown = readme.split("side by side:").nth(1).expect("the demo in README");
    let shown: Vec<String> = shown.lines().take_while(end).filter_map(label).collect();
    assert!(told.len() > 30, "{told:?}");
    assert_eq!(shown, told);
}
