//! Intel RDT: shares of the last cache and of the memory's bandwidth, by groups in the resctrl file system.
//!
//! Nothing here is taken from the processor: where the file system is mounted its files say what there is, and what it
//! refuses is told with its own `info/last_cmd_status`.
//! Sources: runtime-spec 1.3 "IntelRdt", the kernel's `filesystems/resctrl.rst`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// Names at the root of the file system that are no groups.
const TAKEN: [&str; 3] = ["info", "mon_groups", "mon_data"];

/// What a container's state says of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rdt {
    /// Where the file system is mounted.
    pub root: PathBuf,
    /// The group's folder.
    pub path: PathBuf,
    /// Whether the group is the container's, and goes with it.
    pub own: bool,
    /// The folder of its monitoring group.
    pub monitor: Option<PathBuf>,
    /// The lines of its schemata that it brought.
    pub schemata: Vec<String>,
}

/// The mounted file system, by the text of mountinfo(5).
pub fn mounted(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let path = before.split(' ').nth(4).filter(|_| after.starts_with("resctrl "))?;
        Some(PathBuf::from(path))
    })
}

/// The file system on this machine.
///
/// # Errors
/// It is not mounted, which `field` needs.
pub fn root(field: &str) -> Result<PathBuf> {
    let doing = || format!("set {field}");
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(|error| Error::setup(doing(), error))?;
    mounted(&text).ok_or_else(|| {
        Error::invalid(doing(), "the resctrl file system is not mounted here")
            .hint("where the processor has Intel RDT: mount -t resctrl resctrl /sys/fs/resctrl")
    })
}

/// The lines that the specification has for the `schemata` file, in order; a later one stands above an earlier.
pub fn lines(rdt: &LinuxIntelRdt) -> Vec<String> {
    let given = |text: &Option<String>| text.as_deref().unwrap_or_default().lines().map(str::to_owned).collect();
    let (mut cache, bandwidth): (Vec<String>, Vec<String>) =
        (given(rdt.l3_cache_schema()), given(rdt.mem_bw_schema()));
    if !bandwidth.is_empty() {
        // Of bandwidth its own field speaks (the specification's l3CacheSchema).
        cache.retain(|line| !line.trim_start().starts_with("MB:"));
    }
    let schemata = rdt.schemata().iter().flatten().cloned();
    cache.into_iter().chain(bandwidth).chain(schemata).filter(|line| !line.trim().is_empty()).collect()
}

#[allow(deprecated, reason = "bundles of older versions of the specification have them")]
fn monitors(rdt: &LinuxIntelRdt) -> bool {
    rdt.enable_monitoring() == &Some(true) || rdt.enable_cmt() == &Some(true) || rdt.enable_mbm() == &Some(true)
}

impl Rdt {
    /// The group of the container `id` in the file system at `root`; nothing is made yet.
    ///
    /// # Errors
    /// A class that is no name; one that is to be there already, and is not.
    pub fn of(root: &Path, rdt: &LinuxIntelRdt, id: &str) -> Result<Self> {
        let schemata = lines(rdt);
        let class = rdt.clos_id().as_deref().filter(|class| !class.is_empty());
        let doing = |name: &str| format!("use linux.intelRdt.closID {name:?}");
        let name = class.unwrap_or(id);
        let path = match name {
            // The root is the class that everything begins in.
            "/" => root.to_owned(),
            name if name.contains('/') || [".", ".."].contains(&name) || TAKEN.contains(&name) => {
                return Err(Error::invalid(doing(name), "it is no name of a class"));
            }
            name => root.join(name),
        };
        let there = path.is_dir();
        if class.is_some() && schemata.is_empty() && !there {
            let cause = format!("{} is not there, and no schema says how to make it", path.display());
            return Err(Error::invalid(doing(name), cause));
        }
        let monitor = monitors(rdt).then(|| path.join("mon_groups").join(id));
        Ok(Self { root: root.to_owned(), path, own: !there, monitor, schemata })
    }

    /// Makes what is missing of the group, writes its schemata and puts the processes `pids` in, with all their threads.
    ///
    /// # Errors
    /// The file system refuses, with what it says of that.
    pub fn apply(&self, pids: &[i32]) -> Result<()> {
        self.make(&self.path)?;
        if !self.schemata.is_empty() {
            self.write(&self.path.join("schemata"), &format!("{}\n", self.schemata.join("\n")))?;
        }
        self.monitor.iter().try_for_each(|monitor| self.make(monitor))?;
        for folder in [Some(&self.path), self.monitor.as_ref()].into_iter().flatten() {
            for thread in pids.iter().flat_map(|pid| threads(*pid)) {
                self.write(&folder.join("tasks"), &thread.to_string())?;
            }
        }
        Ok(())
    }

