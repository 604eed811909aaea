//! `features`: what hull performs of the specification, in its own shape (features.md).

use hull_runtime::{caps, hooks, options, plan, seccomp};
use serde_json::{Value, json};

use super::manage::say;
use crate::report::Report;
use hull_runtime::spec::VERSION;

/// `features`.
pub fn features() -> Result<i32, Report> {
    let text = serde_json::to_string_pretty(&told()).map_err(|error| Report::host("tell the features", error))?;
    say(&format!("{text}\n"))
}

/// From the tables that the work is done by.
fn told() -> Value {
    let capabilities: Vec<String> = caps::NAMES.iter().map(|name| format!("CAP_{name}")).collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": hooks::KINDS,
        "mountOptions": options::known(),
        "linux": {
            "namespaces": plan::words(),
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": seccomp::ACTIONS.map(|action| action.0),
                "operators": seccomp::OPERATORS,
                "archs": seccomp::ARCHITECTURES,
                "knownFlags": seccomp::FLAGS.map(|flag| flag.0),
                "supportedFlags": seccomp::supported_flags(),
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        "annotations": {"org.opencontainers.runc.checkpoint.enabled": "true"},
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The schema's node that `node` refers to, if it refers to one.
    fn resolved(node: &Value, folder: &Path) -> Value {
        let Some(reference) = node.get("$ref").and_then(Value::as_str) else { return node.clone() };
        let (file, pointer) = reference.split_once('#').unwrap();
        let file: Value = serde_json::from_slice(&fs::read(folder.join(file)).unwrap()).unwrap();
        file.pointer(pointer).unwrap().clone()
    }

    /// What `told` lacks, has too much, or has in another shape than `node` says.
    fn differences(told: &Value, node: &Value, folder: &Path, name: &str) -> Vec<String> {
        let node = resolved(node, folder);
        let kind = match told {
            Value::Bool(_) => "boolean",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            _ => "another",
        };
        if node.get("type").is_some_and(|wanted| wanted != kind) {
            return vec![format!("{name} is {kind}")];
        }
        if let Some(words) = node.get("enum").and_then(Value::as_array) {
            return if words.contains(told) { vec![] } else { vec![format!("{name}: {told} is unknown")] };
        }
        let mut all = Vec::new();
        match (told, node.get("properties").and_then(Value::as_object)) {
            (Value::Object(told), Some(fields)) => {
                all.extend(
                    told.keys()
                        .filter(|key| !fields.contains_key(*key))
                        .map(|key| format!("{name}.{key} is unknown")),
                );
                for (key, field) in fields {
                    let name = format!("{name}.{key}");
                    match told.get(key) {
                        Some(told) => all.extend(differences(told, field, folder, &name)),
                        None => all.push(format!("{name} is missing")),
                    }
                }
            }
            (Value::Array(list), _) => {
                for item in list {
                    all.extend(differences(item, &node["items"], folder, name));
                }
            }
            _ => {}
        }
        all
    }

    #[test]
    fn the_features_have_the_shape_of_their_schema() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/runtime-spec"));
        let Ok(text) = fs::read(folder.join("features-schema.json")) else {
            let why = "../shared/data/runtime-spec is not beside this checkout";
            return hull_tests::skipped("the features have the shape of their schema", why);
        };
        let schema: Value = serde_json::from_slice(&text).unwrap();
        let told = told();
        let mut all = differences(&told, &schema, folder, "");
        // What tells of extensions that other runtimes have words for, and that nothing here has.
        all.retain(|line| line != ".potentiallyUnsafeConfigAnnotations is missing");
        assert_eq!(all, [""; 0], "{told:#}");
        let mut wrong = told;
        wrong["linux"]["seccomp"]["actions"][0] = "SCMP_ACT_NONE".into();
        assert_eq!(differences(&wrong, &schema, folder, "").iter().filter(|line| line.contains("NONE")).count(), 1);
    }
}
