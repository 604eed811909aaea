//! The explanation as a page, read back by a browser.

use std::fs;
use std::path::Path;
use std::process::Command;

use hull_tests::{Corner, Said};

/// The page's document after Chromium has read it, as it writes it out again.
fn read_by_chromium(corner: &Corner, page: &Path) -> String {
    let mut chromium = Command::new("chromium");
    chromium
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", corner.path().join("chromium").display()))
        .args(["--dump-dom", &format!("file://{}", page.display())]);
    let output = chromium.output().expect("chromium is installed: `make deps` does it");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The texts between two marks, in their order.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Vec<&'a str> {
    text.split(begin).skip(1).filter_map(|rest| rest.split(end).next()).collect()
}

fn explained(corner: &Corner, format: &str, command: &[&str]) -> String {
    let file = corner.path().join(format!("run.{format}"));
    let said = corner.run(&[&format!("--explain={format}:{}", file.display())], command);
    assert_eq!(said.code, 0, "{said:?}");
    fs::read_to_string(file).unwrap()
}

#[test]
fn a_browser_reads_the_stages_and_calls_of_the_run() {
    let corner = Corner::new();
    let hostile = "<script>document.title = 'taken'</script>";
    explained(&corner, "html", &["true", hostile]);
    let read = read_by_chromium(&corner, &corner.path().join("run.html"));
    let told = explained(&corner, "json", &["true", hostile]);
    let told: Vec<serde_json::Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();

    let of_kind = |kind: &'static str| told.iter().filter(move |event| event["kind"] == kind);
    let escaped = |text: &serde_json::Value| text.as_str().unwrap().replace('&', "&amp;").replace('<', "&lt;");
    let stages: Vec<String> = of_kind("stage").map(|event| escaped(&event["title"])).collect();
    let reasons: Vec<String> = of_kind("stage").map(|event| escaped(&event["why"])).collect();
    assert_eq!(between(&read, "<h2>", "</h2>"), stages);
    assert!(stages.len() >= 12, "{stages:?}");
    for reason in reasons {
        assert!(read.contains(&reason), "{reason}");
    }
    for call in ["clone3", "pivot_root", "sethostname", "seccomp"] {
        let shown = between(&read, "<span class=\"name\">", "</span>").iter().filter(|name| **name == call).count();
        let calls = of_kind("call").filter(|event| event["name"] == call).count();
        assert_eq!((shown, calls > 0), (calls, true), "{call}");
        assert!(read.contains(&format!("<title>{call}: ")), "{call} is in the picture");
    }
    assert!(read.contains("<title>hull, explained</title>") && !read.contains("<script"), "the argument is text");
    assert!(read.contains("&lt;script&gt;"), "and it is shown");
}

#[test]
fn where_the_explanation_cannot_be_written_nothing_is_done() {
    let corner = Corner::new();
    let said: Said = corner.run(&["--explain=json:/no/such/folder/x"], &["touch", "/ran"]);
    assert_eq!(said.code, 125, "{said:?}");
    assert!(said.err.contains("/no/such/folder/x"), "{}", said.err);
    assert!(!corner.rootfs().join("ran").exists());
}
