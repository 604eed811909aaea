//! `create` and `run`: a bundle becomes a container.

use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use hull_engine::{Relay, RunOptions, Streams};
use hull_runtime::caps;
use hull_runtime::cgroup::{Cgroup, Host};
use hull_runtime::plan::{self, Plan};
use hull_runtime::rdt::{self, Rdt};
use hull_runtime::state::{Folder, Process, State};
use hull_runtime::{Created, Inputs, Start, Stdio, spec, start};
use hull_sys::mount;
use hull_sys::ns::Namespaces;
use jiff::Timestamp;
use oci_spec::runtime::Spec;

use super::groups::Groups;
use super::inherited::Inherited;
use super::log::Log;
use super::notify::Proxy;
use super::{Call, CreateArgs, Handover, handover, manage, notify};
use crate::report::Report;

/// A specification of a container with thousands of mounts has some megabytes.
const LARGEST: u64 = 16 << 20;

/// What a bundle says.
pub(super) struct Bundle {
    folder: PathBuf,
    pub rootfs: PathBuf,
    pub spec: Spec,
    text: Vec<u8>,
    /// What was left out of it.
    pub remarks: Vec<String>,
    pub plan: Plan,
    /// Whether it has a socket at which it says that it is ready.
    notifies: bool,
}

/// A container that is there, and what has to be left to it or taken away.
pub(super) struct Made {
    pub folder: Folder,
    pub state: State,
    pub group: Cgroup,
    pub created: Created,
    /// The socket at which it says that it is ready, of one that we stay with.
    pub notices: Option<Proxy>,
}

/// What there is before its first process.
pub(super) struct Begun {
    pub folder: Folder,
    pub state: State,
    pub group: Cgroup,
}

/// `create`.
pub(super) fn create(call: &Call<'_>, args: &CreateArgs) -> Result<(), Report> {
    let bundle = bundle(call, args)?;
    args.handover.check_terminal(bundle.plan.process.terminal, true)?;
    let mut made = make(call, args, bundle, None)?;
    if let Err(report) = made.finish(args) {
        made.undo();
        return Err(report);
    }
    made.leave();
    Ok(())
}

/// `run --detach`.
pub(super) fn run_detached(call: &Call<'_>, args: &CreateArgs) -> Result<i32, Report> {
    create(call, args)?;
    manage::start(call.root, &args.id, call.log)
}

/// `run`: gives the command's exit status.
pub(super) fn run(call: &Call<'_>, args: &CreateArgs, keep: bool, adopt: bool) -> Result<i32, Report> {
    let bundle = bundle(call, args)?;
    let tty = bundle.plan.process.terminal;
    args.handover.check_terminal(tty, false)?;
    let mut relay = Relay::prepare(&RunOptions { tty, interactive: true, ..RunOptions::default() })?;
    if adopt {
        relay.adopt()?;
    }
    let mut made = make(call, args, bundle, Some(relay.stdio()?))?;
    if let Err(report) = made.bring_to_life(&mut relay, args, call.log) {
        made.undo();
        return Err(report);
    }
    made.attend(relay, keep, call.log)
}

/// Makes the container. With `stdio` its parent stays and starts it, without it waits for `start`.
fn make(call: &Call<'_>, args: &CreateArgs, mut bundle: Bundle, stdio: Option<Stdio>) -> Result<Made, Report> {
    call.log.warn(&bundle.remarks);
    call.log.warn(bundle.plan.remarks());
    let own_users = bundle.plan.namespaces.has(Namespaces::USER);
    call.caller.enter(&mut bundle.plan)?;
    call.log.warn(restrict(&mut bundle.plan.process, own_users)?);
    let Begun { folder, mut state, mut group } = begin(call, &args.id, &bundle)?;
    let Bundle { spec, plan, .. } = &bundle;
    let begin = match (&stdio, &state.rdt) {
        // A terminal has to be connected before anything is written to it.
        (Some(Stdio::Terminal), _) => Start::WhenTold,
        // It is put into its class while it waits in front of the command, so all that comes of it is in that.
        (Some(_), Some(_)) => Start::WhenTold,
        (Some(_), None) => Start::AtOnce,
        (None, _) => Start::WhenConnected(start::listen(folder.as_fd())?),
    };
    let (stdio, notices) = match stdio {
        Some(stdio) => (stdio, Proxy::open(folder.path())?),
        None => (handover::given(plan.process.terminal)?, None),
    };
    let inputs = Inputs {
        root: tree(&bundle.rootfs)?,
        cgroup: &mut group,
        stdio,
        start: begin,
        about: state.about(),
        place: folder.place(plan)?,
        born: &mut |pid| {
            state.process = Process::of(pid);
            folder.write_process(state.process)
        },
    };
    let created = match hull_runtime::create(plan, inputs) {
        Ok(created) => created,
        Err(error) => {
            undo(folder, group);
            return Err(error.into());
        }
    };
    let made = Made { folder, state, group, created, notices };
    let pids = [made.state.process.pid];
    made.hand_over(&args.handover, spec, &pids)
}

