//! Columns that line up.

/// Rows of cells as lines: each column as wide as its widest cell, two spaces between, nothing behind the last.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_where_their_text_does() {
        let rows = [["a", "längst", ""], ["bbb", "c", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "a    längst\nbbb  c       d\n");
        assert_eq!(columns::<1>(&[]), "");
    }
}
