//! Where a container's groups are: beside the caller's own, or where `linux.cgroupsPath` says.

use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::host::{Hierarchy, Host, Version};
use super::limits::Write;
use super::unit::{Property, Unit};
use crate::error::{Error, Result};

/// Where a container's groups are.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A name beside the caller's own group, in the hierarchies where something is limited.
    Beside(String),
    /// This path, in every hierarchy: with a leading slash from its root, else below the caller's own group on v1 and
    /// beside it on v2, where a group that holds processes cannot have limited groups below it.
    Path(PathBuf),
    /// A unit of systemd's, in every hierarchy, with properties that it gets besides its limits.
    Unit(Unit, Vec<Property>),
}

impl Place {
    /// What `linux.cgroupsPath` means to a runtime that writes the files itself (cgroupfs).
    ///
    /// # Errors
    /// A path with `..`, without a name, or in systemd's form `slice:prefix:name`.
    pub fn from_spec(path: &Path) -> Result<Self> {
        let refuse = |cause: &str| {
            Err(Error::invalid(format!("use linux.cgroupsPath {:?}", path.display().to_string()), cause))
        };
        let text = path.to_string_lossy();
        if text.split(':').count() == 3 && !text.contains('/') {
            return refuse("slice:prefix:name is for systemd, which --systemd-cgroup asks for");
        }
        if text.contains('\0') {
            return refuse("it holds a NUL");
        }
        let plain =
            |part: Component<'_>| matches!(part, Component::RootDir | Component::CurDir | Component::Normal(_));
        if !path.components().all(plain) {
            return refuse("it leads upwards");
        }
        let names = path.components().filter(|part| matches!(part, Component::Normal(_)));
        if names.count() == 0 {
            return refuse("it names no group");
        }
        Ok(Self::Path(path.to_owned()))
    }

    /// The unit, if it is one.
    pub fn unit(&self) -> Option<&Unit> {
        if let Self::Unit(unit, _) = self { Some(unit) } else { None }
    }

    /// The group's folder in one hierarchy.
    pub(super) fn folder(&self, hierarchy: &Hierarchy) -> PathBuf {
        match self {
            Self::Beside(name) => hierarchy.mount.join(&hierarchy.parent).join(name),
            Self::Unit(unit, _) => hierarchy.mount.join(&unit.group),
            Self::Path(path) => match path.strip_prefix("/") {
                Ok(path) => hierarchy.mount.join(path),
                Err(_) if hierarchy.version == Version::V2 => hierarchy.mount.join(&hierarchy.parent).join(path),
                Err(_) => hierarchy.mount.join(&hierarchy.own).join(path),
            },
        }
    }

    /// Whether this process may make groups there, and move into them.
    pub fn is_open(&self, host: &Host) -> bool {
        let may = |path: &Path| accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
        self.hierarchies(host, &[]).into_iter().all(|hierarchy| {
            let folder = self.folder(hierarchy);
            let above = folder.ancestors().skip(1).find(|above| above.exists()).unwrap_or(&hierarchy.mount);
            may(above) && may(&above.join("cgroup.procs"))
        })
    }

    /// The hierarchies in which there is a group.
    pub(super) fn hierarchies<'a>(&self, host: &'a Host, writes: &[Write]) -> Vec<&'a Hierarchy> {
        if let Self::Path(_) | Self::Unit(..) = self {
            return host.hierarchies.iter().collect();
        }
        let mut all: Vec<&Hierarchy> = Vec::new();
        for hierarchy in writes.iter().filter_map(|write| host.hierarchy(write)) {
            if !all.iter().any(|known| known.mount == hierarchy.mount) {
                all.push(hierarchy);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &str, version: Version) -> PathBuf {
        let hierarchy = Hierarchy {
            version,
            controllers: vec!["pids".into()],
            mount: "/cg".into(),
            parent: "a".into(),
            own: "a/b".into(),
        };
        Place::from_spec(Path::new(path)).unwrap().folder(&hierarchy)
    }

    #[test]
    fn a_path_is_from_the_root_or_from_our_own_group() {
        assert_eq!(folder("/kubepods/pod1", Version::V1), Path::new("/cg/kubepods/pod1"));
        assert_eq!(folder("/kubepods/pod1", Version::V2), Path::new("/cg/kubepods/pod1"));
        assert_eq!(folder("x/y", Version::V1), Path::new("/cg/a/b/x/y"));
        assert_eq!(folder("x/y", Version::V2), Path::new("/cg/a/x/y"));
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for (path, cause) in [
            ("/a/../../b", "leads upwards"),
            ("/", "names no group"),
            ("", "names no group"),
            ("a:b:c", "for systemd"),
        ] {
            let error = Place::from_spec(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains(cause), "{path}: {error}");
        }
    }
}
