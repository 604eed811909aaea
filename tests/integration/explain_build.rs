//! The explanation of a build, held against what `strace -f` saw of the same build.

use std::fs;
use std::process::Command;

use hull_tests::{Builder, Said, hull_bin};
use serde_json::Value;

use crate::explain::{COUNTED, seen_count, told_count};

/// What hull told, what strace saw, and what the build said.
fn explained(builder: &Builder, dockerfile: &str) -> (String, String, Said) {
    let (told, seen) = (builder.corner().path().join("told.json"), builder.corner().path().join("seen"));
    builder.file("Dockerfile", dockerfile);
    let mut strace = Command::new("strace");
    strace.arg("-f").arg("-e").arg(format!("trace={}", COUNTED.join(","))).arg("-o").arg(&seen);
    strace.arg(hull_bin()).envs(builder.corner().env());
    strace.args(["build", "-t", "made"]).arg(format!("--explain=json:{}", told.display())).arg(builder.context());
    let said = builder.said(strace.output().expect("strace is installed"));
    (fs::read_to_string(told).unwrap(), fs::read_to_string(seen).unwrap(), said)
}

const STEPS: &str = "FROM base AS one\nWORKDIR /w\nCOPY file .\nRUN [\"/bin/true\"]\nUSER 1000\nRUN true\n\
                     FROM scratch\nCOPY --from=one /w /w\n";

#[test]
fn the_story_of_a_build_has_exactly_the_calls_that_the_kernel_saw() {
    let builder = Builder::new();
    builder.file("file", "x");
    for (what, dockerfile, code, runs) in [
        ("made", STEPS, 0, 2),
        ("cached", STEPS, 0, 0),
        ("no layer", "FROM scratch\nLABEL a=b\n", 0, 0),
        ("fails", "FROM base\nRUN [\"/bin/sh\", \"-c\", \"exit 3\"]\n", 3, 1),
        ("not there", "FROM base\nRUN [\"/not-there\"]\n", 1, 1),
    ] {
        let (told, seen, said) = explained(&builder, dockerfile);
        assert_eq!(said.code, code, "{what}: {said:?}");
        assert_eq!(told_count(&told, "clone3"), runs, "{what}");
        for name in COUNTED {
            assert_eq!(told_count(&told, name), seen_count(&seen, name), "{name}, {what}\n{told}\n{seen}");
        }
    }
}

#[test]
fn every_step_is_a_stage_with_its_reason() {
    let builder = Builder::new();
    builder.file("file", "x");
    let stages = |told: &str| -> Vec<String> {
        let events = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["kind"] == "stage").map(|event| event["title"].as_str().unwrap().into()).collect()
    };
    let first = stages(&explained(&builder, STEPS).0);
    for step in ["WORKDIR /w", "COPY file .", "RUN [\"/bin/true\"]", "RUN true", "COPY --from=one /w /w"] {
        assert_eq!(first.iter().filter(|title| title.ends_with(step)).count(), 1, "{step}: {first:?}");
    }
    assert_eq!(first.iter().filter(|title| title.contains("pivot") || title.contains("change the root")).count(), 2);
    let again = stages(&explained(&builder, STEPS).0);
    assert_eq!(again.iter().filter(|title| title.ends_with("is cached")).count(), 5, "{again:?}");
}
