//! Images of many layers, and stores on which the kernel mounts no overlay.

use std::process::Command;

use hull_tests::scripted::{Scripted, TinyImage, pull};
use hull_tests::tar::Tar;
use hull_tests::{Builder, Corner, Said, entries};

const FLAGS: &[&str] = &["--tls-verify=false"];

fn hull(corner: &Corner, arguments: &[&str]) -> Said {
    corner.hull().args(arguments).output().unwrap().into()
}

/// busybox, and tiny layers above it up to `count`; each replaces one file and adds one.
fn image(corner: &Corner, count: usize) -> TinyImage {
    let base = Command::new("tar").arg("-C").arg(corner.rootfs()).args(["-cf", "-", "."]).output().unwrap();
    assert!(base.status.success());
    let tiny = |n: usize| Tar::default().file("last", &n.to_string()).file(&format!("file{n}"), "").end();
    TinyImage::stack(&std::iter::once(base.stdout).chain((2..=count).map(tiny)).collect::<Vec<_>>())
}

fn registry(image: TinyImage) -> Scripted {
    Scripted::new(move |asked| image.answer(asked))
}

/// The kernel's bound is 500: two hundred are pulled, run, and built upon.
#[test]
fn an_image_of_two_hundred_layers_runs_and_is_built_upon() {
    let corner = Corner::new();
    let registry = registry(image(&corner, 200));
    assert_eq!(pull(&corner, &registry, FLAGS, "many:1").code, 0);
    let name = format!("{}/many:1", registry.address());
    let said = hull(&corner, &["run", "--rm", &name, "sh", "-c", "cat /last; echo; ls / | busybox grep -c file"]);
    assert_eq!((said.code, &*said.out), (0, "200\n199\n"), "{said:?}");
    let context = corner.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), format!("FROM {name}\nRUN busybox rm /last\n")).unwrap();
    let said = hull(&corner, &["build", "-q", "-t", "more", &context.to_string_lossy()]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(hull(&corner, &["run", "--rm", "more", "cat", "/last"]).code, 1);
}

/// At the bound it runs; what would lie beyond it is refused by its number, when it is pulled and when it is built.
#[test]
fn the_kernels_bound_on_layers_is_told_before_anything_is_made() {
    let corner = Corner::new();
    let most = registry(image(&corner, 500));
    assert_eq!(pull(&corner, &most, FLAGS, "most:1").code, 0);
    let name = format!("{}/most:1", most.address());
    let said = hull(&corner, &["run", "--rm", &name, "cat", "/last"]);
    assert_eq!((said.code, &*said.out), (0, "500"), "{said:?}");
    let context = corner.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), format!("FROM {name}\nRUN busybox rm /last\n")).unwrap();
    let said = hull(&corner, &["build", "-q", "-t", "more", &context.to_string_lossy()]);
    assert!(said.code != 0 && said.err.contains("501 layers") && said.err.contains("at most 500"), "{said:?}");

    let beyond = registry(image(&corner, 501));
    let said = pull(&corner, &beyond, FLAGS, "beyond:1");
    assert!(said.code == 1 && said.err.contains("501 layers, more than 500"), "{said:?}");
    assert_eq!(hull(&corner, &["system", "check", "--repair"]).code, 0);
    assert_eq!(hull(&corner, &["system", "check"]).out, "");
}

#[test]
fn info_names_the_driver_and_its_mode() {
    let corner = Corner::new();
    let said = hull(&corner, &["info"]);
    assert!(
        said.out.contains("Storage driver: overlay\n") && said.out.contains("Storage mode: layers by "),
        "{said:?}"
    );
    assert!(!said.out.contains("Storage reason"), "{said:?}");
}

/// A store on an overlay: the kernel lays none on it. Everything works by copies, and every time it is said.
#[test]
fn where_no_overlay_can_be_mounted_layers_are_copied_and_that_is_said() {
    let corner = Corner::new();
    let at = |name: &str| corner.path().join(name);
    for folder in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(at(folder)).unwrap();
    }
    let merged = at("merged");
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        at("lower").display(),
        at("upper").display(),
        at("work").display()
    );
    let mounted = Command::new("mount").args(["-t", "overlay", "-o", &options, "overlay"]).arg(&merged).status();
    assert!(mounted.unwrap().success());
    let result = std::panic::catch_unwind(|| on_an_overlay(&merged));
    assert!(Command::new("umount").arg(&merged).status().unwrap().success());
    result.unwrap();
}

fn on_an_overlay(folder: &std::path::Path) {
    let builder = Builder::with_root(Corner::new(), folder.join("store"));
    let told = |said: &Said| said.err.contains("layers are copied (vfs)") && said.err.contains("on an overlay");
    let info = builder.hull(&["info"]);
    assert!(
        info.out.contains("Storage driver: vfs\n")
            && info.out.contains("Storage mode: a copy")
            && info.out.contains("on an overlay"),
        "{info:?}"
    );

    builder.file("copied", "from outside");
    let said = builder.build(
        "FROM base AS one\nRUN echo 1 > /one; busybox mkdir /d; echo 1 > /d/old\n\
         RUN busybox rm -r /d; busybox mkdir /d; echo 2 > /d/new\n\
         FROM base\nCOPY copied /\nCOPY --from=one /d /from-d\nRUN busybox rm /bin/mknod; echo x >> /copied\n",
    );
    assert!(said.code == 0 && told(&said), "{said:?}");
    let said = builder.hull(&["run", "--rm", "made", "sh", "-c", "cat /copied /from-d/*; ls /bin/mknod /from-d"]);
    assert!(said.out.starts_with("from outsidex\n2\n/from-d:\nnew\n") && told(&said), "{said:?}");

    // The layer is one of changes, as anywhere: an overlay elsewhere shows the same.
    let archive = builder.corner().path().join("made.tar");
    assert_eq!(builder.hull(&["save", "-o", &archive.to_string_lossy(), "made"]).code, 0);
    let elsewhere = Corner::new();
    assert_eq!(hull(&elsewhere, &["load", "-i", &archive.to_string_lossy()]).code, 0);
    let script = "cat /copied /from-d/*; ls /bin/mknod /from-d";
    let there = hull(&elsewhere, &["run", "--rm", "made", "sh", "-c", script]);
    assert_eq!((&there.out, told(&there)), (&said.out, false), "{there:?}");

    // A container that lasts, and its end.
    let said = builder.hull(&["run", "--name", "lasting", "made", "touch", "/x"]);
    assert!(said.code == 0 && told(&said), "{said:?}");
    assert_eq!(builder.hull(&["rm", "lasting"]).code, 0);
    assert_eq!(builder.hull(&["system", "check"]).out, "");
    assert_eq!(entries(&builder.root().join("containers")), [""; 0]);
}
