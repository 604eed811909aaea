//! Who calls: root, or somebody else, of whom runc asks less ("rootless"). That is an ordinary user as well as root of a
//! user namespace, where Podman and Docker without root call their runtime.

use std::fs::{self, DirBuilder, Permissions};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use hull_runtime::plan::{self, Plan};
use hull_runtime::unprivileged;
use rustix::process::geteuid;

use super::Rootless;
use crate::report::Report;

/// The kernel's text for a user namespace in which every id is what it is outside: the first one.
const EVERY_ID: [&str; 3] = ["0", "0", "4294967295"];
/// The number of the first user namespace (`USER_NS_INIT_INO` of linux/nsfs.h).
const FIRST: u64 = 0xEFFF_FFFD;
const ROOT: &str = "/run/hull-oci";

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The machine's root.
    Root,
    /// Somebody else, by the id outside of our user namespace.
    User(u32),
}

impl Caller {
    /// `rootless` is what the command line says of it.
    pub fn look(rootless: Rootless) -> Result<Self, Report> {
        let doing = |error| Report::host("look at the user namespace", error);
        let own = fs::metadata("/proc/self/ns/user").map_err(doing)?;
        if own.ino() == FIRST {
            return Ok(of(&EVERY_ID.join(" "), geteuid().as_raw(), rootless));
        }
        let text = fs::read_to_string("/proc/self/uid_map").map_err(doing)?;
        Ok(of(&text, geteuid().as_raw(), rootless))
    }

    /// Whether it is not root.
    pub fn is_user(self) -> bool {
        matches!(self, Self::User(_))
    }

    /// The folder of states if none is named: runc's rule with another name, for which `--rootless` means nothing. The
    /// user's is made here.
    pub fn root() -> Result<PathBuf, Report> {
        let root_inside = geteuid().is_root() && std::env::var("USER").is_ok_and(|user| user == "root");
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
        let folder = match (Self::look(Rootless::Auto)?, runtime) {
            (Self::User(_), Some(folder)) if !root_inside => PathBuf::from(folder).join("hull-oci"),
            _ => return Ok(ROOT.into()),
        };
        let made = || -> std::io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            // Sticky: what is old there is removed otherwise (XDG Base Directory Specification).
            fs::set_permissions(&folder, Permissions::from_mode(0o1700))
        };
        made().map_err(|error| Report::host(format!("make {}", folder.display()), error))?;
        Ok(folder)
    }

    /// Gets the rights that it takes to make a container: an ordinary user has them in the container's user namespace.
    pub fn enter(self, plan: &mut Plan) -> Result<(), Report> {
        match (self, geteuid().is_root()) {
            (Self::Root, true) => return Ok(()),
            (Self::User(_), true) => unprivileged::own_mounts()?,
            (_, false) => unprivileged::enter(&mut plan.namespaces)?,
        }
        settle(&mut plan.process)
    }

    /// The same for a further process of the container whose first one is `init`.
    pub fn join(self, init: BorrowedFd<'_>, process: &mut plan::Process) -> Result<(), Report> {
        match (self, geteuid().is_root()) {
            (Self::Root, true) => return Ok(()),
            (Self::User(_), true) => {}
            (_, false) => unprivileged::join(init)?,
        }
        settle(process)
    }
}

fn settle(process: &mut plan::Process) -> Result<(), Report> {
    if unprivileged::groups_are_fixed()? {
        process.leave_groups()?;
    }
    Ok(())
}

fn of(uid_map: &str, euid: u32, rootless: Rootless) -> Caller {
    let ranges: Vec<Vec<&str>> = uid_map.lines().map(|line| line.split_whitespace().collect()).collect();
    let outside = |range: &Vec<&str>| {
        let number = |at: usize| range.get(at).and_then(|word: &&str| word.parse::<u32>().ok());
        let offset = euid.checked_sub(number(0)?)?;
        (offset < number(2)?).then_some(number(1)? + offset)
    };
    let root = euid == 0 && ranges == [EVERY_ID];
    match rootless {
        Rootless::False => Caller::Root,
        Rootless::Auto if root => Caller::Root,
        _ => Caller::User(ranges.iter().find_map(outside).unwrap_or(euid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_who_has_no_id_of_anybody_elses() {
        let all = "         0          0 4294967295\n";
        let podman = "         0       1000          1\n         1     100000      65536\n";
        for (map, euid, flag, wanted) in [
            (all, 0, Rootless::Auto, Caller::Root),
            (all, 0, Rootless::True, Caller::User(0)),
            (all, 1000, Rootless::Auto, Caller::User(1000)),
            (podman, 0, Rootless::Auto, Caller::User(1000)),
            (podman, 2, Rootless::Auto, Caller::User(100_001)),
            (podman, 0, Rootless::False, Caller::Root),
        ] {
            assert_eq!(of(map, euid, flag), wanted, "{map} {euid}");
        }
    }
}
