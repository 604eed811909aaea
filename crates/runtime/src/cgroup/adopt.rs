//! Groups that systemd makes: a unit, started around a process that is there already.

use hull_sys::fs::{self, CWD};
use hull_sys::{Errno, trace};

use super::apply::undone;
use super::group::{Group, c_path, inherit_cpuset, is_v1_cpuset, make_parents};
use super::host::{Hierarchy, Host, Version};
use super::limits::Write;
use super::live::Cgroup;
use super::pending::{Pending, Unmade};
use super::systemd::Systemd;
use super::unit::{self, Unit};
use crate::error::{Error, Result};

impl Cgroup {
    /// Whether the groups come to be only around the process, which has to wait for that.
    pub fn wants_process(&self) -> bool {
        matches!(self.pending, Some(Pending::Unit(_)))
    }

    /// Lets systemd make the groups with process `pid` in them, and sets what it has no words for.
    ///
    /// # Errors
    /// systemd refuses; a limit cannot be set.
    pub(crate) fn adopt(&mut self, pid: i32) -> Result<()> {
        let Some(Pending::Unit(unmade)) = &self.pending else { return Ok(()) };
        trace::stage(
            "let systemd make the groups",
            "systemd keeps this machine's tree of control groups. It is told the process and its limits, and makes a unit of \
             it, whose group and all below is the container's.",
        );
        let mut properties = unmade.unit.properties(pid);
        properties.extend(unmade.more.iter().cloned());
        properties.extend(unit::limits(&unmade.writes, version(&unmade.host)));
        // One that systemd refuses may be another container's, and this has none then.
        Systemd::connect(&unmade.unit)?.start(&properties)?;
        let Some(Pending::Unit(Unmade { host, unit, writes, owner, .. })) = self.pending.take() else {
            return Ok(());
        };
        for hierarchy in &host.hierarchies {
            self.groups.push(enter(hierarchy, &unit, pid)?);
        }
        self.set_all(&host, &writes)?;
        self.guard_devices(&writes)?;
        owner.map_or(Ok(()), |owner| self.give_to(owner))
    }

    /// Changes the limits, as [`Cgroup::update`] does, and tells systemd what it has words for.
    ///
    /// # Errors
    /// A file or systemd refuses; nothing is changed then.
    pub fn update_unit(&self, host: &Host, unit: &Unit, writes: &[Write]) -> Result<()> {
        // The files first, for they can be taken back, and again, for systemd writes them as well, and rounds.
        let changed = self.change(host, writes)?;
        let mut properties = unit::limits(&without_devices(writes), version(host));
        // Which can be told when the unit starts, and never again.
        properties.retain(|(name, _)| name != "OOMPolicy");
        match Systemd::connect(unit).and_then(|mut systemd| systemd.set(&properties)) {
            Ok(()) => self.update(host, writes),
            Err(error) => Err(undone(changed, error)),
        }
    }
}

/// Ends a unit in which nothing runs any more; one that is not there has ended.
///
/// # Errors
/// systemd cannot be reached, or does not end it.
pub fn stop_unit(unit: &Unit) -> Result<()> {
    Systemd::connect(unit)?.stop()
}

fn without_devices(writes: &[Write]) -> Vec<Write> {
    writes.iter().filter(|write| write.controller != "devices").cloned().collect()
}

/// The version whose files the limits are in.
fn version(host: &Host) -> Version {
    if host.unified() { Version::V2 } else { Version::V1 }
}

/// The unit's group in one hierarchy, with the process in it. systemd has made those that it uses itself; the others of v1
/// are made here.
fn enter(hierarchy: &Hierarchy, unit: &Unit, pid: i32) -> Result<Group> {
    let path = hierarchy.mount.join(&unit.group);
    let doing = || format!("use the control group {} of {}", path.display(), unit.name);
    if hierarchy.version == Version::V1 {
        make_parents(hierarchy, &path)?;
        match fs::mkdirat(CWD, &c_path(&path), 0o755) {
            Ok(()) if is_v1_cpuset(hierarchy) => inherit_cpuset(&path)?,
            Err(error) if error.errno() != Errno::EXIST => return Err(Error::setup(doing(), error)),
            _ => {}
        }
    }
    let group = Group::at(hierarchy, path, false);
    if !group.get("cgroup.procs")?.lines().any(|line| line.parse() == Ok(pid)) {
        group.set("cgroup.procs", &pid.to_string())?;
    }
    Ok(group)
}
