//! What Docker's flags become: limits, namespaces shared with others, mounts, rights, networks.

use hull_tests::checks::Checks;
use hull_tests::docker::Docker;
use hull_tests::eventually;

/// What a shell in a container with these flags says.
fn shell(docker: &Docker, flags: &[&str], script: &str) -> String {
    docker.ok(&[&["run", "--rm"], flags, &["base", "sh", "-c", script]].concat())
}

/// All capabilities that Docker 20.10 knows, of those that this machine has.
pub fn ours() -> u64 {
    const KNOWN: u64 = (1 << 38) - 1;
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = own.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & KNOWN
}

pub fn all(docker: &Docker, checks: &mut Checks) {
    checks.check("limits", || limits(docker));
    checks.check("--init", || {
        let all = shell(docker, &["--init"], "ps");
        assert!(all.contains("1 root     /sbin/docker-init -- sh"), "{all}");
    });
    checks.check("--pid, --ipc, --network and --uts of another and of the host", || namespaces(docker));
    checks.check("--cgroupns private", || {
        let groups = shell(docker, &["--cgroupns", "private"], "cat /proc/self/cgroup");
        assert!(groups.lines().all(|line| line.ends_with(":/")), "{groups}");
    });
    checks.check("mounts", || mounts(docker));
    checks.check("--user, --group-add, --workdir, --hostname, --sysctl", || {
        let flags = ["--user", "1000:1000", "--group-add", "44", "-w", "/new/dir", "--hostname", "named"];
        let sysctls = ["--sysctl", "net.ipv4.ip_forward=0", "--sysctl", "kernel.msgmax=1000"];
        let script = "id -u; id -G; busybox pwd; hostname; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax";
        let said = shell(docker, &[&flags[..], &sysctls].concat(), script);
        assert_eq!(said, "1000\n1000 44\n/new/dir\nnamed\n0\n1000\n");
    });
    checks.check("capabilities", || {
        let caps = |flags: &[&str]| {
            let text = shell(docker, flags, "grep CapEff /proc/self/status");
            u64::from_str_radix(text.trim().trim_start_matches("CapEff:").trim(), 16).unwrap()
        };
        assert_eq!(caps(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]), 1 << 12);
        // Docker's fourteen.
        assert_eq!(caps(&[]), 0xa804_25fb);
        assert_eq!(caps(&["--privileged"]), ours());
    });
    checks.check("Docker's seccomp profile", || {
        let script = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; unshare -U true; unshare -n true";
        let said = docker.client(&["run", "--rm", "base", "sh", "-c", script]);
        assert_eq!((said.code, &*said.out), (1, "NoNewPrivs:\t0\nSeccomp:\t2\n"));
        assert_eq!(said.err.matches("Operation not permitted").count(), 2, "{said:?}");
        let flags = ["--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined"];
        assert_eq!(
            shell(docker, &flags, "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status"),
            "NoNewPrivs:\t1\nSeccomp:\t0\n"
        );
    });
    checks.check("devices", || devices(docker));
    checks.check("the bridge", || bridge(docker));
}

fn limits(docker: &Docker) {
    let flags = "--memory 64m --memory-reservation 32m --memory-swap 64m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 \
                 --pids-limit 33 --oom-score-adj 300 --ulimit nofile=100:200 --shm-size 32m";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes \
                  memory/memory.memsw.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares cpuset/cpuset.cpus \
                  pids/pids.max /proc/self/oom_score_adj; ulimit -Sn; ulimit -Hn; busybox df -k /dev/shm";
    let said = shell(docker, &flags, script);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[..10],
        ["67108864", "33554432", "67108864", "50000", "512", "0", "33", "300", "100", "200"],
        "{said}"
    );
    assert!(said.contains("shm                      32768"), "{said}");
}

