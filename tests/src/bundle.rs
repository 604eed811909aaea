//! A bundle, and hull as its OCI runtime.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::Value;

use crate::{Corner, Said, hull_bin};

/// A corner with a bundle, and hull under the name that says that it is an OCI runtime.
pub struct Bundle {
    /// Its folder is the bundle.
    pub corner: Corner,
    program: PathBuf,
    tag: String,
}

impl Bundle {
    /// The bundle of `runc spec` with `script` as its command.
    pub fn new(script: &str) -> Self {
        let corner = Corner::new();
        let program = corner.path().join("hull-oci");
        symlink(hull_bin(), &program).unwrap();
        assert!(Command::new("runc").arg("spec").current_dir(corner.path()).status().unwrap().success());
        let tag = corner.path().file_name().unwrap().to_string_lossy().into_owned();
        let bundle = Self { corner, program, tag };
        bundle.change(|spec| {
            spec["process"]["terminal"] = false.into();
            spec["process"]["args"] = ["sh", "-c", script].as_slice().into();
            spec["root"]["readonly"] = false.into();
        });
        bundle
    }

    /// Changes its config.json.
    pub fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.corner.path().join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut spec);
        fs::write(path, spec.to_string()).unwrap();
    }

    /// The folder of its containers: `--root`.
    pub fn root(&self) -> PathBuf {
        self.corner.path().join("oci")
    }

    /// A container's id, which is its groups' name: nobody else's.
    pub fn id(&self, name: &str) -> String {
        format!("{name}-{}", self.tag)
    }

    /// A command of `hull-oci`, from the bundle.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(self.corner.path()).arg("--root").arg(self.root()).args(arguments);
        command
    }

    /// Runs it to its end.
    pub fn oci(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs it, which has to work, and gives its output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.oci(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.out
    }

    /// `create`, with an output that nobody reads: a pipe would be held open by the container.
    pub fn create(&self, id: &str) {
        let mut create = self.command(&["create", "-b", ".", id]);
        let said = create.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert!(said.success());
    }

    /// `create` and `start`.
    pub fn start(&self, id: &str) {
        self.create(id);
        self.ok(&["start", id]);
    }

    /// `exec` with these flags: what a shell in the container says.
    pub fn exec(&self, flags: &[&str], id: &str, script: &str) -> Said {
        self.oci(&[&["exec"], flags, &[id, "sh", "-c", script]].concat())
    }

    /// What `state` says.
    pub fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).unwrap()
    }

    /// The container's control groups, as its state lists them.
    pub fn groups(&self, id: &str) -> Vec<PathBuf> {
        let text = fs::read_to_string(self.root().join(id).join("state.json")).unwrap();
        let state: Value = serde_json::from_str(&text).unwrap();
        state["groups"].as_array().unwrap().iter().map(|path| path.as_str().unwrap().into()).collect()
    }
}

/// The descriptor that somebody sends to the socket, as callers of an OCI runtime get a terminal.
///
/// # Panics
/// Nobody sends one.
pub fn received(listener: &UnixListener) -> OwnedFd {
    let (stream, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0; 64];
    rustix::net::recvmsg(&stream, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .unwrap();
    let rights = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    rights.expect("a descriptor")
}
