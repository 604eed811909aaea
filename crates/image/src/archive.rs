//! Reading a layer archive: tar headers, PAX and GNU extensions, strictly.
//!
//! One pass over a stream, memory bounded. Where tar readers are known to differ (a size in PAX and another in the
//! header, repeated keys, data behind a link) the PAX value wins as POSIX says, and what stays ambiguous is refused,
//! so that nothing can be smuggled between this reader and another one. Nothing here touches a file system.
//!
//! Sources: POSIX `pax` "ustar Interchange Format" and "pax Header Block", the GNU tar manual "Basic Tar Format".

use std::io::{BufRead, Read};

use tar::Header;

use crate::error::{Error, Result};
use crate::pax::{self, Pax};
use crate::sparse::{self, Region};
use crate::stream::PLAIN_MAX;

/// The longest PAX header or GNU long name.
const EXTENSION_MAX: u64 = 1 << 20;
/// The longest path or link target; Linux's `PATH_MAX`.
const PATH_MAX: usize = 4096;
/// How much may follow the end of the archive (record padding).
const PADDING_MAX: u64 = 64 << 20;
const BLOCK: usize = 512;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Link,
    Symlink,
    Char,
    Block,
    Folder,
    Fifo,
}

/// One entry, all extensions merged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Permission and set-id bits, at most 07777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    /// Its length as a file.
    pub size: u64,
    /// Where the data goes, if holes are left out of it.
    pub regions: Option<Vec<Region>>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What the extension headers before an entry said.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && self.pax.is_none()
    }
}

/// A tar stream that is read entry by entry.
pub(crate) struct Archive<R> {
    reader: R,
    /// Data and padding of the current entry that nobody has read yet.
    data: u64,
    padding: u64,
    entries: u64,
    /// What files with holes may still claim to hold.
    claims: u64,
}

