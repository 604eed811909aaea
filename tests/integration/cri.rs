//! containerd's side of Kubernetes (CRI) with hull as the runtime of a RuntimeClass: what kubelet asks for a pod.

use hull_tests::checks::Checks;
use hull_tests::containerd::Containerd;
use hull_tests::cri::{self, Message};
use hull_tests::recorded::{Recorded, sorted};
use hull_tests::world::World;
use hull_tests::{Corner, eventually, skipped, systemd};

/// What the shim calls hull with for a pod, all of it; with systemd's groups after its option.
const CALLS: [&str; 8] = [
    "create --bundle --pid-file",
    "start",
    "exec --detach --pid-file --process",
    "update --resources",
    "kill 15",
    "kill 9",
    "kill --all 9",
    "delete",
];

const IMAGE: &str = "docker.io/library/base:latest";
/// `NamespaceMode::NODE`: no network of the pod's own, which would take plugins.
const NODE: u64 = 2;

/// A daemon with a pod of one container.
struct Kubelet {
    containerd: Containerd,
    oci: Recorded,
    pod: String,
    container: String,
}

impl Kubelet {
    fn start(corner: &Corner, systemd: bool) -> Self {
        let oci = Recorded::new(&corner.path().join("runtime"), "hull-oci");
        let world = if systemd { World::machine() } else { World::new(corner.path()) };
        let parent = if systemd { "hulltest.slice".to_owned() } else { world.parent().to_owned() };
        // As docs/compatibility.md has it. Not every root may make its processes harder to kill.
        let configuration = format!(
            "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {IMAGE:?}\nrestrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndefault_runtime_name = \"hull\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.hull]\n\
             runtime_type = \"io.containerd.runc.v2\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.hull.options]\n\
             BinaryName = {:?}\nSystemdCgroup = {systemd}\n",
            oci.program
        );
        let containerd = Containerd::start(corner.path(), world, &configuration);
        containerd.import(corner, "base", "k8s.io");
        let mut kubelet = Self { containerd, oci, pod: String::new(), container: String::new() };
        kubelet.run(&parent);
        kubelet
    }

    fn call(&self, method: &str, message: &Message) -> Message {
        let answer = cri::call(&self.containerd.path("socket"), &format!("RuntimeService/{method}"), message);
        answer.unwrap_or_else(|| panic!("{method}: {}", self.containerd.log()))
    }

    /// Makes and starts the pod, whose groups are below `parent`, and its container.
    fn run(&mut self, parent: &str) {
        let metadata = Message::default().with(1, "pod").with(2, "uid").with(3, "default");
        let namespaces = Message::default().number(1, NODE);
        let security = Message::default().with(1, &namespaces);
        let pod = Message::default().with(1, metadata).with(8, Message::default().with(1, parent).with(2, security));
        // The image is known once containerd has told its plugin, which is before long.
        eventually("the plugin knows the image", || {
            let asked = Message::default().with(1, Message::default().with(1, IMAGE));
            let answer = cri::call(&self.containerd.path("socket"), "ImageService/ImageStatus", &asked);
            answer.is_some_and(|answer| !answer.bytes(1).is_empty())
        });
        let asked = Message::default().with(1, &pod).with(2, "hull");
        self.pod = self.call("RunPodSandbox", &asked).text(1);
        let script = "trap 'exit 9' TERM; >/up; while :; do sleep 0.1; done";
        let command = ["sh", "-c", script].iter().fold(Message::default(), |all, word| all.with(3, word));
        let limits = Message::default().number(1, 100_000).number(2, 50_000).number(4, 64 << 20);
        let config = command
            .with(1, Message::default().with(1, "main"))
            .with(2, Message::default().with(1, IMAGE))
            .with(15, Message::default().with(1, limits).with(2, Message::default().with(3, namespaces)));
        let asked = Message::default().with(1, &self.pod).with(2, config).with(3, &pod);
        self.container = self.call("CreateContainer", &asked).text(1);
        self.call("StartContainer", &self.of_container());
        eventually("it runs", || self.shell("cat /up").1 == 0);
    }

