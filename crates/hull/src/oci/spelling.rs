//! Options as Go's `flag` takes them, which is how runc's callers may write them: with one dash or two, and what is either so
//! or not also as `=true` and `=false`. containerd says `-no-subreaper`.

use std::ffi::OsString;

use clap::{Arg, CommandFactory};

use super::Oci;

/// The same command line with two dashes before each name, and without values of what has none.
pub(super) fn usual(arguments: Vec<OsString>) -> Vec<OsString> {
    // Looking at all options takes half a millisecond.
    let unusual = |word: &OsString| {
        let word = word.as_encoded_bytes();
        let dash = word.first() == Some(&b'-');
        let value = || word.iter().position(|byte| *byte == b'=').and_then(|at| truth(&word[at + 1..]));
        dash && (word.len() > 2 && word[1] != b'-' || value().is_some())
    };
    match arguments.iter().skip(1).any(unusual) {
        true => spelled(arguments),
        false => arguments,
    }
}

fn spelled(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut oci = Oci::command();
    oci.build();
    let mut level = &oci;
    let mut words = arguments.into_iter();
    let mut all: Vec<OsString> = words.next().into_iter().collect();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        let Some(name) = text.strip_prefix('-').map(|rest| rest.strip_prefix('-').unwrap_or(rest)) else {
            // A verb; behind its options is what is a container's, or a command's.
            let verb = std::ptr::eq(level, &oci).then(|| oci.find_subcommand(&*text)).flatten();
            all.push(word.clone());
            match verb {
                Some(verb) => level = verb,
                None => break,
            }
            continue;
        };
        if name.is_empty() {
            all.push(word);
            break;
        }
        let (name, value) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)));
        let known = level.get_arguments().find(|option| is_called(option, name));
        let Some(option) = known else {
            all.push(word);
            continue;
        };
        let switch = !option.get_action().takes_values();
        match (switch, value.map(|value| truth(value.as_bytes()))) {
            (true, Some(Some(false))) => {}
            (true, Some(Some(true)) | None) => all.push(format!("--{}", long(option)).into()),
            _ => all.push(format!("--{}{}", long(option), &text[text.find('=').unwrap_or(text.len())..]).into()),
        }
        if !switch && value.is_none() && !option.is_require_equals_set() {
            all.extend(words.next());
        }
    }
    all.extend(words);
    all
}

fn long(option: &Arg) -> &str {
    option.get_long().unwrap_or_default()
}

fn is_called(option: &Arg, name: &str) -> bool {
    let short = option.get_short().is_some_and(|short| name.chars().eq([short]));
    option.get_long().is_some_and(|long| long == name || short)
}

/// Go's `strconv.ParseBool`.
fn truth(word: &[u8]) -> Option<bool> {
    match word {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        let words = usual(text.split(' ').map(OsString::from).collect());
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        for (given, usual) in [
            (
                "-root /r restore -no-subreaper -d -bundle=/b id",
                "--root /r restore --no-subreaper --detach --bundle=/b id",
            ),
            (
                "exec -env -no-pivot -t=true -e A=true id ls -la -root",
                "exec --env -no-pivot --tty --env A=true id ls -la -root",
            ),
            ("--debug=false run --keep=1 --detach=f id", "run --keep id"),
            ("exec --no-new-privs=false id true", "exec --no-new-privs=false id true"),
            // What nobody knows stays as it is, for the error.
            ("list -xy --quiet=maybe", "list -xy --quiet=maybe"),
            ("kill id -9", "kill id -9"),
            ("kill -- -id -all", "kill -- -id -all"),
            ("nothing -root", "nothing -root"),
        ] {
            assert_eq!(line(&format!("hull-oci {given}")), format!("hull-oci {usual}"));
        }
    }
}
