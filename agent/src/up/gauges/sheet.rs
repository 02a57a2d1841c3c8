//! One sheet of numbers, written once and read three ways: Prometheus' text format 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>), a flat JSON object with the same names, and the page.
//!
//! Invariants: a family is written whole before the next begins; values are finite; label values are escaped.

use serde_json::{Map, Value};
use std::fmt::Write as _;

/// A value that only grows while the process lives.
pub(super) const COUNTER: Kind = Kind("counter");
/// A value that comes and goes.
pub(super) const GAUGE: Kind = Kind("gauge");

/// The type of a family.
#[derive(Debug, Clone, Copy)]
pub(in crate::up) struct Kind(&'static str);

/// A number of any of our types.
pub(in crate::up) trait Number {
    /// As Prometheus has all numbers. Whole numbers are exact up to 2^53.
    fn number(self) -> f64;
}

impl Number for u64 {
    fn number(self) -> f64 {
        self as f64
    }
}

impl Number for f64 {
    fn number(self) -> f64 {
        self
    }
}

impl Number for bool {
    fn number(self) -> f64 {
        f64::from(u8::from(self))
    }
}

/// The numbers so far, in both forms.
#[derive(Debug, Default, Clone)]
pub(in crate::up) struct Sheet {
    text: String,
    numbers: Map<String, Value>,
}

impl Sheet {
    /// The text for Prometheus.
    pub(in crate::up) fn text(&self) -> &str {
        &self.text
    }

    /// The same as one flat JSON object.
    pub(in crate::up) fn numbers(&self) -> &Map<String, Value> {
        &self.numbers
    }

    /// A family of one sample.
    pub(in crate::up) fn one(&mut self, kind: Kind, name: &str, help: &str, value: impl Number) {
        self.head(kind.0, name, help);
        self.sample(name.to_owned(), value.number());
    }

    /// A family with one label.
    pub(in crate::up) fn each<N: Number>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (impl AsRef<str>, N)>,
    ) {
        self.head(kind.0, name, help);
        for (value, number) in samples {
            self.sample(format!("{name}{{{label}=\"{}\"}}", escaped(value.as_ref())), number.number());
        }
    }

    /// A histogram of bins that are not summed up yet; the last is that of everything.
    pub(in crate::up) fn histogram<'e>(
        &mut self,
        name: &str,
        help: &str,
        bins: impl IntoIterator<Item = (&'e str, u64)>,
        (count, sum): (u64, f64),
    ) {
        self.head("histogram", name, help);
        let mut below = 0;
        for (end, in_bin) in bins {
            below += in_bin;
            self.sample(format!("{name}_bucket{{le=\"{end}\"}}"), below.number());
        }
        self.sample(format!("{name}_bucket{{le=\"+Inf\"}}"), count.number());
        self.sample(format!("{name}_sum"), sum);
        self.sample(format!("{name}_count"), count.number());
    }

    fn head(&mut self, kind: &str, name: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: String, value: f64) {
        let value = if value.is_finite() { value } else { 0.0 };
        let _ = writeln!(self.text, "{name} {value}");
        // A whole number looks like one in JSON, too.
        let json =
            if value.fract() == 0.0 && value.abs() < 9e15 { Value::from(value as i64) } else { Value::from(value) };
        self.numbers.insert(name, json);
    }
}

/// A label value as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_as_prometheus_reads_it() {
        let mut sheet = Sheet::default();
        sheet.one(GAUGE, "a_ratio", "A.", 0.5);
        sheet.each(COUNTER, "b_total", "B.", "why", [("x\"y\\\n", 3_u64)]);
        sheet.histogram("c_seconds", "C.", [("0.1", 2), ("1", 1)], (4, 9.5));
        let expect = "# HELP a_ratio A.\n# TYPE a_ratio gauge\na_ratio 0.5\n\
            # HELP b_total B.\n# TYPE b_total counter\nb_total{why=\"x\\\"y\\\\\\n\"} 3\n\
            # HELP c_seconds C.\n# TYPE c_seconds histogram\nc_seconds_bucket{le=\"0.1\"} 2\n\
            c_seconds_bucket{le=\"1\"} 3\nc_seconds_bucket{le=\"+Inf\"} 4\nc_seconds_sum 9.5\nc_seconds_count 4\n";
        assert_eq!(sheet.text(), expect);
        assert_eq!(sheet.numbers()["c_seconds_bucket{le=\"1\"}"], 3);
        assert_eq!(sheet.numbers()["a_ratio"], 0.5);
    }

    #[test]
    fn nothing_that_is_no_number_is_told() {
        let mut sheet = Sheet::default();
        sheet.one(GAUGE, "a", "A.", f64::NAN);
        assert!(sheet.text().ends_with("a 0\n"), "{}", sheet.text());
    }
}
