//! What an update says, laid over what is in force. Pure.

use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Numbers of which 0 is a value; of all others it is what Go's users write for "not given".
const ZERO_IS_GIVEN: [&str; 4] = ["/cpu/idle", "/cpu/burst", "/memory/swappiness", "/pids/limit"];

/// `now` with what `update` says. A field that it does not mention stays; of a list with an entry for each device, page
/// size or interface, so do the entries for others.
///
/// # Errors
/// It has other rules for devices, which are those of the creation.
pub fn merged(now: &LinuxResources, update: &LinuxResources) -> Result<LinuxResources> {
    if update.devices().as_ref().is_some_and(|rules| now.devices().as_ref() != Some(rules)) {
        let cause = "which devices a container may use is decided when it is created";
        return Err(Error::invalid("update resources.devices", cause));
    }
    let doing = |error| Error::invalid("update the container's resources", error);
    let mut all = serde_json::to_value(now).map_err(doing)?;
    lay_over(&mut all, serde_json::to_value(update).map_err(doing)?, "");
    let mut all: LinuxResources = serde_json::from_value(all).map_err(doing)?;
    let unlimited = update.memory().is_some_and(|memory| memory.limit() == Some(-1) && !is_given(memory.swap()));
    if let Some(memory) = all.memory_mut().as_mut().filter(|memory| unlimited && is_given(memory.swap())) {
        // No limit of memory means none of memory and swap together either, as it does for runc.
        memory.set_swap(Some(-1));
    }
    Ok(all)
}

fn is_given(value: Option<i64>) -> bool {
    value.is_some_and(|value| value != 0)
}

fn lay_over(now: &mut Value, update: Value, path: &str) {
    match (now, update) {
        (Value::Object(now), Value::Object(update)) => {
            for (key, value) in update {
                let path = format!("{path}/{key}");
                lay_over(now.entry(key).or_insert(Value::Null), value, &path);
            }
        }
        (now, update @ Value::Object(_)) if now.is_null() => {
            *now = Value::Object(Map::new());
            lay_over(now, update, path);
        }
        (Value::Array(now), Value::Array(update)) => {
            now.retain(|old| !update.iter().any(|new| name(new) == name(old)));
            now.extend(update);
        }
        (_, update) if update == 0 && !ZERO_IS_GIVEN.contains(&path) => {}
        (_, update) if update == "" => {}
        (now, update) => *now = update,
    }
}

/// What an entry of a list is about.
fn name(entry: &Value) -> [&Value; 4] {
    ["major", "minor", "pageSize", "name"].map(|key| &entry[key])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merge(now: Value, update: Value) -> Value {
        let read = |value| serde_json::from_value(value).unwrap();
        serde_json::to_value(merged(&read(now), &read(update)).unwrap()).unwrap()
    }

    #[test]
    fn what_is_not_mentioned_stays() {
        let now = json!({"memory": {"limit": 100, "swap": 200}, "cpu": {"shares": 512, "quota": 5, "cpus": "0-1"}});
        let update =
            json!({"memory": {"limit": 150}, "cpu": {"shares": 0, "quota": 7, "cpus": ""}, "pids": {"limit": 3}});
        assert_eq!(
            merge(now, update),
            json!({"memory": {"limit": 150, "swap": 200}, "cpu": {"shares": 512, "quota": 7, "cpus": "0-1"},
                "pids": {"limit": 3}})
        );
    }

    #[test]
    fn zero_is_a_value_where_it_means_something() {
        let now =
            json!({"cpu": {"idle": 1, "burst": 7}, "memory": {"swappiness": 9, "limit": 1}, "pids": {"limit": 9}});
        let update =
            json!({"cpu": {"idle": 0, "burst": 0}, "memory": {"swappiness": 0, "limit": 0}, "pids": {"limit": 0}});
        assert_eq!(
            merge(now, update),
            json!({"cpu": {"idle": 0, "burst": 0}, "memory": {"swappiness": 0, "limit": 1}, "pids": {"limit": 0}})
        );
    }

    #[test]
    fn lists_are_by_device_page_size_and_name() {
        let rate = |major, rate| json!({"major": major, "minor": 0, "rate": rate});
        let now = json!({"blockIO": {"throttleReadBpsDevice": [rate(8, 1), rate(9, 2)]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}], "unified": {"a.b": "1", "c.d": "2"}});
        let update = json!({"blockIO": {"throttleReadBpsDevice": [rate(8, 5)]},
            "hugepageLimits": [{"pageSize": "1GB", "limit": 0}], "unified": {"c.d": "3"}});
        assert_eq!(
            merge(now, update),
            json!({"blockIO": {"throttleReadBpsDevice": [rate(9, 2), rate(8, 5)]},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 0}],
                "unified": {"a.b": "1", "c.d": "3"}})
        );
    }

    #[test]
    fn unlimited_memory_is_unlimited_swap_as_well_unless_that_is_given() {
        let now = json!({"memory": {"limit": 100, "swap": 200}});
        let unlimited = json!({"memory": {"limit": -1}});
        assert_eq!(merge(now.clone(), unlimited.clone()), json!({"memory": {"limit": -1, "swap": -1}}));
        let swap = json!({"memory": {"limit": -1, "swap": 300}});
        assert_eq!(merge(now, swap.clone()), swap);
        assert_eq!(merge(json!({"memory": {"limit": 100}}), unlimited.clone()), unlimited);
    }

    #[test]
    fn rules_for_devices_are_those_of_the_creation() {
        let read = |value| serde_json::from_value(value).unwrap();
        let rules = json!({"devices": [{"allow": false, "access": "rwm"}]});
        assert!(merged(&read(rules.clone()), &read(rules.clone())).is_ok());
        let error = merged(&read(json!({})), &read(rules)).unwrap_err().to_string();
        assert!(error.contains("resources.devices"), "{error}");
    }
}
