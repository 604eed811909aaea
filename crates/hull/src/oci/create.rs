//! `create` and `run`: a bundle becomes a container.

use std::fs;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_engine::{Relay, RunOptions, Streams};
use hull_runtime::caps;
use hull_runtime::cgroup::{self, Cgroup, Host, Place};
use hull_runtime::plan::Plan;
use hull_runtime::state::{self, Folder, State};
use hull_runtime::{Created, Inputs, Start, Stdio, spec, start};
use hull_sys::ns::Namespaces;
use hull_sys::{mount, tty};
use jiff::Timestamp;
use oci_spec::runtime::{LinuxResources, Spec};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::termios::Winsize;

use super::log::Log;
use super::{CreateArgs, manage};
use crate::report::Report;

/// The version of the specification that is implemented.
pub const VERSION: &str = "1.3.0";
/// A specification of a container with thousands of mounts has some megabytes.
const LARGEST: u64 = 16 << 20;

/// What a bundle says.
struct Bundle {
    folder: PathBuf,
    rootfs: PathBuf,
    spec: Spec,
}

/// A container that is there, and what has to be left to it or taken away.
struct Made<'a> {
    folder: Folder,
    state: State,
    group: Cgroup,
    created: Created,
    args: &'a CreateArgs,
}

/// `create`.
pub fn create(root: &Path, args: &CreateArgs, log: &Log) -> Result<(), Report> {
    make(root, args, None, log)?.leave()
}

/// `run`: gives the command's exit status.
pub fn run(root: &Path, args: &CreateArgs, detach: bool, keep: bool, log: &Log) -> Result<i32, Report> {
    if detach {
        make(root, args, None, log)?.leave()?;
        return manage::start(root, &args.id, log);
    }
    let terminal = bundle(&args.bundle)?.spec.process().as_ref().and_then(|process| process.terminal());
    let tty = terminal == Some(true) && args.console_socket.is_none();
    let mut relay = Relay::prepare(&RunOptions { tty, interactive: true, ..RunOptions::default() })?;
    let mut made = make(root, args, Some(relay.stdio()?), log)?;
    if let Err(report) = made.bring_to_life(tty.then_some(&mut relay), log) {
        made.created.abandon();
        undo(made.folder, made.group);
        return Err(report);
    }
    let ended = relay.until_end(&made.created)?;
    drop(relay);
    let Made { mut folder, group, created, .. } = made;
    drop(created);
    folder.keep();
    if keep {
        group.keep();
        return Ok(ended.code());
    }
    group.remove()?;
    log.warn(folder.delete(true)?);
    Ok(ended.code())
}

impl Made<'_> {
    /// Leaves the container to itself, waiting to be started.
    fn leave(mut self) -> Result<(), Report> {
        if let (Some(terminal), Some(socket)) = (self.created.terminal.take(), &self.args.console_socket) {
            send(socket, terminal.as_fd(), b"/dev/pts/ptmx")?;
        }
        self.folder.keep();
        self.group.keep();
        Ok(())
    }
}

/// Makes the container. With `stdio` its parent stays and starts it, without it waits for `start`.
fn make<'a>(root: &Path, args: &'a CreateArgs, stdio: Option<Stdio>, log: &Log) -> Result<Made<'a>, Report> {
    refuse(args)?;
    let bundle = bundle(&args.bundle)?;
    let mut plan = Plan::from_spec(&bundle.spec)?;
    log.warn(plan.remarks());
    log.warn(restrict(&mut plan)?);
    if stdio.is_none() && plan.process.terminal != args.console_socket.is_some() {
        let said = match plan.process.terminal {
            true => "cannot allocate tty if runc will detach without setting console socket",
            false => "cannot use console socket if runc will not detach or allocate tty",
        };
        return Err(Report::usage(said, None));
    }
    let folder = Folder::create(root, &args.id)?;
    let host = Host::detect()?;
    let resources = resources(&bundle.spec);
    let writes = cgroup::plan(&host, &with_standard_devices(&resources))?;
    let place = place(&bundle.spec, &args.id)?;
    let mut state = State {
        oci_version: bundle.spec.version().clone(),
        id: args.id.clone(),
        bundle: bundle.folder,
        rootfs: bundle.rootfs.clone(),
        created: Timestamp::now().to_string(),
        annotations: bundle.spec.annotations().clone().unwrap_or_default(),
        groups: cgroup::folders(&host, &place, &writes),
        resources,
        poststart: plan.hooks.poststart.clone(),
        poststop: plan.hooks.poststop.clone(),
        ..State::default()
    };
    // Whoever clears up after a kill finds from here on where to look.
    folder.write(&state)?;
    let group = Cgroup::create(&host, &place, &writes)?;
    let begin = match stdio {
        Some(_) => Start::WhenTold,
        None => Start::WhenConnected(start::listen(folder.as_fd())?),
    };
    let stdio = match stdio {
        Some(stdio) => stdio,
        None if plan.process.terminal => Stdio::Terminal,
        None => ours()?,
    };
    let inputs = Inputs { root: tree(&bundle.rootfs)?, cgroup: &group, stdio, start: begin, about: state.about() };
    let created = match hull_runtime::create(&plan, inputs) {
        Ok(created) => created,
        Err(error) => {
            undo(folder, group);
            return Err(error.into());
        }
    };
    if let (Some(terminal), Some(size)) = (&created.terminal, console_size(&bundle.spec)) {
        tty::set_size(terminal.as_fd(), size).map_err(|error| Report::host("set the terminal's size", error))?;
    }
    state.pid = created.pid;
    state.start_time = state::start_time(created.pid).unwrap_or_default();
    folder.write(&state)?;
    let made = Made { folder, state, group, created, args };
    match made.tell() {
        Ok(()) => Ok(made),
        Err(report) => {
            undo(made.folder, made.group);
            Err(report)
        }
    }
}

