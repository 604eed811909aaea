//! A layer's way in two threads: one reads, hashes and decompresses, the other applies.
//!
//! Only where an image is received; a layer that is unpacked on the way of `run` stays in one thread. The buffers between
//! them are few and go round, so memory does not grow with the layer.

use std::io::{BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::stream::{self, Passed, Wanted};

/// Bytes in one buffer, and the number of buffers.
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 8;

/// Reads `source` to its end and lets `apply` have its plain side; gives what that gave and what went through.
pub(crate) fn through<T>(
    source: impl Read + Send,
    wanted: Wanted<'_>,
    apply: impl FnOnce(&mut Archive<Pipe>) -> Result<T>,
) -> Result<(T, Passed)> {
    std::thread::scope(|scope| {
        let (full, arriving) = sync_channel(CHUNKS);
        let (free, returned) = channel();
        for _ in 0..CHUNKS {
            // The other end lives in this function.
            let _ = free.send(Vec::with_capacity(CHUNK));
        }
        let decoder = scope.spawn(move || decode(source, wanted, &full, &returned));
        let mut archive = Archive::new(Pipe { arriving, free, current: Vec::new(), at: 0 });
        let applied = apply(&mut archive).and_then(|made| {
            archive.finish()?;
            Ok(made)
        });
        let decoded = decoder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (applied, decoded) {
            (Ok(made), Ok(Some(passed))) => Ok((made, passed)),
            // A stream that broke off looks like a broken archive from the other end.
            (_, Err(error)) | (Err(error), _) => Err(error),
            (Ok(_), Ok(None)) => Err(Error::archive("its reader stopped early")),
        }
    })
}

/// None if nobody wants to hear more.
fn decode(
    source: impl Read,
    wanted: Wanted<'_>,
    full: &SyncSender<Vec<u8>>,
    returned: &Receiver<Vec<u8>>,
) -> Result<Option<Passed>> {
    let mut layer = stream::Layer::new(source, wanted)?;
    loop {
        let Ok(mut chunk) = returned.recv() else { return Ok(None) };
        chunk.clear();
        let reader = layer.reader();
        while chunk.len() < CHUNK {
            let data = reader.fill_buf().map_err(stream::reading)?;
            if data.is_empty() {
                break;
            }
            let length = data.len().min(CHUNK - chunk.len());
            chunk.extend_from_slice(&data[..length]);
            reader.consume(length);
        }
        if chunk.is_empty() {
            return layer.finish().map(Some);
        }
        if full.send(chunk).is_err() {
            return Ok(None);
        }
    }
}

/// The applying end.
pub(crate) struct Pipe {
    arriving: Receiver<Vec<u8>>,
    free: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl BufRead for Pipe {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.at == self.current.len()
            && let Ok(next) = self.arriving.recv()
        {
            // Nobody takes it back at the stream's end.
            let _ = self.free.send(std::mem::replace(&mut self.current, next));
            self.at = 0;
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let data = self.fill_buf()?;
        let length = data.len().min(buffer.len());
        buffer[..length].copy_from_slice(&data[..length]);
        self.consume(length);
        Ok(length)
    }
}
