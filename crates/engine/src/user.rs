//! Who `USER` means inside an image: numbers are numbers, names are looked up in the image's own files.
//!
//! The files are the image's, so they are opened inside its root, must be regular, and are read to a bound
//! (CVE-2024-9676); a number is never looked up as a name (CVE-2026-46680).

use hull_runtime::passwd;
use hull_sys::path::Root;

use crate::error::{Error, Result};

/// A user as the kernel needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home folder, `/` if nothing says otherwise.
    pub home: String,
}

/// The user that `text` (`USER[:GROUP]`, each a name or a number; empty is root) means in `root`.
///
/// # Errors
/// A name that the image does not know, a number out of range, a passwd or group file that is no regular file.
pub fn resolve(root: &Root, text: &str) -> Result<User> {
    let passwd = passwd::read(root, "/etc/passwd")?;
    let group = passwd::read(root, "/etc/group")?;
    lookup(&passwd, &group, text)
}

/// A number of digits only, without sign or blank.
fn number(text: &str) -> Option<std::result::Result<u32, ()>> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        // The largest id is (u32)-1, which the kernel takes as "leave it".
        .then(|| text.parse().ok().filter(|id| *id < u32::MAX).ok_or(()))
}

/// A number of the image's files; one that is none or out of range makes the line as good as missing.
fn id(text: &str) -> Option<u32> {
    number(text).and_then(std::result::Result::ok)
}

fn lookup(passwd: &str, group: &str, text: &str) -> Result<User> {
    let wrong = |why: String| Error::usage(format!("--user {text:?}: {why}"));
    let (name, group_name) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let lines = || passwd::entries(passwd);
    let mut user = match number(name) {
        Some(Err(())) => return Err(wrong(format!("{name} is out of range"))),
        Some(Ok(uid)) => {
            let entry = lines().find(|fields| id(fields[2]) == Some(uid));
            from_entry(uid, entry.as_deref())
        }
        None => {
            let entry = lines().find(|fields| fields[0] == name);
            let entry = entry.ok_or_else(|| wrong(format!("the image's /etc/passwd has no user {name:?}")))?;
            let uid =
                id(entry[2]).ok_or_else(|| wrong(format!("/etc/passwd has no possible number for {name:?}")))?;
            from_entry(uid, Some(&entry))
        }
    }
    .ok_or_else(|| wrong(format!("/etc/passwd has no possible group for {name:?}")))?;
    let groups = || group.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 4);
    match group_name {
        Some(group) => {
            user.gid = match number(group) {
                Some(Err(())) => return Err(wrong(format!("{group} is out of range"))),
                Some(Ok(gid)) => gid,
                None => groups()
                    .find(|fields| fields[0] == group)
                    .and_then(|fields| id(fields[2]))
                    .ok_or_else(|| wrong(format!("the image's /etc/group has no group {group:?}")))?,
            };
        }
        None => {
            let login = lines().find(|fields| id(fields[2]) == Some(user.uid)).map(|fields| fields[0].to_owned());
            let member =
                |fields: &Vec<&str>| login.as_deref().is_some_and(|login| fields[3].split(',').any(|m| m == login));
            user.groups = groups().filter(member).filter_map(|fields| id(fields[2])).collect();
        }
    }
    Ok(user)
}

/// None if the entry's group is none.
fn from_entry(uid: u32, entry: Option<&[&str]>) -> Option<User> {
    let gid = entry.map_or(Some(0), |fields| id(fields[3]))?;
    Some(User { uid, gid, groups: Vec::new(), home: passwd::home(entry).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/srv/web:/bin/sh\n1000:x:0:0::/evil:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:1001:\naudio:x:29:web,other\n";

    #[test]
    fn names_and_numbers_are_kept_apart() {
        let web = lookup(PASSWD, GROUP, "web").unwrap();
        assert_eq!((web.uid, web.gid, web.groups.as_slice(), web.home.as_str()), (1000, 1001, &[29][..], "/srv/web"));
        assert_eq!(lookup(PASSWD, GROUP, "1000").unwrap().uid, 1000, "the user called 1000 has uid 0");
        assert_eq!(lookup(PASSWD, GROUP, "4000").unwrap(), User { uid: 4000, home: "/".into(), ..User::default() });
        assert_eq!(lookup(PASSWD, GROUP, "web:audio").unwrap().gid, 29);
        assert_eq!(lookup(PASSWD, GROUP, "").unwrap().home, "/root");
        assert_eq!(lookup(PASSWD, GROUP, "web:").unwrap(), web, "no group is the user's own ones");
        assert_eq!(lookup(PASSWD, GROUP, ":audio").unwrap().gid, 29);
    }

    /// The kernel takes (u32)-1 as "leave it", and it would be left at 0.
    #[test]
    fn a_number_of_the_images_that_is_out_of_range_is_no_user() {
        for (ids, text) in [
            ("4294967295:1000", "evil"),
            ("4294967296:1000", "evil"),
            ("-1:1000", "evil"),
            ("1000:4294967295", "evil"),
            ("1000:4294967295", "1000"),
            ("1000:x", "evil"),
        ] {
            let passwd = format!("evil:x:{ids}::/:/bin/sh\n");
            assert!(
                lookup(&passwd, "", text).unwrap_err().to_string().contains("/etc/passwd has no possible"),
                "{ids}"
            );
        }
        let group = "all:x:4294967295:web\nnone:x:-1:web\naudio:x:29:web\n";
        assert!(lookup(PASSWD, group, "web:all").is_err());
        assert_eq!(lookup(PASSWD, group, "web").unwrap().groups, [29]);
    }

    #[test]
    fn bad_forms_are_refused() {
        for text in ["+1", "-1", "1 ", "4294967295", "4294967296", "nobody-here", "web:none", "0:4294967296"] {
            assert!(lookup(PASSWD, GROUP, text).is_err(), "{text:?}");
        }
    }
}
