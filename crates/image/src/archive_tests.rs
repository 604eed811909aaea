//! What this reader and others make of the same bytes: GNU tar, bsdtar, Python's tarfile and Go's archive/tar.
//!
//! Row C4 of the table of known flaws: where two readers see different entries, one of them checks what the other one
//! unpacks. So either all that read an archive to its end see what we see, or we refuse it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_tests::tar::Tar;
use serde_json::Value;
use tar::EntryType;

use super::*;

/// One entry as every reader can tell it: kind, name, length of a file or target of a link.
type Line = (char, String, String);

const PYTHON: &str = r#"
import json, sys, tarfile
for path in open(sys.argv[1]).read().split("\n"):
    try:
        lines = []
        with tarfile.open(path, "r:", encoding="latin-1") as archive:
            for member in archive:
                kinds = [("d", member.isdir()), ("l", member.issym()), ("h", member.islnk()), ("c", member.ischr()),
                         ("b", member.isblk()), ("p", member.isfifo()), ("-", member.isreg())]
                kind = next((kind for kind, true in kinds if true), "?")
                lines.append([kind, member.name, member.linkname if kind in "hl" else str(member.size)])
        print(json.dumps(lines))
    except Exception as error:
        print("null")
"#;

const GO: &str = r#"
package main
import ("archive/tar"; "encoding/json"; "fmt"; "io"; "os"; "strings")
func list(path string) [][]string {
	file, err := os.Open(path)
	if err != nil { panic(err) }
	defer file.Close()
	lines := [][]string{}
	archive := tar.NewReader(file)
	for {
		header, err := archive.Next()
		if err == io.EOF { return lines }
		if err != nil { return nil }
		kinds := map[byte]string{tar.TypeReg: "-", tar.TypeLink: "h", tar.TypeSymlink: "l", tar.TypeChar: "c",
			tar.TypeBlock: "b", tar.TypeDir: "d", tar.TypeFifo: "p", tar.TypeGNUSparse: "-", tar.TypeCont: "-"}
		if header.Typeflag == tar.TypeXGlobalHeader { continue }
		kind, known := kinds[header.Typeflag]
		if !known { kind = "?" }
		rest := fmt.Sprint(header.Size)
		if kind == "h" || kind == "l" { rest = header.Linkname }
		if _, err := io.Copy(io.Discard, archive); err != nil { return nil }
		lines = append(lines, []string{kind, header.Name, rest})
	}
}
func main() {
	paths, _ := os.ReadFile(os.Args[1])
	for _, path := range strings.Split(string(paths), "\n") {
		text, _ := json.Marshal(list(path))
		fmt.Println(string(text))
	}
}
"#;

/// The archives of one comparison, written to files.
struct Cases {
    folder: tempfile::TempDir,
    paths: Vec<(String, PathBuf)>,
}

impl Cases {
    fn new(cases: &[(String, Vec<u8>)]) -> Self {
        let folder = tempfile::Builder::new().prefix("hull-test-tar-").tempdir().expect("a folder");
        let write = |(n, (what, data)): (usize, &(String, Vec<u8>))| {
            let path = folder.path().join(n.to_string());
            std::fs::write(&path, data).expect("a file");
            (what.clone(), path)
        };
        let paths = cases.iter().enumerate().map(write).collect();
        Self { folder, paths }
    }

    /// What a program that reads a list of paths says of each.
    fn all(&self, mut program: Command) -> Vec<Option<Vec<Line>>> {
        let list = self.folder.path().join("list");
        let paths: Vec<_> = self.paths.iter().map(|(_, path)| path.to_string_lossy().into_owned()).collect();
        std::fs::write(&list, paths.join("\n")).expect("a list");
        let output = program.arg(&list).output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        let lines: Vec<_> = text.lines().map(parse_json).collect();
        assert_eq!(lines.len(), self.paths.len());
        lines
    }

    fn python(&self) -> Vec<Option<Vec<Line>>> {
        let mut python = Command::new("python3");
        python.args(["-c", PYTHON]);
        self.all(python)
    }

    fn go(&self) -> Vec<Option<Vec<Line>>> {
        let (source, program) = (self.folder.path().join("list.go"), self.folder.path().join("list-go"));
        std::fs::write(&source, GO).expect("a source");
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(&program).arg(&source).env("GOCACHE", self.folder.path().join("cache"));
        assert!(go.env("GO111MODULE", "off").status().expect("go is installed: `make deps` does it").success());
        self.all(Command::new(program))
    }

