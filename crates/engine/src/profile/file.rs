//! A profile in Docker's format, as `--security-opt seccomp=FILE` names one: OCI's, with conditions on top.
//!
//! Rules may depend on capabilities, the architecture and the kernel (`includes`, `excludes`), and the architectures
//! on the machine (`archMap`). What is left is an OCI profile. Source: moby `profiles/seccomp`.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompBuilder, LinuxSeccompFilterFlag,
    LinuxSyscallBuilder,
};
use serde::Deserialize;

use hull_runtime::{caps, objects};

use crate::error::{Error, Result};

/// What the conditions of a file are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The container's bounding set.
    pub capabilities: u64,
    /// Major and minor version of the kernel.
    pub kernel: (u32, u32),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<Arch>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// GOARCH's name for the machine, as Docker's files use it.
const ARCHITECTURE: &str = "amd64";
/// A profile has some thousand lines; this is far beyond.
const LARGEST: usize = 4 << 20;

/// The profile in `text` as it applies to `machine`. `name` is the file's, for errors.
///
/// # Errors
/// It is no such profile; a condition names a capability that does not exist or a kernel that is no version.
pub fn parse(name: &str, text: &[u8], machine: Machine) -> Result<LinuxSeccomp> {
    let doing = || format!("use the seccomp profile {name}");
    if text.len() > LARGEST {
        return Err(Error::host(doing(), format!("it is larger than {LARGEST} bytes")));
    }
    let file: File = objects::from_slice(text).map_err(|error| Error::host(doing(), error))?;
    let mut syscalls = Vec::new();
    for rule in file.syscalls.unwrap_or_default() {
        if !rule.applies(machine).map_err(|cause| Error::host(doing(), cause))? {
            continue;
        }
        let names = match (rule.name, rule.names.unwrap_or_default()) {
            (Some(one), names) if names.is_empty() => vec![one],
            (None, names) => names,
            (Some(one), _) => return Err(Error::host(doing(), format!("a rule has both name ({one}) and names"))),
        };
        let mut built = LinuxSyscallBuilder::default().names(names).action(rule.action);
        if let Some(errno) = rule.errno_ret {
            built = built.errno_ret(errno);
        }
        if let Some(args) = rule.args {
            built = built.args(args);
        }
        syscalls.push(built.build().map_err(|error| Error::host(doing(), error))?);
    }
    let architectures = match (file.architectures.unwrap_or_default(), file.arch_map.unwrap_or_default()) {
        (given, map) if map.is_empty() => given,
        (given, map) if given.is_empty() => native(map),
        _ => return Err(Error::host(doing(), "both architectures and archMap are given")),
    };
    let mut built = LinuxSeccompBuilder::default()
        .default_action(file.default_action)
        .architectures(architectures)
        .syscalls(syscalls);
    if let Some(errno) = file.default_errno_ret {
        built = built.default_errno_ret(errno);
    }
    if let Some(flags) = file.flags {
        built = built.flags(flags);
    }
    if let Some(path) = file.listener_path {
        built = built.listener_path(path);
    }
    if let Some(metadata) = file.listener_metadata {
        built = built.listener_metadata(metadata);
    }
    built.build().map_err(|error| Error::host(doing(), error))
}

/// This machine's line of the map.
fn native(map: Vec<ArchMap>) -> Vec<Arch> {
    let line = map.into_iter().find(|line| line.architecture == Arch::ScmpArchX86_64);
    line.map(|line| [vec![line.architecture], line.sub_architectures.unwrap_or_default()].concat())
        .unwrap_or_default()
}

impl Rule {
    fn applies(&self, machine: Machine) -> std::result::Result<bool, String> {
        let (includes, excludes) = (&self.includes, &self.excludes);
        let here = |arches: &Option<Vec<String>>| arches.iter().flatten().any(|arch| arch == ARCHITECTURE);
        let listed = |arches: &Option<Vec<String>>| arches.as_ref().is_some_and(|arches| !arches.is_empty());
        let excluded = here(&excludes.arches)
            || mask(excludes)? & machine.capabilities != 0
            || excludes.kernel()?.is_some_and(|kernel| machine.kernel >= kernel);
        let included = (!listed(&includes.arches) || here(&includes.arches))
            && mask(includes)? & !machine.capabilities == 0
            && includes.kernel()?.is_none_or(|kernel| machine.kernel >= kernel);
        Ok(included && !excluded)
    }
}

fn mask(condition: &Condition) -> std::result::Result<u64, String> {
    condition.caps.iter().flatten().try_fold(0, |all, name| match caps::number(name) {
        Some(number) => Ok(all | 1 << number),
        None => Err(format!("there is no capability {name:?}")),
    })
}

impl Condition {
    fn kernel(&self) -> std::result::Result<Option<(u32, u32)>, String> {
        let Some(text) = &self.min_kernel else { return Ok(None) };
        let parsed = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        parsed.map(Some).ok_or_else(|| format!("minKernel {text:?} is not a version like 5.15"))
    }
}
