//! Bytes become archives: as they are, or entry by entry as they say, so that mutations reach beyond the first checksum.

use std::path::Path;

use arbitrary::{Result, Unstructured};
use hull_tests::tar::Tar;
use tar::{EntryType, Header};

const BLOCK: usize = 512;
const ENTRIES_MAX: usize = 24;
const LAYERS_MAX: usize = 3;
/// What names and targets are made of: few, so that entries get into each other's way.
const PARTS: [&str; 16] = [
    "a",
    "b",
    "c",
    ".",
    "..",
    "",
    "l",
    "dev",
    "proc",
    ".wh.a",
    ".wh.l",
    ".wh..wh..opq",
    ".wh..wh.plnk",
    ".wh.",
    "sentinel",
    "file",
];
const KEYS: [&str; 16] = [
    "path",
    "linkpath",
    "size",
    "uid",
    "gid",
    "mtime",
    "SCHILY.xattr.user.a",
    "SCHILY.xattr.trusted.overlay.opaque",
    "SCHILY.xattr.security.capability",
    "LIBARCHIVE.xattr.user.b",
    "GNU.sparse.major",
    "GNU.sparse.minor",
    "GNU.sparse.name",
    "GNU.sparse.realsize",
    "GNU.sparse.map",
    "GNU.sparse.size",
];
const VALUES: [&str; 8] = ["0", "1", "-1", "512", "18446744073709551615", "0,1,1024,1", "1.5", "y"];

/// The layers of an image. What says nothing of `out`, a folder of the host, is about it all the same.
pub fn layers(data: &[u8], out: &Path) -> Vec<Vec<u8>> {
    let out = out.to_string_lossy().into_owned();
    match data.split_first() {
        None => Vec::new(),
        Some((0, raw)) => vec![raw.to_vec()],
        Some((1, raw)) => vec![checked(raw.to_vec())],
        Some((_, program)) => {
            let mut bytes = Unstructured::new(program);
            let count = 1 + usize::from(bytes.arbitrary::<u8>().unwrap_or(0)) % LAYERS_MAX;
            (0..count).map(|_| layer(&mut bytes, &out)).collect()
        }
    }
}

/// Gives every block that could be a header a right checksum.
fn checked(mut raw: Vec<u8>) -> Vec<u8> {
    for block in raw.chunks_exact_mut(BLOCK).filter(|block| block.iter().any(|byte| *byte != 0)) {
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
    raw.resize(raw.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    raw
}

fn layer(bytes: &mut Unstructured<'_>, out: &str) -> Vec<u8> {
    let mut tar = Tar::default();
    for _ in 0..ENTRIES_MAX {
        match bytes.is_empty() || bytes.ratio(1, 8).unwrap_or(true) {
            true => break,
            false => tar = entry(bytes, tar.clone(), out).unwrap_or(tar),
        }
    }
    tar.end()
}

fn entry(bytes: &mut Unstructured<'_>, tar: Tar, out: &str) -> Result<Tar> {
    let name = name(bytes, out)?;
    let short = &name[..name.len().min(99)];
    Ok(match bytes.int_in_range(0..=13u8)? {
        0 | 1 => tar.file(short, std::str::from_utf8(bytes.bytes(3)?).unwrap_or("x")),
        2 | 3 => tar.folder(short),
        4 => tar.symlink(short, &self::name(bytes, out)?[..].chars().take(99).collect::<String>()),
        5 => tar.link(short, &self::name(bytes, out)?[..].chars().take(99).collect::<String>()),
        6 => tar.device(short, bytes.int_in_range(0..=2u32)?, bytes.int_in_range(0..=3u32)?),
        7 => tar.entry(*bytes.choose(&[EntryType::Fifo, EntryType::Block, EntryType::Continuous])?, short, ""),
        8 => {
            let value = if bytes.arbitrary()? { name.clone() } else { (*bytes.choose(&VALUES)?).to_owned() };
            tar.pax(&[(bytes.choose(&KEYS)?, &value)])
        }
        9 => {
            let size = bytes.arbitrary_len::<u8>()?.min(2 * BLOCK);
            tar.pax_raw(bytes.bytes(size)?)
        }
        10 => {
            let kind = *bytes.choose(&[EntryType::GNULongName, EntryType::GNULongLink, EntryType::XGlobalHeader])?;
            let long = format!("{name}\0");
            tar.raw(&Tar::header(kind, "././@LongLink", "", long.len() as u64), long.as_bytes())
        }
        11 => sparse(bytes, tar, short)?,
        // One field is anything at all.
        12 => {
            let (at, with): (u16, [u8; 4]) = (bytes.arbitrary()?, bytes.arbitrary()?);
            let at = usize::from(at) % (BLOCK - with.len());
            let change = |header: &mut Header| header.as_mut_bytes()[at..at + with.len()].copy_from_slice(&with);
            tar.with(Tar::header(EntryType::Regular, short, "", 0), change, b"")
        }
        _ => {
            let (mode, uid): (u32, u64) = (bytes.arbitrary()?, bytes.arbitrary()?);
            let change = |header: &mut Header| {
                header.set_mode(mode & 0o7_777_777);
                header.set_uid(uid);
            };
            tar.with(Tar::header(EntryType::Directory, short, "", 0), change, b"")
        }
    })
}

/// A file with holes in GNU's old form.
fn sparse(bytes: &mut Unstructured<'_>, tar: Tar, name: &str) -> Result<Tar> {
    let (at, length, real): (u16, u16, u32) = (bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?);
    let data = bytes.int_in_range(0..=2 * BLOCK)?;
    let mut header = Header::new_gnu();
    let plain = Tar::header(EntryType::GNUSparse, name, "", data as u64);
    header.as_mut_bytes()[..257].copy_from_slice(&plain.as_bytes()[..257]);
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.sparse[0].set_offset(at.into());
        gnu.sparse[0].set_length(length.into());
        gnu.set_real_size(real.into());
    }
    header.set_cksum();
    Ok(tar.raw(&header, &vec![b'x'; data]))
}

/// A name or target: parts strung together, or a way to the folder of the host.
fn name(bytes: &mut Unstructured<'_>, out: &str) -> Result<String> {
    Ok(match bytes.int_in_range(0..=9u8)? {
        0 => out.to_owned(),
        1 => format!("{out}/{}", bytes.choose(&PARTS)?),
        2 => format!("{}{out}", "../".repeat(bytes.int_in_range(1..=12)?).trim_end_matches('/')),
        3 => "long/".repeat(bytes.int_in_range(1..=60)?),
        _ => {
            let count = bytes.int_in_range(1..=4)?;
            let parts = (0..count).map(|_| bytes.choose(&PARTS).copied()).collect::<Result<Vec<_>>>()?;
            parts.join("/")
        }
    })
}
