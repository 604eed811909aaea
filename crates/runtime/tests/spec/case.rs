//! One container: a specification that a test changes, a root of busybox, and what came of it.

use std::ffi::CString;
use std::fs as files;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use hull_runtime::cgroup::{self, Cgroup, Host, Place};
use hull_runtime::hooks::About;
use hull_runtime::plan::Plan;
use hull_runtime::{Created, Ended, Inputs, Result, Start, Stdio};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

/// A container to be.
pub struct Case {
    pub spec: Value,
    root: tempfile::TempDir,
}

/// What a command wrote, both streams together, and how it ended.
#[derive(Debug)]
pub struct Output {
    pub text: String,
    pub ended: Ended,
}

/// A container whose command has not started.
pub struct Made {
    pub created: Created,
    group: Cgroup,
    output: OwnedFd,
}

const CAPABILITIES: [&str; 9] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
];

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Case {
    /// `sh -c script` in namespaces of its own, with the usual mounts.
    pub fn new(script: &str) -> Self {
        let root = tempfile::Builder::new().prefix("hull-test-spec-").tempdir().unwrap();
        // A root that others than its owner can walk through.
        files::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        files::create_dir(root.path().join("bin")).unwrap();
        files::copy("/bin/busybox", root.path().join("bin/busybox")).expect("busybox-static is installed");
        for name in
            ["sh", "cat", "echo", "id", "ls", "stat", "mount", "mkdir", "touch", "sleep", "grep", "readlink", "sed"]
        {
            symlink("busybox", root.path().join("bin").join(name)).unwrap();
        }
        let mount = |kind: &str, target: &str, options: &[&str]| -> Value {
            json!({"type": kind, "source": kind, "destination": target, "options": options})
        };
        let caps = json!(CAPABILITIES);
        let spec = json!({
            "ociVersion": "1.3.0",
            "root": {"path": root.path()},
            "process": {
                "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/bin"],
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            },
            "mounts": [
                mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
                mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            ],
            "linux": {
                "resources": {"pids": {"limit": 100}},
            },
        });
        Self { spec, root }.namespaces(&["mount", "pid", "uts", "ipc", "network", "cgroup"])
    }

    /// With `value` at a JSON pointer; missing objects on the way there are made.
    pub fn with(mut self, pointer: &str, value: Value) -> Self {
        let mut at = &mut self.spec;
        for part in pointer.trim_start_matches('/').split('/') {
            if at.is_null() {
                *at = json!({});
            }
            at = match at {
                Value::Array(list) => {
                    let index = part.parse().unwrap_or(list.len());
                    if index == list.len() {
                        list.push(Value::Null);
                    }
                    &mut list[index]
                }
                Value::Object(fields) => fields.entry(part).or_insert(Value::Null),
                other => panic!("{pointer} leads into {other}"),
            };
        }
        *at = value;
        self
    }

    /// With namespaces of these kinds new, and no others.
    pub fn namespaces(self, kinds: &[&str]) -> Self {
        let list: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
        self.with("/linux/namespaces", list.into())
    }

    /// With one more mount.
    pub fn mount(self, mount: Value) -> Self {
        self.with("/mounts/-", mount)
    }

    /// The root as the host sees it.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Everything but the start.
    pub fn create(&self) -> Result<Made> {
        let spec: Spec = serde_json::from_value(self.spec.clone()).unwrap();
        let plan = Plan::from_spec(&spec)?;
        let host = Host::detect()?;
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().clone());
        let writes = cgroup::plan(&host, &resources.unwrap_or_default())?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut group = Cgroup::create(&host, &self.place(&spec, number)?, &writes)?;
        let path = CString::new(self.root.path().to_str().unwrap()).unwrap();
        let root = hull_sys::mount::clone_tree(&path, true).unwrap();
        let (output, input) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let null = files::File::open("/dev/null").unwrap();
        let stdio = Stdio::Given([null.into(), input.try_clone().unwrap(), input]);
        let created = hull_runtime::create(
            &plan,
            Inputs {
                root,
                cgroup: &mut group,
                stdio,
                start: Start::WhenTold,
                about: About::default(),
                place: None,
                born: &mut |_| Ok(()),
            },
        )?;
        Ok(Made { created, group, output })
    }

    fn place(&self, spec: &Spec, number: u32) -> Result<Place> {
        match spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref()) {
            Some(path) => Place::from_spec(path),
            None => Ok(Place::Beside(format!("hull-test-spec-{}-{number}", std::process::id()))),
        }
    }

    /// From the creation to the end.
    pub fn run(&self) -> Result<Output> {
        self.create()?.finish()
    }

    /// What the command wrote; it must have ended well.
    pub fn text(&self) -> String {
        let output = self.run().unwrap();
        assert_eq!(output.ended, Ended::Exited(0), "{}", output.text);
        output.text
    }

    /// Why it could not be created or started.
    pub fn error(&self) -> String {
        match self.run() {
            Ok(output) => panic!("it ran: {output:?}"),
            Err(error) => error.to_string(),
        }
    }
}

impl Made {
    /// Starts the command and waits for its end.
    pub fn finish(self) -> Result<Output> {
        self.created.start()?;
        let mut text = String::new();
        files::File::from(self.output).read_to_string(&mut text).unwrap();
        let ended = self.created.wait()?;
        self.group.remove()?;
        Ok(Output { text, ended })
    }

    /// Ends it without a start.
    pub fn abandon(self) {
        self.created.signal(9).unwrap();
        self.created.wait().unwrap();
        self.group.remove().unwrap();
    }
}
