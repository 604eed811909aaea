//! Rows C5 and C9 to C14 of the table of known flaws, held for the whole program: images that want more memory than there
//! is, that bring programs along, or that say what cannot be. Each test says which change it was seen to fail with.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use hull_tests::bundle::Bundle;
use hull_tests::scripted::{Answer, Asked, INDEX, MANIFEST, Scripted, TinyImage, digest, pull, pull_command};
use hull_tests::sentinel::{CANARY, Sentinel};
use hull_tests::tar::Tar;
use hull_tests::{Builder, Corner, Said, entries, hull_bin, peak};

const MIB: u64 = 1 << 20;
/// The most memory that any of these may take.
const BOUND: u64 = 64 * MIB;

/// Pulls from a registry that answers so: it fails with a word about why, within bounds, and the next pull works.
fn refused(what: &str, why: &str, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
    let corner = Corner::new();
    let registry = Scripted::new(answer);
    let (said, peak) = peak::output(&pull_command(&corner, &registry, &["--tls-verify=false"], "a/b:1"));
    assert!(said.code == 1 && said.err.starts_with("hull: cannot ") && said.err.contains(why), "{what}: {said:?}");
    assert!(!said.err.contains("panicked"), "{what}: {said:?}");
    assert!(peak < BOUND, "{what}: {} MiB", peak / MIB);
    for folder in ["blobs/sha256", "layers", "staging", "downloads"] {
        assert_eq!(entries(&corner.root().join(folder)), [""; 0], "{what}: {folder}");
    }
    let honest = TinyImage::new(100);
    let registry = Scripted::new(move |asked| honest.answer(asked));
    assert_eq!(pull(&corner, &registry, &["--tls-verify=false"], "a/b:1").code, 0, "{what}: the next one");
}

/// An honest image but for one answer.
fn but<T: Fn(&Asked) -> Answer + Send + Sync>(
    image: &TinyImage,
    when: fn(&Asked) -> bool,
    other: T,
) -> impl Fn(&Asked) -> Answer + Send + Sync + use<T> {
    let image = image.clone();
    move |asked| if when(asked) { other(asked) } else { image.answer(asked) }
}

fn is_manifest(asked: &Asked) -> bool {
    asked.target.contains("/manifests/")
}

/// `size` bytes of spaces behind a head that says nothing of their number.
fn endless(head: &'static str, size: u64) -> Answer {
    Answer::Raw(Box::new(move |stream| {
        let mut chunk = b"100000\r\n".to_vec();
        chunk.resize(chunk.len() + (1 << 20), b' ');
        chunk.extend_from_slice(b"\r\n");
        if stream.write_all(format!("HTTP/1.1 {head}\r\ntransfer-encoding: chunked\r\n\r\n").as_bytes()).is_ok() {
            // Or until the client has had enough.
            let _ = (0..size / MIB).try_for_each(|_| stream.write_all(&chunk));
        }
    }))
}

/// A file with holes in GNU's old form, whose map goes on for so many blocks of 21 regions.
fn many_regions(blocks: usize) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..5].copy_from_slice(b"holes");
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(0);
    let gnu = header.as_gnu_mut().expect("GNU's format");
    gnu.isextended[0] = 1;
    gnu.realsize.copy_from_slice(b"00000000000\0");
    for slot in &mut gnu.sparse {
        slot.offset.copy_from_slice(b"00000000000\0");
        slot.numbytes.copy_from_slice(b"00000000000\0");
    }
    header.set_cksum();
    let mut block = [b"00000000000\0".repeat(42), vec![1], vec![0; 7]].concat();
    assert_eq!(block.len(), 512);
    let mut tar = Tar::default().raw(&header, b"").0;
    for n in 0..blocks {
        block[504] = u8::from(n + 1 < blocks);
        tar.extend_from_slice(&block);
    }
    Tar(tar).end()
}

/// C5. Fails without `REGIONS_MAX`: the beginning of a map of 10^8 regions, 4 million of them.
#[test]
fn c5_a_map_of_endless_holes_takes_no_memory() {
    let corner = Corner::new();
    let file = corner.path().join("holes.tar");
    fs::write(&file, many_regions(200_000)).unwrap();
    let mut import = corner.hull();
    let (said, peak) = peak::output(import.arg("import").arg(&file).arg("x"));
    assert!(said.code == 1 && said.err.contains("too many holes"), "{said:?}");
    assert!(peak < BOUND, "{} MiB", peak / MIB);
}

