//! Nothing of a specification is skipped silently: each field, given another value, changes what hull does, or is refused.
//!
//! What hull does is here what it computes from a specification before anything happens: plan, writes to the groups, their
//! place, classes of resctrl. Fields that change none of it are in a list, each with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hull_runtime::cgroup::{self, Hierarchy, Host, Place, Version};
use hull_runtime::plan::Plan;
use hull_runtime::{rdt, spec};
use oci_spec::runtime::{LinuxResources, Spec};
use serde_json::{Map, Value, json};

/// Fields of the schema that no document here has, and why they mean nothing on Linux.
const OF_OTHER_SYSTEMS: [(&str, &str); 2] = [
    ("process.commandLine", "of Windows, which has one string where Linux has args"),
    ("process.user.username", "of Windows, where users have no numbers"),
];

/// Fields that are read and change nothing here, and why.
const WITHOUT_EFFECT: [(&str, &str); 1] = [(
    "linux.resources.memory.checkBeforeUpdate",
    "of an update: a new group uses nothing that a limit could be below",
)];

/// A document with every field that can be together, and others for those that exclude something.
fn documents() -> Vec<Value> {
    let whole = whole();
    let with = |changes: &[(&str, Value)]| {
        let mut document = whole.clone();
        for (pointer, value) in changes {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            document.pointer_mut(parent).unwrap()[name] = value.clone();
        }
        document
    };
    vec![
        whole.clone(),
        with(&[("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 7}))]),
        with(&[(
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "nice": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
        )]),
        with(&[("/process/selinuxLabel", "a:b:c:s0".into())]),
        with(&[("/linux/mountLabel", "a:b:c:s0".into())]),
        with(&[("/linux/personality", json!({"domain": "LINUX", "flags": ["NONE_YET"]}))]),
    ]
}

fn whole() -> Value {
    let hook = |name: &str| json!([{"path": format!("/{name}"), "args": [name], "env": ["A=b"], "timeout": 5}]);
    let ids = json!([{"containerID": 0, "hostID": 1000, "size": 2000}]);
    let set = json!(["CAP_KILL"]);
    let rate = json!([{"major": 8, "minor": 16, "rate": 1000}]);
    json!({
        "ociVersion": "1.3.0",
        "hooks": {
            "prestart": hook("a"), "createRuntime": hook("b"), "createContainer": hook("c"), "startContainer": hook("d"),
            "poststart": hook("e"), "poststop": hook("f"),
        },
        "annotations": {"org.example": "word"},
        "hostname": "host", "domainname": "domain",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "ro"],
             "uidMappings": ids, "gidMappings": ids},
        ],
        "root": {"path": "rootfs", "readonly": true},
        "process": {
            "args": ["sh"], "cwd": "/home", "env": ["A=b"], "terminal": true, "consoleSize": {"height": 20, "width": 80},
            "user": {"uid": 5, "gid": 6, "umask": 18, "additionalGids": [7]},
            "capabilities": {"bounding": set, "permitted": set, "effective": set, "inheritable": set, "ambient": set},
            "apparmorProfile": "profile", "oomScoreAdj": 100, "noNewPrivileges": true,
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
            "scheduler": {"policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 20_000_000, "period": 30_000_000},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}],
            "execCPUAffinity": {"initial": "0", "final": "0-1"},
        },
        "linux": {
            "devices": [{"type": "c", "path": "/dev/fuse", "fileMode": 420, "major": 10, "minor": 229, "uid": 1, "gid": 2}],
            "netDevices": {"eth7": {"name": "wan"}},
            "uidMappings": ids, "gidMappings": ids,
            "namespaces": [
                {"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "user"}, {"type": "time"},
                {"type": "cgroup"}, {"type": "network", "path": "/run/netns/one"},
            ],
            "resources": {
                "unified": {"memory.high": "1000000"},
                "devices": [{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
                "pids": {"limit": 32},
                "blockIO": {
                    "weight": 100, "leafWeight": 200,
                    "throttleReadBpsDevice": rate, "throttleWriteBpsDevice": rate,
                    "throttleReadIOPSDevice": rate, "throttleWriteIOPSDevice": rate,
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 300, "leafWeight": 400}],
                },
                "cpu": {
                    "cpus": "0-1", "mems": "0", "period": 100_000, "quota": 50_000, "burst": 1000, "realtimePeriod": 1_000_000,
                    "realtimeRuntime": 950_000, "shares": 512, "idle": 0,
                },
                "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}],
                "memory": {
                    "kernel": 1_000_000, "kernelTCP": 1_000_000, "limit": 4_194_304, "reservation": 2_097_152,
                    "swap": 8_388_608, "swappiness": 10, "disableOOMKiller": false, "useHierarchy": true,
                    "checkBeforeUpdate": true,
                },
                "network": {"classID": 1_048_577, "priorities": [{"name": "lo", "priority": 5}]},
                "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 1000}},
            },
            "cgroupsPath": "/place/of/it",
            "rootfsPropagation": "slave",
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "listenerPath": "/run/agent", "listenerMetadata": "words", "architectures": ["SCMP_ARCH_X86"],
                "syscalls": [
                    {"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2, "args": [
                        {"index": 1, "value": 15, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]},
                    {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"},
                ],
            },
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            "intelRdt": {
                "closID": "class", "schemata": ["L3:0=f"], "l3CacheSchema": "L3:0=ff", "memBwSchema": "MB:0=20",
                "enableMonitoring": true,
            },
            "memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
            "personality": {"domain": "LINUX"},
            "timeOffsets": {"monotonic": {"secs": 5, "nanosecs": 6}, "boottime": {"secs": 7, "nanosecs": 8}},
        },
    })
}

fn host(version: Version, controllers: &[&str]) -> Host {
    let hierarchy = |controllers: Vec<String>| Hierarchy {
        version,
        controllers,
        mount: "/cg".into(),
        parent: PathBuf::new(),
        own: PathBuf::new(),
    };
    let names: Vec<String> = controllers.iter().map(|name| (*name).to_owned()).collect();
    let hierarchies = match version {
        Version::V1 => names.into_iter().map(|name| hierarchy(vec![name])).collect(),
        Version::V2 => vec![hierarchy(names)],
    };
    Host { hierarchies }
}

fn show<T: std::fmt::Debug>(result: hull_runtime::Result<T>) -> String {
    result.map_or_else(|error| error.to_string(), |value| format!("{value:?}"))
}

/// All that is computed from a specification, as text.
fn outcome(document: &Value) -> String {
    let (spec, remarks) = match spec::read(document.to_string().as_bytes()) {
        Ok(read) => read,
        Err(error) => return error.to_string(),
    };
    let mut all = vec![format!("{remarks:?}"), show(Plan::from_spec(&spec)), for_the_verbs(&spec)];
    let linux = spec.linux().clone().unwrap_or_default();
    let resources = linux.resources().clone().unwrap_or_default();
    let mut unified = LinuxResources::default();
    unified.set_unified(resources.unified().clone());
    let mut rest = resources;
    rest.set_unified(None);
    let v1 = ["memory", "pids", "cpu", "cpuset", "devices", "blkio", "hugetlb", "net_cls", "net_prio", "rdma"];
    all.push(show(cgroup::plan(&host(Version::V1, &v1), &rest)));
    all.push(show(cgroup::plan(
        &host(Version::V2, &["memory", "pids", "cpu", "cpuset", "io", "hugetlb", "rdma"]),
        &unified,
    )));
    all.push(linux.cgroups_path().as_deref().map_or_else(String::new, |path| show(Place::from_spec(path))));
    if let Some(classes) = linux.intel_rdt() {
        all.push(format!("{:?}", rdt::lines(classes)));
        all.push(show(rdt::Rdt::of(Path::new("/sys/fs/resctrl"), classes, "box")));
    }
    all.join("\n")
}

/// What the verbs read themselves: of the state, of the root's place and of a terminal.
fn for_the_verbs(spec: &Spec) -> String {
    let size = spec.process().as_ref().and_then(|process| process.console_size());
    let root = spec.root().as_ref().map(|root| root.path().clone());
    format!("{} {:?} {root:?} {size:?}", spec.version(), spec.annotations())
}

/// The leaves of a document: a field's name in the schema's terms, and the pointers to where it is.
fn leaves(value: &Value, name: &str, pointer: &str, found: &mut BTreeMap<String, Vec<String>>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                // Fields that people choose the names of.
                let free = matches!(name, "annotations" | "linux.sysctl" | "linux.resources.unified");
                let own = matches!(name, "linux.netDevices" | "linux.resources.rdma");
                let dot = if name.is_empty() { "" } else { "." };
                let name = match () {
                    () if free => name.to_owned(),
                    () if own => format!("{name}{{}}"),
                    () => format!("{name}{dot}{key}"),
                };
                leaves(value, &name, &format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                leaves(value, &format!("{name}[]"), &format!("{pointer}/{index}"), found);
            }
        }
        _ => found.entry(name.to_owned()).or_default().push(pointer.to_owned()),
    }
}