impl<R: BufRead> Archive<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, data: 0, padding: 0, entries: 0, claims: PLAIN_MAX }
    }

    /// The next entry; none at the end of the archive. Data of the last one that was not read is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                if !extensions.is_empty() {
                    return Err(Error::archive("it ends behind an extension header"));
                }
                return Ok(None);
            };
            let size = number(&header.as_old().size, "size")?;
            match header.as_old().linkflag[0] {
                b'L' => once(&mut extensions.long_name, trimmed(self.extension(size)?)?, "long name")?,
                b'K' => once(&mut extensions.long_link, trimmed(self.extension(size)?)?, "long link")?,
                b'x' => once(&mut extensions.pax, pax::parse(&self.extension(size)?)?, "PAX header")?,
                b'g' if !extensions.is_empty() => {
                    return Err(Error::archive(
                        "a global PAX header stands between an entry and its extension headers",
                    ));
                }
                b'g' => {
                    let global = pax::parse(&self.extension(size)?)?;
                    if global.path.is_some()
                        || global.link.is_some()
                        || global.size.is_some()
                        || global.sparse.is_some()
                    {
                        return Err(Error::archive("a global PAX header sets a path or a size"));
                    }
                }
                flag => {
                    let sparse = extensions.pax.as_mut().and_then(|pax| pax.sparse.take());
                    let mut entry = merge(&header, flag, size, extensions)?;
                    self.data = entry.size;
                    self.padding = entry.size.next_multiple_of(BLOCK as u64) - entry.size;
                    self.entries += 1;
                    match (flag, sparse) {
                        (b'S', None) => self.old_sparse(&header, &mut entry)?,
                        (b'S', Some(_)) => return Err(Error::entry(&entry.path, "it has two maps of its holes")),
                        (_, Some(sparse)) => self.pax_sparse(sparse, &mut entry)?,
                        (_, None) => {}
                    }
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// The data of the current entry: what the buffer holds of it, read further when it is empty. Empty at its end.
    pub(crate) fn chunk(&mut self) -> Result<&[u8]> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let buffer = self.reader.fill_buf().map_err(stream)?;
        if buffer.is_empty() {
            return Err(Error::archive("it ends within an entry's data"));
        }
        let length = buffer.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        Ok(&buffer[..length])
    }

    /// GNU's old form of a file with holes: the map begins in the header and goes on in blocks behind it.
    fn old_sparse(&mut self, header: &Header, entry: &mut Entry) -> Result<()> {
        let refused = |why: &str| Error::entry(&entry.path, why);
        let gnu = header.as_gnu().ok_or_else(|| refused("it has holes, in an archive that is not GNU's"))?;
        let mut map = sparse::Map::new(&entry.path);
        let mut more = gnu.isextended[0] != 0;
        map.blocks(&gnu.sparse, more)?;
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.reader.read_exact(block.as_mut_bytes()).map_err(stream)?;
            more = block.isextended[0] != 0;
            map.blocks(&block.sparse, more)?;
        }
        let size = number(&gnu.realsize, "size")?;
        entry.regions = Some(map.finish(size, entry.size)?);
        self.claim(entry, size)
    }

    /// The three forms that GNU's tar gives a file with holes in a PAX archive.
    fn pax_sparse(&mut self, told: sparse::Told, entry: &mut Entry) -> Result<()> {
        if entry.kind != Kind::File {
            return Err(Error::entry(&entry.path, "it has holes, and is not a file"));
        }
        let path = std::mem::take(&mut entry.path);
        entry.path = told.name().map_or(path, <[u8]>::to_vec);
        check_name(&entry.path, &entry.path, "path")?;
        let size = told.size(&entry.path)?;
        let mut map = sparse::Map::new(&entry.path);
        if told.map_is_data(&entry.path)? {
            self.leading_map(&mut map)?;
        } else {
            told.fill(&mut map)?;
        }
        entry.regions = Some(map.finish(size, self.data)?);
        self.claim(entry, size)
    }

    /// The map that stands before the data, as decimal lines, filled up to a block.
    fn leading_map(&mut self, map: &mut sparse::Map<'_>) -> Result<()> {
        while !map.is_read() {
            let mut block = [0; BLOCK];
            if self.data < BLOCK as u64 {
                return Err(map.wrong("its map of holes is cut short"));
            }
            self.reader.read_exact(&mut block).map_err(stream)?;
            self.data -= BLOCK as u64;
            map.text(&block)?;
        }
        Ok(())
    }

    /// Holes cost nothing to send: what all files with holes claim together has the bound of a layer.
    fn claim(&mut self, entry: &mut Entry, size: u64) -> Result<()> {
        let left = self.claims.checked_sub(size);
        self.claims =
            left.ok_or_else(|| Error::entry(&entry.path, "with its holes the layer is larger than 64 GiB"))?;
        entry.size = size;
        Ok(())
    }

    /// Marks `length` bytes of the last chunk as used.
    pub(crate) fn used(&mut self, length: usize) {
        self.reader.consume(length);
        self.data -= length as u64;
    }

    /// Reads to the end of the stream, so that a hash over it is whole.
    pub(crate) fn finish(mut self) -> Result<R> {
        let mut left = PADDING_MAX;
        loop {
            let length = self.reader.fill_buf().map_err(stream)?.len();
            if length == 0 {
                return Ok(self.reader);
            }
            left = left
                .checked_sub(length as u64)
                .ok_or_else(|| Error::archive(format!("more than {} MiB follow its end mark", PADDING_MAX >> 20)))?;
            self.reader.consume(length);
        }
    }

    fn skip_rest(&mut self) -> Result<()> {
        let mut left = std::mem::take(&mut self.data) + std::mem::take(&mut self.padding);
        while left > 0 {
            let buffer = self.reader.fill_buf().map_err(stream)?;
            if buffer.is_empty() {
                return Err(Error::archive("it ends within an entry's data"));
            }
            let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.reader.consume(length);
            left -= length as u64;
        }
        Ok(())
    }

    /// One header block whose checksum is right; none at the two empty blocks, or at the end of the stream.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        if !self.block(&mut header)? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            if self.block(&mut header)? && header.as_bytes().iter().any(|byte| *byte != 0) {
                return Err(Error::archive("an empty block stands between its entries"));
            }
            return Ok(None);
        }
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let bytes = header.as_bytes();
        let expected = sum(&bytes[..148]) + 8 * u64::from(b' ') + sum(&bytes[156..]);
        if number(&header.as_old().cksum, "checksum")? != expected {
            return Err(Error::archive(match self.entries {
                0 => "it is not a tar archive".to_owned(),
                count => format!("the header after entry {count} has a wrong checksum"),
            }));
        }
        check_format(bytes)?;
        Ok(Some(header))
    }

    fn block(&mut self, header: &mut Header) -> Result<bool> {
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) if self.entries == 0 => return Err(Error::archive("it is not a tar archive")),
                Ok(0) => return Err(Error::archive("it ends within a header")),
                Ok(length) => filled += length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(stream(error)),
            }
        }
        Ok(true)
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > EXTENSION_MAX {
            return Err(Error::archive(format!("an extension header has {size} bytes, more than 1 MiB")));
        }
        let mut data = Vec::new();
        (&mut self.reader).take(size).read_to_end(&mut data).map_err(stream)?;
        if data.len() as u64 != size {
            return Err(Error::archive("it ends within an extension header"));
        }
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(data)
    }
}

