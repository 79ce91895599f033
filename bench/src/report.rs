//! Rows, as a table while they come and as JSON at the end.

use serde::Serialize;

/// The rows that were measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Back end of curve25519-dalek that runs.
    backend: &'static str,
    rows: Vec<Figure>,
    #[serde(skip)]
    filter: String,
}

/// Kind of measurement of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'n> {
    pub(crate) name: &'n str,
    pub(crate) unit: &'static str,
    /// Unit of work of a row.
    pub(crate) work: &'static str,
    /// Floor: cost of the primitives that the row needs, in the same unit.
    pub(crate) floor: Option<f64>,
    /// Target of the project: a lower bound for rates, an upper bound for all other rows.
    pub(crate) target: Option<f64>,
}

/// One figure.
#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    unit: &'static str,
    work: &'static str,
    value: f64,
    /// Floor: cost of the primitives that the row needs, in the same unit.
    floor: Option<f64>,
    /// `value / floor`: below 1 is better than the floor for times, above 1 for rates.
    ratio: Option<f64>,
    /// Target of the project.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<f64>,
}

impl<'n> Row<'n> {
    pub(crate) const fn new(name: &'n str, unit: &'static str, work: &'static str) -> Self {
        Self {
            name,
            unit,
            work,
            floor: None,
            target: None,
        }
    }

    pub(crate) const fn floor(self, floor: f64) -> Self {
        Self {
            floor: Some(floor),
            ..self
        }
    }

    pub(crate) const fn target(self, target: f64) -> Self {
        Self {
            target: Some(target),
            ..self
        }
    }
}

impl Report {
    pub(crate) fn new(filter: String, backend: &'static str) -> Self {
        println!("curve25519-dalek back end: {backend}");
        println!(
            "{:<28} {:>14} {:<14} {:>14} {:>7} {:>10}  unit of work",
            "row", "value", "unit", "floor", "ratio", "target"
        );
        Self {
            backend,
            rows: Vec::new(),
            filter,
        }
    }

    /// Whether a row of this name is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.starts_with(&self.filter) || self.filter.starts_with(name)
    }

    /// Whether this row is asked for, and not only one whose name begins so.
    pub(crate) fn shows(&self, name: &str) -> bool {
        name.starts_with(&self.filter)
    }

    /// Measures and prints a row if it is asked for.
    pub(crate) fn row(&mut self, row: Row<'_>, measure: impl FnOnce() -> f64) {
        let Row {
            name,
            unit,
            work,
            floor,
            target,
        } = row;
        if !name.starts_with(&self.filter) {
            return;
        }
        let value = measure();
        let ratio = floor.map(|floor| value / floor);
        let show =
            |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |f| format!("{f:.2}"));
        let aim = target.map_or_else(|| "-".to_owned(), |target| target.to_string());
        let line = format!(
            "{name:<28} {value:>14.2} {unit:<14} {:>14} {:>7} {aim:>10}  {}",
            show(floor),
            show(ratio),
            work
        );
        println!("{line}");
        self.rows.push(Figure {
            name: name.to_owned(),
            unit,
            work,
            value,
            floor,
            ratio,
            target,
        });
    }

    pub(crate) fn finish(&self) {
        println!("{} rows, each the median of its samples", self.rows.len());
    }
}
