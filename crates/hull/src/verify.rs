//! `hull verify`: what this process sees of where it is, and whether that is as expected.
//!
//! It runs in any container that hull is mounted into, and on a host; it needs neither root nor a store, and changes
//! nothing. `facts` reads, `expect` compares, `show` prints.
//!
//! The JSON is one object on one line: `v` (1), `holds`, `checks` (`what`, `expected`, `found`, `holds` each) and
//! `facts` (the fields of [`Facts`]).

mod expect;
mod facts;
mod limits;
mod mountinfo;
mod show;
#[cfg(test)]
pub mod tests;

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use crate::report::Report;

pub use expect::{Check, Expect, Most, line};
pub use facts::{Facts, namespace_inode};
pub use show::{Row, sections};

// The flags of `hull verify`.
#[derive(clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    expect: Expect,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Stay until standard input ends, so that this process can be looked at from outside
    #[arg(long)]
    wait: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What `--format json` prints, as far as it is read back.
#[derive(Deserialize)]
pub struct Told {
    /// The version of the schema.
    pub v: u32,
    pub facts: Facts,
}

#[derive(Serialize)]
struct Telling<'a> {
    v: u32,
    holds: bool,
    checks: &'a [Check],
    facts: &'a Facts,
}

/// The version of the JSON's schema.
pub const SCHEMA: u32 = 1;

/// Exit status 0 if everything that was asked for holds, else 1.
///
/// # Errors
/// /proc cannot be read.
pub fn verify(args: &VerifyArgs) -> Result<i32, Report> {
    let facts = Facts::read(&args.expect.paths())?;
    let checks = args.expect.check(&facts);
    let holds = checks.iter().all(|check| check.holds);
    let told = match args.format {
        Format::Text => show::render(&facts, &checks),
        Format::Json => {
            let telling = Telling { v: SCHEMA, holds, checks: &checks, facts: &facts };
            let json = serde_json::to_string(&telling).map_err(|error| Report::host("write the facts", error))?;
            format!("{json}\n")
        }
    };
    let mut out = std::io::stdout();
    let written = out.write_all(told.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Report::host("write to standard output", error))?;
    if args.wait {
        let mut rest = Vec::new();
        std::io::stdin().read_to_end(&mut rest).map_err(|error| Report::host("read standard input", error))?;
    }
    Ok(i32::from(!holds))
}
