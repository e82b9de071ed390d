//! What was measured, as a table and as JSON; and whether each aim was met.

use std::path::Path;

use serde::Serialize;

/// What an aim is about.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Judged {
    /// Ours, divided by the baseline.
    Ratio,
    /// Ours, less the baseline.
    Difference,
    /// Ours alone.
    Value,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    case: String,
    ours: f64,
    /// Absent where there is nothing to compare with.
    baseline: Option<f64>,
    unit: &'static str,
    ratio: Option<f64>,
    judged: Judged,
    /// The largest that is good enough.
    aim: f64,
    met: bool,
}

impl Row {
    pub(crate) fn new(case: &str, ours: f64, baseline: Option<f64>, unit: &'static str, aim: (Judged, f64)) -> Self {
        let (judged, aim) = aim;
        let ratio = baseline.map(|baseline| ours / baseline);
        let value = match judged {
            Judged::Ratio => ratio.unwrap_or(f64::INFINITY),
            Judged::Difference => ours - baseline.unwrap_or(0.0),
            Judged::Value => ours,
        };
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        Self {
            case: case.to_owned(),
            ours: round(ours),
            baseline: baseline.map(round),
            unit,
            ratio: ratio.map(round),
            judged,
            aim,
            met: value <= aim,
        }
    }

    fn aim(&self) -> String {
        match self.judged {
            Judged::Ratio => format!("x {}", self.aim),
            Judged::Difference => format!("+ {}", self.aim),
            Judged::Value => format!("{}", self.aim),
        }
    }
}

/// The middle one; of an even number the upper.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Written after each case, so that a bench that is cut off has measured something.
pub(crate) fn write(path: &Path, rows: &[Row]) -> anyhow::Result<()> {
    std::fs::write(path, serde_json::to_string_pretty(rows)? + "\n")?;
    Ok(())
}

/// The table.
pub(crate) fn print(rows: &[Row]) {
    println!("{:<46} {:>9} {:>9} {:<8} {:>6} {:>8}  MET", "CASE", "OURS", "BASELINE", "UNIT", "RATIO", "AIM");
    for row in rows {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        println!(
            "{:<46} {:>9} {:>9} {:<8} {:>6} {:>8}  {}",
            row.case,
            number(Some(row.ours)),
            number(row.baseline),
            row.unit,
            number(row.ratio),
            row.aim(),
            if row.met { "yes" } else { "no" }
        );
    }
}
