//! The child's half of a creation: from the clone to the command's exec, in the order in which it happens.
//!
//! The process is alone (no threads), in its new namespaces, and holds what its parent opened for it. Everything it
//! does was computed before; here are only the calls, and the reasons for their order.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use hull_sys::fs::{self, CWD};
use hull_sys::mount::{self, MountAttr, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags};
use hull_sys::ns::{self, Namespaces};
use hull_sys::path::Root;
use hull_sys::sync::Line;
use hull_sys::{Errno, cred, net, process, sched, seccomp, signal, trace, tty};

use crate::create::{Inputs, Start, Stdio};
use crate::devices;
use crate::diagnose;
use crate::error::{Doing, Error, Result};
use crate::hooks;
use crate::join::{self, Joins};
use crate::lsm;
use crate::mounts::{self, Sources};
use crate::plan::{MountStep, Plan, Running, What};
use crate::start;

/// What runc gives a process whose specification says nothing.
const DEFAULT_UMASK: u32 = 0o022;

/// Runs the child's half. Never returns: the command's exec replaces it, or it tells its parent why not and ends.
pub(crate) fn main(plan: &Plan, inputs: Inputs<'_>, sources: Sources, joins: Joins, mut line: Line) -> ! {
    let Err(error) = story(plan, inputs, sources, joins, &mut line) else { process::exit_now(0) };
    // If the parent is gone there is nobody to tell.
    let _ = line.send(&error.to_message(), None);
    process::exit_now(1)
}

