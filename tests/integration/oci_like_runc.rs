//! The same commands to Debian's runc and to hull-oci, side by side: exit statuses, shapes of output, and the words of errors
//! that callers look for.
//!
//! Where hull answers otherwise on purpose the table says so, with the reason.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_tests::bundle::Bundle;
use hull_tests::{Said, eventually};
use serde_json::{Map, Value, json};

/// A bundle that both use, each with a container and a root of its own.
struct Pair {
    bundle: Bundle,
}

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    Runc,
    Hull,
}

impl Pair {
    fn new(script: &str) -> Self {
        Self { bundle: Bundle::new(script) }
    }

    fn id(&self, whose: Whose) -> String {
        self.bundle.id(if whose == Whose::Runc { "runc" } else { "hull" })
    }

    /// The command, in which `ID` stands for the container's own.
    fn command(&self, whose: Whose, arguments: &[&str]) -> Command {
        let id = self.id(whose);
        let arguments: Vec<&str> = arguments.iter().map(|word| if *word == "ID" { &id } else { *word }).collect();
        if whose == Whose::Hull {
            return self.bundle.command(&arguments);
        }
        let mut runc = Command::new("runc");
        runc.current_dir(self.bundle.corner.path()).arg("--root").arg(self.bundle.corner.path().join("runc"));
        runc.args(arguments);
        runc
    }

    fn say(&self, whose: Whose, arguments: &[&str]) -> Said {
        let mut command = self.command(whose, arguments);
        // What stays behind would hold a pipe open.
        let out = self.bundle.corner.path().join("out");
        let errors = self.bundle.corner.path().join("err");
        command
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&errors).unwrap());
        let status = command.status().unwrap();
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Said { code: status.code().unwrap_or(-1), out: read(out), err: read(errors) }
    }

    /// Both, with the same status, and with `words` in what both say is wrong. Gives what they said.
    #[track_caller]
    fn both(&self, arguments: &[&str], words: &str) -> [Said; 2] {
        let both = [Whose::Runc, Whose::Hull].map(|whose| self.say(whose, arguments));
        assert_eq!(both[0].code, both[1].code, "{arguments:?}: {both:?}");
        assert!(both.iter().all(|said| said.err.contains(words)), "{arguments:?} {words:?}: {both:?}");
        both
    }

    /// Both, and both succeed.
    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> [Said; 2] {
        let both = self.both(arguments, "");
        assert_eq!(both[0].code, 0, "{arguments:?}: {both:?}");
        both
    }

    /// Takes the containers away, whatever became of them.
    fn clear(&self) {
        self.ok(&["delete", "--force", "ID"]);
    }
}

/// The names in a JSON object, in their order, and the kinds of their values.
fn keys(text: &str) -> Vec<(String, &'static str)> {
    let object: Map<String, Value> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let kind = |value: &Value| match value {
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Object(_) => "object",
        _ => "other",
    };
    let mut keys: Vec<(usize, String, &str)> = object
        .iter()
        .map(|(key, value)| (text.find(&format!("\"{key}\"")).unwrap(), key.clone(), kind(value)))
        .collect();
    keys.sort();
    keys.into_iter().map(|(_, key, kind)| (key, kind)).collect()
}

/// Where each column of a table begins.
fn columns(table: &str) -> Vec<usize> {
    let head = table.lines().next().unwrap();
    ["ID", "PID", "STATUS", "BUNDLE", "CREATED"].iter().map(|name| head.find(&format!("{name} ")).unwrap()).collect()
}

const NONE: &str = "container does not exist";

