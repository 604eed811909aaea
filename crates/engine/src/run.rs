//! The story of `hull run`: from what was asked to the command's exit status.
//!
//! Each line of [`run`] is a module to open. What it builds is undone in reverse when a step fails or the container
//! has ended: descriptors close by themselves, the folder and the groups are guards.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hull_runtime::Inputs;
use hull_runtime::cgroup::{self, Cgroup, Host};
use hull_runtime::plan::Plan;
use hull_sys::path::Root;
use hull_sys::{mount, trace};

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::options::{Network, RunOptions};
use crate::relay::Relay;
use crate::{spec, user};

/// Where this hull keeps what a reboot ends.
#[derive(Clone, Debug)]
pub struct Engine {
    /// `/run/hull` unless told otherwise.
    pub runroot: PathBuf,
}

/// Runs a command in a new container and waits for it. Gives the command's exit status, 128 and more for a signal.
///
/// # Errors
/// [`Error`]; nothing is left behind then.
pub fn run(engine: &Engine, options: &RunOptions) -> Result<i32> {
    let id = new_id()?;

    // The container's root: a detached copy of the folder's mount. No path of the host ever leads to it.
    trace::stage("take the root file system", "A detached mount belongs to a descriptor, not to the host's tree.");
    let root = root_mount(&options.rootfs)?;

    // A lock on a folder of its own says that the container lives; it dies with this process.
    let folder = Folder::create(&engine.runroot, &id)?;
    let hostname = options.hostname.as_deref().unwrap_or(&id[..12]);
    let etc = folder.write_etc(hostname, options.network == Network::Host)?;

    // What was asked becomes a specification, and that becomes a plan: both are data, and nothing has happened yet.
    let user = user::resolve(&duplicate(&root)?, options.user.as_deref().unwrap_or(""))?;
    let spec = spec::build(options, &user, &id, &etc)?;
    let mut plan = Plan::from_spec(&spec)?;
    plan.die_with_parent = true;

    // Limits come to be before the process does. A limit that the kernel refuses ends the run here.
    trace::stage("set the limits", "A control group is a folder, a limit a number in a file of it.");
    let host = Host::detect()?;
    let writes = cgroup::plan(&host, resources(&spec)?)?;
    let group = Cgroup::create(&host, &format!("hull-{id}"), &writes)?;

    // Signals are blocked from here on: the relay reads them and passes them on.
    let mut relay = Relay::prepare(options)?;
    let inputs = Inputs { root, cgroup: &group, stdio: relay.take_stdio()? };
    let mut created = hull_runtime::create(&plan, inputs)?;
    relay.connect(&mut created)?;
    created.start()?;
    let ended = relay.until_end(&created)?;
    drop(relay);

    group.remove()?;
    drop(folder);
    Ok(ended.code())
}

/// What [`run`] would do, as data: the plan and the values for the control groups. Does nothing.
///
/// # Errors
/// As [`run`] before anything happens.
pub fn dry_run(options: &RunOptions) -> Result<String> {
    let id = new_id()?;
    let root = root_mount(&options.rootfs)?;
    let user = user::resolve(&duplicate(&root)?, options.user.as_deref().unwrap_or(""))?;
    let spec = spec::build(options, &user, &id, &[])?;
    let plan = Plan::from_spec(&spec)?;
    let writes = cgroup::plan(&Host::detect()?, resources(&spec)?)?;
    let limits: String =
        writes.iter().map(|write| format!("cgroup      {} = {}\n", write.file, write.value)).collect();
    Ok(format!("root        {}\n{plan}{limits}", options.rootfs.display()))
}

fn resources(spec: &oci_spec::runtime::Spec) -> Result<&oci_spec::runtime::LinuxResources> {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    resources.ok_or_else(|| Error::host("limit the container", "the specification has no resources"))
}

/// 32 random bytes in hexadecimal: Docker's kind of id.
fn new_id() -> Result<String> {
    let mut bytes = [0u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::host("make an id", error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn root_mount(path: &Path) -> Result<std::os::fd::OwnedFd> {
    let doing = || format!("use {} as the root file system", path.display());
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| Error::host(doing(), error))?;
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::host(doing(), "no such directory"));
        }
        Ok(metadata) if !metadata.is_dir() => return Err(Error::host(doing(), "it is not a directory")),
        Err(error) => return Err(Error::host(doing(), error)),
        Ok(_) => {}
    }
    // Recursive, as runc's: what the user mounted below the folder is part of the file system that was asked for.
    mount::clone_tree(&name, true).map_err(|error| Error::host(doing(), error))
}

fn duplicate(root: &std::os::fd::OwnedFd) -> Result<Root> {
    root.try_clone().map(Root::from_fd).map_err(|error| Error::host("open the root file system", error))
}