fn stream(error: std::io::Error) -> Error {
    // An error of our own (a limit, a digest) travels through the readers as the source of an I/O error.
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => Error::archive(error.to_string()),
    }
}

fn once<T>(slot: &mut Option<T>, value: T, what: &str) -> Result<()> {
    if slot.replace(value).is_some() {
        return Err(Error::archive(format!("an entry has two headers of the kind {what}")));
    }
    Ok(())
}

/// What stands behind the link's target means a prefix of the name in POSIX' format, times and holes in GNU's, and nothing in
/// the oldest one; readers differ in how they tell one from the other. Where it could matter the header is refused.
fn check_format(header: &[u8]) -> Result<()> {
    let is_empty = |from: usize, to: usize| header[from..to].iter().all(|byte| *byte == 0);
    let clear = match &header[257..265] {
        // The format of `star` has times at the prefix's end, and says so at the header's.
        b"ustar\x0000" => &header[508..512] != b"tar\0" || header[475] == 0,
        b"ustar  \0" if header[156] == b'S' => is_empty(345, 386),
        _ => is_empty(345, 500),
    };
    if clear { Ok(()) } else { Err(Error::archive("a header is of no format that all readers understand alike")) }
}

fn merge(header: &Header, flag: u8, size: u64, extensions: Extensions) -> Result<Entry> {
    let old = header.as_old();
    let pax = extensions.pax.unwrap_or_default();
    let path = name(extensions.long_name, pax.path, || header.path_bytes().into_owned())?;
    let link = name(extensions.long_link, pax.link, || until_nul(&old.linkname).to_vec())?;
    let refused = |why: &str| Error::entry(&path, why);
    let kind = match flag {
        // An old archive marks a folder by the slash at its end only.
        0 if path.ends_with(b"/") => Kind::Folder,
        // Some readers make a folder of it, some a file.
        b'0' | b'7' | b'S' if path.ends_with(b"/") => return Err(refused("a file whose name ends with a slash")),
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::Link,
        b'2' => Kind::Symlink,
        b'3' => Kind::Char,
        b'4' => Kind::Block,
        b'5' => Kind::Folder,
        b'6' => Kind::Fifo,
        other => return Err(refused(&format!("entries of the type {:?} are not supported", char::from(other)))),
    };
    let size = pax.size.unwrap_or(size);
    if i64::try_from(size).is_err() {
        return Err(refused("its size does not fit a file"));
    }
    if kind != Kind::File && size != 0 {
        return Err(refused("it has data, and is not a file"));
    }
    check_name(&path, &path, "path")?;
    check_name(&path, &link, "link target")?;
    if matches!(kind, Kind::Link | Kind::Symlink) && link.is_empty() {
        return Err(refused("a link without a target"));
    }
    let device = match (kind, header.as_ustar(), header.as_gnu()) {
        (Kind::Char | Kind::Block, Some(ustar), _) => device(&path, &ustar.dev_major, &ustar.dev_minor)?,
        (Kind::Char | Kind::Block, None, Some(gnu)) => device(&path, &gnu.dev_major, &gnu.dev_minor)?,
        (Kind::Char | Kind::Block, None, None) => {
            return Err(refused("a device in an archive without device numbers"));
        }
        _ => (0, 0),
    };
    let mtime = match pax.mtime {
        Some(mtime) => mtime,
        None => (signed(&old.mtime, "mtime")?, 0),
    };
    Ok(Entry {
        kind,
        mode: (number(&old.mode, "mode")? & 0o7777) as u32,
        uid: id(&path, pax.uid.map_or_else(|| number(&old.uid, "uid"), Ok)?)?,
        gid: id(&path, pax.gid.map_or_else(|| number(&old.gid, "gid"), Ok)?)?,
        mtime,
        device,
        size,
        regions: None,
        xattrs: pax.xattrs,
        path,
        link,
    })
}

