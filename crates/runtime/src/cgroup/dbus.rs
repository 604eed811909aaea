//! The little of D-Bus that a client of systemd's own socket needs: log in, call, and hear what is told meanwhile.
//!
//! It is synchronous, so that nothing here has threads, and there is no bus in between. Values are zvariant's to encode. A
//! D-Bus library is of no use at this socket: its peer calls itself `org.freedesktop.systemd1`, which is no unique name, and
//! zbus takes no message from such a sender. Source: the D-Bus specification, "Message Protocol", "Authentication Protocol".

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zvariant::serialized::{Context, Data};
use zvariant::{DynamicType, Endian, LE, Type, Value, to_bytes};

/// The largest message that is taken: systemd's have some thousand bytes.
const LARGEST: usize = 16 << 20;

/// Kinds of messages and of fields in their headers.
const CALL: u8 = 1;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const FIELD_PATH: u8 = 1;
const FIELD_INTERFACE: u8 = 2;
const FIELD_MEMBER: u8 = 3;
const FIELD_ERROR: u8 = 4;
const FIELD_REPLY_TO: u8 = 5;
const FIELD_SIGNATURE: u8 = 8;

/// The header of a message: byte order, kind, flags, version of the protocol, length of the body, serial number, fields.
type Header<'a> = (u8, u8, u8, u8, u32, u32, HashMap<u8, Value<'a>>);
/// Up to the length of the fields.
const FIXED: usize = 16;

/// Why a call gave nothing.
#[derive(Debug)]
pub(super) enum Failed {
    /// The line to the peer.
    Line(io::Error),
    /// The peer's error: its name and its words.
    Said(String, String),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A socket whose time is over says only that it would have to wait.
            io::ErrorKind::WouldBlock => Self::Line(io::Error::new(io::ErrorKind::TimedOut, "it does not answer")),
            _ => Self::Line(error),
        }
    }
}

impl From<zvariant::Error> for Failed {
    fn from(error: zvariant::Error) -> Self {
        Self::Line(io::Error::other(error))
    }
}

/// A message that came.
pub(super) struct Message {
    kind: u8,
    reply_to: Option<u32>,
    error: String,
    /// The method's or signal's name.
    pub(super) member: String,
    body: Vec<u8>,
    endian: Endian,
    signature: String,
}

impl Message {
    /// Its arguments.
    pub(super) fn arguments<T: DeserializeOwned + Type>(&self) -> Result<T, Failed> {
        let data = Data::new(&self.body[..], Context::new_dbus(self.endian, 0));
        Ok(data.deserialize::<T>()?.0)
    }
}

/// A connection to a peer.
pub(super) struct Line {
    stream: UnixStream,
    serial: u32,
    signals: Vec<Message>,
}

impl Line {
    /// Connects to the socket at `path` and logs in as `user`, which is our id as the peer sees it; nothing may take longer
    /// than `patience`.
    pub(super) fn connect(path: &Path, user: u32, patience: Duration) -> io::Result<Self> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        log_in(&mut stream, user)?;
        Ok(Self { stream, serial: 0, signals: Vec::new() })
    }

    /// Calls a method; signals that come meanwhile are kept.
    pub(super) fn call<B>(&mut self, path: &str, interface: &str, member: &str, body: &B) -> Result<Message, Failed>
    where
        B: Serialize + DynamicType,
    {
        self.serial += 1;
        let message = encode(self.serial, path, interface, member, body)?;
        self.stream.write_all(&message)?;
        loop {
            let message = receive(&mut self.stream)?;
            match message.kind {
                SIGNAL => self.signals.push(message),
                ERROR if message.reply_to == Some(self.serial) => {
                    // Its first argument, if it has one, are words.
                    let words =
                        if message.signature.starts_with('s') { message.arguments() } else { Ok(String::new()) };
                    return Err(Failed::Said(message.error.clone(), words?));
                }
                _ if message.reply_to == Some(self.serial) => return Ok(message),
                // An answer to nobody's call, or a call to us, who offer nothing.
                _ => {}
            }
        }
    }

    /// The next signal, the oldest first.
    pub(super) fn signal(&mut self) -> Result<Message, Failed> {
        if !self.signals.is_empty() {
            return Ok(self.signals.remove(0));
        }
        loop {
            let message = receive(&mut self.stream)?;
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }
}