/// `Ok` only when the parent has gone away.
fn story(plan: &Plan, inputs: Inputs<'_>, sources: Sources, joins: Joins, line: &mut Line) -> Result<()> {
    trace::stage(
        "join the groups",
        "The limits are in force before the process does anything else. It moves itself, which no other process has to \
         wait for; the cgroup namespace is made here because it is rooted where its maker is.",
    );
    // At once, for the parent may die at any moment; what it leaves is cleared when nobody holds it any more.
    if plan.die_with_parent {
        tie_to_parent(line)?;
    }
    // One that came through another process was not born in its v2 group.
    inputs.cgroup.join(!joins.through)?;
    if plan.namespaces.new.contains(Namespaces::CGROUP) {
        ns::unshare(Namespaces::CGROUP).doing(|| "root the cgroup view at the container's group".to_owned())?;
    }
    // All that follows happens in them.
    join::enter(plan, &joins)?;
    drop(joins);
    if join::waits_for_parent(plan) {
        wait_for_parent(line)?;
    }
    if plan.namespaces.has(Namespaces::USER) {
        join::become_root_inside()?;
    }
    trace::stage(
        "stand alone",
        "Nobody may look into the process before it is the command, no terminal but its own can signal it, and a new \
         network has one interface, which is down.",
    );
    // Not dumpable: nobody in a namespace that we may share can look into this process before it is the command.
    cred::set_dumpable(false).doing(|| "hide the process".to_owned())?;
    process::setsid().doing(|| "start a session".to_owned())?;
    // Nodes and folders made below get exactly the modes that are written there.
    process::umask(0);
    if plan.namespaces.new.contains(Namespaces::NETWORK) {
        net::loopback_up().doing(|| "bring the loopback interface up".to_owned())?;
    }

    let root = enter_root_mount(inputs.root)?;
    let proc = match plan.sysctl.is_empty() && plan.apparmor.is_none() {
        true => None,
        false => Some(private_proc()?),
    };
    let view = inputs.cgroup.view();
    let mut files = None;

    trace::stage(
        "build the container's tree",
        "Each mount is made detached and moved onto a handle inside the new root, so no link of the image can lead \
         a mount elsewhere.",
    );
    for (step, source) in plan.mounts.iter().zip(&sources) {
        match step.what {
            What::Cgroup => cgroup_mount(&root, step, view.as_deref())?,
            What::File { ref text } => own_file(&root, step, text, &mut files)?,
            _ => drop(mounts::perform(&root, step, source.as_ref())?),
        }
    }
    drop(sources);
    // After all mounts, for a node may belong on one of them.
    devices::make(&root, plan)?;
    let stdio = match inputs.stdio {
        Stdio::Given(given) => given,
        Stdio::Terminal => open_terminal(&root, line)?,
    };
    trace::stage(
        "hide and freeze",
        "Files of /proc that leak or change the host are covered by the container's own /dev/null or made read-only.",
    );
    mounts::make_read_only(&root, plan)?;
    mounts::mask(&root, plan)?;
    // A working directory that does not exist is made, as runc and Docker do; inside the root, whatever leads there.
    mounts::target(&root, &plan.cwd, true).doing(|| format!("make the working directory {}", plan.cwd.display()))?;
    if !plan.hooks.create_runtime.is_empty() {
        line.send(b"hooks", None).doing(|| "report to the parent".to_owned())?;
        wait_for_parent(line)?;
    }
    hooks::run(&plan.hooks.create_container, &inputs.about, "creating", process::getpid())?;
    enter_root(&root, plan)?;
    name_it(plan)?;
    if let Some(proc) = &proc {
        set_sysctls(plan, proc.as_fd())?;
    }

    trace::stage(
        "become the user",
        "Limits while still privileged; then groups, ids and capabilities, in this order, because each step needs \
         the rights that the next one gives up.",
    );
    set_limits(plan)?;
    schedule(&plan.running)?;
    give_stdio(plan, &stdio)?;
    become_user(plan)?;
    // Again after the change of ids, which clears it.
    if plan.die_with_parent {
        tie_to_parent(line)?;
    }
    enter_cwd(plan)?;
    for (number, file) in stdio.iter().enumerate() {
        process::set_stdio(file.as_fd(), number as i32).doing(|| "hand over the standard streams".to_owned())?;
    }
    if plan.terminal {
        tty::make_controlling(stdio[0].as_fd()).doing(|| "take the terminal".to_owned())?;
    }

    match inputs.start {
        Start::AtOnce => {}
        Start::WhenTold => {
            line.send(b"ready", None).doing(|| "report to the parent".to_owned())?;
            let (message, _) = line.receive().doing(|| "wait for the start".to_owned())?;
            if message != b"start" {
                return Ok(());
            }
        }
        Start::WhenConnected(listener) => {
            line.send(b"ready", None).doing(|| "report to the parent".to_owned())?;
            *line = start::wait(listener)?;
        }
    }
    hooks::run(&plan.hooks.start_container, &inputs.about, "created", process::getpid())?;
    execute(plan, proc.as_ref())
}

/// From here on the kernel kills us when the parent dies. If it has died before, so do we now.
fn tie_to_parent(line: &Line) -> Result<()> {
    cred::die_with_parent().doing(|| "tie the container to its parent".to_owned())?;
    if line.is_closed().doing(|| "look for the parent".to_owned())? {
        process::exit_now(0);
    }
    Ok(())
}

/// Whatever it does for us is done when it says so. If it is gone, so are we.
fn wait_for_parent(line: &Line) -> Result<()> {
    let (message, _) = line.receive().doing(|| "wait for the parent".to_owned())?;
    if message != b"go" {
        process::exit_now(0);
    }
    Ok(())
}

