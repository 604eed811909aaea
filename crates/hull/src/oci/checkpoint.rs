//! `checkpoint`: a running container becomes a folder of images. The flags that `restore` shares are here too.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use hull_runtime::criu::{self, CgroupMode, Options, Subject};
use hull_runtime::plan::Plan;
use hull_runtime::state::Status;
use oci_spec::runtime::Spec;

use super::Call;
use super::manage::{find, groups};
use crate::report::Report;

/// What runc's users have in there for criu is meant for its drop-in, too.
const CONFIG: &str = "/etc/criu/runc.conf";
const CONFIG_ANNOTATION: &str = "org.criu.config";

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Mode {
    Soft,
    Full,
    Strict,
    Ignore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EmptyNamespace {
    Network,
}

// What checkpoint and restore take.
#[derive(Args)]
pub struct CriuArgs {
    /// Folder of the images
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub image_path: PathBuf,
    /// Folder for criu's logs and work files; that of the images if not given
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Also established TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// Also Unix sockets whose other end is outside of the container
    #[arg(long)]
    ext_unix_sk: bool,
    /// Also with a session or a terminal from outside
    #[arg(long)]
    shell_job: bool,
    /// Leave memory where it is until it is asked for
    #[arg(long)]
    lazy_pages: bool,
    /// Also locks on files
    #[arg(long)]
    file_locks: bool,
    /// What becomes of control groups
    #[arg(long, value_name = "MODE", default_value = "soft")]
    manage_cgroups_mode: Mode,
    /// Leave out what is in a namespace of this kind
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<EmptyNamespace>,
    /// Take out of older images what newer ones have
    #[arg(long)]
    auto_dedup: bool,
    /// Let files without a name have one again
    #[arg(long)]
    link_remap: bool,
}

impl CriuArgs {
    /// Paths are relative to where the caller is, wherever the bundle is.
    pub fn absolute(&mut self, absolute: impl Fn(PathBuf) -> Result<PathBuf, Report>) -> Result<(), Report> {
        self.image_path = absolute(std::mem::take(&mut self.image_path))?;
        self.work_path = self.work_path.take().map(absolute).transpose()?;
        Ok(())
    }

    pub fn options(&self, spec: &Spec) -> Options {
        let given = spec.annotations().as_ref().and_then(|all| all.get(CONFIG_ANNOTATION)).map(PathBuf::from);
        Options {
            images: self.image_path.clone(),
            work: self.work_path.clone(),
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            lazy_pages: self.lazy_pages,
            file_locks: self.file_locks,
            auto_dedup: self.auto_dedup,
            link_remap: self.link_remap,
            empty_network: self.empty_ns.contains(&EmptyNamespace::Network),
            cgroups: Some(match self.manage_cgroups_mode {
                Mode::Soft => CgroupMode::Soft,
                Mode::Full => CgroupMode::Full,
                Mode::Strict => CgroupMode::Strict,
                Mode::Ignore => CgroupMode::Ignore,
            }),
            config: given.or_else(|| Path::new(CONFIG).exists().then(|| CONFIG.into())),
            ..Options::default()
        }
    }
}

#[derive(Args)]
pub struct CheckpointArgs {
    #[command(flatten)]
    pub criu: CriuArgs,
    /// Folder of the images of an earlier pre-dump, relative to that of these
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Let the container run on
    #[arg(long)]
    leave_running: bool,
    /// Leave out TCP connections that are just being made
    #[arg(long)]
    tcp_skip_in_flight: bool,
    /// Descriptor that gets a zero byte once lazy pages can be asked for
    #[arg(long, value_name = "FD", requires = "lazy_pages")]
    status_fd: Option<i32>,
    /// Send pages to, or with --lazy-pages offer them at, this address
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    page_server: Option<(String, u16)>,
    /// Only the memory, as the parent of a later checkpoint; the container runs on
    #[arg(long)]
    pre_dump: bool,
    #[arg(value_name = "ID")]
    id: String,
}

fn address(text: &str) -> Result<(String, u16), &'static str> {
    const SHAPE: &str = "it is not ADDRESS:PORT";
    let (address, port) = text.rsplit_once(':').ok_or(SHAPE)?;
    let port = port.parse().map_err(|_| SHAPE)?;
    if address.is_empty() { Err(SHAPE) } else { Ok((address.to_owned(), port)) }
}

/// `checkpoint`.
pub(super) fn checkpoint(call: &Call<'_>, args: &CheckpointArgs) -> Result<i32, Report> {
    refuse_users(call, "checkpoint a container")?;
    let (folder, state, status) = find(call.root, &args.id)?;
    if !matches!(status, Status::Running | Status::Paused) {
        return Err(Report::usage(format!("Container cannot be checkpointed in {} state", status.word()), None));
    }
    let spec = folder.spec()?;
    let options = Options {
        parent: args.parent_path.clone(),
        leave_running: args.leave_running,
        pre_dump: args.pre_dump,
        tcp_skip_in_flight: args.tcp_skip_in_flight,
        status_fd: args.status_fd,
        page_server: args.page_server.clone(),
        ..args.criu.options(&spec)
    };
    check_status_fd(args.status_fd)?;
    // Before a folder is made for it.
    criu::find()?;
    make_folder(&options.images)?;
    options.work.as_deref().map_or(Ok(()), make_folder)?;
    if let Some(parent) = &options.parent {
        check_parent(&options.images, parent)?;
    }
    let plan = Plan::from_spec(&spec)?;
    let groups = groups(&state)?;
    let subject =
        Subject { id: &args.id, plan: &plan, pid: state.process.pid, folder: folder.path(), cgroup: &groups };
    criu::checkpoint(&subject, &options)?;
    if !(args.leave_running || args.pre_dump) {
        // As with runc: what has become a checkpoint is no container any more.
        call.log.warn(folder.delete(true)?);
    }
    Ok(0)
}

/// criu needs rights over all that the processes have.
pub(super) fn refuse_users(call: &Call<'_>, doing: &str) -> Result<(), Report> {
    match call.caller.is_user() {
        true => Err(Report::host(doing, "criu takes the rights of the machine's root")),
        false => Ok(()),
    }
}

fn make_folder(path: &Path) -> Result<(), Report> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Report::host(format!("make the folder {}", path.display()), error))
}

fn check_parent(images: &Path, parent: &Path) -> Result<(), Report> {
    if parent.is_absolute() {
        return Err(Report::usage("--parent-path must be relative to --image-path", None));
    }
    let path = images.join(parent);
    match fs::metadata(&path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Report::usage(format!("invalid --parent-path: {} is not a directory", path.display()), None)),
        Err(error) => Err(Report::usage(format!("invalid --parent-path: {}: {error}", path.display()), None)),
    }
}

fn check_status_fd(number: Option<i32>) -> Result<(), Report> {
    let Some(number) = number else { return Ok(()) };
    let link = format!("/proc/self/fd/{number}");
    let opened = fs::OpenOptions::new().write(true).open(link);
    opened.map(drop).map_err(|error| Report::usage(format!("invalid --status-fd argument {number}: {error}"), None))
}
