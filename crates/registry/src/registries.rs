//! `registries.conf`: where short names lead, which registries have mirrors, are blocked or may be insecure.
//!
//! Version 2 of the format, with its drop-in folder and the aliases of short names. Source: containers'
//! `containers-registries.conf(5)`. Reading files is all it does with the host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hull_image::Reference;
use serde::Deserialize;

use crate::error::{Class, Error, Result};

/// The registry that a name without one means where nothing else is configured.
const DOCKER: &str = "docker.io";

/// One file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ConfigFile {
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<String>,
    #[serde(default, rename = "registry")]
    registries: Vec<Entry>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// Tables of version 1, which means other things by them.
    #[serde(rename = "registries")]
    version_1: Option<toml::Table>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Entry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    #[serde(rename = "mirror")]
    mirrors: Vec<Mirror>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

/// What all files together say.
#[derive(Debug, Default)]
pub struct Registries {
    search: Vec<String>,
    enforcing: bool,
    entries: Vec<Entry>,
    aliases: BTreeMap<String, String>,
}

/// One place that an image is asked for at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Host and port, as configured.
    pub host: String,
    /// The repository there.
    pub path: String,
    /// It may have no valid certificate, or none at all.
    pub insecure: bool,
}

impl Registries {
    /// Reads the host's configuration: `$CONTAINERS_REGISTRIES_CONF` alone, or the user's file before the host's, and
    /// then what is in the drop-in folders.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn load() -> Result<Self> {
        let mut all = Self::default();
        if let Some(path) = std::env::var_os("CONTAINERS_REGISTRIES_CONF") {
            all.read(Path::new(&path), true)?;
            return Ok(all);
        }
        let system = Path::new("/etc/containers/registries.conf");
        let own = config_home().map(|home| home.join("containers/registries.conf")).filter(|path| path.exists());
        all.read(own.as_deref().unwrap_or(system), false)?;
        all.read_folder(&system.with_extension("conf.d"))?;
        if let Some(own) = own {
            all.read_folder(&own.with_extension("conf.d"))?;
        }
        Ok(all)
    }

    fn read_folder(&mut self, folder: &Path) -> Result<()> {
        let wrong = |error: std::io::Error| Error::new(Class::Config, format!("read {}", folder.display()), error);
        let list = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            list => list.map_err(wrong)?,
        };
        let mut paths: Vec<PathBuf> =
            list.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>().map_err(wrong)?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
        paths.sort();
        paths.iter().try_for_each(|path| self.read(path, true))
    }

    fn read(&mut self, path: &Path, needed: bool) -> Result<()> {
        let doing = || format!("read {}", path.display());
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !needed => Ok(()),
            Err(error) => Err(Error::new(Class::Config, doing(), error)),
            Ok(text) => self.add(&text).map_err(|why| Error::new(Class::Config, doing(), why)),
        }
    }

    /// Lays one file over what is known: lists replace, entries and aliases are joined.
    fn add(&mut self, text: &str) -> std::result::Result<(), String> {
        let file: ConfigFile = toml::from_str(text).map_err(|error| error.to_string().trim().replace('\n', " "))?;
        if file.version_1.is_some() {
            return Err("version 1 of the format ([registries.*]) is not supported".to_owned());
        }
        if let Some(search) = file.unqualified_search_registries {
            self.search = search;
        }
        match file.short_name_mode.as_deref() {
            None => {}
            Some("enforcing") => self.enforcing = true,
            Some("permissive" | "disabled") => self.enforcing = false,
            Some(other) => return Err(format!("short-name-mode {other:?} is not known")),
        }
        for mut entry in file.registries {
            if entry.prefix.is_empty() {
                entry.prefix.clone_from(&entry.location);
            }
            if entry.location.is_empty() && !entry.prefix.starts_with("*.") {
                entry.location.clone_from(&entry.prefix);
            }
            if entry.prefix.is_empty() {
                return Err("a registry has neither prefix nor location".to_owned());
            }
            if let Some(mirror) = entry.mirrors.iter().find(|mirror| mirror.location.is_empty()) {
                return Err(format!("a mirror of {} has no location: {mirror:?}", entry.prefix));
            }
            self.entries.retain(|known| known.prefix != entry.prefix);
            self.entries.push(entry);
        }
        for (alias, target) in file.aliases {
            match target.as_str() {
                "" => _ = self.aliases.remove(&alias),
                target => _ = self.aliases.insert(alias, target.to_owned()),
            }
        }
        Ok(())
    }

    /// The full names that `text` may stand for, in the order in which they are tried.
    ///
    /// # Errors
    /// It is no name; a short one that may mean several while the configuration forbids to guess.
    pub fn candidates(&self, text: &str) -> Result<Vec<Reference>> {
        if has_registry(text) {
            return Ok(vec![text.parse()?]);
        }
        let end = text.find(['@', ':']).unwrap_or(text.len());
        if let Some(target) = self.aliases.get(&text[..end]) {
            return Ok(vec![format!("{target}{}", &text[end..]).parse()?]);
        }
        if self.search.is_empty() {
            return Ok(vec![text.parse()?]);
        }
        if self.enforcing && self.search.len() > 1 {
            let why = format!("it is short and may be one of {}", self.search.join(", "));
            return Err(Error::new(Class::Usage, format!("resolve the name {text}"), why)
                .with_hint("write the registry before the name"));
        }
        self.search.iter().map(|registry| Ok(format!("{registry}/{text}").parse()?)).collect()
    }

    /// Where to ask for `name`: its mirrors, then its registry.
    ///
    /// # Errors
    /// The registry is blocked, or the configuration rewrites the name to something that is none.
    pub fn sources(&self, name: &Reference) -> Result<Vec<Source>> {
        let whole = name.name();
        let fixed = name.digest().is_some();
        let matching = self.entries.iter().filter(|entry| matches(&entry.prefix, &whole));
        let Some(entry) = matching.max_by_key(|entry| entry.prefix.len()) else {
            return Ok(vec![Source {
                host: name.domain().to_owned(),
                path: name.path().to_owned(),
                insecure: false,
            }]);
        };
        if entry.blocked {
            return Err(blocked(&whole, entry));
        }
        let mut sources = Vec::new();
        for mirror in &entry.mirrors {
            let serves = match mirror.pull_from_mirror.as_str() {
                "digest-only" => fixed,
                "tag-only" => !fixed,
                _ => fixed || !entry.mirror_by_digest_only,
            };
            if serves {
                sources.push(rewrite(&whole, &entry.prefix, &mirror.location, mirror.insecure)?);
            }
        }
        let location = if entry.location.is_empty() { name.domain() } else { &entry.location };
        let prefix = if entry.location.is_empty() { name.domain() } else { &entry.prefix };
        sources.push(rewrite(&whole, prefix, location, entry.insecure)?);
        Ok(sources)
    }

    /// A registry by its host name, with no repository in mind.
    ///
    /// # Errors
    /// It is blocked.
    pub fn registry(&self, host: &str) -> Result<Source> {
        let matching = self.entries.iter().filter(|entry| matches(&entry.prefix, host));
        let entry = matching.max_by_key(|entry| entry.prefix.len());
        if let Some(entry) = entry.filter(|entry| entry.blocked) {
            return Err(blocked(host, entry));
        }
        let insecure = entry.is_some_and(|entry| entry.insecure);
        Ok(Source { host: host.to_owned(), path: String::new(), insecure })
    }

    /// Where `name` itself is at home, which is where it is pushed to: no mirror.
    ///
    /// # Errors
    /// As [`Registries::sources`].
    pub fn origin(&self, name: &Reference) -> Result<Source> {
        let none = || Error::new(Class::Config, format!("use {}", name.name()), "it leads to no registry");
        self.sources(name)?.pop().ok_or_else(none)
    }
}

