//! systemd as whoever runs a test has it: root the machine's, another user its own.

use std::path::PathBuf;
use std::process::Command;

use crate::Said;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether there is one.
pub fn is_there() -> bool {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !is_root());
    own.map_or("/run".into(), PathBuf::from).join("systemd/private").exists()
}

/// `systemctl`, to its end.
///
/// # Panics
/// It is not installed.
pub fn systemctl(arguments: &[&str]) -> Said {
    let mut systemctl = Command::new("systemctl");
    if !is_root() {
        systemctl.arg("--user");
    }
    systemctl.args(arguments).output().expect("systemctl is installed").into()
}

/// A property of a unit, as text.
pub fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "-p", name, unit]).out.trim().to_owned()
}

/// Whether a unit is there and does something.
pub fn is_loaded(unit: &str) -> bool {
    property(unit, "LoadState") == "loaded" && property(unit, "ActiveState") != "inactive"
}
