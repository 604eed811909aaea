//! Listings: rows of named fields, as Docker's table, or as `--format` wants them.
//!
//! `--format` is `table` (the usual columns), `json` (a document a line), `table TEMPLATE` (the template's own columns under
//! their headings) or a template for each row. Source: Docker's "Format command and log output".

use std::io::IsTerminal;

use hull_template::{Lookups, Template};
use serde_json::{Map, Value};

use crate::report::Report;
use crate::table::escape;

/// What a listing can show.
pub struct Listing {
    /// Each field with the heading of its column.
    pub columns: &'static [(&'static str, &'static str)],
    /// The fields of the usual table.
    pub usual: &'static [&'static str],
}

/// One row.
pub struct Row(Map<String, Value>);

impl Row {
    /// A row of these fields.
    pub fn new<const N: usize>(fields: [(&str, String); N]) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
    }

    /// The same with one more field.
    pub fn with(mut self, name: &str, value: String) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// The fields as a document.
    pub fn value(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

/// The least width of a column and the space behind its widest cell, as Docker has them.
const WIDTH_MIN: usize = 10;
const SPACE: usize = 3;

impl Listing {
    /// The rows as text.
    ///
    /// # Errors
    /// A template that is none or names a field that there is not.
    pub fn render(&self, format: Option<&str>, rows: &[Row]) -> Result<String, Report> {
        let format = format
            .map_or_else(|| "table".to_owned(), |format| format.trim().replace("\\t", "\t").replace("\\n", "\n"));
        match format.split_once(' ').map_or((format.as_str(), ""), |(word, rest)| (word, rest)) {
            ("table", "") => self.table(&self.usual_template(), rows),
            ("table", template) => self.table(template, rows),
            ("json", "") => Ok(rows.iter().map(|row| format!("{}\n", Value::Object(row.0.clone()))).collect()),
            _ => self.lines(&format, rows),
        }
    }

    fn usual_template(&self) -> String {
        self.usual.iter().map(|field| format!("{{{{.{field}}}}}")).collect::<Vec<_>>().join("\t")
    }

    /// A line for each row. Where a person reads it nothing may steer the terminal; a program gets what there is.
    fn lines(&self, template: &str, rows: &[Row]) -> Result<String, Report> {
        let template = parse(template)?;
        let shown = std::io::stdout().is_terminal();
        let line = |row: &Row| {
            let fields = if shown { escaped(&row.0) } else { row.0.clone() };
            let line = template.render(&Value::Object(fields)).map_err(wrong)?;
            Ok(format!("{line}\n"))
        };
        rows.iter().map(line).collect()
    }

    fn table(&self, template: &str, rows: &[Row]) -> Result<String, Report> {
        let template = parse(template)?;
        let names: Map<String, Value> =
            self.columns.iter().map(|(field, heading)| ((*field).to_owned(), (*heading).into())).collect();
        let mut lines = vec![template.heading(&Value::Object(names), &Lookups::new()).map_err(wrong)?];
        for row in rows {
            lines.push(template.render(&Value::Object(escaped(&row.0))).map_err(wrong)?);
        }
        Ok(aligned(&lines))
    }
}

/// One document, by a template or as `json`.
///
/// # Errors
/// A template that is none or names a field that there is not.
pub fn document(format: &str, value: &Value) -> Result<String, Report> {
    match format.trim() {
        "json" => Ok(format!("{value}\n")),
        template => Ok(format!("{}\n", parse(template)?.render(value).map_err(wrong)?)),
    }
}

fn parse(template: &str) -> Result<Template, Report> {
    Template::parse(template).map_err(wrong)
}

fn wrong(error: hull_template::Error) -> Report {
    Report::usage(format!("cannot use the template: {error}"), None).with_code(1)
}

fn escaped(fields: &Map<String, Value>) -> Map<String, Value> {
    let escaped = |value: &Value| value.as_str().map_or_else(|| value.clone(), |text| escape(text).into());
    fields.iter().map(|(name, value)| (name.clone(), escaped(value))).collect()
}

/// Cells that end with a tab stand below each other.
fn aligned(lines: &[String]) -> String {
    let lines: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = lines.iter().filter(|cells| cells.len() > column + 1).map(|cells| cells[column].chars().count());
        (cells.max().unwrap_or_default() + SPACE).max(WIDTH_MIN)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for cells in lines {
        let (last, before) = cells.split_last().unwrap_or((&"", &[]));
        for (cell, width) in before.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(last);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing =
        Listing { columns: &[("ID", "THING ID"), ("Name", "NAME"), ("Size", "SIZE")], usual: &["ID", "Name"] };

    fn rows() -> [Row; 2] {
        let row = |id: &str, name: &str| {
            Row::new([("ID", id.to_owned()), ("Name", name.to_owned()), ("Size", "1kB".to_owned())])
        };
        [row("0123456789ab", "x\u{1b}[31m"), row("5", "y")]
    }

    fn render(format: Option<&str>) -> String {
        LISTING.render(format, &rows()).expect("text")
    }

    #[test]
    fn a_table_has_dockers_columns_and_visible_controls() {
        let usual = "THING ID       NAME\n0123456789ab   x\\u{1b}[31m\n5              y\n";
        for format in [None, Some("table"), Some("table {{.ID}}\\t{{.Name}}")] {
            assert_eq!(render(format), usual, "{format:?}");
        }
        let own = "SIZE      NAME: x\n1kB       y: x\n1kB       y: x\n";
        assert_eq!(render(Some("table {{.Size}}\t{{if eq .Size \"1kB\"}}y{{else}}{{.Name}}{{end}}: x")), own);
        assert_eq!(LISTING.render(None, &[]).expect("a heading"), "THING ID   NAME\n");
    }

    #[test]
    fn a_template_and_json_give_a_line_for_each_row() {
        assert_eq!(render(Some("{{.Name}}-{{upper .ID}}")), "x\u{1b}[31m-0123456789AB\ny-5\n");
        let json = render(Some("json"));
        assert_eq!(json.lines().nth(1), Some(r#"{"ID":"5","Name":"y","Size":"1kB"}"#));
        assert_eq!(json, render(Some("{{json .}}")));
        for wrong in ["{{.Nam}}", "{{", "table {{.Nam}}"] {
            assert!(LISTING.render(Some(wrong), &rows()).is_err(), "{wrong}");
        }
    }
}
