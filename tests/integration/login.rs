//! `hull login` and `hull logout`, beside docker's and podman's files and credential helpers.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hull_tests::registry::{Kind, PASSWORD, Registry, USER};
use hull_tests::screen::Screen;
use hull_tests::{Builder, Said};

struct Login {
    store: Builder,
    registry: Registry,
}

impl Login {
    fn new(kind: Kind) -> Self {
        let store = Builder::new();
        let registry = Registry::start(&store.corner().path().join("registry"), kind);
        Self { store, registry }
    }

    fn home(&self) -> &Path {
        self.store.corner().path()
    }

    fn file(&self) -> PathBuf {
        self.home().join(".docker/config.json")
    }

    /// A command with a home and configuration of its own.
    fn own(&self, mut command: Command) -> Command {
        command.env("HOME", self.home()).env("XDG_RUNTIME_DIR", self.home().join("runtime"));
        command
            .env("CONTAINERS_REGISTRIES_CONF", "/dev/null")
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("DOCKER_CONFIG");
        command
    }

    fn hull(&self, arguments: &[&str]) -> Said {
        self.store.said(self.own(self.store.command(arguments)).output().expect("hull starts"))
    }

    /// `hull login` with this on its standard input.
    fn login(&self, flags: &[&str], input: &str) -> Said {
        let words =
            [&["login", "--tls-verify=false", "-u", USER, "--password-stdin"], flags, &[self.registry.address()]];
        let mut command = self.own(self.store.command(&words.concat()));
        let pipe = || Stdio::piped();
        let mut child = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().expect("hull starts");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("hull reads");
        self.store.said(child.wait_with_output().expect("hull"))
    }

    /// What a push without credentials of its own gives.
    fn push(&self) -> Said {
        let name = format!("{}/x:1", self.registry.address());
        self.hull(&["push", "--tls-verify=false", "base", &name])
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> Said {
        let mut command = Command::new(program);
        command.args(arguments);
        self.own(command).output().unwrap_or_else(|error| panic!("{program}: {error}")).into()
    }
}

fn ok(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!said.out.contains(PASSWORD) && !said.err.contains(PASSWORD), "{said:?}");
    said.out
}

#[test]
fn a_login_that_the_registry_takes_is_kept_for_the_owner_and_used_by_all() {
    for kind in [Kind::Basic, Kind::Token] {
        let one = Login::new(kind);
        assert!(one.push().err.contains("hull login 127.0.0.1:"), "{kind:?}");
        let refused = one.login(&[], "wrong");
        assert!(refused.code == 1 && !one.file().exists(), "{kind:?}: {refused:?}");
        assert_eq!(ok(one.login(&[], &format!("{PASSWORD}\n"))), "Login Succeeded\n", "{kind:?}");
        assert_eq!(fs::metadata(one.file()).unwrap().permissions().mode() & 0o777, 0o600);
        ok(one.push());
        let address = one.registry.address();
        let skopeo = one.tool("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{address}/x:1")]);
        assert_eq!(skopeo.code, 0, "{kind:?}: {skopeo:?}");
        assert_eq!(ok(one.hull(&["login", "--get-login", address])), format!("{USER}\n"));
        // Once more without a word: what is known serves.
        assert_eq!(ok(one.hull(&["login", "--tls-verify=false", address])), "Login Succeeded\n");
        assert_eq!(ok(one.hull(&["logout", address])), format!("Removing login credentials for {address}\n"));
        assert_eq!(ok(one.hull(&["logout", address])), format!("Not logged in to {address}\n"));
        assert_eq!(one.push().code, 1, "{kind:?}");
    }
}

#[test]
fn what_podman_keeps_is_used_and_forgotten_too() {
    let one = Login::new(Kind::Basic);
    let address = one.registry.address();
    fs::create_dir(one.home().join("runtime")).unwrap();
    let at = |name: &str| one.home().join("podman").join(name).display().to_string();
    let (root, runroot) = (at("root"), at("run"));
    let podman = |words: &[&str]| {
        let said = one.tool("podman", &[&["--root", &root, "--runroot", &runroot], words].concat());
        assert_eq!(said.code, 0, "{said:?}");
        said.out
    };
    podman(&["login", "--tls-verify=false", "-u", USER, "-p", PASSWORD, address]);
    assert!(one.home().join("runtime/containers/auth.json").exists());
    ok(one.push());
    ok(one.hull(&["logout", address]));
    assert_eq!(one.push().code, 1);
    // And the other way.
    let file = one.home().join("auth.json").display().to_string();
    ok(one.login(&["--authfile", &file], PASSWORD));
    assert_eq!(podman(&["login", "--authfile", &file, "--get-login", address]).trim(), USER);
    assert_eq!(one.push().code, 1, "only the named file has it");
    ok(one.hull(&["logout", "--all", "--authfile", &file]));
    assert!(!fs::read_to_string(&file).unwrap().contains(address));
}

