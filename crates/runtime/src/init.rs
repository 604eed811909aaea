//! The child's half of a creation: from the clone to the command's exec, in the order in which it happens.
//!
//! The process is alone (no threads), in its new namespaces, and holds what its parent opened for it. Everything it
//! does was computed before; here are only the calls, and the reasons for their order.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::fs::{self, CWD};
use hull_sys::mount::{self, MountAttrFlags};
use hull_sys::ns::{self, Namespaces};
use hull_sys::path::Root;
use hull_sys::sync::Line;
use hull_sys::{Errno, cred, exe, net, process, trace};
use rustix::fs::OFlags;

use crate::command::{self, Ready};
use crate::create::{Inputs, Start, Stdio};
use crate::devices;
use crate::diagnose;
use crate::entrance::Entrance;
use crate::error::{Doing, Error, Result};
use crate::hooks;
use crate::identity;
use crate::join::{self, Joins};
use crate::keyring;
use crate::lsm;
use crate::mounts::{self, Sources};
use crate::netdev::{self, Found};
use crate::parent;
use crate::plan::{MountStep, Plan, What};
use crate::rootfs;
use crate::running;
use crate::start;
use crate::streams;
use crate::view;

/// What the parent has opened and found on the host for its child.
pub(crate) struct Opened {
    /// Sources of mounts.
    pub sources: Sources,
    /// Namespaces to join.
    pub joins: Joins,
    /// Network devices to take.
    pub devices: Vec<Found>,
    /// Whether the parent does some of the work meanwhile.
    pub helped: bool,
}

/// Runs the child's half. Never returns: the command's exec replaces it, or it tells its parent why not and ends.
pub(crate) fn main(plan: &Plan, inputs: Inputs<'_>, opened: Opened, mut line: Line) -> ! {
    let Err(error) = story(plan, inputs, opened, &mut line) else { process::exit_now(0) };
    // If the parent is gone there is nobody to tell.
    let _ = line.send(&error.to_message(), None);
    process::exit_now(1)
}