    fn of_container(&self) -> Message {
        Message::default().with(1, &self.container)
    }

    /// Output and exit status of a shell in the container.
    fn shell(&self, script: &str) -> (String, u64) {
        let asked = ["sh", "-c", script].iter().fold(self.of_container(), |all, word| all.with(2, word));
        let answer = self.call("ExecSync", &asked);
        (answer.text(1), answer.value(3))
    }

    fn end(&self) {
        self.call("StopContainer", &self.of_container().number(2, 20));
        let pod = Message::default().with(1, &self.pod);
        self.call("StopPodSandbox", &pod);
        self.call("RemovePodSandbox", &pod);
    }

    fn assert_calls(&self, before: &str) {
        // And by the shim's own way to clear up, which knows no options.
        let calls = CALLS.iter().map(|call| format!("{before}{call}")).chain(["delete --force".to_owned()]);
        let expected: Vec<String> = calls.map(|call| format!("--log --log-format --root {call}")).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        assert_eq!(self.oci.shapes().into_iter().collect::<Vec<_>>(), sorted(&expected));
    }
}

#[test]
fn a_pod_runs_in_groups_that_hull_makes() {
    let corner = Corner::new();
    let kubelet = Kubelet::start(&corner, false);
    let mut checks = Checks::default();
    checks.check("exec gives the output and the status", || {
        assert_eq!(kubelet.shell("echo out; exit 3"), ("out\n".to_owned(), 3));
    });
    checks.check("the groups are below the pod's", || {
        let groups = kubelet.containerd.world.groups();
        for id in [&kubelet.pod, &kubelet.container] {
            assert!(groups.contains(&format!("/{id}")), "{id}: {groups:?}");
        }
    });
    checks.check("update", || update(&kubelet));
    checks.check("stop and remove", || {
        kubelet.end();
        let groups = kubelet.containerd.world.groups();
        assert!(groups.is_empty(), "{groups:?}");
    });
    checks.check("calls are those that are known", || kubelet.assert_calls(""));
    checks.end();
}

/// kubelet's `cgroupDriver: systemd`.
#[test]
fn a_pod_runs_in_units_of_systemds() {
    if !systemd::is_there() {
        let name = "a_pod_runs_in_units_of_systemds";
        return skipped(name, "this machine was not started by systemd; `make test-vm` does it");
    }
    let corner = Corner::new();
    let kubelet = Kubelet::start(&corner, true);
    let unit = |id: &str| format!("cri-containerd-{id}.scope");
    let mut checks = Checks::default();
    checks.check("exec gives the output and the status", || {
        assert_eq!(kubelet.shell("echo out; exit 3"), ("out\n".to_owned(), 3));
    });
    checks.check("the units are in the pod's slice, with their limits", || {
        for id in [&kubelet.pod, &kubelet.container] {
            assert_eq!(systemd::property(&unit(id), "ActiveState"), "active");
            assert_eq!(systemd::property(&unit(id), "Slice"), "hulltest.slice");
        }
        assert_eq!(systemd::property(&unit(&kubelet.container), "MemoryMax"), "67108864");
        assert_eq!(systemd::property(&unit(&kubelet.container), "CPUQuotaPerSecUSec"), "500ms");
    });
    checks.check("update", || {
        update(&kubelet);
        assert_eq!(systemd::property(&unit(&kubelet.container), "MemoryMax"), (80u64 << 20).to_string());
    });
    checks.check("stop and remove", || {
        kubelet.end();
        for id in [&kubelet.pod, &kubelet.container] {
            assert!(!systemd::is_loaded(&unit(id)));
        }
        systemd::systemctl(&["stop", "hulltest.slice"]);
    });
    checks.check("calls are those that are known", || kubelet.assert_calls("--systemd-cgroup "));
    checks.end();
}

/// More memory, as the container sees it.
fn update(kubelet: &Kubelet) {
    let limits = Message::default().number(4, 80 << 20);
    kubelet.call("UpdateContainerResources", &kubelet.of_container().with(2, limits));
    let (out, _) = kubelet.shell("cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes");
    assert_eq!(out, "83886080\n");
}
