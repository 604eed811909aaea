//! The command line: arguments in, one report out.
//!
//! Called as `hull-oci` or `runc` the OCI verbs are meant; the name decides, never a guess at the arguments.

#![forbid(unsafe_code)]

mod args;
mod explain;
mod report;

use std::path::Path;

use clap::Parser;
use hull_engine::{Engine, check};

use args::{Cli, Command, RunArgs, SystemCommand};
use report::Report;

fn main() {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let status = match name.as_str() {
        "hull-oci" | "runc" => {
            Err(Report::usage("the OCI verbs are not supported yet", Some("use `hull run --rootfs`")))
        }
        _ => hull(Cli::parse()),
    };
    std::process::exit(status.unwrap_or_else(|report| report.tell()));
}

fn hull(cli: Cli) -> Result<i32, Report> {
    let engine = Engine { runroot: cli.runroot };
    match cli.command {
        Command::Version => {
            println!("hull {}", env!("CARGO_PKG_VERSION"));
            Ok(0)
        }
        Command::Run(args) => run(&engine, *args),
        Command::System { command: SystemCommand::Check { repair } } => {
            root_only()?;
            system_check(&engine, repair)
        }
    }
}

fn root_only() -> Result<(), Report> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Report::usage("hull needs root: running without it is not supported yet", Some("sudo hull …")))
}

fn run(engine: &Engine, args: RunArgs) -> Result<i32, Report> {
    let explain = args.explain.clone();
    let dry_run = args.dry_run;
    let options = args.options()?;
    root_only()?;
    if dry_run {
        print!("{}", hull_engine::run::dry_run(&options)?);
        return Ok(0);
    }
    let Some(explain) = explain else { return Ok(hull_engine::run(engine, &options)?) };
    hull_sys::trace::enable()
        .map_err(|error| Report::usage(format!("cannot make room for --explain: {error}"), None))?;
    let result = hull_engine::run(engine, &options);
    // What was done until a failure is what a reader needs most then.
    explain.write()?;
    Ok(result?)
}

fn system_check(engine: &Engine, repair: bool) -> Result<i32, Report> {
    let findings = check::check(&engine.runroot)?;
    for finding in &findings {
        if repair {
            check::repair(finding)?;
            println!("repaired: {finding}");
        } else {
            println!("{finding}");
        }
    }
    Ok(i32::from(!findings.is_empty() && !repair))
}
