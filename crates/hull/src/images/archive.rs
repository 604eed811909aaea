//! Images as files: `save`, `load` and `import`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Read, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::path::Path;

use hull_image::{ImportOptions, Platform, Reference, Saved, Store};

use super::args::{ImportArgs, LoadArgs, SaveArgs};
use super::inspect::find;
use super::say;
use crate::report::Report;

/// `hull save`. A file gets its name when it is whole.
pub fn save(store: &Store, args: &SaveArgs) -> Result<i32, Report> {
    let platform: Option<Platform> = args.platform.as_deref().map(str::parse).transpose()?;
    let images = wanted(store, &args.images, platform.as_ref())?;
    let write = match args.format.as_str() {
        "docker-archive" => |store: &Store, images: &[Saved], out: &mut dyn Write| store.save_docker(images, out),
        "oci-archive" => |store: &Store, images: &[Saved], out: &mut dyn Write| store.save_oci(images, out),
        "oci-dir" => {
            let to = args.output.as_ref().ok_or_else(|| usage("--format oci-dir needs --output DIR"))?;
            store.save_folder(&images, to)?;
            return Ok(0);
        }
        other => return Err(usage(&format!("--format {other:?} is not docker-archive, oci-archive or oci-dir"))),
    };
    let Some(path) = &args.output else {
        if stdout().is_terminal() {
            return Err(Report::usage("an archive is nothing for a terminal", Some("hull save -o FILE")).with_code(1));
        }
        write(store, &images, &mut BufWriter::with_capacity(1 << 20, stdout().lock()))?;
        return Ok(0);
    };
    let failed = |error| Report::host(format!("write {}", path.display()), error);
    // Something that is no file (a device, a pipe) is written to as it is.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        let file = File::options().write(true).open(path).map_err(failed)?;
        write(store, &images, &mut BufWriter::with_capacity(1 << 20, file))?;
        return Ok(0);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let file = File::create(&temporary).map_err(failed)?;
    let written = write(store, &images, &mut BufWriter::with_capacity(1 << 20, &file)).map_err(Report::from);
    // What was there before is only given up for what has reached the disk.
    let written =
        written.and_then(|()| file.sync_data().and_then(|()| std::fs::rename(&temporary, path)).map_err(failed));
    if written.is_err() {
        // The first failure is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    }
    written.map(|()| 0)
}

fn usage(text: &str) -> Report {
    Report::usage(text, None).with_code(1)
}

/// Each image once, with all names that it is saved under.
fn wanted(store: &Store, names: &[String], platform: Option<&Platform>) -> Result<Vec<Saved>, Report> {
    let mut all: Vec<Saved> = Vec::new();
    let mut add = |image: hull_image::Image, name: Option<Reference>| {
        let at = all.iter().position(|(known, _)| known.manifest == image.manifest);
        let at = at.unwrap_or_else(|| {
            all.push((image, Vec::new()));
            all.len() - 1
        });
        if let Some(name) = name.filter(|name| !all[at].1.contains(name)) {
            all[at].1.push(name);
        }
    };
    for text in names {
        let missing = || hull_image::Error::NotFound { name: text.clone() };
        let reference = text.parse::<Reference>().ok();
        let bare = !text.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
        let mut found = false;
        if let Some(repository) = reference.as_ref().filter(|_| bare) {
            for image in store.images()? {
                if platform.is_some_and(|platform| !platform.takes(&image.platform)) {
                    continue;
                }
                for name in
                    image.names.iter().filter(|name| name.name() == repository.name() && name.digest().is_none())
                {
                    add(image.clone(), Some(name.clone()));
                    found = true;
                }
            }
        }
        if !found {
            let image = find(store, text, platform)?.ok_or_else(missing)?;
            let named = reference.filter(|name| image.names.contains(name) && name.digest().is_none());
            add(image, named);
        }
    }
    Ok(all)
}

/// `hull load`: Docker's line for each image.
pub fn load(store: &Store, args: &LoadArgs) -> Result<i32, Report> {
    let loaded = match &args.input {
        Some(path) if path.is_dir() => store.load_folder(path),
        Some(path) => {
            let file = File::open(path).map_err(|error| Report::host(format!("read {}", path.display()), error))?;
            store.load(file)
        }
        None if stdin().is_terminal() => {
            return Err(Report::usage("there is no archive on a terminal", Some("hull load -i FILE")).with_code(1));
        }
        None => {
            let input = stdin().as_fd().try_clone_to_owned();
            store.load(File::from(input.map_err(|error| Report::host("read standard input", error))?))
        }
    };
    let shown = args.input.as_ref().map_or("standard input".to_owned(), |path| path.display().to_string());
    let loaded = loaded.map_err(|error| of_archive("load", &shown, error))?;
    if args.quiet {
        return Ok(0);
    }
    let line = |(image, name): &hull_image::Loaded| match name {
        Some(name) => format!("Loaded image: {}\n", name.familiar()),
        None => format!("Loaded image ID: {}\n", image.id),
    };
    say(&loaded.iter().map(line).collect::<String>())
}

/// The store knows no file, only bytes.
fn of_archive(verb: &str, shown: &str, error: hull_image::Error) -> Report {
    match error {
        hull_image::Error::Archive { why } => Report::host(format!("{verb} {shown}"), why),
        error => error.into(),
    }
}

/// `hull import`: the image's id on standard output.
pub fn import(store: &Store, args: &ImportArgs) -> Result<i32, Report> {
    let name: Reference = args.name.parse()?;
    let platform = args.platform.as_deref().map(str::parse).transpose()?;
    let mut options = ImportOptions { comment: args.message.clone(), platform, ..ImportOptions::default() };
    for text in &args.change {
        change(&mut options, text)?;
    }
    let tar: Box<dyn Read> = match args.file.to_str() {
        Some("-") => Box::new(stdin().lock()),
        _ => {
            let failed = |error| Report::host(format!("read {}", args.file.display()), error);
            Box::new(File::open(&args.file).map_err(failed)?)
        }
    };
    let is_stdin = args.file == Path::new("-");
    let shown = if is_stdin { "standard input".to_owned() } else { args.file.display().to_string() };
    let image = store.import(tar, &name, options).map_err(|error| of_archive("import", &shown, error))?;
    say(&format!("{}\n", image.id))
}

/// One instruction of a Dockerfile.
fn change(options: &mut ImportOptions, text: &str) -> Result<(), Report> {
    let wrong = |why: &str| usage(&format!("--change {text:?}: {why}"));
    let (word, rest) = text.trim().split_once(char::is_whitespace).ok_or_else(|| wrong("it has no value"))?;
    let rest = rest.trim();
    let list = || match serde_json::from_str::<Vec<String>>(rest) {
        Ok(words) => words,
        Err(_) => vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.to_owned()],
    };
    let unquoted = |value: &str| {
        let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        inner.unwrap_or(value).to_owned()
    };
    match word.to_ascii_uppercase().as_str() {
        "CMD" => options.cmd = Some(list()),
        "ENTRYPOINT" => options.entrypoint = Some(list()),
        "USER" => options.user = Some(rest.to_owned()),
        "WORKDIR" => options.workdir = Some(rest.to_owned()),
        kind @ ("ENV" | "LABEL") => {
            let pair = rest.split_once('=').or_else(|| rest.split_once(' '));
            let (name, value) = pair.ok_or_else(|| wrong("it is NAME=VALUE"))?;
            match kind {
                "ENV" => options.env.push(format!("{name}={}", unquoted(value))),
                _ => _ = options.labels.insert(unquoted(name), unquoted(value)),
            }
        }
        other => return Err(wrong(&format!("{other} is not supported"))),
    }
    Ok(())
}
