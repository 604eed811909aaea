//! `features`: what hull performs of the specification, in its own shape (features.md).

use hull_runtime::{caps, hooks, options, plan, seccomp};
use serde_json::{Value, json};

use super::manage::say;
use crate::report::Report;
use hull_runtime::spec::VERSION;

/// `features`.
pub fn features() -> Result<i32, Report> {
    let text = serde_json::to_string_pretty(&told()).map_err(|error| Report::host("tell the features", error))?;
    say(&format!("{text}\n"))
}

/// From the tables that the work is done by.
fn told() -> Value {
    let capabilities: Vec<String> = caps::NAMES.iter().map(|name| format!("CAP_{name}")).collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": hooks::KINDS,
        "mountOptions": options::known(),
        "linux": {
            "namespaces": plan::words(),
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": seccomp::ACTIONS.map(|action| action.0),
                "operators": seccomp::OPERATORS,
                "archs": seccomp::ARCHITECTURES,
                "knownFlags": seccomp::FLAGS.map(|flag| flag.0),
                "supportedFlags": seccomp::supported_flags(),
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        "annotations": {"org.opencontainers.runc.checkpoint.enabled": "false"},
    })
}
