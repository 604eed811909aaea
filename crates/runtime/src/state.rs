//! What is known of a container between the verbs of the OCI runtime, each of which is a process of its own.
//!
//! `ROOT/ID/state.json` is written before there is anything of the container, with its control groups in it, and
//! `process.json` when its first process is there; so whoever comes after a kill at any moment finds all that it has to
//! clear. Nothing in them says "running": that is whether the process lives, is the one that was meant (its start time), and
//! waits. Two files, each written once, cost less than one that is written over: some file systems, ext4 among them, put
//! on the disk what is renamed over another file, and a file that is on its way there is slow to remove.
//! Source: runtime-spec, runtime.md "State", "Lifecycle".

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_sys::fs::CWD;
use hull_sys::ns::Namespaces;
use hull_sys::{Errno, process};
use oci_spec::runtime::{LinuxResources, Spec};
use rustix::fs::{FlockOperation, OFlags, fcntl_lock, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Cgroup, Host, Unit};
use crate::error::{Doing, Error, Result};
use crate::hooks::{self, About, Hook};
use crate::plan::{Join, Plan};
use crate::rdt::Rdt;
use crate::rootfs;
use crate::spec;
use crate::start;

const STATE: &str = "state.json";
const PROCESS: &str = "process.json";
const PROCESS_ASIDE: &str = "process.json.new";
/// Its creator holds a lock on it (fcntl), and a checkpoint another (flock).
pub(crate) const SPEC: &str = "config.json";
const ROOT: &str = "root";
/// The id is the name of a folder, here and in the control groups.
const LONGEST: usize = 255;
const SIGKILL: i32 = 9;
/// A state holds the annotations, which may be megabytes.
const LARGEST: usize = 64 << 20;
/// How long a killed process may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container's record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the specification that it was created by.
    pub oci_version: String,
    /// Its id.
    pub id: String,
    /// Its first process.
    #[serde(skip)]
    pub process: Process,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The specification's annotations.
    pub annotations: HashMap<String, String>,
    /// The name of its session keyring, if it has one of its own.
    #[serde(default)]
    pub keyring: Option<String>,
    /// Folders of its control groups.
    pub groups: Vec<PathBuf>,
    /// The unit of systemd's that the groups are, if it makes them.
    #[serde(default)]
    pub unit: Option<Unit>,
    /// Its group in the resctrl file system.
    #[serde(default)]
    pub rdt: Option<Rdt>,
    /// The limits in force.
    #[serde(default)]
    pub resources: LinuxResources,
    /// The mount namespace that it joined, if it joined one.
    #[serde(default)]
    pub joined_mounts: Option<PathBuf>,
    /// Hooks for when the command runs.
    #[serde(default)]
    pub poststart: Vec<Hook>,
    /// Hooks for when it is deleted.
    #[serde(default)]
    pub poststop: Vec<Hook>,
}

