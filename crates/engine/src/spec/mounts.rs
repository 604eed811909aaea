//! The mounts of a container: the kernel's file systems, files of our own, and what the user asked for. Pure.

use std::path::PathBuf;

use oci_spec::runtime::{Mount, MountBuilder};

use super::Built;
use crate::options::RunOptions;

fn mount(kind: &str, target: &str, options: &[&str]) -> Built<Mount> {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    MountBuilder::default().typ(kind).source(kind).destination(target).options(options).build()
}

/// How many mounts are the kernel's file systems; they come first.
pub const KERNEL_MOUNTS: usize = 7;

/// All mounts in their order.
pub(super) fn mounts(options: &RunOptions) -> Built<Vec<Mount>> {
    // What a privileged container may write to: the host's devices and settings, and its own control groups.
    let access = if options.privileged { "rw" } else { "ro" };
    let kernel: [Mount; KERNEL_MOUNTS] = [
        mount("proc", "/proc", &["nosuid", "noexec", "nodev"])?,
        mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"])?,
        mount("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])?,
        mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"])?,
        mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", access])?,
        mount("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", access])?,
    ];
    let mut all = kernel.to_vec();
    for tmpfs in &options.tmpfs {
        let given: Vec<&str> = tmpfs.options.iter().map(String::as_str).collect();
        all.push(mount("tmpfs", &tmpfs.target.to_string_lossy(), &given)?);
    }
    for volume in &options.binds {
        let mode: &[&str] = if volume.read_only { &["rbind", "rprivate", "rro"] } else { &["rbind", "rprivate"] };
        all.push(bind(&volume.source, &volume.target.to_string_lossy(), mode)?);
    }
    Ok(all)
}

fn bind(source: &PathBuf, target: &str, options: &[&str]) -> Built<Mount> {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    MountBuilder::default().typ("bind").source(source).destination(target).options(options).build()
}