fn namespaces(docker: &Docker) {
    docker.ok(&["run", "-d", "--name", "first", "--ipc", "shareable", "base", "sleep", "1000"]);
    // Three links as one line: what the other has.
    let script = "for kind in pid ipc net uts; do busybox readlink /proc/self/ns/$kind; done";
    let first = docker.ok(&["exec", "first", "sh", "-c", script]);
    let of = |flags: &[&str]| -> Vec<bool> {
        shell(docker, flags, script).lines().zip(first.lines()).map(|(own, other)| own == other).collect()
    };
    assert_eq!(
        of(&["--pid", "container:first", "--ipc", "container:first", "--network", "container:first"]),
        [true, true, true, false]
    );
    assert_eq!(of(&["--pid", "container:first"]), [true, false, false, false]);
    assert_eq!(shell(docker, &["--pid", "container:first"], "ps").matches("sleep 1000").count(), 1);
    docker.ok(&["rm", "-f", "first"]);
    let world = |kind: &str| docker.world.command("readlink").arg(format!("/proc/self/ns/{kind}")).output().unwrap();
    let flags = ["--pid", "host", "--ipc", "host", "--network", "host", "--uts", "host"];
    let host: String =
        ["pid", "ipc", "net", "uts"].map(|kind| String::from_utf8(world(kind).stdout).unwrap()).concat();
    assert_eq!(shell(docker, &flags, script), host);
    // Without a PID namespace the kernel does not end the others with the first: `kill --all` does.
    shell(docker, &["--pid", "host"], "sleep 4321 & exit 0");
    let all = docker.world.command("ps").args(["-eo", "args"]).output().unwrap();
    assert!(!String::from_utf8(all.stdout).unwrap().contains("sleep 4321"));
    assert!(shell(docker, &["--network", "none"], "ip addr").lines().all(|line| !line.contains("eth0")));
}

fn mounts(docker: &Docker) {
    let folder = docker.path("lent");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("file"), "content\n").unwrap();
    let lent = format!("{}:/lent:ro", folder.display());
    let script = "cat /lent/file; touch /lent/x /new 2>&1 | grep -c Read-only; echo kept > /vol/file; echo hi > /t/file; \
                  stat -c %a /t; grep -c ' /t tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k' /proc/mounts";
    let flags = ["--read-only", "-v", &lent, "-v", "kept:/vol", "--tmpfs", "/t:size=1m"];
    assert_eq!(shell(docker, &flags, script), "content\n2\n1777\n1\n");
    assert_eq!(shell(docker, &["-v", "kept:/vol"], "cat /vol/file"), "kept\n");
    docker.ok(&["volume", "rm", "kept"]);
}

fn devices(docker: &Docker) {
    let script = "stat -c '%t:%T' /dev/mine; head -c 1 /dev/mine | busybox wc -c; echo x > /dev/mine";
    let run = |access: &str| {
        let device = format!("/dev/full:/dev/mine:{access}");
        docker.client(&["run", "--rm", "--device", &device, "base", "sh", "-c", script])
    };
    let said = run("rw");
    assert!(said.out == "1:7\n1\n" && said.err.contains("No space left"), "{said:?}");
    // What is always allowed is so, whatever is said of it; another device is not.
    let said = docker.client(&["run", "--rm", "base", "sh", "-c", "mknod /kmsg c 1 11; head -c 1 /kmsg"]);
    assert!(said.err.contains("Operation not permitted"), "{said:?}");
    let kmsg = ["--device", "/dev/kmsg", "--cap-add", "SYSLOG"];
    assert_eq!(shell(docker, &kmsg, "head -c 1 /dev/kmsg | busybox wc -c"), "1\n");
}

fn bridge(docker: &Docker) {
    let serve = "echo hello > /hello; busybox httpd -f -p 80 -h /";
    docker.ok(&["run", "-d", "--name", "web", "-p", "8080:80", "base", "sh", "-c", serve]);
    let address = docker.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]);
    let fetch = format!("until busybox wget -q -O - http://{}/hello; do sleep 0.05; done", address.trim());
    assert_eq!(shell(docker, &[], &fetch), "hello\n");
    // By the port that is published on the world's own loopback.
    let mut got = String::new();
    eventually("the published port answers", || {
        let mut wget = docker.world.command("busybox");
        let output = wget.args(["wget", "-q", "-O", "-", "http://127.0.0.1:8080/hello"]).output().unwrap();
        got = String::from_utf8(output.stdout).unwrap();
        !got.is_empty()
    });
    assert_eq!(got, "hello\n");
    docker.ok(&["rm", "-f", "web"]);
}
