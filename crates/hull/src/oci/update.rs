//! `update`: other limits for a container that exists.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use hull_engine::options::bytes;
use hull_runtime::cgroup::{self, Host, Write};
use hull_runtime::objects;
use hull_runtime::rdt::{self, Rdt};
use hull_runtime::spec;
use hull_runtime::state::{Folder, State, Status};
use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};
use serde_json::{Value, json};

use super::manage::groups;
use crate::report::Report;

/// A document of limits has some thousand bytes.
const LARGEST: u64 = 1 << 20;

// What `update` takes. A value that is not given, or 0 where 0 is no limit, stays as it is.
#[derive(Args)]
pub struct UpdateArgs {
    /// File with the limits in the specification's form, `-` for standard input; other options come on top of it
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Weight of block input and output, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Length of a period of processor time, in microseconds
    #[arg(long, value_name = "TIME")]
    cpu_period: Option<u64>,
    /// Processor time in a period at most, in microseconds; -1 for no limit
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Unused processor time that may be used later in addition, in microseconds
    #[arg(long, value_name = "TIME")]
    cpu_burst: Option<u64>,
    /// Weight of processor time, 2 to 262144
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// Length of a period of realtime scheduling, in microseconds
    #[arg(long, value_name = "TIME")]
    cpu_rt_period: Option<u64>,
    /// Realtime scheduling in a period at most, in microseconds
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    /// Processors, like 0-2,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Bytes of memory at most, with a suffix if you like (512m); -1 for no limit
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory: Option<String>,
    /// 1: processor time only when nobody else wants it
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    /// Bytes of memory that are kept when memory is short
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory_reservation: Option<String>,
    /// Bytes of memory and swap together at most; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory_swap: Option<String>,
    /// Processes and threads at most; -1 for no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Schema of the L3 cache, for Intel RDT
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Schema of memory bandwidth, for Intel RDT
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    #[arg(value_name = "ID")]
    id: String,
}

impl UpdateArgs {
    /// What is asked for, as the specification has it; `version` is that of the container's.
    fn resources(&self, version: &str) -> Result<LinuxResources, Report> {
        let size = |flag: &str, value: &Option<String>| {
            value.as_deref().map(|text| if text == "-1" { Ok(-1) } else { bytes(flag, text) }).transpose()
        };
        let given = json!({
            "blockIO": {"weight": self.blkio_weight},
            "cpu": {
                "period": self.cpu_period, "quota": self.cpu_quota, "burst": self.cpu_burst, "shares": self.cpu_share,
                "realtimePeriod": self.cpu_rt_period, "realtimeRuntime": self.cpu_rt_runtime, "idle": self.cpu_idle,
                "cpus": self.cpuset_cpus, "mems": self.cpuset_mems,
            },
            "memory": {
                "limit": size("--memory", &self.memory)?, "swap": size("--memory-swap", &self.memory_swap)?,
                "reservation": size("--memory-reservation", &self.memory_reservation)?,
            },
            "pids": self.pids_limit.map(|limit| json!({"limit": limit})),
        });
        let given = read("use the options", &given)?;
        match &self.resources {
            None => Ok(given),
            Some(file) => Ok(cgroup::merged(&document(file, version)?, &given)?),
        }
    }
}

impl UpdateArgs {
    /// The container's group in the resctrl file system, with other schemata, if those are asked for.
    fn rdt(&self, state: &State) -> Result<Option<Rdt>, Report> {
        let (cache, bandwidth) = (&self.l3_cache_schema, &self.mem_bw_schema);
        let flag = match (cache, bandwidth) {
            (None, None) => return Ok(None),
            (Some(_), _) => "--l3-cache-schema",
            _ => "--mem-bw-schema",
        };
        let mut given = LinuxIntelRdt::default();
        given.set_l3_cache_schema(cache.clone()).set_mem_bw_schema(bandwidth.clone());
        let root = rdt::root(flag)?;
        Ok(Some(match &state.rdt {
            Some(rdt) => Rdt { schemata: rdt::lines(&given), ..rdt.clone() },
            None => Rdt::of(&root, &given, &state.id)?,
        }))
    }
}

/// The limits in a file.
fn document(path: &Path, version: &str) -> Result<LinuxResources, Report> {
    let doing = || format!("read the resources from {}", path.display());
    let mut text = Vec::new();
    let mut read_all = |from: &mut dyn Read| from.take(LARGEST + 1).read_to_end(&mut text);
    let done = match path.to_str() {
        Some("-") => read_all(&mut std::io::stdin()),
        _ => File::open(path).and_then(|mut file| read_all(&mut file)),
    };
    done.map_err(|error| Report::host(doing(), error))?;
    if text.len() as u64 > LARGEST {
        return Err(Report::host(doing(), format!("it is larger than {LARGEST} bytes")));
    }
    let mut value: Value = serde_json::from_slice(&text).map_err(|error| Report::host(doing(), error))?;
    let given = value.pointer("/pids/limit").is_some_and(|limit| limit != 0 || spec::zero_means(version) == 0);
    if let Some(fields) = value.as_object_mut().filter(|_| !given) {
        fields.remove("pids");
    }
    read(&doing(), &value)
}

fn read(doing: &str, value: &Value) -> Result<LinuxResources, Report> {
    objects::from_value(without_nulls(value)).map_err(|error| Report::host(doing, error))
}

/// A null is a field that is not given.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect(),
        other => other.clone(),
    }
}

/// `update`.
pub fn update(root: &Path, args: &UpdateArgs) -> Result<i32, Report> {
    let folder = Folder::open(root, &args.id)?;
    // Two updates at once would each keep what the other changed.
    let _turn = folder.wait_for_turn()?;
    let mut state = folder.state()?;
    if folder.status(&state)? == Status::Stopped {
        return Err(Report::usage("container not running", None));
    }
    let update = args.resources(&state.oci_version)?;
    let host = Host::detect()?;
    let now = cgroup::plan(&host, &state.resources)?;
    state.resources = cgroup::merged(&state.resources, &update)?;
    let new = cgroup::plan(&host, &state.resources)?;
    let groups = groups(&state)?;
    let rdt = args.rdt(&state)?;
    let check = state.resources.memory().is_some_and(|memory| memory.check_before_update() == Some(true));
    if check {
        groups.check_memory(&update)?;
    }
    let set = |limits: &[Write]| match &state.unit {
        Some(unit) => groups.update_unit(&host, unit, limits),
        None => groups.update(&host, limits),
    };
    set(&new)?;
    if let Some(rdt) = rdt {
        // Those of a class that is new to the container's processes; the others are in it.
        let pids = if state.rdt.is_none() { groups.processes()? } else { Vec::new() };
        if let Err(error) = rdt.apply(&pids) {
            // The reason is told; what was in force a moment ago can be set again.
            let _ = set(&now);
            return Err(error.into());
        }
        state.rdt = Some(rdt);
    }
    folder.write(&state)?;
    Ok(0)
}
