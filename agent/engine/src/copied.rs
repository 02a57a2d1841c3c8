//! Strings of an answer that stand in the prompt: the schema keyword `x-from-prompt`.
//!
//! A device command names rooms and things that no model has read before, and a small model misspells some of them. A
//! string schema with `"x-from-prompt": true` becomes, prompt by prompt, a pattern that only the prompt's own words
//! match: one or more of them as they stand there, whole, in their own case or in lower case. What the mask leaves to
//! the model is which. Validators that do not know the keyword ignore it.
//!
//! Invariants: a fault has numbers and no text; the pattern's size is bounded.

use crate::grammar::SchemaFault;
use crate::protocol::Run;
use serde_json::Value;
use std::fmt::Write as _;
use tidegate_schemas::Role;

/// The keyword.
pub(crate) const KEYWORD: &str = "x-from-prompt";
/// Most words and signs of a prompt for a schema with the keyword. The pattern grows with their number times
/// [`SPAN_WORDS_MAX`]; a device command has some twenty.
const WORDS_MAX: usize = 160;
/// Most words and signs of one value.
const SPAN_WORDS_MAX: usize = 40;

/// The schema with the words of this run's user messages in place of the keyword; none where the keyword is not used.
pub(crate) fn bound(schema: &str, run: &Run) -> Result<Option<Value>, SchemaFault> {
    if !schema.contains(KEYWORD) {
        return Ok(None);
    }
    let mut value = serde_json::from_str(schema).map_err(|e| SchemaFault(format!("schema is not JSON: {e}")))?;
    let pattern = pattern(&said(run))?;
    replace(&mut value, &pattern)?;
    Ok(Some(value))
}

/// What the user said in this chat, each message on a line of its own.
fn said(run: &Run) -> Vec<&str> {
    run.messages.iter().filter(|message| message.role == Role::User).map(|message| message.content.reveal()).collect()
}

/// Puts the pattern wherever the keyword is true. Depth is bounded by serde_json's own limit of 128.
fn replace(value: &mut Value, pattern: &str) -> Result<(), SchemaFault> {
    match value {
        Value::Object(fields) => {
            match fields.remove(KEYWORD) {
                None | Some(Value::Bool(false)) => {}
                Some(Value::Bool(true)) => {
                    fields.insert("type".to_owned(), "string".into());
                    fields.insert("pattern".to_owned(), pattern.into());
                }
                Some(_) => return Err(SchemaFault(format!("{KEYWORD} is neither true nor false"))),
            }
            fields.values_mut().try_for_each(|field| replace(field, pattern))
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| replace(item, pattern)),
        _ => Ok(()),
    }
}

/// A regular expression for every run of whole words.
fn pattern(messages: &[&str]) -> Result<String, SchemaFault> {
    let mut runs: Vec<Vec<Word>> = messages.iter().map(|text| words(text)).collect();
    let lower: Vec<Vec<Word>> = messages.iter().map(|text| words(&text.to_lowercase())).collect();
    let count: usize = runs.iter().map(Vec::len).sum();
    if count > WORDS_MAX {
        let what = format!("prompt has {count} words and signs, a schema with {KEYWORD} takes {WORDS_MAX}");
        return Err(SchemaFault(what));
    }
    if count == 0 {
        return Err(SchemaFault(format!("prompt has no words, and the schema has {KEYWORD}")));
    }
    runs.extend(lower);
    runs.dedup();
    let starts = runs.iter().flat_map(|run| (0..run.len()).map(move |at| from(&run[at..])));
    Ok(format!("^(?:{})$", starts.collect::<Vec<_>>().join("|")))
}

/// The words of this run from its first: `a(?: b(?: c)?)?`.
fn from(run: &[Word]) -> String {
    let span = &run[..run.len().min(SPAN_WORDS_MAX)];
    let mut text = escaped(&span[0].text);
    for word in &span[1..] {
        let _ = write!(text, "(?:{}{}", escaped(&word.before), escaped(&word.text));
    }
    text + &")?".repeat(span.len() - 1)
}

/// A word or a single sign, and the white space before it.
#[derive(Debug, PartialEq, Eq)]
struct Word {
    before: String,
    text: String,
}

fn words(text: &str) -> Vec<Word> {
    let mut found: Vec<Word> = Vec::new();
    let mut before = String::new();
    // A letter or digit continues the word that the character before it belongs to.
    let mut open = false;
    for character in text.chars() {
        if character.is_whitespace() {
            before.push(character);
            open = false;
            continue;
        }
        let letter = character.is_alphanumeric();
        match found.last_mut().filter(|_| open && letter) {
            Some(word) => word.text.push(character),
            None => found.push(Word { before: std::mem::take(&mut before), text: character.into() }),
        }
        open = letter;
    }
    found
}

/// With a backslash before each character that means something in a regular expression.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_punctuation() {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tidegate_schemas::{JobId, Message};

    fn run(prompts: &[&str]) -> Run {
        Run {
            job: JobId(1),
            system: "SYSTEM".into(),
            messages: prompts.iter().map(|p| Message { role: Role::User, content: (*p).into() }).collect(),
            schema: None,
            max_tokens: 8,
            stream: false,
            floor: None,
        }
    }

    fn allowed(prompts: &[&str], value: &str) -> bool {
        let schema = r#"{"x-from-prompt": true}"#;
        let bound = bound(schema, &run(prompts)).unwrap().unwrap();
        assert_eq!(bound["type"], "string");
        jsonschema::is_valid(&bound, &value.into())
    }

    #[test]
    fn whole_words_of_the_prompt_are_allowed_and_nothing_else() {
        let prompt = "Turn off the A.C. in Zoe's packing hall, 5% [now]";
        for value in ["packing hall", "a.c.", "A.C.", "zoe's", "Zoe's packing hall", "5%", "turn", "[now]", "hall, 5"] {
            assert!(allowed(&[prompt], value), "{value}");
        }
        for value in ["", "pack", "acking hall", "packing  hall", "hall packing", "system", "a-c-", " hall", "hall "] {
            assert!(!allowed(&[prompt], value), "{value}");
        }
    }

    #[test]
    fn words_of_two_messages_do_not_join() {
        assert!(allowed(&["the left", "gate"], "gate"));
        assert!(!allowed(&["the left", "gate"], "left gate"));
    }

    #[test]
    fn words_of_any_script_are_whole() {
        assert!(allowed(&["schließe das Tor in Köln"], "köln"));
        assert!(!allowed(&["schließe das Tor in Köln"], "kö"));
        assert!(allowed(&["打开 厨房 的灯"], "厨房"));
    }

    #[test]
    fn a_schema_without_the_keyword_is_left_alone() {
        assert_eq!(bound(r#"{"type":"object"}"#, &run(&["a"])), Ok(None));
        let off = bound(r#"{"type":"string","x-from-prompt":false}"#, &run(&["a"])).unwrap().unwrap();
        assert_eq!(off, serde_json::json!({ "type": "string" }));
    }

    #[test]
    fn what_is_too_long_or_empty_or_no_switch_is_refused_with_numbers() {
        let schema = r#"{"properties":{"name":{"x-from-prompt":true}}}"#;
        let long = "word ".repeat(161);
        let said = bound(schema, &run(&[&long])).unwrap_err().0;
        assert_eq!(said, "prompt has 161 words and signs, a schema with x-from-prompt takes 160");
        assert!(bound(schema, &run(&["  "])).unwrap_err().0.contains("no words"));
        let odd = bound(r#"{"x-from-prompt":"yes"}"#, &run(&["a"])).unwrap_err().0;
        assert_eq!(odd, "x-from-prompt is neither true nor false");
    }
}
