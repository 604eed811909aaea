//! The solver's worker on hull's own store: layers are adopted there, commands run in detached overlays of them.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_engine::Engine;
use hull_image::{Driver, Image, Layer, Reference, Staging, Store};
use oci_spec::image::ImageConfiguration;

use crate::cache::{Cache, Record};
use crate::error::{Error, Result};
use crate::graph::{BaseImage, Key, Problem, RunAction};
use crate::progress::Progress;
use crate::run;
use crate::solve::{Known, Made, Worker};

/// What gives an image of the store by a name in a Dockerfile, and brings it there if need be.
pub type Fetch<'a> = dyn FnMut(&str) -> std::result::Result<Image, Problem> + 'a;

/// A store and a place for what a reboot ends.
pub struct StoreWorker<'a> {
    store: &'a Store,
    fetch: Option<Box<Fetch<'a>>>,
    engine: Engine,
    cache: Cache,
    /// Images by the name that was asked for: a build that names one twice gets the same one twice, whatever happens to
    /// the name meanwhile.
    images: HashMap<String, Image>,
    /// Layers that no record names any more.
    replaced: BTreeSet<String>,
    /// Copies of layers that are looked at, where there is no overlay.
    copies: Vec<Staging>,
    /// How the last step's root was made.
    driver: Driver,
}

impl<'a> StoreWorker<'a> {
    /// A worker on `store`; steps' folders are made below `runroot`.
    pub fn new(store: &'a Store, runroot: &Path) -> Self {
        let cache = Cache::new(&cache_folder(store));
        let engine = Engine { root: store.root().to_owned(), runroot: runroot.to_owned() };
        Self {
            store,
            fetch: None,
            engine,
            cache,
            images: HashMap::new(),
            replaced: BTreeSet::new(),
            copies: Vec::new(),
            driver: Driver::Overlay,
        }
    }

    /// Lets `fetch` find the images that a Dockerfile names; without it only those in the store are known.
    #[must_use]
    pub fn fetching(self, fetch: Box<Fetch<'a>>) -> Self {
        Self { fetch: Some(fetch), ..self }
    }

    /// What a record stands for, if its layer is still there.
    fn made(&self, record: Record) -> Result<Option<Made<Layer>>> {
        let Some(id) = record.layer else { return Ok(Some(Made { layer: None, created: record.created })) };
        let layer = self.store.layer(&id).map_err(host("open a cached layer"))?;
        layer.iter().for_each(Layer::touch);
        Ok(layer.map(|layer| Made { layer: Some(layer), created: record.created }))
    }

    fn find(&mut self, name: &str) -> std::result::Result<Image, Problem> {
        if let Some(image) = self.images.get(name) {
            return Ok(image.clone());
        }
        let image = match &mut self.fetch {
            Some(fetch) => fetch(name)?,
            None => {
                let found = self.store.find(name);
                let found = found.map_err(|error| Problem { message: error.to_string(), hint: None })?;
                found.ok_or_else(|| no_image(name))?
            }
        };
        self.images.insert(name.to_owned(), image.clone());
        Ok(image)
    }
}

fn cache_folder(store: &Store) -> PathBuf {
    store.root().join("build").join("cache")
}

/// The ids of the layers that the build cache of a store has: not to be collected.
///
/// # Errors
/// If the records cannot be listed.
pub fn cached_layers(store: &Store) -> Result<BTreeSet<String>> {
    Cache::layers(&cache_folder(store))
}

/// One step that the build cache remembers.
pub use crate::cache::Step;

/// All steps that the build cache remembers.
///
/// # Errors
/// If the records cannot be read.
pub fn steps(store: &Store) -> Result<Vec<Step>> {
    let mut steps = Cache::steps(&cache_folder(store))?;
    // What a build is just writing is its own.
    steps.retain(|step| !step.key.starts_with('.'));
    Ok(steps)
}

/// Lets the build cache forget a step. Its layer stays until it is collected.
///
/// # Errors
/// If the record cannot be removed.
pub fn forget(store: &Store, step: &Step) -> Result<()> {
    Cache::forget(&cache_folder(store), step)
}

fn host(doing: &'static str) -> impl Fn(hull_image::Error) -> Error {
    move |error| Error::host(doing, error)
}