#[test]
fn every_verb_in_every_state_has_runcs_status_and_words() {
    let pair = Pair::new("exec sleep 1000");
    pair.bundle.change(|spec| spec["annotations"] = json!({"a": "b"}));

    // No container.
    for verb in ["state", "start", "kill", "delete", "pause", "resume", "ps"] {
        pair.both(&[verb, "ID"], NONE);
    }
    pair.both(&["exec", "ID", "true"], NONE);
    pair.ok(&["delete", "--force", "ID"]);
    let [theirs, ours] = pair.ok(&["list", "--format", "json"]);
    assert_eq!((theirs.out, ours.out), ("null\n".into(), "null\n".into()));

    // Created.
    pair.ok(&["create", "--pid-file", "pid", "ID"]);
    let [theirs, ours] = pair.ok(&["state", "ID"]);
    assert_eq!(keys(&theirs.out), keys(&ours.out));
    pair.both(&["create", "ID"], "container with given ID already exists");
    pair.both(&["run", "ID"], "container with given ID already exists");
    pair.both(&["kill", "ID", "NONSENSE"], "unknown signal");
    pair.both(&["kill", "ID", "99"], "nvalid argument");
    pair.ok(&["kill", "ID", "0"]);
    pair.both(&["resume", "ID"], "container not paused");
    pair.ok(&["pause", "ID"]);
    assert!(pair.ok(&["state", "ID"]).iter().all(|said| said.out.contains("\"status\": \"paused\"")));
    pair.both(&["start", "ID"], "cannot start a container in the paused state");
    pair.ok(&["resume", "ID"]);
    pair.ok(&["exec", "ID", "true"]);

    // Running.
    pair.ok(&["start", "ID"]);
    pair.both(&["start", "ID"], "cannot start an already running container");
    let [theirs, ours] = pair.ok(&["list"]);
    assert_eq!(columns(&theirs.out), columns(&ours.out), "{}{}", theirs.out, ours.out);
    let [theirs, ours] = pair.ok(&["list", "--format", "json"]);
    let first = |text: &str| serde_json::from_str::<Value>(text).unwrap()[0]["owner"].clone();
    assert_eq!(keys(theirs.out.trim().trim_matches(['[', ']'])), keys(ours.out.trim().trim_matches(['[', ']'])));
    assert_eq!(first(&theirs.out), first(&ours.out));
    let [theirs, ours] = pair.ok(&["ps", "ID"]);
    let shape = |text: &str| (text.lines().next().unwrap().to_owned(), text.lines().count());
    assert_eq!(shape(&theirs.out), shape(&ours.out));
    let [theirs, ours] = pair.ok(&["ps", "ID", "-o", "pid,comm"]);
    assert_eq!(shape(&theirs.out), shape(&ours.out));
    assert!(pair.ok(&["ps", "--format", "json", "ID"]).iter().all(|said| said.out.starts_with('[')));
    for verb in ["list", "ps"] {
        pair.both(&[verb, "--format", "nonsense", "ID"], "");
    }
    for words in [&["ID"][..], &["ID", "not-there"], &["--cwd", "x", "ID", "true"], &["--user", "x", "ID", "true"]] {
        let both = pair.both(&[&["exec"], words].concat(), "exec failed: ");
        assert_eq!(both[0].code, 255, "{both:?}");
    }
    pair.both(&["exec", "ID", "not-there"], "executable file not found in $PATH");
    assert_eq!(pair.both(&["exec", "ID", "sh", "-c", "exit 9"], "")[1].code, 9);
    assert_eq!(pair.both(&["exec", "ID", "sh", "-c", "kill -9 $$"], "")[1].code, 137);
    pair.both(&["delete", "ID"], "that is not stopped: running");

    // Paused.
    pair.ok(&["pause", "ID"]);
    pair.both(&["pause", "ID"], "container not running");
    pair.both(&["start", "ID"], "cannot start a container in the paused state");
    pair.both(&["delete", "ID"], "that is not stopped: paused");
    pair.both(&["exec", "ID", "true"], "cannot exec in a paused container (use --ignore-paused to override)");
    pair.ok(&["resume", "ID"]);
    pair.both(&["resume", "ID"], "container not paused");

    // Stopped.
    pair.ok(&["kill", "--all", "ID", "KILL"]);
    for whose in [Whose::Runc, Whose::Hull] {
        eventually("it has stopped", || pair.say(whose, &["state", "ID"]).out.contains("\"status\": \"stopped\""));
    }
    let [theirs, ours] = pair.ok(&["state", "ID"]);
    assert_eq!(keys(&theirs.out), keys(&ours.out));
    pair.both(&["kill", "ID"], "container not running");
    pair.both(&["kill", "ID", "0"], "container not running");
    pair.ok(&["kill", "--all", "ID", "KILL"]);
    pair.both(&["pause", "ID"], "container not running");
    pair.both(&["resume", "ID"], "container not paused");
    pair.both(&["start", "ID"], "cannot start a container that has stopped");
    pair.both(&["exec", "ID", "true"], "cannot exec in a stopped container");
    pair.both(&["create", "ID"], "container with given ID already exists");
    let [theirs, ours] = pair.ok(&["ps", "--format", "json", "ID"]);
    assert_eq!((theirs.out, ours.out), ("null\n".into(), "null\n".into()));
    pair.ok(&["delete", "ID"]);
    pair.both(&["delete", "ID"], NONE);

    pair.ok(&["run", "--detach", "ID"]);
    pair.clear();
}

/// The specification forbids what runc does to a created container, and crun refuses it as well: "attempting to delete a
/// container that is not stopped MUST have no effect on the container and MUST generate an error" (runtime.md "Delete").
#[test]
fn a_created_container_is_not_deleted_without_force() {
    let pair = Pair::new("exec sleep 1000");
    pair.ok(&["create", "ID"]);
    assert_eq!(pair.say(Whose::Runc, &["delete", "ID"]).code, 0);
    let ours = pair.say(Whose::Hull, &["delete", "ID"]);
    assert!(ours.code == 1 && ours.err.contains("that is not stopped: created"), "{ours:?}");
    pair.clear();
}

