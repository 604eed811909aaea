//! The mounts of a container. Pure.
//!
//! Source: runtime-spec, config.md "Mounts" and "Linux mount options", config-linux.md "Rootfs Mount Propagation".

use std::ffi::CString;
use std::path::{Component, Path, PathBuf};

use hull_sys::ns::Namespaces;
use oci_spec::runtime::{Linux, Mount};

use super::{IdMap, Isolation, optional, text};
use crate::error::{Error, Result};
use crate::options::{self, Options};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountStep {
    /// Where, as the container sees it.
    pub destination: PathBuf,
    /// What.
    pub what: What,
    /// How.
    pub options: Options,
    /// The SELinux label of its files, where the container may choose one.
    pub label: Option<CString>,
    /// Whose ids are whose on a bind, if not the same on both sides.
    pub ids: Option<Ids>,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A copy of a tree (or file) of the host.
    Bind {
        /// The host's path.
        source: PathBuf,
        /// With everything mounted below it.
        recursive: bool,
    },
    /// A file system of this kind.
    Filesystem {
        /// `proc`, `tmpfs`, …
        kind: CString,
        /// What the mount table shows as its source.
        source: Option<CString>,
    },
    /// A small file of the container's own with this text.
    File {
        /// What it says at first.
        text: Vec<u8>,
    },
    /// The view of the container's own control groups.
    Cgroup,
    /// What is there already, changed.
    Remount {
        /// The mount alone, else its file system too.
        bind: bool,
    },
}

/// The ids of an idmapped mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    /// From the source's ids to those that appear: users, groups.
    Maps(IdMap, IdMap),
    /// As in the user namespace that the container joins.
    Joined,
}

pub(super) fn mount(mount: &Mount, namespaces: &Isolation, label: Option<&CString>) -> Result<MountStep> {
    if mount.destination().as_os_str().is_empty() {
        return Err(Error::invalid("mount a file system", "it has no destination"));
    }
    let destination = plain(mount.destination());
    let shown = destination.display().to_string();
    let doing = format!("mount {shown}");
    let empty = Vec::new();
    let options = options::parse(&shown, mount.options().as_ref().unwrap_or(&empty))?;
    let kind = mount.typ().as_deref().unwrap_or("none");
    let what = match (options.bind, kind) {
        (bind, _) if options.remount => What::Remount { bind: bind.is_some() },
        (Some(recursive), _) => {
            let source =
                mount.source().clone().ok_or_else(|| Error::invalid(&doing, "a bind mount needs a source"))?;
            What::Bind { source, recursive }
        }
        (None, "cgroup" | "cgroup2") => What::Cgroup,
        (None, "bind" | "none") => return Err(Error::invalid(doing, "it has neither a type nor the option bind")),
        (None, kind) => {
            let source = mount.source().as_ref().map(|source| source.to_string_lossy().into_owned());
            What::Filesystem { kind: text(&doing, kind)?, source: optional(&doing, &source)? }
        }
    };
    if options.copy_up && !matches!(&what, What::Filesystem { kind, .. } if kind.as_c_str() == c"tmpfs") {
        return Err(Error::invalid(doing, "tmpcopyup is for a tmpfs"));
    }
    let ids = ids(mount, &options, namespaces).map_err(|cause| Error::invalid(&doing, cause))?;
    if ids.is_some() && !matches!(what, What::Bind { .. }) {
        return Err(Error::invalid(doing, "ids are mapped on binds only"));
    }
    let label = label.filter(|_| takes_label(&what, &options)).cloned();
    Ok(MountStep { destination, what, options, label, ids })
}

/// Of a bind the files are the host's, and of proc and sysfs they are the kernel's; the mount's own options are above it.
fn takes_label(what: &What, options: &Options) -> bool {
    match what {
        What::Filesystem { kind, .. } => {
            let own = |(key, _): &(CString, Option<CString>)| key.to_bytes().ends_with(b"context");
            ![c"proc", c"sysfs"].contains(&kind.as_c_str()) && !options.data.iter().any(own)
        }
        What::Cgroup => true,
        What::Bind { .. } | What::File { .. } | What::Remount { .. } => false,
    }
}

/// The path from the root, where a relative one begins as well (runtime-spec: "for compatibility"), with each `..` taken for
/// its words, as runc does: what an image has there may not exist yet, or be a link.
fn plain(path: &Path) -> PathBuf {
    let mut all = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => all.push(name),
            Component::ParentDir => _ = all.pop(),
            _ => {}
        }
    }
    all
}