impl Known for StoreWorker<'_> {
    fn base(&mut self, name: &str) -> std::result::Result<BaseImage, Problem> {
        let image = self.find(name)?;
        Ok(BaseImage { digest: image.manifest.to_string(), config: image.config })
    }

    fn has(&mut self, key: &Key) -> Result<bool> {
        Ok(self.cached(key)?.is_some())
    }
}

/// What is known where there is no store yet: nothing.
#[derive(Debug)]
pub struct NoStore;

impl Known for NoStore {
    fn base(&mut self, name: &str) -> std::result::Result<BaseImage, Problem> {
        Err(no_image(name))
    }

    fn has(&mut self, _key: &Key) -> Result<bool> {
        Ok(false)
    }
}

fn no_image(name: &str) -> Problem {
    Problem { message: format!("there is no image {name} in the store"), hint: Some(format!("hull pull {name}")) }
}

impl Worker for StoreWorker<'_> {
    type Layer = Layer;
    type Staging = Staging;

    fn image(&mut self, name: &str) -> Result<Vec<Layer>> {
        let image = self.find(name).map_err(|problem| Error::host("find an image", problem.message))?;
        let layers = self.store.layers(&image).map_err(host("open the image's layers"))?;
        layers.last().iter().for_each(|layer| layer.touch());
        Ok(layers)
    }

    fn cached(&mut self, key: &Key) -> Result<Option<Made<Layer>>> {
        match self.cache.get(key)? {
            Some(record) => self.made(record),
            None => Ok(None),
        }
    }

    fn remember(&mut self, key: &Key, made: Made<Layer>, replace: bool) -> Result<Made<Layer>> {
        let id = made.layer.as_ref().map(|layer| layer.id().to_owned());
        let record = Record { layer: id.clone(), created: made.created.clone() };
        if !replace {
            let Some(there) = self.cache.add(key, &record)? else { return Ok(made) };
            if let Some(theirs) = self.made(there)? {
                self.replaced.extend(id);
                return Ok(theirs);
            }
        }
        let before = self.cache.replace(key, &record)?;
        self.replaced.extend(before.and_then(|before| before.layer).filter(|before| Some(before) != id.as_ref()));
        Ok(made)
    }

    fn stage(&mut self, parents: &[Layer]) -> Result<(Staging, OwnedFd)> {
        let (staging, root, driver) = self.store.stage(parents).map_err(host("begin a layer"))?;
        self.driver = driver;
        Ok((staging, root))
    }

    fn view(&mut self, layers: &[Layer]) -> Result<OwnedFd> {
        // Also one layer alone, since overlay is what understands the marks of deleted files in it.
        let view = self.store.view(layers).map_err(host("mount the layers"))?;
        self.copies.extend(view.copy);
        Ok(view.mount)
    }

    fn adopt(&mut self, parents: &[Layer], staging: Staging) -> Result<Layer> {
        self.store.adopt(parents.last(), staging).map_err(host("keep the step's layer"))
    }

    fn run(&mut self, root: OwnedFd, action: &RunAction, progress: &mut dyn Progress) -> Result<i32> {
        if let Some(remark) = self.driver.remark() {
            progress.note(&remark);
        }
        run::run(&self.engine.runroot, root, action, progress)
    }

    fn commit(&mut self, config: ImageConfiguration, layers: &[Layer], names: &[Reference]) -> Result<String> {
        let image = self.store.commit(config, layers, names).map_err(host("commit the image"))?;
        Ok(image.id.to_string())
    }

    fn export(&mut self, layers: &[Layer], dest: &Path) -> Result<()> {
        let root = self.view(layers)?;
        hull_image::export(root.as_fd(), dest).map_err(host("export the file system"))
    }

    fn tidy(&mut self) -> Result<()> {
        if self.replaced.is_empty() {
            return Ok(());
        }
        self.store.remove_layers(&std::mem::take(&mut self.replaced), || {
            let mut keep = cached_layers(self.store)?;
            let used = hull_engine::container::layers_in_use(&self.engine);
            keep.extend(used.map_err(|error| Error::host("remove replaced layers", error))?);
            Ok(keep)
        })
    }

    fn now(&self) -> String {
        jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}
