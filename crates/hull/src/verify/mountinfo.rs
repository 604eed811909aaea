//! The mount table, one struct a line. Pure.
//!
//! Source: `proc_pid_mountinfo(5)`.

use serde::{Deserialize, Serialize};

/// One mount of this process's mount namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Its number, which no other mount of the machine has at the same time.
    pub id: u64,
    /// The number of the mount that it is attached to.
    pub parent: u64,
    /// Device number of the file system, `MAJOR:MINOR`.
    pub device: String,
    /// The folder of that file system which is seen here.
    pub root: String,
    /// Where.
    pub target: String,
    /// Options of this mount.
    pub options: String,
    /// Kind of the file system, such as `tmpfs`.
    pub kind: String,
    /// What it says it is made of.
    pub source: String,
    /// Options of the file system.
    pub super_options: String,
}

impl Mount {
    /// Whether nothing can be written through it.
    pub fn read_only(&self) -> bool {
        let has = |options: &str| options.split(',').any(|option| option == "ro");
        has(&self.options) || has(&self.super_options)
    }
}

/// Every line of `text`; none if one of them is not as the manual has it.
pub fn parse(text: &str) -> Option<Vec<Mount>> {
    text.lines().map(line).collect()
}

fn line(line: &str) -> Option<Mount> {
    // Optional fields end with the lone dash.
    let (before, after) = line.split_once(" - ")?;
    let mut first = before.split(' ');
    let mut last = after.split(' ');
    Some(Mount {
        id: first.next()?.parse().ok()?,
        parent: first.next()?.parse().ok()?,
        device: first.next()?.to_owned(),
        root: unescape(first.next()?),
        target: unescape(first.next()?),
        options: first.next()?.to_owned(),
        kind: last.next()?.to_owned(),
        source: unescape(last.next()?),
        super_options: last.next()?.to_owned(),
    })
}

/// Blanks, line ends and backslashes are written as three octal digits behind a backslash.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        };
        match (first, tail.get(..3).and_then(octal)) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart_with_and_without_optional_fields() {
        let text = "36 35 98:0 /mnt1 /a\\040b rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
                    37 36 0:5 / /t ro - tmpfs tmpfs rw\n";
        let all = parse(text).unwrap();
        assert_eq!((all[0].id, all[0].parent, all[0].device.as_str()), (36, 35, "98:0"));
        assert_eq!((all[0].root.as_str(), all[0].target.as_str()), ("/mnt1", "/a b"));
        assert_eq!((all[0].kind.as_str(), all[0].source.as_str()), ("ext3", "/dev/root"));
        assert!(!all[0].read_only() && all[1].read_only());
        assert_eq!(parse("36 35 98:0 / /\n"), None);
    }

    #[test]
    fn a_backslash_that_begins_no_octal_number_stays() {
        assert_eq!(unescape("a\\134b\\9x\\04"), "a\\b\\9x\\04");
    }
}
