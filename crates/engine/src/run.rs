//! The story of `hull run`: from what was asked to the command's exit status.
//!
//! Each line of [`run`] and [`contain`] is a module to open. What they build is undone in reverse when a step fails or
//! the container has ended: descriptors close by themselves, holds, names and groups are guards.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use hull_runtime::cgroup::{self, Cgroup, Host, Place};
use hull_runtime::hooks::About;
use hull_runtime::plan::Plan;
use hull_runtime::{Created, Ended, Inputs, Start, Stdio};
use hull_sys::path::Root;
use hull_sys::trace;

use crate::container::{self, Lasting, Record};
use crate::error::{Error, Result};
use crate::hold::Hold;
use crate::names::Name;
use crate::options::{Network, RunOptions, Source};
use crate::relay::Relay;
use crate::root::{self, Writes};
use crate::{etc, spec, user};

/// Where this hull keeps its things.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Images and containers that last, `/var/lib/hull` unless told otherwise.
    pub root: PathBuf,
    /// What a reboot ends, `/run/hull` unless told otherwise.
    pub runroot: PathBuf,
}

/// What stands between the caller and the command: where the command reads and writes, and what to do until it ends.
pub trait Streams {
    /// What the command gets as its standard streams; asked for once.
    ///
    /// # Errors
    /// They cannot be opened.
    fn stdio(&mut self) -> Result<Stdio>;

    /// Gets the terminal, if there is one, before the command starts.
    ///
    /// # Errors
    /// It cannot be connected.
    fn connect(&mut self, created: &mut Created) -> Result<()>;

    /// Passes on what comes and goes until the command has ended.
    ///
    /// # Errors
    /// The wait failed, or the caller does not want to go on.
    fn until_end(&mut self, created: &Created) -> Result<Ended>;
}

/// Runs a command in a new container and waits for it. Gives the command's exit status, 128 and more for a signal.
///
/// # Errors
/// [`Error`]; nothing is left behind then.
pub fn run(engine: &Engine, options: &RunOptions) -> Result<i32> {
    // A lock on a file of its own says that the container lives; it dies with this process.
    let hold = Hold::create(&engine.runroot, &new_id()?)?;
    let name = Name::claim(engine, options.name.as_deref(), hold.id())?;
    let lasting = if options.remove { None } else { Some(Lasting::create(engine, hold.id())?) };

    // The container's root: a detached mount, of a folder or of an image's layers. No path of the host leads to it.
    trace::stage("take the root file system", "A detached mount belongs to a descriptor, not to the host's tree.");
    let writes = lasting.as_ref().map_or(Writes::Passing, Writes::Lasting);
    let assembled = root::assemble(&engine.root, options, &writes)?;
    if let Some(remark) = &assembled.remark {
        eprintln!("hull: {remark}");
    }

    // What others may know of it, before it can do anything.
    let record = Record {
        id: hold.id().to_owned(),
        name: name.as_str().to_owned(),
        image: options.source.to_string(),
        image_id: assembled.image,
        command: assembled.options.command.clone(),
        created: container::now(),
        layers: assembled.keep.layers(),
    };
    match &lasting {
        Some(lasting) => lasting.write(&record)?,
        None => hold.record(&record)?,
    }

    let mut relay = Relay::prepare(options)?;
    let sync = || lasting.as_ref().map_or(Ok(()), Lasting::sync);
    let ended = contain(&hold, assembled.mount, &assembled.options, &mut relay, sync)?;

    match lasting {
        Some(lasting) => {
            lasting.exited(ended.code())?;
            name.keep();
        }
        None => drop(name),
    }
    drop(hold);
    drop(assembled.keep);
    // Last: a signal must not end this process between the container's end and that of what it has left.
    drop(relay);
    Ok(ended.code())
}

