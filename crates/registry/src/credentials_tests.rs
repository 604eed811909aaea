use std::os::unix::fs::PermissionsExt;

use super::*;

fn config(json: Value) -> Map<String, Value> {
    json.as_object().expect("an object").clone()
}

fn password(user: &str, password: &str) -> Credentials {
    Credentials::Password(user.to_owned(), Secret::new(password))
}

#[test]
fn the_nearest_entry_of_a_repository_counts() {
    let auth = |text: &str| serde_json::json!({ "auth": STANDARD.encode(text) });
    let all = config(serde_json::json!({ "auths": {
        "r.test": auth("host:h"), "r.test/team": auth("team:t"), "r.test/team/a": auth("a:x:y"),
        "https://index.docker.io/v1/": auth("hub:p"), "http://old.test/v2/": auth("old:o"),
        "token.test": { "identitytoken": "refresh" }, "empty.test": {},
    }}));
    let found = |host: &str, path: &str| find_in(&all, host, path).expect("an answer");
    assert_eq!(found("r.test", "x/y"), Some(password("host", "h")));
    assert_eq!(found("r.test", "team/b"), Some(password("team", "t")));
    assert_eq!(found("r.test", "team/a"), Some(password("a", "x:y")));
    assert_eq!(found("r.test", "teams/a"), Some(password("host", "h")));
    assert_eq!(found("docker.io", "library/debian"), Some(password("hub", "p")));
    assert_eq!(found("old.test", "x"), Some(password("old", "o")));
    assert_eq!(found("token.test", "x"), Some(Credentials::Identity(Secret::new("refresh"))));
    assert_eq!(found("empty.test", "x"), None);
    assert_eq!(found("r.test.evil", "x"), None);
    assert_eq!(found("test", "x"), None);
}

#[test]
fn credentials_are_kept_for_the_owner_alone_and_forgotten_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sub/config.json");
    store(&file, "r.test", &password("u", "canary")).expect("kept");
    store(&file, "docker.io", &password("d", "p")).expect("kept");
    assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    assert_eq!(find(Some(&file), "r.test", "x").expect("found"), Some(password("u", "canary")));
    assert_eq!(hosts(&file).expect("a list"), [DOCKER_KEY, "r.test"]);
    assert!(remove(&file, "r.test").expect("removed"));
    assert!(!remove(&file, "r.test").expect("nothing"));
    assert_eq!(find(Some(&file), "r.test", "x").expect("read"), None);
    assert_eq!(std::fs::read_dir(file.parent().expect("a folder")).expect("a list").count(), 1, "a temporary file");
}

#[test]
fn other_settings_of_the_file_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.json");
    std::fs::write(&file, r#"{"HttpHeaders":{"X":"1"},"auths":{"https://r.test/v1/":{"auth":"b2xkOm9sZA=="}}}"#)
        .expect("a file");
    store(&file, "r.test", &password("new", "n")).expect("kept");
    let text = std::fs::read_to_string(&file).expect("text");
    assert!(text.contains("HttpHeaders") && !text.contains("b2xkOm9sZA=="), "{text}");
}

#[test]
fn a_broken_file_is_told_without_its_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.json");
    for text in [r#"{"auths":{"r.test":{"auth":"Y2FuYXJ5"}}}"#, r#"{"auths":{"canary" "#] {
        std::fs::write(&file, text).expect("a file");
        let error = find(Some(&file), "r.test", "x").expect_err("an error").to_string();
        assert!(error.contains("config.json") && !error.contains("canary") && !error.contains("Y2Fu"), "{error}");
    }
}
