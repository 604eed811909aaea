//! containerd of a test's own, in a world of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::world::World;
use crate::{Corner, Said};

/// A running daemon; it ends, with everything that it made, when this is dropped.
pub struct Containerd {
    /// Where it runs.
    pub world: World,
    folder: PathBuf,
}

impl Containerd {
    /// Starts one below `corner`.
    ///
    /// # Panics
    /// containerd is not installed, or does not come up.
    pub fn start(corner: &Path) -> Self {
        let folder = corner.join("containerd");
        fs::create_dir(&folder).expect("a folder for the daemon");
        let at = |name: &str| folder.join(name).display().to_string();
        // The plugin for Kubernetes wants networks that nobody configured.
        let configuration = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            at("socket")
        );
        fs::write(at("config.toml"), configuration).expect("a configuration");
        let mut world = World::new(corner);
        let mut daemon = world.command("containerd");
        let log = File::create(at("log")).expect("a log");
        daemon.arg("-c").arg(at("config.toml")).stderr(log.try_clone().expect("a log")).stdout(log);
        world.start(daemon);
        let mut containerd = Self { world, folder };
        let start = Instant::now();
        while containerd.ctr(&["version"]).code != 0 {
            let patient = containerd.world.is_well() && start.elapsed() < Duration::from_secs(60);
            let log = || fs::read_to_string(containerd.path("log")).unwrap_or_default();
            assert!(patient, "containerd does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        containerd
    }

    /// A path of the daemon's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The client in the daemon's world, where its pipes are; not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut client = self.world.command("ctr");
        client.arg("-a").arg(self.path("socket")).args(arguments);
        client
    }

    /// What the client says.
    ///
    /// # Panics
    /// It does not start.
    pub fn ctr(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().expect("ctr starts").into()
    }

    /// The same, which has to go well: its output.
    ///
    /// # Panics
    /// It does not.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.ctr(arguments);
        assert_eq!(said.code, 0, "ctr {arguments:?}: {said:?}");
        said.out
    }

    /// Makes the corner's root an image, by hull's store, which is an image layout.
    ///
    /// # Panics
    /// It cannot be imported, by hull or by containerd.
    pub fn import(&self, corner: &Corner, name: &str) {
        let (root, image) = (self.path("root.tar"), self.path("image.tar"));
        let tar = |folder: &Path, archive: &Path, what: &[&str]| {
            let status = Command::new("tar").arg("-C").arg(folder).arg("-cf").arg(archive).args(what).status();
            assert!(status.expect("tar").success());
        };
        tar(&corner.rootfs(), &root, &["."]);
        let said: Said = corner.hull().arg("import").arg(&root).arg(name).output().expect("hull starts").into();
        assert_eq!(said.code, 0, "{said:?}");
        tar(&corner.root(), &image, &["oci-layout", "index.json", "blobs"]);
        self.ok(&["image", "import", &image.to_string_lossy()]);
    }
}
