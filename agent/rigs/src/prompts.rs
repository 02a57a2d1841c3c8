//! Prompts with their known answers, and whether an answer is right. JSON lines with `prompt` and, where known,
//! `intent` (then the task is `intent`) or `answer` (then the task is `action`).

use anyhow::{Context as _, bail};
use serde_json::Value;
use std::path::Path;
use tidegate_schemas::{Body, Json};

/// The set that the demo uses when no file is named: own sentences.
const SHIPPED: &str = include_str!("../prompts/demo.jsonl");

/// The shipped tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// A device command to a JSON action.
    Action,
    /// An utterance to one of 150 intents.
    Intent,
}

impl Task {
    /// Its name, which is also the system text that the shipped models were trained with.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Intent => "intent",
        }
    }
}

/// What would be right.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expected {
    /// This label.
    Intent(String),
    /// This object.
    Action(Value),
    /// Nobody knows.
    Unknown,
}

/// One prompt of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    /// The sentence.
    pub(crate) prompt: String,
    /// What would be right.
    pub(crate) expected: Expected,
}

impl Line {
    /// The task that it belongs to.
    pub(crate) fn task(&self) -> Task {
        match self.expected {
            Expected::Intent(_) => Task::Intent,
            Expected::Action(_) | Expected::Unknown => Task::Action,
        }
    }

    /// Whether anybody knows what would be right.
    pub(crate) fn is_known(&self) -> bool {
        self.expected != Expected::Unknown
    }

    /// The line of a file that says the same.
    pub(crate) fn to_json(&self) -> Value {
        match &self.expected {
            Expected::Intent(label) => serde_json::json!({ "prompt": self.prompt, "intent": label }),
            Expected::Action(action) => serde_json::json!({ "prompt": self.prompt, "answer": action }),
            Expected::Unknown => serde_json::json!({ "prompt": self.prompt }),
        }
    }

    /// Whether an answer is right; none where nobody knows.
    pub(crate) fn judges(&self, body: &Body) -> Option<bool> {
        match &self.expected {
            Expected::Intent(label) => Some(label.eq_ignore_ascii_case(body.to_line().reveal().trim())),
            Expected::Action(action) => Some(same_json(action, body)),
            Expected::Unknown => None,
        }
    }
}

/// The prompts that ship with the rigs.
pub(crate) fn shipped() -> Vec<Line> {
    read_from(SHIPPED, Path::new("demo.jsonl")).expect("a test reads the shipped prompts")
}

/// Reads a file; a broken line is named with its number.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    read_from(&text, path)
}

/// Reads lines that were read before; `path` names them in an error.
pub(crate) fn read_from(text: &str, path: &Path) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let parsed = parse_line(line).with_context(|| format!("{}:{}", path.display(), number + 1))?;
        lines.push(parsed);
    }
    if lines.is_empty() {
        bail!("{} has no prompts", path.display());
    }
    Ok(lines)
}

fn parse_line(line: &str) -> anyhow::Result<Line> {
    let record: Value = serde_json::from_str(line)?;
    let prompt = record["prompt"].as_str().context("prompt is missing or is no text")?;
    let expected = match (&record["intent"], &record["answer"]) {
        (Value::String(label), Value::Null) => Expected::Intent(label.clone()),
        (Value::Null, Value::Object(action)) => Expected::Action(Value::Object(action.clone())),
        (Value::Null, Value::Null) => Expected::Unknown,
        _ => bail!("intent is no text, answer is no object, or both are there"),
    };
    Ok(Line { prompt: prompt.to_owned(), expected })
}

/// JSON equal after lower-casing; an answer in text is read as JSON.
fn same_json(action: &Value, body: &Body) -> bool {
    let given = match body {
        Body::Json(Json(value)) => Some(value.clone()),
        Body::Text(text) => serde_json::from_str(text.reveal()).ok(),
    };
    given.is_some_and(|given| lowered(&given) == lowered(action))
}

fn lowered(value: &Value) -> Value {
    match value {
        Value::String(text) => text.to_lowercase().into(),
        Value::Array(list) => list.iter().map(lowered).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.to_lowercase(), lowered(value))).collect(),
        // 20 and 20.0 are one temperature.
        Value::Number(number) => number.as_f64().map_or_else(|| value.clone(), Value::from),
        Value::Null | Value::Bool(_) => value.clone(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn line(text: &str) -> Line {
        parse_line(text).unwrap()
    }

    #[test]
    fn shipped_prompts_are_two_hundred_different_ones_of_both_tasks() {
        let lines = shipped();
        assert_eq!(lines.len(), 200);
        let different: BTreeSet<&str> = lines.iter().map(|l| l.prompt.as_str()).collect();
        assert_eq!(different.len(), 200);
        let intents = lines.iter().filter(|l| l.task() == Task::Intent).count();
        assert!((80..=120).contains(&intents), "{intents} intents");
        assert!(lines.iter().all(|l| l.expected != Expected::Unknown));
    }

    #[test]
    fn the_task_follows_from_what_is_known() {
        assert_eq!(line(r#"{"prompt":"a","intent":"time"}"#).task(), Task::Intent);
        assert_eq!(line(r#"{"prompt":"a","answer":{"intent":"HassTurnOn"}}"#).task(), Task::Action);
        for text in [r#"{"prompt":"a","intent":"time"}"#, r#"{"prompt":"a","answer":{"x":1}}"#, r#"{"prompt":"a"}"#] {
            assert_eq!(parse_line(&line(text).to_json().to_string()).unwrap(), line(text));
        }
        assert_eq!(line(r#"{"prompt":"a"}"#).judges(&Body::Text("x".into())), None);
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = read_from("{\"prompt\":\"a\"}\n{\"prompt\":3}\n", Path::new("p.jsonl")).unwrap_err();
        assert_eq!(format!("{error:#}"), "p.jsonl:2: prompt is missing or is no text");
        assert!(read_from("", Path::new("p.jsonl")).is_err());
        assert!(parse_line(r#"{"prompt":"a","intent":"time","answer":{}}"#).is_err());
    }

    #[test]
    fn scoring() {
        let intent = line(r#"{"prompt":"a","intent":"tell_joke"}"#);
        let action = line(r#"{"prompt":"a","answer":{"intent":"HassTurnOn","name":"Pump","temperature":20}}"#);
        let check = |line: &Line, body: Body, right| assert_eq!(line.judges(&body), Some(right), "{line:?}");
        check(&intent, Body::Text(" tell_joke\n".into()), true);
        check(&intent, Body::Text("tell_jokes".into()), false);
        let json = |text| Body::Json(Json(serde_json::from_str(text).unwrap()));
        check(&action, json(r#"{"name":"pump","intent":"hassturnon","temperature":20.0}"#), true);
        check(&action, Body::Text(r#"{"intent":"HassTurnOn","name":"pump","temperature":20}"#.into()), true);
        check(&action, json(r#"{"name":"pump","intent":"HassTurnOn"}"#), false);
        check(&action, json(r#"{"name":"pump","intent":"HassTurnOn","temperature":20,"area":"x"}"#), false);
        check(&action, Body::Text("pump".into()), false);
    }
}
