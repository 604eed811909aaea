//! gzip: members one after another, as one stream.
//!
//! Inflating is a library's business, and so is the checksum, but not the same library's: that of the inflating one takes a tenth of a
//! pull where the processor's features are only known at run time. What is between them, a member's frame, is here.
//!
//! Source: RFC 1952.

use std::io::{BufRead, Error, ErrorKind, Read, Result};

use crc32fast::Hasher;
use flate2::{Decompress, FlushDecompress, Status};

/// Flags of a member's header (RFC 1952, section 2.3.1); the first says that it is text, which means nothing here.
const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;

/// The plain side of a gzip stream. What follows a member is the next one, or an error.
pub(crate) struct Gunzip<R> {
    inner: R,
    inflate: Decompress,
    place: Place,
    /// Of the member's plain side; in its header, of that.
    crc: Hasher,
    /// Bytes of the member's plain side, as its end has them: without what does not fit in 32 bits.
    length: u32,
}

#[derive(PartialEq, Eq)]
enum Place {
    Start,
    Data,
    Between,
}

impl<R: BufRead> Gunzip<R> {
    pub(crate) fn new(inner: R) -> Self {
        let inflate = Decompress::new(false);
        Self { inner, inflate, place: Place::Start, crc: Hasher::new(), length: 0 }
    }

    /// The packed side, from behind what was used of it.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    fn exact<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => cut_short(),
            _ => error,
        })?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = self.exact::<1>()?;
        self.crc.update(&byte);
        Ok(byte[0])
    }

    fn short(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    fn word(&mut self) -> Result<u32> {
        self.exact().map(u32::from_le_bytes)
    }

    fn begin(&mut self) -> Result<()> {
        self.crc.reset();
        if (self.byte()?, self.byte()?, self.byte()?) != (0x1f, 0x8b, 8) {
            return Err(invalid("what should be a gzip member begins otherwise"));
        }
        let flags = self.byte()?;
        if flags & RESERVED != 0 {
            return Err(invalid("a gzip header has unknown flags"));
        }
        // Its time, what the compressor says of itself, its operating system.
        for _ in 0..6 {
            self.byte()?;
        }
        if flags & EXTRA != 0 {
            for _ in 0..self.short()? {
                self.byte()?;
            }
        }
        for text in [NAME, COMMENT] {
            while flags & text != 0 && self.byte()? != 0 {}
        }
        let is = self.crc.clone().finalize();
        if flags & HEADER_CRC != 0 && u32::from(self.short()?) != is & 0xffff {
            return Err(invalid("a gzip header has a wrong checksum"));
        }
        self.inflate.reset(false);
        self.crc.reset();
        self.length = 0;
        self.place = Place::Data;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if self.word()? != self.crc.clone().finalize() {
            return Err(invalid("a gzip member has a wrong checksum"));
        }
        if self.word()? != self.length {
            return Err(invalid("a gzip member has a wrong length"));
        }
        self.place = Place::Between;
        Ok(())
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while !buffer.is_empty() {
            if self.place == Place::Between && self.inner.fill_buf()?.is_empty() {
                break;
            }
            if self.place != Place::Data {
                self.begin()?;
            }
            let packed = self.inner.fill_buf()?;
            let (before, made) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(packed, buffer, FlushDecompress::None).map_err(invalid)?;
            let used = (self.inflate.total_in() - before) as usize;
            let made = (self.inflate.total_out() - made) as usize;
            if used == 0 && made == 0 && status != Status::StreamEnd {
                return Err(cut_short());
            }
            self.inner.consume(used);
            self.crc.update(&buffer[..made]);
            self.length = self.length.wrapping_add(made as u32);
            if status == Status::StreamEnd {
                self.end()?;
            }
            if made > 0 {
                return Ok(made);
            }
        }
        Ok(0)
    }
}

fn cut_short() -> Error {
    Error::new(ErrorKind::UnexpectedEof, "a gzip member is cut short")
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, GzBuilder};
    use std::io::{BufReader, Write};

    fn member(data: &[u8], builder: GzBuilder) -> Vec<u8> {
        let mut packer = builder.write(Vec::new(), Compression::fast());
        packer.write_all(data).expect("memory");
        packer.finish().expect("memory")
    }

    fn unpacked(packed: &[u8]) -> Result<Vec<u8>> {
        // A buffer so small that every part of a frame is cut somewhere.
        let mut reader = Gunzip::new(BufReader::with_capacity(7, packed));
        let mut plain = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(plain),
                length => plain.extend_from_slice(&buffer[..length]),
            }
        }
    }

    fn sample() -> Vec<u8> {
        (0..50_000u32).flat_map(|n| (n * n / 7).to_le_bytes()).collect()
    }

    #[test]
    fn members_follow_each_other_whatever_their_headers_have() {
        let full = GzBuilder::new().extra(b"extra".as_slice()).filename("a name").comment("a comment").mtime(7);
        let data = sample();
        let packed = [member(&data, GzBuilder::new()), member(b"", GzBuilder::new()), member(&data, full)].concat();
        assert!(unpacked(&packed).expect("three members") == [data.clone(), data].concat());
    }

    #[test]
    fn a_header_with_a_checksum_of_its_own_is_read() {
        let mut packed = member(b"data", GzBuilder::new());
        packed[3] |= HEADER_CRC;
        let crc = crc32fast::hash(&packed[..10]) as u16;
        packed.splice(10..10, crc.to_le_bytes());
        assert_eq!(unpacked(&packed).expect("a member"), b"data");
        packed[10] ^= 1;
        assert!(unpacked(&packed).is_err());
    }

    #[test]
    fn a_bit_that_is_wrong_is_seen_wherever_it_matters() {
        let data = sample();
        let good = member(&data, GzBuilder::new());
        // All of the frame and some of the data. Time, level and system (bytes 4 to 9) mean nothing here, nor does the flag of text.
        let frame = (0..4).chain(good.len() - 8..good.len()).chain((10..good.len() - 8).step_by(997));
        for at in frame {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let is_text = (at, bit) == (3, 0);
                assert_eq!(unpacked(&bad).is_ok_and(|plain| plain == data), is_text, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn what_is_cut_short_or_followed_by_something_else_is_an_error() {
        let good = member(&sample(), GzBuilder::new());
        for length in (0..20).chain(good.len() - 20..good.len()) {
            assert!(unpacked(&good[..length]).is_err(), "{length}");
        }
        for rest in [b"\0".as_slice(), b"\x1f", b"rubbish that is long enough"] {
            assert!(unpacked(&[&good, rest].concat()).is_err());
        }
    }
}
