//! Columns as Go's `text/tabwriter` lays them out, because people and scripts know Micro's tables.
//!
//! Cells end with a tab; what follows the last tab of a line belongs to no column. A column is a run
//! of neighbouring lines that have it.

/// What fills the space between columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Padding {
    /// One space at least.
    Spaces,
    /// Tabs, eight wide.
    Tabs,
}

const TAB: usize = 8;

/// Lays out lines of tab-terminated cells; the result ends with a newline if there is any line.
pub(crate) fn align(text: &str, padding: Padding) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines
        .iter()
        .map(|cells| vec![0; cells.len().saturating_sub(1)])
        .collect();
    measure(&lines, &mut widths, 0, lines.len(), 0);
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (i, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths.get(i) {
                pad(&mut out, cell.chars().count(), *width, padding);
            }
        }
        out.push('\n');
    }
    out
}

/// Finds the blocks of column `column` between two lines, sets their width, and goes on inside them.
fn measure(
    lines: &[Vec<&str>],
    widths: &mut [Vec<usize>],
    start: usize,
    end: usize,
    column: usize,
) {
    let has = |i: usize| lines.get(i).is_some_and(|cells| column + 1 < cells.len());
    let mut at = start;
    while at < end {
        if !has(at) {
            at += 1;
            continue;
        }
        let first = at;
        while at < end && has(at) {
            at += 1;
        }
        let width = lines
            .iter()
            .take(at)
            .skip(first)
            .filter_map(|cells| cells.get(column))
            .map(|cell| cell.chars().count() + 1)
            .max()
            .unwrap_or(0);
        for row in widths.iter_mut().take(at).skip(first) {
            if let Some(slot) = row.get_mut(column) {
                *slot = width;
            }
        }
        measure(lines, widths, first, at, column + 1);
    }
}

fn pad(out: &mut String, text: usize, cell: usize, padding: Padding) {
    match padding {
        Padding::Spaces => out.extend(std::iter::repeat_n(' ', cell.saturating_sub(text))),
        Padding::Tabs => {
            let room = cell.div_ceil(TAB) * TAB;
            out.extend(std::iter::repeat_n(
                '\t',
                room.saturating_sub(text).div_ceil(TAB),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tabs_round_columns_up_to_the_next_stop() {
        assert_eq!(
            align(
                "NAME\tVERSION\tSOURCE\nhelloworld\tlatest\tgithub.com/micro/services/helloworld\n",
                Padding::Tabs
            ),
            "NAME\t\tVERSION\tSOURCE\nhelloworld\tlatest\tgithub.com/micro/services/helloworld\n"
        );
    }

    #[test]
    fn spaces_leave_one_at_least() {
        assert_eq!(
            align("a\tb\nlonger\tc\n", Padding::Spaces),
            "a      b\nlonger c\n"
        );
    }

    #[test]
    fn a_line_without_the_column_ends_its_block() {
        assert_eq!(
            align("a\tb\nx\nlong-one\tb\n", Padding::Spaces),
            "a b\nx\nlong-one b\n"
        );
        assert_eq!(align("", Padding::Tabs), "");
    }
}
