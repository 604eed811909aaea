//! An image store and a build context of one test's own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::{Corner, Said, entries};

/// A corner with an image store, in which busybox is the image `base`, and an empty build context.
pub struct Builder {
    corner: Corner,
    root: PathBuf,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// A store in the corner.
    ///
    /// # Panics
    /// The base cannot be imported.
    pub fn new() -> Self {
        let corner = Corner::new();
        let root = corner.root();
        Self::with_root(corner, root)
    }

    /// A store in the folder `root`, which may lie on a file system of the test's own.
    ///
    /// # Panics
    /// The base cannot be imported.
    pub fn with_root(corner: Corner, root: PathBuf) -> Self {
        let builder = Self { corner, root };
        fs::create_dir(builder.context()).expect("the context");
        let archive = builder.archive();
        let said = builder.hull(&["import", &archive.to_string_lossy(), "base"]);
        assert_eq!(said.code, 0, "{said:?}");
        builder
    }

    /// The corner.
    pub fn corner(&self) -> &Corner {
        &self.corner
    }

    /// The store's folder.
    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    /// The build context.
    pub fn context(&self) -> PathBuf {
        self.corner.path().join("context")
    }

    /// The corner's root file system as a tar archive.
    ///
    /// # Panics
    /// tar fails.
    pub fn archive(&self) -> PathBuf {
        let archive = self.corner.path().join("base.tar");
        let tar = Command::new("tar").arg("-C").arg(self.corner.rootfs()).arg("-cf").arg(&archive).arg(".").status();
        assert!(tar.expect("tar").success());
        archive
    }

    /// Writes a file of the context, and the folders above it.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.context().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file of the context");
        self
    }

    /// `hull` with this store, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.corner.hull();
        command.env("HULL_ROOT", &self.root).args(arguments);
        command
    }

    /// `hull` with this store, to its end.
    ///
    /// # Panics
    /// Something of it is mounted, running or half made afterwards.
    pub fn hull(&self, arguments: &[&str]) -> Said {
        self.said(self.command(arguments).output().expect("hull starts"))
    }

    /// What a command said, once it is sure that it left nothing.
    ///
    /// # Panics
    /// It did.
    pub fn said(&self, output: Output) -> Said {
        self.corner.assert_clean();
        assert_eq!(entries(&self.root.join("staging")), [""; 0], "left in staging: {output:?}");
        output.into()
    }

    /// Builds `dockerfile` as the image `made`.
    pub fn build(&self, dockerfile: &str) -> Said {
        self.build_with(&[], dockerfile)
    }

    /// The same with more flags.
    pub fn build_with(&self, flags: &[&str], dockerfile: &str) -> Said {
        self.file("Dockerfile", dockerfile);
        let context = self.context();
        self.hull(&[&["build", "-t", "made"], flags, &[&*context.to_string_lossy()]].concat())
    }

    /// What a shell in the image `made` says.
    pub fn shell(&self, script: &str) -> Said {
        self.hull(&["run", "--rm", "made", "sh", "-c", script])
    }
}
