//! Kubernetes' interface to runtimes (CRI), as kubelet speaks it: calls of gRPC over a Unix socket, one connection each.
//!
//! Of HTTP/2 and Protocol Buffers there is what such a call takes, and messages are given by their fields' numbers, which are
//! those of `runtime/v1/api.proto`. Sources: RFC 9113, RFC 7541, gRPC's `PROTOCOL-HTTP2.md`, the encoding of Protocol Buffers.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A message, or a part of one.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// The same with a field that is text, or another message's bytes.
    #[must_use]
    pub fn with(mut self, field: u8, value: impl AsRef<[u8]>) -> Self {
        self.0.push(field << 3 | 2);
        varint(value.as_ref().len() as u64, &mut self.0);
        self.0.extend_from_slice(value.as_ref());
        self
    }

    /// The same with a field that is a number.
    #[must_use]
    pub fn number(mut self, field: u8, value: u64) -> Self {
        self.0.push(field << 3);
        varint(value, &mut self.0);
        self
    }

    /// What a field says that is bytes; empty if it is not there.
    pub fn bytes(&self, field: u8) -> Vec<u8> {
        let found = self.fields().into_iter().find(|(number, _, _)| *number == u64::from(field));
        found.map(|(_, _, bytes)| bytes).unwrap_or_default()
    }

    /// What a field says that is text.
    pub fn text(&self, field: u8) -> String {
        String::from_utf8_lossy(&self.bytes(field)).into_owned()
    }

    /// What a field says that is a number; 0 if it is not there.
    pub fn value(&self, field: u8) -> u64 {
        let found = self.fields().into_iter().find(|(number, _, _)| *number == u64::from(field));
        found.map(|(_, value, _)| value).unwrap_or_default()
    }

    /// Number, value and bytes of each field.
    fn fields(&self) -> Vec<(u64, u64, Vec<u8>)> {
        let mut rest = &self.0[..];
        let mut all = Vec::new();
        while !rest.is_empty() {
            let key = read_varint(&mut rest);
            let value = read_varint(&mut rest);
            let (bytes, after) = rest.split_at(if key & 7 == 2 { value as usize } else { 0 });
            all.push((key >> 3, value, bytes.to_vec()));
            rest = after;
        }
        all
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value > 127 {
        to.push(value as u8 | 128);
        value >>= 7;
    }
    to.push(value as u8);
}

fn read_varint(from: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first().expect("a whole message");
        *from = rest;
        value |= u64::from(byte & 127) << shift;
        if byte & 128 == 0 {
            break;
        }
    }
    value
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// Of DATA and HEADERS: nothing comes after it. Of SETTINGS and PING: it is the answer.
const END: u8 = 1;
const END_HEADERS: u8 = 4;

/// Calls `runtime.v1.METHOD`, a service and its method, at `socket`; `None` is an error, whose words are in the server's log.
///
/// # Panics
/// Nobody answers.
pub fn call(socket: &Path, method: &str, message: &Message) -> Option<Message> {
    let mut stream = UnixStream::connect(socket).expect("the socket of CRI");
    stream.set_read_timeout(Some(Duration::from_secs(300))).expect("a socket");
    let mut headers = vec![0x83, 0x86];
    // Plain texts, none of which the other side is to remember: the name's index in the static table, or none, and its text.
    for (index, name, value) in [
        (&[4][..], "", &*format!("/runtime.v1.{method}")),
        (&[1], "", "localhost"),
        (&[15, 16], "", "application/grpc"),
        (&[0], "te", "trailers"),
    ] {
        headers.extend_from_slice(index);
        for text in [name, value].into_iter().filter(|text| !text.is_empty()) {
            headers.push(u8::try_from(text.len()).expect("a short text"));
            headers.extend_from_slice(text.as_bytes());
        }
    }
    let length = u32::try_from(message.0.len()).expect("a short message");
    let data = [&[0][..], &length.to_be_bytes(), &message.0].concat();
    let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for (kind, flags, number, payload) in
        [(SETTINGS, 0, 0, &[][..]), (HEADERS, END_HEADERS, 1, &headers), (DATA, END, 1, &data)]
    {
        all.extend(frame(kind, flags, number, payload));
    }
    stream.write_all(&all).expect("a call");
    answer(&mut stream)
}

fn frame(kind: u8, flags: u8, number: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &number.to_be_bytes(), payload].concat()
}

fn answer(stream: &mut UnixStream) -> Option<Message> {
    let mut body = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a frame");
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).expect("a whole frame");
        let (kind, flags) = (head[3], head[4]);
        match kind {
            SETTINGS if flags & END == 0 => stream.write_all(&frame(SETTINGS, END, 0, &[])).expect("an answer"),
            PING if flags & END == 0 => stream.write_all(&frame(PING, END, 0, &payload)).expect("an answer"),
            GOAWAY => panic!("the server goes away: {:?}", String::from_utf8_lossy(&payload)),
            DATA => body.extend(payload),
            // The trailers; an error has no message before them.
            HEADERS if flags & END != 0 => return body.get(5..).map(|message| Message(message.to_vec())),
            _ => {}
        }
    }
}
