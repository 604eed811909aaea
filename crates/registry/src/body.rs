//! A part of a file as the body of a request.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

/// Bytes of a file, and who hears how far they are read. It can be read again from the beginning.
pub(crate) struct FilePart<'a> {
    pub file: &'a File,
    pub from: u64,
    pub length: u64,
    /// Gets the place in the file up to which it was read.
    pub sent: &'a (dyn Fn(u64) + Sync),
}

impl FilePart<'_> {
    pub(crate) fn reader(&self) -> impl Read {
        Reader { part: self, at: 0 }
    }
}

struct Reader<'a> {
    part: &'a FilePart<'a>,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.part.length - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.part.file.read_at(&mut buffer[..left], self.part.from + self.at)?;
        if length == 0 && left > 0 {
            return Err(std::io::Error::other("the file is shorter than it was"));
        }
        self.at += length as u64;
        (self.part.sent)(self.part.from + self.at);
        Ok(length)
    }
}
