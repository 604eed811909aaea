//! Values for people, in Docker's words: sizes, ages, and text with whatever could steer a terminal made visible.

/// Control characters as escapes: a name is data, whatever an image's author wrote into it.
pub fn escape(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Bytes as Docker shows them: three digits, powers of 1000.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            let digits = match value {
                _ if unit == "B" || value >= 100.0 => format!("{value:.0}"),
                _ if value >= 10.0 => format!("{value:.1}"),
                _ => format!("{value:.2}"),
            };
            let digits =
                if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
            return format!("{digits}{unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.0}PB")
}

/// How long ago, in Docker's words; `seconds` may be negative when clocks differ.
pub fn ago(seconds: i64) -> String {
    format!("{} ago", span(seconds))
}

/// How long, in Docker's words.
pub fn span(seconds: i64) -> String {
    let one_or = |count: i64, one: &str, many: &str| match count {
        1 => one.to_owned(),
        count => format!("{count} {many}"),
    };
    let (minute, hour, day) = (60, 3600, 86400);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1..60 => one_or(seconds, "1 second", "seconds"),
        60..3600 => one_or(seconds / minute, "About a minute", "minutes"),
        3600..172_800 => one_or(seconds / hour, "About an hour", "hours"),
        172_800..1_209_600 => one_or(seconds / day, "1 day", "days"),
        1_209_600..5_184_000 => one_or(seconds / (7 * day), "1 week", "weeks"),
        5_184_000..63_072_000 => one_or(seconds / (30 * day), "1 month", "months"),
        _ => one_or(seconds / (365 * day), "1 year", "years"),
    }
}

/// A moment of ours or of an image's, RFC 3339, as Docker's lists have it; as it is, if it is none.
pub fn date(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(moment) => moment.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        Err(_) => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_read_as_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_200_000, "4.2MB"),
            (7_654_321, "7.65MB"),
            (100_000_000, "100MB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in
            [(-5, "Less than a second ago"), (5, "5 seconds ago"), (61, "About a minute ago"), (7200, "2 hours ago")]
        {
            assert_eq!(ago(seconds), text);
        }
        assert_eq!(date("2024-05-06T07:08:09.123456Z"), "2024-05-06 07:08:09 +0000 UTC");
        assert_eq!(date("long ago"), "long ago");
    }
}
