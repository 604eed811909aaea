//! PAX headers: what their records say of the next entry.
//!
//! A key that stands there twice, or a value that cannot be read, is an error: readers differ in which of the two they
//! believe. Source: POSIX `pax`, "pax Header Block"; the GNU tar manual, "Sparse Formats".

use crate::error::{Error, Result};
use crate::sparse::Told;

/// What a PAX header says, as far as it matters to what is made.
#[derive(Default)]
pub(crate) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    pub sparse: Option<Told>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The records of a PAX header: `<length> <key>=<value>\n`, the length counting all of it.
pub(crate) fn parse(mut data: &[u8]) -> Result<Pax> {
    let bad = || Error::archive("a PAX header is malformed");
    let mut pax = Pax::default();
    while !data.is_empty() {
        let space = data.iter().take(20).position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length = decimal(&data[..space]).and_then(|length| usize::try_from(length).ok()).ok_or_else(bad)?;
        if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
            return Err(bad());
        }
        let text = &data[space + 1..length - 1];
        let equals = text.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        record(&mut pax, &text[..equals], &text[equals + 1..])?;
        data = &data[length..];
    }
    Ok(pax)
}

fn record(pax: &mut Pax, key: &[u8], value: &[u8]) -> Result<()> {
    let bad = || Error::archive(format!("the PAX record {:?} is malformed", String::from_utf8_lossy(key)));
    if key.is_empty() || key.contains(&0) {
        return Err(bad());
    }
    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        if name.is_empty() || pax.xattrs.iter().any(|(known, _)| known == name) {
            return Err(bad());
        }
        pax.xattrs.push((name.to_vec(), value.to_vec()));
        return Ok(());
    }
    if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
        return pax.sparse.get_or_insert_default().record(name, value).ok_or_else(bad);
    }
    let fresh = match key {
        b"path" => pax.path.replace(value.to_vec()).is_none() && !value.is_empty(),
        b"linkpath" => pax.link.replace(value.to_vec()).is_none() && !value.is_empty(),
        b"size" => pax.size.replace(decimal(value).ok_or_else(bad)?).is_none(),
        b"uid" => pax.uid.replace(decimal(value).ok_or_else(bad)?).is_none(),
        b"gid" => pax.gid.replace(decimal(value).ok_or_else(bad)?).is_none(),
        b"mtime" => pax.mtime.replace(time(value).ok_or_else(bad)?).is_none(),
        // Everything else (atime, uname, comment, …) says nothing about what is made.
        _ => true,
    };
    if fresh { Ok(()) } else { Err(bad()) }
}

pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with an optional fraction, possibly before the epoch.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = (0..9).fold(0u32, |nanos, n| nanos * 10 + fraction.get(n).map_or(0, |digit| u32::from(digit - b'0')));
    match (negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanos)),
    }
}
