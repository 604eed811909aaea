//! Layers that try to reach out of their root, always the same ones.
//!
//! [`escapes`] goes through every kind of entry and every way to aim it at a place outside; [`random`] strings entries
//! together as a seed has it. What may come of them is one thing only: that place is as it was.

use std::path::Path;

use ::tar::EntryType;

use crate::tar::Tar;

/// An image that tries something.
#[derive(Clone, Debug)]
pub struct Hostile {
    /// What it tries.
    pub what: String,
    /// Its layers as plain archives, lowest first.
    pub layers: Vec<Vec<u8>>,
}

/// One entry that is aimed at a name.
type Aimed = fn(Tar, &str) -> Tar;

/// Every kind of entry. What a hard link needs is a file of its own, `own`.
const KINDS: [(&str, Aimed); 12] = [
    ("a file", |tar, name| tar.file(name, "x")),
    ("a folder", |tar, name| tar.folder(name)),
    ("a folder that everybody may write", |tar, name| {
        tar.with(Tar::header(EntryType::Directory, name, "", 0), |header| header.set_mode(0o1777), b"")
    }),
    ("an absolute symlink", |tar, name| tar.symlink(name, "/etc/passwd")),
    ("a relative symlink", |tar, name| tar.symlink(name, "../../etc/passwd")),
    ("a hard link", |tar, name| tar.file("own", "x").link(name, "own")),
    ("a FIFO", |tar, name| tar.entry(EntryType::Fifo, name, "")),
    ("a character device", |tar, name| tar.device(name, 1, 3)),
    ("a block device", |tar, name| tar.entry(EntryType::Block, name, "")),
    ("a whiteout", |tar, name| {
        let (folder, base) = name.rsplit_once('/').map_or(("", name), |(folder, base)| (folder, base));
        tar.file(&format!("{folder}/.wh.{base}"), "")
    }),
    ("a whiteout in overlay's form", |tar, name| tar.device(name, 0, 0)),
    ("an opaque mark", |tar, name| tar.file(&format!("{name}/.wh..wh..opq"), "")),
];

/// Every kind of entry × every way out × every way to split it into layers. `out` is a folder with `file` and `inner/file`
/// in it, on the host.
pub fn escapes(out: &Path) -> Vec<Hostile> {
    let absolute = out.to_string_lossy().into_owned();
    let climbing = format!("{}{absolute}", "../".repeat(12).trim_end_matches('/'));
    let mut all = Vec::new();
    for target in [&*absolute, &*climbing, &format!("/proc/self/root{absolute}"), "../sentinel"] {
        for (kind, entry) in KINDS {
            let link = || Tar::default().symlink("l", target);
            let link_to_file = || Tar::default().symlink("l", &format!("{target}/file"));
            let cases: [(&str, Vec<Tar>); 9] = [
                ("whose parent is a link out", vec![link(), entry(Tar::default(), "l/file")]),
                ("two below a link out", vec![link(), entry(Tar::default(), "l/inner/file")]),
                ("in the place of a link out", vec![link(), entry(Tar::default(), "l")]),
                ("in the place of a link to a file", vec![link_to_file(), entry(Tar::default(), "l")]),
                (
                    "below a link to a link",
                    vec![link(), Tar::default().symlink("m", "l"), entry(Tar::default(), "m/file")],
                ),
                ("beside a hard link to a link", vec![link_to_file().link("h", "l"), entry(Tar::default(), "h")]),
                (
                    "below a folder that becomes a link",
                    vec![
                        Tar::default().folder("l").folder("l/inner").file("l/file", "x"),
                        link(),
                        entry(Tar::default(), "l/file"),
                    ],
                ),
                (
                    "beside a folder whose place a link takes at the end",
                    vec![entry(Tar::default().folder("l").folder("l/inner"), "other"), link()],
                ),
                (
                    "below a link that becomes a folder",
                    vec![link(), Tar::default().folder("l"), entry(Tar::default(), "l/file")],
                ),
            ];
            for (where_, parts) in cases {
                let what = format!("{kind} {where_}, {target}");
                all.extend(splits(&what, &parts));
            }
        }
    }
    for name in ["../sentinel/file", "a/../../sentinel/file", "/../sentinel/file", &format!("/..{absolute}/file")] {
        for (kind, entry) in KINDS {
            let tar = entry(Tar::default().folder("a"), name);
            all.push(Hostile { what: format!("{kind} named {name}"), layers: vec![tar.end()] });
        }
        let tar = Tar::default().folder("a").link("h", name);
        all.push(Hostile { what: format!("a hard link to {name}"), layers: vec![tar.end()] });
    }
    all
}

/// The same entries in one layer, and each part in a layer of its own.
fn splits(what: &str, parts: &[Tar]) -> Vec<Hostile> {
    let one = Tar(parts.iter().flat_map(|part| part.0.iter().copied()).collect());
    let each = parts.iter().map(|part| part.clone().end()).collect();
    vec![
        Hostile { what: format!("{what}; one layer"), layers: vec![one.end()] },
        Hostile { what: format!("{what}; {} layers", parts.len()), layers: each },
    ]
}

/// One to three layers of a few entries each out of a small pool of names, so that they get into each other's way.
pub fn random(out: &Path, seed: u64) -> Hostile {
    let out = out.to_string_lossy();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap_or_default() % limit
    };
    let names = ["a", "b", "a/b", "b/a", "a/b/file", "a/file", "b/file", "file", "./a", "/b", "a/", "b//file"];
    let targets = [&*out, "..", "/", "a", "b", "../../sentinel", "a/b", ".", "/proc/self/cwd"];
    let layers = (0..=below(3)).map(|_| {
        let entry = |tar: Tar, below: &mut dyn FnMut(usize) -> usize| {
            let name = names[below(names.len())];
            match below(KINDS.len() + 4) {
                kind if kind < KINDS.len() => KINDS[kind].1(tar, name),
                kind if kind < KINDS.len() + 3 => tar.symlink(name, targets[below(targets.len())]),
                _ => tar.link(name, names[below(names.len())]),
            }
        };
        let count = 2 + below(6);
        (0..count).fold(Tar::default(), |tar, _| entry(tar, &mut below)).end()
    });
    Hostile { what: format!("seed {seed}"), layers: layers.collect() }
}
