//! `hull login` and `hull logout`: who we are to a registry, kept where docker and podman look for it.

use std::io::{BufRead, Read, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use hull_registry::{Credentials, Secret, credentials};
use hull_sys::tty;

use crate::registry::RegistryArgs;
use crate::report::Report;

/// The registry that is meant if none is named: Docker's.
const DOCKER: &str = "docker.io";
/// The longest password.
const PASSWORD_MAX: u64 = 64 << 10;

// The flags of `hull login`, Docker's and podman's.
#[derive(Args)]
pub struct LoginArgs {
    /// Name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password; it is safer on standard input, since others can see command lines
    #[arg(short, long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Take the password from standard input
    #[arg(long, conflicts_with = "password")]
    password_stdin: bool,
    /// Tell who is logged in, and do nothing
    #[arg(long, conflicts_with_all = ["username", "password", "password_stdin"])]
    get_login: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    /// The registry, with a path for some of its repositories only; Docker's, if not given
    #[arg(value_name = "REGISTRY")]
    server: Option<String>,
}

// The flags of `hull logout`.
#[derive(Args)]
pub struct LogoutArgs {
    /// Log out of all registries
    #[arg(short, long, conflicts_with = "server")]
    all: bool,
    /// File of credentials; all that are used, if not given
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// The registry; Docker's, if not given
    #[arg(value_name = "REGISTRY")]
    server: Option<String>,
}

/// `hull login`: the credentials are kept once the registry has taken them.
pub fn login(args: &LoginArgs) -> Result<i32, Report> {
    let (key, host) = server(args.server.as_deref());
    let options = args.registry.options()?;
    let path = key.strip_prefix(&host).unwrap_or_default().trim_start_matches('/').to_owned();
    let known = match &args.registry.authfile {
        Some(file) if !file.exists() => None,
        file => credentials::find(file.as_deref(), &host, &path)?,
    };
    if args.get_login {
        let missing = || Report::host(format!("tell who is logged in to {key}"), "nobody is");
        return say(&format!("{}\n", known.as_ref().and_then(Credentials::user).ok_or_else(missing)?));
    }
    // What is known serves again, if it still does.
    if let (Some(known), None, None, false) = (&known, &args.username, &args.password, args.password_stdin) {
        eprintln!("Authenticating with existing credentials for {key}");
        match hull_registry::login(&host, known, &options) {
            Ok(()) => return say("Login Succeeded\n"),
            Err(error) if tty::is_terminal(stdin().as_fd()) => eprintln!("hull: {error}"),
            Err(error) => return Err(error.into()),
        }
    }
    let given = args.credentials(known.as_ref())?;
    hull_registry::login(&host, &given, &options)?;
    let file = match &args.registry.authfile {
        Some(file) => file.clone(),
        None => credentials::default_file()?,
    };
    if credentials::store(&file, &key, &given)? == credentials::Kept::InFile {
        eprintln!("The password is kept in {}, for its owner's eyes only but not encrypted.", file.display());
    }
    say("Login Succeeded\n")
}

/// What the credentials are filed under, and the registry's host name.
fn server(named: Option<&str>) -> (String, String) {
    let bare = named.unwrap_or(DOCKER);
    let bare = bare.strip_prefix("https://").or_else(|| bare.strip_prefix("http://"));
    // An address as Docker has it: what follows the host is the protocol's.
    let key = match bare {
        Some(address) => address.split('/').next().unwrap_or_default(),
        None => named.unwrap_or(DOCKER).trim_end_matches('/'),
    };
    let key = if ["index.docker.io", "registry-1.docker.io"].contains(&key) { DOCKER } else { key };
    (key.to_owned(), key.split('/').next().unwrap_or_default().to_owned())
}

impl LoginArgs {
    /// What was given, and asked for where a person can answer.
    fn credentials(&self, known: Option<&Credentials>) -> Result<Credentials, Report> {
        let stdin_is_terminal = tty::is_terminal(stdin().as_fd());
        let prompted = |what: &str| match stdin_is_terminal {
            true => Ok(()),
            false => {
                let said = format!("cannot ask for the {what}: standard input is not a terminal");
                Err(Report::usage(said, Some("hull login -u NAME --password-stdin REGISTRY < FILE")).with_code(1))
            }
        };
        let user = match (&self.username, self.password_stdin) {
            (Some(user), _) => user.clone(),
            (None, true) => {
                return Err(Report::usage("--password-stdin needs --username", None).with_code(1));
            }
            (None, false) => {
                prompted("name")?;
                ask_name(known.and_then(Credentials::user))?
            }
        };
        let password = match &self.password {
            Some(password) => {
                eprintln!("A password on the command line can be seen by others; --password-stdin is safer.");
                Secret::new(password)
            }
            None if self.password_stdin => piped_password()?,
            None => {
                prompted("password")?;
                ask_password()?
            }
        };
        if user.is_empty() || password.is_empty() {
            return Err(Report::usage("a login needs a name and a password", None).with_code(1));
        }
        Ok(Credentials::Password(user, password))
    }
}

fn failed(error: impl std::fmt::Display) -> Report {
    Report::host("read what is typed", error)
}

fn ask_name(usual: Option<&str>) -> Result<String, Report> {
    let prompt = usual.map_or_else(|| "Username: ".to_owned(), |usual| format!("Username ({usual}): "));
    eprint!("{prompt}");
    let mut line = String::new();
    stdin().lock().read_line(&mut line).map_err(failed)?;
    let name = line.trim();
    Ok(if name.is_empty() { usual.unwrap_or_default().to_owned() } else { name.to_owned() })
}

fn piped_password() -> Result<Secret, Report> {
    let mut text = String::new();
    let read = stdin().lock().take(PASSWORD_MAX).read_to_string(&mut text);
    read.map_err(|error| Report::host("read the password from standard input", error))?;
    Ok(Secret::new(text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line))))
}

