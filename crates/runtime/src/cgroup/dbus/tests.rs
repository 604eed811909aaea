//! Against a peer that answers as it is told to, over a socket pair.

use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use zvariant::OwnedObjectPath;

use super::*;

/// The bytes of an answer to call number 1, or of a signal.
fn answer<B: Serialize + DynamicType>(kind: u8, fields: &[(u8, u8, &str)], body: &B) -> Vec<u8> {
    let encoded = to_bytes(Context::new_dbus(LE, 0), body).unwrap();
    let signature = body.signature().to_string_no_parens();
    // systemd's name for itself, which is no unique name.
    let more = [(FIELD_SIGNATURE, b'g', &*signature), (7, b's', "org.freedesktop.systemd1")];
    let mut message = message(kind, 9, &[fields, &more].concat(), &encoded).unwrap();
    if kind != SIGNAL {
        // The serial number that it answers to, as a last field.
        let end = FIXED + u32::from_le_bytes(message[12..16].try_into().unwrap()) as usize;
        let mut head = message[..end].to_vec();
        head.resize(end.next_multiple_of(8), 0);
        head.extend([FIELD_REPLY_TO, 1, b'u', 0, 1, 0, 0, 0]);
        let length = (head.len() - FIXED) as u32;
        head[12..16].copy_from_slice(&length.to_le_bytes());
        message = [&head, &encoded[..]].concat();
    }
    message
}

/// A peer that lets us in, takes one call and answers with `bytes`; gives the call.
fn peer(bytes: Vec<u8>) -> (tempfile::TempDir, JoinHandle<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    let peer = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut claim = [0; 26];
        stream.read_exact(&mut claim).unwrap();
        assert_eq!(&claim, b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n");
        stream.write_all(b"OK 0123456789abcdef\r\n").unwrap();
        let mut head = [0; FIXED];
        stream.read_exact(&mut head).unwrap();
        let length = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap()) as usize;
        let mut call = vec![0; length(12).next_multiple_of(8) + length(4)];
        stream.read_exact(&mut call).unwrap();
        stream.write_all(&bytes).unwrap();
        call
    });
    (folder, peer)
}

fn call(folder: &tempfile::TempDir) -> (Line, Result<Message, Failed>) {
    let mut line = Line::connect(&folder.path().join("socket"), 0, Duration::from_secs(5)).unwrap();
    let properties = vec![("PIDs".to_owned(), Value::from(vec![7u32]))];
    let reply = line.call("/org/freedesktop/systemd1", "a.b", "Start", &("x.scope", "replace", properties));
    (line, reply)
}

#[test]
fn a_call_has_its_answer_and_signals_before_and_after_it_are_kept() {
    let job = OwnedObjectPath::try_from("/job/1").unwrap();
    let signal = |id: u32| answer(SIGNAL, &[(FIELD_MEMBER, b's', "JobRemoved")], &(id, "done"));
    let reply = answer(2, &[], &(&job,));
    let (folder, peer) = peer([signal(4), reply, signal(5)].concat());
    let (mut line, reply) = call(&folder);
    assert_eq!(reply.unwrap().arguments::<OwnedObjectPath>().unwrap(), job);
    for id in [4, 5] {
        let signal = line.signal().unwrap();
        assert_eq!(
            (&*signal.member, signal.arguments::<(u32, String)>().unwrap()),
            ("JobRemoved", (id, "done".into()))
        );
    }
    let call = peer.join().unwrap();
    // Not in parentheses, as a structure would be: systemd takes that for other arguments.
    let said = |text: &[u8]| call.windows(text.len()).any(|window| window == text);
    assert!(said(b"\x08\x01g\0\x07ssa(sv)\0") && said(b"\x03\x01s\0\x05\0\0\0Start\0"), "{call:?}");
}

#[test]
fn an_error_has_its_name_and_words() {
    let fields = [(FIELD_ERROR, b's', "a.b.NoSuchUnit")];
    let (folder, peer) = peer(answer(ERROR, &fields, &("it is not there",)));
    let Err(Failed::Said(name, words)) = call(&folder).1 else { panic!("an error") };
    assert_eq!((&*name, &*words), ("a.b.NoSuchUnit", "it is not there"));
    peer.join().unwrap();
}

#[test]
fn a_peer_that_hangs_up_or_speaks_otherwise_is_an_error() {
    let (folder, hung_up) = peer(vec![]);
    assert!(matches!(call(&folder).1, Err(Failed::Line(_))));
    hung_up.join().unwrap();
    let (folder, large) = peer([b"l\x02\x01\x01".as_slice(), &[0xff; 12]].concat());
    assert!(matches!(call(&folder).1, Err(Failed::Line(error)) if error.to_string().contains("too large")));
    large.join().unwrap();
    assert!(Line::connect(Path::new("/no/such/socket"), 0, Duration::from_secs(1)).is_err());
}
