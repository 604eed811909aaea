//! Golden plans (`plans/<case>/`), and what must and must not change a key.

use std::collections::BTreeMap;
use std::path::Path;

use oci_spec::image::{Arch, ConfigBuilder, ImageConfigurationBuilder, RootFsBuilder};

use super::*;
use crate::syntax::parse;

/// A context and a store without files: what is in them is said by the test.
struct Fake {
    files: BTreeMap<String, String>,
    base: String,
}

impl Fake {
    fn new() -> Self {
        let files = [("app.py", "one"), ("lib", "two"), ("*.txt", "three")];
        let files = files.map(|(name, content)| (name.to_owned(), content.to_owned()));
        Self { files: files.into(), base: "sha256:1111".into() }
    }
}

impl World for Fake {
    fn image(&mut self, name: &str) -> Result<BaseImage, Problem> {
        if name.contains("missing") {
            let message = format!("there is no image {name} in the store");
            return Err(Problem { message, hint: Some(format!("import one: hull import TAR {name}")) });
        }
        let config = ConfigBuilder::default()
            .env(["PATH=/bin".to_owned(), "FROM_BASE=yes".into(), "SECRET".into()])
            .cmd(["sh".to_owned()])
            .working_dir("/base".to_owned())
            .build()
            .unwrap();
        let root = RootFsBuilder::default().typ("layers").diff_ids(Vec::new()).build().unwrap();
        let arch = if name == "foreign" { Arch::s390x } else { Arch::Amd64 };
        let config =
            ImageConfigurationBuilder::default().architecture(arch).config(config).rootfs(root).build().unwrap();
        Ok(BaseImage { digest: self.base.clone(), config })
    }

    fn digest(&mut self, source: &str) -> Result<String, Problem> {
        let missing = || Problem { message: format!("{source} is not in the build context"), hint: None };
        self.files.get(source).cloned().ok_or_else(missing)
    }
}

fn text(graph: &Graph) -> String {
    let mut out = String::new();
    for stage in &graph.stages {
        out += &format!("stage {} {:?} {:?} key {}\n", stage.number, stage.name, stage.base, stage.key.short());
        for step in &stage.steps {
            out += &format!("  {} line {} {:?}\n", step.key.short(), step.span.line, step.action);
        }
        for entry in &stage.history {
            out += &format!("  history {:?} {}\n", entry.step, entry.created_by);
        }
        out += &format!("  {:?}\n", stage.effect);
    }
    graph.notes.iter().fold(out, |out, note| format!("{out}note: {note}\n"))
}

/// The options stand in `args`, one a line: `NAME=VALUE` or `--target=STAGE`.
#[test]
fn every_plan_is_the_golden_one() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 8);
    for case in cases {
        let file = parse("Dockerfile", &std::fs::read_to_string(case.join("Dockerfile")).unwrap()).unwrap();
        let mut options = PlanOptions::default();
        for line in std::fs::read_to_string(case.join("args")).unwrap_or_default().lines() {
            match line.strip_prefix("--target=") {
                Some(target) => options.target = Some(target.to_owned()),
                None => options.build_args.extend(line.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()))),
            }
        }
        let answer = match plan(&file, &options, &mut Fake::new()) {
            Ok(graph) => text(&graph),
            Err(error) => format!("{error}\nhint: {:?}\n", error.hint),
        };
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(case.join("plan.txt"), &answer).unwrap();
            continue;
        }
        assert_eq!(answer, std::fs::read_to_string(case.join("plan.txt")).unwrap(), "{}", case.display());
    }
}

const FILE: &str =
    "FROM base\nARG V=1\nENV E=1\nLABEL l=1\nWORKDIR /w\nCOPY app.py .\nRUN build $V\nCOPY lib /lib/\n";

fn keys(file: &str, args: &[(&str, &str)], world: &mut Fake) -> Vec<String> {
    let build_args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = PlanOptions { build_args, ..PlanOptions::default() };
    let graph = plan(&parse("f", file).unwrap(), &options, world).unwrap();
    graph.stages.iter().flat_map(|stage| &stage.steps).map(|step| step.key.as_str().to_owned()).collect()
}

/// Which of the four steps (WORKDIR, COPY, RUN, COPY) miss after a change.
fn misses(file: &str, args: &[(&str, &str)], world: &mut Fake) -> Vec<bool> {
    let before = keys(FILE, &[], &mut Fake::new());
    before.iter().zip(keys(file, args, world)).map(|(before, after)| *before != after).collect()
}

#[test]
fn only_what_a_change_reaches_misses_the_cache() {
    let same = &mut Fake::new();
    assert_eq!(misses(FILE, &[], same), [false; 4]);
    assert_eq!(misses(&FILE.replace("LABEL l=1", "LABEL l=2\nCMD x"), &[], same), [false; 4]);
    assert_eq!(misses(&FILE.replace("E=1", "E=2"), &[], same), [false, false, true, true]);
    assert_eq!(misses(FILE, &[("V", "2")], same), [false, false, true, true]);
    assert_eq!(misses(FILE, &[("http_proxy", "x"), ("OTHER", "y")], same), [false; 4]);
    assert_eq!(misses(&FILE.replace("/lib/", "/usr/"), &[], same), [false, false, false, true]);
    assert_eq!(misses(&FILE.replace("COPY lib", "COPY --chmod=700 lib"), &[], same), [false, false, false, true]);
    let mut changed = Fake::new();
    changed.files.insert("app.py".into(), "other".into());
    assert_eq!(misses(FILE, &[], &mut changed), [false, true, true, true]);
    // Another image with the same configuration and history is another base.
    let mut attacker = Fake::new();
    attacker.base = "sha256:2222".into();
    assert_eq!(misses(FILE, &[], &mut attacker), [true; 4]);
}

#[test]
fn fields_of_a_key_cannot_be_shifted() {
    let one = KeyBuilder::new("x").field("ab").field("c").finish();
    assert_ne!(one, KeyBuilder::new("x").field("a").field("bc").finish());
    let list = KeyBuilder::new("x").list(["a"].iter()).list(["b"].iter()).finish();
    assert_ne!(list, KeyBuilder::new("x").list(["a", "b"].iter()).list(Vec::<&str>::new().iter()).finish());
}