/// The mount's own mappings, else the container's.
fn ids(mount: &Mount, options: &Options, namespaces: &Isolation) -> std::result::Result<Option<Ids>, &'static str> {
    let uids = IdMap::from_spec(mount.uid_mappings().as_ref());
    let gids = IdMap::from_spec(mount.gid_mappings().as_ref());
    match (uids.is_empty(), gids.is_empty()) {
        (false, false) => return Ok(Some(Ids::Maps(uids, gids))),
        (true, true) if options.idmap.is_none() => return Ok(None),
        (true, true) => {}
        _ => return Err("uidMappings and gidMappings go together"),
    }
    if namespaces.joins(Namespaces::USER) {
        return Ok(Some(Ids::Joined));
    }
    if namespaces.uids.is_empty() {
        return Err("idmap without mappings takes those of the container's user namespace, and it has none");
    }
    Ok(Some(Ids::Maps(namespaces.uids.clone(), namespaces.gids.clone())))
}

/// The propagation type of the root, and whether it is for the whole tree.
pub(super) fn root_propagation(linux: &Linux) -> Result<Option<(u64, bool)>> {
    let Some(word) = linux.rootfs_propagation().as_deref().filter(|word| !word.is_empty()) else { return Ok(None) };
    let known = options::propagation_type(word);
    known.map(Some).ok_or_else(|| Error::invalid(format!("set rootfsPropagation to {word:?}"), "no such type"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(given: serde_json::Value, namespaces: &Isolation) -> Result<MountStep> {
        mount(&serde_json::from_value(given).unwrap(), namespaces, Some(&c"a:b:c:s0:c1,c2".to_owned()))
    }

    fn error(given: serde_json::Value) -> String {
        plan(given, &Isolation::default()).unwrap_err().to_string()
    }

    #[test]
    fn mappings_are_the_mounts_own_or_the_containers() {
        let map = json!([{"containerID": 0, "hostID": 7, "size": 1}]);
        let bind = json!({"destination": "/x", "source": "/y", "options": ["bind", "idmap"]});
        let container =
            Isolation { uids: IdMap(vec![(0, 5, 9)]), gids: IdMap(vec![(0, 6, 9)]), ..Isolation::default() };
        let wanted = Ids::Maps(container.uids.clone(), container.gids.clone());
        assert_eq!(plan(bind.clone(), &container).unwrap().ids, Some(wanted));
        assert!(error(bind.clone()).ends_with("it has none"));
        let mut own = json!({"destination": "/x", "source": "/y", "options": ["bind"], "uidMappings": map});
        assert!(error(own.clone()).ends_with("uidMappings and gidMappings go together"));
        own["gidMappings"] = map;
        let seven = IdMap(vec![(0, 7, 1)]);
        assert_eq!(plan(own, &container).unwrap().ids, Some(Ids::Maps(seven.clone(), seven)));
    }

    #[test]
    fn a_label_is_for_file_systems_of_the_containers_own() {
        let label = |given| plan(given, &Isolation::default()).unwrap().label.is_some();
        for kind in ["tmpfs", "devpts", "mqueue", "cgroup"] {
            assert!(label(json!({"destination": "/x", "type": kind})), "{kind}");
        }
        for kind in ["proc", "sysfs"] {
            assert!(!label(json!({"destination": "/x", "type": kind})), "{kind}");
        }
        assert!(!label(json!({"destination": "/x", "source": "/y", "options": ["bind"]})));
        for own in ["context=a:b:c:s0", "rootcontext=a:b:c:s0"] {
            assert!(!label(json!({"destination": "/x", "type": "tmpfs", "options": [own]})), "{own}");
        }
    }

    #[test]
    fn options_that_do_not_fit_the_mount_are_refused() {
        assert!(
            error(json!({"destination": "/x", "type": "proc", "options": ["tmpcopyup"]})).contains("for a tmpfs")
        );
        assert!(error(json!({"destination": "", "type": "proc"})).contains("no destination"));
        assert!(error(json!({"destination": "/x", "type": "none"})).contains("neither a type nor"));
        assert!(error(json!({"destination": "/x", "options": ["bind"]})).contains("needs a source"));
    }

    #[test]
    fn a_destination_is_from_the_root_and_has_no_dots() {
        for (given, wanted) in [("x", "/x"), ("/a/../b/./c/", "/b/c"), ("../../x", "/x"), ("/", "/"), ("/..", "/")] {
            let step = plan(json!({"destination": given, "type": "tmpfs"}), &Isolation::default()).unwrap();
            assert_eq!(step.destination, Path::new(wanted), "{given}");
        }
    }

    #[test]
    fn the_roots_propagation_is_one_of_the_known_words() {
        let word =
            |word: &str| root_propagation(&serde_json::from_value(json!({"rootfsPropagation": word})).unwrap());
        assert!(word("rshared").unwrap().is_some_and(|(_, all)| all));
        assert_eq!(word("").unwrap(), None);
        assert!(word("bogus").unwrap_err().to_string().contains("\"bogus\""));
    }
}
