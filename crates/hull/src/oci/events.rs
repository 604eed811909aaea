//! `events`: what a container uses, again and again, and when its memory is at its end.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use hull_runtime::cgroup::{self, Cgroup, OutOfMemory, Stats};
use hull_runtime::rdt::Rdt;
use hull_runtime::state::{self, State, Status};
use hull_sys::process;
use serde_json::{Value, json};

use super::manage::{find, groups};
use crate::report::Report;

/// `events`: with `once` one line of numbers, else until the container has ended.
pub fn events(root: &Path, id: &str, interval: Duration, once: bool) -> Result<i32, Report> {
    if interval.is_zero() {
        return Err(Report::usage("duration interval must be greater than 0", None));
    }
    let (_, state, status) = find(root, id)?;
    let init = state::init(&state)?.filter(|_| status != Status::Stopped);
    let Some(init) = init else {
        return Err(Report::usage(format!("container with id {id} is not running"), None));
    };
    let groups = groups(&state)?;
    if once {
        return tell("stats", id, Some(&stats(&state, &groups)?));
    }
    let memory = groups.watch_memory()?;
    follow(&state, &groups, memory, &init, interval)
}

fn follow(
    state: &State,
    groups: &Cgroup,
    mut memory: OutOfMemory<'_>,
    init: &OwnedFd,
    interval: Duration,
) -> Result<i32, Report> {
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let waited = process::await_end(init.as_fd(), Some(memory.as_fd()), Some(left));
        let (ended, happened) = waited.map_err(|error| Report::host("wait for events", error))?;
        // It may have ended of just that.
        for _ in 0..memory.happened() {
            tell("oom", &state.id, None)?;
        }
        if ended {
            return Ok(0);
        }
        if !happened {
            next += interval;
            match stats(state, groups) {
                Ok(stats) => drop(tell("stats", &state.id, Some(&stats))?),
                // Its groups went with it.
                Err(_) if state::init(state)?.is_none() => return Ok(0),
                Err(report) => return Err(report),
            }
        }
    }
}

fn stats(state: &State, groups: &Cgroup) -> Result<Stats, Report> {
    let mut stats = groups.stats()?;
    stats.intel_rdt = state.rdt.as_ref().map(Rdt::stats).unwrap_or_default();
    let own = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
    let pid = state.process.pid.to_string();
    // In the host's network the numbers would be the host's.
    if let (Ok(theirs), Ok(ours)) = (own(&pid), own("self")) {
        let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
        stats.network_interfaces = (theirs != ours).then(|| cgroup::interfaces(&text));
    }
    Ok(stats)
}

/// A line of the output, at once.
fn tell(kind: &str, id: &str, stats: Option<&Stats>) -> Result<i32, Report> {
    let doing = "write to standard output";
    let mut line = json!({"type": kind, "id": id});
    if let Some(stats) = stats {
        line["data"] = serde_json::to_value(stats).unwrap_or(Value::Null);
    }
    let written = writeln!(std::io::stdout(), "{line}");
    written.map(|()| 0).map_err(|error| Report::host(doing, error))
}

/// A length of time as Go writes it, `1m30s`, `1.5h` or `250ms`.
///
/// # Errors
/// It has another form, or is negative.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a length of time like 5s, 1m30s or 250ms");
    let mut rest = text;
    let mut all = 0f64;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (digits, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        all += digits.parse::<f64>().map_err(|_| wrong())? * seconds;
        rest = after;
    }
    match text {
        "" => Err(wrong()),
        _ => Duration::try_from_secs_f64(all).map_err(|_| wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_written_as_go_does() {
        for (text, milliseconds) in [("5s", 5000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("250ms", 250), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "5x", "1..5s", "5 s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