impl State {
    /// What its hooks are told.
    pub fn about(&self) -> About {
        About {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

/// A container's first process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// As the host numbers it; 0 until it is there.
    pub pid: i32,
    /// When it began, in clock ticks since the boot: its number may be another's by now.
    pub start_time: u64,
}

impl Process {
    /// A process that is there.
    pub fn of(pid: i32) -> Self {
        // Of one that has gone it is nobody's.
        Self { pid, start_time: look(pid).map_or(0, |(began, _)| began) }
    }
}

/// What a container does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Somebody is creating it.
    Creating,
    /// Its first process waits in front of the command.
    Created,
    /// The command runs.
    Running,
    /// All its processes are stopped where they are.
    Paused,
    /// It has ended.
    Stopped,
}

impl Status {
    /// The specification's word; `paused` is runc's.
    pub fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// A container's folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    folder: OwnedFd,
    /// The specification's file, locked while the container is created; the folder goes with it unless it is kept.
    creating: Option<File>,
}

/// runc's rule for an id, which becomes the name of a folder.
///
/// # Errors
/// It has another form.
pub fn check_id(id: &str) -> Result<()> {
    let refuse = |cause: &str| Err(Error::invalid(format!("use the container id {id:?}"), cause));
    if id.is_empty() {
        return refuse("container id cannot be empty");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    let named = id != "." && id != ".." && !id.starts_with('-');
    match named && id.len() <= LONGEST && id.chars().all(plain) {
        true => Ok(()),
        false => refuse("invalid container ID format"),
    }
}

impl Folder {
    /// Makes the folder of a container that is being created.
    ///
    /// # Errors
    /// There is one with this id.
    pub fn create(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = root.join(id);
        let doing = || format!("make the container's folder {}", path.display());
        let made = DirBuilder::new().mode(0o700).recursive(true).create(root);
        made.map_err(|error| Error::setup(doing(), error))?;
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Error::invalid(
                    "create the container",
                    format!("container with given ID already exists: {id}"),
                ));
            }
            other => other.map_err(|error| Error::setup(doing(), error))?,
        }
        let mut made = Self::at(path)?;
        // Somebody who asks for the status holds it for a moment.
        let lock = File::create(made.path.join(SPEC)).and_then(|lock| {
            rustix::io::retry_on_intr(|| fcntl_lock(&lock, FlockOperation::LockExclusive))?;
            Ok(lock)
        });
        match lock {
            Ok(lock) => made.creating = Some(lock),
            Err(error) => {
                // There is nothing else in it yet, and that error is the one to tell.
                let _ = made.remove();
                return Err(Error::setup("lock the container's folder", error));
            }
        }
        Ok(made)
    }

    /// The folder of a container that was created.
    ///
    /// # Errors
    /// There is none.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        Self::at(root.join(id)).map_err(|error| match error.cause.contains("No such file") {
            true => Error {
                class: crate::Class::NotFound,
                ..Error::invalid("find the container", "container does not exist")
            },
            false => error,
        })
    }

    fn at(path: PathBuf) -> Result<Self> {
        let folder = File::open(&path).map_err(|error| Error::setup(format!("open {}", path.display()), error))?;
        Ok(Self { path, folder: folder.into(), creating: None })
    }

    /// The ids that have a folder, sorted.
    ///
    /// # Errors
    /// The folder of folders cannot be read.
    pub fn ids(root: &Path) -> Result<Vec<String>> {
        let entries = match fs::read_dir(root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| Error::setup(format!("read {}", root.display()), error))?,
        };
        let mut ids: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        ids.retain(|id| check_id(id).is_ok());
        ids.sort();
        Ok(ids)
    }

    /// The user that it belongs to.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn owner(&self) -> Result<u32> {
        let stat = hull_sys::fs::fstat(self.folder.as_fd());
        Ok(stat.doing(|| format!("look at {}", self.path.display()))?.st_uid)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As a descriptor, for [`start`].
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Waits until nobody else changes the container, and keeps others waiting until what it gives is dropped.
    ///
    /// # Errors
    /// The folder cannot be locked.
    pub fn wait_for_turn(&self) -> Result<OwnedFd> {
        let gone = || Error::invalid(format!("lock {}", self.path.display()), "it was deleted meanwhile");
        self.turn()?.ok_or_else(gone)
    }

    /// The same; none if the folder is gone.
    fn turn(&self) -> Result<Option<OwnedFd>> {
        let doing = || format!("lock {}", self.path.display());
        // Opened again: a lock belongs to an opening, and ours may be passed on.
        let folder = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            folder => folder.map_err(|error| Error::setup(doing(), error))?,
        };
        let turn = rustix::io::retry_on_intr(|| flock(&folder, FlockOperation::LockExclusive));
        turn.map_err(|error| Error::setup(doing(), error))?;
        // What we waited for may have been its end, and another one may have its id by now.
        let own = hull_sys::fs::fstat(self.folder.as_fd()).doing(doing)?;
        let is_own = |stat: hull_sys::Result<rustix::fs::Stat>| {
            stat.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (own.st_dev, own.st_ino))
        };
        let there = CString::new(self.path.as_os_str().as_bytes()).map_err(|error| Error::setup(doing(), error))?;
        let there = hull_sys::fs::openat(CWD, &there, OFlags::PATH | OFlags::DIRECTORY, 0);
        let same = is_own(hull_sys::fs::fstat(folder.as_fd()))
            && there.is_ok_and(|there| is_own(hull_sys::fs::fstat(there.as_fd())));
        Ok(same.then(|| folder.into()))
    }

    /// Writes the state.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, state: &State) -> Result<()> {
        self.write_aside(STATE, state)?;
        self.show(STATE)
    }

    /// Writes which process is the container's first, for nobody to see yet.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_process(&self, process: Process) -> Result<()> {
        self.write_aside(PROCESS, &process)
    }

    /// Lets others see what [`Self::write_process`] has written. Not before the process is in the container's root for good: an
    /// exec enters where it is.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn show_process(&self) -> Result<()> {
        self.show(PROCESS)
    }

    fn write_aside(&self, name: &str, what: &impl Serialize) -> Result<()> {
        let new = self.path.join(format!("{name}.new"));
        let write = || -> std::io::Result<()> { fs::write(&new, serde_json::to_vec(what)?) };
        write().map_err(|error| Error::setup(format!("write {}", new.display()), error))
    }

    fn show(&self, name: &str) -> Result<()> {
        let (new, path) = (self.path.join(format!("{name}.new")), self.path.join(name));
        fs::rename(&new, &path).map_err(|error| Error::setup(format!("write {}", path.display()), error))
    }

    /// Keeps the specification's text: what an exec needs is what the container was made by, whatever becomes of the bundle.
    /// Only of a container that is being created.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_spec(&self, text: &[u8]) -> Result<()> {
        let doing = || format!("write {}", self.path.join(SPEC).display());
        // A lock of fcntl's is lost with any descriptor of the file that is closed, so by the one that holds it.
        let Some(mut file) = self.creating.as_ref() else {
            return Err(Error::invalid(doing(), "the container is created"));
        };
        file.write_all(text).map_err(|error| Error::setup(doing(), error))
    }

    /// The specification that the container was made by.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn spec(&self) -> Result<Spec> {
        let path = self.path.join(SPEC);
        let text = fs::read(&path).map_err(|error| Error::setup(format!("read {}", path.display()), error))?;
        // What was left out was told when it was created.
        Ok(spec::read(&text)?.0)
    }

    /// Reads it; an empty one where a creator was killed before it wrote any.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn state(&self) -> Result<State> {
        let state = match self.read(STATE)? {
            Some(state) => state,
            None => {
                let id = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                State { id, ..State::default() }
            }
        };
        Ok(State { process: self.read(PROCESS)?.unwrap_or_default(), ..state })
    }

    /// A file of [`Self::show`]'s, if it is there.
    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let doing = || format!("read {}", self.path.join(name).display());
        let file = CString::new(name).map_err(|error| Error::setup(doing(), error))?;
        match hull_sys::fs::read_file(self.folder.as_fd(), &file, LARGEST) {
            Err(error) if error.errno() == Errno::NOENT => Ok(None),
            Err(error) => Err(Error::setup(doing(), error)),
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| Error::setup(doing(), error)),
        }
    }

    /// The container is made and outlives its creator.
    pub fn keep(&mut self) {
        self.creating = None;
    }

    /// What the container does now.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn status(&self, state: &State) -> Result<Status> {
        if init(state)?.is_none() {
            let spec = CString::new(SPEC).map_err(|error| Error::setup("look at the lock", error))?;
            let lock = hull_sys::fs::openat(self.folder.as_fd(), &spec, OFlags::WRONLY | OFlags::NOFOLLOW, 0);
            let held = lock.is_ok_and(|lock| fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).is_err());
            return Ok(if state.process.pid == 0 && held { Status::Creating } else { Status::Stopped });
        }
        // Also one that waits to be started: it would not hear of it.
        if cgroup::is_frozen(&state.groups)? {
            return Ok(Status::Paused);
        }
        Ok(if start::is_waited_for(self.folder.as_fd())? { Status::Created } else { Status::Running })
    }

    /// Removes what there is of the container: its processes, groups and folder. Gives what went wrong in its `poststop`
    /// hooks, which changes nothing.
    ///
    /// # Errors
    /// It has not ended, and `force` is not set; something of it cannot be removed.
    pub fn delete(self, force: bool) -> Result<Vec<Error>> {
        // Several may want it at once, as when a checkpoint ends what somebody waits for; one of them runs the hooks.
        let Some(_turn) = self.turn()? else { return Ok(Vec::new()) };
        let mut state = self.state()?;
        let status = self.status(&state)?;
        if status != Status::Stopped && !force {
            return Err(Error::invalid(format!("delete container {} that is not stopped", state.id), status.word()));
        }
        if state.process.pid == 0 {
            // Its creator was killed before others could see it. What is cut short is of one that hears of it by itself.
            state.process = self.read(PROCESS_ASIDE).ok().flatten().unwrap_or_default();
        }
        if let Some(init) = init(&state)? {
            kill_and_wait(&init, &state)?;
        }
        self.clear(&state)
    }

    /// The same of a container whose first process the caller has seen end.
    ///
    /// # Errors
    /// Something of it cannot be removed.
    pub fn delete_ended(self) -> Result<Vec<Error>> {
        match self.turn()? {
            // Again from the file: an update may have added to it.
            Some(_turn) => self.clear(&self.read(STATE)?.unwrap_or_default()),
            None => Ok(Vec::new()),
        }
    }

    fn clear(&self, state: &State) -> Result<Vec<Error>> {
        if let Some(unit) = &state.unit {
            // Of what still runs systemd would take leave first, for a minute and a half.
            state.groups.iter().try_for_each(|group| cgroup::kill_leftover(group))?;
            cgroup::stop_unit(unit)?;
        }
        state.groups.iter().try_for_each(|group| cgroup::remove_leftover(group))?;
        state.rdt.as_ref().map_or(Ok(()), Rdt::remove)?;
        self.remove()?;
        Ok(hooks::run_all(&state.poststop, &state.about(), "stopped", 0))
    }

    /// Whether others are in the container's mount namespace, whose `/` is not the container's root then.
    pub fn shares_mounts(&self) -> bool {
        self.path.join(ROOT).exists()
    }

    /// The place for the root of a container whose mount namespace is not new; such a root is seen by others there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn place(&self, plan: &Plan) -> Result<Option<PathBuf>> {
        if !rootfs::is_shared(plan) {
            return Ok(None);
        }
        let place = self.path.join(ROOT);
        let made = DirBuilder::new().mode(0o700).create(&place);
        made.map_err(|error| Error::setup(format!("make {}", place.display()), error))?;
        Ok(Some(place))
    }

    /// Takes a root away that is attached in the folder, so that what is in it does not go with the folder.
    fn detach_root(&self) -> Result<()> {
        let place = self.path.join(ROOT);
        if !place.exists() {
            return Ok(());
        }
        let joined = self.state()?.joined_mounts.map(|path| Join { kind: Namespaces::MOUNT, path });
        rootfs::detach(&place, joined.as_ref())?;
        // Not if anything is still mounted there.
        fs::remove_dir(&place).map_err(|error| Error::setup(format!("remove {}", place.display()), error))
    }

    fn remove(&self) -> Result<()> {
        self.detach_root()?;
        // What is in most of them, without a look at what is there. What that does not remove, the rest does, or says why.
        for name in [SPEC, STATE, PROCESS] {
            let _ = fs::remove_file(self.path.join(name));
        }
        if fs::remove_dir(&self.path).is_ok() {
            return Ok(());
        }
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::setup(format!("remove {}", self.path.display()), error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.creating.is_some() {
            // The creation failed, and that error is the one to tell; `delete --force` removes what is left.
            let _ = self.remove();
        }
    }
}

