//! What is said to systemd, over the socket of its own that it has for root and for each user.
//!
//! It is spoken to only where `--systemd-cgroup` asks for it. Source: `org.freedesktop.systemd1(5)`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use zvariant::{DynamicType, OwnedObjectPath};

use super::dbus::{Failed, Line, Message};
use super::unit::{Property, Unit};
use crate::error::{Error, Result};

/// How long systemd may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

fn socket(user: Option<u32>) -> PathBuf {
    match user {
        None => "/run/systemd/private".into(),
        Some(user) => {
            let folder =
                std::env::var_os("XDG_RUNTIME_DIR").map_or(format!("/run/user/{user}").into(), PathBuf::from);
            folder.join("systemd/private")
        }
    }
}

/// Whether there is a systemd to speak to; says nothing to it.
///
/// # Errors
/// There is none.
pub fn check(unit: &Unit) -> Result<()> {
    let socket = socket(unit.user);
    if socket.exists() {
        return Ok(());
    }
    let whose = if unit.user.is_some() { "the user has no session of systemd's" } else { "systemd did not start it" };
    let cause = format!("{} is not there, so on this machine {whose}", socket.display());
    Err(Error::invalid("let systemd make the control groups", cause)
        .hint("leave --systemd-cgroup out: hull writes the control groups itself then (cgroupfs)"))
}

/// A connection to the manager of a unit.
pub(super) struct Systemd<'a> {
    unit: &'a Unit,
    line: Line,
}

impl<'a> Systemd<'a> {
    /// Connects to the manager that has, or will have, `unit`.
    pub(super) fn connect(unit: &'a Unit) -> Result<Self> {
        let socket = socket(unit.user);
        let line = Line::connect(&socket, unit.user.unwrap_or(0), PATIENCE);
        let line = line.map_err(|error| Error::setup(format!("speak to systemd at {}", socket.display()), error))?;
        Ok(Self { unit, line })
    }

    /// Starts the unit, with `properties` that name its process, and waits until it is there.
    pub(super) fn start(&mut self, properties: &[Property]) -> Result<()> {
        let name = &self.unit.name;
        let doing = || format!("start {name}");
        let auxiliary: &[(String, Vec<Property>)] = &[];
        let start = (name, "replace", properties, auxiliary);
        let job = match self.call("StartTransientUnit", &start) {
            // One that failed stays under its name until it is told off.
            Err(Failed::Said(error, _)) if error.ends_with(".UnitExists") => {
                let _ = self.call("ResetFailedUnit", &(name,));
                self.call("StartTransientUnit", &start)
            }
            other => other,
        };
        match job.and_then(|job| self.end_of(&job)) {
            Ok(result) if result == "done" => Ok(()),
            Ok(result) => {
                let _ = self.call("ResetFailedUnit", &(name,));
                Err(Error::setup(doing(), format!("its job ended as {result:?}")))
            }
            Err(failed) => Err(refused(doing(), failed)),
        }
    }

    /// Changes limits of the unit, until the next boot.
    pub(super) fn set(&mut self, properties: &[Property]) -> Result<()> {
        let name = &self.unit.name;
        let done = self.call("SetUnitProperties", &(name, true, properties));
        done.map(drop).map_err(|failed| refused(format!("set properties of {name}"), failed))
    }

    /// Stops the unit, in which nothing runs any more; one that is not there is stopped.
    pub(super) fn stop(&mut self) -> Result<()> {
        let name = &self.unit.name;
        let stopped = match self.call("StopUnit", &(name, "replace")) {
            Err(Failed::Said(error, _)) if error.ends_with(".NoSuchUnit") => return Ok(()),
            job => job.and_then(|job| self.end_of(&job)),
        };
        // Of one that has not failed there is nothing to tell off.
        let _ = self.call("ResetFailedUnit", &(name,));
        stopped.map(drop).map_err(|failed| refused(format!("stop {name}"), failed))
    }

    fn call<B: Serialize + DynamicType>(&mut self, method: &str, body: &B) -> std::result::Result<Message, Failed> {
        self.line.call(PATH, MANAGER, method, body)
    }

    /// Waits for the end of the job that `reply` names; how it ended. Everybody at this socket is told of every job.
    fn end_of(&mut self, reply: &Message) -> std::result::Result<String, Failed> {
        let ours: OwnedObjectPath = reply.arguments()?;
        loop {
            let signal = self.line.signal()?;
            if signal.member == "JobRemoved" {
                let (_, job, _, result): (u32, OwnedObjectPath, String, String) = signal.arguments()?;
                if job == ours {
                    return Ok(result);
                }
            }
        }
    }
}

/// What systemd says, in its words.
fn refused(doing: String, failed: Failed) -> Error {
    match failed {
        Failed::Said(_, words) => Error::setup(doing, format!("systemd says: {words}")),
        Failed::Line(error) => Error::setup(doing, error),
    }
}
