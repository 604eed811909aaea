//! `restore`: a folder of images becomes a container again.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use hull_engine::{Relay, RunOptions, Streams};
use hull_runtime::Stdio;
use hull_runtime::criu::{self, Options, Restoration};
use hull_runtime::state::Process;

use super::checkpoint::{CriuArgs, refuse_users};
use super::create::{Begun, Bundle, Made, begin, bundle, tree, undo};
use super::manage::groups;
use super::{Call, CreateArgs, Handover, handover};
use crate::report::Report;

#[derive(Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub criu: CriuArgs,
    /// Folder with config.json; the current one if not given
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Socket that gets the terminal's descriptor
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// File for the number of the process
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Do not wait
    #[arg(short, long)]
    detach: bool,
    /// Leave orphans of a container without a PID namespace to somebody else
    #[arg(long)]
    no_subreaper: bool,
    /// Not possible: criu always changes the root by pivot_root
    #[arg(long)]
    no_pivot: bool,
    /// Let connections come back closed
    #[arg(long)]
    tcp_close: bool,
    /// apparmor:NAME or selinux:LABEL for the processes instead of what they had
    #[arg(long, value_name = "TYPE:LABEL")]
    lsm_profile: Option<String>,
    /// SELinux context for mounts that had one
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    #[arg(value_name = "ID")]
    id: String,
}

impl RestoreArgs {
    /// The same as a creation has it.
    fn create(&self) -> CreateArgs {
        CreateArgs {
            bundle: self.bundle.clone(),
            handover: Handover {
                console_socket: self.console_socket.clone(),
                pidfd_socket: None,
                pid_file: self.pid_file.clone(),
                preserve_fds: 0,
            },
            no_pivot: false,
            no_new_keyring: false,
            id: self.id.clone(),
        }
    }
}

/// `restore`: gives the command's exit status, or 0 if nobody waits for it.
pub(super) fn restore(call: &Call<'_>, args: &RestoreArgs) -> Result<i32, Report> {
    refuse_users(call, "restore a container")?;
    if args.no_pivot {
        return Err(Report::usage("cannot use --no-pivot: criu changes the root by pivot_root", None));
    }
    // Before there is anything of the container.
    criu::find()?;
    let images = &args.criu.image_path;
    fs::read_dir(images).map_err(|error| Report::host(format!("open the folder {}", images.display()), error))?;
    let create = args.create();
    let bundle = bundle(call, &create)?;
    let tty = bundle.plan.process.terminal;
    create.handover.check_terminal(tty, args.detach)?;
    let options = Options {
        tcp_close: args.tcp_close,
        lsm_profile: args.lsm_profile.clone(),
        lsm_mount_context: args.lsm_mount_context.clone(),
        ..args.criu.options(&bundle.spec)
    };
    if args.detach {
        make(call, &create, &bundle, &options, handover::given(tty)?)?.leave();
        return Ok(0);
    }
    let mut relay = Relay::prepare(&RunOptions { tty, interactive: true, ..RunOptions::default() })?;
    if !args.no_subreaper {
        relay.adopt()?;
    }
    let mut made = make(call, &create, &bundle, &options, relay.stdio()?)?;
    if let Err(error) = relay.connect(&mut made.created) {
        made.undo();
        return Err(error.into());
    }
    made.attend(relay, false, call.log)
}

fn make(
    call: &Call<'_>,
    args: &CreateArgs,
    bundle: &Bundle,
    options: &Options,
    stdio: Stdio,
) -> Result<Made, Report> {
    call.log.warn(&bundle.remarks);
    call.log.warn(bundle.plan.remarks());
    let place = fs::canonicalize(&bundle.rootfs);
    let place = place.map_err(|error| Report::host(format!("use {} as the root", bundle.rootfs.display()), error))?;
    let root = tree(&bundle.rootfs)?;
    let Begun { folder, mut state, mut group } = begin(call, &args.id, bundle)?;
    group.complete()?;
    let folder_path = folder.path().to_owned();
    let about = state.about();
    let inputs = Restoration { root, place, folder: folder_path, cgroup: &mut group, stdio, about };
    let restored = criu::restore(&bundle.plan, options, inputs, |pid| {
        state.process = Process::of(pid);
        folder.write_process(state.process)?;
        folder.show_process()
    });
    let created = match restored {
        Ok(created) => created,
        Err(error) => {
            undo(folder, group);
            return Err(error.into());
        }
    };
    let made = Made { folder, state, group, created, notices: None };
    let pids = match groups(&made.state).and_then(|group| Ok(group.processes()?)) {
        Ok(pids) => pids,
        Err(report) => {
            made.undo();
            return Err(report);
        }
    };
    let made = made.hand_over(&args.handover, &bundle.spec, &pids)?;
    match args.handover.tell(&made.created) {
        Ok(()) => Ok(made),
        Err(report) => {
            made.undo();
            Err(report)
        }
    }
}
