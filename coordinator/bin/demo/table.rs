//! Rows as psql draws them, the middle of a long result left out.

/// Rows shown at the beginning and at the end of a result.
const SHOWN: usize = 5;

pub fn render(names: &[String], rows: Vec<Vec<Option<String>>>) -> String {
    let count = rows.len();
    let is_number = |text: &str| text.parse::<f64>().is_ok();
    let left_out = count.saturating_sub(2 * SHOWN);
    let shown = rows.iter().enumerate().filter(|(i, _)| *i < SHOWN || *i >= SHOWN + left_out).map(|(_, row)| row);
    let shown = shown.map(|row| row.iter().map(|cell| cell.clone().unwrap_or_default()).collect::<Vec<_>>());
    let shown = shown.collect::<Vec<_>>();
    let width = |column: usize| {
        let cells = shown.iter().flat_map(|row| row[column].lines().map(|line| line.chars().count()));
        cells.chain([names[column].chars().count()]).max().unwrap_or(0)
    };
    let widths = (0..names.len()).map(width).collect::<Vec<_>>();

    let mut lines = Vec::new();
    let header = names.iter().zip(&widths).map(|(name, width)| format!(" {name:^width$} "));
    lines.push(header.collect::<Vec<_>>().join("|"));
    lines.push(widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+"));
    for (index, row) in shown.iter().enumerate() {
        if left_out > 0 && index == SHOWN {
            lines.push(format!(" … {left_out} rows …"));
        }
        let cells = row.iter().zip(&widths).map(|(cell, width)| match is_number(cell) {
            true => format!(" {cell:>width$} "),
            false => format!(" {cell:<width$} "),
        });
        lines.push(cells.collect::<Vec<_>>().join("|").trim_end().to_owned());
    }
    lines.push(format!("({count} row{})", if count == 1 { "" } else { "s" }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn a_long_result_shows_its_ends() {
        let rows = (0..100).map(|i| vec![Some(i.to_string()), None]).collect();
        let text = render(&["n".to_owned(), "nothing".to_owned()], rows);
        assert!(text.contains(" … 90 rows …") && text.ends_with("(100 rows)"), "{text}");
        assert_eq!(text.lines().count(), 2 + 5 + 1 + 5 + 1);
    }
}
