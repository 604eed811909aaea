//! How the kernel runs the container's process. Pure.
//!
//! Source: runtime-spec, config.md "Linux Process", config-linux.md "Personality" and "Memory policy".

use hull_sys::sched::SchedAttr;
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType,
    MemoryPolicyModeType, Process,
};

use crate::error::{Error, Result};

/// Scheduling and what goes with it; `None` leaves what is inherited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// `sched_setattr(2)`.
    pub scheduler: Option<SchedAttr>,
    /// Class and level, as [`hull_sys::sched::set_io_priority`] takes them.
    pub io_priority: Option<(u16, u16)>,
    /// `personality(2)`.
    pub personality: Option<u32>,
    /// Mode with flags, and nodes, as [`hull_sys::sched::set_memory_policy`] takes them.
    pub memory_policy: Option<(u32, Vec<u64>)>,
    /// For an exec only: processors before it joins the container's groups, and after.
    pub exec_affinity: ExecAffinity,
}

/// The processors of an exec, as bits; `None` leaves them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecAffinity {
    /// Before it joins the container's groups.
    pub before: Option<Vec<u64>>,
    /// After that.
    pub after: Option<Vec<u64>>,
}

impl Running {
    pub(super) fn from_spec(process: &Process, linux: &Linux) -> Result<Self> {
        Ok(Self {
            scheduler: scheduler(process)?,
            io_priority: io_priority(process)?,
            personality: personality(linux)?,
            memory_policy: memory_policy(linux)?,
            exec_affinity: exec_affinity(process)?,
        })
    }
}

fn scheduler(process: &Process) -> Result<Option<SchedAttr>> {
    use LinuxSchedulerFlag as Flag;
    use LinuxSchedulerPolicy as Policy;
    let Some(wanted) = process.scheduler() else { return Ok(None) };
    let refuse = |cause: String| Err(Error::invalid(format!("set the scheduler to {}", wanted.policy()), cause));
    let number = match wanted.policy() {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIso => 4,
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
    };
    let (nice, priority) = (wanted.nice().unwrap_or(0), wanted.priority().unwrap_or(0));
    let times = [*wanted.runtime(), *wanted.deadline(), *wanted.period()].map(|time| time.unwrap_or(0));
    if !(-20..=19).contains(&nice) {
        return refuse(format!("nice is from -20 to 19, not {nice}"));
    }
    if priority != 0 && !matches!(wanted.policy(), Policy::SchedFifo | Policy::SchedRr) || priority < 0 {
        return refuse("a priority is for SCHED_FIFO and SCHED_RR".to_owned());
    }
    if times != [0; 3] && *wanted.policy() != Policy::SchedDeadline {
        return refuse("runtime, deadline and period are for SCHED_DEADLINE".to_owned());
    }
    let flag = |flag: &Flag| match flag {
        Flag::SchedResetOnFork => 0x01,
        Flag::SchedFlagReclaim => 0x02,
        Flag::SchedFlagDLOverrun => 0x04,
        Flag::SchedFlagKeepPolicy => 0x08,
        Flag::SchedFlagKeepParams => 0x10,
        Flag::SchedFlagUtilClampMin => 0x20,
        Flag::SchedFlagUtilClampMax => 0x40,
    };
    let flags = wanted.flags().iter().flatten().map(flag).fold(0, |all, flag: u64| all | flag);
    let [runtime, deadline, period] = times;
    let priority = priority.unsigned_abs();
    Ok(Some(SchedAttr { size: 0, policy: number, flags, nice, priority, runtime, deadline, period }))
}

/// Class and level.
fn io_priority(process: &Process) -> Result<Option<(u16, u16)>> {
    let Some(wanted) = process.io_priority() else { return Ok(None) };
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u16::try_from(wanted.priority()) {
        Ok(level) if level < 8 => Ok(Some((class, level))),
        _ => Err(Error::invalid(format!("set ioPriority to {}", wanted.priority()), "it goes from 0 to 7")),
    }
}

fn personality(linux: &Linux) -> Result<Option<u32>> {
    const PER_LINUX32: u32 = 8;
    let Some(wanted) = linux.personality() else { return Ok(None) };
    if let Some(flag) = wanted.flags().iter().flatten().next() {
        return Err(Error::invalid(
            format!("set the personality flag {flag:?}"),
            "the specification has no flags yet",
        ));
    }
    Ok(Some(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
    }))
}

