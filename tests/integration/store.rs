//! The image store as other tools see it, and archives of every kind on their way in.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use hull_tests::{Builder, Corner, Said, hull_bin};

/// Another tool, which must succeed.
fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn copy(flags: &[&str], from: &str, to: &str) {
    tool("skopeo", &[&["copy", "--quiet"], flags, &[from, to]].concat());
}

/// How skopeo names an image in a layout.
fn layout(folder: &Path, name: &str) -> String {
    format!("oci:{}:{name}", folder.display())
}

fn ok(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

const MADE: &str = "FROM base\nWORKDIR /w\nRUN echo one > one; busybox chmod 4755 one\nRUN busybox rm /bin/tty\nENV A=b\nLABEL c=d\n\
                    USER 7:8\nCMD [\"sh\", \"-c\", \"echo $A; cat one; stat -c %a one; id -u; ls /bin/tty\"]\n";

#[test]
fn skopeo_reads_the_store_and_what_it_copies_runs_the_same_elsewhere() {
    let (here, there) = (Builder::new(), Builder::new());
    ok(here.build(MADE));
    let expected = here.hull(&["run", "--rm", "made"]).out;
    assert_eq!(expected, "b\none\n4755\n7\n");

    let ours = layout(&here.root(), "docker.io/library/made:latest");
    let told: serde_json::Value = serde_json::from_str(&tool("skopeo", &["inspect", &ours])).unwrap();
    assert_eq!((&told["Labels"]["c"], told["Layers"].as_array().unwrap().len()), (&"d".into(), 4), "{told}");
    assert!(told["Env"].as_array().unwrap().contains(&"A=b".into()), "{told}");

    // Through every shape that skopeo packs an image in, and back into another store under a short name.
    let folder = here.corner().path();
    for (name, flags, format) in [
        ("plain", &[][..], "oci"),
        ("gzip", &["--dest-compress", "--dest-compress-format", "gzip"], "oci"),
        ("zstd", &["--dest-compress", "--dest-compress-format", "zstd"], "oci"),
        ("archive", &[], "oci-archive"),
        ("docker", &["--format", "v2s2"], "dir"),
    ] {
        let between = folder.join(name);
        let between = if format == "oci" { layout(&between, "x") } else { format!("{format}:{}", between.display()) };
        copy(flags, &ours, &between);
        copy(&[], &between, &layout(&there.root(), name));
        assert_eq!(there.hull(&["run", "--rm", name]).out, expected, "{name}");
        assert!(ok(there.hull(&["images"])).contains(&format!("{name} ")), "{name} is listed");
        let said =
            there.build(&format!("FROM {name}\nRUN id -u > /tmp-own || true\nCOPY --from={name} /w/one /two\n"));
        assert_eq!(said.code, 0, "{name}: {said:?}");
        assert_eq!(there.shell("cat /two").out, "one\n", "{name}");
    }
    assert_eq!(there.hull(&["system", "check"]).code, 0);
}

#[test]
fn an_image_that_skopeo_brought_is_tagged_over_and_removed_like_any_other() {
    let store = Builder::new();
    ok(store.build("FROM base\nRUN echo 1 > /one\n"));
    copy(&[], &layout(&store.root(), "docker.io/library/made:latest"), &layout(&store.root(), "brought"));
    ok(store.build_with(&["-t", "brought"], "FROM base\nRUN echo 2 > /two\n"));
    let listed = ok(store.hull(&["images"]));
    assert_eq!(listed.lines().filter(|line| line.starts_with("brought ")).count(), 1, "{listed}");
    assert_eq!(ok(store.hull(&["run", "--rm", "brought", "cat", "/two"])), "2\n");
    ok(store.hull(&["rmi", "brought"]));
    assert!(!ok(store.hull(&["images"])).contains("brought"));
}

#[test]
fn an_image_that_umoci_made_in_the_store_runs_and_is_built_on() {
    let store = Builder::new();
    let bundle = store.corner().path().join("bundle");
    let (image, bundle) = (format!("{}:umoci", store.root().display()), bundle.to_string_lossy().into_owned());
    tool("umoci", &["new", "--image", &image]);
    tool("umoci", &["unpack", "--image", &image, &bundle]);
    tool("cp", &["-a", &format!("{}/.", store.corner().rootfs().display()), &format!("{bundle}/rootfs")]);
    tool("umoci", &["repack", "--image", &image, &bundle]);
    tool("umoci", &["config", "--image", &image, "--config.cmd", "echo", "--config.cmd", "from umoci"]);
    tool("ln", &["-s", "busybox", &format!("{bundle}/rootfs/bin/echo")]);
    tool("umoci", &["repack", "--image", &image, "--refresh-bundle", &bundle]);
    assert_eq!(ok(store.hull(&["run", "--rm", "umoci", "sh", "-c", "echo ran"])), "ran\n");
    ok(store.build("FROM umoci\nRUN echo more > /more\n"));
    assert_eq!(ok(store.hull(&["run", "--rm", "made", "cat", "/more"])), "more\n");
    // What umoci does not know it leaves alone.
    tool("umoci", &["gc", "--layout", &store.root().to_string_lossy()]);
    assert_eq!(ok(store.hull(&["run", "--rm", "made", "cat", "/more"])), "more\n");
    assert_eq!(ok(store.hull(&["run", "--rm", "base", "true"])), "");
}

#[test]
fn a_blob_that_was_changed_on_its_way_is_an_error_and_nothing_of_it_is_kept() {
    let store = Builder::new();
    ok(store.build("FROM base\nRUN echo 1 > /one\n"));
    let brought = store.corner().path().join("brought");
    copy(&["--dest-compress"], &layout(&store.root(), "docker.io/library/made:latest"), &layout(&brought, "x"));
    copy(&[], &layout(&brought, "x"), &layout(&store.root(), "damaged"));
    let manifest: serde_json::Value =
        serde_json::from_str(&tool("skopeo", &["inspect", "--raw", &layout(&store.root(), "damaged")])).unwrap();
    let digest = manifest["layers"][1]["digest"].as_str().unwrap();
    let blob = store.root().join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    let mut data = fs::read(&blob).unwrap();
    let middle = data.len() / 2;
    data[middle] ^= 1;
    fs::write(&blob, data).unwrap();
    // What the build made is still unpacked under the same chain id: it must not be there for this to be a test.
    ok(store.hull(&["rmi", "made"]));
    fs::remove_dir_all(store.root().join("build")).unwrap();
    fs::read_dir(store.root().join("layers")).unwrap().flatten().for_each(|layer| {
        let removed = if layer.file_type().unwrap().is_dir() { fs::remove_dir_all } else { fs::remove_file };
        removed(layer.path()).unwrap();
    });
    let said = store.hull(&["run", "--rm", "damaged", "cat", "/one"]);
    assert_eq!((said.code, &*said.out), (125, ""), "{said:?}");
    assert!(said.err.contains("cannot"), "{said:?}");
    assert_eq!(fs::read_dir(store.root().join("layers")).unwrap().count(), 1, "only the good layer is there");
}

/// What `hull import` says of data on its standard input.
fn import(store: &Builder, data: &[u8], name: &str) -> Said {
    let mut hull = store.command(&["import", "-", name]);
    let mut child = hull.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // hull may have given up already, and the pipe with it; what it said is what counts.
    let _ = input.write_all(data);
    drop(input);
    store.said(child.wait_with_output().unwrap())
}

#[test]
fn archives_are_imported_however_they_are_packed_and_also_from_a_pipe() {
    let store = Builder::new();
    let plain = store.archive();
    let packed = |program: &str| {
        let output = Command::new(program).arg("-c").arg(&plain).output().unwrap();
        assert!(output.status.success());
        output.stdout
    };
    for (name, data) in [("tar", fs::read(&plain).unwrap()), ("gzip", packed("gzip")), ("zstd", packed("zstd"))] {
        let file = store.corner().path().join(name);
        fs::write(&file, &data).unwrap();
        ok(store.hull(&["import", &file.to_string_lossy(), name]));
        assert_eq!(ok(store.hull(&["run", "--rm", name, "sh", "-c", "echo $0", "x"])), "x\n");
        let id = ok(import(&store, &data, &format!("{name}-pipe")));
        assert!(id.starts_with("sha256:") && id.len() == 72, "{id}");
        assert_eq!(ok(store.hull(&["run", "--rm", &format!("{name}-pipe"), "sh", "-c", "echo y"])), "y\n");
    }
}

#[test]
fn what_cannot_be_imported_is_told_and_leaves_the_store_as_it_was() {
    let store = Builder::new();
    let whole = fs::read(store.archive()).unwrap();
    let before = tree(&store.root());
    for (what, data, words) in [
        ("no archive", &b"not an archive at all"[..], &["cannot import standard input: it is not a tar archive"][..]),
        ("nothing", b"", &["cannot import standard input: it is empty"]),
        ("cut short", &whole[..whole.len() / 2], &["it ends within"]),
    ] {
        let said = import(&store, data, "never");
        assert_eq!(said.code, 1, "{what}: {said:?}");
        assert!(words.iter().all(|word| said.err.contains(word)), "{what}: {}", said.err);
        assert_eq!(tree(&store.root()), before, "{what}");
    }
    for (arguments, words) in [
        (["/no/such.tar", "x"], ["/no/such.tar", "No such file"]),
        (["/", "x"], ["cannot import /", "directory"]),
        ([&*store.archive().to_string_lossy(), "No Name"], ["No Name", "cannot"]),
        ([&*store.archive().to_string_lossy(), "x@sha256:0"], ["sha256:0", "cannot"]),
    ] {
        let said = store.hull(&["import", arguments[0], arguments[1]]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(words.iter().all(|word| said.err.contains(word)), "{said:?}");
        assert_eq!(tree(&store.root()), before, "{arguments:?}");
    }
}

#[test]
fn what_the_index_lists_has_reached_the_disk_before() {
    let store = Builder::new();
    fs::write(store.corner().rootfs().join("etc/new"), "another layer than that of the base").unwrap();
    let (archive, seen) = (store.archive(), store.corner().path().join("seen"));
    store.file("Dockerfile", "FROM base\nRUN echo 1 > /one\n");
    for arguments in
        [["import", &archive.to_string_lossy(), "again"], ["build", "-q", &store.context().to_string_lossy()]]
    {
        let mut strace = Command::new("strace");
        strace.args(["-y", "-e", "trace=fdatasync,fsync,renameat,renameat2", "-o"]).arg(&seen).arg(hull_bin());
        ok(store.said(strace.envs(store.corner().env()).args(arguments).output().unwrap()));
        let seen = fs::read_to_string(&seen).unwrap();
        let at = |words: &[&str]| seen.lines().position(|line| words.iter().all(|word| line.contains(word)));
        let index = at(&["renameat", "\"index.json\""]).expect("the index is replaced");
        let named: Vec<usize> =
            seen.lines().enumerate().filter(|(_, line)| line.contains("\"blobs/sha256/")).map(|(at, _)| at).collect();
        assert!(named.len() >= 3, "a layer, a configuration and a manifest: {seen}");
        for number in 0..named.len() {
            let synced = at(&["fdatasync", &format!("/blob-{number}>")]).expect("the blob is synced");
            let renamed = at(&["renameat", &format!("\"blob-{number}\"")]).expect("the blob gets its name");
            assert!(synced < renamed && renamed < index, "{seen}");
        }
        let folder = at(&["fsync", "/blobs/sha256>"]).expect("their folder is synced");
        let file = at(&["fdatasync", "/index.json>"]).expect("the index is synced");
        let root = at(&["fsync", &format!("{}>", store.root().display())]).expect("the store's folder is synced");
        assert!(named.iter().all(|at| *at < folder) && folder < index && file < index && index < root, "{seen}");
    }
}

#[test]
fn many_hulls_change_one_store_at_the_same_time() {
    let store = Builder::new();
    let archive = store.archive().to_string_lossy().into_owned();
    store.file("Dockerfile", "FROM base\nARG N\nRUN echo $N > /n\nCOPY Dockerfile /\n");
    let context = store.context().to_string_lossy().into_owned();
    let one = |number: usize| {
        let (made, import) = (format!("made{number}"), format!("import{number}"));
        let argument = format!("N={}", number % 2);
        for arguments in [
            &["import", &archive, &import][..],
            &["build", "-q", "-t", &made, "-t", "last", "--build-arg", &argument, &context],
            &["images"],
            &["run", "--rm", &made, "cat", "/n"],
            &["rmi", &import],
        ] {
            let said: Said = store.command(arguments).output().unwrap().into();
            assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        }
    };
    std::thread::scope(|scope| {
        for number in 0..6 {
            scope.spawn(move || one(number));
        }
    });
    let listed = ok(store.hull(&["images"]));
    let names: Vec<&str> = listed.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("made")).count(), 6, "{listed}");
    assert!(names.contains(&"last") && !names.iter().any(|name| name.starts_with("import")), "{listed}");
    assert_eq!(ok(store.hull(&["run", "--rm", "made5", "cat", "/n"])), "1\n");
    let check = store.hull(&["system", "check"]);
    assert_eq!(check.code, 0, "{check:?}");
}

