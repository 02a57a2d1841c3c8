//! Canary prompts: what a model must answer before it takes over.
//!
//! Invariants: every task is tried with a prompt that is no secret; no word of prompts and answers stands in a reason.

use crate::config::Config;
use crate::engine::Successor;
use crate::schema::{self, Checker};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tidegate_core::Task;
use tidegate_engine::protocol::{Done, Run, Stop};
use tidegate_schemas::{JobId, Message, PromptText, Role, TaskName};

/// Longest wait for one answer: a long one of a large model on a small processor.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// Most canary prompts of a file: an operator waits for them.
const CANARIES_MAX: usize = 64;
/// Largest file of them, in bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// A canary prompt.
#[derive(Debug, Clone)]
struct Canary {
    task: TaskName,
    prompt: PromptText,
    /// What the answer must be; none: anything that the task allows.
    answer: Option<Value>,
}

/// A line of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    task: Option<TaskName>,
    prompt: String,
    answer: Value,
}

/// Asks all of them; gives how many there were.
///
/// # Errors
/// Which one failed, and how.
pub(super) async fn all(successor: &mut Successor, config: &Config) -> Result<usize, String> {
    let canaries = canaries(config)?;
    for (number, canary) in canaries.iter().enumerate() {
        let failed =
            |why: &str| format!("canary prompt {} of {} (task {}): {why}", number + 1, canaries.len(), canary.task);
        let Some(task) = config.tasks.get(&canary.task) else { return Err(failed("there is no such task")) };
        let done = successor.answer(run(number, task, &canary.prompt), ANSWER_MAX).await.map_err(|why| failed(&why))?;
        judge(&done, task, canary.answer.as_ref()).map_err(failed)?;
    }
    Ok(canaries.len())
}

/// One of every task, then those of the file.
fn canaries(config: &Config) -> Result<Vec<Canary>, String> {
    let of_task = |task: &TaskName| Canary { task: task.clone(), prompt: crate::doctor::PROMPT.into(), answer: None };
    let mut canaries: Vec<Canary> = config.tasks.keys().map(of_task).collect();
    if let Some(file) = &config.engine.canaries {
        canaries.extend(read(file, &config.default_task).map_err(|why| format!("{}: {why}", file.display()))?);
    }
    Ok(canaries)
}

fn read(file: &Path, default_task: &TaskName) -> Result<Vec<Canary>, String> {
    let bytes = std::fs::metadata(file).map_err(|e| e.to_string())?.len();
    if bytes > BYTES_MAX {
        return Err(format!("{bytes} bytes, limit is {BYTES_MAX}"));
    }
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        // The reason of a parser may repeat the text; its place is enough.
        let wrong = |e: serde_json::Error| format!("line {} is no canary prompt at column {}", number + 1, e.column());
        let Line { task, prompt, answer } = serde_json::from_str(line).map_err(wrong)?;
        let task = task.unwrap_or_else(|| default_task.clone());
        found.push(Canary { task, prompt: prompt.into(), answer: Some(answer) });
        if found.len() > CANARIES_MAX {
            return Err(format!("over {CANARIES_MAX} canary prompts, which is the limit"));
        }
    }
    Ok(found)
}

fn run(number: usize, task: &Task, prompt: &PromptText) -> Run {
    Run {
        job: JobId(number as u64),
        system: task.spec.system.clone(),
        messages: vec![Message { role: Role::User, content: prompt.clone() }],
        schema: task.spec.schema.clone(),
        max_tokens: task.spec.max_tokens,
        stream: false,
        floor: None,
    }
}

/// Whether an answer is one: whole and fitting where there is a schema, readable text where there is none, with signals
/// that are numbers, and as expected where that is said.
fn judge(done: &Done, task: &Task, expected: Option<&Value>) -> Result<(), &'static str> {
    if !done.signals.sum_logprob.is_finite() || !done.signals.mean_logprob.is_finite() {
        return Err("its log-probabilities are no numbers");
    }
    let text = done.text.reveal();
    match &task.spec.schema {
        Some(schema) => {
            let checker = Checker::new(schema).map_err(|_| "the task's schema cannot be used")?;
            if done.stop != Stop::End || schema::body(&done.text, Some(&checker)).is_none() {
                return Err("the answer is not whole, or does not fit the task's schema");
            }
        }
        None if text.trim().is_empty() => return Err("the answer is empty"),
        None if text.contains(char::REPLACEMENT_CHARACTER) => return Err("the answer is no text"),
        None => {}
    }
    match expected {
        Some(expected) if !crate::calibrate::same(expected, text) => Err("the answer is another than expected"),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_line_is_named_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let (file, task) = (folder.path().join("c.jsonl"), "intent".parse().unwrap());
        let check = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read(&file, &task).map(|found| found.iter().map(|c| c.task.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(
            check("{\"prompt\":\"a\",\"answer\":\"b\"}\n\n{\"task\":\"x\",\"prompt\":\"a\",\"answer\":{}}"),
            Ok(vec!["intent".to_owned(), "x".to_owned()])
        );
        let why = check("{\"prompt\":\"a\",\"answer\":\"b\"}\n{\"prompt\":\"secret\"}").unwrap_err();
        assert!(why.contains("line 2 is no canary prompt") && !why.contains("secret"), "{why}");
        let many = "{\"prompt\":\"a\",\"answer\":\"b\"}\n".repeat(CANARIES_MAX + 1);
        assert!(check(&many).unwrap_err().contains("over 64"), "too many");
    }
}
