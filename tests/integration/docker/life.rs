//! A container's life under dockerd: run, exec, logs, stop, kill, pause, update, stats, top, restart, health.

use std::io::Write;

use hull_tests::checks::Checks;
use hull_tests::docker::Docker;
use hull_tests::eventually;
use hull_tests::screen::Screen;

/// Ends at once when it is told to, as a good server does.
const SERVER: &str = "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.05; done";

fn state(docker: &Docker, name: &str, field: &str) -> String {
    docker.ok(&["inspect", "-f", &format!("{{{{.State.{field}}}}}"), name]).trim().to_owned()
}

pub fn all(docker: &Docker, checks: &mut Checks) {
    checks.check("info names the runtime and its commit", || {
        let info = docker.ok(&["info", "-f", "{{.DefaultRuntime}} {{json .RuncCommit}}"]);
        let commit = option_env!("HULL_COMMIT").unwrap_or_default();
        assert!(info.starts_with("hull ") && info.contains(commit), "{info}");
    });
    checks.check("run gives the output and the status", || {
        let said = docker.client(&["run", "--rm", "base", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((said.code, &*said.out, &*said.err), (7, "out\n", "err\n"));
    });
    checks.check("what cannot be executed has Docker's statuses", || {
        for (command, code, words) in [
            ("/no/such", 127, "no such file or directory"),
            ("no-such", 127, "executable file not found in $PATH"),
            ("/etc", 126, "permission denied"),
        ] {
            let said = docker.client(&["run", "--rm", "base", command]);
            assert_eq!(said.code, code, "{said:?}");
            assert!(said.err.contains("OCI runtime create failed") && said.err.contains(words), "{said:?}");
        }
    });
    checks.check("run -it", || on_a_terminal(docker));
    checks.check("run -i", || {
        let mut cat = docker.command(&["run", "--rm", "-i", "base", "cat"]);
        let mut cat = cat.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        cat.stdin.take().unwrap().write_all(b"typed\n").unwrap();
        assert_eq!(cat.wait_with_output().unwrap().stdout, b"typed\n");
    });
    docker.ok(&["run", "-d", "--name", "server", "base", "sh", "-c", SERVER]);
    checks.check("run -d, ps, logs", || {
        eventually("it runs", || docker.ok(&["logs", "server"]) == "up\n");
        assert!(docker.ok(&["ps", "--format", "{{.Names}} {{.Status}}"]).starts_with("server Up "));
    });
    checks.check("exec", || exec(docker));
    checks.check("exec -it", || {
        let script = "echo $(tty)-$(stty size); read line; echo got-$line; exit 4";
        let mut screen = Screen::open(&docker.command(&["exec", "-it", "server", "sh", "-c", script]));
        screen.wait_for("/dev/pts/");
        screen.keyboard.write_all(b"abc\r").unwrap();
        screen.wait_for("got-abc");
        assert_eq!(screen.end().code(), Some(4));
    });
    checks.check("top", || {
        let top = docker.ok(&["top", "server"]);
        assert!(top.lines().count() > 1 && top.contains("while :; do"), "{top}");
    });
    checks.check("pause and unpause", || pause(docker));
    checks.check("update", || update(docker));
    checks.check("stats", || {
        let stats = docker.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "server"]);
        let words: Vec<&str> = stats.split_whitespace().collect();
        assert!(words[0] != "0B" && words[2] == "64MiB" && words[3].parse::<u32>().unwrap() > 0, "{stats}");
    });
    checks.check("restart", || {
        let before = state(docker, "server", "Pid");
        docker.ok(&["restart", "server"]);
        assert!(state(docker, "server", "Pid") != before && state(docker, "server", "Running") == "true");
    });
    checks.check("stop", || {
        // Only once the trap is there.
        eventually("it runs again", || docker.ok(&["logs", "server"]).ends_with("up\n"));
        docker.ok(&["stop", "server"]);
        assert_eq!(state(docker, "server", "ExitCode"), "9");
        assert!(docker.ok(&["logs", "server"]).ends_with("bye\n"));
    });
    checks.check("start, kill, wait", || {
        docker.ok(&["start", "server"]);
        docker.ok(&["kill", "server"]);
        assert_eq!(docker.ok(&["wait", "server"]), "137\n");
        docker.ok(&["rm", "server"]);
    });
    checks.check("health", || {
        let flags = ["--health-cmd", "test -e /tmp/well", "--health-interval", "200ms", "--health-retries", "1000"];
        let command = ["base", "sh", "-c", "sleep 0.5; >/tmp/well; sleep 1000"];
        docker.ok(&[&["run", "-d", "--name", "patient", "--tmpfs", "/tmp"], &flags[..], &command].concat());
        eventually("it is healthy", || state(docker, "patient", "Health.Status") == "healthy");
        docker.ok(&["exec", "patient", "busybox", "rm", "/tmp/well"]);
        docker.ok(&["rm", "-f", "patient"]);
    });
    checks.check("a restart policy", || {
        docker.ok(&["run", "-d", "--name", "again", "--restart", "on-failure:2", "base", "sh", "-c", "exit 3"]);
        let count = || docker.ok(&["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again"]);
        eventually("it was restarted twice", || count() == "2 exited\n");
        docker.ok(&["rm", "again"]);
    });
    checks.check("out of memory", || {
        let eat = "busybox dd if=/dev/zero of=/dev/null bs=64M count=1";
        let said = docker.client(&["run", "--name", "eater", "--memory", "16m", "base", "sh", "-c", eat]);
        assert_eq!((said.code, &*state(docker, "eater", "OOMKilled")), (137, "true"), "{said:?}");
        docker.ok(&["rm", "eater"]);
    });
}

