//! What a person sees of a transfer on a terminal: a bar for each layer.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use hull_image::{Blob, Digest, Part, Reference};
use hull_registry::{Progress, PushProgress, Step};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::table::escape;

const WITH_BAR: &str = "{prefix}: {msg:12} [{bar:30}] {bytes}/{total_bytes}";
const WITHOUT: &str = "{prefix}: {msg}";

/// Bars, one below the other; lines of text go above them.
pub struct Bars {
    all: MultiProgress,
    layers: Mutex<BTreeMap<Digest, ProgressBar>>,
}

impl Bars {
    /// On standard output, or on standard error.
    pub fn new(on_error: bool) -> Self {
        let target = if on_error { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::stdout() };
        Self { all: MultiProgress::with_draw_target(target), layers: Mutex::default() }
    }

    /// A line above the bars. Whoever does not listen is told nothing; the transfer goes on.
    pub fn say(&self, line: &str) {
        let _ = self.all.println(escape(line));
    }

    fn add(&self, digest: &Digest, size: u64, message: &str) {
        let bar = self.all.add(ProgressBar::new(size));
        bar.set_style(style(WITH_BAR));
        bar.set_prefix(digest.short().to_owned());
        bar.set_message(message.to_owned());
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone(), bar);
    }

    fn with(&self, digest: &Digest, change: impl FnOnce(&ProgressBar)) {
        if let Some(bar) = self.layers.lock().unwrap_or_else(PoisonError::into_inner).get(digest) {
            change(bar);
        }
    }

    fn finish(&self, digest: &Digest, message: String) {
        self.with(digest, |bar| {
            bar.set_style(style(WITHOUT));
            bar.finish_with_message(message);
        });
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

impl Progress for Bars {
    fn resolving(&self, name: &Reference) {
        self.say(&format!("Pulling {}", name.familiar()));
    }

    fn waiting(&self, digest: &Digest) {
        self.say(&format!("{}: Waiting for another hull that pulls it", digest.short()));
    }

    fn layers(&self, all: &[Blob], wanted: &[Part<'_>]) {
        for blob in all {
            match wanted.iter().find(|part| part.blob().digest == blob.digest) {
                None => self.say(&format!("{}: Already exists", blob.digest.short())),
                Some(part) => {
                    self.add(&blob.digest, blob.size, "Waiting");
                    self.with(&blob.digest, |bar| bar.set_position(part.have()));
                }
            }
        }
    }

    fn advance(&self, digest: &Digest, bytes: u64) {
        self.with(digest, |bar| {
            bar.inc(bytes);
            // Unpacking goes on beside the download, and a little longer.
            let whole = bar.length().is_some_and(|length| bar.position() >= length);
            bar.set_message(if whole { "Extracting" } else { "Downloading" });
        });
    }

    fn done(&self, digest: &Digest) {
        self.finish(digest, "Pull complete".to_owned());
    }
}

impl PushProgress for Bars {
    fn layers(&self, all: &[&Digest]) {
        all.iter().for_each(|digest| self.add(digest, 0, "Preparing"));
    }

    fn layer(&self, digest: &Digest, step: Step<'_>) {
        match step {
            Step::Packing => self.with(digest, |bar| bar.set_message("Packing")),
            Step::Sending(at, size) => self.with(digest, |bar| {
                bar.set_length(size);
                bar.set_position(at);
                bar.set_message("Pushing");
            }),
            Step::Exists => self.finish(digest, "Layer already exists".to_owned()),
            Step::Mounted(from) => self.finish(digest, format!("Mounted from {}", escape(from))),
            Step::Sent => self.finish(digest, "Pushed".to_owned()),
        }
    }
}
