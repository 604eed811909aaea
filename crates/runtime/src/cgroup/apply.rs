//! Values into the files of the groups: in an order that the kernel takes, and back out if one of them is refused.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::{Errno, fs};
use oci_spec::runtime::LinuxResources;

use super::group::Group;
use super::host::{Host, Version};
use super::limits::Write;
use super::live::Cgroup;
use crate::error::{Error, Result};

/// A value, and the file of the group that it is for.
#[derive(Clone, Copy)]
struct Step<'g, 'w> {
    group: &'g Group,
    file: &'w str,
    value: &'w str,
}

/// What a file said before it was written.
pub(super) struct Former<'a> {
    group: &'a Group,
    file: String,
    value: String,
}

impl Cgroup {
    /// Sets the limits of new groups.
    pub(super) fn set_all(&self, host: &Host, writes: &[Write]) -> Result<()> {
        // Device lines are many, and all go to the same two files.
        let mut lines: Option<(&str, OwnedFd)> = None;
        in_passes(self.steps(host, writes)?, |Step { group, file, value }| {
            if let Some((_, open)) = lines.as_ref().filter(|(name, _)| *name == file) {
                return fs::write(open.as_fd(), value.as_bytes());
            }
            let Some(open) = group.open_for(file, value)? else { return Ok(()) };
            group.put(open.as_fd(), file, value)?;
            if file.starts_with("devices.") {
                lines = Some((file, open));
            }
            Ok(())
        })
        .map_err(|(step, error)| step.refused(error))
    }

    /// Changes the limits of a container that is there; its rules for devices stay. A file that says the value already is
    /// left alone.
    ///
    /// # Errors
    /// The file that refused a value, with the value. What was changed before has its former value again then, and what
    /// did not take that is named as well.
    pub fn update(&self, host: &Host, writes: &[Write]) -> Result<()> {
        self.change(host, writes).map(drop)
    }

    /// The same; gives what was changed, to be undone by [`undone`].
    pub(super) fn change(&self, host: &Host, writes: &[Write]) -> Result<Vec<Former<'_>>> {
        let writes: Vec<Write> = writes.iter().filter(|write| write.controller != "devices").cloned().collect();
        let mut formers: Vec<Former<'_>> = Vec::new();
        let changed = in_passes(self.steps(host, &writes)?, |Step { group, file, value }| {
            let Some(open) = group.open_for(file, value)? else { return Ok(()) };
            // Some can only be written.
            let former = group.text(file).ok().map(|text| former(file, value, &text));
            if former.as_deref() == Some(value) {
                return Ok(());
            }
            // A weight goes when a group becomes idle, and does not come back with the end of that.
            for weight in ["cpu.weight", "cpu.shares"].into_iter().filter(|_| file == "cpu.idle") {
                let text = group.text(weight).ok();
                formers.extend(text.map(|text| Former {
                    group,
                    file: weight.to_owned(),
                    value: text.trim().to_owned(),
                }));
            }
            group.put(open.as_fd(), file, value)?;
            formers.extend(former.map(|value| Former { group, file: file.to_owned(), value }));
            Ok(())
        });
        match changed {
            Ok(()) => Ok(formers),
            Err((step, error)) => Err(undone(formers, step.refused(error))),
        }
    }

    /// Whether what is used fits already: `checkBeforeUpdate`. v1's kernel looks itself; v2's makes it fit by killing.
    ///
    /// # Errors
    /// It does not fit.
    pub fn check_memory(&self, update: &LinuxResources) -> Result<()> {
        let Some(memory) = update.memory() else { return Ok(()) };
        let unified = self.groups.iter().find_map(|group| group.text("memory.current").ok());
        let Some(used) = unified.and_then(|text| text.trim().parse::<i64>().ok()) else { return Ok(()) };
        for (field, limit) in [("memory.swap", memory.swap()), ("memory.limit", memory.limit())] {
            if let Some(limit) = limit.filter(|limit| *limit > 0 && *limit <= used) {
                let cause = format!("{used} bytes are in use, and checkBeforeUpdate is set");
                return Err(Error::invalid(format!("set {field} to {limit}"), cause));
            }
        }
        Ok(())
    }

    /// The writes with their groups, whose controllers are passed on to them.
    fn steps<'g, 'w>(&'g self, host: &Host, writes: &'w [Write]) -> Result<Vec<Step<'g, 'w>>> {
        let mut steps = Vec::with_capacity(writes.len());
        for write in writes {
            let group = self.group(host, write)?;
            let unified = group.hierarchy.version == Version::V2;
            if unified && write.controller == "devices" {
                continue;
            }
            if unified && !write.controller.is_empty() {
                group.enable(&write.controller)?;
            }
            let (file, value) = match &write.instead {
                Some((file, value)) if !group.has(&write.file) => (*file, value),
                _ => (&*write.file, &write.value),
            };
            steps.push(Step { group, file, value });
        }
        Ok(steps)
    }
}

/// Gives the files their former values again, because of `error`, which names also what does not take it.
pub(super) fn undone(mut formers: Vec<Former<'_>>, error: Error) -> Error {
    formers.reverse();
    let back = in_passes(formers.iter().collect(), |former| {
        fs::write(former.group.open(&former.file)?.as_fd(), former.value.as_bytes())
    });
    let Err((former, again)) = back else { return error };
    let more = former.group.refused(&former.file, &former.value, again);
    Error { cause: format!("{}; and cannot take back what was changed: {more}", error.cause), ..error }
}

