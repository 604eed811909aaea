//! The images' commands: lists and what they show, `inspect` and `history`, archives that other tools read and write, `prune`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use hull_tests::{Builder, Said};
use serde_json::Value;

fn ok(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

/// Another tool, which must succeed.
fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const MADE: &str =
    "FROM base\nRUN echo one > /one\nENV A=b\nLABEL kind=made team=x\nWORKDIR /w\nUSER 7\nCMD [\"cat\", \"/one\"]\n";

fn store() -> Builder {
    let store = Builder::new();
    ok(store.build(MADE));
    store
}

/// The names that a list has.
fn names(store: &Builder, flags: &[&str]) -> Vec<String> {
    let list = ok(store.hull(&[&["images", "--format", "{{.Repository}}:{{.Tag}}"], flags].concat()));
    let mut names: Vec<String> = list.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn lists_show_what_is_asked_for() {
    let store = store();
    ok(store.hull(&["tag", "made", "r.test/team/made:2"]));
    assert_eq!(names(&store, &[]), ["base:latest", "made:latest", "r.test/team/made:2"]);
    assert_eq!(names(&store, &["made"]), ["made:latest"]);
    assert_eq!(names(&store, &["r.test/*/made"]), ["r.test/team/made:2"]);
    assert_eq!(names(&store, &["-f", "reference=*:latest"]), ["base:latest", "made:latest"]);
    assert_eq!(names(&store, &["-f", "label=kind=made"]), ["made:latest", "r.test/team/made:2"]);
    assert_eq!(names(&store, &["-f", "label=kind=other"]), [""; 0]);
    assert_eq!(names(&store, &["-f", "dangling=true"]), [""; 0]);
    ok(store.build("FROM base\nRUN echo two > /one\n"));
    ok(store.hull(&["rmi", "r.test/team/made:2"]));
    assert_eq!(names(&store, &["-f", "dangling=true"]), [""; 0], "its last name has taken the old one along");
    for (first, rest) in [("images", &[][..]), ("image", &["ls"])] {
        let table = ok(store.hull(&[&[first], rest, &["--digests"]].concat()));
        let head: Vec<&str> =
            table.lines().next().unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
        assert_eq!(head, ["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"]);
        assert!(table.contains("<none>"), "{table}");
    }
    let long = ok(store.hull(&["images", "-q", "--no-trunc", "made"]));
    assert!(long.starts_with("sha256:") && long.trim().len() == 71, "{long}");
    let json: Value = serde_json::from_str(ok(store.hull(&["images", "--format", "json", "made"])).trim()).unwrap();
    assert_eq!((&json["Repository"], &json["Digest"]), (&"made".into(), &"<none>".into()), "{json}");
    for wrong in ["colour=red", "dangling=maybe", "before=nothing", "x"] {
        assert_ne!(store.hull(&["images", "-f", wrong]).code, 0, "{wrong}");
    }
}

#[test]
fn inspect_has_dockers_shape_and_templates_reach_into_it() {
    let store = store();
    let told = ok(store.hull(&["inspect", "made", "base"]));
    assert!(told.starts_with("[\n    {\n        \""), "{told}");
    let all: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 2);
    let made = &all[0];
    let config = &made["Config"];
    assert_eq!(
        (&config["Cmd"], &config["WorkingDir"], &config["User"]),
        (&serde_json::json!(["cat", "/one"]), &"/w".into(), &"7".into())
    );
    assert_eq!(
        (&made["RepoTags"][0], &made["Os"], &made["RootFS"]["Type"]),
        (&"made:latest".into(), &"linux".into(), &"layers".into())
    );
    let id = made["Id"].as_str().unwrap();
    for (template, expected) in [
        ("{{.Id}}", id),
        ("{{.ID}}", id),
        ("{{index .Config.Labels \"team\"}}", "x"),
        ("{{.Config.Labels.none}}", "<no value>"),
        ("{{range .Config.Env}}{{if eq (slice . 0 2) \"A=\"}}{{.}}{{end}}{{end}}", "A=b"),
        ("{{json .Config.Cmd}}", r#"["cat","/one"]"#),
        ("{{len .RootFS.Layers}}", "3"),
    ] {
        assert_eq!(ok(store.hull(&["image", "inspect", "-f", template, "made"])).trim(), expected, "{template}");
    }
    let said = store.hull(&["inspect", "nothing", "made"]);
    assert!(said.code == 1 && said.err.contains("nothing") && said.out.contains(id), "{said:?}");
    assert_eq!(store.hull(&["inspect", "-f", "{{.Confg}}", "made"]).code, 1);
}

#[test]
fn history_tells_each_step_and_its_size() {
    let store = store();
    let told = ok(store.hull(&["history", "made"]));
    let head: Vec<&str> =
        told.lines().next().unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!(head, ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    assert!(told.contains("CMD") && told.contains("echo one"), "{told}");
    let ids = ok(store.hull(&["history", "-q", "--no-trunc", "made"]));
    assert!(ids.starts_with("sha256:") && ids.lines().skip(1).all(|line| line == "<missing>"), "{ids}");
    let sizes = ok(store.hull(&["history", "--human=false", "--format", "{{.Size}}", "made"]));
    assert!(sizes.lines().any(|size| size.parse::<u64>().unwrap() > 1000), "{sizes}");
}

#[test]
fn archives_of_all_kinds_come_back_as_the_same_image() {
    let (here, there) = (store(), Builder::new());
    ok(here.hull(&["tag", "made", "also:2"]));
    let folder = here.corner().path();
    let id = ok(here.hull(&["inspect", "-f", "{{.Id}}", "made"]));
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        let path = folder.join(format).display().to_string();
        ok(here.hull(&["save", "--format", format, "-o", &path, "made", "also:2"]));
        let packed: Vec<String> = match format {
            "oci-dir" => vec![path.clone()],
            _ => {
                tool("gzip", &["-k", &path]);
                tool("zstd", &["-q", &path]);
                vec![path.clone(), format!("{path}.gz"), format!("{path}.zst")]
            }
        };
        for path in packed {
            let told = ok(there.hull(&["load", "-i", &path]));
            let mut lines: Vec<&str> = told.lines().collect();
            lines.sort();
            assert_eq!(lines, ["Loaded image: also:2", "Loaded image: made:latest"], "{path}");
            assert_eq!(ok(there.hull(&["inspect", "-f", "{{.Id}}", "made"])), id, "{path}");
            assert_eq!(ok(there.hull(&["run", "--rm", "also:2"])), "one\n", "{path}");
            ok(there.hull(&["rmi", "made", "also:2"]));
        }
    }
    // Through a pipe, and the same bytes each time.
    let mut save = here.command(&["save", "made"]);
    let bytes = save.output().unwrap().stdout;
    assert!(bytes == here.command(&["save", "made"]).output().unwrap().stdout);
    let mut load = there.command(&["load"]);
    let mut child = load.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert_eq!(ok(there.said(child.wait_with_output().unwrap())), "Loaded image: made:latest\n");
    assert_eq!(ok(there.hull(&["system", "check"])), "");
}

#[test]
fn archives_are_read_and_written_by_skopeo_too() {
    let (here, there) = (store(), Builder::new());
    let at = |name: &str| here.corner().path().join(name).display().to_string();
    for (format, kind) in [("docker-archive", "docker-archive"), ("oci-archive", "oci-archive"), ("oci-dir", "oci")] {
        let path = at(format);
        ok(here.hull(&["save", "--format", format, "-o", &path, "made"]));
        let name = if kind == "docker-archive" { "made:latest" } else { "docker.io/library/made:latest" };
        let config = tool("skopeo", &["inspect", "--config", &format!("{kind}:{path}:{name}")]);
        assert!(config.contains("\"A=b\""), "{format}: {config}");
        let back = at(&format!("{format}-back"));
        tool("skopeo", &["copy", "-q", &format!("{kind}:{path}:{name}"), &format!("{kind}:{back}:back:1")]);
        assert_eq!(ok(there.hull(&["load", "-i", &back])), "Loaded image: back:1\n", "{format}");
        assert_eq!(ok(there.hull(&["run", "--rm", "back:1"])), "one\n", "{format}");
        ok(there.hull(&["rmi", "back:1"]));
    }
}

#[test]
fn what_is_no_archive_of_images_is_told_and_leaves_nothing() {
    let store = store();
    let folder = store.corner().path();
    let write = |name: &str, members: &[(&str, &[u8])]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, data) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, *data).unwrap();
        }
        let path = folder.join(name);
        fs::write(&path, tar.into_inner().unwrap()).unwrap();
        path.display().to_string()
    };
    let secret = folder.join("secret.json");
    fs::write(&secret, r#"{"canary":true}"#).unwrap();
    let outside = format!(r#"[{{"Config":"{}","RepoTags":["x:1"],"Layers":[]}}]"#, secret.display());
    let (up, digest) = (r#"[{"Config":"../../../../etc/passwd","RepoTags":["x:1"],"Layers":[]}]"#, "0".repeat(64));
    let index = format!(
        r#"{{"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{digest}","size":2}}]}}"#
    );
    let before = names(&store, &[]);
    for (name, members, why) in [
        ("empty", &[][..], "neither manifest.json nor oci-layout"),
        ("other", &[("hello", &b"x"[..])], "neither manifest.json nor oci-layout"),
        ("outside", &[("manifest.json", outside.as_bytes())], "is missing"),
        ("up", &[("manifest.json", up.as_bytes())], "is missing"),
        ("json", &[("manifest.json", b"[{")], "manifest.json"),
        (
            "blob",
            &[("oci-layout", b"{}"), ("index.json", index.as_bytes()), (&format!("blobs/sha256/{digest}"), b"{}")],
            "its content has the digest",
        ),
        ("layout", &[("oci-layout", b"{}"), ("index.json", index.as_bytes())], "is missing"),
    ] {
        let path = write(name, members);
        let said = store.hull(&["load", "-i", &path]);
        assert!(said.code == 1 && said.err.contains(why) && !said.err.contains("canary"), "{name}: {said:?}");
        assert_eq!(names(&store, &[]), before, "{name}");
    }
    assert_eq!(store.hull(&["load", "-i", "/no/such"]).code, 1);
    assert_eq!(store.hull(&["save", "--format", "oci-dir", "-o", &folder.display().to_string(), "made"]).code, 1);
    assert_eq!(store.hull(&["save", "--format", "xz", "made"]).code, 1);
    assert!(!Path::new(&folder.join("made")).exists());
}

#[test]
fn an_import_is_changed_by_instructions_and_has_a_note() {
    let store = Builder::new();
    let archive = store.archive().display().to_string();
    let changes = [
        "-c",
        "CMD [\"sh\", \"-c\", \"echo $A\"]",
        "-c",
        "ENV A=\"b c\"",
        "-c",
        "LABEL l=1",
        "-c",
        "WORKDIR /etc",
        "-m",
        "from far",
    ];
    ok(store.hull(&[&["import"], &changes[..], &[&archive, "changed"]].concat()));
    assert_eq!(ok(store.hull(&["run", "--rm", "changed"])), "b c\n");
    let told =
        ok(store.hull(&["inspect", "-f", "{{.Config.WorkingDir}} {{.Config.Labels.l}} {{.Comment}}", "changed"]));
    assert_eq!(told, "/etc 1 from far\n");
    assert_eq!(store.hull(&["import", "-c", "RUN true", &archive, "x"]).code, 1);
}

#[test]
fn prune_takes_what_nothing_needs() {
    let store = store();
    let dangling = |store: &Builder| ok(store.hull(&["images", "-q", "-f", "dangling=true"])).lines().count();
    ok(store.build("FROM base\nRUN echo two > /two\n"));
    ok(store.hull(&["run", "--name", "kept", "base", "true"]));
    assert_eq!(dangling(&store), 1);
    // Asked, and nobody says yes.
    let mut asked = store.command(&["image", "prune"]);
    let said = store.said(asked.stdin(Stdio::null()).output().unwrap());
    assert!(said.err.contains("[y/N]") && said.out.is_empty() && dangling(&store) == 1, "{said:?}");
    assert_eq!(ok(store.hull(&["image", "prune", "-f", "--filter", "until=24h"])), "Total reclaimed space: 0B\n");
    assert_eq!(ok(store.hull(&["image", "prune", "-f", "--filter", "label=no"])), "Total reclaimed space: 0B\n");
    let told = ok(store.hull(&["image", "prune", "-f"]));
    assert!(told.starts_with("Deleted Images:\ndeleted: sha256:") && dangling(&store) == 0, "{told}");
    let told = ok(store.hull(&["image", "prune", "-a", "-f"]));
    assert!(told.contains("untagged: made:latest"), "{told}");
    assert_eq!(names(&store, &[]), ["base:latest"], "a container uses it");
    ok(store.hull(&["rm", "kept"]));
    ok(store.hull(&["image", "prune", "-a", "-f"]));
    assert_eq!(names(&store, &[]), [""; 0]);
}