fn on_a_terminal(docker: &Docker) {
    let script = "echo on-$(tty); read line; echo got-$line; until [ \"$(stty size)\" = '24 80' ]; do sleep 0.05; done; \
                  echo sized; exit 3";
    let mut screen = Screen::open(&docker.command(&["run", "--rm", "-it", "base", "sh", "-c", script]));
    screen.wait_for("on-/dev/pts/0");
    screen.keyboard.write_all(b"abc\r").unwrap();
    screen.wait_for("got-abc");
    screen.wait_for("sized");
    assert_eq!(screen.end().code(), Some(3));
}

fn exec(docker: &Docker) {
    let said = docker.client(&["exec", "server", "sh", "-c", "echo in; echo err >&2; exit 3"]);
    assert_eq!((said.code, &*said.out, &*said.err), (3, "in\n", "err\n"));
    let script = "id -u; id -G; echo $A; busybox pwd; grep NoNewPrivs /proc/self/status";
    let flags = ["exec", "-u", "1000:7", "-e", "A=b", "-w", "/etc", "server", "sh", "-c", script];
    assert_eq!(docker.ok(&flags), "1000\n7\nb\n/etc\nNoNewPrivs:\t0\n");
    assert_eq!(docker.client(&["exec", "server", "no-such"]).code, 126);
    docker.ok(&["exec", "-d", "server", "sh", "-c", "echo later > /later"]);
    eventually("a detached one did its work", || {
        docker.client(&["exec", "server", "cat", "/later"]).out == "later\n"
    });
    let caps = docker.ok(&["exec", "--privileged", "server", "grep", "CapEff", "/proc/self/status"]);
    assert_eq!(caps, format!("CapEff:\t{:016x}\n", super::flags::ours()));
}

fn pause(docker: &Docker) {
    docker.ok(&["pause", "server"]);
    assert_eq!(state(docker, "server", "Status"), "paused");
    let said = docker.client(&["exec", "server", "true"]);
    assert!(said.code != 0 && said.err.contains("paused"), "{said:?}");
    docker.ok(&["unpause", "server"]);
    assert_eq!(docker.ok(&["exec", "server", "sh", "-c", "echo again"]), "again\n");
}

fn update(docker: &Docker) {
    docker.ok(&[
        "update",
        "--memory",
        "64m",
        "--memory-swap",
        "128m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "77",
        "server",
    ]);
    let script =
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes pids/pids.max";
    assert_eq!(docker.ok(&["exec", "server", "sh", "-c", script]), "67108864\n134217728\n77\n");
}
