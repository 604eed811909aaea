//! A layer's bytes on their way: hashed, kept, decompressed and hashed again, in one pass.
//!
//! The compressed side gives the blob's digest, the plain side the diff id. Formats are told by their first bytes, as
//! the media type in a manifest is often wrong. Nothing here knows about entries or the store.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{Cannot, Error, Result};
use crate::gunzip::Gunzip;
use crate::reference::{Digest, hex};

/// One read, one write and one hash each work on this much: it stays in the processor's cache on the way.
pub(crate) const BUFFER: usize = 256 << 10;
/// The bytes by which a format and the window that it needs are told.
const START: usize = 9;
/// The most that one layer may unpack to, against archives that are small only when compressed.
pub(crate) const PLAIN_MAX: u64 = 64 << 30;
/// zstd's window, 8 MiB: what every decoder should take (RFC 8878, section 3.1.1.1.2) and ordinary levels need.
const WINDOW_LOG: u32 = 23;
/// The largest, 128 MiB: what its own command line allows without being asked. One layer at a time may have it.
const WINDOW_LOG_MAX: u32 = 27;
/// Held by the layer that has a large window.
static LARGE_WINDOW: Mutex<()> = Mutex::new(());

/// A hash of the algorithm that a digest names.
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// Of the algorithm of `like`; of sha256, if there is none.
    pub(crate) fn like(like: Option<&Digest>) -> Self {
        Self::new(like.map_or("sha256", Digest::algorithm))
    }

    fn new(algorithm: &str) -> Self {
        if algorithm == "sha512" { Hasher::Sha512(Box::default()) } else { Hasher::Sha256(Sha256::new()) }
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        match self {
            Hasher::Sha256(hash) => hash.update(data),
            Hasher::Sha512(hash) => hash.update(data),
        }
    }

    pub(crate) fn finish(self) -> Result<Digest> {
        match self {
            Hasher::Sha256(hash) => Ok(Digest::from_sha256(hash.finalize().into())),
            Hasher::Sha512(hash) => format!("sha512:{}", hex(&hash.finalize())).parse(),
        }
    }
}

/// The digest of `data` in the algorithm of `like`.
pub(crate) fn digest_as(like: &Digest, data: &[u8]) -> Result<Digest> {
    let mut hasher = Hasher::like(Some(like));
    hasher.update(data);
    hasher.finish()
}

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all: a tar archive.
    Plain,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Packing {
    /// Told by the first bytes of a file, whose position stays.
    pub(crate) fn of(file: &File) -> Result<Self> {
        let mut start = [0; 4];
        let length = std::os::unix::fs::FileExt::read_at(file, &mut start, 0).cannot("read", "a layer")?;
        Ok(Self::told_by(&start[..length]))
    }

    pub(crate) fn told_by(start: &[u8]) -> Self {
        if start.starts_with(&[0x1f, 0x8b]) {
            Packing::Gzip
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable(start) {
            Packing::Zstd
        } else {
            Packing::Plain
        }
    }

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Packing::Plain => "tar",
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
        }
    }

    /// Docker's media type of such a layer.
    pub(crate) fn docker_media_type(self) -> &'static str {
        match self {
            Packing::Plain => "application/vnd.docker.image.rootfs.diff.tar",
            Packing::Gzip => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Packing::Zstd => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        }
    }

    /// The OCI media type of such a layer.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Packing::Plain => "application/vnd.oci.image.layer.v1.tar",
            Packing::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Packing::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// Passes bytes on, hashing them and writing a copy.
pub(crate) struct Tee<R> {
    inner: R,
    hash: Option<Hasher>,
    copy: Option<File>,
    length: u64,
    limit: u64,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut length = self.inner.read(buffer)?;
        // The first bytes tell the format, and a connection may bring them one by one.
        while self.length == 0 && (1..START.min(buffer.len())).contains(&length) {
            match self.inner.read(&mut buffer[length..])? {
                0 => break,
                more => length += more,
            }
        }
        self.length += length as u64;
        if self.length > self.limit {
            let why = format!("it is larger than the limit of {} bytes", self.limit);
            return Err(std::io::Error::other(Error::archive(why)));
        }
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..length]);
        }
        if let Some(copy) = &mut self.copy {
            copy.write_all(&buffer[..length])
                .map_err(|source| Error::Io { verb: "write", object: "the layer's blob".to_owned(), source })
                .map_err(std::io::Error::other)?;
        }
        Ok(length)
    }
}

type Raw<R> = BufReader<Tee<R>>;

