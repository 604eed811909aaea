//! Values as text: what `{{.X}}` prints, and `printf`.
//!
//! Source: the documentation of Go's `fmt`, `%v` and "Printing".

use serde_json::{Number, Value};

/// The widest field that `printf` makes.
const WIDTH_MAX: usize = 4096;

/// What a value is called in an error.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// Go's truth: everything but false, 0 and what is empty.
pub(crate) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// What an action prints.
pub(crate) fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        value => plain(value),
    }
}

/// `%v`.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => number(value),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
    }
}

fn number(value: &Number) -> String {
    match value.as_f64() {
        Some(float) if value.is_f64() => shortest(float),
        _ => value.to_string(),
    }
}

/// Go's `%v` of a float: the shortest digits, with an exponent below -4 and from 21 on.
fn shortest(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    match exponent {
        -4..21 => value.to_string(),
        _ => format!("{digits}{}", signed(exponent)),
    }
}

/// An exponent as Go and C write it.
fn signed(exponent: i32) -> String {
    format!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// What stands between `%` and the verb.
#[derive(Default)]
struct Flags {
    left: bool,
    plus: bool,
    zero: bool,
    space: bool,
    width: usize,
    precision: Option<usize>,
}

/// Go's `Sprintf`.
///
/// # Errors
/// A verb that is not known or does not fit its value; values too few or too many.
pub(crate) fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some(percent) = rest.find('%') {
        out.push_str(&rest[..percent]);
        let (flags, verb, behind) = verb(&rest[percent + 1..])?;
        rest = behind;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| format!("%{verb} has no value"))?;
        let text = one(&flags, verb, value).ok_or_else(|| format!("%{verb} does not fit {}", kind(value)))?;
        out.push_str(&padded(&flags, text, matches!(value, Value::Number(_))));
    }
    match values.next() {
        Some(extra) => Err(format!("{} is more than the format takes", kind(extra))),
        None => Ok(out + rest),
    }
}

fn verb(text: &str) -> Result<(Flags, char, &str), String> {
    let mut flags = Flags::default();
    let mut rest = text;
    loop {
        match rest.chars().next() {
            Some('-') => flags.left = true,
            Some('+') => flags.plus = true,
            Some('0') => flags.zero = true,
            Some(' ') => flags.space = true,
            _ => break,
        }
        rest = &rest[1..];
    }
    let (width, behind) = digits(rest)?;
    flags.width = width.unwrap_or(0);
    rest = behind;
    if let Some(behind) = rest.strip_prefix('.') {
        let (precision, behind) = digits(behind)?;
        flags.precision = Some(precision.unwrap_or(0));
        rest = behind;
    }
    let verb = rest.chars().next().ok_or("the format ends within a %")?;
    if !"%vsdqtxXobfeEgGc".contains(verb) {
        return Err(format!("%{verb} is not supported"));
    }
    Ok((flags, verb, &rest[verb.len_utf8()..]))
}

fn digits(text: &str) -> Result<(Option<usize>, &str), String> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    if end == 0 {
        return Ok((None, text));
    }
    let number = text[..end].parse().ok().filter(|number| *number <= WIDTH_MAX);
    number.map(|number| (Some(number), &text[end..])).ok_or_else(|| format!("{} is too wide", &text[..end]))
}

/// A value by its verb, without padding; none if the verb is for other kinds.
fn one(flags: &Flags, verb: char, value: &Value) -> Option<String> {
    let cut = |text: &str| text.chars().take(flags.precision.unwrap_or(usize::MAX)).collect::<String>();
    let sign = |negative: bool| match (negative, flags.plus, flags.space) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    };
    match (verb, value) {
        ('v', Value::Number(number)) => one(flags, if number.is_f64() { 'g' } else { 'd' }, value),
        ('v' | 's', Value::String(text)) => Some(cut(text)),
        ('v', value) => Some(plain(value)),
        ('s', Value::Array(_) | Value::Object(_)) => Some(plain(value)),
        ('t', Value::Bool(value)) => Some(value.to_string()),
        ('q', Value::String(text)) => Some(quoted(&cut(text))),
        ('q', Value::Array(list)) => {
            let items: Option<Vec<String>> = list.iter().map(|item| one(flags, 'q', item)).collect();
            Some(format!("[{}]", items?.join(" ")))
        }
        ('x', Value::String(text)) => Some(text.bytes().map(|byte| format!("{byte:02x}")).collect()),
        ('X', Value::String(text)) => Some(text.bytes().map(|byte| format!("{byte:02X}")).collect()),
        ('c', Value::Number(number)) => char::from_u32(u32::try_from(number.as_u64()?).ok()?).map(String::from),
        ('d' | 'x' | 'X' | 'o' | 'b', Value::Number(number)) => {
            let (negative, most) = match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => (value < 0, value.unsigned_abs()),
                (None, value) => (false, value?),
            };
            let text = match verb {
                'd' => most.to_string(),
                'x' => format!("{most:x}"),
                'X' => format!("{most:X}"),
                'o' => format!("{most:o}"),
                _ => format!("{most:b}"),
            };
            Some(format!("{}{text}", sign(negative)))
        }
        ('f' | 'e' | 'E' | 'g' | 'G', Value::Number(number)) if number.is_f64() => {
            float(flags, verb, number.as_f64()?, sign)
        }
        _ => None,
    }
}

fn float(flags: &Flags, verb: char, value: f64, sign: impl Fn(bool) -> &'static str) -> Option<String> {
    let most = value.abs();
    let exponential = |text: String| {
        let (digits, exponent) = text.split_once('e')?;
        Some(format!("{digits}{}", signed(exponent.parse().ok()?)))
    };
    let text = match (verb, flags.precision) {
        ('f', precision) => format!("{most:.*}", precision.unwrap_or(6)),
        ('e' | 'E', precision) => exponential(format!("{most:.*e}", precision.unwrap_or(6)))?,
        (_, None) => shortest(most),
        (_, Some(precision)) => {
            let precision = precision.max(1);
            let rounded = format!("{most:.*e}", precision - 1);
            let exponent: i32 = rounded.split_once('e')?.1.parse().ok()?;
            let trim = |text: &str| match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text.to_owned(),
            };
            if exponent < -4 || exponent >= i32::try_from(precision).ok()? {
                let (digits, exponent) = rounded.split_once('e')?;
                format!("{}{}", trim(digits), signed(exponent.parse().ok()?))
            } else {
                let decimals = i32::try_from(precision).ok()? - 1 - exponent;
                trim(&format!("{most:.*}", usize::try_from(decimals).ok()?))
            }
        }
    };
    let text = if verb.is_uppercase() { text.to_uppercase() } else { text };
    Some(format!("{}{text}", sign(value.is_sign_negative())))
}

fn padded(flags: &Flags, text: String, is_number: bool) -> String {
    let missing = flags.width.saturating_sub(text.chars().count());
    if flags.left {
        return text + &" ".repeat(missing);
    }
    if flags.zero && is_number {
        let digits = text.trim_start_matches(['+', '-', ' ']);
        return format!("{}{}{digits}", &text[..text.len() - digits.len()], "0".repeat(missing));
    }
    let fill = if flags.zero { "0" } else { " " };
    fill.repeat(missing) + &text
}

/// A text as Go's `strconv.Quote` has it.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            control if control.is_control() && control.is_ascii() => {
                out.push_str(&format!("\\x{:02x}", u32::from(control)));
            }
            control if control.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out + "\""
}
