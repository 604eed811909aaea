//! Limits as the control group's own files show them, whichever version of control groups they are in.
//!
//! What is in force is the least along the way from the process's group to the top of what is mounted: a group cannot
//! have more than the one it is in. A file that is not there says nothing (the topmost group has none).
//!
//! Source: kernel documents `admin-guide/cgroup-v1/{memory,pids}.rst` and `admin-guide/cgroup-v2.rst`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mountinfo::Mount;

/// v1 writes "no limit" of memory as the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// One limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The number in force; none if there is no limit.
    pub value: Option<u64>,
    /// The file that says so; none if there is no such file in view.
    pub file: Option<PathBuf>,
}

/// The two limits that every container is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most processes and threads.
    pub pids: Limit,
    /// Most memory, in bytes.
    pub memory: Limit,
}

impl Limits {
    /// Reads them: `mounts` says where the hierarchies are, `groups` is /proc/self/cgroup.
    pub fn read(mounts: &[Mount], groups: &str) -> Self {
        let limit = |controller: &str, v1: &str, v2: &str| {
            let folders = folders(mounts, groups, controller);
            least(folders.into_iter().map(|(unified, folder)| folder.join(if unified { v2 } else { v1 })))
        };
        Self {
            pids: limit("pids", "pids.max", "pids.max"),
            memory: limit("memory", "memory.limit_in_bytes", "memory.max"),
        }
    }
}

fn least(files: impl Iterator<Item = PathBuf>) -> Limit {
    let mut all = Limit::default();
    for file in files {
        // The topmost group and one without the controller have no such file.
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let value = text.trim().parse().ok().filter(|value: &u64| *value < NO_LIMIT);
        let lower = value.is_some_and(|value| all.value.is_none_or(|known| value < known));
        if all.file.is_none() || lower {
            all = Limit { value, file: Some(file) };
        }
    }
    all
}

/// The folders of the process's group and of those above it, nearest first; whether it is the unified hierarchy.
fn folders(mounts: &[Mount], groups: &str, controller: &str) -> Vec<(bool, PathBuf)> {
    let has =
        |mount: &&Mount| mount.kind == "cgroup" && mount.super_options.split(',').any(|option| option == controller);
    // Where both versions are mounted a controller of v1 is in v1 alone.
    let found = mounts.iter().rfind(has).or_else(|| mounts.iter().rfind(|mount| mount.kind == "cgroup2"));
    let Some(mount) = found else { return Vec::new() };
    let unified = mount.kind == "cgroup2";
    let own = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = if unified { names.is_empty() } else { names.split(',').any(|name| name == controller) };
        ours.then_some(path)
    });
    let own = Path::new(own.unwrap_or("/"));
    // The mount may show a part of the hierarchy only; a group outside of it shows as `/..`.
    let below = own.strip_prefix(&mount.root).or_else(|_| own.strip_prefix("/")).unwrap_or(Path::new(""));
    let below = if below.starts_with("..") { Path::new("") } else { below };
    below.ancestors().map(|part| (unified, Path::new(&mount.target).join(part))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::mountinfo;
    use super::*;

    fn shown(mounts: &str, groups: &str, controller: &str) -> Vec<(bool, String)> {
        let mounts = mountinfo::parse(mounts).unwrap();
        let all = folders(&mounts, groups, controller);
        all.into_iter().map(|(unified, path)| (unified, path.to_string_lossy().into_owned())).collect()
    }

    const HYBRID: &str = "35 31 0:32 / /c/memory rw - cgroup cgroup rw,memory\n\
                          41 31 0:38 / /c/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_hybrid_machine_has_the_controller_in_the_first_version() {
        let groups = "4:memory:/a/b\n0::/u\n";
        let paths = shown(HYBRID, groups, "memory");
        assert_eq!(
            paths,
            [(false, "/c/memory/a/b".into()), (false, "/c/memory/a".into()), (false, "/c/memory/".into())]
        );
        assert_eq!(shown(HYBRID, groups, "pids")[0], (true, "/c/unified/u".into()));
    }

    #[test]
    fn inside_a_container_the_mount_shows_a_part() {
        let mounts = "35 31 0:32 /docker/77 /c/pids rw - cgroup cgroup rw,pids\n";
        assert_eq!(shown(mounts, "8:pids:/docker/77\n", "pids"), [(false, "/c/pids/".into())]);
        assert_eq!(shown(mounts, "8:pids:/docker/77/x\n", "pids").len(), 2);
        assert_eq!(shown(HYBRID, "4:memory:/../x\n", "memory"), [(false, "/c/memory/".into())]);
        assert!(shown("", "0::/\n", "pids").is_empty());
    }

    #[test]
    fn the_least_along_the_way_is_in_force() {
        let dir = std::env::temp_dir().join(format!("hull-limits-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (own, above) = (file("own", "max\n"), file("above", "64\n"));
        let (v1, missing) = (file("v1", "9223372036854771712\n"), dir.join("missing"));
        let limit = |files: &[&PathBuf]| least(files.iter().map(|path| (*path).clone()));
        assert_eq!(limit(&[&own, &above]), Limit { value: Some(64), file: Some(above.clone()) });
        assert_eq!(limit(&[&above, &own]).file, Some(above.clone()));
        assert_eq!(limit(&[&missing, &v1]), Limit { value: None, file: Some(v1.clone()) });
        assert_eq!(limit(&[&missing]), Limit::default());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