/// A layer as a plain archive, whatever it is packed in.
pub(crate) enum Layer<R: Read> {
    Plain(Raw<R>),
    Gzip(Box<BufReader<Tee<Gunzip<Raw<R>>>>>),
    Zstd {
        reader: Box<BufReader<Tee<zstd::stream::read::Decoder<'static, Raw<R>>>>>,
        _large: Option<MutexGuard<'static, ()>>,
    },
}

/// What went through.
pub(crate) struct Passed {
    pub packing: Packing,
    pub blob: Digest,
    pub blob_size: u64,
    pub diff_id: Digest,
}

/// How a stream is to be read.
#[derive(Default)]
pub(crate) struct Wanted<'a> {
    /// Where a copy of the packed bytes goes.
    pub copy: Option<File>,
    /// The digest the blob should have, for its algorithm.
    pub blob: Option<&'a Digest>,
    /// The diff id it should have, for its algorithm.
    pub diff_id: Option<&'a Digest>,
    /// The most packed bytes; none without a descriptor.
    pub size: Option<u64>,
    /// The most bytes that it may unpack to, if that is not 64 GiB.
    pub plain_max: Option<u64>,
    /// Whoever reads the plain side hashes it.
    pub unhashed: bool,
}

/// The packed side, at its end.
pub(crate) struct Ended {
    pub packing: Packing,
    pub blob: Digest,
    pub blob_size: u64,
    /// The hash of the plain side; none if nobody wanted it here, or if that is the packed one.
    pub plain: Option<Hasher>,
}

impl<R: Read> Layer<R> {
    pub(crate) fn new(inner: R, wanted: Wanted<'_>) -> Result<Self> {
        let hash = Some(Hasher::like(wanted.blob));
        let most = wanted.plain_max.unwrap_or(PLAIN_MAX);
        let limit = wanted.size.unwrap_or(most);
        let mut raw = BufReader::with_capacity(BUFFER, Tee { inner, hash, copy: wanted.copy, length: 0, limit });
        let start = raw.fill_buf().map_err(reading)?;
        let plain = (!wanted.unhashed).then(|| Hasher::like(wanted.diff_id));
        Ok(match Packing::told_by(start) {
            Packing::Gzip => Layer::Gzip(Box::new(plain_side(Gunzip::new(raw), plain, most))),
            Packing::Zstd => {
                let large = (!is_narrow(start)).then(|| LARGE_WINDOW.lock().unwrap_or_else(PoisonError::into_inner));
                let mut decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(reading)?;
                let window = if large.is_some() { WINDOW_LOG_MAX } else { WINDOW_LOG };
                decoder.window_log_max(window).map_err(reading)?;
                Layer::Zstd { reader: Box::new(plain_side(decoder, plain, most)), _large: large }
            }
            Packing::Plain => Layer::Plain(raw),
        })
    }

    pub(crate) fn reader(&mut self) -> &mut dyn BufRead {
        match self {
            Layer::Plain(reader) => reader,
            Layer::Gzip(reader) => reader.as_mut(),
            Layer::Zstd { reader, .. } => reader.as_mut(),
        }
    }

    /// Whether it is not packed at all, so that the blob's digest is that of the plain side too.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Layer::Plain(_))
    }

    /// The digests, once the plain side has been read to its end.
    pub(crate) fn finish(self) -> Result<Passed> {
        let Ended { packing, blob, blob_size, plain } = self.end()?;
        let diff_id = plain.map_or_else(|| Ok(blob.clone()), Hasher::finish)?;
        Ok(Passed { packing, blob, blob_size, diff_id })
    }

    /// What is known of the packed side, once the plain side has been read to its end.
    pub(crate) fn end(self) -> Result<Ended> {
        let (packing, mut raw, plain) = match self {
            Layer::Plain(raw) => (Packing::Plain, raw, None),
            Layer::Gzip(reader) => {
                let tee = reader.into_inner();
                (Packing::Gzip, tee.inner.into_inner(), tee.hash)
            }
            Layer::Zstd { reader, .. } => {
                let tee = reader.into_inner();
                (Packing::Zstd, tee.inner.finish(), tee.hash)
            }
        };
        // A decoder stops at the end of its own data; the blob's digest covers the rest too.
        std::io::copy(&mut raw, &mut std::io::sink()).map_err(reading)?;
        let tee = raw.into_inner();
        let missing = || Error::archive("it was not hashed");
        let blob = tee.hash.ok_or_else(missing)?.finish()?;
        Ok(Ended { packing, blob, blob_size: tee.length, plain })
    }
}

fn plain_side<R: Read>(inner: R, hash: Option<Hasher>, limit: u64) -> BufReader<Tee<R>> {
    BufReader::with_capacity(BUFFER, Tee { inner, hash, copy: None, length: 0, limit })
}