#[test]
fn a_command_line_that_is_wrong_is_an_error_as_with_runc() {
    let pair = Pair::new("true");
    let wrong: [&[&str]; 12] = [
        &["create"],
        &["create", "a", "b"],
        &["create", "--nonsense", "a"],
        &["create", "--preserve-fds", "x", "a"],
        &["run"],
        &["start"],
        &["state"],
        &["delete"],
        &["kill"],
        &["exec"],
        &["pause"],
        &["ps"],
    ];
    for arguments in wrong {
        let both = [Whose::Runc, Whose::Hull].map(|whose| pair.say(whose, arguments));
        assert!(both.iter().all(|said| said.code == 1), "{arguments:?}: {both:?}");
    }
}

#[test]
fn an_id_that_is_no_name_is_refused_in_runcs_words_and_makes_nothing() {
    let pair = Pair::new("true");
    let long = "x".repeat(4096);
    let format = "invalid container ID format";
    let all: [(&str, &str); 11] = [
        ("a/b", format),
        ("/a", format),
        ("../a", format),
        ("..", format),
        (".", format),
        ("a b", format),
        ("é", format),
        ("a:b", format),
        ("", "container id cannot be empty"),
        // runc asks the kernel whether there is such a file.
        (&long, ""),
        ("-x", ""),
    ];
    for (id, words) in all {
        for verb in
            [&["create"][..], &["run"], &["state"], &["start"], &["kill"], &["delete"], &["delete", "--force"]]
        {
            let both = pair.both(&[verb, &[id]].concat(), words);
            assert_eq!(both[0].code, 1, "{id} {both:?}");
        }
    }
    let [theirs, ours] = pair.ok(&["list", "--quiet"]);
    assert_eq!((&*theirs.out, &*ours.out), ("", ""));
    assert!(!pair.bundle.corner.path().join("a").exists());
}

/// What a wrong config.json is answered with.
enum Answer {
    /// As by runc: an error.
    Error,
    /// As by runc: none.
    Fine,
    /// An error, where runc has none.
    Stricter,
}