/// Attaches the root's detached mount in this mount namespace, where nobody outside can see it.
fn enter_root_mount(root: OwnedFd) -> Result<Root> {
    trace::stage(
        "cut the tree off from the host",
        "Recursively private, before anything is attached: no mount made here may show up outside, nor one made \
         outside in here.",
    );
    mount::set_propagation(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .doing(|| "make the mount tree private".to_owned())?;
    // On top of "/": a path that always exists. Lookups still start at the old root below it, until the pivot.
    mount::move_mount(root.as_fd(), c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .doing(|| "attach the root file system".to_owned())?;
    Ok(Root::from_fd(root))
}

/// A procfs of our PID namespace that no path of the container leads to: what is written through it cannot be led
/// elsewhere by mounts of the image (CVE-2019-16884, CVE-2025-52881).
fn private_proc() -> Result<OwnedFd> {
    let doing = || "make a private procfs".to_owned();
    let proc = mount::new_filesystem(c"proc", None, &[], MountAttrFlags::empty()).doing(doing)?;
    out_of_sight(proc.as_fd(), c"/proc").doing(doing)?;
    Ok(proc)
}

/// Lays a mount over a folder of the host's, in this namespace, so that it goes with the old root: the kernel waits for a
/// grace period whenever mounts are taken away, and a detached one that is closed would be a second time.
fn out_of_sight(mount: BorrowedFd<'_>, over: &CStr) -> hull_sys::Result<()> {
    mount::move_mount(mount, c"", CWD, over, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
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
            out_of_sight(made.as_fd(), c"/sys").doing(doing)?;
            files.insert(made)
        }
    };
    mounts::file(root, step, text, folder.as_fd())
}

/// v2: the unified view. v1: a tmpfs with one mount for each hierarchy that the container is in.
fn cgroup_mount(root: &Root, step: &MountStep, view: Option<&[Vec<String>]>) -> Result<()> {
    let filesystem = |kind: &CStr| What::Filesystem { kind: kind.to_owned(), source: Some(c"cgroup".to_owned()) };
    let Some(hierarchies) = view else {
        let step = MountStep { what: filesystem(c"cgroup2"), ..step.clone() };
        return mounts::perform(root, &step, None).map(drop);
    };
    let doing = || format!("mount {}", step.destination.display());
    let mut base = MountStep { what: filesystem(c"tmpfs"), ..step.clone() };
    base.options.set &= !u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    base.options.data = vec![(c"mode".to_owned(), Some(c"755".to_owned()))];
    let tmpfs = mounts::perform(root, &base, None)?;
    for controllers in hierarchies {
        let name = controllers.join(",");
        let mut one = MountStep { what: filesystem(c"cgroup"), ..step.clone() };
        one.destination = step.destination.join(name.trim_start_matches("name="));
        one.options.data =
            controllers.iter().map(|controller| v1_option(controller)).collect::<Result<Vec<_>>>()?.concat();
        mounts::perform(root, &one, None)?;
        for controller in controllers.iter().filter(|_| controllers.len() > 1) {
            // Programs look for each controller by its own name.
            let (link, target) = (v1_name(controller)?, v1_name(&name)?);
            fs::symlinkat(&target, tmpfs.as_fd(), &link).doing(doing)?;
        }
    }
    if step.options.set & u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()) != 0 {
        let attr = MountAttr { set: step.options.set, ..MountAttr::default() };
        mount::mount_setattr(tmpfs.as_fd(), c"", false, attr).doing(doing)?;
    }
    Ok(())
}

fn v1_name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|error| Error::invalid("mount control groups", error))
}

fn v1_option(controller: &str) -> Result<Vec<(CString, Option<CString>)>> {
    Ok(match controller.strip_prefix("name=") {
        Some(name) => vec![(c"none".to_owned(), None), (c"name".to_owned(), Some(v1_name(name)?))],
        None => vec![(v1_name(controller)?, None)],
    })
}

