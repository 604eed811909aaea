//! The command's exec, and if it fails, why: what a person would look at, looked at for them.
//!
//! Runs in the container's root, so plain paths are the container's own.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use hull_sys::fs::{self, CWD};
use hull_sys::{Errno, Error as SysError, exe, process};
use rustix::fs::{FileType, OFlags};

use crate::error::{Class, Error, Result};
use crate::plan::Process;

/// What a shell searches if the environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The files that the command's name may mean, in the order in which they are tried.
pub(crate) fn candidates(plan: &Process) -> Vec<CString> {
    let Some(name) = plan.argv.first().filter(|name| !name.is_empty()) else { return Vec::new() };
    if name.to_bytes().contains(&b'/') {
        return vec![name.clone()];
    }
    let path = plan.env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
    path.unwrap_or(DEFAULT_PATH)
        .split(|byte| *byte == b':')
        .filter(|folder| folder.starts_with(b"/"))
        .filter_map(|folder| CString::new([folder, b"/", name.to_bytes()].concat()).ok())
        .collect()
}

/// Looks for a candidate that may be executed, long before one is: whoever only creates a container is told then.
pub(crate) fn look(plan: &Process) -> Result<()> {
    if plan.itself {
        return Ok(());
    }
    let mut denied = None;
    for path in candidates(plan) {
        let stat = fs::openat(CWD, &path, OFlags::PATH, 0).and_then(|file| fs::fstat(file.as_fd()));
        match stat {
            Ok(stat) if is_program(&stat) => return Ok(()),
            Ok(_) if denied.is_none() => denied = Some((SysError::new("execve", "", Errno::ACCESS), path)),
            // What cannot be looked at now may be executed all the same, and else that is told then.
            Err(error) if !matches!(error.errno(), Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            _ => {}
        }
    }
    Err(failure(plan, denied.as_ref().map(|(error, path)| (error, path.as_c_str()))))
}

fn is_program(stat: &fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0
}

/// Executes the first candidate that can be. Comes back only with the reason why none could.
pub(crate) fn execute(plan: &Process, candidates: &[CString], env: &[CString]) -> Error {
    if plan.itself {
        return Error::setup("execute hull in the container", exe::execute(&plan.argv, env));
    }
    let mut denied: Option<(SysError, &CString)> = None;
    for path in candidates {
        let error = process::execve(path, &plan.argv, env);
        let missing = matches!(error.errno(), Errno::NOENT | Errno::NOTDIR) && !exists(path);
        if !missing && denied.is_none() {
            let search_goes_on = error.errno() == Errno::ACCESS;
            denied = Some((error, path));
            if !search_goes_on {
                break;
            }
        }
    }
    failure(plan, denied.as_ref().map(|(error, path)| (error, path.as_c_str())))
}

/// Why the command cannot be executed: the first candidate that is there, and what the kernel says of it.
fn failure(plan: &Process, denied: Option<(&SysError, &CStr)>) -> Error {
    let Some(name) = plan.argv.first() else {
        return Error::invalid("execute the command", "no command was given, and the image names none");
    };
    let doing = format!("execute {:?}", name.to_string_lossy());
    match denied {
        Some((error, path)) => explain(doing, error, path),
        None => {
            let searched = !name.to_bytes().contains(&b'/');
            let cause = if searched { "executable file not found in $PATH" } else { "no such file or directory" };
            Error { class: Class::NotFound, doing, cause: cause.to_owned(), hint: None }
        }
    }
}

fn exists(path: &CStr) -> bool {
    fs::lstatat(CWD, path).is_ok()
}

fn explain(doing: String, error: &SysError, path: &CStr) -> Error {
    let failure = |class, cause: String, hint: Option<String>| Error { class, doing: doing.clone(), cause, hint };
    let head = head(path);
    let shown = path.to_string_lossy();
    match error.errno() {
        Errno::NOENT | Errno::NOTDIR => missing_interpreter(&failure, &shown, &head),
        Errno::ACCESS => {
            let (cause, hint) = denied(path);
            failure(Class::NotExecutable, format!("permission denied: {shown} {cause}"), hint)
        }
        Errno::NOEXEC | Errno::LIBBAD | Errno::INVAL => {
            let (cause, hint) = bad_format(&head);
            failure(Class::NotExecutable, format!("exec format error: {shown} {cause}"), hint)
        }
        _ => failure(Class::NotExecutable, error.to_string(), None),
    }
}

/// The file is there and the kernel says that it is not: what is missing is its interpreter.
fn missing_interpreter(failure: &dyn Fn(Class, String, Option<String>) -> Error, shown: &str, head: &[u8]) -> Error {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let interpreter = String::from_utf8_lossy(line);
        if let Some(interpreter) = interpreter.strip_suffix('\r') {
            let cause =
                format!("{shown} asks for the interpreter {:?}: its first line ends in CRLF", interpreter.trim());
            return failure(Class::NotFound, cause, Some(format!("convert it: sed -i 's/\\r$//' {shown}")));
        }
        let cause =
            format!("{shown} asks for the interpreter {:?}, which the image does not have", interpreter.trim());
        return failure(Class::NotFound, cause, None);
    }
    if head.starts_with(b"\x7fELF") {
        let loader = elf_interpreter(head).unwrap_or_else(|| "its dynamic loader".to_owned());
        let cause = format!("{shown} needs {loader}, which the image does not have");
        let hint = "the program is linked dynamically; link it statically or use a base with that C library";
        return failure(Class::NotFound, cause, Some(hint.to_owned()));
    }
    failure(Class::NotFound, format!("{shown}: no such file or directory"), None)
}

