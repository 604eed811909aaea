//! A layer's way in three threads: one reads, hashes and decompresses, one hashes what that gave, one applies it.
//!
//! Only where an image is received; a layer that is unpacked on the way of `run` stays in one thread. The buffers between
//! them are few and go round, so memory does not grow with the layer.

use std::io::{BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::reference::Digest;
use crate::stream::{self, BUFFER, Ended, Hasher, Passed, Wanted};

/// The number of buffers. Each takes one read of the plain side, which goes past the reader's own buffer as it is as large.
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
            let _ = free.send(Vec::with_capacity(BUFFER));
        }
        let decoder = scope.spawn(move || decode(scope, source, wanted, full, &returned));
        let mut archive = Archive::new(Pipe { arriving, free, current: Vec::new(), at: 0 });
        let applied = apply(&mut archive).and_then(|made| {
            archive.finish()?;
            Ok(made)
        });
        match (applied, joined(decoder)) {
            (Ok(made), Ok(Some(passed))) => Ok((made, passed)),
            // A stream that broke off looks like a broken archive from the other end.
            (_, Err(error)) | (Err(error), _) => Err(error),
            (Ok(_), Ok(None)) => Err(Error::archive("its reader stopped early")),
        }
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// None if nobody wants to hear more.
fn decode<'scope>(
    scope: &'scope Scope<'scope, '_>,
    source: impl Read,
    wanted: Wanted<'_>,
    full: SyncSender<Vec<u8>>,
    returned: &Receiver<Vec<u8>>,
) -> Result<Option<Passed>> {
    let hash = Hasher::like(wanted.diff_id);
    let mut layer = stream::Layer::new(source, Wanted { unhashed: true, ..wanted })?;
    let (out, hasher) = if layer.is_plain() {
        (full, None)
    } else {
        let (out, decoded) = sync_channel(CHUNKS);
        (out, Some(scope.spawn(move || hashed(hash, &decoded, &full))))
    };
    loop {
        let Ok(mut chunk) = returned.recv() else { return Ok(None) };
        chunk.resize(BUFFER, 0);
        let length = read(layer.reader(), &mut chunk).map_err(stream::reading)?;
        chunk.truncate(length);
        if chunk.is_empty() {
            break;
        }
        if out.send(chunk).is_err() {
            return Ok(None);
        }
    }
    // The hasher ends when nobody can send it anything.
    drop(out);
    let Ended { packing, blob, blob_size, .. } = layer.end()?;
    let diff_id = hasher.map(joined).transpose()?.unwrap_or_else(|| blob.clone());
    Ok(Some(Passed { packing, blob, blob_size, diff_id }))
}

/// Passes everything on and hashes it.
fn hashed(mut hash: Hasher, decoded: &Receiver<Vec<u8>>, full: &SyncSender<Vec<u8>>) -> Result<Digest> {
    for chunk in decoded {
        hash.update(&chunk);
        if full.send(chunk).is_err() {
            break;
        }
    }
    hash.finish()
}

/// One read, whatever interrupts it.
fn read(reader: &mut dyn BufRead, chunk: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match reader.read(chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
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