/// Makes what a container has before its first process: its folder, with the record by which whoever comes after a kill
/// finds the rest, and the groups in which that is born.
pub(super) fn begin(call: &Call<'_>, id: &str, bundle: &Bundle) -> Result<Begun, Report> {
    let Bundle { spec, plan, .. } = bundle;
    let folder = Folder::create(call.root, id)?;
    let host = Host::detect()?;
    let groups = Groups::of(call, &host, spec, id)?;
    let state = State {
        oci_version: spec.version().clone(),
        id: id.to_owned(),
        bundle: bundle.folder.clone(),
        rootfs: bundle.rootfs.clone(),
        created: Timestamp::now().to_string(),
        annotations: spec.annotations().clone().unwrap_or_default(),
        keyring: plan.keyring.as_ref().map(|name| name.to_string_lossy().into_owned()),
        groups: groups.folders(&host),
        unit: groups.unit().cloned(),
        rdt: rdt(spec, id)?,
        resources: groups.resources.clone(),
        joined_mounts: plan.namespaces.path(Namespaces::MOUNT),
        poststart: plan.hooks.poststart.clone(),
        poststop: plan.hooks.poststop.clone(),
        ..State::default()
    };
    // Whoever clears up after a kill finds from here on where to look.
    folder.write(&state)?;
    folder.write_spec(&bundle.text)?;
    if bundle.notifies {
        notify::make_folder(folder.path())?;
    }
    let group = groups.begin(&host)?;
    Ok(Begun { folder, state, group })
}

/// Takes away what there is of a container that could not be brought to life.
pub(super) fn undo(mut folder: Folder, group: Cgroup) {
    if !group.is_whole() {
        // A group, or a unit, may be somebody else's, which is why. What was made goes with this, and nothing has run.
        return;
    }
    folder.keep();
    // The reason is told by the caller; what cannot be removed is `delete --force`'s.
    let _ = folder.delete(true);
    // Somebody else's `delete --force` may have taken the record before all groups were there.
    drop(group);
}

impl Made {
    fn bring_to_life(&mut self, relay: &mut Relay, args: &CreateArgs, log: &Log) -> Result<(), Report> {
        relay.connect(&mut self.created)?;
        self.created.start()?;
        self.finish(args)?;
        if let Some(proxy) = self.notices.take() {
            relay.look_beside(proxy.beside(log.clone())?);
        }
        manage::poststart(&self.state, log)
    }

    /// Says to whoever wants to know which process it is.
    fn finish(&mut self, args: &CreateArgs) -> Result<(), Report> {
        self.folder.show_process()?;
        args.handover.tell(&self.created)
    }

    pub(super) fn undo(self) {
        self.created.abandon();
        undo(self.folder, self.group);
    }

    /// Gives the caller the terminal that it has asked for, and the processes `pids` their class of Intel RDT. What cannot
    /// be handed over does not stay.
    pub(super) fn hand_over(mut self, handover: &Handover, spec: &Spec, pids: &[i32]) -> Result<Self, Report> {
        let process = spec.process().as_ref();
        let told = process.map_or(Ok(()), |process| handover.give_terminal(&mut self.created, process));
        let rdt = self.state.rdt.as_ref().map_or(Ok(()), |rdt| rdt.apply(pids));
        match told.and(rdt.map_err(Report::from)) {
            Ok(()) => Ok(self),
            Err(report) => {
                self.undo();
                Err(report)
            }
        }
    }

    /// Stands between the caller and the container until this has ended; gives the exit status.
    pub(super) fn attend(self, mut relay: Relay, keep: bool, log: &Log) -> Result<i32, Report> {
        let ended = match relay.until_end(&self.created) {
            Ok(ended) => ended,
            Err(error) => {
                self.undo();
                return Err(error.into());
            }
        };
        drop(relay);
        let Self { mut folder, group, created, .. } = self;
        drop(created);
        folder.keep();
        group.keep();
        if !keep {
            log.warn(folder.delete_ended()?);
        }
        Ok(ended.code())
    }

