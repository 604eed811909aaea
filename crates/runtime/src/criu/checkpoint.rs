//! A checkpoint: a running container becomes a folder of images.

use std::os::unix::fs::symlink;
use std::path::Path;

use hull_sys::fs::{self, CWD};
use hull_sys::ns::Namespaces;
use hull_sys::trace;

use super::rpc::Kind;
use super::talk::{Birth, Criu};
use super::{EXTERNAL, Options, Yard, mounts, refuse, streams};
use crate::cgroup::Cgroup;
use crate::error::{Doing, Result};
use crate::plan::Plan;

const LOG: &str = "dump.log";

/// The container.
pub struct Subject<'a> {
    /// Its id.
    pub id: &'a str,
    /// What it was made by.
    pub plan: &'a Plan,
    /// Its first process.
    pub pid: i32,
    /// The folder of its state, absolute.
    pub folder: &'a Path,
    /// Its groups.
    pub cgroup: &'a Cgroup,
}

/// Saves it. Unless it is to run on, all its processes have ended after this.
///
/// # Errors
/// criu is not there, or cannot; then the container runs on.
pub fn checkpoint(subject: &Subject<'_>, options: &Options) -> Result<()> {
    let doing = format!("checkpoint container {}", subject.id);
    let plan = subject.plan;
    refuse(plan, &doing)?;
    let folders = options.folders(Path::new("/"))?;
    let mut opts = options.opts(LOG);
    folders.tell(&mut opts);
    let yard = Yard::new(subject.folder, &doing)?;
    yard.fill(|mount, place| symlink(mount, place))?;
    yard.tell(&mut opts);
    opts.pid = Some(subject.pid);
    opts.leave_running = Some(options.leave_running);
    opts.tcp_skip_in_flight = Some(options.tcp_skip_in_flight);
    opts.parent_images = options.parent.as_ref().map(|path| path.to_string_lossy().into_owned());
    opts.track_mem = Some(options.pre_dump || options.parent.is_some());
    opts.freeze_cgroup = subject.cgroup.freezer_path().map(|path| path.to_string_lossy().into_owned());
    trace::stage(
        "tell criu what is not the container's",
        "Binds, standard streams and namespaces that it joined are the host's: they are named, and whoever restores it says \
         what the names stand for there.",
    );
    opts.external = namespaces(plan, subject.pid)?;
    let (names, outside) = streams::at_dump(subject.pid)?;
    opts.external.extend(outside);
    if !options.pre_dump {
        opts.external_mounts = mounts::at_dump(plan, subject.pid)?;
        streams::save(&options.images, &names)?;
    }
    trace::stage(
        "let criu save the processes",
        "It freezes the control group, so that nothing moves any more, reads what the kernel shows of each process, and has \
         the process itself tell the rest.",
    );
    let birth = Birth { namespaces: Namespaces::default(), group: None, descriptors: &[] };
    let mut criu = Criu::start(&birth, |_| Ok(()))?;
    let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
    let done = criu.begin().and_then(|()| criu.perform(kind, opts, &options.log(LOG), &doing, |_, _, _| Ok(())));
    let ended = criu.end();
    done.and(ended)
}

/// Those that it joined and that are not ours, by criu's names. All others criu makes again.
fn namespaces(plan: &Plan, pid: i32) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (_, file, name) in EXTERNAL.into_iter().filter(|(kind, ..)| plan.namespaces.joins(*kind)) {
        let look = |process: &str| {
            let path = std::ffi::CString::new(format!("/proc/{process}/ns/{file}")).unwrap_or_default();
            fs::stat_at(CWD, &path).doing(|| format!("look at a namespace of process {process}"))
        };
        let (its, ours) = (look(&pid.to_string())?, look("self")?);
        if its.st_ino != ours.st_ino {
            all.push(format!("{file}[{}]:{name}", its.st_ino));
        }
    }
    Ok(all)
}