fn check_name(path: &[u8], name: &[u8], what: &str) -> Result<()> {
    if name.len() >= PATH_MAX {
        return Err(Error::entry(path, format!("its {what} is longer than {PATH_MAX} bytes")));
    }
    if name.contains(&0) {
        return Err(Error::entry(path, format!("its {what} has a NUL")));
    }
    Ok(())
}

/// GNU's long name or PAX's; both together would mean different things to different readers.
fn name(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>, header: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => Err(Error::archive("an entry has two long names that differ")),
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => Ok(header()),
    }
}

/// User and group ids are 32 bits, and the last one means "unchanged" to the kernel.
fn id(path: &[u8], value: u64) -> Result<u32> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Error::entry(path, format!("the owner {value} is out of range")))
}

/// Linux has 12 bits for a device's major number and 20 for its minor one.
fn device(path: &[u8], major: &[u8], minor: &[u8]) -> Result<(u32, u32)> {
    let (major, minor) = (number(major, "device number")?, number(minor, "device number")?);
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(Error::entry(path, format!("the device number {major}:{minor} is out of range")));
    }
    Ok((major as u32, minor as u32))
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

/// A long name ends at a NUL. An empty one means the header's name to some readers, and no name to others.
fn trimmed(mut name: Vec<u8>) -> Result<Vec<u8>> {
    name.truncate(until_nul(&name).len());
    if name.is_empty() { Err(Error::archive("a long name is empty")) } else { Ok(name) }
}

pub(crate) fn number(field: &[u8], what: &str) -> Result<u64> {
    u64::try_from(signed(field, what)?).map_err(|_| Error::archive(format!("a header has a negative {what}")))
}

/// An octal field, or GNU's base 256 with the highest bit set. Only what every reader takes for the same number: octal
/// digits with spaces around them, up to the first NUL.
fn signed(field: &[u8], what: &str) -> Result<i64> {
    let bad = || Error::archive(format!("a header has a malformed {what}"));
    if let Some(fill) = match field[0] {
        0x80 => Some(0),
        0xff => Some(0xff),
        _ => None,
    } {
        let mut value: i128 = if fill == 0 { 0 } else { -1 };
        for (n, byte) in field.iter().enumerate().skip(1) {
            if n + 8 < field.len() && *byte != fill {
                return Err(bad());
            }
            value = (value << 8) | i128::from(*byte);
        }
        return i64::try_from(value).map_err(|_| bad());
    }
    let text = until_nul(field);
    if text.is_empty() && field.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return Err(bad());
    }
    text.trim_ascii().iter().try_fold(0i64, |value, byte| match byte {
        b'0'..=b'7' => {
            value.checked_mul(8).and_then(|value| value.checked_add(i64::from(byte - b'0'))).ok_or_else(bad)
        }
        _ => Err(bad()),
    })
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
