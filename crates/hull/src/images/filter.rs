//! Which images are meant: the filters of `images` and `image prune`.

use hull_image::{Image, Reference, Store};
use jiff::Timestamp;

use crate::report::Report;

/// One condition.
enum Condition {
    Dangling(bool),
    /// Name and value, and whether it has it or lacks it.
    Label(String, Option<String>, bool),
    /// Made before that moment, or after it.
    Before(Timestamp),
    Since(Timestamp),
    Until(Timestamp),
}

/// All of the conditions hold for an image, and one of the patterns for a name.
#[derive(Default)]
pub struct Filter {
    conditions: Vec<Condition>,
    patterns: Vec<String>,
}

impl Filter {
    /// Of these kinds only.
    ///
    /// # Errors
    /// A filter of another kind, or a value that means nothing; an image that is not there.
    pub fn parse(store: &Store, texts: &[String], kinds: &[&str]) -> Result<Self, Report> {
        let mut filter = Self::default();
        for text in texts {
            let wrong = |why: &str| Report::usage(format!("--filter {text:?}: {why}"), None).with_code(1);
            let (key, value) = text.split_once('=').ok_or_else(|| wrong("it is NAME=VALUE"))?;
            let (kind, has) = key.strip_suffix('!').map_or((key, true), |kind| (kind, false));
            if !kinds.contains(&kind) || (!has && kind != "label") {
                return Err(wrong(&format!("it is none of {}", kinds.join(", "))));
            }
            match kind {
                "dangling" => {
                    let value = match value {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        _ => return Err(wrong("it is true or false")),
                    };
                    filter.conditions.push(Condition::Dangling(value));
                }
                "label" => {
                    let (name, value) =
                        value.split_once('=').map_or((value, None), |(name, value)| (name, Some(value)));
                    filter.conditions.push(Condition::Label(name.to_owned(), value.map(str::to_owned), has));
                }
                "before" | "since" => {
                    let image =
                        store.find(value)?.ok_or_else(|| hull_image::Error::NotFound { name: value.to_owned() })?;
                    let made = created(&image).ok_or_else(|| wrong("the image does not say when it was made"))?;
                    filter.conditions.push(if kind == "before" {
                        Condition::Before(made)
                    } else {
                        Condition::Since(made)
                    });
                }
                "until" => {
                    let until = until(value)
                        .ok_or_else(|| wrong("it is an age, as 24h, or a time, as 2024-05-06T07:08:09Z"))?;
                    filter.conditions.push(Condition::Until(until));
                }
                _ => filter.patterns.push(value.to_owned()),
            }
        }
        Ok(filter)
    }

    /// One more pattern for names: a repository, with or without a tag.
    pub fn reference(&mut self, pattern: &str) {
        self.patterns.push(pattern.to_owned());
    }

    /// Whether names are asked for, so that what has none is not meant.
    pub fn wants_names(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether an image is meant.
    pub fn takes(&self, image: &Image) -> bool {
        let made = created(image);
        self.conditions.iter().all(|condition| match condition {
            Condition::Dangling(dangling) => image.names.is_empty() == *dangling,
            Condition::Label(name, value, has) => label(image, name, value.as_deref()) == *has,
            Condition::Before(moment) | Condition::Until(moment) => made.is_some_and(|made| made < *moment),
            Condition::Since(moment) => made.is_some_and(|made| made > *moment),
        })
    }

    /// Whether a name is meant.
    pub fn takes_name(&self, name: &Reference) -> bool {
        let spellings = [name.familiar_name(), name.familiar(), name.name(), name.to_string()];
        let takes = |pattern: &String| spellings.iter().any(|text| matches(pattern.as_bytes(), text.as_bytes()));
        self.patterns.is_empty() || self.patterns.iter().any(takes)
    }
}

/// When an image was made, if it says so.
pub fn created(image: &Image) -> Option<Timestamp> {
    image.created.as_deref()?.parse().ok()
}

fn label(image: &Image, name: &str, value: Option<&str>) -> bool {
    let labels = image.config.config().as_ref().and_then(|config| config.labels().as_ref());
    labels.and_then(|labels| labels.get(name)).is_some_and(|known| value.is_none_or(|value| value == known))
}

/// An age before now, in Go's words (`1h30m`), or a moment: RFC 3339, a date, seconds since the epoch.
pub fn until(text: &str) -> Option<Timestamp> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Timestamp::from_second(seconds).ok();
    }
    if let Ok(date) = text.parse::<jiff::civil::DateTime>() {
        return jiff::tz::TimeZone::UTC.to_timestamp(date).ok();
    }
    let mut seconds = 0i64;
    let mut rest = Some(text).filter(|text| !text.is_empty())?;
    while !rest.is_empty() {
        let end = rest.find(|character: char| !character.is_ascii_digit()).filter(|end| *end > 0)?;
        let number: i64 = rest[..end].parse().ok()?;
        let unit = rest[end..].chars().next()?;
        let length = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(length)?)?;
        rest = &rest[end + 1..];
    }
    Timestamp::from_second(Timestamp::now().as_second().checked_sub(seconds)?).ok()
}

/// Go's `path.Match`, without sets: `*` and `?` stand for anything but a slash.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            let here = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            (0..=here).any(|skip| matches(&pattern[1..], &text[skip..]))
        }
        (Some(b'?'), Some(byte)) if *byte != b'/' => matches(&pattern[1..], &text[1..]),
        (Some(a), Some(b)) if a == b => matches(&pattern[1..], &text[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stop_at_slashes() {
        for (pattern, text, is) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("*:lat*", "x:latest", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("b?sybox", "busybox", true),
            ("busybox", "busybox:latest", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), is, "{pattern} {text}");
        }
    }

    #[test]
    fn ages_and_moments_are_read() {
        let now = Timestamp::now().as_second();
        let age = |text: &str| until(text).map(|moment| now - moment.as_second());
        assert!(age("1h30m").is_some_and(|age| (5400..5403).contains(&age)));
        assert_eq!(until("2024-05-06T07:08:09Z"), "2024-05-06T07:08:09Z".parse().ok());
        assert_eq!(until("2024-05-06T00:00:00"), "2024-05-06T00:00:00Z".parse().ok());
        assert_eq!(until("5"), Timestamp::from_second(5).ok());
        for wrong in ["", "h", "5x", "soon"] {
            assert!(until(wrong).is_none(), "{wrong}");
        }
    }
}
