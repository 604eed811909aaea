//! Checkpoint and restore: criu saves what the kernel has of a container's processes, and makes them again.
//!
//! It is a program of its own, which is asked over a socket ([`talk`](self), `criu swrk`) and tells of each step on the way.
//! Its command line would do for most of it, but neither hands over a terminal nor waits for hooks between two steps.
//! What is left to hull is what of a container is outside of it: binds, standard streams, namespaces that it joined, control
//! groups with their limits, the root.
//!
//! Sources: criu(8), criu's `images/rpc.proto`, runc-checkpoint(8), runc-restore(8).

mod checkpoint;
mod mounts;
mod restore;
mod rpc;
mod streams;
mod talk;

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use hull_sys::ns::Namespaces;
use rustix::fs::{FlockOperation, flock};

pub use checkpoint::{Subject, checkpoint};
pub use restore::{Restoration, restore};
pub use rpc::CgroupMode;
pub use talk::find;

use crate::cgroup::{Hierarchy, Host, Version};
use crate::error::{Error, Result};
use crate::plan::{Plan, word};
use crate::state;
use rpc::{Opts, PageServer};

/// What is said to criu in the caller's name; most of it is explained in criu(8) under the same name.
#[derive(Debug, Default)]
pub struct Options {
    /// Folder of the images, absolute.
    pub images: PathBuf,
    /// Folder of logs and other files, absolute; that of the images if none is given.
    pub work: Option<PathBuf>,
    /// Folder of the images of the dump before, relative to that of these.
    pub parent: Option<PathBuf>,
    /// Let the container run on after a checkpoint.
    pub leave_running: bool,
    /// Only the memory, and the container runs on.
    pub pre_dump: bool,
    /// Also connections that are established.
    pub tcp_established: bool,
    /// Not those that are just being made.
    pub tcp_skip_in_flight: bool,
    /// Connections come back closed.
    pub tcp_close: bool,
    /// Also Unix sockets whose other end is outside.
    pub ext_unix_sk: bool,
    /// Also with a session or a terminal from outside.
    pub shell_job: bool,
    /// Also locks on files.
    pub file_locks: bool,
    /// Files that have no name any more may get one again.
    pub link_remap: bool,
    /// Memory stays here until somebody asks for it.
    pub lazy_pages: bool,
    /// What of an earlier dump is out of date is taken out of its images.
    pub auto_dedup: bool,
    /// Where pages go to, or are asked for.
    pub page_server: Option<(String, u16)>,
    /// Descriptor of ours at which criu says that pages can be asked for.
    pub status_fd: Option<i32>,
    /// What becomes of control groups.
    pub cgroups: Option<CgroupMode>,
    /// The network namespace is saved, or comes back, empty.
    pub empty_network: bool,
    /// A configuration file of criu's, which is above these.
    pub config: Option<PathBuf>,
    /// `apparmor:NAME` or `selinux:LABEL` for the processes instead of what they had.
    pub lsm_profile: Option<String>,
    /// SELinux context for mounts that had one.
    pub lsm_mount_context: Option<String>,
}

/// The folders of the images and of the log, opened: criu finds them by our descriptors.
struct Folders {
    images: File,
    work: File,
}

impl Folders {
    fn tell(&self, opts: &mut Opts) {
        opts.images_dir = self.images.as_raw_fd();
        opts.work_dir = Some(self.work.as_raw_fd());
    }
}

impl Options {
    /// `root` is a root directory in criu's mount namespace: it mounts in there, which takes a mount of its own.
    fn folders(&self, root: &Path) -> Result<Folders> {
        let open = |path: &Path| {
            let doing = || format!("open the folder {}", path.display());
            // An absolute link on the way would lead out of `root`.
            let path = std::fs::canonicalize(path).map_err(|error| Error::setup(doing(), error))?;
            let path = root.join(path.strip_prefix("/").unwrap_or(&path));
            let folder = File::open(path).map_err(|error| Error::setup(doing(), error))?;
            match folder.metadata().map_err(|error| Error::setup(doing(), error))?.is_dir() {
                true => Ok(folder),
                false => Err(Error::setup(doing(), "it is not a directory")),
            }
        };
        let work = self.work.as_ref().unwrap_or(&self.images);
        Ok(Folders { images: open(&self.images)?, work: open(work)? })
    }

    fn log(&self, name: &str) -> PathBuf {
        self.work.as_ref().unwrap_or(&self.images).join(name)
    }