const HELPER: &str = r#"#!/bin/sh
printf '%s %s\n' "$1" "$*" >> "$HELPER_FOLDER/calls"
case $1 in
store) cat > "$HELPER_FOLDER/secret" ;;
get) cat > /dev/null; cat "$HELPER_FOLDER/secret" 2>/dev/null || { echo credentials not found in native keychain; exit 1; } ;;
erase) cat > /dev/null; rm "$HELPER_FOLDER/secret" ;;
esac
"#;

#[test]
fn a_credential_helper_keeps_the_password_and_gets_it_on_its_standard_input() {
    let one = Login::new(Kind::Basic);
    let bin = one.home().join("bin");
    fs::create_dir(&bin).unwrap();
    let helper = bin.join("docker-credential-test");
    fs::write(&helper, HELPER).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(one.home().join(".docker")).unwrap();
    fs::write(one.file(), r#"{"credsStore":"test","detachKeys":"ctrl-x"}"#).unwrap();
    let with_helper = |mut command: Command| {
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("HELPER_FOLDER", one.home());
        command
    };
    let hull = |arguments: &[&str], input: &str| {
        let mut command = with_helper(one.own(one.store.command(arguments)));
        let pipe = || Stdio::piped();
        let mut child = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().expect("hull starts");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("hull reads");
        one.store.said(child.wait_with_output().expect("hull"))
    };
    let address = one.registry.address();
    ok(hull(&["login", "--tls-verify=false", "-u", USER, "--password-stdin", address], PASSWORD));
    let kept = fs::read_to_string(one.file()).unwrap();
    assert!(kept.contains(address) && kept.contains("ctrl-x") && !kept.contains("auth\""), "{kept}");
    let name = format!("{address}/x:1");
    ok(hull(&["push", "--tls-verify=false", "base", &name], ""));
    ok(hull(&["logout", address], ""));
    assert!(!one.home().join("secret").exists());
    assert_eq!(hull(&["push", "--tls-verify=false", "base", &name], "").code, 1);
    let calls = fs::read_to_string(one.home().join("calls")).unwrap();
    assert!(calls.contains("store store") && calls.contains("get get") && !calls.contains(PASSWORD), "{calls}");
}

#[test]
fn a_password_that_is_typed_is_not_shown_and_an_interrupt_leaves_the_terminal_as_it_was() {
    let one = Login::new(Kind::Basic);
    let command = one.own(one.store.command(&["login", "--tls-verify=false", one.registry.address()]));
    let mut screen = Screen::open(&command);
    screen.wait_for("Username: ");
    screen.keyboard.write_all(format!("{USER}\n").as_bytes()).unwrap();
    screen.wait_for("Password: ");
    screen.keyboard.write_all(format!("{PASSWORD}\r").as_bytes()).unwrap();
    screen.wait_for("Login Succeeded");
    assert!(screen.end().success());
    assert!(!screen.shown().contains(PASSWORD), "{}", screen.shown());

    ok(one.hull(&["logout", one.registry.address()]));
    let mut screen = Screen::open(&command);
    screen.wait_for("Username: ");
    screen.keyboard.write_all(format!("{USER}\n").as_bytes()).unwrap();
    screen.wait_for("Password: ");
    screen.keyboard.write_all(b"canary-half\x03").unwrap();
    assert_eq!(screen.end().code(), Some(130));
    assert_eq!(screen.modes().local_modes, screen.before.local_modes);
    assert!(
        !screen.shown().contains("canary-half") && !one.file().exists()
            || !fs::read_to_string(one.file()).unwrap().contains("auth\":")
    );
    one.store.corner().assert_clean();
}

#[test]
fn where_nobody_can_answer_nothing_is_asked() {
    let one = Login::new(Kind::Basic);
    let address = one.registry.address();
    for (arguments, why) in [
        (&["login", address][..], "standard input is not a terminal"),
        (&["login", "-u", "x", address], "standard input is not a terminal"),
        (&["login", "--password-stdin", address], "--password-stdin needs --username"),
        (&["login", "-u", "x", "--password-stdin", address], "a login needs a name and a password"),
        (&["login", "--get-login", address], "nobody is"),
    ] {
        let mut command = one.own(one.store.command(arguments));
        let said = one.store.said(command.stdin(Stdio::null()).output().unwrap());
        assert!(said.code == 1 && said.err.contains(why), "{arguments:?}: {said:?}");
    }
}
