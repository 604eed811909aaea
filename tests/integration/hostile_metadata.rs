//! Rows B9 to B11: what an image says of itself is data, and a word that nobody knows gives nothing.
//!
//! `tests/mutants` has for each row a change of hull with which its test fails.

use std::fs;
use std::process::Command;

use hull_tests::bundle::Bundle;
use hull_tests::scripted::{Scripted, TinyImage, digest, pull};
use hull_tests::{Builder, Said};
use serde_json::{Value, json};

/// In the variables of whoever calls hull, and nowhere else.
const CANARY: &str = "canary-of-the-host";
/// Every variable of every process that can be seen, one a line.
const VARIABLES: &str = "env; for file in /proc/*/environ; do busybox tr '\\0' '\\n' <$file; done";

/// `command` from a caller that has something to hide.
fn with_secrets(mut command: Command) -> Said {
    for name in ["SECRET", "AWS_KEY", "HULL_SECRET", "LD_PRELOAD_", "DUPLICATE"] {
        command.env(name, CANARY);
    }
    command.output().unwrap().into()
}

/// The store's root file system as the image `name`, of which `change` says more.
fn image(store: &Builder, name: &str, change: impl Fn(&mut Value)) {
    let plain = TinyImage::of(&fs::read(store.archive()).unwrap());
    let mut config: Value = serde_json::from_slice(&plain.config).unwrap();
    change(&mut config);
    let image = plain.with_config(config.to_string());
    let registry = Scripted::new(move |asked| image.answer(asked));
    let said = pull(store.corner(), &registry, &["--tls-verify=false"], "a/b:1");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(store.hull(&["tag", &format!("{}/a/b:1", registry.address()), name]).code, 0);
}

/// CVE-2020-14370, CVE-2021-3602, CVE-2026-57231: no name in an image brings a value of the host's, and no process in a
/// container has what hull itself was given.
#[test]
fn b9_an_images_variables_are_literal_and_none_is_the_hosts() {
    let store = Builder::new();
    image(&store, "hostile", |config| {
        config["config"]["Env"] = json!([
            "SECRET",
            "AWS*",
            "*",
            "=x",
            "",
            "HULL_SECRET",
            "PATH=/bin",
            "DUPLICATE=1",
            "DUPLICATE=2",
            "LITERAL=$SECRET",
            "BRACED=${SECRET}",
            "LAST=1"
        ]);
    });
    store.file("Dockerfile", &format!("FROM hostile\nENV COPIED=x$SECRET\nRUN {VARIABLES}\n"));
    let context = store.context().to_string_lossy().into_owned();
    let run =
        |flags: &[&str]| store.command(&[&["run", "--rm"], flags, &["hostile", "sh", "-c", VARIABLES]].concat());
    let build = store.command(&["build", "--no-cache", "-t", "made", &context]);
    for (way, command) in [
        ("run", run(&[])),
        ("run --init", run(&["--init"])),
        ("run --privileged", run(&["--privileged"])),
        ("build", build),
    ] {
        let said = with_secrets(command);
        let told = format!("{}{}", said.out, said.err);
        assert_eq!(said.code, 0, "{way}: {said:?}");
        assert!(!told.contains(CANARY), "{way}: {told}");
        for line in ["DUPLICATE=2", "LITERAL=$SECRET", "BRACED=${SECRET}", "LAST=1"] {
            assert!(told.lines().any(|told| told.trim_start_matches("| ") == line), "{way}: no {line}: {told}");
        }
        assert!(!told.contains("DUPLICATE=1"), "{way}: {told}");
    }
    let said = store.hull(&["run", "--rm", "made", "env"]);
    assert!(said.out.contains("COPIED=x\n"), "{said:?}");
    // What one got, the next does not have.
    let said = store.hull(&["run", "--rm", "-e", "ONLY=here", "hostile", "sh", "-c", "echo $ONLY"]);
    assert_eq!(said.out, "here\n", "{said:?}");
    assert!(!store.hull(&["run", "--rm", "hostile", "env"]).out.contains("ONLY"));

    let bundle = Bundle::new(&format!("{VARIABLES}; exec sleep 100"));
    bundle.change(|spec| spec["process"]["env"] = json!(["PATH=/bin"]));
    let id = bundle.id("exec");
    bundle.start(&id);
    let exec = bundle.command(&["exec", "--env", "MORE=1", &id, "sh", "-c", VARIABLES]);
    let said = with_secrets(exec);
    assert!(said.code == 0 && said.out.contains("MORE=1") && !said.out.contains(CANARY), "{said:?}");
    bundle.ok(&["delete", "--force", &id]);
}

