//! `tidegate explain ID`: why an answer took the way it took, in numbers and rules, never in its text.

use crate::cli::ExplainArgs;
use crate::failure::Failure;
use crate::status;
use crate::terminal::print;
use serde_json::Value;
use std::fmt::Write as _;

/// Runs the command.
pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let answer = status::ask_one(args.control.as_deref(), &format!(r#"{{"op":"explain","job":{}}}"#, args.job))?;
    if let Some(why) = answer["error"].as_str() {
        return Err(Failure::other(why));
    }
    print(&if args.json { format!("{answer}\n") } else { human(&answer) })
}

fn human(told: &Value) -> String {
    let number = |key: &str| told[key].as_f64();
    let shown = |key: &str| number(key).map_or_else(|| "none".to_owned(), |n| format!("{n:.4}"));
    let word = |key: &str| told[key].as_str().unwrap_or("-").to_owned();
    let mut text = String::new();
    let _ = writeln!(text, "job         {}", told["job"]);
    let _ = writeln!(text, "way         {} ({})", word("way"), word("reason"));
    let _ = writeln!(text, "rule        {}", word("rule"));
    let _ = writeln!(text, "confidence  {} (shipped {})", shown("confidence"), shown("shipped"));
    let _ = writeln!(text, "needed      {}", shown("threshold"));
    let _ = writeln!(text, "gain        {} expected from the cloud, at a price of {}", shown("gain"), shown("price"));
    let left = told["left_ms"].as_u64().map_or_else(|| "no deadline".to_owned(), |ms| format!("{ms} ms left"));
    let _ = writeln!(text, "deadline    {left}");
    let signals = &told["signals"];
    let of = |key: &str| signals[key].as_f64().map_or_else(|| "none".to_owned(), |n| format!("{n:.3}"));
    let _ = writeln!(
        text,
        "signals     sum {}, least {}, first margin {}, first entropy {}, removed {}, {} free and {} forced tokens",
        of("sum_logprob"),
        of("min_logprob"),
        of("first_margin"),
        of("first_entropy"),
        of("max_removed"),
        signals["tokens"],
        signals["forced"]
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_numbers_and_rules() {
        let told = serde_json::json!({
            "job": 7, "way": "escalate", "reason": "low_confidence", "rule": "under the configured threshold",
            "confidence": 0.42, "shipped": 0.5, "threshold": 0.8, "gain": 0.31, "price": 0.1, "left_ms": null,
            "signals": { "sum_logprob": -1.0, "tokens": 4, "forced": 2 }
        });
        let text = human(&told);
        for part in [
            "escalate (low_confidence)",
            "0.4200 (shipped 0.5000)",
            "needed      0.8000",
            "no deadline",
            "a price of 0.1000",
            "least none",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
