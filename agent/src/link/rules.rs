//! Which of the user's own topics cross to the central broker, and how: the rules of `[[bridge.forward]]`. Pure.
//!
//! Invariants: a topic crosses by one rule at most, since filters that overlap are refused; nothing below `tg` or `$`
//! crosses, in or out, whatever a filter says: prompts, answers and control messages never leave by a rule.

use super::line::Delivery;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// First level of Tidegate's own topics.
const OWN_ROOT: &str = "tg";
/// Rules at most: each publish is held against all of them.
pub(crate) const RULES_MAX: usize = 64;

/// An MQTT topic filter that is well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter(String);

/// What is wrong with a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// No characters.
    #[error("an empty filter matches nothing")]
    Empty,
    /// A wildcard beside other characters, or `#` before the end.
    #[error("'+' stands alone in its level, '#' alone in the last")]
    Wildcard,
    /// Topics that are not the user's.
    #[error("topics below tg and $ never cross by a rule")]
    Reserved,
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() || text.contains('\0') {
            return Err(FilterError::Empty);
        }
        let levels: Vec<&str> = text.split('/').collect();
        let last = levels.len() - 1;
        let fits = |(place, level): (usize, &&str)| match *level {
            "+" => true,
            "#" => place == last,
            other => !other.contains(['+', '#']),
        };
        if !levels.iter().enumerate().all(fits) {
            return Err(FilterError::Wildcard);
        }
        if is_reserved(levels[0]) {
            return Err(FilterError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Filter {
    /// Whether it matches a topic name (MQTT 5.0, 4.7); reserved topics never.
    pub(crate) fn matches(&self, topic: &str) -> bool {
        let first = topic.split('/').next().unwrap_or_default();
        !is_reserved(first) && meet(self.0.split('/'), topic.split('/'))
    }

    /// Whether there is a topic name that both match.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        meet(self.0.split('/'), other.0.split('/'))
    }

    /// The text before its first wildcard.
    fn fixed(&self) -> &str {
        self.0.split(['+', '#']).next().unwrap_or_default()
    }
}

/// Whether two filters have a topic name in common; a topic name is a filter without wildcards.
fn meet<'a>(mut a: impl Iterator<Item = &'a str>, mut b: impl Iterator<Item = &'a str>) -> bool {
    loop {
        match (a.next(), b.next()) {
            // "x/#" matches "x" as well.
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(one), Some(two)) if one == two || one == "+" || two == "+" => {}
            _ => return false,
        }
    }
}

fn is_reserved(first_level: &str) -> bool {
    first_level == OWN_ROOT || first_level.starts_with('$')
}

/// How much an item matters when not all can cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Somebody should come.
    Alarm,
    /// What is reported anyway.
    Normal,
    /// What is nice to have.
    Bulk,
}

impl Class {
    /// Priority on the scale of prompts, 0 to 9.
    pub(crate) fn priority(self) -> u8 {
        match self {
            Self::Alarm => 9,
            Self::Normal => 5,
            Self::Bulk => 1,
        }
    }

    /// The word in the configuration.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }
}

/// One rule.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// Which topics.
    pub(crate) filter: Filter,
    /// What is taken off the front of a topic; a part of the filter before its first wildcard.
    pub(crate) strip: String,
    /// What is put in front instead.
    pub(crate) add: String,
    /// How it is published at the central broker.
    pub(crate) delivery: Delivery,
    /// How much it matters.
    pub(crate) class: Class,
    /// How long it may wait for the link; none: as long as there is room.
    pub(crate) ttl: Option<Duration>,
}

impl Rule {
    /// Its name: its filter, which no other rule has.
    pub(crate) fn name(&self) -> &str {
        &self.filter.0
    }

    /// What is wrong with its map of prefixes, if anything.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let whole_levels = self.strip.ends_with('/') && self.filter.fixed().starts_with(&self.strip);
        if !self.strip.is_empty() && !whole_levels {
            return Err("the part of filter before its first wildcard, or whole levels from its front, ending in /");
        }
        if self.add.contains(['+', '#', '\0']) || is_reserved(self.add.split('/').next().unwrap_or_default()) {
            return Err("a topic prefix without wildcards that is not below tg or $");
        }
        Ok(())
    }
}

/// A topic that crosses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Crossing {
    /// Its name at the central broker.
    pub(crate) topic: String,
    /// How it is published there.
    pub(crate) delivery: Delivery,
    /// How much it matters.
    pub(crate) class: Class,
    /// How long it may wait.
    pub(crate) ttl: Option<Duration>,
}

