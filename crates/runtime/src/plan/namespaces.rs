//! Which namespaces are new, which are joined, and who is who in a user namespace. Pure.
//!
//! Source: runtime-spec, config-linux.md "Namespaces", "User namespace mappings", "Offset for Time Namespace".

use std::fmt;
use std::path::PathBuf;

use hull_sys::ns::Namespaces;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Spec};

use super::given;
use crate::error::{Error, Result};

const DOING: &str = "create the container";

/// The container's namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// Those that are new.
    pub new: Namespaces,
    /// Those that exist already, in the order of the specification.
    pub joined: Vec<Join>,
    /// Ids of users, as `/proc/PID/uid_map` takes them; empty without a new user namespace.
    pub uids: IdMap,
    /// Ids of groups.
    pub gids: IdMap,
    /// What `/proc/PID/timens_offsets` takes; empty to leave the clocks.
    pub clocks: String,
}

/// A namespace that is joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Its kind.
    pub kind: Namespaces,
    /// A file of nsfs on the host.
    pub path: PathBuf,
}

/// Ranges of ids: first inside, first outside, how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap(pub Vec<(u32, u32, u32)>);

impl IdMap {
    pub(super) fn from_spec(mappings: Option<&Vec<LinuxIdMapping>>) -> Self {
        let range = |mapping: &LinuxIdMapping| (mapping.container_id(), mapping.host_id(), mapping.size());
        Self(mappings.into_iter().flatten().map(range).collect())
    }

    /// Whether there are no ranges.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `id` of the inside is in a range.
    pub fn has(&self, id: u32) -> bool {
        self.outside(id).is_some()
    }

    /// What `id` of the inside is outside.
    pub fn outside(&self, id: u32) -> Option<u32> {
        self.0.iter().find_map(|(inside, outside, size)| {
            let offset = id.checked_sub(*inside).filter(|offset| offset < size)?;
            outside.checked_add(offset)
        })
    }
}

/// The text of `uid_map`: one line for each range.
impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(inside, outside, size)| writeln!(f, "{inside} {outside} {size}"))
    }
}

impl Isolation {
    pub(super) fn from_spec(spec: &Spec, linux: &Linux) -> Result<Self> {
        let mut all = Self {
            uids: IdMap::from_spec(linux.uid_mappings().as_ref()),
            gids: IdMap::from_spec(linux.gid_mappings().as_ref()),
            ..Self::default()
        };
        for namespace in linux.namespaces().iter().flatten() {
            let kind = kind(namespace.typ());
            if all.has(kind) {
                return Err(Error::invalid(DOING, format!("the {} namespace is listed twice", word(kind))));
            }
            match namespace.path() {
                None => all.new = all.new.with(kind),
                Some(path) if path.is_absolute() => all.joined.push(Join { kind, path: path.clone() }),
                Some(path) => {
                    let cause = format!("the path {} of a namespace is not absolute", path.display());
                    return Err(Error::invalid(DOING, cause));
                }
            }
        }
        all.clocks = clocks(linux, all.new)?;
        all.check(spec)?;
        Ok(all)
    }

    /// Whether the container has a namespace of this kind that is not simply its starter's.
    pub fn has(&self, kind: Namespaces) -> bool {
        self.new.contains(kind) || self.joins(kind)
    }

    /// Whether it joins one of this kind.
    pub fn joins(&self, kind: Namespaces) -> bool {
        self.joined.iter().any(|join| join.kind == kind)
    }

    /// The path of the one that it joins.
    pub fn path(&self, kind: Namespaces) -> Option<PathBuf> {
        self.joined.iter().find(|join| join.kind == kind).map(|join| join.path.clone())
    }

    fn check(&self, spec: &Spec) -> Result<()> {
        let refuse = |cause: String| Err(Error::invalid(DOING, cause));
        if self.new.contains(Namespaces::USER) && !self.new.contains(Namespaces::MOUNT) {
            let cause = "in a new user namespace nothing can be mounted in a mount namespace that is not new";
            return refuse(cause.into());
        }
        let named = [
            ("hostname", given(spec.hostname()).is_some(), Namespaces::UTS),
            ("domainname", given(spec.domainname()).is_some(), Namespaces::UTS),
            ("linux.uidMappings", !self.uids.is_empty(), Namespaces::USER),
            ("linux.gidMappings", !self.gids.is_empty(), Namespaces::USER),
        ];
        for (field, given, kind) in named {
            if given && !self.has(kind) {
                return refuse(format!("{field} is given, and the container has no {} namespace", word(kind)));
            }
        }
        if self.new.contains(Namespaces::USER) && (self.uids.is_empty() || self.gids.is_empty()) {
            let cause = "a new user namespace needs linux.uidMappings and linux.gidMappings";
            return refuse(cause.into());
        }
        let Some(user) = spec.process().as_ref().map(|process| process.user()) else { return Ok(()) };
        let groups = [user.gid()].into_iter().chain(user.additional_gids().iter().flatten().copied());
        let ids = [("user", 0, &self.uids), ("group", 0, &self.gids), ("user", user.uid(), &self.uids)];
        let all = ids.into_iter().chain(groups.map(|gid| ("group", gid, &self.gids)));
        match all.into_iter().find(|(_, id, map)| !map.is_empty() && !map.has(*id)) {
            Some((what, id, _)) => refuse(format!("{what} {id} is in no range of the user namespace's mappings")),
            None => Ok(()),
        }
    }
}