/// The first process, if it is still there and not only its exit status.
///
/// # Errors
/// The kernel does not tell.
pub fn init(state: &State) -> Result<Option<OwnedFd>> {
    let Process { pid, start_time } = state.process;
    if pid == 0 {
        return Ok(None);
    }
    // First the descriptor, then the look: after it the number cannot become another's unnoticed.
    let init = match process::pidfd_open(pid) {
        Err(error) if error.errno() == Errno::SRCH => return Ok(None),
        other => other.doing(|| format!("open process {pid}"))?,
    };
    let same = look(pid).is_some_and(|(began, ended)| began == start_time && !ended);
    Ok(same.then_some(init))
}

/// The start time, and whether only the exit status is left, from /proc/PID/stat (proc_pid_stat(5)).
fn look(pid: i32) -> Option<(u64, bool)> {
    let path = CString::new(format!("/proc/{pid}/stat")).ok()?;
    let stat = hull_sys::fs::read_file(CWD, &path, 4096).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(19)?.parse().ok()?, matches!(*fields.first()?, "Z" | "X")))
}

fn kill_and_wait(init: &OwnedFd, state: &State) -> Result<()> {
    match process::pidfd_send_signal(init.as_fd(), SIGKILL) {
        Err(error) if error.errno() == Errno::SRCH => return Ok(()),
        // A profile of AppArmor's may keep signals away, but not what the kernel does to a whole group (v2).
        Err(error) if error.errno() == Errno::ACCESS && !state.groups.is_empty() => {
            state.groups.iter().try_for_each(|group| cgroup::kill_leftover(group))?;
        }
        other => other.doing(|| "kill the container".to_owned())?,
    }
    if cgroup::is_frozen(&state.groups)? {
        // v1 lets a frozen process die only when it thaws.
        Cgroup::open(&Host::detect()?, &state.groups)?.thaw()?;
    }
    match process::await_end(init.as_fd(), None, Some(PATIENCE)) {
        Ok((false, _)) => Err(Error::setup("kill the container", "its first process does not end")),
        Ok(_) => Ok(()),
        Err(error) => Err(Error::setup("wait for the container", error)),
    }
}

#[cfg(test)]
mod tests;
