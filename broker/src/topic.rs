//! Topic names and filters: what may pass, and what matches. rumqttd checks neither, and some of them kill it.

/// Longest topic or filter unless the configuration says otherwise, in bytes. rumqttd keeps every one that it ever saw;
/// ours have at most 4 × 64 and change.
pub(crate) const TOPIC_BYTES_MAX: usize = 320;
/// Most levels of a topic or filter unless the configuration says otherwise: matching costs one step per level.
pub(crate) const LEVELS_MAX: usize = 32;

/// What the backend can take as the first character of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// rumqttd cuts a topic after its first byte.
    Ascii,
    Any,
}

/// Bounds of topics and filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) bytes_max: usize,
    pub(crate) levels_max: usize,
    pub(crate) first: First,
}

impl Bounds {
    /// The specification's own.
    pub(crate) const WIDEST: Self =
        Self { bytes_max: u16::MAX as usize, levels_max: u16::MAX as usize, first: First::Any };
}

/// Why a topic or filter does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadTopic(pub(crate) &'static str);

fn check(text: &str, bounds: Bounds) -> Result<(), BadTopic> {
    match text.as_bytes().first() {
        None => Err(BadTopic("topic is empty")),
        Some(b'$') => Err(BadTopic("topic starts with $")),
        Some(first) if bounds.first == First::Ascii && !first.is_ascii() => {
            Err(BadTopic("topic starts with a character outside ASCII"))
        }
        _ if text.len() > bounds.bytes_max => Err(BadTopic("topic is longer than the limit")),
        _ if text.split('/').count() > bounds.levels_max => Err(BadTopic("topic has more levels than the limit")),
        _ => Ok(()),
    }
}

/// Checks the name of a topic that is published to.
///
/// # Errors
/// Why it does not pass.
pub(crate) fn check_name(name: &str, bounds: Bounds) -> Result<(), BadTopic> {
    check(name, bounds)?;
    if name.contains(['+', '#']) { Err(BadTopic("topic name has a wildcard")) } else { Ok(()) }
}

/// Checks a filter that is subscribed.
///
/// # Errors
/// Why it does not pass.
pub(crate) fn check_filter(filter: &str, bounds: Bounds) -> Result<(), BadTopic> {
    check(filter, bounds)?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.len() > 1 && level.contains(['+', '#']) {
            return Err(BadTopic("wildcard does not fill its level"));
        }
        if level == "#" && levels.peek().is_some() {
            return Err(BadTopic("# is not the last level"));
        }
    }
    Ok(())
}

/// Whether a checked filter matches a checked topic name.
pub(crate) fn matches(filter: &str, name: &str) -> bool {
    let mut names = name.split('/');
    for level in filter.split('/') {
        if level == "#" {
            return true;
        }
        match names.next() {
            Some(name) if level == "+" || level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, name, expect) in [
            ("a/b", "a/b", true),
            ("a/+", "a/b", true),
            ("a/+", "a/b/c", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("+/+", "/b", true),
            ("#", "a/b", true),
            ("a/b", "a/b/", false),
            ("+", "a/b", false),
        ] {
            assert_eq!(matches(filter, name), expect, "{filter} {name}");
        }
    }

    #[test]
    fn what_harms_rumqttd_does_not_pass() {
        let bounds = Bounds { bytes_max: TOPIC_BYTES_MAX, levels_max: LEVELS_MAX, first: First::Ascii };
        for name in ["", "$SYS/x", "é/x", "x/+", "x/#", &"a".repeat(321), &"a/".repeat(32)] {
            assert!(check_name(name, bounds).is_err(), "{name}");
        }
        for filter in ["", "$share/g/t", "é/x", "a/#/b", "a+/b", "a/b#"] {
            assert!(check_filter(filter, bounds).is_err(), "{filter}");
        }
        assert!(check_name("büro/é", bounds).is_ok() && check_filter("a/+/#", bounds).is_ok());
    }
}
