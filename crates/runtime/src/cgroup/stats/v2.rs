//! The files of the unified hierarchy. In a hybrid layout only those of its own controllers are there.

use super::{Counted, Files, MemoryUse, Stats, parse};
use crate::cgroup::group::Group;
use crate::error::Result;

/// A microsecond in nanoseconds.
const MICRO: u64 = 1000;

/// Takes up what the group's controllers count.
pub(super) fn read(group: &Group, stats: &mut Stats) -> Result<()> {
    let files = Files(group);
    for controller in &group.hierarchy.controllers {
        match controller.as_str() {
            "cpu" => cpu(&files, stats)?,
            "cpuset" => {
                stats.cpuset.cpus = files.list("cpuset.cpus.effective")?;
                stats.cpuset.mems = files.list("cpuset.mems.effective")?;
            }
            "memory" => memory(&files, stats)?,
            "pids" => stats.pids = files.pids()?,
            "io" => io(&files, stats)?,
            "hugetlb" => huge_pages(&files, stats)?,
            _ => {}
        }
    }
    // Every group has these, whatever its controllers.
    stats.cpu.psi = files.pressure("cpu.pressure")?;
    stats.memory.psi = files.pressure("memory.pressure")?;
    stats.blkio.psi = files.pressure("io.pressure")?;
    Ok(())
}

fn cpu(files: &Files<'_>, stats: &mut Stats) -> Result<()> {
    let stat = files.keyed("cpu.stat")?;
    let value = |key: &str| stat.get(key).copied().unwrap_or_default();
    let cpu = &mut stats.cpu;
    cpu.usage.total = value("usage_usec") * MICRO;
    cpu.usage.user = value("user_usec") * MICRO;
    cpu.usage.kernel = value("system_usec") * MICRO;
    cpu.throttling.periods = value("nr_periods");
    cpu.throttling.throttled_periods = value("nr_throttled");
    cpu.throttling.throttled_time = value("throttled_usec") * MICRO;
    Ok(())
}

fn memory(files: &Files<'_>, stats: &mut Stats) -> Result<()> {
    let memory = &mut stats.memory;
    memory.raw = files.keyed("memory.stat")?;
    memory.cache = memory.raw.get("file").copied().unwrap_or_default();
    memory.usage = MemoryUse {
        limit: files.count("memory.max")?,
        // A peak since Linux 5.19.
        now: Counted { usage: files.count("memory.current")?, max: files.count("memory.peak")?, failcnt: 0 },
    };
    if let Some(swap) = files.number("memory.swap.current")? {
        // Together with memory, as v1 counts it; two peaks make none.
        let limit = files.count("memory.swap.max")?;
        memory.swap.now.usage = swap + memory.usage.now.usage;
        memory.swap.limit = limit.saturating_add(memory.usage.limit);
    }
    Ok(())
}

fn io(files: &Files<'_>, stats: &mut Stats) -> Result<()> {
    let text = files.text("io.stat")?.unwrap_or_default();
    let of = |read: &str, write: &str| {
        let both = [parse::device_key(&text, read, "Read")?, parse::device_key(&text, write, "Write")?];
        Some(both.concat())
    };
    let strange = || files.strange("io.stat", &text);
    stats.blkio.io_service_bytes_recursive = of("rbytes", "wbytes").ok_or_else(strange)?;
    stats.blkio.io_serviced_recursive = of("rios", "wios").ok_or_else(strange)?;
    Ok(())
}

fn huge_pages(files: &Files<'_>, stats: &mut Stats) -> Result<()> {
    for size in files.page_sizes() {
        // What is reserved is what the limits hold, where the kernel counts it (5.7).
        let reserved = files.number(&format!("hugetlb.{size}.rsvd.current"))?;
        let usage = match reserved {
            Some(usage) => usage,
            None => files.count(&format!("hugetlb.{size}.current"))?,
        };
        let events = files.keyed(&format!("hugetlb.{size}.events"))?;
        let failcnt = events.get("max").copied().unwrap_or_default();
        stats.hugetlb.insert(size, Counted { usage, max: 0, failcnt });
    }
    Ok(())
}