impl Step<'_, '_> {
    fn refused(&self, error: hull_sys::Error) -> Error {
        self.group.refused(self.file, self.value, error)
    }
}

/// Does `each`, first to last. What does not fit (EINVAL) is tried again after the rest, as long as that changes something:
/// the kernel holds memory against memory and swap, and a quota against its period and burst, in both directions.
fn in_passes<T: Copy>(
    mut rest: Vec<T>,
    mut each: impl FnMut(T) -> hull_sys::Result<()>,
) -> std::result::Result<(), (T, hull_sys::Error)> {
    loop {
        let count = rest.len();
        let mut refused = Vec::new();
        let mut first = None;
        for one in rest {
            match each(one) {
                Ok(()) => {}
                Err(error) if error.errno() == Errno::INVAL => {
                    refused.push(one);
                    first.get_or_insert((one, error));
                }
                Err(error) => return Err((one, error)),
            }
        }
        match first {
            None => return Ok(()),
            Some(first) if refused.len() == count => return Err(first),
            Some(_) => rest = refused,
        }
    }
}

/// What has to be written to `file` to undo the writing of `value`, given what it says before.
fn former(file: &str, value: &str, text: &str) -> String {
    // Of the files with a line for each device, what a device has that no line speaks of.
    let none = match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "rdma.max" => "hca_handle=max hca_object=max",
        _ if file.starts_with("blkio.throttle.") => "0",
        "io.weight" | "io.bfq.weight" | "blkio.bfq.weight_device" => "default",
        "blkio.weight_device" | "blkio.leaf_weight_device" | "net_prio.ifpriomap" => "0",
        "memory.oom_control" => return text.split_whitespace().nth(1).unwrap_or("0").to_owned(),
        _ => "",
    };
    let Some((device, _)) = value.split_once(' ').filter(|_| !none.is_empty()) else {
        let plain = text.strip_prefix("default ").unwrap_or(text).lines().next().unwrap_or_default().trim();
        // An empty write does not reach the file; an empty line is what takes a cpuset back.
        return if plain.is_empty() { "\n".to_owned() } else { plain.to_owned() };
    };
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(device));
    line.map_or_else(|| format!("{device} {none}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid() -> hull_sys::Error {
        hull_sys::Error::new("write", "", Errno::INVAL)
    }

    /// A kernel with two numbers of which the first may not be above the second, as memory, and memory with swap.
    fn set(from: (u64, u64), to: (u64, u64)) -> std::result::Result<(u64, u64), hull_sys::Error> {
        let mut now = from;
        let done = in_passes(vec![(0, to.0), (1, to.1)], |(which, value)| {
            let next = if which == 0 { (value, now.1) } else { (now.0, value) };
            if next.0 > next.1 {
                return Err(invalid());
            }
            now = next;
            Ok(())
        });
        done.map(|()| now).map_err(|(_, error)| error)
    }

    #[test]
    fn two_limits_that_are_held_against_each_other_grow_and_shrink_in_one_order() {
        for (from, to) in [((10, 20), (40, 50)), ((40, 50), (10, 20)), ((10, 10), (10, 90)), ((5, 5), (5, 5))] {
            assert_eq!(set(from, to).unwrap(), to, "{from:?}");
        }
        assert_eq!(set((10, 20), (40, 30)).unwrap_err().errno(), Errno::INVAL);
    }

    #[test]
    fn another_error_than_that_it_does_not_fit_ends_it_at_once() {
        let mut tried = Vec::new();
        let done = in_passes(vec![1, 2, 3], |one| {
            tried.push(one);
            Err(if one == 1 { invalid() } else { hull_sys::Error::new("write", "", Errno::BUSY) })
        });
        assert_eq!(done.unwrap_err().0, 2);
        assert_eq!(tried, [1, 2]);
    }

    #[test]
    fn a_former_value_is_one_that_can_be_written() {
        for (file, value, text, expected) in [
            ("memory.max", "10", "max\n", "max"),
            ("cpu.max", "5 10", "max 100000\n", "max 100000"),
            ("cpuset.cpus", "0", "\n", "\n"),
            ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\n", "0"),
            ("io.weight", "200", "default 100\n8:0 300\n", "100"),
            ("io.weight", "8:0 200", "default 100\n8:0 300\n", "8:0 300"),
            ("io.weight", "8:16 200", "default 100\n", "8:16 default"),
            ("io.max", "8:0 rbps=1", "", "8:0 rbps=max wbps=max riops=max wiops=max"),
            (
                "io.max",
                "8:0 rbps=1",
                "8:0 rbps=7 wbps=max riops=max wiops=max\n",
                "8:0 rbps=7 wbps=max riops=max wiops=max",
            ),
            ("blkio.throttle.read_bps_device", "8:0 5", "8:16 7\n", "8:0 0"),
            ("rdma.max", "mlx hca_handle=3", "", "mlx hca_handle=max hca_object=max"),
            ("net_prio.ifpriomap", "lo 5", "lo 2\neth0 0\n", "lo 2"),
        ] {
            assert_eq!(former(file, value, text), expected, "{file} {value}");
        }
    }
}