fn denied(path: &CStr) -> (String, Option<String>) {
    let Ok(stat) = fs::openat(CWD, path, OFlags::PATH, 0).and_then(|file| fs::fstat(file.as_fd())) else {
        return ("cannot be looked at".to_owned(), None);
    };
    let mode = stat.st_mode & 0o7777;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => ("is a directory".to_owned(), None),
        FileType::RegularFile if mode & 0o111 == 0 => {
            (format!("has mode {mode:04o} and no execute bit"), Some(format!("chmod +x {}", path.to_string_lossy())))
        }
        FileType::RegularFile => (format!("has mode {mode:04o}; is its file system mounted noexec?"), None),
        _ => ("is not a regular file".to_owned(), None),
    }
}

fn bad_format(head: &[u8]) -> (String, Option<String>) {
    const EM_X86_64: u16 = 62;
    const MACHINES: [(u16, &str); 8] = [
        (3, "i386"),
        (40, "arm"),
        (62, "x86_64"),
        (183, "aarch64"),
        (243, "riscv64"),
        (21, "ppc64"),
        (22, "s390x"),
        (258, "loongarch64"),
    ];
    if head.starts_with(b"\x7fELF") && head.len() >= 20 {
        let machine = u16::from_le_bytes([head[18], head[19]]);
        if machine != EM_X86_64 {
            let name =
                MACHINES.iter().find(|known| known.0 == machine).map_or("another architecture", |known| known.1);
            let hint = "use an image for this machine's architecture, linux/amd64";
            return (format!("is built for {name}, and this machine is x86_64"), Some(hint.to_owned()));
        }
        return ("is a damaged ELF file".to_owned(), None);
    }
    if head.is_empty() {
        return ("is empty".to_owned(), None);
    }
    let hint = "a script needs a first line like #!/bin/sh";
    ("is neither a program nor a script with an interpreter line".to_owned(), Some(hint.to_owned()))
}

fn head(path: &CStr) -> Vec<u8> {
    let mut buffer = vec![0u8; 4096];
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let count = fs::openat(CWD, path, flags, 0).ok().and_then(|file| rustix::io::read(&file, &mut buffer).ok());
    buffer.truncate(count.unwrap_or(0));
    buffer
}

/// The PT_INTERP of a 64-bit little-endian ELF file, if it lies in its first page.
fn elf_interpreter(head: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = head.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0usize, |all, byte| all << 8 | usize::from(*byte)))
    };
    let (offset, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let header = (0..count).map(|n| offset + n * size).find(|at| number(*at, 4) == Some(PT_INTERP as usize))?;
    let (start, length) = (number(header + 8, 8)?, number(header + 32, 8)?);
    let text = head.get(start..start.checked_add(length)?)?;
    Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
}
