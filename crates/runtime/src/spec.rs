//! A specification's text becomes its data.
//!
//! The data's types are `oci-spec`'s. Where those know a word of the specification under another name, it is translated
//! here, and only then: the usual text is read once.

use oci_spec::runtime::{Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// Words of the specification, and what the types call them: `process.scheduler.flags`.
const WORDS: [(&str, &str); 2] =
    [("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"), ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN")];

/// Reads the text of a `config.json`.
///
/// # Errors
/// It is no JSON, or a field has another type than the specification says; with line and column.
pub fn read(text: &[u8]) -> Result<Spec> {
    let mut spec: Spec = translated(text, |value| value.get_mut("process").map_or(0, translate))?;
    let zero = zero_means(spec.version());
    let resources = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut());
    if let Some(resources) = resources.filter(|resources| resources.pids().is_some_and(|pids| pids.limit() == 0)) {
        // The types do not tell a limit of 0 from one that is not there.
        let value: Value = serde_json::from_slice(text).unwrap_or_default();
        let given = value.pointer("/linux/resources/pids/limit").is_some();
        resources.pids_mut().as_mut().map(|pids| pids.set_limit(zero));
        resources.set_pids(resources.pids().filter(|_| given));
    }
    Ok(spec)
}

/// What a `pids.limit` of 0 means by a version of the specification: until 1.2 no limit, which is -1 since then.
pub fn zero_means(version: &str) -> i64 {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(1), Some(3)) { -1 } else { 0 }
}

/// Reads the text of a process on its own, as `exec --process` has it. What runc does without need not be there.
///
/// # Errors
/// As [`read`].
pub fn read_process(text: &[u8]) -> Result<Process> {
    translated(text, |value| {
        let Some(fields) = value.as_object_mut() else { return 0 };
        let before = fields.len();
        fields.entry("user").or_insert_with(|| json!({}));
        fields.entry("cwd").or_insert_with(|| json!(""));
        fields.len() - before + translate(value)
    })
}

/// Reads `text`, if that fails again after `change` has changed something.
fn translated<T: DeserializeOwned>(text: &[u8], change: impl FnOnce(&mut Value) -> usize) -> Result<T> {
    let refuse = |error: serde_json::Error| Error::invalid("read the specification", error);
    serde_json::from_slice(text).or_else(|error| {
        let mut value: Value = serde_json::from_slice(text).map_err(refuse)?;
        match change(&mut value) {
            // The first error has the place in the text.
            0 => Err(refuse(error)),
            _ => serde_json::from_value(value).map_err(refuse),
        }
    })
}

fn translate(process: &mut Value) -> usize {
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    let mut count = 0;
    for flag in flags.into_iter().flatten() {
        if let Some((_, theirs)) = WORDS.iter().find(|(word, _)| flag == word) {
            *flag = (*theirs).into();
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_needs_neither_user_nor_folder_to_be_read() {
        let process = read_process(br#"{"args": ["x"], "scheduler": {"policy": "SCHED_OTHER"}}"#).unwrap();
        assert_eq!((process.user().uid(), process.cwd().as_os_str().len()), (0, 0));
        assert!(read_process(b"[]").is_err() && read_process(br#"{"args": 1}"#).is_err());
    }

    #[test]
    fn every_scheduler_flag_of_the_specification_is_read() {
        for flag in ["RESET_ON_FORK", "RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS", "UTIL_CLAMP_MIN"] {
            let text = format!(
                r#"{{"ociVersion": "1.3.0", "process": {{"cwd": "/", "user": {{}},
                    "scheduler": {{"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_{flag}"]}}}}}}"#
            );
            assert!(read(text.as_bytes()).is_ok(), "{flag}: {:?}", read(text.as_bytes()));
        }
    }

    #[test]
    fn a_limit_of_no_processes_is_one_since_1_3_and_none_before() {
        let limit = |version: &str, pids: &str| {
            let text = format!(r#"{{"ociVersion": "{version}", "linux": {{"resources": {{"pids": {pids}}}}}}}"#);
            let spec = read(text.as_bytes()).unwrap();
            spec.linux().as_ref().unwrap().resources().as_ref().unwrap().pids().map(|pids| pids.limit())
        };
        assert_eq!(limit("1.3.0", r#"{"limit": 0}"#), Some(0));
        assert_eq!(limit("1.0.2-dev", r#"{"limit": 0}"#), Some(-1));
        assert_eq!(limit("1.3.0", "{}"), None);
        assert_eq!(limit("1.0.2", r#"{"limit": 5}"#), Some(5));
    }

    #[test]
    fn an_error_has_its_place() {
        let error = read(b"{\"ociVersion\": \"1.3.0\",\n \"process\": 7}").unwrap_err().to_string();
        assert!(error.starts_with("cannot read the specification:") && error.contains("line 2"), "{error}");
    }
}