/// What other engines, and hull, take orders from where they stand elsewhere.
fn orders() -> Value {
    json!({
        "hull.program": digest(b"x"),
        "io.hull.privileged": "true",
        "io.hull.image.digest": digest(b"y"),
        "org.opencontainers.image.ref.name": "docker.io/library/alpine:latest",
        "io.containerd.image.name": "docker.io/library/alpine:latest",
        "containerd.io/restart.loguri": "binary:///bin/touch?/tmp/b10",
        "containerd.io/restart.status": "running",
        "io.podman.annotations.privileged": "TRUE",
        "io.podman.annotations.seccomp": "unconfined",
        "io.podman.annotations.autoremove": "TRUE",
        "io.containers.autoupdate": "registry",
        "io.containers.capabilities": "sys_admin",
        "io.kubernetes.cri-o.userns-mode": "host",
        "io.kubernetes.cri-o.Devices": "/dev/mem",
        "org.systemd.property.ExecStartPre": "'/bin/touch /tmp/b10'",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.criu.config": "/etc/passwd",
        "org.opencontainers.runc.exec.isolated-cpu-affinity-transition": "temporary",
        "run.oci.hooks.stderr": "/tmp/b10",
        "run.oci.keep_original_groups": "1",
        "run.oci.seccomp.receiver": "/tmp/b10",
        "run.oci.mount_context_type": "context",
        "cdi.k8s.io/all": "vendor.com/device=all",
        "RUN": "docker run --privileged -v /:/host IMAGE",
    })
}

