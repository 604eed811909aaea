//! A seccomp agent of a test's own, `agent.py`, and what it was told.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::eventually;

/// The agent; it ends with the value. It answers mkdir with ENOMEDIUM, and lets everything else go on.
pub struct Agent {
    process: Child,
    told: PathBuf,
}

impl Agent {
    /// One that listens at `socket`, and writes beside it what it is told.
    pub fn new(socket: &Path) -> Self {
        let told = socket.with_extension("told");
        let mut python = Command::new("python3");
        python.args(["-c", include_str!("agent.py")]).arg(socket).arg(&told).stdout(Stdio::piped());
        let mut process = python.spawn().expect("python3 is installed");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "listening\n");
        Self { process, told }
    }

    /// The container process states, in their order, when there are `count` of them.
    pub fn told(&self, count: usize) -> Vec<Value> {
        let text = || fs::read_to_string(&self.told).unwrap_or_default();
        // Nobody waits until the agent has read what it was sent.
        eventually("the agent is told", || text().matches('\n').count() >= count);
        text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The numbers of the calls that it was asked about.
    pub fn calls(&self) -> Vec<i64> {
        let text = fs::read_to_string(self.told.with_extension("told.calls")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