/// Takes away what there is of a container that could not be brought to life.
fn undo(mut folder: Folder, group: Cgroup) {
    folder.keep();
    // The reason is told by the caller; what cannot be removed is `delete --force`'s.
    let _ = group.remove();
    let _ = folder.delete(true);
}

impl Made<'_> {
    fn bring_to_life(&mut self, relay: Option<&mut Relay>, log: &Log) -> Result<(), Report> {
        if let Some(relay) = relay {
            relay.connect(&mut self.created)?;
        }
        self.created.start()?;
        manage::poststart(&self.state, log)
    }

    /// Tells the caller which process it is.
    fn tell(&self) -> Result<(), Report> {
        if let Some(socket) = &self.args.pidfd_socket {
            send(socket, self.created.as_fd(), b"pidfd")?;
        }
        let Some(file) = &self.args.pid_file else { return Ok(()) };
        // Whoever waits for the file finds it whole.
        let new = file.with_extension("new");
        let written = fs::write(&new, self.state.pid.to_string()).and_then(|()| fs::rename(&new, file));
        written.map_err(|error| Report::host(format!("write {}", file.display()), error))
    }
}

/// Takes out the capabilities that the container cannot have, and names them. In a user namespace it has all of them.
fn restrict(plan: &mut Plan) -> Result<Option<String>, Report> {
    let missing = match plan.namespaces.has(Namespaces::USER) {
        true => 0,
        false => plan.process.caps.restrict(caps::held()?),
    };
    Ok((missing != 0).then(|| format!("cannot grant {}: this process does not have them", caps::text(missing))))
}

fn refuse(args: &CreateArgs) -> Result<(), Report> {
    let given = [("--no-pivot", args.no_pivot), ("--preserve-fds", args.preserve_fds > 0)];
    match given.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Report::usage(format!("{flag} is not supported yet"), None)),
        None => Ok(()),
    }
}

/// Reads the bundle and makes its folder the current one, which relative paths of the specification are from.
fn bundle(folder: &Path) -> Result<Bundle, Report> {
    let folder = fs::canonicalize(folder)
        .map_err(|error| Report::host(format!("use the bundle {}", folder.display()), error))?;
    let path = folder.join("config.json");
    let doing = || format!("read {}", path.display());
    let mut text = Vec::new();
    let read = fs::File::open(&path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut text));
    read.map_err(|error| Report::host(doing(), error))?;
    if text.len() as u64 > LARGEST {
        return Err(Report::host(doing(), format!("it is larger than {LARGEST} bytes")));
    }
    let spec = spec::read(&text)?;
    if !spec.version().starts_with("1.") {
        return Err(Report::host(doing(), format!("version {:?} of the specification is not 1.x", spec.version())));
    }
    let root = spec.root().as_ref().map(|root| root.path().clone());
    let root = root.ok_or_else(|| Report::host(doing(), "it has no root"))?;
    std::env::set_current_dir(&folder)
        .map_err(|error| Report::host(format!("enter the bundle {}", folder.display()), error))?;
    Ok(Bundle { rootfs: folder.join(root), folder, spec })
}

fn tree(rootfs: &Path) -> Result<OwnedFd, Report> {
    use std::os::unix::ffi::OsStrExt;
    let doing = || format!("use {} as the root file system", rootfs.display());
    if !fs::metadata(rootfs).map_err(|error| Report::host(doing(), error))?.is_dir() {
        return Err(Report::host(doing(), "it is not a directory"));
    }
    let path = std::ffi::CString::new(rootfs.as_os_str().as_bytes()).map_err(|error| Report::host(doing(), error))?;
    mount::clone_tree(&path, true).map_err(|error| Report::host(doing(), error))
}

fn place(spec: &Spec, id: &str) -> Result<Place, Report> {
    let given = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    Ok(Place::from_spec(&given.unwrap_or_else(|| PathBuf::from(id)))?)
}

fn resources(spec: &Spec) -> LinuxResources {
    spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default()
}

/// After the specification's rules for devices those that every container may use.
fn with_standard_devices(resources: &LinuxResources) -> LinuxResources {
    let mut all = resources.clone();
    if let Some(rules) = resources.devices() {
        all.set_devices(Some([rules.clone(), cgroup::standard_devices()].concat()));
    }
    all
}

fn console_size(spec: &Spec) -> Option<Winsize> {
    let size = spec.process().as_ref()?.console_size()?;
    let number = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    Some(Winsize { ws_row: number(size.height()), ws_col: number(size.width()), ws_xpixel: 0, ws_ypixel: 0 })
}

fn ours() -> Result<Stdio, Report> {
    let copy = |fd: BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(|error| Report::host("pass on the standard streams", error))
    };
    let stdio = (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
    Ok(Stdio::Given([copy(stdio.0)?, copy(stdio.1)?, copy(stdio.2)?]))
}

/// Sends a descriptor to the socket at `path`, with a name that its receiver may use.
fn send(path: &Path, descriptor: BorrowedFd<'_>, name: &[u8]) -> Result<(), Report> {
    let send = || -> rustix::io::Result<()> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let list = [descriptor];
        control.push(SendAncillaryMessage::ScmRights(&list));
        rustix::net::sendmsg(&socket, &[IoSlice::new(name)], &mut control, SendFlags::NOSIGNAL).map(drop)
    };
    send().map_err(|error| Report::host(format!("send a descriptor to {}", path.display()), error))
}
