use std::fmt;

/// Rows under headings, with their number at the end.
#[derive(Clone, Debug)]
pub(in crate::ctl) struct Table {
    headings: &'static [&'static str],
    rows: Vec<Vec<String>>,
    /// What a row is: one, and several.
    noun: (&'static str, &'static str),
}

impl Table {
    pub(in crate::ctl) fn new(
        headings: &'static [&'static str],
        noun: (&'static str, &'static str),
    ) -> Self {
        Self { headings, rows: Vec::new(), noun }
    }

    /// Adds a row of as many cells as there are headings.
    pub(in crate::ctl) fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |cell: &str| cell.chars().count();
        let widths: Vec<_> = (0..self.headings.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let widest = cells.map(|cell| length(cell)).max().unwrap_or(0);
                widest.max(length(self.headings[column]))
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (cell, width) in cells.zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - length(cell) + 2));
            }
            line.trim_end().to_owned()
        };
        writeln!(f, "{}", line(&mut self.headings.iter().copied()))?;
        for row in &self.rows {
            writeln!(f, "{}", line(&mut row.iter().map(String::as_str)))?;
        }
        let (one, several) = self.noun;
        let count = self.rows.len();
        writeln!(f, "{count} {}", if count == 1 { one } else { several })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "ID"], ("route", "routes"));
        assert_eq!(table.to_string(), "NAME  ID\n0 routes\n");
        table.push(vec!["org/ns/äpp".into(), "7".into()]);
        assert_eq!(table.to_string(), "NAME        ID\norg/ns/äpp  7\n1 route\n");
        table.push(vec!["a".into(), String::new()]);
        assert_eq!(table.to_string(), "NAME        ID\norg/ns/äpp  7\na\n2 routes\n");
    }
}
