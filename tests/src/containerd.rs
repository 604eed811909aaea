//! containerd of a test's own, in a world of its own.

use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::process::Command;

use crate::daemon::Daemon;
use crate::world::World;
use crate::{Corner, Said};

/// A running daemon; it ends, with everything that it made, when this is dropped.
pub struct Containerd(Daemon);

impl Deref for Containerd {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.0
    }
}

impl Containerd {
    /// Starts one below `corner`, in `world`; `configuration` is that of its plugin for Kubernetes, without which it has none.
    ///
    /// # Panics
    /// containerd is not installed, or does not come up.
    pub fn start(corner: &Path, world: World, configuration: &str) -> Self {
        // The client is in the daemon's world, where its pipes are.
        let mut daemon = Daemon::new(world, corner.join("containerd"), |daemon| {
            let mut client = daemon.world.command("ctr");
            client.arg("-a").arg(daemon.path("socket"));
            client
        });
        let at = |name: &str| daemon.path(name).display().to_string();
        let disabled = if configuration.is_empty() { "\"io.containerd.grpc.v1.cri\"" } else { "" };
        let configuration = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [{disabled}]\n[grpc]\naddress = {:?}\n{configuration}",
            at("root"),
            at("state"),
            at("socket")
        );
        fs::write(at("config.toml"), configuration).expect("a configuration");
        let mut containerd = daemon.world.command("containerd");
        containerd.arg("-c").arg(at("config.toml"));
        daemon.start(containerd);
        Self(daemon)
    }

    /// Makes the corner's root an image of a namespace of containerd's, by hull's store, which is an image layout.
    ///
    /// # Panics
    /// It cannot be imported, by hull or by containerd.
    pub fn import(&self, corner: &Corner, name: &str, namespace: &str) {
        let (root, image) = (self.path("root.tar"), self.path("image.tar"));
        let tar = |folder: &Path, archive: &Path, what: &[&str]| {
            let status = Command::new("tar").arg("-C").arg(folder).arg("-cf").arg(archive).args(what).status();
            assert!(status.expect("tar").success());
        };
        tar(&corner.rootfs(), &root, &["."]);
        let mut import = corner.hull();
        import.args(["import", "--change", "CMD [\"sleep\", \"1000\"]"]).arg(&root).arg(name);
        let said: Said = import.output().expect("hull starts").into();
        assert_eq!(said.code, 0, "{said:?}");
        tar(&corner.root(), &image, &["oci-layout", "index.json", "blobs"]);
        self.ok(&["-n", namespace, "image", "import", &image.to_string_lossy()]);
    }
}