/// Another value of the same type.
fn other(value: &Value) -> Value {
    match value {
        Value::Bool(value) => (!value).into(),
        Value::Number(number) => (number.as_i64().unwrap() + 1).into(),
        Value::String(text) => match &**text {
            "SCHED_FIFO" => "SCHED_RR".into(),
            text => format!("{text}9").into(),
        },
        value => panic!("{value} is no leaf"),
    }
}

#[test]
fn every_field_changes_what_is_done_or_is_refused() {
    let mut without_effect = BTreeSet::new();
    let mut with_effect = BTreeSet::new();
    for document in documents() {
        let before = outcome(&document);
        let mut found = BTreeMap::new();
        leaves(&document, "", "", &mut found);
        for (name, pointers) in found {
            for pointer in pointers {
                let mut changed = document.clone();
                let leaf = changed.pointer_mut(&pointer).unwrap();
                *leaf = other(leaf);
                let told = if outcome(&changed) == before { &mut without_effect } else { &mut with_effect };
                told.insert(name.clone());
            }
        }
    }
    let skipped: Vec<&String> = without_effect.difference(&with_effect).collect();
    let known: BTreeSet<&str> = WITHOUT_EFFECT.iter().map(|(name, _)| *name).collect();
    assert_eq!(skipped.iter().map(|name| name.as_str()).collect::<BTreeSet<_>>(), known);
}

