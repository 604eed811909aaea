//! `hull run --init`: hull as process 1 of the container.

use std::time::Duration;

use hull_tests::{Corner, eventually};

#[test]
fn process_1_is_hull_and_the_command_is_its_child() {
    let corner = Corner::new();
    let said = corner.shell(&["--init"], "cat /proc/1/comm; echo $PPID; exit 7");
    assert_eq!((said.code, said.out.as_str()), (7, "hull-init\n1\n"), "{said:?}");
    assert!(!corner.rootfs().join("dev/hull-init").exists(), "nothing of it stays in the folder");
}

#[test]
fn orphans_are_reaped_and_the_commands_signal_is_the_status() {
    // The inner shell ends before its sleep, whose parent is then process 1.
    let script = "sh -c 'sleep 0.2 & echo $! > /pid'; sleep 1; pid=$(cat /pid); [ -e /proc/$pid ] && echo zombie; \
                  kill -TERM $$; sleep 5";
    let said = Corner::new().shell(&["--init"], script);
    assert_eq!((said.code, said.out.as_str()), (143, ""), "{said:?}");
}

#[test]
fn a_signal_for_hull_reaches_a_command_without_a_handler() {
    let corner = Corner::new();
    let ready = corner.rootfs().join("ready");
    let mut command = corner.run_command(&["--init"], &["sh", "-c", "touch /ready; exec sleep 30"]);
    let mut child = command.spawn().unwrap();
    eventually("the command runs", || ready.exists());
    // Until it has executed: a shell that got the signal would end as well.
    std::thread::sleep(Duration::from_millis(100));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn a_command_that_cannot_be_executed_has_dockers_status() {
    let corner = Corner::new();
    std::fs::write(corner.rootfs().join("plain"), "").unwrap();
    for (command, code) in [("nope", 127), ("/plain", 126)] {
        let said = corner.run(&["--init"], &[command]);
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.starts_with("hull: cannot execute") && said.err.contains(command), "{}", said.err);
    }
}
