//! User namespaces that are only there for their mappings: `mount_setattr(2)` takes the mappings of a mount as one.

use std::os::fd::OwnedFd;

use hull_sys::fs::{self, CWD};
use hull_sys::ns::{self, Fork, Namespaces};
use hull_sys::{process, sync};
use rustix::fs::OFlags;

use crate::error::{Doing, Error, Result};
use crate::join;
use crate::plan::{Ids, Isolation};

/// The user namespace with these mappings.
pub(crate) fn user_namespace(ids: &Ids, namespaces: &Isolation) -> Result<OwnedFd> {
    let doing = || "map the ids of a mount".to_owned();
    match ids {
        Ids::Joined => {
            let join = namespaces.joined.iter().find(|join| join.kind == Namespaces::USER);
            let join = join.ok_or_else(|| Error::invalid(doing(), "the container joins no user namespace"))?;
            join::open_one(join)
        }
        Ids::Maps(uids, gids) => {
            let maps = Isolation { uids: uids.clone(), gids: gids.clone(), ..Isolation::default() };
            make(&maps)
        }
    }
}

/// A namespace lives as long as a process or a descriptor: a process is born into it and ends when we hold the other.
fn make(maps: &Isolation) -> Result<OwnedFd> {
    let doing = || "make a user namespace for the ids of a mount".to_owned();
    let (ours, theirs) = sync::pair().doing(doing)?;
    let (pid, pidfd) = match ns::clone3(Namespaces::USER, None).doing(doing)? {
        Fork::Child => {
            drop(ours);
            // Until the parent closes its end.
            let _ = theirs.receive();
            process::exit_now(0)
        }
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    let made = join::write_id_maps(maps, pid)
        .and_then(|()| fs::openat(CWD, &join::proc_file(pid, "ns/user"), OFlags::RDONLY, 0).doing(doing));
    drop(ours);
    process::wait(std::os::fd::AsFd::as_fd(&pidfd), true).doing(doing)?;
    made
}