/// Reads a line that is not shown. Keys arrive as they are, so that an interrupt, too, leaves the terminal as it was.
fn ask_password() -> Result<Secret, Report> {
    eprint!("Password: ");
    let input = stdin();
    let before = tty::make_raw(input.as_fd()).map_err(failed)?;
    let read = read_keys(&mut input.lock());
    tty::restore(input.as_fd(), &before).map_err(failed)?;
    eprintln!();
    match read.map_err(failed)? {
        Some(password) => Ok(Secret::new(password)),
        None => Err(Report::usage("the login was interrupted", None).with_code(130)),
    }
}

/// A line of keys; none if it was interrupted.
fn read_keys(input: &mut impl Read) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut key = [0];
    while input.read(&mut key)? == 1 {
        match key[0] {
            b'\r' | b'\n' => break,
            // Ctrl-C; Ctrl-D, which ends what was typed; Ctrl-U; backspace, over a whole character.
            3 => return Ok(None),
            4 => break,
            0x15 => line.clear(),
            8 | 0x7f => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            byte => line.push(byte),
        }
    }
    String::from_utf8(line).map(Some).map_err(std::io::Error::other)
}

/// `hull logout`.
pub fn logout(args: &LogoutArgs) -> Result<i32, Report> {
    let files = credentials::files(args.authfile.as_deref());
    if args.all {
        for file in files.iter().filter(|file| file.exists()) {
            forget_all(file)?;
        }
        return say("Removed login credentials for all registries\n");
    }
    let (key, _) = server(args.server.as_deref());
    let mut removed = false;
    for file in &files {
        removed |= credentials::remove(file, &key)?;
    }
    say(&match removed {
        true => format!("Removing login credentials for {key}\n"),
        false => format!("Not logged in to {key}\n"),
    })
}

fn forget_all(file: &Path) -> Result<(), Report> {
    for key in credentials::hosts(file)? {
        credentials::remove(file, &server(Some(&key)).0)?;
    }
    Ok(())
}

fn say(text: &str) -> Result<i32, Report> {
    stdout().write_all(text.as_bytes()).map_err(|error| Report::host("write to standard output", error))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_named_in_many_ways() {
        for (given, key, host) in [
            (None, "docker.io", "docker.io"),
            (Some("https://index.docker.io/v1/"), "docker.io", "docker.io"),
            (Some("r.test:5000"), "r.test:5000", "r.test:5000"),
            (Some("http://r.test/v2/"), "r.test", "r.test"),
            (Some("r.test/team/"), "r.test/team", "r.test"),
        ] {
            assert_eq!(server(given), (key.to_owned(), host.to_owned()), "{given:?}");
        }
    }

    #[test]
    fn keys_are_edited_as_people_expect() {
        let typed = |keys: &[u8]| read_keys(&mut &*keys).expect("keys");
        assert_eq!(typed(b"secret\r").as_deref(), Some("secret"));
        assert_eq!(typed("a\u{e4}\u{7f}b\n".as_bytes()).as_deref(), Some("ab"));
        assert_eq!(typed(b"wrong\x15right\x04").as_deref(), Some("right"));
        assert_eq!(typed(b"\x7fx").as_deref(), Some("x"));
        assert_eq!(typed(b"half\x03"), None);
    }
}