/// A pair of the container's own devpts; the other end goes to the parent, ours is the command's and /dev/console.
fn open_terminal(root: &Root, line: &Line) -> Result<[OwnedFd; 3]> {
    let doing = || "open the container's terminal".to_owned();
    let pts = root.open_read(Path::new("/dev/pts")).doing(doing)?;
    let ptmx = tty::open_ptmx(pts.as_fd(), c"ptmx").doing(doing)?;
    tty::unlock(ptmx.as_fd()).doing(doing)?;
    // By ioctl on the multiplexer: no name in /dev/pts, which the image may have replaced, is looked up
    // (CVE-2025-52565).
    let peer = tty::peer(ptmx.as_fd()).doing(doing)?;
    let flags = mount::OpenTreeFlags::OPEN_TREE_CLONE | mount::OpenTreeFlags::AT_EMPTY_PATH;
    let console = mount::open_tree(peer.as_fd(), c"", flags).doing(doing)?;
    let target = root.resolve_nofollow(Path::new("/dev/console")).doing(doing)?;
    mount::attach(console.as_fd(), target.as_fd()).doing(doing)?;
    line.send(b"terminal", Some(ptmx.as_fd())).doing(doing)?;
    let copy = || peer.try_clone().map_err(|error| Error::setup(doing(), error));
    Ok([copy()?, copy()?, copy()?])
}

/// The new root becomes `/`, and the host's tree is gone from this namespace.
fn enter_root(root: &Root, plan: &Plan) -> Result<()> {
    trace::stage(
        "change the root",
        "pivot_root exchanges the root mount itself and the old one is then detached; chroot would only move where \
         lookups begin, and a privileged process can walk back out of that.",
    );
    let doing = || "change the root".to_owned();
    process::fchdir(root.as_fd()).doing(doing)?;
    // Both names are ".": the old root ends up stacked on the new one and is detached from there.
    mount::pivot_root(c".", c".").doing(doing)?;
    mount::umount2(c".", UnmountFlags::DETACH).doing(doing)?;
    process::chdir(c"/").doing(doing)?;
    if let Some((propagation, recursive)) = plan.root_propagation {
        // After the pivot, which does not move a shared mount.
        let attr = MountAttr { propagation, ..MountAttr::default() };
        mount::mount_setattr(CWD, c"/", recursive, attr).doing(|| "set the propagation of the root".to_owned())?;
    }
    if plan.read_only_root {
        let attr = MountAttr { set: u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()), ..MountAttr::default() };
        mount::mount_setattr(CWD, c"/", false, attr).doing(|| "make the root read-only".to_owned())?;
    }
    Ok(())
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

fn set_limits(plan: &Plan) -> Result<()> {
    for (resource, soft, hard) in &plan.rlimits {
        process::setrlimit(*resource, *soft, *hard).doing(|| format!("set the limit {resource:?}"))?;
    }
    process::umask(plan.umask.unwrap_or(DEFAULT_UMASK));
    Ok(())
}

/// How the kernel runs the process. While still privileged; the command inherits all of it.
fn schedule(running: &Running) -> Result<()> {
    if let Some(attr) = running.scheduler {
        sched::set_scheduler(attr).doing(|| "set the scheduler".to_owned())?;
    }
    if let Some((class, level)) = running.io_priority {
        sched::set_io_priority(class, level).doing(|| "set the input and output priority".to_owned())?;
    }
    if let Some((mode, nodes)) = &running.memory_policy {
        sched::set_memory_policy(*mode, nodes).doing(|| "set the memory policy".to_owned())?;
    }
    match running.personality {
        Some(persona) => sched::set_personality(persona).doing(|| "set the personality".to_owned()),
        None => Ok(()),
    }
}

/// Another user than root may open /dev/stdout again only if it is its own. Pipes and the container's own terminal are
/// given away, not files and terminals of the caller's.
fn give_stdio(plan: &Plan, stdio: &[OwnedFd; 3]) -> Result<()> {
    if plan.uid == 0 {
        return Ok(());
    }
    for file in stdio {
        let doing = || "give the standard streams to the user".to_owned();
        let stat = fs::fstat(file.as_fd()).doing(doing)?;
        let pipe = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo;
        if stat.st_uid == plan.uid || !(pipe || plan.terminal) {
            continue;
        }
        match fs::chown_handle(file.as_fd(), plan.uid, stat.st_gid) {
            // A pipe from outside of the user namespace belongs to nobody inside; runc and crun let that be.
            Err(error) if matches!(error.errno(), Errno::PERM | Errno::INVAL | Errno::ROFS) => {}
            other => other.doing(doing)?,
        }
    }
    Ok(())
}