fn blocked(what: &str, entry: &Entry) -> Error {
    let why = format!("the registry {} is blocked in registries.conf", entry.prefix);
    Error::new(Class::Denied, format!("use {what}"), why)
}

/// Whether a name says its registry: Docker's rule.
fn has_registry(text: &str) -> bool {
    text.split_once('/').is_some_and(|(first, _)| {
        first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
    })
}

fn matches(prefix: &str, name: &str) -> bool {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = name.split('/').next().unwrap_or_default();
        return host.ends_with(domain) && host.len() > domain.len();
    }
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn rewrite(name: &str, prefix: &str, location: &str, insecure: bool) -> Result<Source> {
    let rest = if prefix.starts_with('*') {
        &name[name.find('/').unwrap_or(name.len())..]
    } else {
        name.strip_prefix(prefix).unwrap_or_default()
    };
    let whole = format!("{location}{rest}");
    let wrong = |why: &str| Error::new(Class::Config, format!("use {whole:?} for {name}"), why);
    let (host, path) = whole.split_once('/').ok_or_else(|| wrong("registries.conf leaves no repository"))?;
    // The grammar of names also keeps `..`, spaces and query strings out of what becomes an address.
    let parsed: Reference = format!("{host}/{path}").parse().map_err(|_| wrong("that is no repository's name"))?;
    if parsed.domain() != host && host != "index.docker.io" {
        return Err(wrong("its first part is no registry"));
    }
    Ok(Source { host: parsed.domain().to_owned(), path: parsed.path().to_owned(), insecure })
}

