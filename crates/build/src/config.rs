//! What is in effect at a stage's end -> the image's configuration (image-spec, config.md). Pure.

use std::collections::HashMap;

use oci_spec::OciSpecError;
use oci_spec::image::{
    Arch, ConfigBuilder, History, HistoryBuilder, ImageConfiguration, ImageConfigurationBuilder, Os, RootFsBuilder,
};

use crate::graph::Stage;
use crate::solve::Line;

/// The configuration of the image that `stage` is, without the layers' digests, which the store knows.
///
/// What hull does not change (volumes, stop signal, author) is the base image's. `fallback` is the time of an image
/// without steps and without a base.
///
/// # Errors
/// None that a caller could cause.
pub fn image(
    stage: &Stage,
    lines: &[Line],
    created: Option<&str>,
    labels: &[(String, String)],
    fallback: &str,
) -> Result<ImageConfiguration, OciSpecError> {
    let base = stage.base_config.as_ref();
    let effect = &stage.effect;
    let mut config = match base.and_then(|base| base.config().clone()) {
        Some(config) => config,
        None => ConfigBuilder::default().build()?,
    };
    let env = effect.env.iter().map(|(name, value)| match value {
        Some(value) => format!("{name}={value}"),
        None => name.clone(),
    });
    config.set_env(some(env.collect()));
    config.set_cmd(effect.cmd.clone());
    config.set_entrypoint(effect.entrypoint.clone());
    config.set_working_dir((!effect.workdir.is_empty()).then(|| effect.workdir.clone()));
    config.set_user((!effect.user.is_empty()).then(|| effect.user.clone()));
    config.set_exposed_ports(some(effect.ports.iter().cloned().collect()));
    let all: HashMap<String, String> = effect.labels.iter().chain(labels).cloned().collect();
    config.set_labels((!all.is_empty()).then_some(all));

    let created = created.map(str::to_owned).or_else(|| base.and_then(|base| base.created().clone()));
    let created = created.unwrap_or_else(|| fallback.to_owned());
    let mut history = base.map(base_history).transpose()?.unwrap_or_default();
    // A line that is no step has the time of the step before it, so that a build found whole in the cache is the same
    // image to the last byte.
    let mut time = history.last().and_then(|last| last.created().clone()).unwrap_or_else(|| created.clone());
    for line in lines {
        time = line.created.clone().unwrap_or(time);
        let entry = HistoryBuilder::default().created(&*time).created_by(&*line.created_by).empty_layer(line.empty);
        history.push(entry.build()?);
    }
    let layers = base.map(|base| base.rootfs().diff_ids().clone()).unwrap_or_default();
    ImageConfigurationBuilder::default()
        .created(created)
        .architecture(base.map_or_else(Arch::default, |base| base.architecture().clone()))
        .os(base.map_or_else(Os::default, |base| base.os().clone()))
        .config(config)
        .rootfs(RootFsBuilder::default().typ("layers").diff_ids(layers).build()?)
        .history(history)
        .build()
}

/// The base's history. Some images tell less than they have layers, or more, which nobody may take over: theirs is one
/// line for each layer.
fn base_history(base: &ImageConfiguration) -> Result<Vec<History>, OciSpecError> {
    let history = base.history().clone().unwrap_or_default();
    let told = history.iter().filter(|line| line.empty_layer() != Some(true)).count();
    let layers = base.rootfs().diff_ids().len();
    if told == layers {
        return Ok(history);
    }
    let line = || HistoryBuilder::default().created_by("(a layer of the base image)").build();
    (0..layers).map(|_| line()).collect()
}

fn some(list: Vec<String>) -> Option<Vec<String>> {
    (!list.is_empty()).then_some(list)
}