#[test]
fn a_config_json_that_is_wrong_is_refused_as_by_runc_and_leaves_nothing() {
    let pair = Pair::new("exec sleep 1000");
    let path = pair.bundle.corner.path().join("config.json");
    let good = fs::read_to_string(&path).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut spec: Value = serde_json::from_str(&good).unwrap();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[name] = value;
        spec.to_string()
    };
    let added = |text: &str| format!("{},{text}}}", &good[..good.rfind('}').unwrap()]);
    let nested = |depth: usize| added(&format!("\"x\": {}1{}", "[".repeat(depth), "]".repeat(depth)));
    use Answer::{Error, Fine, Stricter};
    let cases: Vec<(&str, String, Answer, &str)> = vec![
        ("truncated", good[..good.len() / 2].to_owned(), Error, "EOF"),
        ("empty", String::new(), Error, "EOF"),
        ("an array", "[]".to_owned(), Error, ""),
        ("deeply nested", nested(100_000), Error, ""),
        ("less deeply nested, in an unknown field", nested(5_000), Fine, ""),
        ("unknown fields", with("/process/x", json!({"y": [1]})), Fine, ""),
        ("an unknown section", added("\"vendor\": {\"x\": 1}"), Fine, ""),
        ("an unknown capability", with("/process/capabilities/bounding", json!(["CAP_X"])), Fine, "CAP_X"),
        ("terminal as a word", with("/process/terminal", json!("no")), Error, ""),
        ("args as a word", with("/process/args", json!("sleep")), Error, ""),
        ("env with a number", with("/process/env", json!([1])), Error, ""),
        ("env without =", with("/process/env", json!(["A"])), Error, "invalid environment variable"),
        ("a negative uid", with("/process/user", json!({"uid": -1})), Error, ""),
        ("a uid of 33 bits", with("/process/user", json!({"uid": 1u64 << 32})), Error, ""),
        ("mounts as a word", with("/mounts", json!("x")), Error, ""),
        ("limits as an array", with("/linux/resources", json!([])), Error, ""),
        ("a user as an array", with("/process/user", json!([5, 6])), Error, ""),
        ("a root as an array", with("/root", json!(["rootfs"])), Error, ""),
        ("no args", with("/process/args", json!([])), Error, "args must not be empty"),
        ("a relative cwd", with("/process/cwd", json!("x")), Error, "Cwd must be an absolute path"),
        ("an empty cwd", with("/process/cwd", json!("")), Error, "Cwd property must not be empty"),
        ("a root that is not there", with("/root/path", json!("nowhere")), Error, "nowhere"),
        ("a root that is a file", with("/root/path", json!("config.json")), Error, ""),
        ("no such program", with("/process/args", json!(["x"])), Error, "executable file not found in $PATH"),
        ("a folder as program", with("/process/args", json!(["/bin"])), Error, "permission denied"),
        ("an unknown namespace", with("/linux/namespaces", json!([{"type": "x"}])), Error, ""),
        ("an unknown file system", with("/mounts", json!([{"destination": "/x", "type": "x"}])), Error, ""),
        ("an unknown limit", with("/process/rlimits", json!([{"type": "X", "soft": 1, "hard": 1}])), Error, "X"),
        ("a terminal and nobody for it", with("/process/terminal", json!(true)), Error, "cannot allocate tty"),
        ("a version to come", with("/ociVersion", json!("7.0.0")), Stricter, "7.0.0"),
        ("no version", with("/ociVersion", json!("x")), Stricter, "of the specification is not 1.x"),
        ("a name twice", added("\"hostname\": \"a\""), Stricter, "duplicate"),
        ("something behind it", format!("{good} x"), Stricter, "trailing"),
    ];
    for (name, text, answer, words) in cases {
        fs::write(&path, text).unwrap();
        let both = [Whose::Runc, Whose::Hull].map(|whose| pair.say(whose, &["create", "ID"]));
        let wanted = match answer {
            Error => [1, 1],
            Fine => [0, 0],
            Stricter => [0, 1],
        };
        assert_eq!([both[0].code, both[1].code], wanted, "{name}: {both:?}");
        assert!(both[1].err.contains(words), "{name}: {both:?}");
        assert!(wanted[0] == 0 || both[0].err.contains(words), "{name}: {both:?}");
        if wanted[1] == 1 {
            let list = pair.say(Whose::Hull, &["list", "--quiet"]);
            assert_eq!(list.out, "", "{name}");
        }
        pair.clear();
    }
    // runc reads such a file for half a minute, and then takes it.
    let many: String = (0..100).map(|number| format!("\"{number}\":\"{}\",", "x".repeat(1 << 20))).collect();
    fs::write(&path, added(&format!("\"annotations\": {{{many}\"x\":\"y\"}}"))).unwrap();
    assert!(fs::metadata(&path).unwrap().len() > 100_000_000);
    let start = std::time::Instant::now();
    let said = pair.say(Whose::Hull, &["create", "ID"]);
    assert!(said.code == 1 && said.err.contains("larger than"), "{said:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for (bundle, words) in [("/not-there", "o such file or directory"), ("rootfs", "config.json")] {
        pair.both(&["create", "--bundle", bundle, "ID"], words);
    }
}

#[test]
fn of_many_creates_of_one_id_at_once_one_succeeds() {
    let bundle = Bundle::new("exec sleep 1000");
    let id = &*bundle.id("one");
    for _ in 0..4 {
        let children: Vec<_> = (0..6)
            .map(|_| {
                let mut create = bundle.command(&["create", id]);
                create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let mut created = 0;
        for mut child in children {
            // The one that succeeds leaves its standard error to the container.
            match child.wait().unwrap().code() {
                Some(0) => created += 1,
                code => {
                    let mut said = String::new();
                    std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut said).unwrap();
                    assert!(code == Some(1) && said.contains("container with given ID already exists"), "{said}");
                }
            }
        }
        assert_eq!(created, 1);
        assert_eq!(bundle.state(id)["status"], "created");
        bundle.ok(&["delete", "--force", id]);
    }
}

#[test]
fn a_line_of_the_log_is_runcs() {
    let pair = Pair::new("true");
    for format in ["json", "text"] {
        let lines = [Whose::Runc, Whose::Hull].map(|whose| {
            let log = pair.bundle.corner.path().join("log");
            let said = pair.say(whose, &["--log", "log", "--log-format", format, "state", "ID"]);
            let text = fs::read_to_string(&log).unwrap();
            fs::remove_file(log).unwrap();
            assert!(said.code == 1 && said.err.trim_end().ends_with(NONE) && text.lines().count() == 1, "{text}");
            text
        });
        if format == "json" {
            let [theirs, ours] = lines.map(|line| keys(&line));
            assert_eq!(theirs, ours);
        } else {
            let shape = |line: &str| (line.find("level=error"), line.find("msg=\""), line.ends_with("\"\n"));
            assert_eq!(shape(&lines[0]), shape(&lines[1]), "{lines:?}");
        }
    }
}
