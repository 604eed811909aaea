//! Facts and checks as lines for people.

use std::path::Path;

use hull_engine::profile;
use hull_runtime::caps;

use super::expect::{Check, line, map_text, names as names_of, seccomp_text};
use super::facts::Facts;
use super::limits::Limit;
use super::mountinfo::Mount;
use crate::table::escape;

/// One line: what it is about, and what this process sees of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub what: String,
    /// In full.
    pub text: String,
    /// For a narrow column.
    pub brief: String,
}

/// Lines that belong together.
pub struct Section {
    pub title: &'static str,
    pub rows: Vec<Row>,
}

fn row(what: impl Into<String>, text: impl ToString) -> Row {
    let text = text.to_string();
    Row { what: what.into(), brief: text.clone(), text }
}

/// All facts, in the order in which they are told.
pub fn sections(facts: &Facts) -> Vec<Section> {
    vec![
        Section { title: "who it is", rows: identity(facts) },
        Section { title: "namespaces, by inode number", rows: namespaces(facts) },
        Section { title: "what it sees", rows: view(facts) },
        Section { title: "what it may do", rows: rights(facts) },
        Section { title: "how much it may use", rows: limits(facts) },
    ]
}

fn identity(facts: &Facts) -> Vec<Row> {
    vec![
        row(line::HOSTNAME, &facts.hostname),
        row(line::PID, facts.pid),
        row(line::USER, format!("{}:{}", facts.uid, facts.gid)),
        row(line::UID_MAP, map_text(&facts.uid_map)),
        row(line::GID_MAP, map_text(&facts.gid_map)),
    ]
}

fn namespaces(facts: &Facts) -> Vec<Row> {
    facts.namespaces.iter().map(|(kind, inode)| row(line::namespace(kind), inode)).collect()
}

fn view(facts: &Facts) -> Vec<Row> {
    let plural = if facts.processes == 1 { "process" } else { "processes" };
    let proc = format!("{} {plural}, this one is {}", facts.processes, facts.pid_in_proc);
    let mut rows = vec![root(facts), row(line::MOUNTS, facts.mounts.len()), row(line::PROC, proc)];
    // Whole file systems: a file of one, as /etc/hosts is, is nothing to write to at will.
    let whole = |mount: &&Mount| mount.kind == "tmpfs" && mount.root == "/";
    let scratch = facts.mounts.iter().filter(whole).filter(|mount| is_users(&mount.target));
    rows.extend(scratch.map(|mount| {
        let how = if mount.read_only() { "read-only" } else { "writable" };
        row(line::tmpfs(Path::new(&mount.target)), how)
    }));
    rows.push(covered(facts));
    rows.push(frozen(facts));
    rows.push(row(line::INTERFACES, facts.interfaces.join(" ")));
    rows
}

fn root(facts: &Facts) -> Row {
    let Some(root) = facts.root() else { return row(line::ROOT, "none") };
    let how = if root.read_only() { "read-only" } else { "writable" };
    // A file system without a device has its own kind, or nothing, for a source.
    let source = if root.source == root.kind || root.source == "none" { "" } else { &root.source };
    let kind = format!("{} {source}", root.kind);
    let part = if root.root == "/" { String::new() } else { format!("{} of ", root.root) };
    row(line::ROOT, format!("{part}{}, {how}", kind.trim_end()))
}

/// Scratch file systems below these are set-up, not somebody's wish.
fn is_users(target: &str) -> bool {
    !["/dev", "/proc", "/sys", "/run"].iter().any(|folder| Path::new(target).starts_with(folder))
}

fn covered(facts: &Facts) -> Row {
    let known = profile::masked();
    let there = || known.iter().filter_map(|path| facts.places.get(Path::new(path)).map(|place| (path, place)));
    let there: Vec<_> = there().filter(|(_, place)| place.exists).collect();
    let hidden = there.iter().filter(|(_, place)| place.hidden).count();
    row(line::HIDDEN, format!("{hidden} of {}", there.len()))
}

fn frozen(facts: &Facts) -> Row {
    let places = || profile::READ_ONLY.iter().filter_map(|path| facts.places.get(Path::new(path)));
    let read_only = places().filter(|place| place.read_only).count();
    row(line::FROZEN, format!("{read_only} of {}", places().filter(|place| place.exists).count()))
}

fn rights(facts: &Facts) -> Vec<Row> {
    let set = |what: &str, mask: u64| {
        let brief = format!("{} of {}", mask.count_ones(), caps::NAMES.len());
        let names = names_of(mask);
        let text = if matches!(mask, 0 | caps::ALL) { names } else { format!("{}: {names}", mask.count_ones()) };
        Row { what: what.to_owned(), text, brief }
    };
    vec![
        set(line::CAPABILITIES, facts.capabilities.effective),
        set(line::BOUNDING, facts.capabilities.bounding),
        row(line::SECCOMP, seccomp_text(facts.seccomp)),
        row(line::NO_NEW_PRIVS, if facts.no_new_privs { "yes" } else { "no" }),
    ]
}

fn limits(facts: &Facts) -> Vec<Row> {
    let limit = |what: &str, limit: &Limit, unit: fn(u64) -> String| {
        let Some(file) = &limit.file else { return row(what, "none in view") };
        let brief = limit.value.map_or_else(|| "none".to_owned(), unit);
        let text = limit.value.map_or_else(|| "none".to_owned(), |value| value.to_string());
        Row { what: what.to_owned(), text: format!("{text} ({})", file.display()), brief }
    };
    vec![
        limit(line::PIDS, &facts.limits.pids, |value| value.to_string()),
        limit(line::MEMORY, &facts.limits.memory, mebibytes),
    ]
}

fn mebibytes(bytes: u64) -> String {
    if bytes % (1 << 20) == 0 { format!("{} MiB", bytes >> 20) } else { format!("{bytes} bytes") }
}

/// `hull verify` as text: a line for each fact, a mark where something was expected of it, and a summary.
pub fn render(facts: &Facts, checks: &[Check]) -> String {
    let mut told = String::new();
    let mut asked: Vec<&Check> = checks.iter().collect();
    for section in sections(facts) {
        told += &format!("{}\n", section.title);
        for row in section.rows {
            let (of_row, others) = asked.into_iter().partition(|check| check.what == row.what);
            asked = others;
            told += &line_text(&row, &of_row);
        }
    }
    // What was expected of something that is not there.
    for check in asked {
        let row = Row { what: check.what.clone(), text: check.found.clone(), brief: String::new() };
        told += &line_text(&row, &[check]);
    }
    if !checks.is_empty() {
        let broken = checks.iter().filter(|check| !check.holds).count();
        let held = checks.len() - broken;
        told += &format!("\n{held} of {} expectations hold\n", checks.len());
    }
    told
}

fn line_text(row: &Row, checks: &[&Check]) -> String {
    let mark = match checks {
        [] => " ",
        checks if checks.iter().all(|check| check.holds) => "✓",
        _ => "✗",
    };
    let mut told = format!("{mark} {:<18} {}\n", escape(&row.what), folded(&escape(&row.text)));
    for check in checks.iter().filter(|check| !check.holds) {
        let (expected, found) = (escape(&check.expected), escape(&check.found));
        told += &format!("    expected {}\n    found    {}\n", folded(&expected), folded(&found));
    }
    told
}

/// Broken at blanks, below where it began.
fn folded(text: &str) -> String {
    const WIDTH: usize = 90;
    let (mut all, mut column) = (String::new(), 0);
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            all += "\n                     ";
            column = length;
        } else {
            all += if column > 0 { " " } else { "" };
            column += length + 1;
        }
        all += word;
    }
    all
}
