//! `spec`: a config.json to begin with, the same as runc's.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use hull_runtime::cgroup::Host;
use rustix::process::{getegid, geteuid};
use serde_json::{Value, json};

use crate::report::Report;
use hull_runtime::spec::VERSION;

// What `spec` takes.
#[derive(Args)]
pub struct SpecArgs {
    /// Folder for config.json; the current one if not given
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// For a caller who is not root
    #[arg(long)]
    rootless: bool,
}

/// `spec`.
pub fn spec(args: &SpecArgs) -> Result<i32, Report> {
    let unified = Host::detect()?.unified();
    let mut spec = standard(unified);
    if args.rootless {
        give_up_root(&mut spec);
    }
    write(&args.bundle.join("config.json"), &spec)?;
    Ok(0)
}

fn write(path: &Path, spec: &Value) -> Result<(), Report> {
    let doing = || format!("write {}", path.display());
    let text = serde_json::to_string_pretty(spec).map_err(|error| Report::host(doing(), error))?;
    match File::create_new(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Report::usage("File config.json exists. Remove it first", None))
        }
        made => {
            let written = made.and_then(|mut file| file.write_all(format!("{text}\n").as_bytes()));
            written.map_err(|error| Report::host(doing(), error))
        }
    }
}

/// A shell in a root that it cannot write to. On cgroup v2 it has a view of its own groups only.
fn standard(unified: bool) -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mount = |kind: &str, source: &str, destination: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let mut kinds = vec!["pid", "network", "ipc", "uts", "mount"];
    kinds.extend(unified.then_some("cgroup"));
    json!({
        "ociVersion": VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "hull",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "devpts", "devpts", "/dev/pts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            mount("tmpfs", "shm", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
            mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
            mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": kinds.iter().map(|kind| json!({"type": kind})).collect::<Vec<_>>(),
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// What an ordinary user may have: its own ids, the host's network and view of devices, no limits.
fn give_up_root(spec: &mut Value) {
    let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    let linux = &mut spec["linux"];
    linux["uidMappings"] = map(geteuid().as_raw());
    linux["gidMappings"] = map(getegid().as_raw());
    if let Some(fields) = linux.as_object_mut() {
        fields.remove("resources");
    }
    if let Some(list) = linux["namespaces"].as_array_mut() {
        list.retain(|namespace| namespace["type"] != "network");
        list.push(json!({"type": "user"}));
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if mount["type"] == "devpts" {
            // No group of the host's is there.
            mount["options"]
                .as_array_mut()
                .into_iter()
                .for_each(|options| options.retain(|option| option != "gid=5"));
        }
        if mount["type"] == "sysfs" {
            // Only the owner of the network namespace may mount one.
            mount["type"] = "none".into();
            mount["source"] = "/sys".into();
            mount["options"] = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
        }
    }
}
