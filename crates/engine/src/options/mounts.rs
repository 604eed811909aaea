//! Mounts that a user asks for: `--volume`, `--mount` and `--tmpfs`. Pure, but for what a relative path is relative to.

use std::path::PathBuf;

use super::{RunOptions, bytes};
use crate::error::{Error, Result};

/// A bind mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The host's path.
    pub source: PathBuf,
    /// Where it appears.
    pub target: PathBuf,
    /// Without write access, for the mounts below it as well.
    pub read_only: bool,
}

impl Bind {
    /// `SOURCE:TARGET[:ro|rw]`, as `--volume` takes it; a source that begins with a dot is relative to the current folder.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| Err(Error::usage(format!("--volume {text:?}: {why}")));
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, read_only) = match parts.as_slice() {
            [source, target] | [source, target, "rw"] => (source, target, false),
            [source, target, "ro"] => (source, target, true),
            [_] => return wrong("an anonymous volume is not supported yet; write SOURCE:TARGET"),
            [_, _, mode] => return wrong(&format!("the mode {mode:?} is not supported; ro and rw are")),
            _ => return wrong("it is SOURCE:TARGET[:ro]"),
        };
        if !target.starts_with('/') || *target == "/" {
            return wrong("the target is an absolute path other than /");
        }
        let source = match source.as_bytes() {
            [b'/', ..] => source.into(),
            b"." | b".." | [b'.', b'/', ..] | [b'.', b'.', b'/', ..] => std::path::absolute(source)
                .map_err(|error| Error::host(format!("find {source} from the current folder"), error))?,
            _ => return wrong("a named volume is not supported yet; the source is a path, /DIR or ./DIR"),
        };
        Ok(Self { source, target: target.into(), read_only })
    }
}

/// A scratch file system in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where it appears.
    pub target: PathBuf,
    /// Its options, Docker's defaults among them.
    pub options: Vec<String>,
}

impl Tmpfs {
    /// `TARGET[:OPTIONS]`.
    pub fn parse(text: &str) -> Result<Self> {
        let (target, given) = text.split_once(':').unwrap_or((text, ""));
        if !target.starts_with('/') || target == "/" {
            return Err(Error::usage(format!("--tmpfs {text:?}: the target is an absolute path other than /")));
        }
        let mut options: Vec<String> = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
        for option in given.split(',').filter(|option| !option.is_empty()) {
            let known = matches!(option, "rw" | "ro" | "suid" | "nosuid" | "dev" | "nodev" | "exec" | "noexec")
                || ["size=", "mode=", "uid=", "gid=", "nr_inodes=", "nr_blocks="]
                    .iter()
                    .any(|key| option.starts_with(key));
            if !known {
                return Err(Error::usage(format!("--tmpfs {text:?}: the option {option:?} is not known")));
            }
            options.push(option.to_owned());
        }
        Ok(Self { target: target.into(), options })
    }
}

/// What `--mount` can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyMount {
    /// `type=bind`
    Bind(Bind),
    /// `type=tmpfs`
    Tmpfs(Tmpfs),
}

