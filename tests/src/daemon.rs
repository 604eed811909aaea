//! A daemon of a test's own, with all that it has below one folder, and its client.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Said;
use crate::world::World;

/// How long one may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running daemon; it ends, with everything that it made, when this is dropped.
pub struct Daemon {
    /// Where it runs.
    pub world: World,
    folder: PathBuf,
    client: fn(&Self) -> Command,
}

impl Daemon {
    /// One that is to be started in `world`, with `folder` for all that it has; `client` makes its client's command.
    ///
    /// # Panics
    /// The folder cannot be made.
    pub fn new(world: World, folder: PathBuf, client: fn(&Self) -> Command) -> Self {
        fs::create_dir(&folder).expect("a folder for the daemon");
        Self { world, folder, client }
    }

    /// A path of the daemon's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts it, and waits until the client can ask it for its version.
    ///
    /// # Panics
    /// It is not installed, or does not come up.
    pub fn start(&mut self, mut daemon: Command) {
        let log = File::create(self.path("log")).expect("a log");
        daemon.stderr(log.try_clone().expect("a log")).stdout(log);
        self.world.start(daemon);
        let start = Instant::now();
        while self.client(&["version"]).code != 0 {
            let patient = self.world.is_well() && start.elapsed() < PATIENCE;
            assert!(patient, "the daemon does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts another daemon in the same world, which ends with it.
    ///
    /// # Panics
    /// It does not start.
    pub fn beside(&mut self, program: &str, arguments: &[&str]) {
        let mut daemon = self.world.command(program);
        daemon.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        self.world.start(daemon);
    }

    /// What the daemon said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The client, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut client = (self.client)(self);
        client.args(arguments);
        client
    }

    /// What the client says.
    ///
    /// # Panics
    /// It does not start.
    pub fn client(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().expect("the client starts").into()
    }

    /// The same, which has to go well: its output.
    ///
    /// # Panics
    /// It does not.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.client(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.out
    }
}
