//! The control groups of a bundle's container: where, and with which limits; none where somebody who is not root may not
//! make any and needs none.

use std::path::{Path, PathBuf};

use hull_runtime::cgroup::{self, Cgroup, Host, Place, Unit, Write};
use oci_spec::runtime::{LinuxResources, Spec};

use super::Call;
use super::caller::Caller;
use crate::report::Report;

/// What is to be made.
pub struct Groups {
    /// What `update` changes later.
    pub resources: LinuxResources,
    writes: Vec<Write>,
    /// None without any.
    place: Option<Place>,
}

impl Groups {
    /// Those of the container `id` with this specification.
    pub(super) fn of(call: &Call<'_>, host: &Host, spec: &Spec, id: &str) -> Result<Self, Report> {
        let linux = spec.linux().as_ref();
        let mut resources = linux.and_then(|linux| linux.resources().clone()).unwrap_or_default();
        if call.caller.is_user() {
            let without = resources.devices().is_some();
            resources.set_devices(None);
            // It takes rights on the machine, as making a node does: what there is in the container was lent to it.
            call.log.warn(without.then_some("linux.resources.devices has no effect without root"));
        }
        let given = linux.and_then(|linux| linux.cgroups_path().clone()).filter(|path| path != Path::new(""));
        let limits = cgroup::plan(host, &resources)?;
        let place = match call.systemd {
            true => of_systemd(call, spec, given.as_deref(), id)?,
            false => Place::from_spec(&given.clone().unwrap_or_else(|| PathBuf::from(id)))?,
        };
        let needed = call.systemd || !call.caller.is_user() || given.is_some() || !limits.is_empty();
        // Nothing is asked for that would not be in force.
        if !needed && !place.is_open(host) {
            return Ok(Self { resources, writes: Vec::new(), place: None });
        }
        let writes = match call.caller.is_user() {
            true => limits,
            false => {
                let mut all = resources.clone();
                all.set_devices(Some(cgroup::device_rules(resources.devices().as_deref().unwrap_or_default())));
                cgroup::plan(host, &all)?
            }
        };
        Ok(Self { resources, writes, place: Some(place) })
    }

    /// The unit that they are, if systemd makes them.
    pub fn unit(&self) -> Option<&Unit> {
        self.place.as_ref().and_then(Place::unit)
    }

    /// Where they will be.
    pub fn folders(&self, host: &Host) -> Vec<PathBuf> {
        self.place.as_ref().map(|place| cgroup::folders(host, place, &self.writes)).unwrap_or_default()
    }

    /// Makes them, but for those that a process joins only when it is there.
    pub fn begin(&self, host: &Host) -> Result<Cgroup, Report> {
        match &self.place {
            Some(place) => Ok(Cgroup::begin(host, place, &self.writes)?),
            None => Ok(Cgroup::none(host)),
        }
    }
}

/// The unit, of the machine's systemd or of the user's own.
fn of_systemd(call: &Call<'_>, spec: &Spec, path: Option<&Path>, id: &str) -> Result<Place, Report> {
    let user = match call.caller {
        Caller::Root => None,
        Caller::User(user) => Some(user),
    };
    let unit = Unit::from_spec(path, id, user)?;
    cgroup::check_systemd(&unit)?;
    let annotations = spec.annotations().as_ref();
    Ok(Place::Unit(unit, annotations.map_or(Ok(Vec::new()), cgroup::annotated)?))
}
