//! What an image says of itself, under what the user says: command, environment, folder, user. Pure.
//!
//! Source: image-spec, config.md; Docker's rules for ENTRYPOINT, CMD and `--entrypoint`.

use oci_spec::image::ImageConfiguration;

use crate::error::{Error, Result};
use crate::options::RunOptions;

/// `options` with the image's defaults where the user gave nothing.
///
/// The image's variables are taken literally, never looked up in our own environment: an image that says `SECRET` or
/// `AWS*` learns nothing (CVE-2026-57231).
///
/// # Errors
/// Neither the user nor the image says what to run.
pub fn configure(options: &RunOptions, image: &ImageConfiguration) -> Result<RunOptions> {
    let mut all = options.clone();
    let config = image.config().as_ref();
    let words = |list: Option<&Option<Vec<String>>>| list.and_then(Clone::clone).unwrap_or_default();
    let image_command = words(config.map(|config| config.cmd()));
    let (mut args, arguments) = match &options.entrypoint {
        // Whoever replaces the entry point has replaced what its arguments were for.
        Some(program) => {
            (Some(program.clone()).filter(|program| !program.is_empty()).into_iter().collect(), Vec::new())
        }
        None => (words(config.map(|config| config.entrypoint())), image_command),
    };
    args.extend(if options.command.is_empty() { arguments } else { options.command.clone() });
    if args.is_empty() {
        return Err(Error::usage_hint("no command was given and the image has none", "hull run IMAGE COMMAND"));
    }
    all.command = args;

    // An entry without a name or a value is no variable.
    let variable = |entry: &String| entry.find('=').is_some_and(|at| at > 0);
    // Podman's default, which is for what a person runs: a build's steps have no terminal to name.
    all.env = vec!["TERM=xterm".to_owned()];
    all.env.extend(words(config.map(|config| config.env())).into_iter().filter(variable));
    all.env.extend(options.env.iter().cloned());
    let text = |value: Option<&Option<String>>| value.and_then(Clone::clone).filter(|value| !value.is_empty());
    if all.workdir.is_none() {
        all.workdir = text(config.map(|config| config.working_dir())).map(|dir| std::path::Path::new("/").join(dir));
    }
    all.user = all.user.or_else(|| text(config.map(|config| config.user())));
    Ok(all)
}

/// The command for a plain folder, which says nothing of itself.
///
/// # Errors
/// There is none.
pub fn plain(options: &RunOptions) -> Result<RunOptions> {
    configure(options, &ImageConfiguration::default())
        .map_err(|_| Error::usage_hint("no command was given", "hull run --rootfs DIR -- COMMAND"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(json: serde_json::Value) -> ImageConfiguration {
        let whole = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": json, "rootfs": {"type": "layers", "diff_ids": []}
        });
        serde_json::from_value(whole).unwrap()
    }

    fn run(entrypoint: Option<&str>, command: &[&str]) -> RunOptions {
        RunOptions {
            entrypoint: entrypoint.map(str::to_owned),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ..RunOptions::default()
        }
    }

    #[test]
    fn entry_point_and_command_combine_as_dockers() {
        let image = image(serde_json::json!({"Entrypoint": ["e"], "Cmd": ["c", "d"]}));
        for (entrypoint, command, result) in [
            (None, &[][..], &["e", "c", "d"][..]),
            (None, &["x"], &["e", "x"]),
            (Some("p"), &[], &["p"]),
            (Some("p"), &["x"], &["p", "x"]),
            (Some(""), &["x"], &["x"]),
        ] {
            assert_eq!(
                configure(&run(entrypoint, command), &image).unwrap().command,
                result,
                "{entrypoint:?} {command:?}"
            );
        }
        assert!(configure(&run(Some(""), &[]), &image).unwrap_err().to_string().contains("no command"));
    }

    #[test]
    fn the_user_overrides_the_image_and_its_variables_are_literal() {
        let image =
            image(serde_json::json!({"Env": ["PATH=/i", "HOME", "A*", "=x"], "WorkingDir": "srv", "User": "www"}));
        let own = configure(&run(None, &["x"]), &image).unwrap();
        assert_eq!(own.env, ["TERM=xterm", "PATH=/i"]);
        assert_eq!((own.workdir.unwrap().to_str(), own.user.as_deref()), (Some("/srv"), Some("www")));
        let given = RunOptions {
            workdir: Some("/w".into()),
            user: Some("0".into()),
            env: vec!["PATH=/u".into()],
            ..run(None, &["x"])
        };
        let both = configure(&given, &image).unwrap();
        assert_eq!(both.env.last().map(String::as_str), Some("PATH=/u"));
        assert_eq!((both.workdir.unwrap().to_str(), both.user.as_deref()), (Some("/w"), Some("0")));
    }
}
