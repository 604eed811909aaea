//! The groups that a further process of a container enters.

use std::path::{Component, Path, PathBuf};

use super::host::{Host, Version};
use crate::error::{Error, Result};

/// A group below the container's own, as `runc exec --cgroup` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Below {
    /// The controller of the v1 hierarchy that is meant; all hierarchies without one.
    pub controller: Option<String>,
    /// Its path from the container's group.
    pub path: PathBuf,
}

impl Below {
    /// Reads `[CONTROLLER[,CONTROLLER…]:]PATH`, all that were given.
    ///
    /// # Errors
    /// A form that is none; several of which one is for all controllers.
    pub fn parse(all: &[String]) -> Result<Vec<Self>> {
        let mut list = Vec::new();
        for text in all {
            let refuse = |cause: &str| Err(Error::invalid(format!("use --cgroup {text:?}"), cause));
            let below = |controller, path: &str| Self { controller, path: PathBuf::from(path) };
            match text.split(':').collect::<Vec<_>>().as_slice() {
                [path] if all.len() == 1 => list.push(below(None, path)),
                [_] => return refuse("invalid --cgroup argument: missing <controller>: prefix"),
                [names, path] => list.extend(names.split(',').map(|name| below(Some(name.to_owned()), path))),
                _ => return refuse("invalid --cgroup argument"),
            }
            let leaves = |part: Component<'_>| matches!(part, Component::ParentDir);
            if list.iter().any(|below| below.path.components().any(leaves)) {
                return refuse("bad sub cgroup path: it leads upwards");
            }
        }
        Ok(list)
    }
}

/// The groups to enter, for a container whose own are `groups` and whose first process is `pid`.
///
/// On v2 a group that passes controllers on holds no processes: those of such a container are in groups that it made, and
/// the first process's own is the one to be in.
///
/// # Errors
/// A controller in whose hierarchy the container has no group; the kernel does not tell.
pub fn groups(host: &Host, groups: &[PathBuf], below: &[Below], pid: i32) -> Result<Vec<PathBuf>> {
    let hierarchy = |group: &Path| host.hierarchies.iter().find(|hierarchy| group.starts_with(&hierarchy.mount));
    let mut all = groups.to_vec();
    if below.is_empty() {
        for group in &mut all {
            let Some(found) = hierarchy(group).filter(|found| found.version == Version::V2) else { continue };
            let passed = std::fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
            if !passed.trim().is_empty() {
                *group = Host::group_of(pid, found)?;
            }
        }
    }
    for Below { controller, path } in below {
        let path = path.strip_prefix("/").unwrap_or(path);
        let meant = |group: &Path| match controller {
            None => true,
            Some(name) => hierarchy(group).is_some_and(|found| {
                found.version == Version::V1
                    && found.controllers.iter().any(|known| known.trim_start_matches("name=") == name)
            }),
        };
        let mut found = false;
        for group in all.iter_mut().filter(|group| meant(group)) {
            *group = group.join(path);
            found = true;
        }
        if let (false, Some(name)) = (found, controller) {
            let doing = format!("enter the group {}", path.display());
            return Err(Error::invalid(doing, format!("unknown controller {name} in --cgroup")));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::host::Hierarchy;
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_group_below_is_for_all_hierarchies_or_for_those_that_are_named() {
        let hierarchy = |version, names: &[&str], mount: &str| Hierarchy {
            version,
            controllers: texts(names),
            mount: mount.into(),
            parent: PathBuf::new(),
            own: PathBuf::new(),
        };
        let host = Host {
            hierarchies: vec![
                hierarchy(Version::V1, &["cpu", "cpuacct"], "/cg/cpu"),
                hierarchy(Version::V1, &["pids"], "/cg/pids"),
            ],
        };
        let own = [PathBuf::from("/cg/cpu/box"), PathBuf::from("/cg/pids/box")];
        let enter = |list: &[&str]| {
            let all = groups(&host, &own, &Below::parse(&texts(list))?, 1)?;
            Ok::<_, Error>(all.iter().map(|path| path.display().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(enter(&[]).unwrap(), ["/cg/cpu/box", "/cg/pids/box"]);
        assert_eq!(enter(&["/a/b"]).unwrap(), ["/cg/cpu/box/a/b", "/cg/pids/box/a/b"]);
        assert_eq!(enter(&["cpu:a", "pids:b"]).unwrap(), ["/cg/cpu/box/a", "/cg/pids/box/b"]);
        assert_eq!(enter(&["pids:b"]).unwrap(), ["/cg/cpu/box", "/cg/pids/box/b"]);
        for (bad, cause) in [
            (&["a", "b"][..], "missing <controller>"),
            (&["cpu:a:b"], "invalid --cgroup argument"),
            (&["../x"], "bad sub cgroup path"),
            (&["rdma:x"], "unknown controller rdma"),
        ] {
            assert!(enter(bad).unwrap_err().to_string().contains(cause), "{bad:?}");
        }
    }
}
