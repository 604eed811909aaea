//! The files that a container has of its own in /etc, which say where it is.

use std::fs;
use std::path::Path;

use hull_runtime::plan::{MountStep, What};

/// Where they appear.
pub(crate) const TARGETS: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// The files as mounts.
pub(crate) fn files(hostname: &str, host_network: bool) -> Vec<MountStep> {
    let hosts = format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n");
    let resolv = if host_network { fs::read("/etc/resolv.conf").unwrap_or_default() } else { Vec::new() };
    let texts = [hosts.into_bytes(), format!("{hostname}\n").into_bytes(), resolv];
    let file = |(target, text)| MountStep {
        destination: Path::new(target).into(),
        label: None,
        what: What::File { text },
        options: Default::default(),
        ids: None,
    };
    TARGETS.into_iter().zip(texts).map(file).collect()
}
