//! The files of v1's hierarchies.

use super::{BlkioEntry, Counted, Cpu, Files, MemoryUse, Stats, parse};
use crate::cgroup::group::Group;
use crate::error::Result;

/// `USER_HZ`, in which cpuacct.stat counts; 100 on every architecture that hull runs on.
const TICK: u64 = 1_000_000_000 / 100;

/// Takes up what the group's controllers count.
pub(super) fn read(group: &Group, stats: &mut Stats) -> Result<()> {
    let files = Files(group);
    for controller in &group.hierarchy.controllers {
        match controller.as_str() {
            "cpu" => throttling(&files, &mut stats.cpu)?,
            "cpuacct" => usage(&files, &mut stats.cpu)?,
            "cpuset" => cpuset(&files, stats)?,
            "memory" => memory(&files, stats)?,
            "pids" => stats.pids = files.pids()?,
            "blkio" => blkio(&files, stats)?,
            "hugetlb" => huge_pages(&files, stats)?,
            _ => {}
        }
    }
    Ok(())
}

fn throttling(files: &Files<'_>, cpu: &mut Cpu) -> Result<()> {
    let stat = files.keyed("cpu.stat")?;
    let value = |key: &str| stat.get(key).copied().unwrap_or_default();
    cpu.throttling.periods = value("nr_periods");
    cpu.throttling.throttled_periods = value("nr_throttled");
    cpu.throttling.throttled_time = value("throttled_time");
    Ok(())
}

fn usage(files: &Files<'_>, cpu: &mut Cpu) -> Result<()> {
    let stat = files.keyed("cpuacct.stat")?;
    let ticks = |key: &str| stat.get(key).copied().unwrap_or_default() * TICK;
    (cpu.usage.user, cpu.usage.kernel) = (ticks("user"), ticks("system"));
    cpu.usage.total = files.count("cpuacct.usage")?;
    let text = files.text("cpuacct.usage_percpu")?.unwrap_or_default();
    cpu.usage.percpu = text.split_whitespace().filter_map(|value| value.parse().ok()).collect();
    // "cpu user system", then the numbers of each.
    let text = files.text("cpuacct.usage_all")?.unwrap_or_default();
    for line in text.lines().skip(1) {
        let mut numbers = line.split_whitespace().skip(1).filter_map(|value| value.parse::<u64>().ok());
        cpu.usage.percpu_user.extend(numbers.next());
        cpu.usage.percpu_kernel.extend(numbers.next());
    }
    Ok(())
}

fn cpuset(files: &Files<'_>, stats: &mut Stats) -> Result<()> {
    let set = &mut stats.cpuset;
    (set.cpus, set.mems) = (files.list("cpuset.cpus")?, files.list("cpuset.mems")?);
    for (file, field) in [
        ("cpuset.cpu_exclusive", &mut set.cpu_exclusive),
        ("cpuset.mem_hardwall", &mut set.mem_hardwall),
        ("cpuset.mem_exclusive", &mut set.mem_exclusive),
        ("cpuset.memory_migrate", &mut set.memory_migrate),
        ("cpuset.memory_spread_page", &mut set.memory_spread_page),
        ("cpuset.memory_spread_slab", &mut set.memory_spread_slab),
        ("cpuset.memory_pressure", &mut set.memory_pressure),
        ("cpuset.sched_load_balance", &mut set.sched_load_balance),
    ] {
        *field = files.count(file)?;
    }
    let level = files.text("cpuset.sched_relax_domain_level")?.unwrap_or_default();
    set.sched_relax_domain_level = level.trim().parse().unwrap_or_default();
    Ok(())
}

fn memory(files: &Files<'_>, stats: &mut Stats) -> Result<()> {
    let one = |kind: &str| -> Result<MemoryUse> {
        let kind = format!("memory.{kind}");
        Ok(MemoryUse { limit: files.count(&format!("{kind}limit_in_bytes"))?, now: counted(files, &kind)? })
    };
    let memory = &mut stats.memory;
    (memory.usage, memory.swap) = (one("")?, one("memsw.")?);
    (memory.kernel, memory.kernel_tcp) = (one("kmem.")?, one("kmem.tcp.")?);
    memory.raw = files.keyed("memory.stat")?;
    memory.cache = memory.raw.get("cache").copied().unwrap_or_default();
    Ok(())
}

fn blkio(files: &Files<'_>, stats: &mut Stats) -> Result<()> {
    // The scheduler's own numbers, under one of two names; those of the throttle where it has none.
    let first = |names: &[String]| -> Result<Vec<BlkioEntry>> {
        for name in names {
            let Some(text) = files.text(name)? else { continue };
            let entries = parse::devices(&text).ok_or_else(|| files.strange(name, &text))?;
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    let of = |what: &str| first(&["bfq.", "", "throttle."].map(|kind| format!("blkio.{kind}{what}_recursive")));
    let blkio = &mut stats.blkio;
    blkio.io_service_bytes_recursive = of("io_service_bytes")?;
    blkio.io_serviced_recursive = of("io_serviced")?;
    blkio.io_queued_recursive = of("io_queued")?;
    blkio.io_service_time_recursive = of("io_service_time")?;
    blkio.io_wait_time_recursive = of("io_wait_time")?;
    blkio.io_merged_recursive = of("io_merged")?;
    blkio.io_time_recursive = of("time")?;
    blkio.sectors_recursive = of("sectors")?;
    Ok(())
}

fn huge_pages(files: &Files<'_>, stats: &mut Stats) -> Result<()> {
    for size in files.page_sizes() {
        // What is reserved is what the limits hold, where the kernel counts it (5.7).
        let reserved = files.number(&format!("hugetlb.{size}.rsvd.usage_in_bytes"))?.is_some();
        let kind = if reserved { ".rsvd" } else { "" };
        let pages = counted(files, &format!("hugetlb.{size}{kind}."))?;
        stats.hugetlb.insert(size, pages);
    }
    Ok(())
}

/// The files whose names begin with `kind`.
fn counted(files: &Files<'_>, kind: &str) -> Result<Counted> {
    let file = |what: &str| files.count(&format!("{kind}{what}"));
    Ok(Counted { usage: file("usage_in_bytes")?, max: file("max_usage_in_bytes")?, failcnt: file("failcnt")? })
}
