//! One line of `doctor`.

use crate::terminal::{Colour, painted};
use serde_json::{Value, json};

/// How well a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// Well.
    Ok,
    /// It works, but.
    Warning,
    /// It does not work, or a promise is broken.
    Fault,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// What was found of a part. Built by level, so that only what is well has no next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// The part, one word for scripts.
    pub(super) part: &'static str,
    /// How well it is.
    pub(super) level: Level,
    /// The fact, with its values.
    pub(super) what: String,
    next: Option<String>,
}

impl Finding {
    pub(super) fn ok(part: &'static str, what: impl Into<String>) -> Self {
        Self { part, level: Level::Ok, what: what.into(), next: None }
    }

    pub(super) fn warning(part: &'static str, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { part, level: Level::Warning, what: what.into(), next: Some(next.into()) }
    }

    pub(super) fn fault(part: &'static str, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { part, level: Level::Fault, what: what.into(), next: Some(next.into()) }
    }

    /// For a person.
    pub(super) fn line(&self) -> String {
        let colour = match self.level {
            Level::Ok => Colour::Green,
            Level::Warning => Colour::Yellow,
            Level::Fault => Colour::Red,
        };
        // Escape sequences have no width: the padding stands outside of them.
        let word = self.level.word();
        let pad = " ".repeat(9 - word.len());
        let next = self.next.as_ref().map_or_else(String::new, |next| format!("{:9}next: {next}\n", ""));
        format!("{}{pad}{}: {}\n{next}", painted(word, colour), self.part, self.what)
    }

    /// For a script.
    pub(super) fn json(&self) -> Value {
        json!({ "part": self.part, "level": self.level.word(), "what": self.what, "next": self.next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_says_what_to_do() {
        assert_eq!(Finding::ok("disk", "1 GiB free").line(), "ok       disk: 1 GiB free\n");
        let fault = Finding::fault("disk", "it is full", "make room");
        assert_eq!(fault.line(), "fault    disk: it is full\n         next: make room\n");
        assert_eq!(fault.json()["next"], "make room");
    }
}