/// C9, CVE-2024-25621. Fails if the store's folder, or the one of runtime state, is made with mode 0777.
#[test]
fn c9_nobody_else_can_look_into_store_and_state_whatever_the_umask() {
    let store = Builder::new();
    fs::remove_dir_all(store.root()).unwrap();
    fs::remove_dir_all(store.corner().runroot()).unwrap();
    let hull = hull_bin().display().to_string();
    store.file("Dockerfile", "FROM base\nRUN touch /made; chmod 4755 /made\n");
    let script = format!(
        "umask 000; {hull} import {} base && {hull} build -q -t made {} && {hull} run --name kept made true",
        store.archive().display(),
        store.context().display()
    );
    let said: Said = Command::new("sh").args(["-c", &script]).envs(store.corner().env()).output().unwrap().into();
    assert_eq!(said.code, 0, "{said:?}");
    let found = |arguments: &[&str]| {
        let folders = [store.root(), store.corner().runroot()];
        let output = Command::new("find").args(folders).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // Below `diff` it is the image's own that counts, and nobody gets there.
    let open = found(&[
        "-name", "diff", "-prune", "-o", "-name", "empty", "-prune", "-o", "!", "-type", "l", "-perm", "/077",
        "-print",
    ]);
    assert_eq!(open, "");
    let layer = found(&["-path", "*/diff/made"]);
    for path in [layer.lines().next().expect("a layer"), &store.root().join("index.json").to_string_lossy()] {
        assert!(Path::new(path).exists(), "{path}");
        let nobody = Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "stat", path])
            .output();
        let nobody: Said = nobody.unwrap().into();
        assert!(nobody.code == 1 && nobody.err.contains("Permission denied"), "{nobody:?}");
    }
    assert_eq!(store.hull(&["rm", "kept"]).code, 0);
}

/// Runs hull; gives what it or a child executed beside hull and busybox, and every library that was read.
fn strangers(store: &Builder, arguments: &[&str]) -> Vec<String> {
    let seen = store.corner().path().join("seen");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=execve,execveat,open,openat", "-o"]).arg(&seen).arg(hull_bin());
    let said = store.said(strace.envs(store.corner().env()).args(arguments).output().unwrap());
    assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
    let seen = fs::read_to_string(&seen).unwrap();
    let is_strange = |line: &&str| match line.contains("exec") {
        true => line.contains(" = 0") && !line.contains("/hull") && !line.contains("busybox"),
        // What is unpacked is created, and a tree that is copied is read without following anything.
        false => line.contains(".so") && !["O_CREAT", "O_PATH", "O_NOFOLLOW"].iter().any(|flag| line.contains(flag)),
    };
    seen.lines().filter(is_strange).map(str::to_owned).collect()
}

