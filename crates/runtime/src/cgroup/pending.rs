//! What is known of groups before they are there.

use std::path::PathBuf;

use super::host::{Hierarchy, Host};
use super::limits::Write;
use super::place::Place;
use super::unit::{Property, Unit};

/// Groups that come to be once the process is there.
#[derive(Debug)]
pub(super) enum Pending {
    /// Around it, by systemd.
    Unit(Unmade),
    /// Beside it, by its parent: those of v1, which it joins by itself.
    V1(Rest),
}

/// A unit of systemd's.
#[derive(Debug)]
pub(super) struct Unmade {
    pub(super) host: Host,
    pub(super) unit: Unit,
    pub(super) more: Vec<Property>,
    pub(super) writes: Vec<Write>,
    /// Whose the group becomes.
    pub(super) owner: Option<u32>,
}

/// The groups in some hierarchies, with the limits that are set in these.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) host: Host,
    pub(super) place: Place,
    pub(super) writes: Vec<Write>,
    pub(super) hierarchies: Vec<Hierarchy>,
}

impl Pending {
    /// Where they will be.
    pub(super) fn folders(&self) -> Vec<(&Hierarchy, PathBuf)> {
        match self {
            Self::Unit(Unmade { host, unit, .. }) => {
                host.hierarchies.iter().map(|hierarchy| (hierarchy, hierarchy.mount.join(&unit.group))).collect()
            }
            Self::V1(Rest { place, hierarchies, .. }) => {
                hierarchies.iter().map(|hierarchy| (hierarchy, place.folder(hierarchy))).collect()
            }
        }
    }
}
