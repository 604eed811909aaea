//! The functions that a template can call: Go's own, and those that Docker's command line adds.
//!
//! Sources: the documentation of Go's `text/template`, "Functions"; Docker's "Format command and log output". `and` and `or`
//! are in `eval`, since they do not always look at all of their arguments.

use std::cmp::Ordering;

use serde_json::Value;

use crate::format::{is_true, kind, plain, printf};

/// A function; its error is what is wrong with the arguments.
pub(crate) type Function = fn(&[Value]) -> Outcome;
type Outcome = Result<Value, String>;

/// The longest text that padding or repetition makes.
const TEXT_MAX: usize = 1 << 20;

pub(crate) fn ordinary(name: &str) -> Option<Function> {
    Some(match name {
        "not" => |given| exactly::<1>(given).map(|[value]| (!is_true(value)).into()),
        "eq" => eq,
        "ne" => |given| exactly::<2>(given).and_then(|[a, b]| Ok((!equal(a, b)?).into())),
        "lt" => |given| compared(given, Ordering::is_lt),
        "le" => |given| compared(given, Ordering::is_le),
        "gt" => |given| compared(given, Ordering::is_gt),
        "ge" => |given| compared(given, Ordering::is_ge),
        "len" => len,
        "index" => index,
        "slice" => slice,
        "print" => |given| Ok(print(given).into()),
        "println" => |given| Ok((words(given) + "\n").into()),
        "printf" => |given| match given.split_first() {
            Some((Value::String(format), values)) => printf(format, values).map(Value::from),
            _ => Err("it wants a format".to_owned()),
        },
        "json" => |given| {
            let [value] = exactly(given)?;
            serde_json::to_string(value).map(Value::from).map_err(|error| error.to_string())
        },
        "split" => |given| {
            let [whole, separator] = texts(given)?;
            Ok(split(whole, separator))
        },
        "join" => join,
        "title" => |given| texts(given).map(|[text]| title(text).into()),
        "lower" => |given| texts(given).map(|[text]| text.to_lowercase().into()),
        "upper" => |given| texts(given).map(|[text]| text.to_uppercase().into()),
        "pad" => pad,
        "truncate" => truncate,
        _ => return None,
    })
}

/// For the heading of a table: the name of a column stays what it is, but is padded as the cells are.
pub(crate) fn heading(name: &str) -> Option<Function> {
    match name {
        "json" | "split" | "join" | "title" | "lower" | "upper" | "truncate" => Some(|given| {
            let text = given.iter().find(|value| value.is_string());
            text.cloned().ok_or_else(|| "it has no column".to_owned())
        }),
        other => ordinary(other),
    }
}

fn exactly<const N: usize>(given: &[Value]) -> Result<&[Value; N], String> {
    given.try_into().map_err(|_| format!("it wants {N} arguments and got {}", given.len()))
}

fn texts<const N: usize>(given: &[Value]) -> Result<[&str; N], String> {
    let given: &[Value; N] = exactly(given)?;
    let mut texts = [""; N];
    for (slot, value) in texts.iter_mut().zip(given) {
        *slot = text(value)?;
    }
    Ok(texts)
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("it wants a text, not {}", kind(value)))
}

/// An index or a length.
fn count(value: &Value) -> Result<usize, String> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("it wants a whole number that is not negative, not {}", plain(value)))
}

/// Whether the first is equal to one of the others.
fn eq(given: &[Value]) -> Outcome {
    let Some((first, others)) = given.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Err("it wants two values".to_owned());
    };
    for other in others {
        if equal(first, other)? {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => Ok(a == b),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_)) => {
            Ok(ordering(a, b)? == Ordering::Equal)
        }
        _ => Err(format!("{} and {} cannot be compared", kind(a), kind(b))),
    }
}

fn ordering(a: &Value, b: &Value) -> Result<Ordering, String> {
    let found = match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => match (a.as_i128(), b.as_i128()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64().partial_cmp(&b.as_f64()),
        },
        _ => None,
    };
    found.ok_or_else(|| format!("{} and {} cannot be compared", kind(a), kind(b)))
}

fn compared(given: &[Value], holds: fn(Ordering) -> bool) -> Outcome {
    let [a, b] = exactly(given)?;
    Ok(holds(ordering(a, b)?).into())
}

