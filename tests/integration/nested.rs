//! hull inside a privileged container of Docker's, one level down, with its store on a volume.

use hull_tests::docker::Docker;
use hull_tests::{Corner, hull_bin};

/// What a person does in there. The base is the container's own system.
const STEPS: &str = "set -e
busybox tar -C / -cf /tmp/base.tar bin etc
/hull import /tmp/base.tar base > /dev/null
/hull run --rm --pids-limit 20 base sh -c 'echo pid $$; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null || :'
busybox mkdir /tmp/context
echo 'FROM base' > /tmp/context/Dockerfile
echo 'RUN echo built > /made' >> /tmp/context/Dockerfile
echo 'CMD [\"cat\", \"/made\"]' >> /tmp/context/Dockerfile
/hull build -q -t app /tmp/context > /dev/null
/hull run --memory 64m --name kept app
/hull ps -a -q | busybox wc -l
/hull rm kept
/hull demo | grep ' lines are as asked'
/hull system check
";

#[test]
fn hull_runs_builds_and_shows_itself_in_a_privileged_container_of_docker() {
    let corner = Corner::new();
    let docker = Docker::start(corner.path());
    docker.import(&corner.rootfs(), "inner");
    assert_eq!(docker.client(&["volume", "create", "store"]).code, 0);
    let hull = format!("{}:/hull:ro", hull_bin().display());
    let flags = ["run", "--rm", "--privileged", "--net", "none", "--tmpfs", "/tmp:exec", "-v", &hull];
    let inside = |more: &[&str]| docker.client(&[&flags[..], more, &["inner", "sh", "-c", STEPS]].concat());

    let said = inside(&["-v", "store:/var/lib/hull"]);
    assert_eq!(said.code, 0, "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines[..5], ["pid 1", "20", "built", "1", "kept"], "{said:?}");
    assert!(lines[5].starts_with("All ") && lines.len() == 6, "{said:?}");

    // Docker's own root is an overlay, which cannot carry another: the same by copies, said in words, with what to do.
    let said = inside(&[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.out.lines().collect::<Vec<_>>(), lines, "{said:?}");
    assert!(said.err.contains("layers are copied (vfs)") && said.err.contains("volume"), "{}", said.err);
}
