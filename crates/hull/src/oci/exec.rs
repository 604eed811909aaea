//! `exec`: a further command in a container that is there.

use std::ffi::CString;
use std::fs;

use hull_engine::{Relay, RunOptions, Streams};
use hull_runtime::cgroup::enter::{self, Below};
use hull_runtime::cgroup::{Cgroup, Host};
use hull_runtime::exec::{self, Inputs};
use hull_runtime::plan;
use hull_runtime::state::{self, Status};
use hull_runtime::{Created, spec};
use oci_spec::runtime::{Capabilities, Capability, LinuxNamespace, LinuxNamespaceType, Process};
use std::os::fd::AsFd;

use super::create::{check_process, restrict};
use super::inherited::Inherited;
use super::log::Log;
use super::{Call, ExecArgs, handover, manage};
use crate::report::Report;

/// runc's exit status of an exec that failed before there was a command.
pub const FAILED: i32 = 255;

/// `exec`: gives the command's exit status, or 0 if nobody waits for it.
pub(super) fn exec(call: &Call<'_>, args: &ExecArgs) -> Result<i32, Report> {
    let inherited = Inherited::take(args.handover.preserve_fds, false)?;
    let refuse = |cause: &str| Err(Report::usage(cause, None));
    let (id, command) = args.words.split_first().ok_or_else(|| Report::usage("no container was named", None))?;
    let (folder, state, status) = manage::find(call.root, id)?;
    match status {
        Status::Running | Status::Created => {}
        Status::Paused if args.ignore_paused => {}
        Status::Paused => return refuse("cannot exec in a paused container (use --ignore-paused to override)"),
        Status::Creating => return refuse("cannot exec in a container that is being created"),
        Status::Stopped => return refuse("cannot exec in a stopped container"),
    }
    if args.process.is_none() && command.is_empty() {
        return refuse("process args cannot be empty");
    }
    if folder.shares_mounts() {
        let cause = "it shares its mount namespace with others, whose root a further command would get";
        return Err(Report::host(format!("execute a command in container {id}"), cause));
    }
    let container = folder.spec()?;
    let own = plan::process_of(&container)?;
    let process = process(args, command, &own, call.log)?;
    check_process(&process)?;
    let linux = plan::linux_of(&container)?;
    let mut plan = plan::Process::from_spec(&process, &linux)?;
    inherited.give(&mut plan);
    let users = |namespace: &LinuxNamespace| namespace.typ() == LinuxNamespaceType::User;
    call.log.warn(restrict(&mut plan, linux.namespaces().iter().flatten().any(users))?);
    args.handover.check_terminal(plan.terminal, args.detach)?;

    let host = Host::detect()?;
    let below = Below::parse(&args.cgroup)?;
    let groups = enter::groups(&host, &state.groups, &below, state.process.pid)?;
    let cgroup = Cgroup::enter(&host, &groups)?;
    // The last look whether it is the process that was meant; after it the descriptor stands for it.
    let Some(init) = state::init(&state)? else { return refuse("cannot exec in a stopped container") };
    let about = state.about();
    let keyring =
        state.keyring.map(CString::new).transpose().map_err(|error| Report::host("read the state", error))?;
    call.caller.join(init.as_fd(), &mut plan)?;
    let (init, pid, keyring) = (init.as_fd(), state.process.pid, keyring.as_deref());
    let begin = |stdio| {
        exec::exec(&plan, Inputs { init, pid, cgroup: &cgroup, stdio, keyring, about: about.clone(), status })
    };

    if args.detach {
        let mut created = begin(handover::given(plan.terminal)?)?;
        bring_to_life(&mut created, args, &process, |_| Ok(()))?;
        return Ok(0);
    }
    let mut relay = Relay::prepare(&RunOptions { tty: plan.terminal, interactive: true, ..RunOptions::default() })?;
    let mut created = begin(relay.stdio()?)?;
    bring_to_life(&mut created, args, &process, |created| Ok(relay.connect(created)?))?;
    Ok(relay.until_end(&created)?.code())
}

/// Hands over what the caller waits for, and lets the command run.
fn bring_to_life(
    created: &mut Created,
    args: &ExecArgs,
    process: &Process,
    connect: impl FnOnce(&mut Created) -> Result<(), Report>,
) -> Result<(), Report> {
    let all = || {
        args.handover.give_terminal(created, process)?;
        connect(created)?;
        created.start()?;
        args.handover.tell(created)
    };
    let result = all();
    if result.is_err() {
        created.abandon();
    }
    result
}

