//! Whether an answer fits its task's output schema. The same check stands before an answer of the own model and before
//! one from the cloud.

use jsonschema::{Draft, Validator};
use serde_json::Value;
use std::fmt;
use tidegate_schemas::{Body, Json, PromptText};

/// The draft that schemas are read by. Its meta-schema is one document; those of the later drafts cost 7 MB of memory.
const DRAFT: Draft = Draft::Draft7;

/// A compiled JSON Schema.
pub(crate) struct Checker(Validator);

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checker")
    }
}

impl Checker {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(schema: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(schema).map_err(|e| e.to_string())?;
        let options = jsonschema::options().with_draft(DRAFT);
        Ok(Self(options.build(&value).map_err(|e| e.to_string())?))
    }

    fn fits(&self, value: &Value) -> bool {
        self.0.is_valid(value)
    }
}

/// What the model wrote as an answer: text without a schema, JSON that fits with one; none if it does not.
pub(crate) fn body(text: &PromptText, checker: Option<&Checker>) -> Option<Body> {
    let Some(checker) = checker else { return Some(Body::Text(text.reveal().trim().into())) };
    let value: Value = serde_json::from_str(text.reveal()).ok()?;
    checker.fits(&value).then_some(Body::Json(Json(value)))
}

/// Whether a body that someone else made is an answer of the task.
pub(crate) fn accepts(body: &Body, checker: Option<&Checker>) -> bool {
    match (body, checker) {
        (Body::Json(Json(value)), Some(checker)) => checker.fits(value),
        (Body::Text(_), None) => true,
        (Body::Json(_), None) | (Body::Text(_), Some(_)) => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_json_that_fits_is_an_answer() {
        let schema = r#"{"type":"object","required":["intent"],"properties":{"intent":{"type":"string"}}}"#;
        let checker = Checker::new(schema).unwrap();
        for (text, expect) in [
            (r#"{"intent":"On"}"#, true),
            (r#"{"intent":1}"#, false),
            (r#"{"other":"On"}"#, false),
            (r#"{"intent":"On""#, false),
            ("on", false),
        ] {
            assert_eq!(body(&text.into(), Some(&checker)).is_some(), expect, "{text}");
        }
        assert!(!accepts(&Body::Text("on".into()), Some(&checker)));
        assert!(!accepts(&Body::Json(Json(Value::Null)), None));
        assert!(body(&"on".into(), None).is_some());
    }
}
