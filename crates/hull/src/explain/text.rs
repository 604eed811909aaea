//! The story as text: stages with their reasons, and under each what the kernel was asked.

use std::fmt::Write;

use hull_sys::trace::{Event, Kind};

use super::{result, role};

pub(super) fn render(events: &[Event]) -> String {
    let mut told = String::new();
    let mut who = None;
    for event in events {
        // Writing to a String cannot fail.
        let _ = match event.kind {
            Kind::Stage => {
                who = Some(event.role);
                writeln!(told, "\n== {} [{}]\n   {}", event.name, role(event.role), event.args)
            }
            Kind::Call | Kind::Walk => {
                if who != Some(event.role) {
                    who = Some(event.role);
                    let _ = writeln!(told, "   [{}]", role(event.role));
                }
                let mark = if event.kind == Kind::Walk { "path " } else { "" };
                let micros = event.duration as f64 / 1000.0;
                writeln!(told, "   {micros:>9.1} us  {mark}{}({}) = {}", event.name, event.args, result(event))
            }
        };
    }
    told
}