/// CVE-2026-53488, CVE-2023-6476, CVE-2024-3154: labels, annotations and parts of a configuration that images do not have
/// are listed or left alone; a container is the same with and without them.
#[test]
fn b10_what_an_image_says_of_itself_is_data() {
    let store = Builder::new();
    image(&store, "plain", |_| ());
    image(&store, "hostile", |config| {
        let whole = json!({
            "Labels": orders(), "Annotations": orders(), "Privileged": true, "SecurityOpt": ["seccomp=unconfined"],
            "HostConfig": {"Privileged": true, "Binds": ["/:/host"], "CapAdd": ["ALL"]}, "Hostname": "hostile",
            "hooks": {"prestart": [{"path": "/bin/touch", "args": ["touch", "/tmp/b10"]}]},
            "CapAdd": ["ALL"], "NetworkDisabled": false, "Devices": [{"PathOnHost": "/dev/mem"}],
        });
        for key in ["annotations", "labels"] {
            config[key] = orders();
        }
        for key in ["hooks", "HostConfig", "mounts", "linux", "process", "container_config"] {
            config[key] = whole.clone();
        }
        let config = config["config"].as_object_mut().unwrap();
        config.extend(whole.as_object().unwrap().clone());
    });
    let planned = |name: &str| {
        let said = store.hull(&["run", "--dry-run", "--hostname", "h", name, "true"]);
        assert_eq!(said.code, 0, "{said:?}");
        // The keyring has the container's id for its name.
        let same = |line: &&str| !line.starts_with("keyring ");
        let plan: Vec<&str> = said.out.lines().filter(same).collect();
        plan.join("\n").replacen(&format!("image {name}"), "image", 1)
    };
    assert_eq!(planned("hostile"), planned("plain"));
    let script = "grep -E '^(Cap|Seccomp|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status; busybox cut -d' ' -f 4-6 \
                  /proc/self/mountinfo; ls /dev; cat /proc/self/cgroup; hostname";
    let contained = |name: &str| {
        let said = store.hull(&["run", "--rm", "--hostname", "h", name, "sh", "-c", script]);
        assert_eq!(said.code, 0, "{said:?}");
        // Each container has folders of its own.
        said.out.lines().filter(|line| !line.contains("/hull-")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(contained("hostile"), contained("plain"));
    let said = store.build_with(&["--no-cache"], &format!("FROM hostile\nRUN {script}\n"));
    assert!(said.code == 0 && !format!("{said:?}").contains("/host "), "{said:?}");
    assert!(!fs::exists("/tmp/b10").unwrap());
    let inspected: Value = serde_json::from_str(&store.hull(&["inspect", "hostile"]).out).unwrap();
    assert_eq!(inspected[0]["Config"]["Labels"], orders());
    let built: Value = serde_json::from_str(&store.hull(&["inspect", "made"]).out).unwrap();
    assert_eq!(built[0]["Config"]["Labels"], orders());
    let images = store.hull(&["images"]).out;
    assert!(!images.contains("alpine"), "{images}");
}

/// The annotations of an archive's index give a name where names are asked for, and say of no registry that it has it.
#[test]
fn b10_an_archives_annotations_are_no_word_of_a_registrys() {
    let store = Builder::new();
    let folder = store.corner().path().join("layout");
    let path = folder.to_string_lossy().into_owned();
    assert_eq!(store.hull(&["save", "--format", "oci-dir", "-o", &path, "base"]).code, 0);
    let index = folder.join("index.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    for entry in document["manifests"].as_array_mut().unwrap() {
        let all = entry["annotations"].as_object_mut().unwrap();
        all.extend(orders().as_object().unwrap().clone());
        for name in ["org.opencontainers.image.ref.name", "io.containerd.image.name"] {
            all.insert(name.to_owned(), "docker.io/library/claimed:1".into());
        }
    }
    fs::write(&index, document.to_string()).unwrap();
    let said = store.hull(&["load", "-i", &path]);
    assert_eq!(said.code, 0, "{said:?}");
    let inspected: Value = serde_json::from_str(&store.hull(&["inspect", "claimed:1"]).out).unwrap();
    assert_eq!(inspected[0]["RepoDigests"], json!([]), "{inspected}");
    let kept = fs::read_to_string(store.root().join("index.json")).unwrap();
    for name in ["io.hull.privileged", "run.oci", "org.systemd", "io.hull.image.digest"] {
        assert!(!kept.contains(name), "{name} is kept: {kept}");
    }
}

/// What a command's process says of its own rights.
const RIGHTS: &str = "grep -E '^(CapBnd|Seccomp):' /proc/self/status";

/// Moby's and BuildKit's CVE-2024-23653: a word that is not known is an error, never the open case.
#[test]
fn b11_a_word_that_is_not_known_is_refused() {
    let store = Builder::new();
    for flags in [
        &["--security-opt", "seccomp=Unconfined"][..],
        &["--security-opt", "seccomp=none"],
        &["--security-opt", "seccomp="],
        &["--security-opt", "seccomp"],
        &["--security-opt", "unconfined"],
        &["--security-opt", "no-new-privileges=maybe"],
        &["--security-opt", "systempaths=Unconfined"],
        &["--security-opt", "none=1"],
        &["--security-opt", ""],
        &["--network", "Host"],
        &["--network", "hosts"],
        &["--cap-add", "EVERYTHING"],
        &["--cap-drop", "EVERYTHING"],
        &["--pull", "sometimes"],
        &["--mount", "type=Bind,source=/,target=/x"],
        &["--mount", "type=bind,source=/etc,target=/x,bind-propagation=open"],
        &["--mount", "type=bind,source=/etc,target=/x,readonly=perhaps"],
        &["-v", "/etc:/x:readonly"],
        &["--tmpfs", "/x:execute"],
        &["--ulimit", "everything=1"],
        &["--privileged=perhaps"],
    ] {
        let said = store.corner().run(flags, &["echo", "started"]);
        assert!(said.code == 125 && said.out.is_empty() && !said.err.is_empty(), "{flags:?}: {said:?}");
    }
    for step in [
        "RUN --security=open true",
        "RUN --security=insecure true",
        "RUN --network=open true",
        "RUN --mount=type=open,target=/x true",
        "RUN --mount=type=bind,source=.,target=/x,rights=all true",
        "RUN --open true",
        "FROM --open base",
        "COPY --open Dockerfile /",
    ] {
        let said = store.build(&format!("FROM base\n{step}\n"));
        assert!(said.code != 0 && said.err.starts_with("hull: "), "{step}: {said:?}");
    }

    let bundle = Bundle::new("echo started");
    let config = bundle.corner.path().join("config.json");
    let before = fs::read_to_string(&config).unwrap();
    for (pointer, value) in [
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_OPEN"})),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_OPEN"]})),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "allow"}]}),
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                   "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_ABOUT"}]}]}),
        ),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ERRNO", "flags": ["SECCOMP_FILTER_FLAG_OPEN"]})),
        ("/linux/namespaces/0/type", json!("pids")),
        ("/linux/rootfsPropagation", json!("open")),
        ("/linux/resources/devices/0/access", json!("a")),
        ("/linux/resources/devices/0/type", json!("x")),
        ("/process/noNewPrivileges", json!("yes")),
        ("/process/rlimits/0/type", json!("RLIMIT_EVERYTHING")),
        ("/root/readonly", json!("yes")),
        ("/mounts/1/options", json!(["nosuid", "no-execute"])),
    ] {
        let mut spec: Value = serde_json::from_str(&before).unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match spec.pointer_mut(parent).unwrap_or_else(|| panic!("{parent}")) {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value.clone(),
            other => other[key] = value.clone(),
        }
        fs::write(&config, spec.to_string()).unwrap();
        let said = bundle.oci(&["run", "-b", ".", &bundle.id("run")]);
        assert!(said.code != 0 && !said.out.contains("started"), "{pointer} = {value}: {said:?}");
    }
    // One that there is not is not granted; the specification wants a warning.
    let mut spec: Value = serde_json::from_str(&before).unwrap();
    spec["process"]["args"] = json!(["sh", "-c", RIGHTS]);
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_EVERYTHING"]);
    }
    fs::write(&config, spec.to_string()).unwrap();
    let said = bundle.oci(&["run", "-b", ".", &bundle.id("run")]);
    assert!(said.code == 0 && said.out.starts_with("CapBnd:\t0000000000000020\n"), "{said:?}");
}

