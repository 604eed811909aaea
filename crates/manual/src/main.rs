//! Man pages and shell completions, made from the definition of the command line, so that none can be forgotten.
//!
//! `hull-manual DIR` writes them as they lie below a prefix: `share/man/man1`, `share/bash-completion/completions`,
//! `share/zsh/site-functions` and `share/fish/vendor_completions.d`. It is a program of its own because hull, which
//! starts for every container, should not carry it along.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;

fn main() -> io::Result<()> {
    let Some(prefix) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: hull-manual DIR");
        std::process::exit(2);
    };
    write(&prefix)
}

/// Writes everything below `prefix`.
fn write(prefix: &Path) -> io::Result<()> {
    let mut hull = hull::command_line();
    // Verbs are only built when they are called, and pages are wanted of all.
    hull.build();
    let pages = prefix.join("share/man/man1");
    fs::create_dir_all(&pages)?;
    page(&hull, "hull", &pages)?;
    let completions = [
        (Shell::Bash, "share/bash-completion/completions"),
        (Shell::Zsh, "share/zsh/site-functions"),
        (Shell::Fish, "share/fish/vendor_completions.d"),
    ];
    for (shell, folder) in completions {
        let folder = prefix.join(folder);
        fs::create_dir_all(&folder)?;
        let written = generate_to(shell, &mut hull, "hull", &folder)?;
        // bash looks for a file that is called as the command.
        if shell == Shell::Bash {
            fs::rename(written, folder.join("hull"))?;
        }
    }
    Ok(())
}

/// `hull.1`, `hull-run.1`, `hull-system-check.1`, and so on.
fn page(command: &Command, name: &str, folder: &Path) -> io::Result<()> {
    let source = concat!("hull ", env!("CARGO_PKG_VERSION"));
    let manual = Man::new(command.clone()).title(name.to_uppercase()).manual("hull").source(source);
    manual.render(&mut File::create(folder.join(format!("{name}.1")))?)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        page(below, &format!("{name}-{}", below.get_name()), folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All verbs, `run`, `system-check` and so on.
    fn verbs(command: &Command, above: &str) -> Vec<String> {
        let visible = command.get_subcommands().filter(|below| !below.is_hide_set());
        visible
            .flat_map(|below| {
                let name = format!("{above}-{}", below.get_name());
                [vec![name.clone()], verbs(below, &name)].concat()
            })
            .collect()
    }

    #[test]
    fn every_verb_has_a_page_with_its_flags_and_every_shell_its_completions() {
        let prefix = tempfile::tempdir().unwrap();
        write(prefix.path()).unwrap();
        let mut hull = hull::command_line();
        hull.build();
        let all = verbs(&hull, "hull");
        assert!(all.contains(&"hull-run".to_owned()) && all.contains(&"hull-system-check".to_owned()), "{all:?}");
        for verb in &all {
            let page = fs::read_to_string(prefix.path().join(format!("share/man/man1/{verb}.1"))).unwrap();
            assert!(page.contains(".SH NAME") && page.contains(&verb.replace('-', "\\-")), "{verb}: {page}");
        }
        let run = fs::read_to_string(prefix.path().join("share/man/man1/hull-run.1")).unwrap();
        assert!(run.contains("\\-\\-pids\\-limit") && run.contains("\\-\\-security\\-opt"), "{run}");
        for file in
            ["bash-completion/completions/hull", "zsh/site-functions/_hull", "fish/vendor_completions.d/hull.fish"]
        {
            let text = fs::read_to_string(prefix.path().join("share").join(file)).unwrap();
            assert!(text.contains("pids-limit") && text.contains("verify"), "{file}");
        }
    }
}