/// C10, CVE-2026-41567, CVE-2019-14271: what an image brings is not run by what handles it, nor loaded into it. The last run
/// shows that it would have been seen.
#[test]
fn c10_programs_and_libraries_of_an_image_are_not_used_by_hull() {
    let store = Builder::new();
    let rootfs = store.corner().rootfs();
    let canary = store.corner().path().join("ran");
    for program in ["xz", "gzip", "unpigz", "pigz", "zstd", "tar", "ps", "nsenter", "newuidmap", "mount", "git"] {
        let path = rootfs.join("bin").join(program);
        // Some are applets of busybox.
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("#!/bin/sh\n/bin/busybox touch {}\n", canary.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for library in [
        "lib/ld-linux.so.2",
        "lib64/ld-linux-x86-64.so.2",
        "lib/libnss_files.so.2",
        "lib/x86_64-linux-gnu/libc.so.6",
        "evil.so",
    ] {
        let path = rootfs.join(library);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "not a library").unwrap();
    }
    fs::write(rootfs.join("etc/nsswitch.conf"), "passwd: evil\nhosts: evil\n").unwrap();
    fs::write(rootfs.join("etc/ld.so.preload"), "/evil.so\n").unwrap();
    let packed = store.corner().path().join("packed.tar.gz");
    let gzip = Command::new("gzip").arg("-c").arg(store.archive()).output().unwrap();
    fs::write(&packed, gzip.stdout).unwrap();
    store.file(
        "Dockerfile",
        "FROM trojan\nENV LD_PRELOAD=/evil.so PATH=/bin\nRUN [\"/bin/busybox\", \"true\"]\nCOPY Dockerfile /\n",
    );
    let context = store.context().to_string_lossy().into_owned();
    let out = store.corner().path().join("out").to_string_lossy().into_owned();
    for arguments in [
        &["import", &*packed.to_string_lossy(), "trojan"][..],
        &["build", "-q", "-t", "made", "-o", &out, &context],
        &["run", "--rm", "made", "/bin/busybox", "true"],
        &["images"],
    ] {
        let strange = strangers(&store, arguments);
        assert!(strange.is_empty(), "{arguments:?}: {strange:#?}");
    }
    assert!(!canary.exists());
    let seen = strangers(
        &store,
        &["run", "--rm", "made", "sh", "-c", "mkdir -p $(dirname $0); gzip", &canary.to_string_lossy()],
    );
    assert!(seen.iter().any(|line| line.contains("gzip")), "{seen:#?}");
    assert!(!canary.exists(), "a container's files are its own");
    store.hull(&["rmi", "made"]);
}

/// C12, CVE-2023-25153: documents. Fails without the bound in `client::small`.
#[test]
fn c12_documents_without_end_take_no_memory() {
    let image = TinyImage::new(10);
    let manifest = "200 X\r\ncontent-type: application/vnd.oci.image.manifest.v1+json";
    refused(
        "a manifest",
        "more than the 4194304 bytes",
        but(&image, is_manifest, move |_| endless(manifest, 10 << 30)),
    );
    let config = digest(&image.config);
    let other = image.clone();
    refused("a configuration", "more than the", move |asked| match asked.target.ends_with(&config) {
        true => endless("200 X", 10 << 30),
        false => other.answer(asked),
    });
    refused("an error's text", "answered 403", but(&image, is_manifest, |_| endless("403 X", 10 << 30)));
    refused("a token", "more than the 1048576 bytes", move |asked| match asked.target.as_str() {
        "/v2/" => Answer::status(200),
        target if target.starts_with("/token") => endless("200 X", 10 << 30),
        _ => {
            let host = asked.header("host").unwrap_or_default();
            Answer::status(401)
                .with("www-authenticate", format!("Bearer realm=\"http://{host}/token\",service=\"s\""))
        }
    });
    let descriptor =
        format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":1}}"#, digest(b"x"));
    let layers = vec![&*descriptor; 20_000].join(",");
    let many = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}},"layers":[{layers}]}}"#,
        digest(b"{}")
    );
    refused("20000 layers", "more than", but(&image, is_manifest, move |_| Answer::ok(MANIFEST, many.clone())));
}

/// C12, indexes inside indexes. Fails without `NESTED_MAX`.
#[test]
fn c12_indexes_are_followed_a_few_steps_and_never_in_a_circle() {
    // A thousand of them, each leading to the next; the digest of one that leads to itself cannot be made.
    let mut documents = vec![b"{}".to_vec()];
    for _ in 0..1000 {
        let below = documents.last().unwrap();
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{INDEX}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
            digest(below),
            below.len()
        );
        documents.push(index.into_bytes());
    }
    let top = documents.last().unwrap().clone();
    refused("a thousand indexes", "indexes deep", move |asked| {
        let wanted = asked.target.rsplit('/').next().unwrap_or_default();
        let named = documents.iter().find(|document| digest(document) == wanted);
        if is_manifest(asked) { Answer::ok(INDEX, named.unwrap_or(&top).clone()) } else { Answer::ok("x/y", "{}") }
    });
}