/// Nothing but the words that say so takes a guard away.
#[test]
fn b11_no_other_wish_takes_a_guard_away() {
    // Podman's eleven, by their numbers in capability.h.
    let bounding = [0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31].iter().fold(0u64, |all, number| all | 1 << number);
    let rights = format!("CapBnd:\t{bounding:016x}\nSeccomp:\t2\n");
    let store = Builder::new();
    let volume = format!("{}:/data", store.context().display());
    let wishes: [&[&str]; 14] = [
        &["--init"],
        &["-i"],
        &["-u", "1000"],
        &["--network", "host"],
        &["-v", &volume],
        &["--tmpfs", "/t"],
        &["--read-only"],
        &["--pids-limit", "-1"],
        &["--memory", "64m"],
        &["--ulimit", "nofile=10"],
        &["--security-opt", "no-new-privileges"],
        &["--security-opt", "apparmor=unconfined"],
        &["--security-opt", "seccomp=builtin"],
        &["-w", "/bin"],
    ];
    let mut sets: Vec<Vec<&str>> = vec![Vec::new(), wishes.concat()];
    sets.extend(wishes.iter().map(|wish| wish.to_vec()));
    for flags in sets {
        let said = store.corner().shell(&flags, RIGHTS);
        assert_eq!(said.out, rights, "{flags:?}: {said:?}");
    }
    for step in [format!("RUN {RIGHTS}"), format!("USER 1000\nRUN {RIGHTS}")] {
        let said = store.build_with(&["--no-cache"], &format!("FROM base\n{step}\n"));
        let told = format!("{}{}", said.out, said.err);
        assert!(said.code == 0 && rights.lines().all(|line| told.contains(line)), "{step}: {told}");
    }
    // The words that do are seen by the same look.
    for flags in [&["--privileged"][..], &["--security-opt", "seccomp=unconfined"], &["--cap-add", "NET_ADMIN"]] {
        assert_ne!(store.corner().shell(flags, RIGHTS).out, rights, "{flags:?}");
    }
}