    /// What both verbs say.
    fn opts(&self, log: &str) -> Opts {
        let mode = self.cgroups.unwrap_or(CgroupMode::Soft);
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let server = |(address, port): &(String, u16)| PageServer {
            address: Some(address.clone()),
            port: Some(i32::from(*port)),
        };
        Opts {
            log_level: Some(4),
            log_file: Some(log.to_owned()),
            notify_scripts: Some(true),
            tcp_established: Some(self.tcp_established),
            tcp_close: Some(self.tcp_close),
            ext_unix_sk: Some(self.ext_unix_sk),
            shell_job: Some(self.shell_job),
            file_locks: Some(self.file_locks),
            link_remap: Some(self.link_remap),
            lazy_pages: Some(self.lazy_pages),
            auto_dedup: Some(self.auto_dedup),
            orphan_pts_master: Some(true),
            manage_cgroups: Some(true),
            cgroup_mode: Some(mode.into()),
            page_server: self.page_server.as_ref().map(server),
            status_fd: self.status_fd,
            empty_ns: self.empty_network.then_some(Namespaces::NETWORK.0 as u32),
            config_file: self.config.as_ref().map(text),
            ..Opts::default()
        }
    }
}

/// A folder with a place for each hierarchy of control groups, by criu's names for them.
///
/// Without it criu mounts them anew, and a mount of the unified one sets options of the host's own: nsdelegate would be gone.
struct Yard {
    path: PathBuf,
    /// Where each is on the host, and its place.
    hierarchies: Vec<(PathBuf, PathBuf)>,
    /// Keeps everybody else out of the place until it is gone.
    _lock: File,
}

impl Yard {
    /// An empty one, below the container's folder, for one checkpoint or restore at a time.
    ///
    /// # Errors
    /// Another one of the container is under way, which may take as long as its pages are waited for: `doing` cannot be done.
    fn new(folder: &Path, doing: &str) -> Result<Self> {
        // Not of the folder, on which others wait for their turn: a `delete --force` would wait as long.
        let lock = File::open(folder.join(state::SPEC)).map_err(|error| Error::setup(doing, error))?;
        let refuse = |_| Error::invalid(doing, "another checkpoint of it, or its restore, is under way");
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(refuse)?;
        let path = folder.join("cgroups");
        let doing = |error| Error::setup(format!("make the folder {}", path.display()), error);
        match std::fs::remove_dir_all(&path) {
            // Mostly there is none; else somebody was killed before us.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(doing)?,
        }
        std::fs::create_dir(&path).map_err(doing)?;
        let place = |hierarchy: Hierarchy| {
            let name = match hierarchy.version {
                Version::V1 => hierarchy.controllers.join(","),
                Version::V2 => "unified".to_owned(),
            };
            let place = path.join(name.trim_start_matches("name="));
            (hierarchy.mount, place)
        };
        let hierarchies = Host::detect()?.hierarchies.into_iter().map(place).collect();
        Ok(Self { path, hierarchies, _lock: lock })
    }

    /// Makes each place with `make`.
    fn fill(&self, make: impl Fn(&Path, &Path) -> std::io::Result<()>) -> Result<()> {
        self.hierarchies.iter().try_for_each(|(mount, place)| {
            make(mount, place).map_err(|error| Error::setup(format!("make {}", place.display()), error))
        })
    }

    fn tell(&self, opts: &mut Opts) {
        opts.cgroup_yard = Some(self.path.to_string_lossy().into_owned());
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        // It goes with the container's folder otherwise.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Names of namespaces from outside, as runc calls them: images are exchanged with it.
const EXTERNAL: [(Namespaces, &str, &str); 2] =
    [(Namespaces::NETWORK, "net", "extRootNetNS"), (Namespaces::PID, "pid", "extRootPidNS")];

/// What criu cannot bring back is refused before anything is asked of it.
fn refuse(plan: &Plan, doing: &str) -> Result<()> {
    if !plan.namespaces.new.contains(Namespaces::MOUNT) {
        return Err(Error::invalid(doing, "it has no mount namespace of its own"));
    }
    if plan.namespaces.has(Namespaces::USER) {
        return Err(Error::invalid(doing, "containers with a user namespace are not supported"));
    }
    let joinable = [Namespaces::NETWORK, Namespaces::PID, Namespaces::IPC, Namespaces::UTS];
    if let Some(join) = plan.namespaces.joined.iter().find(|join| !joinable.contains(&join.kind)) {
        return Err(Error::invalid(doing, format!("criu cannot join a {} namespace", word(join.kind))));
    }
    if let Some(step) = plan.mounts.iter().find(|step| step.ids.is_some()) {
        let cause =
            format!("the ids of the mount {} are mapped, which criu does not bring back", step.destination.display());
        return Err(Error::invalid(doing, cause));
    }
    Ok(())
}