/// C12, archives that are small only when packed. Fails without the limit in `stream::Tee`, and without `WINDOW_LOG_MAX`.
#[test]
fn c12_bombs_are_cut_off() {
    // The beginning of a terabyte of zeros, where 32 MiB are allowed.
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(1 << 40);
    header.set_mode(0o600);
    header.set_cksum();
    let zeros = vec![0u8; 1 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut zstd = zstd::Encoder::new(Vec::new(), 3).unwrap();
    let packers: [&mut dyn Write; 2] = [&mut gzip, &mut zstd];
    for packer in packers {
        packer.write_all(header.as_bytes()).unwrap();
        (0..64).for_each(|_| packer.write_all(&zeros).unwrap());
    }
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(31).unwrap();
    wide.write_all(&[1u8; 4096]).unwrap();
    // Members of nothing: each costs a decoder its start, none has a byte.
    let member = { flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()).finish().unwrap() };
    for (what, packed, why) in [
        ("gzip", gzip.finish().unwrap(), "larger than the limit"),
        ("zstd", zstd.finish().unwrap(), "larger than the limit"),
        ("a window of 2 GiB", wide.finish().unwrap(), "too much memory"),
    ] {
        let image = TinyImage::packed(packed, &digest(b""));
        refused(what, why, move |asked| image.answer(asked));
    }
    for (what, packed) in [
        ("20000 members of gzip", member.repeat(20_000)),
        ("200000 frames of zstd", [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0].repeat(200_000)),
    ] {
        let corner = Corner::new();
        let image = TinyImage::packed(packed, &digest(b""));
        let registry = Scripted::new(move |asked| image.answer(asked));
        let (said, peak) = peak::output(&pull_command(&corner, &registry, &["--tls-verify=false"], "a/b:1"));
        assert!(said.code == 0 && peak < BOUND, "{what} are an empty layer: {} MiB, {said:?}", peak / MIB);
    }
}

/// C12, what another program left in the store.
#[test]
fn c12_an_index_without_end_in_the_store_takes_no_memory() {
    let corner = Corner::new();
    assert_eq!(corner.hull().arg("images").status().unwrap().code(), Some(0));
    fs::File::options().write(true).open(corner.root().join("index.json")).unwrap().set_len(10 << 30).unwrap();
    let mut images = corner.hull();
    let (said, peak) = peak::output(images.arg("images"));
    assert!(said.code == 1 && said.err.contains("index.json"), "{said:?}");
    assert!(peak < 2 * BOUND, "{} MiB", peak / MIB);
}