/// All paths below a folder.
fn tree(folder: &Path) -> Vec<String> {
    let mut lines: Vec<String> = tool("find", &[&folder.to_string_lossy()]).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn nobody_else_can_look_into_the_store() {
    let corner = Corner::new();
    fs::create_dir(corner.root()).unwrap();
    let said: Said = corner.hull().args(["images"]).output().unwrap().into();
    assert_eq!(said.code, 0, "{said:?}");
    let mode = tool("stat", &["-c", "%a", &corner.root().to_string_lossy()]);
    assert_eq!(mode, "700\n");
}

#[test]
fn an_image_whose_documents_are_lost_hides_no_other_and_can_be_removed() {
    let store = Builder::new();
    ok(store.build_with(&["-t", "other"], "FROM base\nRUN echo 2 > /two\n"));
    ok(store.build("FROM base\nRUN echo 1 > /one\n"));
    let raw = tool("skopeo", &["inspect", "--raw", &layout(&store.root(), "docker.io/library/made:latest")]);
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    fs::write(store.root().join("blobs/sha256").join(config), "").unwrap();

    let listed = store.hull(&["images"]);
    assert_eq!(listed.code, 1, "{listed:?}");
    assert!(listed.out.contains("base ") && listed.err.contains(config), "{listed:?}");
    assert_eq!(store.hull(&["run", "--rm", "base", "true"]).code, 0);
    assert_eq!(store.hull(&["system", "check"]).code, 1);
    let refused = store.hull(&["rmi", "other"]);
    assert!(refused.code == 1 && refused.err.contains(config), "it is not known what the other needs: {refused:?}");
    assert!(store.hull(&["images"]).out.contains("other "), "nothing was removed");

    assert!(ok(store.hull(&["rmi", "made"])).contains("made"));
    assert_eq!(store.hull(&["system", "check", "--repair"]).code, 0);
    assert_eq!(store.hull(&["system", "check"]).code, 0);
    assert_eq!(store.hull(&["images"]).code, 0);
    ok(store.hull(&["rmi", "other"]));
}