/// What is to run: the file's process, or the container's own with what the flags change; either way the container's where
/// nothing is said.
fn process(args: &ExecArgs, command: &[String], container: &Process, log: &Log) -> Result<Process, Report> {
    let Some(file) = &args.process else { return changed(container.clone(), args, command) };
    let doing = || format!("read {}", file.display());
    let text = fs::read(file).map_err(|error| Report::host(doing(), error))?;
    let (mut process, remarks) = spec::read_process(&text)?;
    log.warn(remarks);
    if process.capabilities().is_none() {
        process.set_capabilities(container.capabilities().clone());
    }
    if process.apparmor_profile().as_ref().is_none_or(String::is_empty) {
        process.set_apparmor_profile(container.apparmor_profile().clone());
    }
    if process.selinux_label().as_ref().is_none_or(String::is_empty) {
        process.set_selinux_label(container.selinux_label().clone());
    }
    if process.rlimits().as_ref().is_none_or(Vec::is_empty) {
        process.set_rlimits(container.rlimits().clone());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(container.scheduler().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*container.io_priority());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(container.exec_cpu_affinity().clone());
    }
    if process.user().umask().is_none() {
        process.user_mut().set_umask(container.user().umask());
    }
    let adjustment = process.oom_score_adj().or(container.oom_score_adj());
    process.set_oom_score_adj(adjustment);
    Ok(process)
}

/// The container's process with what the flags say.
fn changed(mut process: Process, args: &ExecArgs, command: &[String]) -> Result<Process, Report> {
    process.set_args(Some(command.to_vec()));
    process.set_terminal(Some(args.tty));
    if let Some(cwd) = args.cwd.as_ref().filter(|cwd| !cwd.as_os_str().is_empty()) {
        process.set_cwd(cwd.clone());
    }
    if let Some(profile) = args.apparmor.as_ref().filter(|profile| !profile.is_empty()) {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = args.process_label.as_ref().filter(|label| !label.is_empty()) {
        process.set_selinux_label(Some(label.clone()));
    }
    if args.no_new_privs.is_some() {
        process.set_no_new_privileges(args.no_new_privs);
    }
    let env = [process.env().clone().unwrap_or_default(), args.env.clone()].concat();
    process.set_env(Some(env));
    if let Some(user) = args.user.as_ref().filter(|user| !user.is_empty()) {
        let (uid, gid) = user.split_once(':').map_or((&**user, None), |(uid, gid)| (uid, Some(gid)));
        process.user_mut().set_uid(number(uid, "uid")?);
        if let Some(gid) = gid {
            process.user_mut().set_gid(number(gid, "gid")?);
        }
    }
    let mut gids = process.user().additional_gids().clone().unwrap_or_default();
    for gid in &args.additional_gids {
        let gid = u32::try_from(*gid).ok().filter(|gid| *gid != u32::MAX);
        gids.push(gid.ok_or_else(|| Report::usage("additional-gids must be a positive number", None))?);
    }
    process.user_mut().set_additional_gids(Some(gids));
    add_capabilities(&mut process, &args.cap)?;
    Ok(process)
}

/// A number of digits only: no sign, and never a name (CVE-2026-30892).
fn number(text: &str, what: &str) -> Result<u32, Report> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|id| digits && *id != u32::MAX);
    number.ok_or_else(|| Report::usage(format!("parsing {text} as int for {what} failed"), None))
}

/// Adds to the sets as runc does: to the ambient one what is inheritable, without which none can be ambient.
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<(), Report> {
    if names.is_empty() {
        return Ok(());
    }
    let mut added = Vec::new();
    for name in names {
        let capability: Result<Capability, _> = serde_json::from_value(name.as_str().into());
        added.push(capability.map_err(|_| Report::usage(format!("unknown capability {name:?}"), None))?);
    }
    let Some(mut sets) = process.capabilities().clone() else {
        return Err(Report::usage("the container says nothing of capabilities, so there is none to add to", None));
    };
    let with = |set: &Option<Capabilities>, added: &[Capability]| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(added.iter().copied());
        Some(set)
    };
    sets.set_bounding(with(sets.bounding(), &added));
    sets.set_effective(with(sets.effective(), &added));
    sets.set_permitted(with(sets.permitted(), &added));
    added.retain(|capability| sets.inheritable().as_ref().is_some_and(|set| set.contains(capability)));
    sets.set_ambient(with(sets.ambient(), &added));
    process.set_capabilities(Some(sets));
    Ok(())
}