    /// Leaves the container to itself.
    pub(super) fn leave(mut self) {
        self.folder.keep();
        self.group.keep();
    }
}

/// Takes out the capabilities that a process cannot have, and names them. In a user namespace it has all of them.
pub fn restrict(process: &mut plan::Process, own_users: bool) -> Result<Option<String>, Report> {
    let missing = if own_users { 0 } else { process.caps.restrict(caps::held()?) };
    Ok((missing != 0).then(|| format!("cannot grant {}: this process does not have them", caps::text(missing))))
}

/// Reads the bundle and makes its folder the current one, which relative paths of the specification are from.
pub(super) fn bundle(call: &Call<'_>, args: &CreateArgs) -> Result<Bundle, Report> {
    let inherited = Inherited::take(args.handover.preserve_fds, true)?;
    let folder = fs::canonicalize(&args.bundle)
        .map_err(|error| Report::host(format!("use the bundle {}", args.bundle.display()), error))?;
    let path = folder.join("config.json");
    let doing = || format!("read {}", path.display());
    let mut text = Vec::new();
    let read = fs::File::open(&path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut text));
    read.map_err(|error| Report::host(doing(), error))?;
    if text.len() as u64 > LARGEST {
        return Err(Report::host(doing(), format!("it is larger than {LARGEST} bytes")));
    }
    let notifies = notify::is_wanted();
    if notifies {
        text = notify::lend(text, &call.root.join(&args.id));
    }
    let (spec, remarks) = spec::read(&text)?;
    if !spec.version().starts_with("1.") {
        return Err(Report::host(doing(), format!("version {:?} of the specification is not 1.x", spec.version())));
    }
    let root = spec.root().as_ref().map(|root| root.path().clone());
    let root = root.ok_or_else(|| Report::host(doing(), "it has no root"))?;
    std::env::set_current_dir(&folder)
        .map_err(|error| Report::host(format!("enter the bundle {}", folder.display()), error))?;
    spec.process().as_ref().map_or(Ok(()), check_process)?;
    let mut plan = Plan::from_spec(&spec)?;
    inherited.give(&mut plan.process);
    if notifies {
        notify::introduce(&mut plan.process);
    }
    plan.pivot = !args.no_pivot;
    plan.keyring = if args.no_new_keyring { None } else { Some(keyring(&args.id)?) };
    Ok(Bundle { rootfs: folder.join(root), folder, spec, text, remarks, plan, notifies })
}

/// The root file system: a copy of its mounts that nothing shows.
pub(super) fn tree(rootfs: &Path) -> Result<OwnedFd, Report> {
    use std::os::unix::ffi::OsStrExt;
    let doing = || format!("use {} as the root file system", rootfs.display());
    if !fs::metadata(rootfs).map_err(|error| Report::host(doing(), error))?.is_dir() {
        return Err(Report::host(doing(), "it is not a directory"));
    }
    let path = std::ffi::CString::new(rootfs.as_os_str().as_bytes()).map_err(|error| Report::host(doing(), error))?;
    mount::clone_tree(&path, true).map_err(|error| Report::host(doing(), error))
}

/// What every process has to say, in runc's words, for its callers look for them.
pub fn check_process(process: &oci_spec::runtime::Process) -> Result<(), Report> {
    let cwd = process.cwd();
    let cause = match () {
        () if cwd.as_os_str().is_empty() => "Cwd property must not be empty",
        () if !cwd.is_absolute() => "Cwd must be an absolute path",
        () if process.args().as_ref().is_none_or(Vec::is_empty) => "args must not be empty",
        () => return Ok(()),
    };
    Err(Report::usage(cause, None))
}

/// The session keyring of the container, by runc's name for it: an exec joins it by that.
fn keyring(id: &str) -> Result<CString, Report> {
    CString::new(format!("_ses.{id}")).map_err(|error| Report::host("use the id", error))
}

/// The group of the container in the resctrl file system, which has to be mounted then.
fn rdt(spec: &Spec, id: &str) -> Result<Option<Rdt>, Report> {
    let given = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
    given.map(|given| Ok(Rdt::of(&rdt::root("linux.intelRdt")?, given, id)?)).transpose()
}