/// `type=bind,source=DIR,target=DIR[,readonly]` or `type=tmpfs,target=DIR[,tmpfs-size=…,tmpfs-mode=…]`, with Docker's
/// other spellings of the keys.
///
/// # Errors
/// An unknown key, one that is missing, a type other than these two.
pub fn parse_mount(text: &str) -> Result<AnyMount> {
    let wrong = |why: String| Error::usage(format!("--mount {text:?}: {why}"));
    let (mut kind, mut source, mut target, mut read_only) = ("volume", None, None, false);
    let mut extra = Vec::new();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        match (key, value) {
            ("type", Some(value)) => kind = value,
            ("source" | "src", Some(value)) => source = Some(value),
            ("target" | "destination" | "dst", Some(value)) => target = Some(value),
            ("readonly" | "ro", None | Some("true" | "1")) => read_only = true,
            ("readonly" | "ro", Some("false" | "0")) => read_only = false,
            ("tmpfs-size", Some(value)) => extra.push(format!("size={}", bytes("tmpfs-size", value)?)),
            ("tmpfs-mode", Some(value)) if value.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) => {
                extra.push(format!("mode={value}"));
            }
            ("tmpfs-mode", Some(_)) => return Err(wrong(format!("{field:?} is no mode such as 1770"))),
            _ => return Err(wrong(format!("{field:?} is not supported"))),
        }
    }
    let target = target.ok_or_else(|| wrong("target is missing".to_owned()))?;
    if !target.starts_with('/') || target == "/" {
        return Err(wrong("the target is an absolute path other than /".to_owned()));
    }
    match (kind, source) {
        ("bind", Some(source)) if source.starts_with('/') && extra.is_empty() => {
            Ok(AnyMount::Bind(Bind { source: source.into(), target: target.into(), read_only }))
        }
        ("bind", Some(_)) if !extra.is_empty() => Err(wrong("the tmpfs keys are for type=tmpfs".to_owned())),
        ("bind", _) => Err(wrong("source is an absolute path".to_owned())),
        ("tmpfs", None) => {
            // Not by the other flag's text: a colon is part of the path here.
            let options = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
            let mut tmpfs = Tmpfs { target: target.into(), options };
            tmpfs.options.extend(read_only.then(|| "ro".to_owned()));
            tmpfs.options.extend(extra);
            Ok(AnyMount::Tmpfs(tmpfs))
        }
        ("tmpfs", Some(_)) => Err(wrong("a tmpfs has no source".to_owned())),
        (other, _) => Err(wrong(format!("type={other} is not supported yet; bind and tmpfs are"))),
    }
}

/// Two mounts at one place would hide one another.
///
/// # Errors
/// There are two, in Docker's words.
pub fn distinct_targets(options: &RunOptions) -> Result<()> {
    let targets =
        options.binds.iter().map(|bind| &bind.target).chain(options.tmpfs.iter().map(|tmpfs| &tmpfs.target));
    let mut seen = std::collections::BTreeSet::new();
    for target in targets {
        // Components, so that /a and /a/ are one place.
        if !seen.insert(target.components().collect::<PathBuf>()) {
            return Err(Error::usage(format!("duplicate mount point: {}", target.display())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_paths_and_their_modes_known() {
        let bind = Bind::parse("/a:/b:ro").unwrap();
        assert_eq!((bind.target.to_str(), bind.read_only), (Some("/b"), true));
        let here = std::env::current_dir().unwrap();
        assert_eq!(Bind::parse("./a:/b").unwrap().source, here.join("a"));
        assert_eq!(Bind::parse(".:/b").unwrap().source, here);
        for text in ["data:/b", ".data:/b", "/a", "/a:b", "/a:/", "/a:/b:z", "/a:/b:ro:x"] {
            assert!(Bind::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts_have_dockers_keys_and_one_place_each() {
        let bind = parse_mount("type=bind,src=/a,dst=/b,readonly").unwrap();
        assert_eq!(bind, AnyMount::Bind(Bind { source: "/a".into(), target: "/b".into(), read_only: true }));
        let AnyMount::Tmpfs(tmpfs) = parse_mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap()
        else {
            panic!("a tmpfs");
        };
        assert_eq!(tmpfs.options[3..], ["size=1048576", "mode=1770"]);
        for text in [
            "type=bind,target=/b",
            "type=bind,source=a,target=/b",
            "type=volume,target=/b",
            "target=/b",
            "type=tmpfs,source=/a,target=/b",
            "type=bind,source=/a,target=/b,bind-propagation=shared",
            "type=tmpfs,target=/",
            "type=bind,source=/a,target=/b,tmpfs-size=1",
            "",
        ] {
            assert!(parse_mount(text).is_err(), "{text}");
        }
        let mut options = RunOptions { tmpfs: vec![tmpfs], ..RunOptions::default() };
        assert!(distinct_targets(&options).is_ok());
        options.binds.push(Bind { source: "/a".into(), target: "/t/".into(), read_only: false });
        assert_eq!(distinct_targets(&options).unwrap_err().to_string(), "duplicate mount point: /t");
    }
}