fn len(given: &[Value]) -> Outcome {
    match exactly(given)? {
        [Value::String(text)] => Ok(text.len().into()),
        [Value::Array(list)] => Ok(list.len().into()),
        [Value::Object(map)] => Ok(map.len().into()),
        [other] => Err(format!("{} has no length", kind(other))),
    }
}

/// An entry of a list or a map, and of what that gives; a key that a map lacks gives an empty text.
fn index(given: &[Value]) -> Outcome {
    let (whole, keys) = given.split_first().ok_or("it wants a list or a map")?;
    let mut value = whole.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Array(list), key) => {
                let at = count(key)?;
                list.get(at).cloned().ok_or_else(|| format!("{at} is beyond the {} of the list", list.len()))?
            }
            (Value::String(text), key) => {
                let at = count(key)?;
                let byte = text.as_bytes().get(at);
                byte.copied().ok_or_else(|| format!("{at} is beyond the {} of the text", text.len()))?.into()
            }
            (Value::Object(map), key) => map.get(text(key)?).cloned().unwrap_or_else(|| "".into()),
            (Value::Null, _) => return Err("nothing has no entries".to_owned()),
            (other, _) => return Err(format!("{} has no entries", kind(other))),
        };
    }
    Ok(value)
}

/// `slice x 1 2` is `x[1:2]`.
fn slice(given: &[Value]) -> Outcome {
    let (whole, ends) = given.split_first().ok_or("it wants a list or a text")?;
    if ends.len() > 2 {
        return Err("it wants two ends".to_owned());
    }
    let ends = ends.iter().map(count).collect::<Result<Vec<usize>, _>>()?;
    let range = |length: usize| {
        let (from, to) = (ends.first().copied().unwrap_or(0), ends.get(1).copied().unwrap_or(length));
        if from <= to && to <= length { Ok(from..to) } else { Err(format!("{from}:{to} is not within 0:{length}")) }
    };
    match whole {
        Value::String(text) => {
            let cut = text.get(range(text.len())?).ok_or("it cuts a character in two")?;
            Ok(cut.into())
        }
        Value::Array(list) => Ok(list[range(list.len())?].to_vec().into()),
        other => Err(format!("{} cannot be cut", kind(other))),
    }
}

/// Go's `Sprint`: a space between two values that are both no texts.
fn print(given: &[Value]) -> String {
    let mut out = String::new();
    for (n, value) in given.iter().enumerate() {
        if n > 0 && !value.is_string() && !given[n - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&plain(value));
    }
    out
}

fn words(given: &[Value]) -> String {
    given.iter().map(plain).collect::<Vec<_>>().join(" ")
}

/// Go's `strings.Split`: without a separator every character is a part.
fn split(whole: &str, separator: &str) -> Value {
    match separator {
        "" => whole.chars().map(|character| Value::from(character.to_string())).collect(),
        separator => whole.split(separator).map(Value::from).collect(),
    }
}

fn join(given: &[Value]) -> Outcome {
    match exactly(given)? {
        [Value::Array(list), separator] => {
            let parts = list.iter().map(text).collect::<Result<Vec<_>, _>>()?;
            Ok(parts.join(text(separator)?).into())
        }
        // A list that a document leaves out.
        [Value::Null, _] => Ok("".into()),
        [other, _] => Err(format!("it wants a list of texts, not {}", kind(other))),
    }
}

/// Every word begins with a capital.
fn title(text: &str) -> String {
    let mut before = ' ';
    let mut out = String::new();
    for character in text.chars() {
        let begins = !(before.is_alphanumeric() || before == '_');
        if begins {
            out.extend(character.to_uppercase())
        } else {
            out.push(character)
        }
        before = character;
    }
    out
}

/// So many spaces before and behind a text, if there is one.
fn pad(given: &[Value]) -> Outcome {
    let [whole, before, behind] = exactly(given)?;
    let (whole, before, behind) = (text(whole)?, count(before)?, count(behind)?);
    if before.max(behind) > TEXT_MAX {
        return Err("that is too wide".to_owned());
    }
    if whole.is_empty() {
        return Ok("".into());
    }
    Ok(format!("{}{whole}{}", " ".repeat(before), " ".repeat(behind)).into())
}

fn truncate(given: &[Value]) -> Outcome {
    let [whole, most] = exactly(given)?;
    let (whole, most) = (text(whole)?, count(most)?);
    Ok(whole.chars().take(most).collect::<String>().into())
}
