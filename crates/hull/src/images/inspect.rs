//! `hull inspect` and `hull history`: what an image says of itself, in Docker's shape.

use hull_image::{Image, Platform, Reference, Store};
use hull_template::Template;
use serde::Serialize;
use serde_json::{Value, json};

use super::args::{HistoryArgs, InspectArgs};
use super::{ago, say};
use crate::listing::{Listing, Row};
use crate::report::Report;
use crate::table;

/// `hull inspect`: every image is tried; the others are told although one is not there.
pub fn inspect(store: &Store, args: &InspectArgs) -> Result<i32, Report> {
    if let Some(kind) = args.kind.as_deref().filter(|kind| *kind != "image") {
        let told = format!("--type {kind} is not supported yet: images alone can be inspected");
        return Err(Report::usage(told, None).with_code(1));
    }
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(text) => Some(Template::parse(text).map_err(wrong)?),
    };
    let platform: Option<Platform> = args.platform.as_deref().map(str::parse).transpose()?;
    let mut told = Vec::new();
    let mut failure = None;
    for name in &args.images {
        match find(store, name, platform.as_ref())? {
            Some(image) => told.push(document(&image)),
            None => failure = failure.or(Some(hull_image::Error::NotFound { name: name.clone() })),
        }
    }
    let text = match (template, args.format.is_some()) {
        (Some(template), _) => {
            let lines = told.iter().map(|image| Ok(format!("{}\n", template.render(image).map_err(wrong)?)));
            lines.collect::<Result<String, Report>>()?
        }
        (None, true) => format!("{}\n", Value::Array(told)),
        (None, false) => pretty(&Value::Array(told))?,
    };
    say(&text)?;
    failure.map_or(Ok(0), |error| Err(error.into()))
}

/// The image that a name leads to, of this platform if one is given.
pub fn find(store: &Store, name: &str, platform: Option<&Platform>) -> Result<Option<Image>, Report> {
    Ok(match platform {
        Some(platform) => store.find_for(name, platform)?,
        None => store.find(name)?,
    })
}

fn wrong(error: hull_template::Error) -> Report {
    Report::usage(format!("cannot use the template: {error}"), None).with_code(1)
}

/// As Docker prints it: four spaces a level.
pub fn pretty(value: &Value) -> Result<String, Report> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    value.serialize(&mut serializer).map_err(|error| Report::host("write JSON", error))?;
    Ok(String::from_utf8_lossy(&out).into_owned() + "\n")
}

fn document(image: &Image) -> Value {
    let digests: Vec<String> =
        image.origins.iter().map(|(name, digest)| format!("{}@{digest}", name.familiar_name())).collect();
    let tags: Vec<String> = image.names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect();
    let config = image.config.config().as_ref();
    let history = image.config.history().as_deref().unwrap_or_default();
    let mut document = json!({
        "Id": image.id.as_str(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": history.last().and_then(|entry| entry.comment().clone()).unwrap_or_default(),
        "Created": image.created,
        "Author": image.config.author().clone().unwrap_or_default(),
        "Config": {
            "User": config.and_then(|config| config.user().clone()).unwrap_or_default(),
            "ExposedPorts": config.and_then(|config| config.exposed_ports().as_deref().map(set)),
            "Env": config.and_then(|config| config.env().clone()).unwrap_or_default(),
            "Cmd": config.and_then(|config| config.cmd().clone()),
            "Volumes": config.and_then(|config| config.volumes().as_deref().map(set)),
            "WorkingDir": config.and_then(|config| config.working_dir().clone()).unwrap_or_default(),
            "Entrypoint": config.and_then(|config| config.entrypoint().clone()),
            "Labels": config.and_then(|config| config.labels().clone()),
            "StopSignal": config.and_then(|config| config.stop_signal().clone()),
        },
        "Architecture": image.platform.architecture(),
        "Os": image.platform.os(),
        "Size": image.size,
        "GraphDriver": { "Name": "overlay", "Data": {} },
        "RootFS": { "Type": "layers", "Layers": image.diff_ids().iter().map(|id| id.as_str()).collect::<Vec<_>>() },
        "Descriptor": image.descriptor(),
    });
    if !image.platform.variant().is_empty() {
        document["Variant"] = image.platform.variant().into();
    }
    // What was not said is left out, as Docker does.
    for key in ["ExposedPorts", "Volumes", "StopSignal"] {
        if let Some(config) = document["Config"].as_object_mut().filter(|config| config[key].is_null()) {
            config.remove(key);
        }
    }
    document
}

/// A set is a map to nothing in Docker's JSON.
fn set(entries: &[String]) -> Value {
    entries.iter().map(|entry| (entry.clone(), json!({}))).collect::<serde_json::Map<_, _>>().into()
}

const HISTORY: Listing = Listing {
    columns: &[
        ("Comment", "COMMENT"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("CreatedSince", "CREATED"),
        ("ID", "IMAGE"),
        ("Size", "SIZE"),
    ],
    usual: &["ID", "CreatedSince", "CreatedBy", "Size", "Comment"],
};

/// `hull history`: a row for each step, the last one first. Only the last one has an id, the image's.
pub fn history(store: &Store, args: &HistoryArgs) -> Result<i32, Report> {
    let missing = || hull_image::Error::NotFound { name: args.image.clone() };
    let platform: Option<Platform> = args.platform.as_deref().map(str::parse).transpose()?;
    let image = find(store, &args.image, platform.as_ref())?.ok_or_else(missing)?;
    let mut sizes = image.layer_sizes().into_iter();
    let mut rows = Vec::new();
    for entry in image.config.history().as_deref().unwrap_or_default() {
        let size = if entry.empty_layer() == Some(true) { 0 } else { sizes.next().unwrap_or(0) };
        rows.push((entry.clone(), size));
    }
    let last = rows.len().saturating_sub(1);
    let id = if args.no_trunc { image.id.as_str() } else { image.id.short() };
    let rows: Vec<Row> = rows
        .iter()
        .enumerate()
        .rev()
        .map(|(n, (entry, size))| {
            let by = entry.created_by().clone().unwrap_or_default();
            let by = match by.char_indices().nth(45) {
                Some(_) if !args.no_trunc => by.chars().take(44).chain(['…']).collect(),
                _ => by,
            };
            let at = entry.created().clone().unwrap_or_default();
            Row::new([
                ("Comment", entry.comment().clone().unwrap_or_default()),
                ("CreatedAt", at.clone()),
                ("CreatedBy", by),
                ("CreatedSince", if args.human { ago(at.parse().ok()) } else { at }),
                ("ID", if n == last { id.to_owned() } else { "<missing>".to_owned() }),
                ("Size", if args.human { table::size(*size) } else { size.to_string() }),
            ])
        })
        .collect();
    match args.quiet && args.format.is_none() {
        true => HISTORY.render(Some("{{.ID}}"), &rows),
        false => HISTORY.render(args.format.as_deref(), &rows),
    }
    .and_then(|text| say(&text))
}
