//! RUN on the real kernel, in a root of busybox. These tests need root and busybox-static.
//!
//! A container is cloned from a process with one thread, and the usual test harness has two.

use std::ffi::CString;
use std::fs as files;

use hull_build::graph::RunAction;
use hull_build::progress::{Plain, Progress};
use hull_build::run::run;
use hull_build::{BuildOptions, Result, StoreWorker, build};
use hull_image::{ImportOptions, Store};

#[derive(Default)]
struct Heard(Vec<u8>);

impl Progress for Heard {
    fn begin(&mut self, _label: &str, _text: &str) {}
    fn cached(&mut self, _label: &str, _text: &str) {}
    fn output(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
    }
    fn done(&mut self, _label: &str, _took: std::time::Duration) {}
    fn note(&mut self, _text: &str) {}
}

struct Case {
    root: tempfile::TempDir,
    runroot: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let folder = |name: &str| tempfile::Builder::new().prefix(name).tempdir().unwrap();
        let case = Self { root: folder("hull-test-run-root-"), runroot: folder("hull-test-run-state-") };
        files::create_dir(case.root.path().join("bin")).unwrap();
        files::copy("/bin/busybox", case.root.path().join("bin/busybox")).expect("busybox-static is installed");
        std::os::unix::fs::symlink("busybox", case.root.path().join("bin/sh")).unwrap();
        case
    }

    fn run(&self, script: &str, env: &[(&str, &str)]) -> (Result<i32>, String) {
        let path = CString::new(self.root.path().to_str().unwrap()).unwrap();
        let root = hull_sys::mount::clone_tree(&path, false).unwrap();
        let action = RunAction {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            workdir: "/".into(),
            user: String::new(),
        };
        let mut heard = Heard::default();
        let status = run(self.runroot.path(), root, &action, &mut heard);
        (status, String::from_utf8(heard.0).unwrap())
    }
}

/// A store with the image `base`: busybox and nothing else; a context with two files.
struct Builder {
    folder: tempfile::TempDir,
    store: Store,
}

impl Builder {
    fn new(dockerfile: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("hull-test-build-").tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_path_with_name("/bin/busybox", "bin/busybox").expect("busybox-static is installed");
        for applet in ["sh", "cat", "mkdir", "ls", "ln", "rm", "test", "id", "dd"] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            tar.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
        }
        let tar = tar.into_inner().unwrap();
        store.import(&tar[..], &"base".parse().unwrap(), ImportOptions::default()).unwrap();
        let builder = Self { folder, store };
        for (name, text) in [("Dockerfile", dockerfile), ("a", "one"), ("b", "two")] {
            builder.write(name, text);
        }
        builder
    }

    fn write(&self, name: &str, text: &str) {
        let context = self.folder.path().join("context");
        files::create_dir_all(&context).unwrap();
        files::write(context.join(name), text).unwrap();
    }

    fn build(&self, change: impl FnOnce(&mut BuildOptions)) -> (Result<String>, String) {
        let mut options = BuildOptions {
            context: self.folder.path().join("context"),
            tags: vec!["made:1".parse().unwrap(), "made:2".parse().unwrap()],
            ..BuildOptions::default()
        };
        change(&mut options);
        let mut worker = StoreWorker::new(&self.store, &self.folder.path().join("run"));
        let mut told = Vec::new();
        let built = build(&mut worker, &options, &mut Plain::new(&mut told));
        (built.map(|built| built.image), String::from_utf8(told).unwrap())
    }

    /// Nothing is being made any more, and no step's folder is left.
    fn assert_clean(&self) {
        let count = |path: &str| files::read_dir(self.folder.path().join(path)).map_or(0, Iterator::count);
        assert_eq!((count("store/staging"), count("run/containers")), (0, 0));
    }
}

const FIVE: &str =
    "FROM base\nWORKDIR /w\nCOPY a .\nRUN cat a >made && test ! -e /w/none\nCOPY b /b\nCMD [\"cat\", \"/b\"]\n";

