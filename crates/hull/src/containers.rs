//! The containers' commands: `ps` and `rm`.

use std::io::Write;

use hull_engine::container::{self, Listed, State};
use hull_engine::{Engine, names};
use jiff::Timestamp;

use crate::listing::{Listing, Row};
use crate::report::Report;
use crate::table;

// What `hull ps` is to show.
#[derive(clap::Args)]
pub struct PsArgs {
    /// Also those that have ended
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// table, json, table TEMPLATE or a template: .ID .Image .Command .CreatedAt .RunningFor .State .Status .Ports .Names
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const LISTING: Listing = Listing {
    columns: &[
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Names", "NAMES"),
        ("Ports", "PORTS"),
        ("RunningFor", "CREATED"),
        ("State", "STATE"),
        ("Status", "STATUS"),
    ],
    usual: &["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"],
};

/// `hull ps`: a row for each container, newest first.
pub fn list(engine: &Engine, args: &PsArgs) -> Result<i32, Report> {
    let all = container::list(engine)?;
    let shown = all.iter().filter(|listed| args.all || listed.state == State::Running);
    let told: String = if args.quiet && args.format.is_none() {
        shown.map(|listed| format!("{}\n", id(listed, args.no_trunc))).collect()
    } else {
        LISTING.render(args.format.as_deref(), &shown.map(|listed| row(listed, args.no_trunc)).collect::<Vec<_>>())?
    };
    std::io::stdout().write_all(told.as_bytes()).map_err(|error| Report::host("write to standard output", error))?;
    Ok(0)
}

fn id(listed: &Listed, whole: bool) -> &str {
    if whole { &listed.record.id } else { &listed.record.id[..12] }
}

/// A container's row; `whole` is its id and command without an end to them.
pub fn row(listed: &Listed, whole: bool) -> Row {
    let record = &listed.record;
    let command = record.command.join(" ");
    let command = match command.char_indices().nth(20) {
        Some(_) if !whole => command.chars().take(19).chain(['…']).collect(),
        _ => command,
    };
    let (state, status) = match &listed.state {
        State::Running => ("running", format!("Up {}", table::span(age(&record.created)))),
        State::Exited(exit) => ("exited", format!("Exited ({}) {}", exit.code, table::ago(age(&exit.finished)))),
        State::Unknown => ("exited", "Exited (unknown)".to_owned()),
    };
    Row::new([
        ("Command", format!("\"{command}\"")),
        ("CreatedAt", table::date(&record.created)),
        ("ID", id(listed, whole).to_owned()),
        ("Image", record.image.clone()),
        ("Names", record.name.clone()),
        ("Ports", String::new()),
        ("RunningFor", table::ago(age(&record.created))),
        ("State", state.to_owned()),
        ("Status", status),
    ])
}

/// Seconds since `time`, which is one of our own.
fn age(time: &str) -> i64 {
    let then = time.parse::<Timestamp>().unwrap_or(Timestamp::UNIX_EPOCH);
    Timestamp::now().duration_since(then).as_secs()
}

/// `hull rm`: every container is tried and named when it is gone; failures are told on the way, the last one at the end.
pub fn remove(engine: &Engine, containers: &[String], force: bool) -> Result<i32, Report> {
    let mut failure: Option<Report> = None;
    for wanted in containers {
        match container::remove(engine, wanted, force) {
            Ok(()) => println!("{}", table::escape(wanted)),
            Err(error) => {
                failure.iter().for_each(|before| _ = before.tell());
                failure = Some(Report::from(error).with_code(1));
            }
        }
    }
    failure.map_or(Ok(0), Err)
}

/// A name that a container may have.
///
/// # Errors
/// It may not.
pub fn name(text: &str) -> Result<String, Report> {
    names::check(text)?;
    Ok(text.to_owned())
}
