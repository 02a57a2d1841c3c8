//! The rights file: rules that say which identities may publish, subscribe and have wills where, beside a device's own
//! prompt, control and answer topics, which need no rule.
//!
//! ```toml
//! [[rule]]
//! who = ["press-*", "local"]          # names; a star at the end stands for any rest
//! publish = ["plant/{identity}/#"]
//! subscribe = ["plant/#", "tg/v1/+/+/state/+"]
//! will = ["plant/{identity}/status"]
//! ```

use super::pattern::{Names, Pattern, covers};
use crate::error::DoorError;
use crate::topic;
use serde::Deserialize;
use std::borrow::Cow;
use std::path::Path;

/// Rules of one file: each is looked at for each publish of general traffic.
const RULES_MAX: usize = 256;

/// What may be done on general topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Publish,
    Will,
}

/// Who may do what on general topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rights {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    who: Vec<String>,
    publish: Vec<Pattern>,
    subscribe: Vec<Pattern>,
    will: Vec<Pattern>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    rule: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    who: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    will: Vec<String>,
}

impl Rights {
    /// Without a file: everybody who is in may use all general topics, and read state and events.
    pub(crate) fn open() -> Self {
        let all = || vec![Pattern::new("#").unwrap_or_else(|_| unreachable!("# is a filter"))];
        let rule = Rule { who: vec!["*".to_owned()], publish: all(), subscribe: all(), will: all() };
        Self { rules: vec![rule] }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or everything that is wrong in it.
    pub(crate) fn read(path: &Path) -> Result<Self, DoorError> {
        let text = std::fs::read_to_string(path).map_err(|source| DoorError::Read { path: path.to_owned(), source })?;
        parse(&text).map_err(|mistakes| DoorError::Rights { path: path.to_owned(), what: mistakes.join("; ") })
    }

    fn of<'a>(&'a self, identity: &'a str) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(move |rule| rule.who.iter().any(|who| is(who, identity)))
    }

    /// Whether a client may publish there, or leave a will for it. The topic is a checked name outside `tg`.
    pub(crate) fn allow(&self, action: Action, names: Names<'_>, name: &str) -> bool {
        self.of(names.identity).any(|rule| {
            let patterns = match action {
                Action::Publish => &rule.publish,
                Action::Will => &rule.will,
            };
            patterns.iter().filter_map(|p| p.filled(names)).any(|filter| topic::matches(&filter, name))
        })
    }

    /// Whether a client may read everything that a checked filter matches.
    pub(crate) fn allow_filter(&self, names: Names<'_>, filter: &str) -> bool {
        self.subscriptions(names).any(|(_, granted)| covers(&granted, filter))
    }

    /// Whether a rule speaks of these topics below `tg` by name: other devices' answers are nobody's by a mere `#`.
    pub(crate) fn allow_ours(&self, names: Names<'_>, filter: &str) -> bool {
        self.subscriptions(names).any(|(pattern, granted)| pattern.is_ours() && covers(&granted, filter))
    }

    fn subscriptions<'a>(&'a self, names: Names<'a>) -> impl Iterator<Item = (&'a Pattern, Cow<'a, str>)> {
        let patterns = self.of(names.identity).flat_map(|rule| &rule.subscribe);
        patterns.filter_map(move |pattern| Some((pattern, pattern.filled(names)?)))
    }
}

fn is(who: &str, identity: &str) -> bool {
    match who.strip_suffix('*') {
        Some(start) => identity.starts_with(start),
        None => who == identity,
    }
}

fn parse(text: &str) -> Result<Rights, Vec<String>> {
    let raw: RawFile = toml::from_str(text).map_err(|e| vec![e.message().replace('\n', ", ")])?;
    let mut mistakes = Vec::new();
    if raw.rule.len() > RULES_MAX {
        mistakes.push(format!("{} rules, allowed are {RULES_MAX}", raw.rule.len()));
    }
    let rules = raw.rule.into_iter().enumerate().map(|(at, raw)| rule(at + 1, raw, &mut mistakes)).collect();
    if mistakes.is_empty() { Ok(Rights { rules }) } else { Err(mistakes) }
}

fn rule(at: usize, raw: RawRule, mistakes: &mut Vec<String>) -> Rule {
    if raw.who.is_empty() {
        mistakes.push(format!("rule {at}: who is empty"));
    }
    if raw.who.iter().any(|who| who.is_empty() || who.trim_end_matches('*').contains('*') || who.ends_with("**")) {
        mistakes.push(format!("rule {at}: who has a name that is empty or has * before its end"));
    }
    let mut patterns = |key: &str, texts: Vec<String>, ours: Ours| {
        let mut found = Vec::with_capacity(texts.len());
        for text in texts {
            match Pattern::new(&text) {
                Ok(pattern) if ours == Ours::Refused && pattern.is_ours() => {
                    mistakes.push(format!("rule {at}: {key} {text:?} is below tg, where only Tidegate publishes"));
                }
                Ok(pattern) => found.push(pattern),
                Err(what) => mistakes.push(format!("rule {at}: {key} {what}")),
            }
        }
        found
    };
    Rule {
        publish: patterns("publish", raw.publish, Ours::Refused),
        subscribe: patterns("subscribe", raw.subscribe, Ours::Allowed),
        will: patterns("will", raw.will, Ours::Refused),
        who: raw.who,
    }
}

/// Whether a pattern may name topics below `tg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ours {
    Allowed,
    Refused,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FILE: &str = "[[rule]]\nwho = [\"press-*\"]\npublish = [\"plant/{identity}/#\"]\n\
        subscribe = [\"plant/+/temp\", \"tg/v1/+/+/answer/+\"]\nwill = [\"plant/{client_id}/gone\"]\n";

    #[test]
    fn rules_grant_what_they_say_and_nothing_else() {
        let rights = parse(FILE).unwrap();
        let press = Names { identity: "press-1", client_id: "c" };
        let other = Names { identity: "saw-1", client_id: "c" };
        for (action, name, expect) in [
            (Action::Publish, "plant/press-1/temp", true),
            (Action::Publish, "plant/press-2/temp", false),
            (Action::Publish, "plant/c/gone", false),
            (Action::Will, "plant/c/gone", true),
            (Action::Will, "plant/press-1/gone", false),
        ] {
            assert_eq!(rights.allow(action, press, name), expect, "{action:?} {name}");
            assert!(!rights.allow(action, other, name), "{action:?} {name} of another");
        }
        for (filter, expect) in [("plant/+/temp", true), ("plant/a/temp", true), ("plant/#", false), ("#", false)] {
            assert_eq!(rights.allow_filter(press, filter), expect, "{filter}");
        }
        assert!(rights.allow_ours(press, "tg/v1/s/g/answer/d7") && !rights.allow_ours(other, "tg/v1/s/g/answer/d7"));
        assert!(!Rights::open().allow_ours(press, "tg/v1/s/g/answer/d7"));
    }

    #[test]
    fn all_mistakes_of_a_file_are_told_at_once() {
        let bad = "[[rule]]\nwho = []\npublish = [\"tg/x\", \"a/#/b\"]\n[[rule]]\nwho = [\"a*b\"]\nwill = [\"{x}\"]\n";
        let mistakes = parse(bad).unwrap_err();
        assert_eq!(mistakes.len(), 5, "{mistakes:?}");
        assert!(parse("[[rule]]\nwho = [\"a\"]\nsubcribe = []\n").unwrap_err()[0].contains("subcribe"));
    }
}
