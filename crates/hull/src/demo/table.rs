//! The demo's table: what host and container see, a verdict for each line, and the words around it. Pure.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::table::escape;
use crate::verify::{Check, Expect, Facts, Row, line, sections};

/// What the host's /proc shows of the container's first process.
pub struct Outside {
    pub pid: u32,
    pub namespaces: BTreeMap<String, u64>,
}

/// What came of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The container has one of its own.
    Own,
    /// A limit or a restriction holds.
    InForce,
    /// It is the host's, and nothing else was asked for.
    Shared,
    /// What was asked for is not so: what was expected, what was found.
    Broken(String, String),
    /// Nobody has said what should be so.
    Unchecked,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    section: &'static str,
    what: String,
    host: String,
    inside: String,
    verdict: Verdict,
}

impl Line {
    /// Whether it is as asked.
    pub fn holds(&self) -> bool {
        !matches!(self.verdict, Verdict::Broken(..) | Verdict::Unchecked)
    }
}

/// A line for each thing that the container sees, with what the host sees in its place.
pub fn compare(host: &Facts, inside: &Facts, outside: &Outside, asked: &Expect) -> Vec<Line> {
    let checks: Vec<Check> = asked.check(inside).into_iter().chain(differences(host, inside, outside)).collect();
    let shared: BTreeSet<String> = shared(asked);
    let hosts: BTreeMap<String, Row> =
        sections(host).into_iter().flat_map(|section| section.rows).map(|row| (row.what.clone(), row)).collect();
    let mut lines = Vec::new();
    for section in sections(inside) {
        for row in section.rows {
            let host = match hosts.get(&row.what) {
                // The same process, by the number that the host has for it.
                _ if row.what == line::PID => outside.pid.to_string(),
                Some(row) => row.brief.clone(),
                None => "-".to_owned(),
            };
            let verdict = verdict(&row.what, &checks, &shared);
            lines.push(Line { section: section.title, what: row.what, host, inside: row.brief, verdict });
        }
    }
    // A thing that was asked for and of which the container sees nothing.
    let missing = checks.iter().filter(|check| !check.holds && !lines.iter().any(|line| line.what == check.what));
    let missing: Vec<Line> = missing.map(|check| lost(check, &hosts)).collect();
    lines.extend(missing);
    lines
}

fn lost(check: &Check, hosts: &BTreeMap<String, Row>) -> Line {
    Line {
        section: "what is missing",
        what: check.what.clone(),
        host: hosts.get(&check.what).map_or_else(|| "-".to_owned(), |row| row.brief.clone()),
        inside: "-".to_owned(),
        verdict: Verdict::Broken(check.expected.clone(), check.found.clone()),
    }
}

/// What only shows when both are looked at: the root and the mounts, and that the host sees the same process.
fn differences(host: &Facts, inside: &Facts, outside: &Outside) -> Vec<Check> {
    let check = |what: String, expected: &str, found: String, holds: bool| Check {
        what,
        expected: expected.to_owned(),
        found,
        holds,
    };
    let mut all = Vec::new();
    // Numbers of mounts are unique on the machine.
    let ids: BTreeSet<u64> = host.mounts.iter().map(|mount| mount.id).collect();
    let common = inside.mounts.iter().filter(|mount| ids.contains(&mount.id)).count();
    all.push(check(line::MOUNTS.to_owned(), "none of the host's", format!("{common} of the host's"), common == 0));
    let place = |facts: &Facts| facts.root().map(|root| (root.device.clone(), root.root.clone()));
    let (theirs, ours) = (place(inside), place(host));
    let found =
        theirs.as_ref().map_or_else(|| "none".to_owned(), |(device, root)| format!("{root} of device {device}"));
    all.push(check(line::ROOT.to_owned(), "another than the host's", found, theirs.is_some() && theirs != ours));
    let own_number = outside.pid != inside.pid;
    all.push(check(line::PID.to_owned(), "another number outside", outside.pid.to_string(), own_number));
    for (kind, inode) in &inside.namespaces {
        let seen = outside.namespaces.get(kind);
        let found = seen.map_or_else(|| "nothing".to_owned(), u64::to_string);
        let expected = format!("{inode}, also from outside");
        all.push(check(line::namespace(kind), &expected, found, seen == Some(inode)));
    }
    all
}

/// Lines in which the container is to have what the host has.
fn shared(asked: &Expect) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = asked.shared_ns.iter().map(|(kind, _)| line::namespace(kind)).collect();
    if all.contains(&line::namespace("user")) {
        all.extend([line::USER, line::UID_MAP, line::GID_MAP].map(str::to_owned));
    }
    if all.contains(&line::namespace("net")) {
        all.insert(line::INTERFACES.to_owned());
    }
    all
}

