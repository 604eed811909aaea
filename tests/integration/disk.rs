//! What takes room on the disk: `hull system df` and `hull gc`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use hull_tests::{Builder, Said};

fn ok(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

/// Bytes on the disk of blobs and layers, as du has them.
fn on_disk(root: &Path) -> u64 {
    let du = |name: &str| {
        let output = Command::new("du").args(["-s", "-B1"]).arg(root.join(name)).output().expect("du");
        String::from_utf8_lossy(&output.stdout).split('\t').next().and_then(|size| size.parse().ok()).unwrap_or(0u64)
    };
    du("blobs/sha256") + du("layers")
}

/// The bytes that a collection says it has freed.
fn freed(told: &str) -> u64 {
    let (_, rest) = told.rsplit_once('(').unwrap_or_default();
    rest.strip_suffix(" bytes)\n").and_then(|bytes| bytes.parse().ok()).unwrap_or_else(|| panic!("no bytes: {told}"))
}

/// Lets everything that is in the store now be last used that long ago.
fn age(store: &Builder, hours: u64) {
    let status = Command::new("find")
        .args(["layers", "blobs", "build", "-maxdepth", "2", "-exec", "touch", "-h", "-d"])
        .args([&format!("{hours} hours ago"), "{}", ";"])
        .current_dir(store.root())
        .stderr(Stdio::null())
        .status();
    assert!(status.is_ok());
}

/// An image of one file that is so large.
fn import(store: &Builder, name: &str, kib: usize) {
    let folder = store.corner().path().join(name);
    fs::create_dir(&folder).unwrap();
    // Not all the same, or it would be the same layer.
    fs::write(folder.join("file"), name.as_bytes().repeat(kib * 1024 / name.len())).unwrap();
    let archive = store.corner().path().join(format!("{name}.tar"));
    let tar = Command::new("tar").arg("-C").arg(&folder).arg("-cf").arg(&archive).arg(".").status();
    assert!(tar.expect("tar").success());
    ok(store.hull(&["import", &archive.to_string_lossy(), name]));
}

fn names(store: &Builder) -> Vec<String> {
    let mut names: Vec<String> =
        ok(store.hull(&["images", "--format", "{{.Repository}}"])).lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// A size in Docker's words as a number.
fn number(size: &str) -> f64 {
    let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = ["B", "kB", "MB", "GB"].iter().position(|unit| *unit == &size[digits.len()..]).expect("a unit");
    digits.parse::<f64>().expect("a number") * 1000f64.powi(i32::try_from(unit).expect("small"))
}

#[test]
fn df_has_dockers_shape_and_counts_what_is_on_the_disk() {
    let store = Builder::new();
    ok(store.build("FROM base\nRUN busybox dd if=/dev/zero of=/big bs=1024 count=2048\n"));
    ok(store.hull(&[
        "run",
        "--name",
        "kept",
        "made",
        "busybox",
        "dd",
        "if=/dev/zero",
        "of=/own",
        "bs=1024",
        "count=512",
    ]));
    let told = ok(store.hull(&["system", "df"]));
    let heading: Vec<&str> = told.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(heading, ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    let first: Vec<&str> = told.lines().skip(1).filter_map(|line| line.split("  ").next()).collect();
    assert_eq!(first, ["Images", "Containers", "Local Volumes", "Build Cache"]);

    let template = "{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}|{{.Reclaimable}}";
    let rows = ok(store.hull(&["system", "df", "--format", template]));
    let rows: Vec<Vec<&str>> = rows.lines().map(|line| line.split('|').collect()).collect();
    assert_eq!(rows[0][1..3], ["2", "1"], "two images, of which one is used: {rows:?}");
    let (size, du) = (number(rows[0][3]), on_disk(&store.root()) as f64);
    assert!((size - du).abs() < 0.01 * du + 16384.0, "{size} of {du}");
    assert_eq!(rows[1][1..3], ["1", "0"]);
    assert!(number(rows[1][3]) >= 524_288.0 && rows[1][4].ends_with("(100%)"), "{rows:?}");
    assert_eq!(rows[2], ["Local Volumes", "0", "0", "0B", "0B"]);
    assert_eq!(rows[3], ["Build Cache", "1", "1", "0B", "0B"], "the step is the image's too");
    let json = ok(store.hull(&["system", "df", "--format", "json"]));
    let json: serde_json::Value = serde_json::from_str(json.lines().next().unwrap_or_default()).unwrap();
    assert_eq!((&json["Type"], &json["TotalCount"], &json["Active"]), (&"Images".into(), &"2".into(), &"1".into()));

    // Without the image the step is the cache's alone; what the container stands on is not to be had.
    ok(store.hull(&["rm", "kept"]));
    ok(store.hull(&["rmi", "made"]));
    let rows = ok(store.hull(&["system", "df", "--format", template]));
    let rows: Vec<Vec<&str>> = rows.lines().map(|line| line.split('|').collect()).collect();
    assert_eq!(rows[1], ["Containers", "0", "0", "0B", "0B"]);
    assert_eq!(rows[3][1..3], ["1", "0"]);
    assert!(number(rows[3][3]) >= 2_097_152.0 && rows[3][3] == rows[3][4], "{rows:?}");
    assert!(rows[0][4].ends_with("(100%)"), "nobody uses the base: {rows:?}");
}

#[test]
fn df_tells_each_image_container_and_step() {
    let store = Builder::new();
    ok(store.build("FROM base\nRUN echo 1 > /one\n"));
    ok(store.hull(&["run", "--name", "kept", "made", "true"]));
    let told = ok(store.hull(&["system", "df", "-v"]));
    for words in [
        &["Images space usage:"][..],
        &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"],
        &["Containers space usage:"],
        &["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"],
        &["Local Volumes space usage:"],
        &["VOLUME NAME", "LINKS", "SIZE"],
        &["Build cache usage: 0B"],
        &["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "IN USE", "SHARED"],
    ] {
        let has = |line: &str| {
            let mut rest = line;
            words.iter().all(|word| rest.split_once(word).map(|(_, behind)| rest = behind).is_some())
        };
        assert!(told.lines().any(has), "{words:?}: {told}");
    }
    let json = ok(store.hull(&["system", "df", "-v", "--format", "json"]));
    let all: serde_json::Value = serde_json::from_str(&json).unwrap();
    let images = all["Images"].as_array().unwrap();
    let of = |name: &str| images.iter().find(|image| image["Repository"] == name).expect("the image");
    assert_eq!((&of("made")["Containers"], &of("base")["Containers"]), (&"1".into(), &"0".into()));
    let size = |image: &serde_json::Value, field: &str| number(image[field].as_str().unwrap());
    let (made, base) = (of("made"), of("base"));
    // The base's layer, in both forms, is what both have.
    assert!(size(made, "SharedSize") > 100_000.0 && made["SharedSize"] == base["SharedSize"], "{json}");
    assert!(size(made, "UniqueSize") > 0.0 && size(made, "UniqueSize") < 100_000.0, "{json}");
    assert_eq!(all["Containers"][0]["Names"], "kept");
    assert_eq!(all["BuildCache"][0]["InUse"], "true");
    assert_eq!(ok(store.hull(&["system", "df", "-v", "--format", "{{len .Images}} {{len .Volumes}}"])), "2 0\n");
    ok(store.hull(&["rm", "kept"]));
}

#[test]
fn gc_without_a_policy_takes_only_what_nothing_leads_to() {
    let store = Builder::new();
    ok(store.build("FROM base\nRUN echo 1 > /one\n"));
    assert_eq!(freed(&ok(store.hull(&["gc"]))), 0);
    let stray = "0".repeat(64);
    fs::write(store.root().join("blobs/sha256").join(&stray), vec![1; 100_000]).unwrap();
    let layer = store.root().join("layers").join(&stray);
    fs::create_dir_all(layer.join("diff")).unwrap();
    let before = on_disk(&store.root());
    let would = freed(&ok(store.hull(&["gc", "--dry-run"])));
    assert!(layer.exists(), "a dry run removes nothing");
    let told = ok(store.hull(&["gc"]));
    assert_eq!((freed(&told), would), (before - on_disk(&store.root()), freed(&told)), "{told}");
    assert!(freed(&told) >= 100_000 && !layer.exists());
    assert_eq!(names(&store), ["base", "made"]);
    assert!(store.build("FROM base\nRUN echo 1 > /one\n").err.contains("CACHED"));
}

#[test]
fn gc_takes_what_nobody_has_used_for_so_long_and_nothing_that_is_in_use() {
    let store = Builder::new();
    ok(store.build("FROM base\nRUN echo 1 > /one\n"));
    for name in ["old", "used", "kept", "running"] {
        import(&store, name, 64);
    }
    // Containers of images without a program: their roots get one as a volume.
    let bin = format!("{}:/bin:ro", store.corner().rootfs().join("bin").display());
    ok(store.hull(&["run", "--name", "lasting", "-v", &bin, "kept", "/bin/busybox", "true"]));
    let mut command = store.command(&["run", "--rm", "-i", "-v", &bin, "running", "/bin/busybox", "cat"]);
    let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    {
        use std::io::{Read, Write};
        running.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        running.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    }
    age(&store, 80);
    let gc = |arguments: &[&str]| -> Said {
        store.command(&[&["gc", "--older-than"], arguments].concat()).output().unwrap().into()
    };
    let told = ok(gc(&["100h"]));
    assert!(told.starts_with("Total reclaimed space: 0B (0 bytes)"), "{told}");
    let run: Said =
        store.command(&["run", "--rm", "-v", &bin, "used", "/bin/busybox", "true"]).output().unwrap().into();
    assert_eq!(run.code, 0, "{run:?}");
    let dry = ok(gc(&["72h", "--dry-run"]));
    let before = on_disk(&store.root());
    let told = ok(gc(&["72h"]));
    assert_eq!(told.replace("reclaimed", "reclaimable"), dry);
    for line in
        ["image base:latest, last used 3 days ago", "image made:latest, ", "image old:latest, ", "build step "]
    {
        assert!(told.lines().any(|told| told.starts_with(line)), "{line}: {told}");
    }
    assert_eq!(freed(&told), before - on_disk(&store.root()), "{told}");
    drop(running.stdin.take());
    assert!(running.wait().unwrap().success());
    assert_eq!(names(&store), ["kept", "running", "used"]);
    ok(store.hull(&["system", "check"]));
    ok(store.hull(&["rm", "lasting"]));
    age(&store, 80);
    ok(store.hull(&["gc", "--older-than", "72h"]));
    assert_eq!((names(&store).len(), on_disk(&store.root()) < 20_000), (0, true));
    for wrong in [["--older-than", "long"], ["--keep-size", "much"]] {
        let said = store.hull(&["gc", wrong[0], wrong[1]]);
        assert!(said.code == 125 && said.err.contains(wrong[0]) && said.err.contains(wrong[1]), "{said:?}");
    }
}

#[test]
fn gc_to_a_size_takes_the_least_recently_used_first_and_stops_there() {
    let store = Builder::new();
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        import(&store, name, 1024);
        // Each of what is there is older than what comes next.
        age(&store, 100 - n as u64);
    }
    age(&store, 90);
    for (name, hours) in [("a", 50), ("c", 60), ("b", 70)] {
        let id = ok(store.hull(&["inspect", "-f", "{{index .RootFS.Layers 0}}", name]));
        let layer = store.root().join("layers").join(id.trim().trim_start_matches("sha256:"));
        let touch = Command::new("touch").args(["-d", &format!("{hours} hours ago")]).arg(layer).status();
        assert!(touch.unwrap().success());
    }
    // Each takes 2 MiB: the blob and the tree. The base is the oldest, then come b, c and a.
    let told = ok(store.hull(&["gc", "--keep-size", "5m"]));
    let order: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("image ")?.split(',').next()).collect();
    assert_eq!(
        (order, names(&store)),
        (vec!["base:latest", "b:latest"], vec!["a".to_owned(), "c".to_owned()]),
        "{told}"
    );
    assert!(on_disk(&store.root()) < (5 << 20) + 16_384);
    assert_eq!(freed(&ok(store.hull(&["gc", "--keep-size", "5m"]))), 0);
    let told = ok(store.hull(&["gc", "--keep-size", "0", "--older-than", "55h"]));
    assert_eq!(names(&store), ["a"], "both have to hold: {told}");
    ok(store.hull(&["system", "check"]));
}

#[test]
fn gc_beside_an_image_that_cannot_be_read_removes_nothing() {
    let store = Builder::new();
    import(&store, "other", 64);
    let config = ok(store.hull(&["images", "-q", "--no-trunc", "other"]));
    let config = store.root().join("blobs/sha256").join(config.trim().trim_start_matches("sha256:"));
    fs::write(&config, "").unwrap();
    let before = on_disk(&store.root());
    let said = store.hull(&["gc", "--keep-size", "0"]);
    assert!(said.code == 1 && said.err.contains("hull system check --repair"), "{said:?}");
    assert_eq!(on_disk(&store.root()), before);
    let df = store.hull(&["system", "df"]);
    assert!(df.code == 1 && df.out.contains("Images          1 "), "the others are told: {df:?}");
}

#[test]
fn builds_beside_collections_succeed_and_the_store_stays_whole() {
    let store = Builder::new();
    // Or the base would go, as it should, as soon as no build stands on it.
    ok(store.hull(&["run", "--name", "keeper", "base", "true"]));
    let context = |number: usize| {
        let folder = store.corner().path().join(format!("context{number}"));
        fs::create_dir(&folder).unwrap();
        let text = format!("FROM base\nRUN echo {number} > /a\nCOPY Dockerfile /\nRUN echo b > /b\n");
        fs::write(folder.join("Dockerfile"), text).unwrap();
        folder.to_string_lossy().into_owned()
    };
    let contexts = [context(0), context(1)];
    let run = |arguments: &[&str]| {
        let said: Said = store.command(arguments).output().unwrap().into();
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
    };
    std::thread::scope(|scope| {
        for context in &contexts {
            scope.spawn(|| (0..6).for_each(|_| run(&["build", "-q", "-t", "made", context])));
        }
        scope.spawn(|| (0..20).for_each(|_| run(&["gc", "--keep-size", "0"])));
    });
    ok(store.hull(&["gc", "--keep-size", "0"]));
    assert_eq!(names(&store), ["base"]);
    ok(store.hull(&["system", "check"]));
    ok(store.hull(&["rm", "keeper"]));
}

/// A RUN can nest folders as deep as it likes; a descriptor for each is more than the usual limit.
#[test]
fn a_deep_tree_neither_hides_what_there_is_nor_keeps_a_collection_from_its_work() {
    let store = Builder::new();
    import(&store, "kept", 8);
    let layers = store.root().join("layers");
    let deep: std::path::PathBuf = std::iter::repeat_n("d", 1100).collect();
    let layer = hull_tests::entries(&layers).into_iter().find(|name| !layers.join(name).is_symlink()).unwrap();
    fs::create_dir_all(layers.join(layer).join("diff").join(deep)).unwrap();
    for command in ["system df", "gc --older-than 1h", "system check --quick"] {
        let script = format!("ulimit -S -n 1024; exec {} {command}", hull_tests::hull_bin().display());
        let said: Said = Command::new("sh").args(["-c", &script]).envs(store.corner().env()).output().unwrap().into();
        assert!(said.code <= 1 && !said.err.contains("Too many open files"), "{command}: {said:?}");
        assert!(command == "system check --quick" || said.code == 0, "{command}: {said:?}");
    }
    assert_eq!(names(&store), ["base", "kept"]);
}
