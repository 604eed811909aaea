//! The context on real folders: what is found, what is not, what a hash sees.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn context(files: &[(&str, &str)]) -> (tempfile::TempDir, Context) {
    let folder = tempfile::Builder::new().prefix("hull-test-context-").tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut context = Context::open(folder.path()).unwrap();
    context.read_ignore(&folder.path().join("Dockerfile")).unwrap();
    (folder, context)
}

fn found(context: &Context, source: &str) -> Vec<String> {
    context.find(source).map_err(|p| p.message).unwrap().into_iter().map(|found| found.path).collect()
}

#[test]
fn sources_are_found_by_path_and_by_pattern() {
    let (_folder, context) =
        context(&[("a.txt", ""), ("b.txt", ""), ("d/x.txt", ""), ("d/e/y.txt", ""), (".h.txt", "")]);
    assert_eq!(found(&context, "/a.txt"), ["a.txt"]);
    assert_eq!(found(&context, "./d//e/../x.txt"), ["d/x.txt"]);
    assert_eq!(found(&context, "*.txt"), [".h.txt", "a.txt", "b.txt"]);
    assert_eq!(found(&context, "*/[w-y]*.txt"), ["d/x.txt"]);
    assert_eq!(found(&context, "."), [""]);
}

#[test]
fn a_source_that_is_not_there_is_named_with_its_neighbour() {
    let (folder, context) = context(&[("requirements.txt", "")]);
    let problem = context.find("requirments.txt").err().unwrap();
    assert_eq!(problem.message, format!("requirments.txt is not in the build context {}", folder.path().display()));
    assert_eq!(problem.hint.as_deref(), Some("did you mean requirements.txt?"));
    assert!(context.find("no*").is_err());
}

#[test]
fn nothing_outside_the_context_is_found() {
    let outside = tempfile::Builder::new().prefix("hull-test-outside-").tempdir().unwrap();
    fs::write(outside.path().join("secret"), "s").unwrap();
    let (folder, context) = context(&[("in", "")]);
    symlink(outside.path(), folder.path().join("abs")).unwrap();
    symlink("../../../../../../etc", folder.path().join("up")).unwrap();
    symlink("/in", folder.path().join("rooted")).unwrap();
    for source in ["../x", "a/../../x", "abs/secret", "up/passwd", "abs", "up/*"] {
        let problem = context.find(source).err().unwrap_or_else(|| panic!("{source} was found"));
        assert!(problem.message.starts_with(source), "{}", problem.message);
    }
    assert!(context.find("../x").err().unwrap().message.contains("outside"));
    assert_eq!(found(&context, "rooted"), ["rooted"], "an absolute symlink is resolved inside the context");
}

#[test]
fn a_fifo_is_refused_and_does_not_hang() {
    let (folder, context) = context(&[]);
    rustix::fs::mknodat(CWD, folder.path().join("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(context.find("fifo").err().unwrap().message.contains("neither a file nor a folder"));
}

#[test]
fn an_ignored_file_is_not_found_and_the_rule_is_told() {
    let (_folder, context) = context(&[("a.md", ""), ("k/secret", ""), (".dockerignore", "x\n*.md\nk\n")]);
    let problem = context.find("a.md").err().unwrap();
    assert_eq!(problem.hint.as_deref(), Some("line 2 of .dockerignore excludes it: *.md"));
    assert!(context.find("k/secret").is_err());
    assert!(context.find("k/*").is_err());
}

#[test]
fn a_symlink_to_an_ignored_file_does_not_bring_it_back() {
    let (folder, context) = context(&[("k/secret", ""), (".dockerignore", "k\n")]);
    symlink("k/secret", folder.path().join("link")).unwrap();
    assert!(context.find("link").is_err());
}

#[test]
fn the_ignore_file_beside_the_dockerfile_comes_first_and_a_symlink_is_refused() {
    let (folder, _) = context(&[("a", ""), ("b", ""), (".dockerignore", "a\n"), ("Other.dockerignore", "b\n")]);
    let mut context = Context::open(folder.path()).unwrap();
    context.read_ignore(&folder.path().join("Other")).unwrap();
    assert!(context.find("a").is_ok() && context.find("b").is_err());
    fs::remove_file(folder.path().join(".dockerignore")).unwrap();
    symlink("/etc/passwd", folder.path().join(".dockerignore")).unwrap();
    let error = context.read_ignore(&folder.path().join("Dockerfile")).unwrap_err();
    assert!(error.to_string().contains("must not be a symlink"), "{error}");
}

#[test]
fn a_hash_changes_if_and_only_if_the_copy_would() {
    let (folder, context) =
        context(&[("d/a", "1"), ("d/sub/b", "2"), ("d/skip", "3"), (".dockerignore", "d/skip\n")]);
    symlink("a", folder.path().join("d/link")).unwrap();
    let digest = || context.digest("d").map_err(|p| p.message).unwrap();
    let first = digest();
    fs::write(folder.path().join("d/skip"), "changed").unwrap();
    fs::write(folder.path().join("other"), "not named").unwrap();
    let file = fs::File::options().write(true).open(folder.path().join("d/a")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(digest(), first, "neither ignored files, nor others, nor times count");
    let mut seen = vec![first];
    let mut changes = |what: &str, digest: String| {
        assert!(!seen.contains(&digest), "{what}");
        seen.push(digest);
    };
    fs::write(folder.path().join("d/a"), "x").unwrap();
    changes("data", digest());
    fs::set_permissions(folder.path().join("d/a"), fs::Permissions::from_mode(0o755)).unwrap();
    changes("mode", digest());
    fs::remove_file(folder.path().join("d/link")).unwrap();
    symlink("sub/b", folder.path().join("d/link")).unwrap();
    changes("link target", digest());
    fs::rename(folder.path().join("d/sub/b"), folder.path().join("d/sub/c")).unwrap();
    changes("name", digest());
    fs::create_dir(folder.path().join("d/empty")).unwrap();
    changes("an empty folder", digest());
}

#[test]
fn a_file_taken_back_brings_its_folders_and_nothing_else() {
    let (_folder, context) =
        context(&[("d/x/keep", "1"), ("d/x/drop", "2"), ("d/y/drop", "3"), (".dockerignore", "d\n!d/x/keep\n")]);
    let dest = tempfile::Builder::new().prefix("hull-test-dest-").tempdir().unwrap();
    let root = Root::from_fd(fs::File::open(dest.path()).unwrap().into());
    let mut copier = crate::copy::Copier::new(&root, crate::copy::Look::default());
    for found in &context.find("d").map_err(|p| p.message).unwrap() {
        copier.copy(found, &context.filter(found), "/o", false).unwrap();
    }
    assert!(dest.path().join("o/x/keep").exists());
    assert!(!dest.path().join("o/x/drop").exists() && !dest.path().join("o/y").exists());
}

#[test]
fn an_excluded_folder_without_anything_taken_back_is_not_there() {
    let (_folder, context) = context(&[("k/secret", ""), ("d/keep", ""), (".dockerignore", "k\nd\n!d/keep\n")]);
    assert!(context.find("k").is_err());
    assert_eq!(found(&context, "d"), ["d"]);
    assert_eq!(found(&context, "*"), [".dockerignore", "d"]);
}