    /// What `tar -t` says, none if it complains.
    fn listed(&self, program: &str, flags: &[&str], read: fn(&str) -> Option<Line>) -> Vec<Option<Vec<Line>>> {
        let one = |path: &Path| {
            let mut list = Command::new(program);
            let output = list.args(flags).arg("-tvf").arg(path).env("LC_ALL", "C").env("TZ", "UTC").output();
            let output = output.unwrap_or_else(|error| panic!("{program}: {error}: `make deps` installs it"));
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let quiet = output.status.success() && output.stderr.is_empty();
            text.lines().map(read).collect::<Option<_>>().filter(|_| quiet)
        };
        self.paths.iter().map(|(_, path)| one(path)).collect()
    }

    fn peers(&self) -> BTreeMap<&'static str, Vec<Option<Vec<Line>>>> {
        BTreeMap::from([
            ("python", self.python()),
            ("go", self.go()),
            ("tar", self.listed("tar", &["--numeric-owner", "--full-time", "--quoting-style=literal"], gnu_line)),
            ("bsdtar", self.listed("bsdtar", &["--numeric-owner"], bsd_line)),
        ])
    }
}

fn parse_json(line: &str) -> Option<Vec<Line>> {
    let value: Value = serde_json::from_str(line).expect("JSON");
    let word = |value: &Value| value.as_str().expect("text").to_owned();
    let entry = |entry: &Value| (word(&entry[0]).chars().next().expect("a kind"), word(&entry[1]), word(&entry[2]));
    value.as_array().map(|lines| lines.iter().map(entry).collect())
}

/// `-rw-r--r-- 0/0  5 1970-01-01 00:16:40 name`
fn gnu_line(line: &str) -> Option<Line> {
    fields(line, 5, 2).map(|(kind, name, rest)| (if kind == 'C' { '-' } else { kind }, name, rest))
}

/// `-rw-r--r--  0 0 0  5 Jan  1  1970 name`
fn bsd_line(line: &str) -> Option<Line> {
    fields(line, 8, 4)
}

/// The kind, a name behind `count` columns, and the length in the column `size`.
fn fields(line: &str, count: usize, size: usize) -> Option<Line> {
    let (mut rest, mut columns) = (line, Vec::new());
    for _ in 0..count {
        let (column, after) = rest.trim_start().split_once(' ')?;
        columns.push(column);
        rest = after;
    }
    let kind = columns[0].chars().next()?;
    let link = rest.split_once(" link to ").or_else(|| rest.split_once(" -> "));
    Some(match (kind, link) {
        // bsdtar writes a hard link as the file that it becomes.
        (_, Some((name, target))) if kind == 'h' || kind == 'l' || line.contains(" link to ") => {
            (if kind == 'l' { 'l' } else { 'h' }, name.trim_start().to_owned(), target.to_owned())
        }
        _ => (kind, rest.trim_start().to_owned(), columns[size].to_owned()),
    })
}

fn ours(data: &[u8]) -> Result<Vec<Line>> {
    let mut archive = Archive::new(data);
    let mut lines = Vec::new();
    while let Some(entry) = archive.next()? {
        let kind = match entry.kind {
            Kind::File => '-',
            Kind::Link => 'h',
            Kind::Symlink => 'l',
            Kind::Char => 'c',
            Kind::Block => 'b',
            Kind::Folder => 'd',
            Kind::Fifo => 'p',
        };
        let latin = |text: &[u8]| text.iter().map(|byte| char::from(*byte)).collect::<String>();
        let rest = if "hl".contains(kind) { latin(&entry.link) } else { entry.size.to_string() };
        lines.push((kind, latin(&entry.path), rest));
    }
    archive.finish()?;
    Ok(lines)
}

/// Slashes at a name's end or side by side, and what a device is said to measure differ in how they are told, not in what is made.
fn comparable(lines: &[Line]) -> Vec<Line> {
    let plain = |(kind, name, rest): &Line| {
        let rest = if "-hl".contains(*kind) { rest.as_str() } else { "" };
        (*kind, name.replace("//", "/").trim_end_matches('/').to_owned(), rest.to_owned())
    };
    lines.iter().map(plain).collect()
}