hull_tests::alone! {
    fn a_command_writes_its_files_and_its_status_and_output_come_back() {
        let case = Case::new();
        let (status, output) =
            case.run("echo $A; echo no >&2; echo x >/made; exit 3", &[("A", "given"), ("PATH", "/bin")]);
        assert_eq!(status.unwrap(), 3);
        assert_eq!(output, "given\nno\n");
        assert_eq!(files::read_to_string(case.root.path().join("made")).unwrap(), "x\n");
        let left: Vec<_> = files::read_dir(case.runroot.path().join("containers")).unwrap().collect();
        assert!(left.is_empty(), "the step's folder is gone");
    }

    fn mount_points_that_the_image_lacked_are_not_left_in_it() {
        let case = Case::new();
        assert_eq!(case.run("busybox test -d /proc/1", &[("PATH", "/bin")]).0.unwrap(), 0);
        let mut left: Vec<_> =
            files::read_dir(case.root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert!(!left.iter().any(|name| ["proc", "sys", "dev"].contains(&name.to_str().unwrap())), "{left:?}");
        assert!(!case.root.path().join("etc/resolv.conf").exists());
    }

    fn a_command_that_swaps_etc_for_a_symlink_makes_hull_remove_nothing_outside() {
        let case = Case::new();
        let outside = tempfile::Builder::new().prefix("hull-test-outside-").tempdir().unwrap();
        for name in ["hosts", "hostname", "resolv.conf"] {
            files::write(outside.path().join(name), "").unwrap();
        }
        let script = format!(
            "busybox mkdir /other; busybox ln -s {} /new; busybox mv /etc /old; busybox ln -s {0} /etc",
            outside.path().display()
        );
        let (_status, _output) = case.run(&script, &[("PATH", "/bin")]);
        assert_eq!(files::read_dir(outside.path()).unwrap().count(), 3);
    }

    fn nothing_of_our_environment_and_no_input_reaches_a_command() {
        let case = Case::new();
        let (_, output) = case.run(
            "busybox env; busybox readlink /proc/self/fd/0; busybox ls /proc/self/fd | busybox wc -l",
            &[("PATH", "/bin"), ("B", "1")],
        );
        let mut names: Vec<&str> = output.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        names.sort_unstable();
        for name in &names {
            assert!(["B", "HOME", "HOSTNAME", "PATH", "PWD", "SHLVL", "OLDPWD"].contains(name), "{output}");
        }
        assert!(output.contains("/dev/null"), "{output}");
    }

    fn a_build_makes_an_image_that_is_the_same_when_it_is_built_again() {
        let builder = Builder::new(FIVE);
        let (first, told) = builder.build(|_| {});
        let first = first.unwrap_or_else(|error| panic!("{error}\n{told}"));
        builder.assert_clean();
        for name in ["made:1", "made:2"] {
            let image = builder.store.find(name).unwrap().expect("the image has its name");
            assert_eq!(image.id.to_string(), first);
            assert_eq!(image.diff_ids().len(), 5, "the base, WORKDIR, COPY, RUN, COPY");
        }
        let begun = std::time::Instant::now();
        let (second, told) = builder.build(|_| {});
        println!("a cached build of five steps took {:?}", begun.elapsed());
        assert_eq!(second.unwrap(), first);
        assert_eq!(told.matches("CACHED").count(), 4, "{told}");
        builder.write("b", "other");
        let (third, told) = builder.build(|_| {});
        assert_ne!(third.unwrap(), first);
        assert_eq!(told.matches("CACHED").count(), 3, "{told}");
        assert_eq!(hull_build::store::cached_layers(&builder.store).unwrap().len(), 5);
    }

    fn an_export_is_the_file_system_and_the_image_is_kept() {
        let builder = Builder::new(FIVE);
        let out = builder.folder.path().join("out");
        builder.build(|options| options.output = Some(out.clone())).0.unwrap();
        assert_eq!(files::read_to_string(out.join("w/made")).unwrap(), "one");
        assert_eq!(files::read_link(out.join("bin/sh")).unwrap().to_str(), Some("busybox"));
        assert!(!out.join("proc").exists() && !out.join("etc/resolv.conf").exists());
        assert!(builder.store.find("made:1").unwrap().is_some());
    }

    fn a_failing_command_is_told_with_its_line_and_leaves_nothing() {
        let builder = Builder::new("FROM base\nRUN echo heard; exit 42\n");
        let (result, told) = builder.build(|_| {});
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), 42);
        let text = error.to_string();
        assert!(
            text.contains("Dockerfile:2:1") && text.contains("status 42") && told.contains("heard\n"),
            "{text}\n{told}"
        );
        builder.assert_clean();
        assert!(builder.store.find("made:1").unwrap().is_none());
    }

    fn a_command_that_is_not_there_is_told_with_its_line() {
        let builder = Builder::new("FROM base\nRUN [\"/none\"]\n");
        let text = builder.build(|_| {}).0.unwrap_err().to_string();
        assert!(text.contains("Dockerfile:2:1") && text.contains("/none"), "{text}");
        builder.assert_clean();
    }

    fn steps_run_as_the_user_in_the_folder_with_the_environment_of_the_file() {
        let text = "FROM base\nARG V=x\nENV E=y\nWORKDIR /d\nUSER 1000:1001\nWORKDIR sub\n\
                    RUN test \"$(id -u):$(id -g) $PWD $V$E\" = \"1000:1001 /d/sub xy\" && echo >mine\n";
        let (result, told) = Builder::new(text).build(|_| {});
        result.unwrap_or_else(|error| panic!("{error}\n{told}"));
    }

    fn a_multi_stage_build_copies_between_stages_and_builds_no_other() {
        let text = "FROM base AS one\nRUN mkdir /o; echo 1 >/o/x; ln -s /o/x /o/l; ln -s / /o/root\n\
                    FROM base AS never\nRUN exit 9\n\
                    FROM scratch\nCOPY --from=one --chown=7:8 /o /p\nCOPY --from=base /bin/busybox /bb\n";
        let builder = Builder::new(text);
        let out = builder.folder.path().join("out");
        let (result, told) = builder.build(|options| options.output = Some(out.clone()));
        result.unwrap_or_else(|error| panic!("{error}\n{told}"));
        assert_eq!(files::read_to_string(out.join("p/x")).unwrap(), "1\n");
        assert_eq!(files::read_link(out.join("p/root")).unwrap().to_str(), Some("/"));
        assert!(out.join("bb").exists());
        use std::os::unix::fs::MetadataExt;
        let owner = files::metadata(out.join("p/x")).unwrap();
        assert_eq!((owner.uid(), owner.gid()), (7, 8));
    }

    fn an_image_that_is_not_in_the_store_is_told_with_its_line() {
        let error = Builder::new("FROM nowhere:1\n").build(|_| {}).0.unwrap_err();
        assert!(error.to_string().contains("Dockerfile:1:6"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("hull pull nowhere:1")));
    }
}

fn main() {
    hull_sys::exe::seal().expect("a process that may do it");
    std::process::exit(hull_tests::alone::main(&[("run", TESTS)]));
}