/// Whether the first frame of a zstd stream says that it needs no more than the ordinary window: a descriptor, a byte with
/// exponent and mantissa, or, in a frame of one segment, its length. Source: RFC 8878, section 3.1.1.1.
fn is_narrow(start: &[u8]) -> bool {
    match *start {
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, window, ..] if descriptor & 0x20 == 0 => {
            let (exponent, mantissa) = (u32::from(window >> 3), window & 7);
            10 + exponent < WINDOW_LOG || (10 + exponent == WINDOW_LOG && mantissa == 0)
        }
        // One segment with a length of less than 64 KiB and some, or one of four bytes, and no dictionary before it.
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, ..] if descriptor >> 6 < 2 => true,
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, a, b, c, d, ..] if descriptor >> 6 == 2 && descriptor & 3 == 0 => {
            u32::from_le_bytes([a, b, c, d]) <= 1 << WINDOW_LOG
        }
        _ => false,
    }
}

/// A zstd stream may begin with a frame that decoders skip (0x184D2A50 to 0x184D2A5F).
fn is_skippable(start: &[u8]) -> bool {
    start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18]
}

pub(crate) fn reading(error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => Error::archive(error.to_string()),
    }
}

/// Hashes what is written through it.
pub(crate) struct HashWriter<W> {
    inner: W,
    hash: Sha256,
    length: u64,
}

impl<W: Write> HashWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), length: 0 }
    }

    /// The digest and the number of bytes.
    pub(crate) fn finish(self) -> (Digest, u64) {
        (Digest::from_sha256(self.hash.finalize().into()), self.length)
    }
}

impl<W: Write> Write for HashWriter<W> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let length = self.inner.write(data)?;
        self.hash.update(&data[..length]);
        self.length += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// The digest of a blob as it is, unpacked by nobody.
pub(crate) fn digest_of(inner: impl Read, wanted: Wanted<'_>) -> Result<Digest> {
    let hash = Hasher::like(wanted.blob);
    let limit = wanted.size.unwrap_or(PLAIN_MAX);
    let mut tee = Tee { inner, hash: Some(hash), copy: None, length: 0, limit };
    let mut buffer = vec![0; BUFFER];
    while tee.read(&mut buffer).map_err(reading)? > 0 {}
    tee.hash.map_or_else(|| Err(Error::archive("it was not hashed")), Hasher::finish)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(size: usize, window: Option<u32>, pledged: bool) -> Vec<u8> {
        let mut packer = zstd::Encoder::new(Vec::new(), 1).expect("memory");
        if let Some(window) = window {
            packer.window_log(window).expect("a window");
        }
        packer.set_pledged_src_size(pledged.then_some(size as u64)).expect("a length");
        packer.write_all(&vec![7; size]).expect("memory");
        packer.finish().expect("memory")
    }

    /// What a pull that broke off left may be one byte, and what follows it may come in pieces of any size.
    #[test]
    fn the_format_is_told_by_bytes_that_come_one_by_one() {
        struct OneByOne<'a>(&'a [u8]);
        impl Read for OneByOne<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let most = buffer.len().min(1);
                self.0.read(&mut buffer[..most])
            }
        }
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&[7; 100]).expect("memory");
        for data in [gzip.finish().expect("memory"), packed(100, None, false), vec![7; 100]] {
            let mut layer = Layer::new(OneByOne(&data), Wanted::default()).expect("a stream");
            assert_eq!(std::io::copy(layer.reader(), &mut std::io::sink()).expect("its data"), 100);
        }
    }

    #[test]
    fn only_a_large_window_is_for_one_layer_at_a_time() {
        for (size, window, pledged, narrow) in [
            (100, None, false, true),
            (100, None, true, true),
            (1000, None, true, true),
            (100_000, None, true, true),
            (100, Some(23), false, true),
            (100, Some(24), false, false),
            (100, Some(27), false, false),
        ] {
            let data = packed(size, window, pledged);
            assert_eq!(is_narrow(&data), narrow, "{size} {window:?} {pledged}: {:?}", &data[..9]);
            let mut layer = Layer::new(data.as_slice(), Wanted::default()).expect("a stream");
            assert_eq!(std::io::copy(layer.reader(), &mut std::io::sink()).expect("its data"), size as u64);
        }
        assert!(!is_narrow(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]));
        // A frame that hides its need behind one that has little is refused.
        let hidden = [packed(100, None, false), packed(100, Some(27), false)].concat();
        let mut layer = Layer::new(hidden.as_slice(), Wanted::default()).expect("a stream");
        assert!(std::io::copy(layer.reader(), &mut std::io::sink()).is_err());
    }
}
