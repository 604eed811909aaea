//! A specification's text becomes its data.
//!
//! The data's types are `oci-spec`'s. Where those know a word of the specification under another name, it is translated
//! here, and only then: the usual text is read once.

use oci_spec::runtime::{Capability, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::objects;

/// The version of the specification that is implemented.
pub const VERSION: &str = "1.3.0";

/// Words of the specification, and what the types call them: `process.scheduler.flags`.
const WORDS: [(&str, &str); 2] =
    [("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"), ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN")];

/// How deep a text may be nested, also in fields that nobody knows: as deep as runc reads it.
const DEEPEST: usize = 10_000;

/// Reads the text of a `config.json`. Gives what was left out as well, in words: "any value which cannot be mapped to a
/// relevant kernel interface MUST be logged as a warning" (runtime-spec, config.md, of capabilities).
///
/// # Errors
/// It is no JSON object, or a field has another type than the specification says; with line and column.
pub fn read(text: &[u8]) -> Result<(Spec, Vec<String>)> {
    let mut remarks = Vec::new();
    let mut spec: Spec =
        translated(text, |value| value.get_mut("process").map_or(0, |process| translate(process, &mut remarks)))?;
    let zero = zero_means(spec.version());
    let resources = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut());
    if let Some(resources) = resources.filter(|resources| resources.pids().is_some_and(|pids| pids.limit() == 0)) {
        // The types do not tell a limit of 0 from one that is not there.
        let value: Value = serde_json::from_slice(text).unwrap_or_default();
        let given = value.pointer("/linux/resources/pids/limit").is_some();
        resources.pids_mut().as_mut().map(|pids| pids.set_limit(zero));
        resources.set_pids(resources.pids().filter(|_| given));
    }
    Ok((spec, remarks))
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
pub fn read_process(text: &[u8]) -> Result<(Process, Vec<String>)> {
    let mut remarks = Vec::new();
    let process = translated(text, |value| {
        let Some(fields) = value.as_object_mut() else { return 0 };
        let before = fields.len();
        fields.entry("user").or_insert_with(|| json!({}));
        fields.entry("cwd").or_insert_with(|| json!(""));
        fields.len() - before + translate(value, &mut remarks)
    })?;
    Ok((process, remarks))
}

/// Reads `text`, if that fails again after `change` has changed something.
fn translated<T: DeserializeOwned>(text: &[u8], change: impl FnOnce(&mut Value) -> usize) -> Result<T> {
    let refuse = |error: serde_json::Error| Error::invalid("read the specification", error);
    check_depth(text)?;
    objects::from_slice(text).or_else(|error| {
        let mut value: Value = serde_json::from_slice(text).map_err(refuse)?;
        match change(&mut value) {
            // The first error has the place in the text.
            0 => Err(refuse(error)),
            _ => objects::from_value(value).map_err(refuse),
        }
    })
}

/// What the library skips may be of any depth.
fn check_depth(text: &[u8]) -> Result<()> {
    let opens = |byte: &u8| matches!(byte, b'[' | b'{');
    if text.iter().filter(|byte| opens(byte)).count() <= DEEPEST {
        return Ok(());
    }
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            byte if opens(byte) => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            return Err(Error::invalid(
                "read the specification",
                format!("it is nested deeper than {DEEPEST} levels"),
            ));
        }
    }
    Ok(())
}

/// Changes what the types do not know: words that they have another name for, and capabilities that nobody knows, which are
/// left out and told in `remarks`. Gives how much was changed.
fn translate(process: &mut Value, remarks: &mut Vec<String>) -> usize {
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    let mut count = 0;
    for flag in flags.into_iter().flatten() {
        if let Some((_, theirs)) = WORDS.iter().find(|(word, _)| flag == word) {
            *flag = (*theirs).into();
            count += 1;
        }
    }
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
        set.retain(|name| {
            let unknown = name.is_string() && serde_json::from_value::<Capability>(name.clone()).is_err();
            if unknown {
                count += 1;
                remarks.push(format!("ignoring the unknown capability {name}"));
            }
            !unknown
        });
    }
    remarks.sort();
    remarks.dedup();
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_or_too_deep_is_refused_also_in_unknown_fields() {
        let nested = |depth| {
            format!(r#"{{"ociVersion": "1.3.0", "x": "[\"", "y": {}1{}}}"#, "[".repeat(depth), "]".repeat(depth))
        };
        assert!(read(nested(9_000).as_bytes()).is_ok());
        assert!(read(nested(10_000).as_bytes()).unwrap_err().to_string().contains("nested deeper than"));
        let many = format!(r#"{{"ociVersion": "1.3.0", "x": [{}1]}}"#, "[],".repeat(20_000));
        assert!(read(many.as_bytes()).is_ok());
        for text in ["[]", " [\"1.0.0\"]", "null", "\"x\"", "1", ""] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_capability_that_nobody_knows_is_left_out_and_told() {
        let text = br#"{"ociVersion": "1.3.0", "process": {"cwd": "/", "user": {"uid": 0, "gid": 0},
                        "capabilities": {"bounding": ["CAP_NEW", "CAP_KILL"], "effective": ["CAP_NEW"]}}}"#;
        let (spec, remarks) = read(text).unwrap();
        let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        assert_eq!((sets.bounding().as_ref().unwrap().len(), sets.effective().as_ref().unwrap().len()), (1, 0));
        assert_eq!(remarks, ["ignoring the unknown capability \"CAP_NEW\""]);
    }

    #[test]
    fn a_process_needs_neither_user_nor_folder_to_be_read() {
        let (process, _) = read_process(br#"{"args": ["x"], "scheduler": {"policy": "SCHED_OTHER"}}"#).unwrap();
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
            let (spec, _) = read(text.as_bytes()).unwrap();
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
