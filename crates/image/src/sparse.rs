//! Files with holes: the four ways in which GNU's tar says where the data of such a file belongs.
//!
//! The map is text from outside like any other: its length is bounded, its regions lie in order, inside the file, beside
//! each other, and together they are the data that follows. What is made of it is the business of `apply`.
//!
//! Source: the GNU tar manual, "Storing Sparse Files".

use tar::GnuSparseHeader;

use crate::archive::number;
use crate::error::{Error, Result};
use crate::pax::decimal;

/// The most regions of one file: a map of about a megabyte.
const REGIONS_MAX: usize = 1 << 16;

/// Bytes of a file from a place on; between regions there is nothing but zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub at: u64,
    pub length: u64,
}

/// What the PAX records `GNU.sparse.*` say.
#[derive(Default)]
pub(crate) struct Told {
    name: Option<Vec<u8>>,
    /// Form 0.0 and 0.1 have `size`, form 1.0 has `realsize`.
    size: Option<u64>,
    realsize: Option<u64>,
    major: Option<u64>,
    minor: Option<u64>,
    blocks: Option<u64>,
    /// Form 0.1: all in one record.
    map: Option<Vec<u64>>,
    /// Form 0.0: a record for each number, by turns.
    numbers: Vec<u64>,
}

impl Told {
    /// Takes a record; none if it is malformed or there twice.
    pub(crate) fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let slot = match key {
            b"name" => {
                return self.name.replace(value.to_vec()).is_none().then_some(()).filter(|()| !value.is_empty());
            }
            b"map" => {
                let numbers: Option<Vec<u64>> = value.split(|byte| *byte == b',').map(decimal).collect();
                return self.map.replace(numbers?).is_none().then_some(());
            }
            b"offset" | b"numbytes" => {
                let turn = if self.numbers.len() % 2 == 0 { b"offset".as_slice() } else { b"numbytes" };
                self.numbers.push(decimal(value)?);
                return (key == turn).then_some(());
            }
            b"size" => &mut self.size,
            b"realsize" => &mut self.realsize,
            b"major" => &mut self.major,
            b"minor" => &mut self.minor,
            b"numblocks" => &mut self.blocks,
            _ => return None,
        };
        slot.replace(decimal(value)?).is_none().then_some(())
    }

    /// The file's own name, where the entry's is one for readers that know no holes.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    /// The file's length.
    pub(crate) fn size(&self, path: &[u8]) -> Result<u64> {
        match (self.size, self.realsize) {
            (Some(size), None) | (None, Some(size)) => Ok(size),
            _ => Err(Error::entry(path, "it has holes, and not one length")),
        }
    }

    /// Whether the map stands before the data, as in form 1.0.
    pub(crate) fn map_is_data(&self, path: &[u8]) -> Result<bool> {
        let has_map = self.map.is_some() || !self.numbers.is_empty();
        match (self.major, self.minor) {
            (Some(1), Some(0)) if !has_map => Ok(true),
            (None, None) | (Some(0), Some(0 | 1)) => Ok(false),
            _ => Err(Error::entry(path, "it has holes in a form that is not supported")),
        }
    }

    /// Puts the regions that stand in the records into `map`.
    pub(crate) fn fill(self, map: &mut Map<'_>) -> Result<()> {
        let numbers = match (self.map, self.numbers.is_empty()) {
            (Some(numbers), true) => numbers,
            (None, _) => self.numbers,
            (Some(_), false) => return Err(map.wrong("it has two maps of its holes")),
        };
        let pairs = numbers.chunks_exact(2);
        let fits = pairs.remainder().is_empty() && self.blocks.is_none_or(|count| count == pairs.len() as u64);
        if !fits {
            return Err(map.wrong("its map of holes is cut short"));
        }
        pairs.map(|pair| Region { at: pair[0], length: pair[1] }).try_for_each(|region| map.push(region))
    }
}

/// A map that is being read.
pub(crate) struct Map<'a> {
    path: &'a [u8],
    regions: Vec<Region>,
    /// Of the form that stands before the data: what was read of a line, the numbers still to come, and one that waits
    /// for its other half.
    line: Vec<u8>,
    left: Option<u64>,
    at: Option<u64>,
}

impl<'a> Map<'a> {
    pub(crate) fn new(path: &'a [u8]) -> Self {
        Self { path, regions: Vec::new(), line: Vec::new(), left: None, at: None }
    }

    pub(crate) fn wrong(&self, why: &str) -> Error {
        Error::entry(self.path, why)
    }

    fn push(&mut self, region: Region) -> Result<()> {
        if self.regions.len() == REGIONS_MAX {
            return Err(self.wrong("it has too many holes"));
        }
        self.regions.push(region);
        Ok(())
    }

    /// Takes the regions of a header; an empty one ends them. GNU's tar looks for the end in a region's length and others in
    /// its place, so that what has only one of both is refused. `more` is whether another header is said to follow.
    pub(crate) fn blocks(&mut self, blocks: &[GnuSparseHeader], more: bool) -> Result<()> {
        for block in blocks {
            match (block.offset[0], block.numbytes[0]) {
                (0, 0) if more => return Err(self.wrong("its map of holes ends before its end")),
                (0, 0) => return Ok(()),
                (0, _) | (_, 0) => return Err(self.wrong("its map of holes is malformed")),
                _ => {
                    let (at, length) = (number(&block.offset, "offset")?, number(&block.numbytes, "length")?);
                    self.push(Region { at, length })?;
                }
            }
        }
        Ok(())
    }

    /// Whether the map before the data has been read to its end.
    pub(crate) fn is_read(&self) -> bool {
        self.left == Some(0)
    }

    /// Takes a block of the map before the data: the number of regions, then two numbers for each, a line for each.
    pub(crate) fn text(&mut self, block: &[u8]) -> Result<()> {
        for byte in block {
            if self.is_read() {
                break;
            }
            if *byte != b'\n' {
                self.line.push(*byte);
                // The longest number has 20 digits.
                if self.line.len() > 20 {
                    return Err(self.wrong("its map of holes is malformed"));
                }
                continue;
            }
            let value = decimal(&self.line).ok_or_else(|| self.wrong("its map of holes is malformed"))?;
            self.line.clear();
            match (self.left, self.at.take()) {
                (None, _) if value > REGIONS_MAX as u64 => return Err(self.wrong("it has too many holes")),
                (None, _) => self.left = Some(2 * value),
                (Some(left), None) => (self.left, self.at) = (Some(left - 1), Some(value)),
                (Some(left), Some(at)) => {
                    self.left = Some(left - 1);
                    self.push(Region { at, length: value })?;
                }
            }
        }
        Ok(())
    }

    /// The regions, which are all of the `data` bytes that follow, of a file of `size` bytes.
    pub(crate) fn finish(self, size: u64, data: u64) -> Result<Vec<Region>> {
        let (mut end, mut sum) = (0u64, 0u64);
        for region in &self.regions {
            let next = region.at.checked_add(region.length).filter(|next| *next <= size);
            end =
                next.filter(|_| region.at >= end).ok_or_else(|| self.wrong("its regions overlap or lie outside"))?;
            sum += region.length;
        }
        if sum != data {
            return Err(self.wrong(&format!("its regions have {sum} bytes, and {data} follow")));
        }
        if i64::try_from(size).is_err() {
            return Err(self.wrong("its size does not fit a file"));
        }
        Ok(self.regions)
    }
}
