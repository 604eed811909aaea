//! hull as a peer's runtime, with a list of what it was called with.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::hull_bin;

/// A program that notes its arguments and is hull then.
pub struct Recorded {
    /// The program.
    pub program: PathBuf,
    log: PathBuf,
}

const VERBS: [&str; 18] = [
    "checkpoint",
    "create",
    "delete",
    "events",
    "exec",
    "features",
    "kill",
    "list",
    "pause",
    "ps",
    "restore",
    "resume",
    "run",
    "spec",
    "start",
    "state",
    "update",
    "--version",
];

impl Recorded {
    /// One in `folder`, which is made; hull is called `name`: hull-oci or runc.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn new(folder: &Path, name: &str) -> Self {
        fs::create_dir_all(folder.join("as")).expect("a folder for the runtime");
        let (hull, program, log) = (folder.join("as").join(name), folder.join(name), folder.join("asked"));
        symlink(hull_bin(), &hull).expect("a link to hull");
        // One write for each line, for several may write at once.
        let script =
            format!("#!/bin/sh\nIFS=' '\necho \"$*\" >> {}\nexec {} \"$@\"\n", log.display(), hull.display());
        fs::write(&program, script).expect("a runtime");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a runtime");
        Self { program, log }
    }

    /// Every shape of a call: the verb, the flags before it and those after it, `--log --root create --bundle`. `kill` is
    /// with its signal.
    pub fn shapes(&self) -> BTreeSet<String> {
        let asked = fs::read_to_string(&self.log).unwrap_or_default();
        asked.lines().map(shape).collect()
    }
}

fn shape(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let verb = words.iter().position(|word| VERBS.contains(word)).unwrap_or(words.len() - 1);
    let flags = |words: &[&str]| -> Vec<String> {
        let flags = words.iter().filter(|word| word.starts_with('-') && word.len() > 1);
        let mut flags: Vec<String> =
            flags.map(|word| word.split('=').next().unwrap_or_default().to_owned()).collect();
        flags.sort();
        flags.dedup();
        flags
    };
    let mut all = flags(&words[..verb]);
    all.push(words[verb].to_owned());
    all.extend(flags(&words[verb + 1..]));
    if words[verb] == "kill" {
        all.extend(words.last().map(|signal| (*signal).to_owned()));
    }
    all.join(" ")
}

/// A list of shapes in the order of [`Recorded::shapes`].
pub fn sorted(list: &[&str]) -> Vec<String> {
    let mut list: Vec<String> = list.iter().map(|text| (*text).to_owned()).collect();
    list.sort();
    list
}