    fn make(&self, folder: &Path) -> Result<()> {
        match fs::create_dir(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(self.refused(format!("make the resctrl group {}", folder.display()), &error))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, file: &Path, text: &str) -> Result<()> {
        fs::write(file, text).map_err(|error| {
            self.refused(format!("write {:?} to {} for linux.intelRdt", text.trim_end(), file.display()), &error)
        })
    }

    fn refused(&self, doing: String, error: &std::io::Error) -> Error {
        match fs::read_to_string(self.root.join("info/last_cmd_status")) {
            Ok(status) if !matches!(status.trim(), "" | "ok") => {
                Error::setup(doing, format!("{error} ({})", status.trim()))
            }
            _ => Error::setup(doing, error),
        }
    }

    /// Removes what is the container's own.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self) -> Result<()> {
        // A group takes its monitoring groups along.
        let folder = if self.own { Some(&self.path) } else { self.monitor.as_ref() };
        match folder.map(fs::remove_dir) {
            Some(Err(error)) if error.kind() != ErrorKind::NotFound => {
                let path = folder.map(|folder| folder.display().to_string()).unwrap_or_default();
                Err(self.refused(format!("remove the resctrl group {path}"), &error))
            }
            _ => Ok(()),
        }
    }

    /// What there is, what is set and what is used, in the shape of `runc events`.
    pub fn stats(&self) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        for (kind, line, info, numbers, root, group) in [
            (
                "L3",
                "L3:",
                "l3_cache_info",
                &["min_cbm_bits", "num_closids"][..],
                "l3_cache_schema_root",
                "l3_cache_schema",
            ),
            (
                "MB",
                "MB:",
                "mem_bw_info",
                &["bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"],
                "mem_bw_schema_root",
                "mem_bw_schema",
            ),
        ] {
            let folder = self.root.join("info").join(kind);
            if !folder.is_dir() {
                continue;
            }
            let mut about: serde_json::Map<String, Value> = numbers
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), number(&folder.join(name))?.into())))
                .collect();
            if let Ok(mask) = fs::read_to_string(folder.join("cbm_mask")) {
                about.insert("cbm_mask".to_owned(), mask.trim().into());
            }
            all.insert(info.to_owned(), about.into());
            for (field, folder) in [(root, &self.root), (group, &self.path)] {
                let text = fs::read_to_string(folder.join("schemata")).unwrap_or_default();
                if let Some(schema) = text.lines().map(str::trim).find(|text| text.starts_with(line)) {
                    all.insert(field.to_owned(), schema.into());
                }
            }
        }
        all.extend(self.monitored());
        all
    }

    /// What the monitoring group counts, on each node.
    fn monitored(&self) -> BTreeMap<String, Value> {
        let data = self.monitor.as_ref().unwrap_or(&self.path).join("mon_data");
        let mut nodes: Vec<PathBuf> =
            fs::read_dir(data).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        nodes.sort();
        let mut all = BTreeMap::new();
        let mut of = |field: &str, names: &[&str]| {
            let one = |node: &PathBuf| -> serde_json::Map<String, Value> {
                names.iter().filter_map(|name| Some(((*name).to_owned(), json!(number(&node.join(name))?)))).collect()
            };
            let list: Vec<_> = nodes.iter().map(one).filter(|node| !node.is_empty()).collect();
            if !list.is_empty() {
                all.insert(field.to_owned(), json!(list));
            }
        };
        of("mbm_stats", &["mbm_total_bytes", "mbm_local_bytes"]);
        of("cmt_stats", &["llc_occupancy"]);
        all
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The threads of a process; one that is gone has none.
fn threads(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with the files that the kernel's has, of which writing and reading are all that matters here.
    fn resctrl() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["info/L3", "info/MB", "old", "mon_groups", "old/mon_groups"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for (file, text) in [
            ("info/last_cmd_status", "ok\n"),
            ("info/L3/cbm_mask", "fffff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/MB/bandwidth_gran", "10\n"),
            ("schemata", "    L3:0=fffff\n    MB:0=100\n"),
        ] {
            fs::write(root.path().join(file), text).unwrap();
        }
        root
    }

    fn of(root: &Path, rdt: Value) -> Result<Rdt> {
        Rdt::of(root, &serde_json::from_value(rdt).unwrap(), "id")
    }

    #[test]
    fn the_file_system_is_found_by_its_kind() {
        let text =
            "25 30 0:23 / /sys rw - sysfs sysfs rw\n40 25 0:37 / /sys/fs/resctrl rw - resctrl resctrl rw,cdp\n";
        assert_eq!(mounted(text), Some("/sys/fs/resctrl".into()));
        assert_eq!(mounted("25 30 0:23 / /resctrl rw - sysfs resctrl rw\n"), None);
    }

    #[test]
    fn a_container_has_a_group_of_its_own_that_goes_with_it() {
        let root = resctrl();
        let rdt = of(root.path(), json!({"l3CacheSchema": "L3:0=f\nMB:0=9", "memBwSchema": "MB:0=20"})).unwrap();
        assert!(rdt.own && rdt.monitor.is_none());
        let pid = std::process::id() as i32;
        rdt.apply(&[pid]).unwrap();
        let group = root.path().join("id");
        assert_eq!(fs::read_to_string(group.join("schemata")).unwrap(), "L3:0=f\nMB:0=20\n");
        let task: i32 = fs::read_to_string(group.join("tasks")).unwrap().parse().unwrap();
        assert!(threads(pid).contains(&task), "the file's last line is one of our threads");
        let stats = Value::from_iter(rdt.stats());
        assert_eq!(stats["l3_cache_info"], json!({"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16}));
        assert_eq!(
            (&stats["l3_cache_schema_root"], &stats["l3_cache_schema"]),
            (&json!("L3:0=fffff"), &json!("L3:0=f"))
        );
        assert_eq!(
            (&stats["mem_bw_schema"], &stats["mem_bw_info"]),
            (&json!("MB:0=20"), &json!({"bandwidth_gran": 10}))
        );
        // The kernel's files go with the folder.
        ["schemata", "tasks"].iter().for_each(|file| fs::remove_file(group.join(file)).unwrap());
        rdt.remove().unwrap();
        rdt.remove().unwrap();
        assert!(!group.exists());
    }

    #[test]
    fn a_class_that_is_there_is_joined_and_stays() {
        let root = resctrl();
        let rdt = of(root.path(), json!({"closID": "old", "enableMonitoring": true})).unwrap();
        assert!(!rdt.own);
        rdt.apply(&[std::process::id() as i32]).unwrap();
        assert!(!root.path().join("old/schemata").exists(), "nothing says what it is to be");
        let monitor = root.path().join("old/mon_groups/id");
        assert!(monitor.join("tasks").exists() && rdt.monitor == Some(monitor.clone()));
        fs::create_dir_all(monitor.join("mon_data/mon_L3_00")).unwrap();
        fs::write(monitor.join("mon_data/mon_L3_00/llc_occupancy"), "4096\n").unwrap();
        assert_eq!(rdt.stats()["cmt_stats"], json!([{"llc_occupancy": 4096}]));
        fs::remove_dir_all(monitor.join("mon_data")).unwrap();
        fs::remove_file(monitor.join("tasks")).unwrap();
        rdt.remove().unwrap();
        assert!(!monitor.exists() && root.path().join("old").exists());
        assert_eq!(of(root.path(), json!({"closID": "/"})).unwrap().path, root.path());
    }

    #[test]
    fn lines_are_written_as_they_are_after_those_of_the_other_fields() {
        let rdt = json!({"schemata": ["L2:0=f", "MB:0=30"], "memBwSchema": "MB:0=20"});
        assert_eq!(lines(&serde_json::from_value(rdt).unwrap()), ["MB:0=20", "L2:0=f", "MB:0=30"]);
    }

    #[test]
    fn what_is_no_class_is_an_error() {
        let root = resctrl();
        for (rdt, words) in [
            (json!({"closID": "new"}), "is not there"),
            (json!({"closID": "../x", "memBwSchema": "MB:0=20"}), "no name of a class"),
            (json!({"closID": "info", "memBwSchema": "MB:0=20"}), "no name of a class"),
            (json!({"closID": ".."}), "no name of a class"),
        ] {
            let error = of(root.path(), rdt).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("linux.intelRdt.closID"), "{error}");
        }
    }

    #[test]
    fn a_refusal_has_the_file_systems_own_words() {
        let root = resctrl();
        fs::write(root.path().join("info/last_cmd_status"), "mask f0f0 has non-consecutive 1-bits\n").unwrap();
        fs::create_dir_all(root.path().join("id/schemata")).unwrap();
        let rdt = of(root.path(), json!({"l3CacheSchema": "L3:0=f0f0"})).unwrap();
        let error = rdt.apply(&[]).unwrap_err().to_string();
        assert!(error.contains("L3:0=f0f0") && error.contains("non-consecutive 1-bits"), "{error}");
    }
}
