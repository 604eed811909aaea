//! Packing a layer for its way out: gzip by all processors at once, or zstd. The same bytes give the same blob each time.
//!
//! A gzip stream may be cut anywhere between two deflate blocks, so the plain side is cut into pieces that are compressed by
//! themselves, in any order, and joined again: one member, as any reader takes it. The pieces have one size
//! whatever the number of processors, so the digest does not depend on the machine. Sources: RFC 1951, RFC 1952.

use std::collections::VecDeque;
use std::io::{BufRead, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress};

use crate::error::{Error, Result};
use crate::stream::{self, Packing};

/// Bytes of the plain side in one piece.
const PIECE: usize = 1 << 20;
/// Packs that differ in their bytes have different numbers here: what is known of them is kept in the store.
pub(crate) const VERSION: u32 = 1;
/// The usual level of each. With that of gzip a layer is 4 % larger than others' tools make it; 3, which makes it as large as
/// theirs, takes a tenth more of a push, and 6, which is gzip's own, half as long again for 3 % less than that.
const GZIP_LEVEL: u32 = 2;
const ZSTD_LEVEL: u32 = 3;

/// The levels that there are.
pub(crate) fn level(packing: Packing, wanted: Option<u32>) -> Result<u32> {
    let (usual, most) = match packing {
        Packing::Plain => (0, 0),
        Packing::Gzip => (GZIP_LEVEL, 9),
        Packing::Zstd => (ZSTD_LEVEL, 20),
    };
    match wanted {
        None => Ok(usual),
        Some(level) if (1..=most).contains(&level) => Ok(level),
        Some(level) => {
            Err(Error::archive(format!("there is no compression level {level}: it goes from 1 to {most}")))
        }
    }
}

/// Reads `source` to its end and writes it packed.
pub(crate) fn pack(source: &mut dyn BufRead, packing: Packing, level: u32, out: &mut impl Write) -> Result<()> {
    let written = match packing {
        Packing::Plain => std::io::copy(source, out).map(|_| ()),
        Packing::Gzip => gzip(source, level, out),
        Packing::Zstd => zstd(source, level, out),
    };
    written.map_err(stream::reading)
}

fn zstd(source: &mut dyn BufRead, level: u32, out: &mut impl Write) -> std::io::Result<()> {
    let mut encoder = zstd::stream::write::Encoder::new(out, level as i32)?;
    encoder.include_checksum(true)?;
    std::io::copy(source, &mut encoder)?;
    encoder.finish().map(|_| ())
}

/// A piece on its way to a compressor, and where its result is waited for.
struct Job {
    plain: Vec<u8>,
    done: SyncSender<std::io::Result<Packed>>,
}

struct Packed {
    plain: Vec<u8>,
    deflated: Vec<u8>,
    crc: Hasher,
}

fn gzip(source: &mut dyn BufRead, level: u32, out: &mut impl Write) -> std::io::Result<()> {
    // No name, no time, no operating system: nothing of this machine.
    out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let (jobs, queue) = sync_channel::<Job>(threads);
    let queue = Mutex::new(queue);
    let (mut crc, mut size) = (Hasher::new(), 0u32);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| compress(&queue, level));
        }
        // Moved in, so that the compressors end when this does.
        let jobs = jobs;
        let mut waiting: VecDeque<Receiver<std::io::Result<Packed>>> = VecDeque::new();
        let mut free: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut plain = free.pop().unwrap_or_default();
            plain.clear();
            (&mut *source).take(PIECE as u64).read_to_end(&mut plain)?;
            let ended = plain.is_empty();
            if !ended {
                let (done, result) = sync_channel(1);
                jobs.send(Job { plain, done }).map_err(std::io::Error::other)?;
                waiting.push_back(result);
            }
            while waiting.len() > if ended { 0 } else { 2 * threads } {
                let Some(result) = waiting.pop_front() else { break };
                let packed = result.recv().map_err(std::io::Error::other)??;
                out.write_all(&packed.deflated)?;
                crc.combine(&packed.crc);
                // Of a length that does not fit, the format has the rest.
                size = size.wrapping_add(packed.plain.len() as u32);
                free.push(packed.plain);
            }
            if ended {
                break;
            }
        }
        // An empty last block; every piece ended at a byte.
        out.write_all(&[0x03, 0x00])?;
        out.write_all(&crc.finalize().to_le_bytes())?;
        out.write_all(&size.to_le_bytes())
    })
}

fn compress(queue: &Mutex<Receiver<Job>>, level: u32) {
    let mut deflate = Compress::new(Compression::new(level), false);
    loop {
        // The lock is held while waiting: one of those who have nothing to do waits for a job, the others for it.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { plain, done }) = job else { return };
        let packed = deflated(&mut deflate, &plain).map(|deflated| {
            let mut crc = Hasher::new();
            crc.update(&plain);
            Packed { plain, deflated, crc }
        });
        // Nobody takes it when another piece has failed.
        let _ = done.send(packed);
    }
}

/// One piece as deflate blocks that end at a byte and refer to nothing before them.
fn deflated(deflate: &mut Compress, plain: &[u8]) -> std::io::Result<Vec<u8>> {
    deflate.reset();
    let mut out = Vec::with_capacity(plain.len() / 2 + 1024);
    loop {
        let rest = &plain[deflate.total_in() as usize..];
        deflate.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(std::io::Error::other)?;
        // Room that is left says that all of it is out.
        if deflate.total_in() as usize == plain.len() && out.len() < out.capacity() {
            return Ok(out);
        }
        out.reserve(plain.len() / 4 + 1024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;

    fn sample(size: usize) -> Vec<u8> {
        let mut state = 1u32;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Half of it compresses.
            if state >> 31 == 0 { b'a' } else { (state >> 16) as u8 }
        });
        noise.take(size).collect()
    }

    fn packed(plain: &[u8], packing: Packing) -> Vec<u8> {
        let mut out = Vec::new();
        pack(&mut &*plain, packing, level(packing, None).expect("a level"), &mut out).expect("packed");
        out
    }

    #[test]
    fn one_member_of_many_pieces_is_what_went_in_and_the_same_each_time() {
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 17] {
            let plain = sample(size);
            let once = packed(&plain, Packing::Gzip);
            assert_eq!(once, packed(&plain, Packing::Gzip), "{size}");
            let (mut reader, mut again) = (GzDecoder::new(&once[..]), Vec::new());
            // Not a decoder of several members: the first is all of it.
            reader.read_to_end(&mut again).expect("a gzip member");
            assert!(again == plain, "{size}");
            assert!(reader.into_inner().is_empty(), "{size}");
            let zstd = packed(&plain, Packing::Zstd);
            assert!(zstd::decode_all(&zstd[..]).expect("zstd") == plain, "{size}");
        }
    }

    #[test]
    fn a_source_that_fails_is_an_error() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("broken"))
            }
        }
        let mut source = std::io::BufReader::new(sample(3 * PIECE).leak().chain(Broken));
        let error = pack(&mut source, Packing::Gzip, 1, &mut std::io::sink()).expect_err("an error");
        assert!(error.to_string().contains("broken"), "{error}");
    }

    #[test]
    fn levels_that_there_are_not_are_refused() {
        assert!(level(Packing::Gzip, Some(10)).is_err() && level(Packing::Zstd, Some(0)).is_err());
        assert_eq!(level(Packing::Zstd, Some(19)).expect("a level"), 19);
    }
}