/// What the rules say of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken<'r> {
    /// It crosses by this rule.
    Crosses(&'r Rule, Crossing),
    /// A rule matches, but its name over there would be none of the user's.
    Barred(&'r Rule, &'static str),
    /// It stays.
    Stays,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.filter == other.filter
    }
}

impl Eq for Rule {}

/// All rules.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    /// These rules; the caller has refused overlaps.
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// The topics that the rules take.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Filter> {
        self.0.iter().map(|rule| &rule.filter)
    }

    /// How the rule of this name publishes; none if there is no such rule any more.
    pub(crate) fn delivery(&self, name: &str) -> Option<Delivery> {
        self.0.iter().find(|rule| rule.name() == name).map(|rule| rule.delivery)
    }

    /// What becomes of a publish on this topic.
    pub(crate) fn take(&self, topic: &str) -> Taken<'_> {
        let Some(rule) = self.0.iter().find(|rule| rule.filter.matches(topic)) else { return Taken::Stays };
        // "x/#" matches "x", from which "x/" cannot be taken.
        let Some(rest) = topic.strip_prefix(&rule.strip) else {
            return Taken::Barred(rule, "its name is shorter than what the rule strips");
        };
        let name = format!("{}{rest}", rule.add);
        if name.is_empty() || is_reserved(name.split('/').next().unwrap_or_default()) {
            return Taken::Barred(rule, "its name over there would be empty, or below tg or $");
        }
        let (delivery, class, ttl) = (rule.delivery, rule.class, rule.ttl);
        Taken::Crosses(rule, Crossing { topic: name, delivery, class, ttl })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        text.parse().unwrap()
    }

    fn rule(text: &str, strip: &str, add: &str) -> Rule {
        let (strip, add) = (strip.to_owned(), add.to_owned());
        Rule { filter: filter(text), strip, add, delivery: Delivery::Acknowledged, class: Class::Normal, ttl: None }
    }

    #[test]
    fn filters_match_as_the_specification_says() {
        for (text, topic, expect) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("#", "tg/v1/s/g/prompt/d", false),
            ("+/v1/s/g/answer/+", "tg/v1/s/g/answer/d", false),
            ("tgx/#", "tgx/a", true),
        ] {
            assert_eq!(filter(text).matches(topic), expect, "{text} {topic}");
        }
    }

    #[test]
    fn filters_that_are_none_or_not_ours_to_carry() {
        for text in ["", "a/#/b", "a+/b", "a/b#"] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
        for text in ["tg/#", "tg/v1/+/+/prompt/+", "$SYS/#", "tg"] {
            assert_eq!(text.parse::<Filter>(), Err(FilterError::Reserved), "{text}");
        }
    }

    #[test]
    fn overlaps_are_found_both_ways() {
        for (a, b, expect) in [
            ("a/#", "a/b/c", true),
            ("a/#", "a", true),
            ("a/+/c", "a/b/+", true),
            ("a/+", "a/b/c", false),
            ("a/+/c", "a/b/d", false),
            ("+/x", "a/#", true),
            ("a/b", "a/b", true),
            ("a/b", "a/c", false),
            ("#", "z", true),
        ] {
            assert_eq!(filter(a).overlaps(&filter(b)), expect, "{a} {b}");
            assert_eq!(filter(b).overlaps(&filter(a)), expect, "{b} {a}");
        }
    }

    #[test]
    fn prefixes_are_mapped_and_nothing_slips_into_our_own_topics() {
        let rules = Rules::new(vec![rule("sensors/#", "sensors/", "harbour/"), rule("x/#", "x/", "")]);
        let Taken::Crosses(_, crossing) = rules.take("sensors/7/t") else { panic!("stays") };
        assert_eq!(crossing.topic, "harbour/7/t");
        assert_eq!(rules.take("other/7"), Taken::Stays);
        for topic in ["x/tg/v1/s/g/prompt/d", "x/$SYS/y", "x/", "x"] {
            assert!(matches!(rules.take(topic), Taken::Barred(..)), "{topic}");
        }
    }

    #[test]
    fn a_map_of_prefixes_is_checked() {
        for (text, strip, add, good) in [
            ("a/b/#", "a/", "z/", true),
            ("a/b/#", "a/b/", "", true),
            ("a/b/#", "", "z/", true),
            ("a/+/c", "a/b/", "", false),
            ("a/b/#", "a", "", false),
            ("a/#", "a/", "tg/v1/", false),
            ("a/#", "a/", "z/+/", false),
        ] {
            assert_eq!(rule(text, strip, add).check().is_ok(), good, "{text} {strip} {add}");
        }
    }
}
