//! What Go itself makes of the same templates: `golden.json` is written by `golden.go` beside it.

use hull_template::{Lookups, Template};
use serde_json::{Value, json};

fn data() -> Value {
    serde_json::from_str(include_str!("data.json")).expect("JSON")
}

#[test]
fn templates_give_what_go_makes_of_them() {
    let golden: Vec<Value> = serde_json::from_str(include_str!("golden.json")).expect("JSON");
    let cases: Vec<String> = serde_json::from_str(include_str!("cases.json")).expect("JSON");
    assert_eq!(golden.len(), cases.len(), "golden.go was not run after a change");
    let mut wrong = Vec::new();
    for case in &golden {
        let text = case["template"].as_str().expect("a template");
        let made = Template::parse(text).and_then(|template| template.render(&data()));
        if made.as_deref().ok() != case["out"].as_str() {
            wrong.push(format!("{text:?}\n  is  {made:?}\n  Go's {}", case["out"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), golden.len(), wrong.join("\n"));
}

#[test]
fn a_name_that_a_map_lacks_is_no_value_and_one_that_a_structure_lacks_is_a_mistake() {
    let made = |text: &str| Template::parse(text).and_then(|template| template.render(&data()));
    assert_eq!(made("{{.Config.Labels.zzz}}").as_deref(), Ok("<no value>"));
    assert_eq!(made("{{(.Config.Labels).zzz}}").as_deref(), Ok("<no value>"));
    let error = made("ab{{.Config.Labls}}").expect_err("a mistake");
    assert_eq!(error.to_string(), "there is no field \"Labls\" (at character 5 of the template)");
    assert_eq!(made("{{.ID}}").as_deref(), Ok("sha256:0123456789abcdef"));
}

#[test]
fn a_field_with_an_argument_is_looked_up() {
    let lookups: Lookups = [("Label", [("a.b".to_owned(), "c".to_owned())].into())].into();
    let made = |text: &str| Template::parse(text).and_then(|template| template.render_with(&data(), &lookups));
    assert_eq!(made(r#"{{.Label "a.b"}}|{{.Label "x"}}|{{"a.b" | .Label}}"#).as_deref(), Ok("c||c"));
    assert!(made("{{.Label}}").is_err() && made("{{.Label 5}}").is_err());
}

#[test]
fn the_heading_of_a_table_is_its_names_whatever_is_done_to_the_cells() {
    let names = json!({"ID": "CONTAINER ID", "Names": "NAMES"});
    let template =
        Template::parse(r#"{{upper .ID}}{{join (split .Names ",") ";"}}{{pad .ID 1 1}}{{truncate .ID 3}}"#);
    let template = template.expect("a template");
    let made = template.heading(&names, &Lookups::new());
    assert_eq!(made.as_deref(), Ok("CONTAINER IDNAMES CONTAINER ID CONTAINER ID"));
}

#[test]
fn a_template_that_is_too_deep_or_too_long_is_an_error() {
    let deep = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(Template::parse(&format!("{{{{{deep}}}}}")).is_err());
    assert!(Template::parse(&"{{if .}}".repeat(100_000)).is_err());
    let wide = Template::parse(
        r#"{{range .}}{{range $}}{{range $}}{{range $}}{{range $}}{{printf "%4096d" 1}}{{end}}{{end}}{{end}}{{end}}{{end}}"#,
    );
    let many = Value::from((0..100).collect::<Vec<i32>>());
    assert!(wide.expect("a template").render(&many).is_err());
    for unsupported in ["{{define \"x\"}}{{end}}", "{{template \"x\"}}", "{{block \"x\" .}}{{end}}"] {
        assert!(Template::parse(unsupported).expect_err("not known").why.contains("is not supported"));
    }
}
