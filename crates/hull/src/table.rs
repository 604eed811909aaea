//! Columns for people: as wide as their widest cell, with whatever could steer a terminal made visible.

/// The rows under `head`, each cell escaped, three spaces between columns.
pub fn render<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| escape(cell))).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or_default()
    };
    let line = |cells: [&str; N]| {
        let padded: Vec<String> =
            cells.iter().enumerate().map(|(column, cell)| format!("{cell:<width$}", width = width(column))).collect();
        format!("{}\n", padded.join("   ").trim_end())
    };
    let mut told = line(head);
    told.extend(rows.iter().map(|row| line(row.each_ref().map(String::as_str))));
    told
}

/// Control characters as escapes: a name is data, whatever an image's author wrote into it.
pub fn escape(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Bytes as Docker shows them: three digits, powers of 1000.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            return match value {
                _ if unit == "B" || value >= 100.0 => format!("{value:.0}{unit}"),
                _ if value >= 10.0 => format!("{value:.1}{unit}"),
                _ => format!("{value:.2}{unit}"),
            };
        }
        value /= 1000.0;
    }
    format!("{value:.0}PB")
}

/// How long ago, in Docker's words; `seconds` may be negative when clocks differ.
pub fn ago(seconds: i64) -> String {
    format!("{} ago", span(seconds))
}

/// How long, in Docker's words.
pub fn span(seconds: i64) -> String {
    let one_or = |count: i64, one: &str, many: &str| match count {
        1 => one.to_owned(),
        count => format!("{count} {many}"),
    };
    let (minute, hour, day) = (60, 3600, 86400);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1..60 => one_or(seconds, "1 second", "seconds"),
        60..3600 => one_or(seconds / minute, "About a minute", "minutes"),
        3600..172_800 => one_or(seconds / hour, "About an hour", "hours"),
        172_800..1_209_600 => one_or(seconds / day, "1 day", "days"),
        1_209_600..5_184_000 => one_or(seconds / (7 * day), "1 week", "weeks"),
        5_184_000..63_072_000 => one_or(seconds / (30 * day), "1 month", "months"),
        _ => one_or(seconds / (365 * day), "1 year", "years"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_controls_visible() {
        let rows = [["a\u{1b}[31m".to_owned(), "1".to_owned()], ["b".to_owned(), "2".to_owned()]];
        assert_eq!(render(["NAME", "N"], &rows), "NAME          N\na\\u{1b}[31m   1\nb             2\n");
    }

    #[test]
    fn sizes_and_ages_read_as_dockers() {
        for (bytes, text) in
            [(0, "0B"), (999, "999B"), (1000, "1.00kB"), (7_654_321, "7.65MB"), (124_000_000, "124MB")]
        {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in
            [(-5, "Less than a second ago"), (5, "5 seconds ago"), (61, "About a minute ago"), (7200, "2 hours ago")]
        {
            assert_eq!(ago(seconds), text);
        }
    }
}
