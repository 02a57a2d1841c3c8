//! The tasks that the shipped models were trained for. Their system texts are the words of the training.

/// A task as it is without a configuration.
#[derive(Debug)]
pub(super) struct Shipped {
    /// Its name.
    pub(super) name: &'static str,
    /// The system prompt.
    pub(super) system: &'static str,
    /// JSON Schema of its answer.
    pub(super) schema: Option<&'static str>,
    /// Most tokens of an answer.
    pub(super) max_tokens: u32,
    /// Start value of the output length, in tokens.
    pub(super) expected_tokens: u32,
}

/// A device command as JSON: the intent and whatever slots the sentence names. A name stands in the sentence, or is `all`.
const ACTION_SCHEMA: &str = r#"{"type":"object","properties":{"intent":{"type":"string"}},"required":["intent"],"patternProperties":{"^(name|area|floor|item|search_query|message|conversation_command|color)$":{"anyOf":[{"enum":["all"]},{"type":"string","x-from-prompt":true}]}},"additionalProperties":{"type":["string","number"]}}"#;

/// The shipped tasks; the first is the default.
pub(super) const SHIPPED: [Shipped; 2] = [
    Shipped { name: "action", system: "action", schema: Some(ACTION_SCHEMA), max_tokens: 128, expected_tokens: 24 },
    Shipped { name: "intent", system: "intent", schema: None, max_tokens: 16, expected_tokens: 4 },
];

/// The shipped task of that name.
pub(super) fn shipped(name: &str) -> Option<&'static Shipped> {
    SHIPPED.iter().find(|task| task.name == name)
}
