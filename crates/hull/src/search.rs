//! `hull search`.

use clap::Args;
use hull_registry::Registries;

use crate::images::say;
use crate::listing::{Listing, Row};
use crate::registry::AccessArgs;
use crate::report::Report;

// The flags of `hull search`, Docker's and podman's.
#[derive(Args)]
pub struct SearchArgs {
    /// stars=N or is-official=true|false
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// The most that is shown
    #[arg(long, value_name = "N", default_value_t = 25)]
    limit: usize,
    /// Whole descriptions
    #[arg(long)]
    no_trunc: bool,
    /// The tags of a repository instead
    #[arg(long)]
    list_tags: bool,
    /// table, json, table TEMPLATE or a template: .Name .Description .StarCount .IsOfficial, and with --list-tags .Name .Tag
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    #[command(flatten)]
    registry: AccessArgs,
    /// A word, with a registry before it if not Docker's is meant: r.example/word
    term: String,
}

const FOUND: Listing = Listing {
    columns: &[("Description", "DESCRIPTION"), ("IsOfficial", "OFFICIAL"), ("Name", "NAME"), ("StarCount", "STARS")],
    usual: &["Name", "Description", "StarCount", "IsOfficial"],
};
const TAGS: Listing = Listing { columns: &[("Name", "NAME"), ("Tag", "TAG")], usual: &["Name", "Tag"] };

/// `hull search`.
pub fn search(args: &SearchArgs) -> Result<i32, Report> {
    let options = args.registry.options()?;
    if args.list_tags {
        let name: hull_image::Reference = args.term.parse()?;
        let source = Registries::load()?.origin(&name)?;
        let tags = hull_registry::search::tags(&source, args.limit, &options)?;
        let row = |tag: String| Row::new([("Name", name.name()), ("Tag", tag)]);
        return say(&TAGS.render(args.format.as_deref(), &tags.into_iter().map(row).collect::<Vec<_>>())?);
    }
    let (stars, official) = args.conditions()?;
    let is_host = |first: &str| first.contains(['.', ':']) || first == "localhost";
    let (host, term) = match args.term.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => ("docker.io", args.term.as_str()),
    };
    let mut found = hull_registry::search::search(host, term, args.limit, &options)?;
    found.retain(|one| one.star_count >= stars && official.is_none_or(|official| one.is_official == official));
    let rows: Vec<Row> = found
        .into_iter()
        .map(|one| {
            let text = one.description;
            let text = match text.char_indices().nth(45) {
                Some(_) if !args.no_trunc => text.chars().take(44).chain(['…']).collect(),
                _ => text,
            };
            Row::new([
                ("Description", text),
                ("IsOfficial", if one.is_official { "[OK]".to_owned() } else { String::new() }),
                ("Name", one.name),
                ("StarCount", one.star_count.to_string()),
            ])
        })
        .collect();
    say(&FOUND.render(args.format.as_deref(), &rows)?)
}

impl SearchArgs {
    fn conditions(&self) -> Result<(u64, Option<bool>), Report> {
        let (mut stars, mut official) = (0, None);
        for filter in &self.filter {
            let wrong = || {
                Report::usage(format!("--filter {filter:?} is not stars=N or is-official=BOOL"), None).with_code(1)
            };
            match filter.split_once('=').ok_or_else(wrong)? {
                ("stars", number) => stars = number.parse().map_err(|_| wrong())?,
                ("is-official", value) => official = Some(value.parse().map_err(|_| wrong())?),
                _ => return Err(wrong()),
            }
        }
        Ok((stars, official))
    }
}
