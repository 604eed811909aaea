use super::*;

#[test]
fn an_id_is_the_name_of_a_folder() {
    for id in ["a", "A_b+c-d.e", "...", &"x".repeat(255)] {
        check_id(id).unwrap();
    }
    assert!(check_id("").unwrap_err().to_string().contains("container id cannot be empty"));
    for id in [".", "..", "a/b", "-x", "a b", "é", &"x".repeat(256)] {
        assert!(check_id(id).unwrap_err().to_string().contains("invalid container ID format"), "{id:?}");
    }
}

#[test]
fn a_number_that_is_another_processes_by_now_is_not_the_containers() {
    let own = Process::of(std::process::id() as i32);
    let another = Process { start_time: own.start_time + 1, ..own };
    assert!(init(&State { process: own, ..State::default() }).unwrap().is_some());
    assert!(init(&State { process: another, ..State::default() }).unwrap().is_none());
    assert!(init(&State::default()).unwrap().is_none());
}

#[test]
fn one_id_is_one_container_and_a_failed_creation_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::create(root.path(), "one").unwrap();
    assert!(
        Folder::create(root.path(), "one")
            .unwrap_err()
            .to_string()
            .contains("container with given ID already exists: one")
    );
    assert_eq!(folder.state().unwrap(), State { id: "one".into(), ..State::default() });
    drop(folder);
    assert_eq!(Folder::ids(root.path()).unwrap(), [""; 0]);
    assert!(Folder::open(root.path(), "one").unwrap_err().to_string().contains("container does not exist"));
}
