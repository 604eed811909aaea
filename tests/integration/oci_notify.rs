//! sd_notify(3) across a container's border: what a service of systemd's is told when its command is a container.

use std::fs;
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_tests::bundle::Bundle;
use serde_json::json;

/// A bundle whose command can speak.
fn bundle(script: &str) -> Bundle {
    let bundle = Bundle::new(script);
    fs::copy(env!("CARGO_BIN_EXE_hull-probe"), bundle.corner.rootfs().join("bin/probe")).unwrap();
    bundle
}

/// Where systemd would listen.
fn host(bundle: &Bundle) -> UnixDatagram {
    let host = UnixDatagram::bind(bundle.corner.path().join("host.sock")).unwrap();
    host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    host
}

fn command(bundle: &Bundle, arguments: &[&str]) -> Command {
    let mut command = bundle.command(arguments);
    command.env("NOTIFY_SOCKET", bundle.corner.path().join("host.sock")).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn heard(host: &UnixDatagram) -> String {
    let mut message = [0; 4096];
    let length = host.recv(&mut message).unwrap();
    String::from_utf8_lossy(&message[..length]).into_owned()
}

/// Whether it ends within a second.
fn ends(child: &mut Child) -> bool {
    std::thread::sleep(Duration::from_secs(1));
    child.try_wait().unwrap().is_some()
}

/// The command says other things first and waits for a word between. Only that it is ready comes out, and the number is hull's:
/// nothing else of its messages does.
#[test]
fn start_waits_until_the_command_is_ready_and_tells_which_process_it_is() {
    let bundle = bundle(
        "probe say STATUS=soon XREADY=1 READY=0; read word < /go; probe say 'MAINPID=1|READY=1|FDSTORE=1'; exec sleep 1000",
    );
    let go = bundle.corner.rootfs().join("go");
    assert!(Command::new("mkfifo").arg(&go).status().unwrap().success());
    let host = host(&bundle);
    let id = bundle.id("ready");
    assert!(command(&bundle, &["create", &id]).status().unwrap().success());
    let mut start = command(&bundle, &["start", &id]).spawn().unwrap();
    assert!(!ends(&mut start), "it does not wait");
    fs::write(&go, "on\n").unwrap();
    assert_eq!(heard(&host), "READY=1\n");
    assert_eq!(heard(&host), format!("MAINPID={}\n", bundle.state(&id)["pid"]));
    // Until the barrier is looked at the sender is there to be asked for.
    assert!(!ends(&mut start), "it does not wait until it was heard");
    assert_eq!(heard(&host), "BARRIER=1");
    assert!(start.wait().unwrap().success());
    bundle.ok(&["delete", "--force", &id]);
}

/// In a network of its own: an abstract name is the caller's network's, and is connected to from outside.
#[test]
fn a_run_that_is_left_alone_waits_too_whoever_the_command_is() {
    let bundle = bundle("probe say READY=1; exec sleep 1000");
    let name = bundle.id("abstract");
    let host = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    bundle.change(|spec| {
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        spec["root"]["readonly"] = true.into();
    });
    let id = bundle.id("left");
    let mut run = command(&bundle, &["run", "--detach", &id]);
    let mut run = run.env("NOTIFY_SOCKET", format!("@{name}")).spawn().unwrap();
    assert_eq!(heard(&host), "READY=1\n");
    assert_eq!(heard(&host), format!("MAINPID={}\n", bundle.state(&id)["pid"]));
    assert_eq!(heard(&host), "BARRIER=1");
    assert!(run.wait().unwrap().success());
    // An exec is not the service.
    assert_eq!(bundle.exec(&[], &id, "echo $NOTIFY_SOCKET").out, "\n");
    bundle.ok(&["delete", "--force", &id]);
}

#[test]
fn a_run_in_the_foreground_is_the_process_to_watch() {
    let bundle = bundle("probe say READY=1; read word < /go");
    let go = bundle.corner.rootfs().join("go");
    assert!(Command::new("mkfifo").arg(&go).status().unwrap().success());
    let host = host(&bundle);
    let id = bundle.id("watched");
    let mut run = command(&bundle, &["run", &id]).spawn().unwrap();
    assert_eq!(heard(&host), "READY=1\n");
    assert_eq!(heard(&host), format!("MAINPID={}\n", run.id()));
    fs::write(&go, "on\n").unwrap();
    assert!(run.wait().unwrap().success());
}

#[test]
fn a_command_that_ends_unready_keeps_nobody_waiting() {
    let bundle = bundle("probe say STATUS=no");
    let host = host(&bundle);
    let id = bundle.id("unready");
    assert!(command(&bundle, &["create", &id]).status().unwrap().success());
    assert!(command(&bundle, &["start", &id]).status().unwrap().success());
    host.set_nonblocking(true).unwrap();
    assert!(host.recv(&mut [0; 10]).is_err(), "something was passed on");
    bundle.ok(&["delete", "--force", &id]);
    assert!(command(&bundle, &["run", &id]).status().unwrap().success());
}

#[test]
fn a_caller_who_cannot_be_told_is_an_error_before_anything_runs() {
    let bundle = bundle("echo ran > /ran");
    let id = bundle.id("deaf");
    let mut run = command(&bundle, &["run", &id]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    run.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(1));
    assert!(said.contains("cannot connect to NOTIFY_SOCKET") && said.contains("host.sock"), "{said}");
    assert!(!bundle.corner.rootfs().join("ran").exists() && !bundle.root().join(&id).exists());
    // Without the variable there is nothing of all this in the container.
    bundle.change(|spec| spec["process"]["args"] = json!(["sh", "-c", "echo -$NOTIFY_SOCKET-; ls /run/notify"]));
    let said = bundle.oci(&["run", &id]);
    assert!(said.out == "--\n" && said.err.contains("/run/notify"), "{said:?}");
}
