//! Text of prompts and answers, which never reaches a log.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Text of a prompt or an answer. `Debug` tells its length only; there is no `Display`.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PromptText(String);

impl PromptText {
    /// The text itself: for the model, the wire and the disk, never for a log.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for PromptText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for PromptText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for PromptText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}
