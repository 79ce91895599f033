//! Rows, as a table while they come and as JSON at the end.

use serde::Serialize;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
    #[serde(skip)]
    filter: String,
}

/// One figure.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    unit: &'static str,
    value: f64,
    /// What the row cannot do without, in the same unit.
    floor: Option<f64>,
    /// `value / floor`: below 1 is better than the floor for times, above 1 for rates.
    ratio: Option<f64>,
}

impl Report {
    pub(crate) fn new(filter: String) -> Self {
        println!(
            "{:<28} {:>14} {:<14} {:>14} {:>7}",
            "row", "value", "unit", "floor", "ratio"
        );
        Self {
            rows: Vec::new(),
            filter,
        }
    }

    /// Whether a row of this name is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.starts_with(&self.filter) || self.filter.starts_with(name)
    }

    /// Measures and prints a row if it is asked for.
    pub(crate) fn row(
        &mut self,
        name: &str,
        unit: &'static str,
        floor: Option<f64>,
        measure: impl FnOnce() -> f64,
    ) {
        if !name.starts_with(&self.filter) {
            return;
        }
        let value = measure();
        let ratio = floor.map(|floor| value / floor);
        let show =
            |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |f| format!("{f:.2}"));
        println!(
            "{name:<28} {value:>14.2} {unit:<14} {:>14} {:>7}",
            show(floor),
            show(ratio)
        );
        self.rows.push(Row {
            name: name.to_owned(),
            unit,
            value,
            floor,
            ratio,
        });
    }

    pub(crate) fn finish(&self) {
        println!("{} rows, each the median of its samples", self.rows.len());
    }
}