/// Runs a command on `root` from the first limit to the last process: `run` with its name and record taken off, which is
/// also what a build's RUN is. `meanwhile` is done while the container builds its tree.
///
/// # Errors
/// [`Error`]; nothing of the container is left then but its hold.
pub fn contain(
    hold: &Hold,
    root: OwnedFd,
    options: &RunOptions,
    streams: &mut dyn Streams,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<Ended> {
    // What was asked becomes a specification, and that becomes a plan: both are data, and nothing has happened yet.
    let user = user::resolve(&duplicate(&root)?, options.user.as_deref().unwrap_or(""))?;
    let spec = spec::build(options, &user, hold.id())?;
    let mut plan = plan(options, hold.id(), &spec)?;
    plan.die_with_parent = true;

    // Limits come to be before the process does. A limit that the kernel refuses ends the run here.
    trace::stage("set the limits", "A control group is a folder, a limit a number in a file of it.");
    let host = Host::detect()?;
    let writes = cgroup::plan(&host, resources(&spec)?)?;
    let place = Place::Beside(format!("hull-{}", hold.id()));
    hold.groups(cgroup::folders(&host, &place, &writes))?;
    let mut group = Cgroup::create(&host, &place, &writes)?;

    let stdio = streams.stdio()?;
    // A terminal has to be connected before anything is written to it.
    let start = if matches!(stdio, Stdio::Terminal) { Start::WhenTold } else { Start::AtOnce };
    let about = About { oci_version: spec.version().clone(), id: hold.id().to_owned(), ..About::default() };
    let inputs = Inputs { root, cgroup: &mut group, stdio, start, about, place: None, born: &mut |_| Ok(()) };
    let mut created = hull_runtime::create(&plan, inputs)?;
    if let Err(error) = meanwhile().and_then(|()| streams.connect(&mut created)) {
        created.abandon();
        return Err(error);
    }
    created.start()?;
    let ended = streams.until_end(&created)?;
    drop(created);
    trace::stage(
        "clear up",
        "With the last process the kernel takes down the namespaces and the mounts in them; only what has a name is left.",
    );
    group.remove()?;
    Ok(ended)
}

/// What [`run`] would do, as data: the plan and the values for the control groups. Does nothing.
///
/// # Errors
/// As [`run`] before anything happens.
pub fn dry_run(engine: &Engine, options: &RunOptions) -> Result<String> {
    let id = new_id()?;
    let assembled = root::assemble(&engine.root, options, &Writes::None)?;
    if let Some(remark) = &assembled.remark {
        eprintln!("hull: {remark}");
    }
    let options = &assembled.options;
    let user = user::resolve(&duplicate(&assembled.mount)?, options.user.as_deref().unwrap_or(""))?;
    let spec = spec::build(options, &user, &id)?;
    let plan = plan(options, &id, &spec)?;
    let writes = cgroup::plan(&Host::detect()?, resources(&spec)?)?;
    let limits: String =
        writes.iter().map(|write| format!("cgroup      {} = {}\n", write.file, write.value)).collect();
    let source = match &options.source {
        Source::Folder(path) => format!("the folder {}", path.display()),
        Source::Image(name) if assembled.remark.is_none() => format!("an overlay of the image {name}"),
        Source::Image(name) => format!("a copy of the image {name}"),
    };
    Ok(format!("root        {source}\n{plan}{limits}"))
}

/// The plan of the specification, and what none can say: files of the container's own in /etc, below the user's mounts;
/// that hull itself is process 1.
pub(crate) fn plan(options: &RunOptions, id: &str, spec: &oci_spec::runtime::Spec) -> Result<Plan> {
    let mut plan = Plan::from_spec(spec)?;
    plan.keyring = CString::new(format!("_ses.{id}")).ok();
    let hostname = options.hostname.as_deref().unwrap_or(&id[..12]);
    let files = etc::files(hostname, options.network == Network::Host);
    plan.mounts.splice(spec::KERNEL_MOUNTS..spec::KERNEL_MOUNTS, files);
    // By its descriptor: no path of the container leads to hull's file, so nobody there can make it writable.
    plan.process.itself = options.init;
    Ok(plan)
}

fn resources(spec: &oci_spec::runtime::Spec) -> Result<&oci_spec::runtime::LinuxResources> {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    resources.ok_or_else(|| Error::host("limit the container", "the specification has no resources"))
}

/// 32 random bytes in hexadecimal: Docker's kind of id.
///
/// # Errors
/// The kernel gives none.
pub fn new_id() -> Result<String> {
    let mut bytes = [0u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::host("make an id", error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn duplicate(root: &std::os::fd::OwnedFd) -> Result<Root> {
    root.try_clone().map(Root::from_fd).map_err(|error| Error::host("open the root file system", error))
}
