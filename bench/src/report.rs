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
        let figure = Figure {
            name: name.to_owned(),
            unit,
            work,
            value,
            floor,
            ratio,
            target,
        };
        let missed = if figure.misses() { "; MISSED" } else { "" };
        let line = format!(
            "{name:<28} {value:>14.2} {unit:<14} {:>14} {:>7} {aim:>10}  {work}{missed}",
            show(floor),
            show(ratio),
        );
        println!("{line}");
        self.rows.push(figure);
    }

    /// Prints how many rows there are; answers the names of those that miss their targets.
    pub(crate) fn finish(&self) -> Vec<&str> {
        let missed = self.rows.iter().filter(|row| row.misses());
        let missed: Vec<_> = missed.map(|row| row.name.as_str()).collect();
        println!(
            "{} rows, each the median of its samples; {} miss their targets",
            self.rows.len(),
            missed.len()
        );
        missed
    }
}

impl Figure {
    /// Rates are to be at least their target, times and sizes at most.
    fn misses(&self) -> bool {
        self.target.is_some_and(|target| {
            if self.unit.ends_with("/s") {
                self.value < target
            } else {
                self.value > target
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_missed_on_one_side() {
        let mut report = Report::new(String::new(), "none");
        for (name, unit, value) in [
            ("slow", "msg/s", 9.0),
            ("fast", "msg/s", 10.0),
            ("long", "us", 11.0),
            ("short", "us", 10.0),
        ] {
            report.row(Row::new(name, unit, "work").target(10.0), || value);
        }
        report.row(Row::new("free", "us", "work"), || 99.0);
        assert_eq!(report.finish(), ["slow", "long"]);
    }
}