/// The peer sees by the socket who we are; we only have to claim it.
fn log_in(stream: &mut UnixStream, user: u32) -> io::Result<()> {
    let user: String = user.to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
    // All in one: systemd does not look at a call that came with the end of this talk before the next one comes.
    stream.write_all(format!("\0AUTH EXTERNAL {user}\r\nBEGIN\r\n").as_bytes())?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the line is not ours to take.
    while !answer.ends_with(b"\r\n") && answer.len() < 512 {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    if !answer.starts_with(b"OK ") {
        let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
        return Err(io::Error::other(format!("it does not let us in: {answer:?}")));
    }
    Ok(())
}

/// The bytes of a call.
fn encode<B>(serial: u32, path: &str, interface: &str, member: &str, body: &B) -> Result<Vec<u8>, Failed>
where
    B: Serialize + DynamicType,
{
    let encoded = to_bytes(Context::new_dbus(LE, 0), body)?;
    let signature = body.signature().to_string_no_parens();
    let fields = [
        (FIELD_PATH, b'o', path),
        (FIELD_INTERFACE, b's', interface),
        (FIELD_MEMBER, b's', member),
        (FIELD_SIGNATURE, b'g', &signature),
    ];
    Ok(message(CALL, serial, &fields, &encoded)?)
}

/// A message of `kind` with fields that are texts: the code, the type and the text of each.
fn message(kind: u8, serial: u32, fields: &[(u8, u8, &str)], body: &[u8]) -> io::Result<Vec<u8>> {
    let length = |bytes: usize| u32::try_from(bytes).map(u32::to_le_bytes).map_err(io::Error::other);
    let mut all = vec![b'l', kind, 0, 1];
    all.extend(length(body.len())?);
    all.extend(serial.to_le_bytes());
    all.extend([0; 4]);
    for (code, of_type, text) in fields {
        all.resize(all.len().next_multiple_of(8), 0);
        // A structure of the code and a variant, which begins with its signature.
        all.extend([*code, 1, *of_type, 0]);
        match *of_type {
            // A signature's length is one byte.
            b'g' => all.push(u8::try_from(text.len()).map_err(io::Error::other)?),
            _ => all.extend(length(text.len())?),
        }
        all.extend(text.as_bytes());
        all.push(0);
    }
    let fields = length(all.len() - FIXED)?;
    all[FIXED - 4..FIXED].copy_from_slice(&fields);
    all.resize(all.len().next_multiple_of(8), 0);
    all.extend(body);
    Ok(all)
}

/// Reads one message, no byte more.
fn receive(stream: &mut impl Read) -> Result<Message, Failed> {
    let mut bytes = vec![0; FIXED];
    stream.read_exact(&mut bytes)?;
    let endian = if bytes[0] == b'l' { Endian::Little } else { Endian::Big };
    let number = |bytes: &[u8]| {
        let bytes: [u8; 4] = bytes.try_into().unwrap_or_default();
        if endian == Endian::Little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
    };
    let (body, fields) = (number(&bytes[4..8]) as usize, number(&bytes[12..16]) as usize);
    if body > LARGEST || fields > LARGEST {
        return Err(io::Error::other("a message is too large").into());
    }
    let end = (FIXED + fields).next_multiple_of(8);
    bytes.resize(end + body, 0);
    stream.read_exact(&mut bytes[FIXED..])?;
    let data = Data::new(&bytes[..end], Context::new_dbus(endian, 0));
    let ((_, kind, _, _, _, _, mut fields), _): (Header<'_>, usize) = data.deserialize()?;
    let mut text = |field| fields.remove(&field).and_then(|value| String::try_from(value).ok()).unwrap_or_default();
    let (error, member) = (text(FIELD_ERROR), text(FIELD_MEMBER));
    let signature = match fields.get(&FIELD_SIGNATURE) {
        Some(Value::Signature(signature)) => signature.to_string_no_parens(),
        _ => String::new(),
    };
    let reply_to = fields.get(&FIELD_REPLY_TO).and_then(|value| u32::try_from(value).ok());
    Ok(Message { kind, reply_to, error, member, body: bytes.split_off(end), endian, signature })
}

#[cfg(test)]
mod tests;