fn become_user(plan: &Plan) -> Result<()> {
    let doing = || "become the user".to_owned();
    for capability in (0..64).filter(|capability| plan.caps.bounding >> capability & 1 == 0) {
        match cred::drop_bounding(capability) {
            // The first number that the kernel does not know ends the list.
            Err(error) if error.errno() == Errno::INVAL => break,
            // Without the right to drop any it is enough that it is not there.
            Err(error) if error.errno() == Errno::PERM && matches!(cred::has_bounding(capability), Ok(false)) => {}
            other => other.doing(|| "limit the capabilities".to_owned())?,
        }
    }
    // The permitted set must outlive the change of ids: it still loads the filter and sets the final sets below.
    cred::keep_capabilities(true).doing(doing)?;
    cred::setgroups(&plan.groups).doing(|| "set the groups".to_owned())?;
    cred::setresgid(plan.gid).doing(doing)?;
    cred::setresuid(plan.uid).doing(doing)?;
    cred::keep_capabilities(false).doing(doing)?;
    if plan.uid != 0 {
        let (_, permitted, _) = cred::capget().doing(doing)?;
        cred::capset(permitted, permitted, 0).doing(doing)?;
    }
    Ok(())
}

/// Into the working directory, and a look whether it is inside the root: an inherited folder is not (CVE-2024-21626).
fn enter_cwd(plan: &Plan) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let doing = || format!("change to the working directory {}", plan.cwd.display());
    let path = CString::new(plan.cwd.as_os_str().as_bytes()).map_err(|error| Error::invalid(doing(), error))?;
    process::chdir(&path).doing(doing)?;
    let actual = process::getcwd().doing(doing)?;
    if !actual.to_bytes().starts_with(b"/") {
        return Err(Error::invalid(doing(), "it is outside the container's root"));
    }
    Ok(())
}

/// The last steps, with as little between them as possible, and then the command.
fn execute(plan: &Plan, proc: Option<&OwnedFd>) -> Result<()> {
    let filter = |when: &'static str| -> Result<()> {
        let Some(program) = &plan.seccomp else { return Ok(()) };
        trace::stage("filter the system calls", when);
        seccomp::set_filter(&program.filter, program.flags).map(drop).doing(|| "load the seccomp filter".to_owned())
    };
    // Nothing that hull holds reaches the command: all but the three streams close at exec.
    process::close_on_exec_from(3).doing(|| "close descriptors".to_owned())?;
    signal::default_actions();
    signal::unblock_all().doing(|| "unblock signals".to_owned())?;
    let candidates = diagnose::candidates(plan);
    if let (Some(profile), Some(proc)) = (&plan.apparmor, proc) {
        lsm::label_exec(proc.as_fd(), profile)?;
    }
    if plan.no_new_privs {
        cred::no_new_privs().doing(|| "set no_new_privs".to_owned())?;
        limit_capabilities(plan)?;
        filter("With no_new_privs the filter needs no privilege, so it comes last.")?;
    } else {
        // Without no_new_privs only CAP_SYS_ADMIN may load a filter, so it comes before the capabilities go.
        filter("Loaded while CAP_SYS_ADMIN is still there; the filter itself allows what comes now.")?;
        limit_capabilities(plan)?;
    }
    trace::stage("execute the command", "From here on the process is the command: same process id, other program.");
    Err(diagnose::execute(plan, &candidates))
}

fn limit_capabilities(plan: &Plan) -> Result<()> {
    let doing = || "set the capabilities".to_owned();
    cred::clear_ambient().doing(doing)?;
    cred::capset(plan.caps.effective, plan.caps.permitted, plan.caps.inheritable).doing(doing)?;
    for capability in (0..64).filter(|capability| plan.caps.ambient >> capability & 1 == 1) {
        cred::raise_ambient(capability).doing(doing)?;
    }
    Ok(())
}
