//! Limits that a user asks for: sizes, processors, and the limits of a process. Pure.

use crate::error::{Error, Result};

/// A resource limit of the process, `NAME=SOFT[:HARD]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// `RLIMIT_NOFILE` and so on.
    pub name: String,
    /// In force; `u64::MAX` is unlimited.
    pub soft: u64,
    /// The most that can be set.
    pub hard: u64,
}

impl Ulimit {
    /// Docker's form, with its names; -1 is unlimited.
    pub fn parse(text: &str) -> Result<Self> {
        const NAMES: [&str; 15] = [
            "core",
            "cpu",
            "data",
            "fsize",
            "locks",
            "memlock",
            "msgqueue",
            "nice",
            "nofile",
            "nproc",
            "rss",
            "rtprio",
            "rttime",
            "sigpending",
            "stack",
        ];
        let wrong = |why: &str| Error::usage(format!("--ulimit {text:?}: {why}"));
        let (name, values) = text.split_once('=').ok_or_else(|| wrong("it is NAME=SOFT[:HARD]"))?;
        if !NAMES.contains(&name) {
            return Err(wrong(&format!("{name:?} is none of {}", NAMES.join(", "))));
        }
        let number = |text: &str| match text {
            "-1" | "unlimited" => Ok(u64::MAX),
            text => text.parse().map_err(|_| wrong(&format!("{text:?} is not a number"))),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (number(soft)?, number(hard)?);
        if soft > hard {
            return Err(wrong("the soft limit is above the hard one"));
        }
        Ok(Self { name: format!("RLIMIT_{}", name.to_uppercase()), soft, hard })
    }
}

/// `512m`, `1.5g`, `4096`: bytes with Docker's suffixes (powers of 1024).
pub fn bytes(flag: &str, text: &str) -> Result<i64> {
    let wrong = |why: &str| Error::usage(format!("{flag} {text:?}: {why}"));
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match lower.chars().last() {
        Some('k') => (&lower[..lower.len() - 1], 10),
        Some('m') => (&lower[..lower.len() - 1], 20),
        Some('g') => (&lower[..lower.len() - 1], 30),
        Some('t') => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    let digits = digits.trim();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let value = match digits.split_once('.') {
        Some((whole, part)) if is_number(whole) && is_number(part) => {
            // Exact for what anybody writes; the largest are caught by the range of i64.
            digits
                .parse::<f64>()
                .ok()
                .map(|number| number * f64::from(1u32 << 10).powi(shift / 10))
                .filter(|value| *value < i64::MAX as f64)
                .map(|value| value as i64)
        }
        None if is_number(digits) => {
            let number = digits.parse::<u64>().ok();
            number.and_then(|number| number.checked_mul(1 << shift)).and_then(|value| i64::try_from(value).ok())
        }
        _ => return Err(wrong("it is a size such as 512m or 1.5g")),
    };
    value.ok_or_else(|| wrong("it is too large"))
}

/// `--memory`: Docker's minimum is 6 MiB, below which a process cannot even be started.
pub fn memory(text: &str) -> Result<i64> {
    let no_limit =
        || Error::usage_hint(format!("--memory {text} is no limit"), "leave it out if there is to be none");
    match text {
        "-1" | "max" | "unlimited" => return Err(no_limit()),
        _ => {}
    }
    match bytes("--memory", text)? {
        0 => Err(no_limit()),
        value if value < 6 << 20 => Err(Error::usage(format!("--memory {text}: the minimum is 6m"))),
        value => Ok(value),
    }
}

/// `--cpus` as a quota of 100 000 microseconds.
pub fn cpus(text: &str) -> Result<i64> {
    let number: f64 = text.parse().map_err(|_| Error::usage(format!("--cpus {text:?} is not a number")))?;
    let most = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
    if !(0.01..=most).contains(&number) {
        return Err(Error::usage(format!("--cpus {text}: this machine has from 0.01 to {most:.2}")));
    }
    Ok((number * 100_000.0).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_dockers_suffixes() {
        for (text, value) in [
            ("1", 1),
            ("4k", 4096),
            ("512M", 512 << 20),
            ("1gb", 1 << 30),
            ("2GiB", 2 << 30),
            ("1.5g", 3 << 29),
            ("0.5m", 1 << 19),
            ("10.7", 10),
        ] {
            assert_eq!(bytes("-m", text).unwrap(), value, "{text}");
        }
        for text in
            ["", "m", "-5m", "+5m", "1x", "99999999999999999999g", "9999999t9", "1.", ".5", "1e3", "9999999999.5t"]
        {
            assert!(bytes("-m", text).is_err(), "{text}");
        }
        assert!(memory("5m").unwrap_err().to_string().contains("minimum is 6m"));
        for text in ["0", "-1", "unlimited"] {
            let error = memory(text).unwrap_err();
            assert!(error.to_string().contains("is no limit") && error.hint().is_some(), "{error}");
        }
    }

    #[test]
    fn ulimits_are_a_closed_list() {
        let limit = Ulimit::parse("nofile=10:20").unwrap();
        assert_eq!((limit.name.as_str(), limit.soft, limit.hard), ("RLIMIT_NOFILE", 10, 20));
        assert!(Ulimit::parse("nofile=20:10").is_err());
        assert!(Ulimit::parse("files=1").is_err());
    }
}
