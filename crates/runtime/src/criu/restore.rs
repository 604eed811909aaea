//! A restore: a folder of images becomes a running container, in the order in which it happens.
//!
//! ```text
//!   parent                           criu
//!   clone3 ------------------------>
//!   systemd makes groups, "go" ----> (if asked to)
//!                                    joins the groups, keyring
//!                                    the root, mounted where nobody else sees it
//!   (line closes) <----------------- exec of criu
//!   what stands for what ----------> makes the namespaces
//!   runs hooks <-------------------- "setup-namespaces"
//!   the terminal <------------------ "orphan-pts-master"    (if it has one)
//!   writes the state <-------------- "post-restore": all is there, and stands still
//!   restored <---------------------- it runs
//! ```
//!
//! criu clones the container's first process as its own sibling, so that it is our child, and inherits its groups.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hull_sys::mount::{self, MountPropagationFlags};
use hull_sys::ns::Namespaces;
use hull_sys::sync::Line;
use hull_sys::{cred, exe, process, trace};

use super::rpc::{CgroupMode, CgroupRoot, InheritFd, JoinNamespace, Kind, Opts};
use super::talk::{Birth, Criu};
use super::{EXTERNAL, Options, Yard, mounts, refuse, streams};
use crate::cgroup::Cgroup;
use crate::create::Stdio;
use crate::created::Created;
use crate::error::{Doing, Error, Result};
use crate::hooks::About;
use crate::join;
use crate::keyring;
use crate::lsm;
use crate::parent;
use crate::plan::Plan;
use crate::rootfs;
use crate::running;

const LOG: &str = "restore.log";

/// What a restoration takes besides the plan.
pub struct Restoration<'a> {
    /// The root file system: a detached mount that nothing on the host shows.
    pub root: OwnedFd,
    /// A path of the host's that is there, absolute: in criu's mount namespace the root is mounted on it. Its own is best.
    pub place: PathBuf,
    /// The folder of its state, absolute.
    pub folder: PathBuf,
    /// The groups, with their limits in force already.
    pub cgroup: &'a mut Cgroup,
    /// What the processes read and write in place of the streams that they had.
    pub stdio: Stdio,
    /// What hooks are told of the container.
    pub about: About,
}

/// Restores it. `record` is told the number of its first process while that stands still: whoever clears up after a kill
/// finds it by that.
///
/// # Errors
/// criu is not there, or cannot; then nothing of it runs. What it had put into the groups ends with them.
pub fn restore(
    plan: &Plan,
    options: &Options,
    mut inputs: Restoration<'_>,
    record: impl FnMut(i32) -> Result<()>,
) -> Result<Created> {
    // The mount of our own file: whoever stays and waits for the container would hold it as long as that runs.
    exe::let_go();
    refuse(plan, &doing(&inputs))?;
    options.folders(Path::new("/"))?;
    trace::stage(
        "say what the names in the images stand for",
        "Binds, standard streams and joined namespaces are given again, each under the name that the checkpoint has for it.",
    );
    // A copy of a shared mount is its peer: what is mounted in the container would appear on the host.
    crate::mounts::cut_off(plan, inputs.root.as_fd()).doing(|| "take the root file system".to_owned())?;
    let mut opts = options.opts(LOG);
    opts.sibling = Some(true);
    // Not by links: they would be followed from the container's root, when that is already there.
    let yard = Yard::new(&inputs.folder, &doing(&inputs))?;
    yard.fill(|_, place| std::fs::create_dir(place))?;
    yard.tell(&mut opts);
    opts.root = Some(inputs.place.to_string_lossy().into_owned());
    opts.lsm_profile.clone_from(&options.lsm_profile);
    opts.lsm_mount_context.clone_from(&options.lsm_mount_context);
    opts.external_mounts = mounts::at_restore(plan, inputs.root.as_fd(), &inputs.cgroup.view())?;
    let namespaces = join_namespaces(plan, &mut opts)?;
    let mut given: Vec<BorrowedFd<'_>> = namespaces.iter().map(AsFd::as_fd).collect();
    if let Stdio::Given(stdio) = &inputs.stdio {
        opts.inherit_fds.extend(streams::at_restore(&options.images, stdio)?);
        given.extend(stdio.iter().map(AsFd::as_fd));
    }
    trace::stage(
        "start criu in the container's groups",
        "The limits are in force before anything is restored. The mount namespace is criu's own, so that the root, which it \
         wants as a mount, is never one of the host's.",
    );
    let birth = Birth { namespaces: Namespaces::MOUNT, group: inputs.cgroup.birth(), descriptors: &given };
    let mut criu = Criu::start(&birth, |line| prepare(plan, &inputs, &yard, line))?;
    let restored = bring_back(&mut criu, plan, options, &mut inputs, opts, record);
    let ended = criu.end();
    let (pid, pidfd, terminal) = restored?;
    ended?;
    Ok(Created::restored(pid, pidfd, terminal))
}

fn doing(inputs: &Restoration<'_>) -> String {
    format!("restore container {}", inputs.about.id)
}

type Restored = (i32, OwnedFd, Option<OwnedFd>);