/// Compares, and gives the number of archives that we took.
fn compare(cases: &[(String, Vec<u8>)]) -> usize {
    let written = Cases::new(cases);
    let peers = written.peers();
    for (peer, said) in &peers {
        assert!(said.iter().flatten().count() > 5, "{peer} reads hardly anything");
    }
    let mut taken = 0;
    let mut differences = Vec::new();
    for (n, (what, data)) in cases.iter().enumerate() {
        let Ok(lines) = ours(data) else { continue };
        taken += 1;
        // Each of the others has its own way to show these; Python gives them as they are.
        let printable = |text: &str| text.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
        let plain = lines.iter().all(|(_, name, rest)| printable(name) && printable(rest));
        for (peer, said) in peers.iter().filter(|(peer, _)| plain || **peer == "python") {
            if let Some(theirs) = &said[n]
                && comparable(theirs) != comparable(&lines)
            {
                differences.push(format!("{what}\n  hull   {lines:?}\n  {peer:6} {theirs:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    taken
}

/// An entry that another reader would find inside of what is data for us, or the other way round.
fn smuggled() -> Vec<u8> {
    Tar::default().file("smuggled", "x").0
}

fn directed() -> Vec<(String, Vec<u8>)> {
    let inner = smuggled();
    let size = inner.len().to_string();
    let data = |header_size: u64| Tar::header(EntryType::Regular, "outer", "", header_size);
    let number = |text: &[u8], change: fn(&mut tar::Header, &[u8])| {
        let header = Tar::header(EntryType::Regular, "a", "", 0);
        Tar::default().with(header, |header| change(header, text), b"").file("b", "x")
    };
    let size_field =
        |header: &mut tar::Header, text: &[u8]| header.as_old_mut().size[..text.len()].copy_from_slice(text);
    let mut cases: Vec<(String, Tar)> = vec![
        ("PAX size, header 0".into(), Tar::default().pax(&[("size", &size)]).raw(&data(0), &inner).file("b", "y")),
        (
            "PAX size 0, header full".into(),
            Tar::default().pax(&[("size", "0")]).raw(&data(inner.len() as u64), &inner),
        ),
        ("PAX size larger".into(), Tar::default().pax(&[("size", "1024")]).raw(&data(1), &inner).file("b", "y")),
        ("two PAX sizes".into(), Tar::default().pax(&[("size", "0"), ("size", &size)]).raw(&data(0), &inner)),
        ("two PAX paths".into(), Tar::default().pax(&[("path", "x"), ("path", "y")]).file("a", "")),
        ("two PAX headers".into(), Tar::default().pax(&[("path", "x")]).pax(&[("path", "y")]).file("a", "")),
        ("PAX header at the end".into(), Tar::default().file("a", "").pax(&[("path", "x")])),
        ("PAX path with NUL".into(), Tar::default().pax(&[("path", "x\0y")]).file("a", "")),
        ("PAX path empty".into(), Tar::default().pax(&[("path", "")]).file("a", "")),
        (
            "PAX of a link with a size".into(),
            Tar::default().file("a", "").pax(&[("size", "512")]).link("b", "a").file("c", ""),
        ),
        ("PAX without a newline".into(), Tar::default().pax_raw(b"9 path=xy").file("a", "")),
        ("PAX with a short length".into(), Tar::default().pax_raw(b"5 path=xy\n").file("a", "")),
        ("PAX with a long length".into(), Tar::default().pax_raw(b"99 path=xy\n").file("a", "")),
        ("PAX with a signed length".into(), Tar::default().pax_raw(b"+11 path=xy\n").file("a", "")),
        ("PAX with a length of 0".into(), Tar::default().pax_raw(b"0 path=xy\n").file("a", "")),
        ("PAX size with a sign".into(), Tar::default().pax(&[("size", "+1")]).file("a", "x").file("b", "")),
        ("PAX size negative".into(), Tar::default().pax(&[("size", "-1")]).file("a", "x").file("b", "")),
        ("PAX size 2^63".into(), Tar::default().pax(&[("size", "9223372036854775808")]).file("a", "x")),
        ("PAX size 2^64".into(), Tar::default().pax(&[("size", "18446744073709551616")]).file("a", "x")),
        ("PAX size in hexadecimal".into(), Tar::default().pax(&[("size", "0x1")]).file("a", "x")),
        (
            "a PAX header of 2 MiB".into(),
            Tar::default().pax(&[("comment", &"c".repeat(2 << 20)), ("path", "x")]).file("a", ""),
        ),
        ("a global PAX size".into(), global(&[("size", "512")]).file("a", "").file("b", "")),
        ("a global PAX path".into(), global(&[("path", "x")]).file("a", "").file("b", "")),
        ("a global PAX comment".into(), global(&[("comment", "x")]).file("a", "")),
        ("long names of both kinds".into(), long_name(b'L', b"gnu\0").pax(&[("path", "pax")]).file("a", "")),
        ("a long name with two ends".into(), long_name(b'L', b"one\0two\0").file("a", "")),
        ("a long name without an end".into(), long_name(b'L', b"name").file("a", "")),
        (
            "two long names".into(),
            Tar([long_name(b'L', b"one\0").0, long_name(b'L', b"two\0").0].concat()).file("a", ""),
        ),
        ("an empty long name".into(), long_name(b'L', b"\0").file("a", "")),
        ("a long link".into(), long_name(b'K', b"target\0").symlink("a", "short")),
        ("base 256".into(), number(b"\x80\0\0\0\0\0\0\0\0\0\0\0", size_field)),
        ("base 256 with high bits".into(), number(b"\x80\x01\0\0\0\0\0\0\0\0\0\0", size_field)),
        ("base 256 of 2^63".into(), number(b"\x80\0\0\0\x80\0\0\0\0\0\0\0", size_field)),
        ("base 256 negative".into(), number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", size_field)),
        ("octal with a minus".into(), number(b"-0000000001\0", size_field)),
        ("octal with spaces".into(), number(b"         0 \0", size_field)),
        ("octal with 8".into(), number(b"00000000008\0", size_field)),
        ("octal with an end inside".into(), number(b"0000\x000000001", size_field)),
        ("an empty size".into(), number(b"            ", size_field)),
        ("a size without an end".into(), number(b"000000000000", size_field)),
        (
            "a folder with a size".into(),
            Tar::default().raw(&Tar::header(EntryType::Directory, "d", "", 1536), &inner).file("b", ""),
        ),
        (
            "a link with a size".into(),
            Tar::default().raw(&Tar::header(EntryType::Link, "d", "x", 1536), &inner).file("b", ""),
        ),
        (
            "a symlink with a size".into(),
            Tar::default().raw(&Tar::header(EntryType::Symlink, "d", "x", 1536), &inner).file("b", ""),
        ),
        (
            "a FIFO with a size".into(),
            Tar::default().raw(&Tar::header(EntryType::Fifo, "d", "", 1536), &inner).file("b", ""),
        ),
        ("a file with a slash".into(), Tar::default().file("d/", "")),
        (
            "an old file with a slash".into(),
            Tar::default().with(Tar::header(EntryType::new(0), "d/", "", 0), |_| (), b""),
        ),
        (
            "a contiguous file".into(),
            Tar::default().raw(&Tar::header(EntryType::Continuous, "d", "", 1536), &inner).file("b", ""),
        ),
        (
            "an empty block".into(),
            Tar(Tar::default().file("a", "").0.into_iter().chain([0; 512]).collect()).file("b", ""),
        ),
        ("an end in between".into(), Tar(Tar::default().file("a", "").end()).file("b", "")),
    ];
    for kind in *b"89ABDINMQVXgx" {
        let entry = Tar::default().raw(&Tar::header(EntryType::new(kind), "k", "", 1536), &inner).file("b", "");
        cases.push((format!("the type {}", char::from(kind)), entry));
    }
    let mut cases: Vec<_> = cases.into_iter().map(|(what, tar)| (what, tar.end())).collect();
    cases.push(("nothing".into(), Vec::new()));
    cases.push(("no end".into(), Tar::default().file("a", "x").0));
    cases.push(("an end of one block".into(), [Tar::default().file("a", "x").0, vec![0; 512]].concat()));
    cases
}

fn global(records: &[(&str, &str)]) -> Tar {
    let mut tar = Tar::default().pax(records);
    let header = tar::Header::from_byte_slice(&tar.0[..512]).clone();
    let data = tar.0.split_off(512);
    let size = header.size().expect("a size") as usize;
    Tar::default().with(header, |header| header.set_entry_type(EntryType::XGlobalHeader), &data[..size])
}

fn long_name(kind: u8, name: &[u8]) -> Tar {
    Tar::default().raw(&Tar::header(EntryType::new(kind), "././@LongLink", "", name.len() as u64), name)
}

/// Archives as GNU's tar writes them, in every format and every form of holes.
fn real() -> Vec<(String, Vec<u8>)> {
    let folder = tempfile::Builder::new().prefix("hull-test-tar-").tempdir().expect("a folder");
    let tree = folder.path().join("tree");
    std::fs::create_dir_all(tree.join("d/e")).expect("a folder");
    std::fs::write(tree.join("d/file"), "some text").expect("a file");
    std::fs::write(tree.join("d/e").join("n".repeat(120)), "").expect("a file");
    std::os::unix::fs::symlink("d/file", tree.join("link")).expect("a link");
    std::fs::hard_link(tree.join("d/file"), tree.join("twin")).expect("a link");
    let holes = std::fs::File::create(tree.join("holes")).expect("a file");
    for at in (0..40).map(|n| n * (64 << 10)) {
        std::os::unix::fs::FileExt::write_all_at(&holes, b"data", at).expect("data");
    }
    holes.set_len(4 << 20).expect("a length");
    let formats: [(&str, &[&str]); 7] = [
        ("gnu", &["--format=gnu"]),
        ("pax", &["--format=posix"]),
        ("ustar", &["--format=ustar", "--exclude=nnn*"]),
        ("gnu with holes", &["--format=gnu", "--sparse"]),
        ("0.0", &["--format=posix", "--sparse", "--sparse-version=0.0"]),
        ("0.1", &["--format=posix", "--sparse", "--sparse-version=0.1"]),
        ("1.0", &["--format=posix", "--sparse", "--sparse-version=1.0"]),
    ];
    let archive = |(name, flags): &(&str, &[&str])| {
        let mut tar = Command::new("tar");
        let tar = tar.arg("-C").arg(&tree).args(*flags).args(["--sort=name", "-cf", "-", "."]).output().expect("tar");
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        (format!("format {name}"), tar.stdout)
    };
    formats.iter().map(archive).collect()
}

/// Where the headers of an archive stand, extension headers included.
fn headers(data: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + BLOCK <= data.len() && data[at] != 0 {
        found.push(at);
        let header = tar::Header::from_byte_slice(&data[at..at + BLOCK]);
        let size = usize::try_from(header.entry_size().expect("a size")).expect("small");
        at += BLOCK;
        if header.as_gnu().is_some_and(|gnu| gnu.is_extended()) {
            while data[at + 504] != 0 {
                at += BLOCK;
            }
            at += BLOCK;
        }
        at += size.next_multiple_of(BLOCK);
    }
    found
}

/// A change somewhere in the headers of an archive, or just behind one, with a checksum that is right again.
fn changed(data: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).expect("31 bits") % limit
    };
    let mut data = data.to_vec();
    let all = headers(&data);
    let at = all[below(all.len())];
    // Fields by their places: name, size, kind, link, magic, and in GNU's format the map of holes.
    let fields = [(0, 8), (124, 12), (156, 1), (157, 8), (257, 8), (345, 8), (386, 48), (482, 13), (512, 64)];
    let values = *b"\0\x80\xff 0123457789/.=xLKgSD12";
    let (start, length) = fields[below(fields.len())];
    for _ in 0..=below(3) {
        let place = at + start + below(length);
        if place < data.len() {
            data[place] = values[below(values.len())];
        }
    }
    let header = &mut data[at..at + BLOCK];
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    data
}

/// CVE-2025-62518, CVE-2026-33055. Fails if the size in the header wins over the one in PAX, if a key may stand twice in a
/// PAX header, or if a malformed record is skipped.
#[test]
fn c4_every_reader_sees_what_we_see_or_we_refuse() {
    let cases = directed();
    let taken = compare(&cases);
    assert!(taken > 10, "{taken} of {}", cases.len());
    let real = real();
    assert_eq!(compare(&real), real.len());
}

#[test]
fn c4_nothing_is_seen_by_us_alone_however_a_header_is_changed() {
    let real = real();
    let changes = (0..600).map(|seed| {
        let (what, data) = &real[usize::try_from(seed).expect("small") % real.len()];
        (format!("{what}, seed {seed}"), changed(data, seed))
    });
    let taken = compare(&changes.collect::<Vec<_>>());
    assert!(taken > 200, "{taken} were taken");
}
