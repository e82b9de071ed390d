//! Aligned columns. Pure.

const GAP: &str = "  ";

/// A header and rows, each column as wide as its widest cell. An empty cell is shown as `-`.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = header.map(width);
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    let mut text = line(header.into_iter(), &widths);
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str), &widths));
    }
    text
}

/// Names and values, values aligned; pairs without a value are left out.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let widest =
        pairs.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| width(name)).max().unwrap_or_default();
    pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| line([*name, value].into_iter(), &[widest, 0]))
        .collect()
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, widest) in cells.zip(widths) {
        let cell = if cell.is_empty() { "-" } else { cell };
        text.push_str(cell);
        text.push_str(&" ".repeat(widest.saturating_sub(width(cell))));
        text.push_str(GAP);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = [["alice".into(), String::new()], ["b".into(), "running".into()]];
        assert_eq!(super::table(["NAME", "STATE"], &rows), "NAME   STATE\nalice  -\nb      running\n");
        assert_eq!(
            super::pairs(&[("a", "1".into()), ("none", String::new()), ("bcd", "2".into())]),
            "a    1\nbcd  2\n"
        );
    }
}
