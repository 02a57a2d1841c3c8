//! Patterns of topics: MQTT filters with `{identity}` and `{client_id}` in the place of a level or a part of one.
//!
//! Invariant: a name is filled in only if it matches `[A-Za-z0-9_.-]{1,64}`, so that no client can name itself into a
//! topic that is not its own.

use crate::topic;
use std::borrow::Cow;
use std::fmt;

const IDENTITY: &str = "{identity}";
const CLIENT_ID: &str = "{client_id}";
/// Longest name that is filled in, in bytes (the identifiers of our topics).
const NAME_BYTES_MAX: usize = 64;

/// Who asks: what the placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) identity: &'a str,
    pub(crate) client_id: &'a str,
}

/// A checked pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let plain = text.replace(IDENTITY, "x").replace(CLIENT_ID, "x");
        if plain.contains(['{', '}']) {
            return Err(format!("{text:?} has a placeholder other than {IDENTITY} and {CLIENT_ID}"));
        }
        topic::check_filter(&plain, topic::Bounds::WIDEST).map_err(|bad| format!("{text:?}: {}", bad.0))?;
        Ok(Self(text.to_owned()))
    }

    /// The filter for one client; none if one of its names cannot stand in a topic.
    pub(crate) fn filled(&self, names: Names<'_>) -> Option<Cow<'_, str>> {
        if !self.0.contains('{') {
            return Some(Cow::Borrowed(&self.0));
        }
        let mut filled = self.0.clone();
        for (placeholder, name) in [(IDENTITY, names.identity), (CLIENT_ID, names.client_id)] {
            if !filled.contains(placeholder) {
                continue;
            }
            if !is_plain(name) {
                return None;
            }
            filled = filled.replace(placeholder, name);
        }
        Some(Cow::Owned(filled))
    }

    /// Whether a topic of any client can be one of `filter`.
    pub(crate) fn overlaps(&self, filter: &str) -> bool {
        let level = |level: &str| if level.contains('{') { "+".to_owned() } else { level.to_owned() };
        let widest = self.0.split('/').map(level).collect::<Vec<_>>().join("/");
        overlap(&widest, filter)
    }

    /// Whether it speaks of topics below `tg` by name.
    pub(crate) fn is_ours(&self) -> bool {
        self.0 == "tg" || self.0.starts_with("tg/")
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// Whether every topic of `inner` is one of `outer`; both are checked filters.
pub(crate) fn covers(outer: &str, inner: &str) -> bool {
    let mut inner = inner.split('/').peekable();
    for level in outer.split('/') {
        if level == "#" {
            return true;
        }
        match inner.next() {
            Some("#") | None => return false,
            Some(one) if level == "+" || level == one => {}
            Some(_) => return false,
        }
    }
    inner.next().is_none()
}

/// Whether some topic is one of both filters.
pub(crate) fn overlap(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('/').peekable(), b.split('/').peekable());
    loop {
        match (a.next(), b.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(x), Some(y)) if x == y || x == "+" || y == "+" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_filter_covers_another() {
        for (outer, inner, expect) in [
            ("#", "a/+/#", true),
            ("a/#", "a", true),
            ("a/#", "a/b/#", true),
            ("a/+", "a/b", true),
            ("a/+", "a/+", true),
            ("a/+", "a/#", false),
            ("a/b", "a/+", false),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("+", "#", false),
        ] {
            assert_eq!(covers(outer, inner), expect, "{outer} covers {inner}");
        }
    }

    #[test]
    fn two_filters_meet() {
        for (a, b, expect) in [
            ("a/+", "+/b", true),
            ("a/#", "a", true),
            ("#", "x/y", true),
            ("a/b", "a/c", false),
            ("a/+", "a", false),
            ("a/+/c", "a/b/#", true),
        ] {
            assert_eq!(overlap(a, b), expect, "{a} {b}");
            assert_eq!(overlap(b, a), expect, "{b} {a}");
        }
    }

    #[test]
    fn names_that_could_widen_a_pattern_are_not_filled_in() {
        let pattern = Pattern::new("plant/{identity}/{client_id}/#").unwrap();
        let filled = |identity, client_id| pattern.filled(Names { identity, client_id });
        assert_eq!(filled("d7", "c-1").as_deref(), Some("plant/d7/c-1/#"));
        for bad in ["", "+", "#", "a/b", "é", "a b", "{client_id}", &"x".repeat(65)] {
            assert_eq!(filled(bad, "c"), None, "{bad}");
            assert_eq!(filled("d7", bad), None, "{bad}");
        }
        assert!(Pattern::new("x/{device}").is_err() && Pattern::new("a/#/b").is_err());
        assert!(pattern.overlaps("plant/+/x/y") && !pattern.overlaps("tg/#"));
    }
}