/// Comes back only with an error.
fn story(plan: &Plan, inputs: Inputs<'_>, opened: Opened, line: &mut Line) -> Result<()> {
    let Opened { sources, joins, devices, helped } = opened;
    // The parent has it still, so this does not wait; before "up" it lets go as well.
    exe::let_go();
    // Not dumpable: nobody in a PID namespace that it may have been born into can look into it (CVE-2016-9962).
    cred::set_dumpable(false).doing(|| "hide the process".to_owned())?;
    // At once, for the parent may die at any moment; what it leaves is cleared when nobody holds it any more.
    if plan.die_with_parent {
        parent::tie(line)?;
    }
    // One that came through another process was not born in its v2 group.
    let mut groups = Entrance::new(plan, inputs.cgroup, !joins.through);
    if !groups.may_wait() {
        groups.enter(line)?;
    }
    join::enter(plan, &joins)?;
    drop(joins);
    if join::waits_for_parent(plan) {
        parent::wait(line, b"go")?;
    }
    if plan.namespaces.has(Namespaces::USER) {
        join::become_root_inside()?;
        join::unshare_late(&plan.namespaces)?;
    }
    trace::stage(
        "stand alone",
        "No terminal but its own can signal the process, and a new network has one interface, which is down.",
    );
    process::setsid().doing(|| "start a session".to_owned())?;
    // Nodes and folders made below get exactly the modes that are written there.
    process::umask(0);
    if plan.namespaces.new.contains(Namespaces::NETWORK) {
        let doing = || "bring the loopback interface up".to_owned();
        let socket = net::socket().doing(doing)?;
        match helped {
            // A hundred microseconds in the kernel, and nothing before the end has to wait for it.
            true => line.send(b"network", Some(socket.as_fd())).doing(doing)?,
            false => net::loopback_up(socket.as_fd()).doing(doing)?,
        }
    }
    netdev::take(&plan.net_devices, &devices, line)?;

    let root = rootfs::attach(plan, inputs.root, inputs.place.as_deref())?;
    let proc = match plan.sysctl.is_empty() && !lsm::concerns(&plan.process) {
        true => None,
        false => Some(private_proc(plan)?),
    };
    if let Some(name) = &plan.keyring {
        proc.as_ref().map_or(Ok(()), |proc| lsm::label_keys(proc.as_fd(), &plan.process))?;
        keyring::make(name, plan.namespaces.has(Namespaces::USER))?;
    }
    let view = inputs.cgroup.view();
    let (mut files, mut late) = (None, Vec::new());

    trace::stage(
        "build the container's tree",
        "Each mount is made detached and moved onto a handle inside the new root, so no link of the image can lead \
         a mount elsewhere.",
    );
    for (step, opened) in plan.mounts.iter().zip(sources) {
        // Groups that are mounted are the container's, as is what fills a file system; its rules say which devices hold one.
        if mounts::concerns_groups(step) {
            groups.enter(line)?;
        }
        match step.what {
            What::Cgroup => view::mount(&root, step, &view, plan.namespaces.has(Namespaces::CGROUP))?,
            What::File { ref text } => own_file(&root, step, text, &mut files)?,
            _ => {
                let made = mounts::perform(&root, step, mounts::source(plan, step, opened)?.as_ref())?;
                late.extend(mounts::freezes_late(step).then_some((step, made)));
            }
        }
    }
    groups.enter(line)?;
    // After all mounts, for a node may belong on one of them.
    devices::make(&root, plan)?;
    let stdio = match inputs.stdio {
        Stdio::Given(given) => given,
        Stdio::Terminal => {
            let terminal = streams::terminal(&root, line)?;
            streams::console(&root, &terminal)?;
            streams::all_three(&terminal)?
        }
    };
    trace::stage(
        "hide and freeze",
        "Files of /proc that leak or change the host are covered by the container's own /dev/null or made read-only.",
    );
    mounts::make_read_only(&root, plan)?;
    mounts::mask(&root, plan)?;
    // A working directory that does not exist is made, as runc and Docker do; inside the root, whatever leads there.
    let cwd = &plan.process.cwd;
    mounts::target(&root, cwd, true).doing(|| format!("make the working directory {}", cwd.display()))?;
    for (step, made) in late {
        mounts::freeze(step, made.as_fd())?;
    }
    if helped {
        // It has written down which process this is, and the network is up.
        parent::wait(line, b"up")?;
    }
    if plan.hooks.concern_parent() {
        line.send(b"hooks", None).doing(|| "report to the parent".to_owned())?;
        parent::wait(line, b"go")?;
    }
    hooks::run(&plan.hooks.create_container, &inputs.about, "creating", process::getpid())?;
    rootfs::enter(&root, plan)?;
    name_it(plan)?;
    if let Some(proc) = &proc {
        set_sysctls(plan, proc.as_fd())?;
    }

    trace::stage(
        "become the user",
        "Limits while still privileged; then groups, ids and capabilities, in this order, because each step needs \
         the rights that the next one gives up.",
    );
    running::limit(&plan.process)?;
    running::schedule(&plan.process.running)?;
    streams::give(&plan.process, &stdio)?;
    identity::become_user(&plan.process)?;
    // Again after the change of ids, which clears it.
    if plan.die_with_parent {
        parent::tie(line)?;
    }
    command::enter_cwd(&plan.process)?;
    streams::take(&plan.process, &stdio)?;

    let label = || proc.as_ref().map_or(Ok(()), |proc| lsm::label_exec(proc.as_fd(), &plan.process));
    if let Start::WhenConnected(listener) = &inputs.start {
        // A caller takes what `start` says for a failure of its own; that there is no such program it can name.
        diagnose::look(&plan.process)?;
        // It may wait for long, and what it holds leads to the host (CVE-2024-21626).
        drop((stdio, root, files));
        let kept = [Some(line.as_fd()), Some(listener.as_fd()), proc.as_ref().map(AsFd::as_fd), exe::file()];
        let kept: Vec<BorrowedFd<'_>> = kept.into_iter().flatten().collect();
        process::close_all_but(plan.process.descriptors, &kept).doing(|| "close descriptors".to_owned())?;
    }
    let command = Ready::new(&plan.process)?;
    // An agent has to be there when the container is created, and is told that it is being created: runc's moment. A filter
    // that nobody is told of comes after the wait, which it need not allow then.
    let early = plan.process.listener().is_some();
    if early {
        command.confine(label, line)?;
    }
    match inputs.start {
        Start::AtOnce => {}
        Start::WhenTold => {
            line.send(b"ready", None).doing(|| "report to the parent".to_owned())?;
            parent::wait(line, b"start")?;
        }
        Start::WhenConnected(listener) => {
            line.send(b"ready", None).doing(|| "report to the parent".to_owned())?;
            *line = start::wait(listener)?;
        }
    }
    if !early {
        command.confine(label, line)?;
    }
    // With the command's rights and no others, as with runc: their programs are the image's.
    hooks::run(&plan.hooks.start_container, &inputs.about, "created", process::getpid())?;
    command.execute()
}