/// Without it every change would be an effect: that of another error.
#[test]
fn the_whole_document_is_one_that_can_be_done() {
    let all = outcome(&whole());
    assert!(!all.contains("cannot "), "{all}");
    // The comparison sees a field that nobody reads.
    let mut unknown = whole();
    unknown["linux"]["fieldOfTomorrow"] = 1.into();
    assert_eq!(outcome(&unknown), all);
}

/// The schema's leaves, by name, with the words of those that have a list of them.
struct Schema {
    folder: PathBuf,
    files: BTreeMap<String, Value>,
    leaves: BTreeMap<String, BTreeSet<String>>,
}

impl Schema {
    fn read() -> Option<Self> {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/runtime-spec"));
        if !folder.exists() {
            let why = "../shared/data/runtime-spec is not beside this checkout";
            hull_tests::skipped("the documents here have every field of the specification's schema", why);
            return None;
        }
        let mut schema = Self { folder, files: BTreeMap::new(), leaves: BTreeMap::new() };
        let root = schema.file("config-schema.json");
        for (name, node) in root["properties"].as_object().unwrap() {
            // Sections of other systems are in files of their own, as Linux's is.
            if !matches!(&**name, "windows" | "solaris" | "vm" | "zos" | "freebsd") {
                schema.walk(node, "config-schema.json", name);
            }
        }
        Some(schema)
    }

    fn file(&mut self, name: &str) -> Value {
        let read = || serde_json::from_slice(&std::fs::read(self.folder.join(name)).unwrap()).unwrap();
        self.files.entry(name.to_owned()).or_insert_with(read).clone()
    }

    fn walk(&mut self, node: &Value, file: &str, name: &str) {
        if let Some(reference) = node.get("$ref").and_then(Value::as_str) {
            let (other, pointer) = reference.split_once('#').unwrap_or((reference, ""));
            let other = if other.is_empty() { file.to_owned() } else { other.to_owned() };
            let target = self.file(&other).pointer(pointer).unwrap().clone();
            return self.walk(&target, &other, name);
        }
        let choices = ["anyOf", "oneOf", "allOf"].map(|key| node.get(key).and_then(Value::as_array));
        if let Some(choices) = choices.into_iter().flatten().next() {
            return choices.iter().for_each(|choice| self.walk(choice, file, name));
        }
        if let Some(fields) = node.get("properties").and_then(Value::as_object) {
            fields.iter().for_each(|(key, field)| self.walk(field, file, &format!("{name}.{key}")));
        } else if let Some(items) = node.get("items") {
            self.walk(items, file, &format!("{name}[]"));
        } else if let Some(values) = node.get("additionalProperties").filter(|values| values.is_object()) {
            self.walk(values, file, &format!("{name}{{}}"));
        } else {
            let words = node.get("enum").and_then(Value::as_array).into_iter().flatten();
            let words = words.filter_map(|word| word.as_str().map(str::to_owned));
            self.leaves.entry(name.to_owned()).or_default().extend(words);
        }
    }
}

#[test]
fn the_documents_here_have_every_field_of_the_schema() {
    let Some(schema) = Schema::read() else { return };
    let mut found = BTreeMap::new();
    documents().iter().for_each(|document| leaves(document, "", "", &mut found));
    let missing: BTreeSet<&str> =
        schema.leaves.keys().filter(|name| !found.contains_key(*name)).map(String::as_str).collect();
    let known: BTreeSet<&str> = OF_OTHER_SYSTEMS.iter().map(|(name, _)| *name).collect();
    assert_eq!(missing, known);
}

/// A word that the types do not know would make a whole specification unreadable.
#[test]
fn every_word_of_the_schema_is_read() {
    let Some(schema) = Schema::read() else { return };
    let mut unread = Map::new();
    for document in documents() {
        let mut found = BTreeMap::new();
        leaves(&document, "", "", &mut found);
        for (name, pointers) in found {
            for word in schema.leaves.get(&name).into_iter().flatten() {
                let mut changed = document.clone();
                *changed.pointer_mut(&pointers[0]).unwrap() = word.as_str().into();
                if let Err(error) = spec::read(changed.to_string().as_bytes()) {
                    unread.insert(format!("{name} {word}"), error.to_string().into());
                }
            }
        }
    }
    assert_eq!(Value::from(unread), json!({}));
}
