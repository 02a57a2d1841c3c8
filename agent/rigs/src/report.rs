//! How every rig ends: a table, then one last line that names the figure nearest to its bar.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options that every measuring rig takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Common {
    /// Write the figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The short version that the tests run.
    #[arg(long)]
    pub(crate) short: bool,
}

/// On which side of its bar a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// The figure may not exceed the bar.
    AtMost,
    /// The figure must reach the bar.
    AtLeast,
}

/// A figure and its bar.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    /// What was measured.
    pub(crate) what: String,
    /// The figure.
    pub(crate) figure: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// What it is held to.
    pub(crate) bar: f64,
    /// On which side it has to be.
    pub(crate) side: Side,
}

impl Check {
    /// A figure that may not exceed its bar.
    pub(crate) fn at_most(what: impl Into<String>, figure: f64, bar: f64, unit: &'static str) -> Self {
        Self { what: what.into(), figure, unit, bar, side: Side::AtMost }
    }

    /// A figure that must reach its bar.
    pub(crate) fn at_least(what: impl Into<String>, figure: f64, bar: f64, unit: &'static str) -> Self {
        Self { what: what.into(), figure, unit, bar, side: Side::AtLeast }
    }

    /// Whether the bar holds; a figure that is no number never does.
    pub(crate) fn passes(&self) -> bool {
        match self.side {
            Side::AtMost => self.figure <= self.bar,
            Side::AtLeast => self.figure >= self.bar,
        }
    }

    /// How near the bar is: over 1 it is broken.
    fn strain(&self) -> f64 {
        // Nothing of what must not be at all stands at its bar, not beyond it.
        if self.figure == self.bar {
            return 1.0;
        }
        let strain = match self.side {
            Side::AtMost => self.figure / self.bar,
            Side::AtLeast => self.bar / self.figure,
        };
        match strain {
            // Zero at a bar of zero.
            nan if nan.is_nan() && self.passes() => 0.0,
            nan if nan.is_nan() => f64::INFINITY,
            strain => strain,
        }
    }

    fn verdict(&self) -> &'static str {
        if self.passes() { "pass" } else { "FAIL" }
    }

    fn row(&self) -> Vec<String> {
        let sign = if self.side == Side::AtMost { "≤" } else { "≥" };
        vec![
            self.what.clone(),
            format!("{:.2}", self.figure),
            format!("{sign} {:.2}", self.bar),
            self.unit.to_owned(),
            self.verdict().to_owned(),
        ]
    }
}

/// Lines up columns: the first to the left, the others to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&header).chain(rows).collect();
    let width = |column: usize| all.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for row in all {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let padded = if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            text.push_str(&padded);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// The last line: the figure nearest to its bar, and whether all bars hold.
pub(crate) fn last_line(rig: &str, checks: &[Check]) -> String {
    // A broken bar comes first, also one at zero, to which nothing has a ratio.
    let order = |check: &Check| (!check.passes(), check.strain());
    let nearest = checks.iter().max_by(|a, b| {
        let (a, b) = (order(a), order(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    let Some(check) = nearest else { return format!("{rig}: 0 figures (bar 1) FAIL") };
    format!("{rig}: {:.2} {} (bar {:.2}) {}", check.figure, check.unit, check.bar, check.verdict())
}

/// Prints all checks and the last line, writes the JSON file with `more` in it, and gives the exit status.
pub(crate) fn finish(rig: &str, common: &Common, checks: &[Check], more: &Value) -> anyhow::Result<ExitCode> {
    let rows: Vec<Vec<String>> = checks.iter().map(Check::row).collect();
    if let Some(path) = &common.json {
        write_json(path, &json!({ "rig": rig, "short": common.short, "checks": checks, "more": more }))?;
    }
    println!("{}", table(&["figure", "measured", "bar", "unit", ""], &rows));
    println!("{}", last_line(rig, checks));
    let pass = !checks.is_empty() && checks.iter().all(Check::passes);
    Ok(if pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes figures to a file.
pub(crate) fn write_json(path: &Path, figures: &Value) -> anyhow::Result<()> {
    let mut text = String::new();
    writeln!(text, "{figures:#}").expect("writing to a string cannot fail");
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_names_the_figure_nearest_to_its_bar() {
        let checks = [Check::at_most("easy", 1.0, 10.0, "ms"), Check::at_most("tight", 9.0, 10.0, "ms")];
        assert_eq!(last_line("rig", &checks), "rig: 9.00 ms (bar 10.00) pass");
    }

    #[test]
    fn a_broken_bar_is_named_before_all_others() {
        let checks = [Check::at_most("fine", 9.9, 10.0, "ms"), Check::at_least("broken", 80.0, 90.0, "%")];
        assert_eq!(last_line("rig", &checks), "rig: 80.00 % (bar 90.00) FAIL");
    }

    #[test]
    fn nothing_lost_does_not_hide_what_failed() {
        let checks = [Check::at_most("lost", 0.0, 0.0, "items"), Check::at_least("rate", 8.0, 10.0, "items/s")];
        assert_eq!(last_line("rig", &checks), "rig: 8.00 items/s (bar 10.00) FAIL");
        let checks = [Check::at_most("lost", 1.0, 0.0, "items"), Check::at_least("rate", 8.0, 10.0, "items/s")];
        assert_eq!(last_line("rig", &checks), "rig: 1.00 items (bar 0.00) FAIL");
    }

    #[test]
    fn a_bar_of_nothing_hides_no_broken_one() {
        let checks = [Check::at_most("lost", 2.0, 0.0, "prompts"), Check::at_most("seconds", 0.0, 0.0, "outcomes")];
        assert_eq!(last_line("rig", &checks), "rig: 2.00 prompts (bar 0.00) FAIL");
    }

    #[test]
    fn no_figure_and_no_number_fail() {
        assert_eq!(last_line("rig", &[]), "rig: 0 figures (bar 1) FAIL");
        assert!(!Check::at_most("nan", f64::NAN, 1.0, "ms").passes());
        let checks = [Check::at_most("nan", f64::NAN, 1.0, "ms"), Check::at_most("fine", 0.1, 1.0, "ms")];
        assert!(last_line("rig", &checks).ends_with("FAIL"));
    }

    #[test]
    fn zero_at_a_bar_of_zero_hides_no_broken_bar() {
        let checks = [Check::at_most("none", 0.0, 0.0, "faults"), Check::at_least("few", 18.0, 19.0, "faults")];
        assert_eq!(last_line("rig", &checks), "rig: 18.00 faults (bar 19.00) FAIL");
        let checks = [Check::at_most("one", 1.0, 0.0, "faults"), Check::at_least("few", 18.0, 19.0, "faults")];
        assert_eq!(last_line("rig", &checks), "rig: 1.00 faults (bar 0.00) FAIL");
    }

    #[test]
    fn columns_line_up() {
        let text = table(&["name", "n"], &[vec!["a".into(), "10".into()], vec!["long name".into(), "7".into()]]);
        assert_eq!(text, "name        n\na          10\nlong name   7\n");
    }

    #[test]
    fn figures_are_written_as_json() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("figures.json");
        let common = Common { json: Some(path.clone()), short: true };
        let code = finish("rig", &common, &[Check::at_most("x", 1.0, 2.0, "ms")], &json!(7)).unwrap();
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
        let read: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!((&read["checks"][0]["figure"], &read["more"]), (&json!(1.0), &json!(7)));
        let code =
            finish("rig", &Common { json: None, short: true }, &[Check::at_most("x", 3.0, 2.0, "ms")], &Value::Null)
                .unwrap();
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
    }
}