/// A procfs of our PID namespace that no path of the container leads to: what is written through it cannot be led
/// elsewhere by mounts of the image (CVE-2019-16884, CVE-2025-52881).
///
/// It lies over a folder of the host's, so that it goes with the old root: the kernel waits for a grace period whenever
/// mounts are taken away, and a detached one that is closed would be a second time. Where others see the folder, it stays
/// detached.
fn private_proc(plan: &Plan) -> Result<OwnedFd> {
    let doing = || "make a private procfs".to_owned();
    match mount::new_filesystem(c"proc", None, &[], MountAttrFlags::empty()) {
        // In the user namespace's mounts nobody may make one of a PID namespace that belongs to another: what there is of the
        // host's is out of the container's sight as well, and is held from before its root was changed.
        Err(error) if error.errno() == Errno::PERM => {
            let host = fs::openat(CWD, c"/proc", OFlags::PATH | OFlags::DIRECTORY, 0).doing(doing)?;
            match fs::is_procfs(host.as_fd()).doing(doing)? {
                true => Ok(host),
                false => Err(error).doing(doing),
            }
        }
        made => {
            let proc = made.doing(doing)?;
            if !rootfs::is_shared(plan) {
                rootfs::move_to(proc.as_fd(), c"/proc").doing(doing)?;
            }
            Ok(proc)
        }
    }
}

/// A small file that is the container's own: nothing on the host names it, and it cannot grow beyond its file system,
/// which is made for the first one (`files`).
fn own_file(root: &Root, step: &MountStep, text: &[u8], files: &mut Option<OwnedFd>) -> Result<()> {
    let doing = || format!("mount {}", step.destination.display());
    let folder: &OwnedFd = match files {
        Some(made) => made,
        None => {
            let options = [(c"mode", c"755"), (c"size", c"1m"), (c"nr_inodes", c"16")];
            let made = mounts::tmpfs(&options, MountAttrFlags::empty()).doing(doing)?;
            // Before Linux 6.15 only what is attached can be copied. Not over /proc, which lookups may need.
            rootfs::move_to(made.as_fd(), c"/sys").doing(doing)?;
            files.insert(made)
        }
    };
    mounts::file(root, step, text, folder.as_fd())
}

fn name_it(plan: &Plan) -> Result<()> {
    if let Some(name) = &plan.hostname {
        trace::stage("give it a name", "The UTS namespace is the container's, so the host keeps its own name.");
        ns::sethostname(name).doing(|| "set the host name".to_owned())?;
    }
    if let Some(name) = &plan.domainname {
        ns::setdomainname(name).doing(|| "set the domain name".to_owned())?;
    }
    Ok(())
}

fn set_sysctls(plan: &Plan, proc: BorrowedFd<'_>) -> Result<()> {
    for sysctl in &plan.sysctl {
        let path = [b"sys/", sysctl.name.to_bytes()].concat();
        let path = CString::new(path).map_err(|error| Error::invalid("set a sysctl", error))?;
        fs::write_file(proc, &path, sysctl.value.as_bytes())
            .doing(|| format!("set the sysctl {}", sysctl.name.to_string_lossy()))?;
    }
    Ok(())
}
