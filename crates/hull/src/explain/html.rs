//! The story as one page: nothing is loaded from anywhere, nothing in it runs.
//!
//! Two lanes on one scale of time, the parent's and the container's, with a bar for each call; below them the stages
//! in order with their reasons, each with its calls. A page without script cannot be made to do what an argument
//! says; all text is escaped all the same.

use std::fmt::Write;

use hull_sys::trace::{Event, Kind, Role};

const STYLE: &str = "\
:root{color-scheme:light dark;--ground:#fbfaf7;--ink:#1d2327;--soft:#69747c;--line:#e0ddd5;--parent:#2f6f9f;--container:#c2662d;\
--bad:#b3261e}\
@media(prefers-color-scheme:dark){:root{--ground:#16191c;--ink:#e8e6e1;--soft:#98a3ab;--line:#30363b;--parent:#6db3e3;\
--container:#ee9a63;--bad:#ff8a80}}\
body{background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,sans-serif;margin:2.5rem auto;max-width:70rem;padding:0 1.5rem}\
h1{font-size:1.6rem;margin:0}h2{font-size:1.05rem;margin:0}p{margin:.15rem 0 .6rem;color:var(--soft);max-width:46rem}\
svg{width:100%;height:auto;margin:1.2rem 0 2rem;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}\
.parent{--lane:var(--parent)}.container{--lane:var(--container)}\
rect.call{fill:var(--lane)}rect.failed{fill:var(--bad)}line{stroke:var(--line)}\
section{border-left:3px solid var(--lane);padding:.1rem 0 .4rem 1rem;margin:0 0 1.3rem}\
.who{font-size:.72rem;color:var(--lane);text-transform:uppercase;letter-spacing:.06em}\
table{border-collapse:collapse;width:100%;font:12.5px/1.45 ui-monospace,monospace}\
td{padding:.1rem .5rem;vertical-align:top;overflow-wrap:anywhere}td.us{text-align:right;color:var(--soft);width:6.5rem;white-space:nowrap}\
td.result{width:11rem}tr.failed td.result{color:var(--bad)}tr.parent .name{color:var(--parent)}tr.container .name{color:var(--container)}";

/// Width of the scale of time, in the picture's own units.
const WIDTH: f64 = 900.0;
/// Where the lanes begin, right of their names.
const LEFT: f64 = 80.0;

pub(super) fn render(events: &[Event]) -> String {
    let end = events.iter().map(|event| event.start + event.duration).max().unwrap_or(1).max(1);
    let calls = events.iter().filter(|event| event.kind == Kind::Call).count();
    let stages = events.iter().filter(|event| event.kind == Kind::Stage).count();
    let mut page = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page += "<meta name=\"viewport\" content=\"width=device-width\"><title>hull, explained</title>\n<style>";
    page += STYLE;
    page += "</style></head><body>\n<h1>What the kernel was asked</h1>\n";
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(page, "<p>{stages} stages, {calls} system calls, {:.2} ms.</p>", end as f64 / 1e6);
    timeline(&mut page, events, end);
    let mut open = false;
    for event in events {
        match event.kind {
            Kind::Stage => {
                if open {
                    page += "</table></section>\n";
                }
                open = true;
                stage(&mut page, &event.name, &event.args, event.role);
            }
            Kind::Call | Kind::Walk => {
                if !open {
                    open = true;
                    stage(&mut page, "before the first stage", "", event.role);
                }
                row(&mut page, event);
            }
        }
    }
    if open {
        page += "</table></section>\n";
    }
    page + "</body></html>\n"
}

fn stage(page: &mut String, title: &str, why: &str, who: Role) {
    let (lane, title, why) = (lane(who), escape(title), escape(why));
    let _ = writeln!(
        page,
        "<section class=\"stage {lane}\"><span class=\"who\">{lane}</span><h2>{title}</h2><p>{why}</p><table>"
    );
}

fn row(page: &mut String, event: &Event) {
    let failed = if matches!(event.result, Some(Err(_))) { " failed" } else { "" };
    let path = if event.kind == Kind::Walk { "path " } else { "" };
    let _ = writeln!(
        page,
        "<tr class=\"{}{failed}\"><td class=\"us\">{:.1} µs</td><td><span class=\"name\">{path}{}</span>({})</td>\
         <td class=\"result\">{}</td></tr>",
        lane(event.role),
        event.duration as f64 / 1000.0,
        escape(&event.name),
        escape(&event.args),
        escape(&super::result(event)),
    );
}

/// The picture: a bar for each call, a line where each stage begins.
fn timeline(page: &mut String, events: &[Event], end: u64) {
    let at = |time: u64| LEFT + time as f64 / end as f64 * WIDTH;
    let _ = writeln!(
        page,
        "<svg viewBox=\"0 0 {} 118\" role=\"img\" aria-label=\"the calls over time\">",
        LEFT + WIDTH + 10.0
    );
    for (role, top) in [(Role::Parent, 14), (Role::Child, 58)] {
        let _ = writeln!(page, "<text x=\"0\" y=\"{}\">{}</text>", top + 20, lane(role));
        let _ = writeln!(
            page,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/><g class=\"{}\">",
            LEFT + WIDTH,
            lane(role),
            y = top + 34
        );
        for event in events.iter().filter(|event| event.role == role) {
            let x = at(event.start);
            if event.kind == Kind::Stage {
                let _ = writeln!(
                    page,
                    "<line x1=\"{x:.2}\" x2=\"{x:.2}\" y1=\"{}\" y2=\"{}\"><title>{}</title></line>",
                    top - 6,
                    top + 34,
                    escape(&event.name)
                );
                continue;
            }
            // A call of a microsecond is still to be seen.
            let width = (at(event.start + event.duration) - x).max(0.8);
            let failed = if matches!(event.result, Some(Err(_))) { " failed" } else { "" };
            let _ = writeln!(
                page,
                "<rect class=\"call{failed}\" x=\"{x:.2}\" y=\"{}\" width=\"{width:.2}\" height=\"28\" rx=\"1\"><title>{}: \
                 {:.1} µs</title></rect>",
                top + 4,
                escape(&event.name),
                event.duration as f64 / 1000.0
            );
        }
        page.push_str("</g>\n");
    }
    let _ = writeln!(page, "<text x=\"{LEFT}\" y=\"112\">0</text>");
    let right = LEFT + WIDTH;
    let _ =
        writeln!(page, "<text x=\"{right}\" y=\"112\" text-anchor=\"end\">{:.2} ms</text></svg>", end as f64 / 1e6);
}

fn lane(role: Role) -> &'static str {
    super::role(role)
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '&' => safe += "&amp;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, name: &str, args: &str) -> Event {
        Event {
            kind,
            role: Role::Parent,
            name: name.into(),
            args: args.into(),
            start: 10,
            duration: 5,
            result: Some(Ok(0)),
        }
    }

    #[test]
    fn the_page_has_every_stage_and_call_and_loads_nothing() {
        let page =
            render(&[event(Kind::Stage, "one clone", "why & wherefore"), event(Kind::Call, "clone3", "flags")]);
        assert_eq!(page.matches("<section").count(), 1);
        assert_eq!(page.matches("<tr ").count(), 1);
        assert!(page.contains("why &amp; wherefore"));
        for outside in ["<script", "http", "src=", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn an_argument_is_text_whatever_it_says() {
        let page = render(&[event(Kind::Call, "execve", "\"<script>alert(1)</script>\"")]);
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"));
        assert!(render(&[]).ends_with("</body></html>\n"));
    }
}