/// The host name and port that serve a registry.
pub(crate) fn server(host: &str) -> &str {
    if host == DOCKER { "registry-1.docker.io" } else { host }
}

/// The folder of the user's configuration.
pub(crate) fn config_home() -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .and_then(absolute)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(text: &str) -> Registries {
        let mut all = Registries::default();
        all.add(text).expect("a configuration");
        all
    }

    fn names(all: &Registries, text: &str) -> Vec<String> {
        all.candidates(text).expect("names").iter().map(Reference::to_string).collect()
    }

    fn sources(all: &Registries, text: &str) -> Vec<String> {
        let shown = |source: Source| {
            format!("{}/{}{}", source.host, source.path, if source.insecure { " insecure" } else { "" })
        };
        all.sources(&text.parse().expect("a name")).expect("sources").into_iter().map(shown).collect()
    }

    #[test]
    fn short_names_are_dockers_unless_configured() {
        let plain = Registries::default();
        assert_eq!(names(&plain, "debian:12"), ["docker.io/library/debian:12"]);
        assert_eq!(names(&plain, "localhost/a"), ["localhost/a:latest"]);
        let all = registries(
            "unqualified-search-registries = ['quay.io', 'docker.io']\n[aliases]\nalpine = 'mirror.test/os/alpine'",
        );
        assert_eq!(names(&all, "x/y:1"), ["quay.io/x/y:1", "docker.io/x/y:1"]);
        assert_eq!(names(&all, "x"), ["quay.io/x:latest", "docker.io/library/x:latest"]);
        assert_eq!(names(&all, "alpine:3.20"), ["mirror.test/os/alpine:3.20"]);
        assert_eq!(names(&all, "quay.io/alpine"), ["quay.io/alpine:latest"]);
        let strict =
            registries("unqualified-search-registries = ['a.test', 'b.test']\nshort-name-mode = 'enforcing'");
        assert!(strict.candidates("x").is_err());
    }

    #[test]
    fn the_longest_prefix_decides_where_to_ask() {
        let all = registries(
            "[[registry]]\nprefix = 'docker.io'\nlocation = 'proxy.test:5000/hub'\ninsecure = true\n\
             [[registry.mirror]]\nlocation = 'm.test/d'\n[[registry.mirror]]\nlocation = 'digests.test'\npull-from-mirror = 'digest-only'\n\
             [[registry]]\nlocation = 'docker.io/evil'\nblocked = true\n\
             [[registry]]\nprefix = '*.corp.test'\nlocation = 'front.test'\n",
        );
        assert_eq!(
            sources(&all, "debian"),
            ["m.test/d/library/debian", "proxy.test:5000/hub/library/debian insecure"]
        );
        let digest = format!("debian@sha256:{}", "a".repeat(64));
        assert_eq!(sources(&all, &digest)[1], "digests.test/library/debian");
        assert!(all.sources(&"evil/x".parse().expect("a name")).is_err());
        assert!(all.registry("docker.io").expect("a registry").insecure);
        assert!(!all.registry("quay.io").expect("a registry").insecure);
        assert_eq!(sources(&all, "evils/x"), ["m.test/d/evils/x", "proxy.test:5000/hub/evils/x insecure"]);
        assert_eq!(sources(&all, "a.corp.test/x/y"), ["front.test/x/y"]);
        assert_eq!(sources(&all, "corp.test/x/y"), ["corp.test/x/y"]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "[registries.search]\nregistries = ['a']",
            "[[registry]]\ninsecure = true",
            "short-name-mode = 'x'",
            "x = [",
        ] {
            assert!(Registries::default().add(text).is_err(), "{text}");
        }
        let all = registries("[[registry]]\nprefix = 'a.test'\nlocation = 'b.test/../x?y='\n");
        assert!(all.sources(&"a.test/x".parse().expect("a name")).is_err());
    }

    #[test]
    fn a_later_file_replaces_what_an_earlier_one_said_of_the_same() {
        let mut all = registries("[[registry]]\nlocation = 'a.test'\nblocked = true\n[aliases]\nx = 'a.test/x'");
        all.add("[[registry]]\nlocation = 'a.test'\ninsecure = true\n[aliases]\nx = ''").expect("a drop-in");
        assert_eq!(sources(&all, "a.test/y"), ["a.test/y insecure"]);
        assert_eq!(names(&all, "x"), ["docker.io/library/x:latest"]);
    }
}