fn verdict(what: &str, checks: &[Check], shared: &BTreeSet<String>) -> Verdict {
    const RESTRICTIONS: [&str; 8] = [
        line::HIDDEN,
        line::FROZEN,
        line::CAPABILITIES,
        line::BOUNDING,
        line::SECCOMP,
        line::NO_NEW_PRIVS,
        line::PIDS,
        line::MEMORY,
    ];
    let of_line: Vec<&Check> = checks.iter().filter(|check| check.what == what).collect();
    match of_line.iter().find(|check| !check.holds) {
        Some(broken) => Verdict::Broken(broken.expected.clone(), broken.found.clone()),
        None if of_line.is_empty() => Verdict::Unchecked,
        None if shared.contains(what) => Verdict::Shared,
        None if RESTRICTIONS.contains(&what) => Verdict::InForce,
        None => Verdict::Own,
    }
}

/// What a reader should see in a section.
fn lesson(section: &str) -> &'static str {
    match section {
        "who it is" => "A container is a process. In there it is number 1, out here one number among many.",
        "namespaces, by inode number" => {
            "A namespace is a list of names: of mounts, processes, interfaces. Another inode is another list."
        }
        "what it sees" => "Other mounts, so another root. What no namespace divides is covered or made read-only.",
        "what it may do" => "Its root is the host's uid 0, so root's rights are taken from it instead, for good.",
        "how much it may use" => {
            "A limit is a number in a file of its control group. The kernel refuses what is beyond it."
        }
        _ => "This was asked for, and nothing of it is to be seen.",
    }
}

/// The table, and `command` to go on with.
pub fn render(lines: &[Line], command: &[String]) -> String {
    let mut told = String::from("One program, `hull verify`, on this host and as the only process of a container.\n");
    let width = |cell: fn(&Line) -> &String, least: usize| {
        lines.iter().map(|line| escape(cell(line)).chars().count()).max().unwrap_or(0).max(least)
    };
    let (what, host, inside) = (width(|l| &l.what, 0), width(|l| &l.host, 4), width(|l| &l.inside, 9));
    told += &format!("\n  {:what$}  {:host$}  {:inside$}\n", "", "HOST", "CONTAINER");
    let mut section = "";
    for line in lines {
        if line.section != section {
            section = line.section;
            told += &format!("\n{section}\n  {}\n\n", lesson(section));
        }
        let mark = match line.verdict {
            Verdict::Own => "✓ its own".to_owned(),
            Verdict::InForce => "✓ in force".to_owned(),
            Verdict::Shared => "= the host's".to_owned(),
            Verdict::Broken(..) => "✗ not as asked".to_owned(),
            Verdict::Unchecked => "✗ nobody checked it".to_owned(),
        };
        let cells = [&line.what, &line.host, &line.inside].map(|cell| escape(cell));
        told += &format!("  {:what$}  {:host$}  {:inside$}  {mark}\n", cells[0], cells[1], cells[2]);
        if let Verdict::Broken(expected, found) = &line.verdict {
            told += &format!("  {:what$}  expected {}, found {}\n", "", escape(expected), escape(found));
        }
    }
    told += &format!("\n{}\n", summary(lines));
    told += "  ✓  checked, from inside and where it can be seen from outside too\n";
    told += "  =  the host's, because nothing of its own was asked for\n";
    told += &format!(
        "\nThe container was made by this command. With --explain behind `run` it tells every step:\n\n    {}\n",
        shell(command)
    );
    told
}

fn summary(lines: &[Line]) -> String {
    let count = |wanted: fn(&Verdict) -> bool| lines.iter().filter(|line| wanted(&line.verdict)).count();
    let broken = lines.iter().filter(|line| !line.holds()).count();
    if broken > 0 {
        return format!("{broken} of {} lines are not as asked: the container is not isolated.", lines.len());
    }
    let own = count(|verdict| *verdict == Verdict::Own);
    let in_force = count(|verdict| *verdict == Verdict::InForce);
    let shared = count(|verdict| *verdict == Verdict::Shared);
    format!("All {} lines are as asked: {own} its own, {in_force} in force, {shared} the host's.", lines.len())
}

/// The words as a shell reads them, on several lines if one is too long; a flag stays with its value.
fn shell(command: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    let quoted = command.iter().map(|word| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    });
    let mut groups: Vec<String> = Vec::new();
    for word in quoted {
        match groups.last_mut() {
            Some(flag) if flag.starts_with("--") && !flag.contains(' ') && !word.starts_with('-') => {
                *flag += &format!(" {word}");
            }
            _ => groups.push(word),
        }
    }
    let (mut all, mut column) = (String::new(), 0);
    for group in groups {
        let length = group.chars().count();
        if column > 0 && column + length > 84 {
            all += " \\\n        ";
            column = 4;
        } else if column > 0 {
            all.push(' ');
        }
        column += length + 1;
        all += &group;
    }
    all
}