/// C13, CVE-2026-53489: what an archive says of names, links, mounts and hooks are files in an image, and nothing else.
#[test]
fn c13_an_imported_archive_names_nothing_and_opens_nothing() {
    let corner = Corner::new();
    let sentinel = Sentinel::new(&corner.path().join("sentinel"));
    let out = sentinel.path().to_string_lossy().into_owned();
    let manifest =
        r#"[{"Config":"config.json","RepoTags":["docker.io/library/alpine:latest"],"Layers":["layer.tar"]}]"#;
    let tar = Tar::default()
        .file("manifest.json", manifest)
        .file("repositories", r#"{"alpine":{"latest":"x"}}"#)
        .file("index.json", r#"{"manifests":[]}"#)
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
        .symlink("config.json", &format!("{out}/file"))
        .symlink("layer.tar", &format!("{out}/file"))
        .symlink("container.log", &format!("{out}/file"))
        .file("config.dump", r#"{"mounts":[{"source":"/","destination":"/host"}],"hooks":{}}"#);
    let file = corner.path().join("checkpoint.tar");
    fs::write(&file, tar.end()).unwrap();
    let said: Said = corner.hull().arg("import").arg(&file).arg("mine").output().unwrap().into();
    assert_eq!(said.code, 0, "{said:?}");
    let images: Said = corner.hull().arg("images").output().unwrap().into();
    assert!(images.out.lines().count() == 2 && images.out.contains("mine "), "{images:?}");
    sentinel.assert_untouched("an import");
    let found = Command::new("grep").args(["-r", "-l", CANARY]).arg(corner.root()).output().unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
}

/// C13: the members of an archive are in the archive. `tests/mutants` has one whose links lead out of it.
#[test]
fn c13_an_archives_links_lead_to_its_own_members_alone() {
    let store = Builder::new();
    let outside = store.corner().path().join("outside");
    let path = |name: &str| store.corner().path().join(name).to_string_lossy().into_owned();
    assert_eq!(store.hull(&["tag", "base", "claimed:1"]).code, 0);
    assert_eq!(store.hull(&["save", "-o", &path("saved.tar"), "claimed:1"]).code, 0);
    fs::create_dir(&outside).unwrap();
    let tar = Command::new("tar").arg("-C").arg(&outside).arg("-xf").arg(path("saved.tar")).status();
    assert!(tar.unwrap().success());
    // What the links are to lead to is a whole image; only it is not in the archive.
    assert_eq!(store.hull(&["rmi", "claimed:1", "base"]).code, 0);
    let manifest = fs::read_to_string(outside.join("manifest.json")).unwrap();
    let images: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let members: Vec<&str> = std::iter::once(&images[0]["Config"])
        .chain(images[0]["Layers"].as_array().unwrap())
        .map(|name| name.as_str().unwrap())
        .collect();
    for (short, name) in members.iter().enumerate() {
        fs::rename(outside.join(name), outside.join(short.to_string())).unwrap();
    }
    let absolute = outside.to_string_lossy().into_owned();
    for folder in [absolute.clone(), format!("{}{absolute}", "../".repeat(12).trim_end_matches('/'))] {
        let links = members.iter().enumerate();
        let tar = links.fold(Tar::default().file("manifest.json", &manifest), |tar, (short, name)| {
            tar.symlink(name, &format!("{folder}/{short}"))
        });
        fs::write(path("links.tar"), tar.end()).unwrap();
        let said = store.hull(&["load", "-i", &path("links.tar")]);
        assert!(said.code == 1 && said.err.contains("is missing"), "{folder}: {said:?}");
        assert_eq!(store.hull(&["images", "-q"]).out, "", "{folder}");
    }
    assert_eq!(store.hull(&["load", "-i", &path("saved.tar")]).code, 0);
    assert!(store.hull(&["images"]).out.contains("claimed "));
}

/// C14, CVE-2026-24054: configurations that do not fit. Fails without the comparison of the numbers of layers, and without the
/// look at the operating system.
#[test]
fn c14_what_an_image_cannot_be_is_an_error_and_never_a_panic() {
    let image = TinyImage::new(10);
    let diff_id = digest(b"another");
    let rootfs = |ids: &str| format!(r#""rootfs":{{"type":"layers","diff_ids":[{ids}]}}"#);
    let one = rootfs(&format!("\"{diff_id}\""));
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for (what, config, why) in [
        ("no diff ids", format!(r#"{{"architecture":"amd64","os":"linux",{}}}"#, rootfs("")), "it has 0 layers"),
        (
            "two diff ids",
            format!(r#"{{"architecture":"amd64","os":"linux",{}}}"#, rootfs(&format!("\"{diff_id}\",\"{diff_id}\""))),
            "it has 2 layers",
        ),
        ("no root file system", r#"{"architecture":"amd64","os":"linux"}"#.to_owned(), "cannot"),
        ("null for it", r#"{"architecture":"amd64","os":"linux","rootfs":null}"#.to_owned(), "cannot"),
        (
            "null for diff ids",
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":null}}"#.to_owned(),
            "cannot",
        ),
        (
            "no layers by type",
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"zip","diff_ids":["x"]}}"#.to_owned(),
            "cannot",
        ),
        ("another system", format!(r#"{{"architecture":"amd64","os":"windows",{one}}}"#), "windows"),
        ("a system that there is not", format!(r#"{{"architecture":"amd64","os":"\u001b[2J",{one}}}"#), "cannot"),
        ("a number for a system", format!(r#"{{"architecture":"amd64","os":7,{one}}}"#), "cannot"),
        ("a key twice", format!(r#"{{"architecture":"amd64","os":"linux","os":"linux",{one}}}"#), "duplicate"),
        (
            "10000 deep",
            format!(r#"{{"architecture":"amd64","os":"linux",{one},"config":{}}}"#, nested(10_000)),
            "cannot",
        ),
        ("nothing", String::new(), "cannot"),
        ("no object", "[]".to_owned(), "cannot"),
    ] {
        let wrong = image.clone().with_config(config);
        refused(what, why, move |asked| wrong.answer(asked));
    }
    for (what, manifest) in [
        ("no layers", r#""config":C"#),
        ("null layers", r#""config":C,"layers":null"#),
        ("a null layer", r#""config":C,"layers":[null]"#),
        ("a null digest", r#""config":C,"layers":[{"mediaType":"x","digest":null,"size":1}]"#),
        ("layers twice", r#""config":C,"layers":[],"layers":[]"#),
        ("null config", r#""config":null,"layers":[]"#),
        ("a negative size", r#""config":C,"layers":[{"mediaType":"x","digest":"sha256:0","size":-1}]"#),
    ] {
        let config = format!(
            r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}}"#,
            digest(b"{}")
        );
        let text = format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}",{}}}"#, manifest.replace('C', &config));
        refused(what, "cannot", but(&image, is_manifest, move |_| Answer::ok(MANIFEST, text.clone())));
    }
}

/// What a container that shows `names` gives of the host's tree: nothing.
fn assert_own(what: &str, said: &Said, own: &str) {
    assert!(said.out.contains(own), "{what}: it lacks what is the image's own: {said:?}");
    assert!(!said.out.contains(CANARY) && !said.err.contains(CANARY), "{what}: {said:?}");
}

/// C11, CVE-2022-23648, CVE-2024-9341, CVE-2021-43816: what an image puts in the place of a folder that is copied from or mounted
/// over is looked for in the image alone. Seen to fail with paths that are resolved as the host does.
#[test]
fn c11_what_is_copied_up_is_the_images_own() {
    let bundle = Bundle::new("cat /data/* /more/*; ls /more; cat /proc/mounts");
    let outside = Sentinel::new(&bundle.corner.path().join("sentinel"));
    let root = bundle.corner.rootfs();
    // The way to the host's tree leads to one of the image's own.
    let inside = root.join(outside.path().strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    fs::write(inside.join("file"), "the image's file\n").unwrap();
    symlink(outside.path(), root.join("data")).unwrap();
    fs::create_dir(root.join("more")).unwrap();
    symlink(outside.path().join("setuid"), root.join("more/link")).unwrap();
    fs::write(root.join("more/file"), "more\n").unwrap();
    bundle.change(|spec| {
        for target in ["/data", "/more", "/../../data"] {
            let mount = serde_json::json!({
                "destination": target, "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "mode=755"],
            });
            spec["mounts"].as_array_mut().unwrap().push(mount);
        }
    });
    let said = bundle.oci(&["run", &bundle.id("c11")]);
    assert_own("tmpcopyup", &said, "the image's file\n");
    assert!(said.out.contains("more\n") && said.out.contains("link\n"), "{said:?}");
    let mount = format!("tmpfs {} tmpfs", outside.path().display());
    assert_eq!(said.out.matches(&mount).count(), 2, "both are mounted where the link leads in the image: {said:?}");
    outside.assert_untouched("tmpcopyup");
}

/// C11 for a build's COPY and for an image that names volumes. Seen to fail with paths that are resolved as the host does.
#[test]
fn c11_volumes_and_copies_from_images_stay_in_the_image() {
    let store = Builder::new();
    let outside = Sentinel::new(&store.corner().path().join("sentinel"));
    let out = outside.path().display().to_string();
    let from = format!(
        "FROM base AS trap\nRUN busybox mkdir -p {out} /etc/pki && echo the image\\'s file > {out}/file && \
         busybox ln -s {out} /l && busybox ln -s {out}/file /etc/pki/ca && busybox ln -s /proc/self/mounts /etc/mtab\n"
    );
    let copied = store.build(&format!("{from}FROM base\nCOPY --from=trap /l/file /etc/pki /l /copied/\n"));
    assert_eq!(copied.code, 0, "{copied:?}");
    assert_own("COPY --from", &store.shell("cat /copied/*"), "the image's file\n");

    let layer = fs::read(store.archive()).unwrap();
    let image = TinyImage::of(&layer).with_config(
        serde_json::json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
            "config": {"Volumes": {"/../..": {}, "/l": {}, "/etc/mtab": {}, &*out: {}, "/proc": {}}},
        })
        .to_string(),
    );
    let registry = Scripted::new(move |asked| image.answer(asked));
    assert_eq!(pull(store.corner(), &registry, &["--tls-verify=false"], "a/b:1").code, 0);
    let name = format!("{}/a/b:1", registry.address());
    let said = store.hull(&["run", "--rm", &name, "sh", "-c", &format!("cat {out}/file; echo it ran")]);
    assert_own("volumes", &said, "it ran\n");
    outside.assert_untouched("volumes and copies");
}