fn bring_back(
    criu: &mut Criu,
    plan: &Plan,
    options: &Options,
    inputs: &mut Restoration<'_>,
    mut opts: Opts,
    mut record: impl FnMut(i32) -> Result<()>,
) -> Result<Restored> {
    if inputs.cgroup.wants_process() {
        inputs.cgroup.adopt(criu.pid)?;
        criu.tell(b"go")?;
    }
    criu.begin()?;
    let folders = options.folders(&PathBuf::from(format!("/proc/{}/root", criu.pid)))?;
    folders.tell(&mut opts);
    if options.cgroups != Some(CgroupMode::Ignore) {
        opts.cgroup_roots = cgroup_roots(criu.pid)?;
    }
    trace::stage(
        "let criu make the processes again",
        "Each gets the number, the memory and the open files that it had. Until all are there they stand still.",
    );
    let (mut first, mut terminal) = (None, None);
    criu.perform(Kind::Restore, opts, &options.log(LOG), &doing(inputs), |step, pid, descriptor| {
        match step {
            "setup-namespaces" => plan.hooks.run_parents(&inputs.about, pid)?,
            "orphan-pts-master" => terminal = descriptor,
            "post-restore" => {
                // It is our child, so the number stays its own.
                first = Some((pid, process::pidfd_open(pid).doing(|| format!("open process {pid}"))?));
                record(pid)?;
            }
            _ => {}
        }
        Ok(())
    })?;
    let (pid, pidfd) = first.ok_or_else(|| Error::setup(doing(inputs), "criu does not tell the first process"))?;
    Ok((pid, pidfd, terminal))
}

/// In the process that becomes criu.
fn prepare(plan: &Plan, inputs: &Restoration<'_>, yard: &Yard, line: &Line) -> Result<()> {
    if inputs.cgroup.wants_process() {
        parent::wait(line, b"go")?;
    } else {
        inputs.cgroup.join(true)?;
    }
    if let Some(name) = &plan.keyring {
        let proc = std::fs::File::open("/proc").map_err(|error| Error::setup("open /proc", error))?;
        lsm::label_keys(proc.as_fd(), &plan.process)?;
        keyring::make(name, false)?;
    }
    // criu saves neither of these; what it makes has them from it.
    running::schedule_beside(&plan.process.running)?;
    if plan.process.no_new_privs {
        cred::no_new_privs().doing(|| "set no_new_privs".to_owned())?;
    }
    mount::set_propagation(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .doing(|| "cut the mount tree off".to_owned())?;
    for (mount, place) in &yard.hierarchies {
        let doing = || format!("mount {} at {}", mount.display(), place.display());
        let tree = mount::clone_tree(&c_path(mount)?, false).doing(doing)?;
        rootfs::move_to(tree.as_fd(), &c_path(place)?).doing(doing)?;
    }
    let doing = || "attach the root file system".to_owned();
    rootfs::move_to(inputs.root.as_fd(), &c_path(&inputs.place)?).doing(doing)
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|error| Error::invalid(format!("use {}", path.display()), error))
}

/// The namespaces that are joined: given as descriptors where criu takes them so, else by path.
fn join_namespaces(plan: &Plan, opts: &mut Opts) -> Result<Vec<OwnedFd>> {
    let mut open = Vec::new();
    for join in &plan.namespaces.joined {
        let file = join::open_one(join)?;
        match EXTERNAL.iter().find(|(kind, ..)| *kind == join.kind) {
            Some((_, _, key)) => {
                opts.inherit_fds.push(InheritFd { key: (*key).to_owned(), fd: file.as_raw_fd() });
                open.push(file);
            }
            None => opts.join_ns.push(JoinNamespace {
                kind: if join.kind == Namespaces::IPC { "ipc" } else { "uts" }.to_owned(),
                file: join.path.to_string_lossy().into_owned(),
            }),
        }
    }
    Ok(open)
}

/// The groups that the process is in by now: whatever the container's were called, they are these.
fn cgroup_roots(pid: i32) -> Result<Vec<CgroupRoot>> {
    let path = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&path).map_err(|error| Error::setup(format!("read {path}"), error))?;
    Ok(roots(&text))
}

/// Pure. Source: cgroups(7), "/proc files".
fn roots(text: &str) -> Vec<CgroupRoot> {
    let line = |line: &str| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        let names: Vec<Option<String>> = match names {
            "" => vec![None],
            names => names.split(',').map(|name| Some(name.to_owned())).collect(),
        };
        Some(names.into_iter().map(|controller| CgroupRoot { controller, path: path.to_owned() }).collect::<Vec<_>>())
    };
    text.lines().filter_map(line).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_controller_has_a_root_and_the_unified_hierarchy_is_for_all_others() {
        let root = |controller: Option<&str>, path: &str| CgroupRoot {
            controller: controller.map(str::to_owned),
            path: path.to_owned(),
        };
        assert_eq!(
            roots("3:cpu,cpuacct:/a:b\n1:name=systemd:/c\n0::/d\n"),
            [
                root(Some("cpu"), "/a:b"),
                root(Some("cpuacct"), "/a:b"),
                root(Some("name=systemd"), "/c"),
                root(None, "/d")
            ]
        );
    }
}
