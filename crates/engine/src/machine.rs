//! What of this machine a specification depends on, looked at once, so that the specification itself is pure.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use hull_runtime::caps;
use hull_runtime::cgroup::Host;
use oci_spec::OciSpecError;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};

use crate::error::{Error, Result};
use crate::options::RunOptions;
use crate::profile;

/// The machine, as far as the options ask for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    /// The capabilities that hull can give, as a mask.
    pub capabilities: u64,
    /// The kernel's version, which a seccomp profile may depend on.
    pub kernel: (u32, u32),
    /// Whether swap is counted and can be limited; looked for only where memory is limited without a word about swap.
    pub counts_swap: bool,
    /// What is masked, unless privileged.
    pub masked: Vec<String>,
    /// The device nodes of the host; looked for only with `--privileged`.
    pub devices: Vec<LinuxDevice>,
}

impl Machine {
    /// Looks at what a container with `options` depends on.
    pub(crate) fn look(options: &RunOptions) -> Result<Self> {
        let (masked, devices) = match options.privileged {
            true => (Vec::new(), devices(Path::new("/dev"))?),
            false => (profile::masked(), Vec::new()),
        };
        // Whoever says which capabilities has looked already.
        let capabilities = options.capabilities.map_or_else(caps::available, Ok)?;
        let counts_swap = options.memory.is_some() && options.memory_swap.is_none() && Host::detect()?.counts_swap();
        Ok(Self { capabilities, counts_swap, kernel: kernel(), masked, devices })
    }
}

/// Major and minor version, 0 where the kernel names itself in another way.
fn kernel() -> (u32, u32) {
    let uname = rustix::system::uname();
    let mut numbers = uname.release().to_str().unwrap_or_default().split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse().ok()).unwrap_or(0);
    (next(), next())
}

/// What every container has of its own below /dev: file systems, and the multiplexer and the console of its terminal.
const OWN: [&str; 5] = ["pts", "shm", "mqueue", "ptmx", "console"];

/// All block and character devices below `dev`, which stands for the host's /dev, with owners and permissions. What
/// vanishes while it is looked at is not there.
fn devices(dev: &Path) -> Result<Vec<LinuxDevice>> {
    let mut all = Vec::new();
    collect(dev, Path::new("/dev"), &mut all)?;
    all.sort_by(|one, other| one.path().cmp(other.path()));
    Ok(all)
}

fn collect(folder: &Path, shown: &Path, all: &mut Vec<LinuxDevice>) -> Result<()> {
    let doing = || format!("read the devices in {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| Error::host(doing(), error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| Error::host(doing(), error))?;
        let name = entry.file_name();
        if shown == Path::new("/dev") && OWN.iter().any(|own| name == *own) {
            continue;
        }
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(|error| Error::host(doing(), error))?,
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            collect(&entry.path(), &shown.join(name), all)?;
        } else if kind.is_block_device() || kind.is_char_device() {
            all.push(device(&shown.join(name), &metadata).map_err(|error| Error::host(doing(), error))?);
        }
    }
    Ok(())
}

fn device(path: &Path, metadata: &fs::Metadata) -> std::result::Result<LinuxDevice, OciSpecError> {
    let number = metadata.rdev();
    let block = metadata.file_type().is_block_device();
    LinuxDeviceBuilder::default()
        .path(path)
        .typ(if block { LinuxDeviceType::B } else { LinuxDeviceType::C })
        .major(i64::from(rustix::fs::major(number)))
        .minor(i64::from(rustix::fs::minor(number)))
        .file_mode(metadata.mode() & 0o777)
        .uid(metadata.uid())
        .gid(metadata.gid())
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_brings_its_own_terminals_and_takes_the_other_devices() {
        let all = devices(Path::new("/dev")).unwrap();
        let path = |device: &LinuxDevice| device.path().to_string_lossy().into_owned();
        let names: Vec<String> = all.iter().map(path).collect();
        assert!(names.iter().any(|name| name == "/dev/null"), "{names:?}");
        let own = |name: &String| OWN.iter().any(|own| Path::new(name).starts_with(Path::new("/dev").join(own)));
        assert!(!names.iter().any(own), "{names:?}");
        let null = all.iter().find(|device| path(device) == "/dev/null").unwrap();
        assert_eq!((null.major(), null.minor(), null.typ()), (1, 3, LinuxDeviceType::C));
    }

    #[test]
    fn folders_are_searched_and_what_is_no_device_is_left() {
        let dev = tempfile::tempdir().unwrap();
        fs::create_dir_all(dev.path().join("net")).unwrap();
        fs::write(dev.path().join("net/file"), "").unwrap();
        std::os::unix::fs::symlink("/dev/null", dev.path().join("link")).unwrap();
        assert_eq!(devices(dev.path()).unwrap().len(), 0);
        assert_eq!(devices(&dev.path().join("gone")).unwrap().len(), 0);
    }
}
