//! Platforms: what an image was made for, and which entry of an index is meant.
//!
//! Source: image specification `image-index.md`; the normal forms and the order of variants are those of containerd's
//! `platforms` package. Pure.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::ImageConfiguration;
use serde::Serialize;

use crate::document;
use crate::error::{Error, Result};

/// An operating system, an architecture by Go's name and its variant: `linux/amd64`, `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Platform {
    os: String,
    architecture: String,
    /// Empty for the plain one.
    #[serde(skip_serializing_if = "String::is_empty")]
    variant: String,
}

impl Platform {
    /// This machine's.
    pub fn host() -> Self {
        Self::new("linux", document::architecture(), "")
    }

    /// What a configuration says that it is for.
    pub(crate) fn of(config: &ImageConfiguration) -> Self {
        let variant = config.variant().as_deref().unwrap_or_default();
        Self::new(&config.os().to_string(), &config.architecture().to_string(), variant)
    }

    /// The operating system.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture, by Go's name.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant; empty for the plain one.
    pub fn variant(&self) -> &str {
        &self.variant
    }

    /// The normal form: `x86_64` is `amd64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`.
    pub(crate) fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (os, architecture, variant) =
            (os.to_ascii_lowercase(), architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("i386" | "i486" | "i586" | "i686", _) => ("386", ""),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            (architecture, variant) => (architecture, variant),
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// Whether `other` is what is meant where `self` is wanted.
    pub fn takes(&self, other: &Platform) -> bool {
        self.distance(other).is_some()
    }

    /// Whether a machine of this platform runs programs for `other` by itself, whatever their variant.
    pub fn runs(&self, other: &Platform) -> bool {
        let pair = (self.architecture.as_str(), other.architecture.as_str());
        self.os == other.os && (pair.0 == pair.1 || [("amd64", "386"), ("arm64", "arm")].contains(&pair))
    }

    /// How well `other` serves where `self` is wanted: the smaller the better, none if it does not.
    pub(crate) fn distance(&self, other: &Platform) -> Option<u32> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        let number = |variant: &str| variant.strip_prefix('v').unwrap_or(variant).parse::<u32>().ok();
        match (self.variant.as_str(), other.variant.as_str()) {
            (wanted, given) if wanted == given => Some(0),
            // An older variant's programs run on a newer machine.
            (wanted, "") if !wanted.is_empty() => Some(100),
            (wanted, given) => number(wanted)?.checked_sub(number(given)?),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `OS/ARCHITECTURE[/VARIANT]`, or one of the two alone, with this machine's other.
    fn from_str(text: &str) -> Result<Self> {
        let word = |part: &&str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(word) {
            return Err(Error::document(
                format!("platform {text:?}"),
                "it is OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT",
            ));
        }
        match parts[..] {
            ["linux"] => Ok(Self::host()),
            [architecture] => Ok(Self::new("linux", architecture, "")),
            [os, architecture] => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::new(os, architecture, variant)),
            _ => Err(Error::document(format!("platform {text:?}"), "it has more than three parts")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().expect("a platform")
    }

    #[test]
    fn spellings_of_one_platform_are_equal() {
        for (text, normal) in [
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64/v1", "linux/amd64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("armel", "linux/arm/v6"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(platform(text).to_string(), normal, "{text}");
        }
        for wrong in ["", "/", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_nearest_older_variant_serves() {
        let distance = |wanted: &str, given: &str| platform(wanted).distance(&platform(given));
        assert_eq!(distance("linux/arm/v7", "linux/arm/v7"), Some(0));
        assert_eq!(distance("linux/arm/v7", "linux/arm/v6"), Some(1));
        assert_eq!(distance("linux/arm/v6", "linux/arm/v7"), None);
        assert_eq!(distance("linux/amd64", "linux/amd64/v3"), None);
        assert_eq!(distance("linux/amd64/v3", "linux/amd64"), Some(100));
        assert_eq!(distance("linux/amd64", "linux/arm64"), None);
        assert_eq!(distance("linux/amd64", "windows/amd64"), None);
    }
}
