//! The story as JSON, one event a line, schema version 1.
//!
//! | field | in | meaning |
//! |---|---|---|
//! | `v` | all | 1 |
//! | `kind` | all | `stage`, `call` or `walk` (a path resolved inside the root) |
//! | `role` | all | `parent` or `container` |
//! | `at` | all | microseconds since the start |
//! | `title`, `why` | stage | what happens now, and the reason |
//! | `name` | call, walk | the kernel's name of the call; the walk's operation |
//! | `args` | call, walk | the arguments as strace shows them, in one string |
//! | `us` | call, walk | how long it took, in microseconds |
//! | `result` | call, walk | what the kernel returned; absent if the process ended inside the call |
//! | `error` | call, walk | the error's name, if it failed |
//!
//! A call's name is a JSON string of its own in the lines of that call and in no other, so `grep -c '"pivot_root"'`
//! counts.

use hull_sys::trace::{Event, Kind, Role};
use serde_json::{Value, json};

pub(super) fn render(events: &[Event]) -> String {
    events.iter().map(|event| format!("{}\n", line(event))).collect()
}

fn line(event: &Event) -> Value {
    let kind = match event.kind {
        Kind::Stage => "stage",
        Kind::Call => "call",
        Kind::Walk => "walk",
    };
    let role = if event.role == Role::Parent { "parent" } else { "container" };
    let mut line = json!({"v": 1, "kind": kind, "role": role, "at": event.start as f64 / 1000.0});
    if event.kind == Kind::Stage {
        line["title"] = event.name.clone().into();
        line["why"] = event.args.clone().into();
        return line;
    }
    line["name"] = event.name.clone().into();
    line["args"] = event.args.clone().into();
    line["us"] = (event.duration as f64 / 1000.0).into();
    match event.result {
        None => {}
        Some(Ok(number)) => line["result"] = number.into(),
        Some(Err(errno)) => {
            line["result"] = (-1).into();
            line["error"] =
                hull_sys::errno_name(errno).map_or_else(|| errno.raw_os_error().to_string(), str::to_owned).into();
        }
    }
    line
}
