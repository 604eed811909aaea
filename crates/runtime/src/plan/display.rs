//! A plan as text: what `--dry-run` prints and golden tests compare.

use std::ffi::CString;
use std::fmt;

use hull_sys::process::LimitName;

use super::{Plan, Process, What, word};
use crate::caps;
use crate::options::propagation_word;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_isolation(f)?;
        self.fmt_tree(f)?;
        for device in &self.net_devices {
            writeln!(f, "network     {} of the host's as {}", device.host, device.name)?;
        }
        for sysctl in &self.sysctl {
            writeln!(f, "sysctl      {} = {}", show(&sysctl.name), sysctl.value)?;
        }
        if let Some(keyring) = &self.keyring {
            writeln!(f, "keyring     {}", show(keyring))?;
        }
        self.process.fmt(f)
    }
}

impl Plan {
    fn fmt_isolation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "namespaces  {}", self.namespaces.new)?;
        for join in &self.namespaces.joined {
            writeln!(f, "joins       {} {}", word(join.kind), join.path.display())?;
        }
        for (name, map) in [("uid map", &self.namespaces.uids), ("gid map", &self.namespaces.gids)] {
            for (inside, outside, size) in &map.0 {
                writeln!(f, "{name}     {inside} is {outside} outside, {size} ids")?;
            }
        }
        for line in self.namespaces.clocks.lines() {
            writeln!(f, "clock       {line}")?;
        }
        self.hostname.iter().try_for_each(|hostname| writeln!(f, "hostname    {}", show(hostname)))
    }

    fn fmt_tree(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mount in &self.mounts {
            let what = match &mount.what {
                What::Bind { source, recursive } => {
                    format!("{} of {}", if *recursive { "rbind" } else { "bind" }, source.display())
                }
                What::Filesystem { kind, .. } => show(kind),
                What::File { text } => format!("a file of {} bytes", text.len()),
                What::Cgroup => "cgroup".to_owned(),
                What::Remount { .. } => "remount".to_owned(),
            };
            let line = format!("mount       {} ({what}) {}", mount.destination.display(), mount.options);
            let label = mount.label.as_ref().map(|label| format!(" labelled {}", show(label))).unwrap_or_default();
            writeln!(f, "{}{label}", line.trim_end())?;
        }
        for device in &self.devices {
            writeln!(f, "device      {device}")?;
        }
        for path in &self.masked {
            writeln!(f, "masked      {}", path.display())?;
        }
        for path in &self.read_only {
            writeln!(f, "read-only   {}", path.display())?;
        }
        if let Some((kind, recursive)) = self.root_propagation {
            writeln!(f, "propagation {}{}", if recursive { "r" } else { "" }, propagation_word(kind))?;
        }
        if self.read_only_root {
            writeln!(f, "read-only   /")?;
        }
        Ok(())
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (resource, soft, hard) in &self.rlimits {
            let shown = |limit: &Option<u64>| limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
            writeln!(f, "rlimit      {} {} (at most {})", LimitName(*resource), shown(soft), shown(hard))?;
        }
        let groups = self.groups.as_ref().map_or("as they are".to_owned(), |groups| format!("{groups:?}"));
        writeln!(f, "user        {}:{} groups {groups}", self.uid, self.gid)?;
        let sets =
            [("bounding", self.caps.bounding), ("effective", self.caps.effective), ("ambient", self.caps.ambient)];
        for (name, mask) in sets {
            let names: Vec<_> = caps::names(mask).collect();
            writeln!(f, "caps        {name}: {}", if names.is_empty() { "none".into() } else { names.join(" ") })?;
        }
        writeln!(f, "no_new_privs {}", self.no_new_privs)?;
        if let Some(profile) = &self.apparmor {
            writeln!(f, "apparmor    {}", show(profile))?;
        }
        if let Some(label) = &self.selinux {
            writeln!(f, "selinux     {}", show(label))?;
        }
        match &self.seccomp {
            Some(program) => writeln!(f, "seccomp     {} instructions", program.filter.len())?,
            None => writeln!(f, "seccomp     unconfined")?,
        }
        if self.terminal {
            writeln!(f, "terminal    one of the container's own")?;
        }
        for variable in &self.env {
            writeln!(f, "env         {}", show(variable))?;
        }
        writeln!(f, "cwd         {}", self.cwd.display())?;
        let argv: Vec<_> = self.argv.iter().map(show).collect();
        writeln!(f, "exec        {argv:?}")
    }
}

fn show(text: &CString) -> String {
    String::from_utf8_lossy(text.to_bytes()).into_owned()
}
