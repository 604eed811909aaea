//! The platform a build is for: the host's, until there are others.

/// An operating system and an architecture under Go's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// `amd64`, `arm64`, …
    pub arch: String,
    /// `v7`, or empty.
    pub variant: String,
}

impl Platform {
    /// The platform this binary was built for.
    pub fn host() -> Self {
        let (arch, variant) = arch(std::env::consts::ARCH, "");
        Self { os: "linux".into(), arch, variant }
    }

    /// Reads `os[/arch[/variant]]` or `arch`, as Docker does; what is missing is the host's.
    pub fn parse(text: &str) -> Self {
        let host = Self::host();
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let (os, name, variant) = match *parts {
            [one] if matches!(one, "linux" | "windows" | "darwin" | "freebsd") => (one, &*host.arch, ""),
            [one] => ("linux", one, ""),
            [os, name] => (os, name, ""),
            [os, name, variant, ..] => (os, name, variant),
            [] => ("linux", "", ""),
        };
        let (arch, variant) = arch(name, variant);
        Self { os: os.to_owned(), arch, variant }
    }

    /// `os/arch[/variant]`.
    pub fn name(&self) -> String {
        let slash = if self.variant.is_empty() { "" } else { "/" };
        format!("{}/{}{slash}{}", self.os, self.arch, self.variant)
    }

    /// The predefined arguments that carry a platform.
    pub(super) fn arguments(&self) -> Vec<(String, String)> {
        let mut list = Vec::new();
        for side in ["TARGET", "BUILD"] {
            list.push((format!("{side}PLATFORM"), self.name()));
            list.push((format!("{side}OS"), self.os.clone()));
            list.push((format!("{side}ARCH"), self.arch.clone()));
            list.push((format!("{side}VARIANT"), self.variant.clone()));
        }
        list
    }
}

fn arch(name: &str, variant: &str) -> (String, String) {
    let (name, variant) = match (name, variant) {
        ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "" | "v8" | "8") => ("arm64", ""),
        ("armhf", _) => ("arm", "v7"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("x86" | "i386", _) => ("386", ""),
        ("powerpc64", variant) => ("ppc64le", variant),
        other => other,
    };
    (name.to_owned(), variant.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_names_are_normalised_as_dockers() {
        for (text, expected) in [
            ("linux/x86_64", "linux/amd64"),
            ("Linux/AMD64", "linux/amd64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(Platform::parse(text).name(), expected, "{text}");
        }
    }
}
