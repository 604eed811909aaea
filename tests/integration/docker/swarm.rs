//! A Swarm service of three replicas that is scaled, killed and rolled, on a manager that has only itself.

use hull_tests::checks::Checks;
use hull_tests::docker::Docker;
use hull_tests::eventually;

/// Ids of the service's running containers.
fn replicas(docker: &Docker) -> Vec<String> {
    let list = docker.ok(&["ps", "-q", "--no-trunc", "--filter", "label=com.docker.swarm.service.name=web"]);
    list.lines().map(str::to_owned).collect()
}

fn wait_for(docker: &Docker, what: &str, done: impl Fn(&[String]) -> bool) {
    eventually(what, || done(&replicas(docker)));
}

pub fn all(docker: &Docker, checks: &mut Checks) {
    checks.check("Swarm: three replicas", || {
        docker.ok(&["swarm", "init", "--advertise-addr", "127.0.0.1"]);
        let server = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
        let service = ["service", "create", "-d", "--name", "web", "--replicas", "3", "--restart-delay", "100ms"];
        let image = ["--no-resolve-image", "--limit-memory", "32m", "base", "sh", "-c", server];
        docker.ok(&[&service[..], &image].concat());
        wait_for(docker, "three run", |all| all.len() == 3);
    });
    checks.check("Swarm: scaled", || {
        docker.ok(&["service", "scale", "-d", "web=4"]);
        wait_for(docker, "four run", |all| all.len() == 4);
        docker.ok(&["service", "scale", "-d", "web=3"]);
        wait_for(docker, "three run", |all| all.len() == 3);
    });
    checks.check("Swarm: one is killed", || {
        let before = replicas(docker);
        docker.ok(&["kill", &before[0]]);
        wait_for(docker, "another one runs", |all| all.len() == 3 && !all.contains(&before[0]));
    });
    checks.check("Swarm: rolled", || {
        let before = replicas(docker);
        let flags = ["--env-add", "A=b", "--update-parallelism", "2", "--update-delay", "0s"];
        docker.ok(&[&["service", "update", "-d", "--no-resolve-image"], &flags[..], &["web"]].concat());
        wait_for(docker, "three others run", |all| all.len() == 3 && !all.iter().any(|id| before.contains(id)));
        let one = &replicas(docker)[0];
        assert_eq!(docker.ok(&["exec", one, "sh", "-c", "echo $A"]), "b\n");
    });
    checks.check("Swarm: given up", || {
        docker.ok(&["service", "rm", "web"]);
        wait_for(docker, "none runs", |all| all.is_empty());
        docker.ok(&["swarm", "leave", "--force"]);
    });
}