fn memory_policy(linux: &Linux) -> Result<Option<(u32, Vec<u64>)>> {
    use MemoryPolicyFlagType as Flag;
    use MemoryPolicyModeType as Mode;
    let Some(wanted) = linux.memory_policy() else { return Ok(None) };
    let mode = match wanted.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &Flag| match flag {
        Flag::MpolFStaticNodes => 1 << 15,
        Flag::MpolFRelativeNodes => 1 << 14,
        Flag::MpolFNumaBalancing => 1 << 13,
    };
    let flags = wanted.flags().iter().flatten().map(flag).fold(0, |all, flag: u32| all | flag);
    let nodes = wanted.nodes().as_deref().unwrap_or_default();
    let nodes = list(nodes).map_err(|cause| Error::invalid("set the memory policy", cause))?;
    Ok(Some((mode | flags, nodes)))
}

fn exec_affinity(process: &Process) -> Result<ExecAffinity> {
    let Some(wanted) = process.exec_cpu_affinity() else { return Ok(ExecAffinity::default()) };
    let read = |text: &Option<String>| {
        text.as_deref()
            .filter(|text| !text.is_empty())
            .map(|text| list(text).map_err(|cause| Error::invalid("set execCPUAffinity", cause)))
            .transpose()
    };
    Ok(ExecAffinity { before: read(wanted.initial())?, after: read(wanted.cpu_affinity_final())? })
}

/// `0-3,7` as bits, as `cpuset(7)` has it ("List format").
fn list(text: &str) -> std::result::Result<Vec<u64>, String> {
    /// More processors or nodes than any kernel is built for.
    const MOST: usize = 8192;
    let mut bits = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number < MOST);
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(format!("{part:?} in {text:?} is neither a number nor a range"));
        };
        if first > last {
            return Err(format!("the range {part:?} goes backwards"));
        }
        bits.resize(bits.len().max(last / 64 + 1), 0);
        (first..=last).for_each(|number| bits[number / 64] |= 1u64 << (number % 64));
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn running(process: Value, linux: Value) -> Result<Running> {
        let mut whole = json!({"cwd": "/", "user": {}});
        whole.as_object_mut().unwrap().extend(process.as_object().unwrap().clone());
        Running::from_spec(&serde_json::from_value(whole).unwrap(), &serde_json::from_value(linux).unwrap())
    }

    #[test]
    fn lists_are_bits() {
        assert_eq!(list("0-3,7").unwrap(), [0b1000_1111]);
        assert_eq!(list("64").unwrap(), [0, 1]);
        assert_eq!(list("").unwrap(), [0u64; 0]);
        for bad in ["x", "3-1", "1-", "99999", "-1"] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scheduler_takes_only_what_its_policy_uses() {
        let fifo = json!({"scheduler": {"policy": "SCHED_FIFO", "priority": 9, "flags": ["SCHED_RESET_ON_FORK"]}});
        let attr = running(fifo, json!({})).unwrap().scheduler.unwrap();
        assert_eq!((attr.policy, attr.priority, attr.flags), (1, 9, 1));
        for bad in [
            json!({"policy": "SCHED_OTHER", "priority": 1}),
            json!({"policy": "SCHED_BATCH", "runtime": 1}),
            json!({"policy": "SCHED_OTHER", "nice": 20}),
        ] {
            let error = running(json!({ "scheduler": bad }), json!({})).unwrap_err();
            assert!(error.to_string().starts_with("cannot set the scheduler to SCHED_"), "{error}");
        }
    }

    #[test]
    fn priorities_personalities_and_memory_policies_become_the_kernels_numbers() {
        let process = json!({
            "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 7},
            "execCPUAffinity": {"initial": "0", "final": "1"},
        });
        let linux = json!({
            "personality": {"domain": "LINUX32"},
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        });
        let all = running(process, linux).unwrap();
        assert_eq!((all.io_priority, all.personality), (Some((3, 7)), Some(8)));
        assert_eq!(all.memory_policy, Some((2 | 1 << 15, vec![1])));
        assert_eq!(all.exec_affinity, ExecAffinity { before: Some(vec![1]), after: Some(vec![2]) });
        let eight = json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}});
        assert!(running(eight, json!({})).unwrap_err().to_string().contains("from 0 to 7"));
        let flag = json!({"personality": {"domain": "LINUX", "flags": ["X"]}});
        assert!(running(json!({}), flag).unwrap_err().to_string().contains("\"X\""));
    }
}
