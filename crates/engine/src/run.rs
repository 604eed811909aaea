//! The story of `hull run`: from what was asked to the command's exit status.
//!
//! Each line of [`run`] is a module to open. What it builds is undone in reverse when a step fails or the container
//! has ended: descriptors close by themselves, the folder and the groups are guards.

use std::path::PathBuf;

use hull_runtime::Inputs;
use hull_runtime::cgroup::{self, Cgroup, Host};
use hull_runtime::plan::Plan;
use hull_sys::path::Root;
use hull_sys::trace;

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::options::{Network, RunOptions, Source};
use crate::relay::Relay;
use crate::root::{self, Writes};
use crate::{spec, user};

/// Where this hull keeps its things.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Images, `/var/lib/hull` unless told otherwise.
    pub root: PathBuf,
    /// What a reboot ends, `/run/hull` unless told otherwise.
    pub runroot: PathBuf,
}

/// Runs a command in a new container and waits for it. Gives the command's exit status, 128 and more for a signal.
///
/// # Errors
/// [`Error`]; nothing is left behind then.
pub fn run(engine: &Engine, options: &RunOptions) -> Result<i32> {
    let id = new_id()?;

    // The container's root: a detached mount, of a folder or of an image's layers. No path of the host leads to it.
    trace::stage("take the root file system", "A detached mount belongs to a descriptor, not to the host's tree.");
    let root::Assembled { mount: root, options, keep } = root::assemble(&engine.root, options, Writes::Kept)?;
    let options = &options;

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
    drop(keep);
    Ok(ended.code())
}

/// What [`run`] would do, as data: the plan and the values for the control groups. Does nothing.
///
/// # Errors
/// As [`run`] before anything happens.
pub fn dry_run(engine: &Engine, options: &RunOptions) -> Result<String> {
    let id = new_id()?;
    let root::Assembled { mount: root, options, keep: _keep } = root::assemble(&engine.root, options, Writes::None)?;
    let options = &options;
    let user = user::resolve(&duplicate(&root)?, options.user.as_deref().unwrap_or(""))?;
    let spec = spec::build(options, &user, &id, &[])?;
    let plan = Plan::from_spec(&spec)?;
    let writes = cgroup::plan(&Host::detect()?, resources(&spec)?)?;
    let limits: String =
        writes.iter().map(|write| format!("cgroup      {} = {}\n", write.file, write.value)).collect();
    let source = match &options.source {
        Source::Folder(path) => format!("the folder {}", path.display()),
        Source::Image(name) => format!("an overlay of the image {name}"),
    };
    Ok(format!("root        {source}\n{plan}{limits}"))
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

fn duplicate(root: &std::os::fd::OwnedFd) -> Result<Root> {
    root.try_clone().map(Root::from_fd).map_err(|error| Error::host("open the root file system", error))
}
