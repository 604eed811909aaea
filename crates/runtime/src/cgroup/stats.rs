//! What a container uses, in the shape in which `runc events` tells it.
//!
//! One shape for both versions, with v1's words; v2's microseconds become nanoseconds, and its swap is told together with
//! memory, as v1 counts it. A file that this kernel does not have leaves its field empty.
//! Sources: the kernel's `cgroup-v1/` and `cgroup-v2.rst`, `proc_net_dev`, runc's man page runc-events(8).

use std::collections::BTreeMap;

use serde::Serialize;

use super::group::Group;
use super::host::Version;
use super::live::Cgroup;
use crate::error::{Error, Result};

mod parse;
mod v1;
mod v2;

pub use parse::interfaces;

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Processors and memory nodes.
    pub cpuset: CpuSet,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block input and output.
    pub blkio: Blkio,
    /// Huge pages in bytes, by their size.
    pub hugetlb: BTreeMap<String, Counted>,
    /// Intel RDT.
    pub intel_rdt: BTreeMap<String, serde_json::Value>,
    /// Interfaces of a network namespace of its own.
    pub network_interfaces: Option<Vec<Interface>>,
}

/// Processor time, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Time used.
    pub usage: CpuUsage,
    /// What the quota took.
    pub throttling: Throttling,
    /// How much processes had to wait for a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Processor time used, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    /// All of it.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// On each processor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the kernel, on each processor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// Outside of it, on each processor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// Outside of it.
    pub user: u64,
}

/// What the quota took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods in which something ran.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Those of them in which the quota was used up.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// How long processes stood still, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Processors and memory nodes; the flags are v1's.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the fields are the files of that name")]
pub struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Pages of files.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// All memory.
    pub usage: MemoryUse,
    /// Memory and swap together.
    pub swap: MemoryUse,
    /// The kernel's, on v1.
    pub kernel: MemoryUse,
    /// Of that, the buffers of TCP.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryUse,
    /// `memory.stat`, as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// How much processes had to wait for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One kind of memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemoryUse {
    /// The most that it may be.
    pub limit: u64,
    /// What it is.
    #[serde(flatten)]
    pub now: Counted,
}

/// What the kernel charges to a group, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Counted {
    /// What it is.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most that it was.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pids {
    /// There are.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// At most; 0 for no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block input and output.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields are v1's files of that name")]
pub struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "ioQueueRecursive")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// A number about a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BlkioEntry {
    /// The device's major number.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    /// The device's minor number.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// `Read`, `Write` and so on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// Bytes, operations or nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Pressure stall information.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// At least one process stood still.
    pub some: Stall,
    /// All of them did.
    pub full: Stall,
}

/// Shares of time in percent, over the last seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stall {
    /// Of ten seconds.
    pub avg10: f64,
    /// Of a minute.
    pub avg60: f64,
    /// Of five minutes.
    pub avg300: f64,
    /// All together, in microseconds.
    pub total: u64,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are the columns of /proc/net/dev")]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Cgroup {
    /// What the container uses now, as far as groups count it.
    ///
    /// # Errors
    /// A file that is there cannot be read, or has another form.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        for group in &self.groups {
            match group.hierarchy.version {
                Version::V1 => v1::read(group, &mut stats)?,
                Version::V2 => v2::read(group, &mut stats)?,
            }
        }
        Ok(stats)
    }
}

/// The files of one group.
struct Files<'a>(&'a Group);

impl Files<'_> {
    /// The file's text; `None` if there is none, or the kernel was told not to count.
    fn text(&self, file: &str) -> Result<Option<String>> {
        use hull_sys::Errno;
        match self.0.text(file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if matches!(error.errno(), Errno::NOENT | Errno::OPNOTSUPP | Errno::NODEV) => Ok(None),
            Err(error) => Err(Error::setup(format!("read {}", self.0.path.join(file).display()), error)),
        }
    }

    /// A number; `max` is the largest.
    fn number(&self, file: &str) -> Result<Option<u64>> {
        let Some(text) = self.text(file)? else { return Ok(None) };
        parse::number(&text).map(Some).ok_or_else(|| self.strange(file, &text))
    }

    /// A number, 0 if there is no such file.
    fn count(&self, file: &str) -> Result<u64> {
        Ok(self.number(file)?.unwrap_or_default())
    }

    /// Lines of a word and a number.
    fn keyed(&self, file: &str) -> Result<BTreeMap<String, u64>> {
        let Some(text) = self.text(file)? else { return Ok(BTreeMap::new()) };
        parse::keyed(&text).ok_or_else(|| self.strange(file, &text))
    }

    fn pids(&self) -> Result<Pids> {
        let limit = self.number("pids.max")?.filter(|limit| *limit != u64::MAX);
        Ok(Pids { current: self.count("pids.current")?, limit: limit.unwrap_or_default() })
    }

    fn list(&self, file: &str) -> Result<Vec<u16>> {
        let Some(text) = self.text(file)? else { return Ok(Vec::new()) };
        parse::list(&text).ok_or_else(|| self.strange(file, &text))
    }

    fn pressure(&self, file: &str) -> Result<Option<Pressure>> {
        let Some(text) = self.text(file)? else { return Ok(None) };
        parse::pressure(&text).map(Some).ok_or_else(|| self.strange(file, &text))
    }

    /// The sizes of huge pages that are counted here, like `2MB`.
    fn page_sizes(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.0.path).into_iter().flatten().flatten();
        let size = |name: String| Some(name.strip_prefix("hugetlb.")?.split('.').next()?.to_owned());
        let mut sizes: Vec<String> =
            names.filter_map(|entry| size(entry.file_name().to_string_lossy().into_owned())).collect();
        sizes.sort();
        sizes.dedup();
        sizes
    }

    fn strange(&self, file: &str, text: &str) -> Error {
        let line = text.lines().next().unwrap_or_default();
        Error::setup(format!("understand {}", self.0.path.join(file).display()), format!("it says {line:?}"))
    }
}