fn kind(kind: LinuxNamespaceType) -> Namespaces {
    match kind {
        LinuxNamespaceType::Mount => Namespaces::MOUNT,
        LinuxNamespaceType::Pid => Namespaces::PID,
        LinuxNamespaceType::Uts => Namespaces::UTS,
        LinuxNamespaceType::Ipc => Namespaces::IPC,
        LinuxNamespaceType::Network => Namespaces::NETWORK,
        LinuxNamespaceType::Cgroup => Namespaces::CGROUP,
        LinuxNamespaceType::User => Namespaces::USER,
        LinuxNamespaceType::Time => Namespaces::TIME,
    }
}

const WORDS: [(Namespaces, &str); 8] = [
    (Namespaces::MOUNT, "mount"),
    (Namespaces::PID, "pid"),
    (Namespaces::UTS, "uts"),
    (Namespaces::IPC, "ipc"),
    (Namespaces::NETWORK, "network"),
    (Namespaces::CGROUP, "cgroup"),
    (Namespaces::USER, "user"),
    (Namespaces::TIME, "time"),
];

/// The specification's word for one kind.
pub fn word(kind: Namespaces) -> &'static str {
    WORDS.iter().find(|known| known.0 == kind).map_or("other", |known| known.1)
}

/// All words for kinds of namespaces.
pub fn words() -> [&'static str; WORDS.len()] {
    WORDS.map(|known| known.1)
}

fn clocks(linux: &Linux, new: Namespaces) -> Result<String> {
    let mut lines = Vec::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let doing = || format!("set the offset of the clock {clock:?}");
        if clock != "monotonic" && clock != "boottime" {
            return Err(Error::invalid(doing(), "a time namespace has offsets for monotonic and boottime"));
        }
        if !new.contains(Namespaces::TIME) {
            return Err(Error::invalid(doing(), "the container has no new time namespace"));
        }
        lines.push(format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)));
    }
    lines.sort();
    Ok(lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn isolation(linux: serde_json::Value, rest: serde_json::Value) -> Result<Isolation> {
        let mut spec = json!({"ociVersion": "1.3.0", "linux": linux, "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["true"]}});
        spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        let spec: Spec = serde_json::from_value(spec).unwrap();
        Isolation::from_spec(&spec, spec.linux().as_ref().unwrap())
    }

    const MAP: [(&str, u32); 3] = [("containerID", 0), ("hostID", 1000), ("size", 10)];

    #[test]
    fn new_and_joined_namespaces_are_told_apart() {
        let namespaces = json!([{"type": "mount"}, {"type": "pid"}, {"type": "network", "path": "/run/netns/a"}]);
        let all = isolation(json!({"namespaces": namespaces}), json!({})).unwrap();
        assert_eq!(all.new, Namespaces::MOUNT.with(Namespaces::PID));
        assert_eq!(all.joined, [Join { kind: Namespaces::NETWORK, path: "/run/netns/a".into() }]);
        assert!(all.has(Namespaces::NETWORK) && !all.has(Namespaces::UTS));
    }

    #[test]
    fn what_would_change_the_host_or_means_nothing_is_refused_by_name() {
        let mount = json!({"type": "mount"});
        let map = json!([std::collections::HashMap::from(MAP)]);
        let cases = [
            (
                json!({"namespaces": [{"type": "user"}], "uidMappings": map, "gidMappings": map}),
                json!({}),
                "nothing can be mounted",
            ),
            (json!({"namespaces": [mount]}), json!({"hostname": "x"}), "hostname is given"),
            (json!({"namespaces": [mount]}), json!({"domainname": "x"}), "domainname is given"),
            (json!({"namespaces": [mount], "uidMappings": map}), json!({}), "linux.uidMappings is given"),
            (json!({"namespaces": [mount, {"type": "user"}]}), json!({}), "needs linux.uidMappings"),
            (json!({"namespaces": [mount, mount]}), json!({}), "mount namespace is listed twice"),
            (json!({"namespaces": [{"type": "mount", "path": "x"}]}), json!({}), "is not absolute"),
            (json!({"namespaces": [mount], "timeOffsets": {"monotonic": {"secs": 1}}}), json!({}), "no new time"),
            (
                json!({"namespaces": [mount, {"type": "time"}], "timeOffsets": {"realtime": {"secs": 1}}}),
                json!({}),
                "\"realtime\"",
            ),
        ];
        for (linux, rest, wanted) in cases {
            let error = isolation(linux, rest).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn an_empty_name_is_none() {
        let mount = json!({"namespaces": [{"type": "mount"}]});
        isolation(mount, json!({"hostname": "", "domainname": ""})).unwrap();
    }

    #[test]
    fn ids_outside_the_mappings_are_refused() {
        let map = json!([std::collections::HashMap::from(MAP)]);
        let linux =
            json!({"namespaces": [{"type": "mount"}, {"type": "user"}], "uidMappings": map, "gidMappings": map});
        let user = |uid: u32, gids: &[u32]| json!({"process": {"user": {"uid": uid, "gid": 0, "additionalGids": gids}, "cwd": "/", "args": ["x"]}});
        assert_eq!(isolation(linux.clone(), user(9, &[9])).unwrap().uids.to_string(), "0 1000 10\n");
        assert!(isolation(linux.clone(), user(10, &[])).unwrap_err().to_string().contains("user 10 is in no range"));
        assert!(isolation(linux, user(0, &[10])).unwrap_err().to_string().contains("group 10 is in no range"));
    }

    #[test]
    fn offsets_become_the_text_of_the_kernels_file() {
        let offsets = json!({"monotonic": {"secs": -5}, "boottime": {"secs": 7, "nanosecs": 1}});
        let linux = json!({"namespaces": [{"type": "mount"}, {"type": "time"}], "timeOffsets": offsets});
        assert_eq!(isolation(linux, json!({})).unwrap().clocks, "boottime 7 1\nmonotonic -5 0\n");
    }
}
