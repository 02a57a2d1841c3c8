//! The commented example: printed from the same reading that checks a file, so that it cannot go stale.

use super::check::read;
use super::reader::Asked;
use std::fmt::Write as _;
use std::path::Path;
use toml::Table;

const HEAD: &str = "\
# Tidegate: every key with its default. Keys without one stand commented out.
# Secrets stand in files of their own (password_file) or come as systemd credentials, never in here.
# Check with: tidegate config check FILE
";

/// Sections that stand commented out.
const DECISIONS: [&str; 3] = ["bridge", RULES, "intake"];
/// The section of which there may be many.
const RULES: &str = "bridge.forward";

/// A configuration file with every key, its default, its unit and why.
pub(crate) fn example() -> String {
    let (_, _, asked) = read(Table::new(), Path::new("."));
    let mut text = HEAD.to_owned();
    // TOML wants the keys of the root before the first section.
    let (root, rest): (Vec<&Asked>, Vec<&Asked>) = asked.iter().partition(|a| a.section.is_empty());
    root.into_iter().for_each(|a| entry(&mut text, a, ""));
    let mut sections: Vec<&str> = Vec::new();
    rest.iter().for_each(|a| {
        if !sections.contains(&a.section.as_str()) {
            sections.push(&a.section)
        }
    });
    for section in sections {
        // A bridge is a decision: it needs an address and each task's consent; so are its rules, and an intake.
        let mark = if DECISIONS.contains(&section) { "# " } else { "" };
        let _ = match section {
            RULES => write!(text, "\n{mark}[[{section}]]\n"),
            _ => write!(text, "\n{mark}[{section}]\n"),
        };
        rest.iter().filter(|a| a.section == section).for_each(|a| entry(&mut text, a, mark));
    }
    text
}

/// The same for a script: a list of keys.
pub(crate) fn example_json() -> String {
    let (_, _, asked) = read(Table::new(), Path::new("."));
    let entry = |a: &Asked| {
        // The default is written as in TOML.
        serde_json::json!({ "section": a.section, "key": a.key, "default": a.default, "allowed": a.allowed, "why": a.why })
    };
    format!("{}\n", serde_json::Value::from(asked.iter().map(entry).collect::<Vec<_>>()))
}

fn entry(text: &mut String, asked: &Asked, mark: &str) {
    let _ = writeln!(text, "# {} Allowed: {}.", asked.why, asked.allowed);
    let _ = match &asked.default {
        Some(default) => writeln!(text, "{mark}{} = {default}", asked.key),
        None => writeln!(text, "# {} = …", asked.key),
    };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_valid_configuration_and_equals_the_defaults() {
        let text = example();
        let (config, mistakes, _) = read(text.parse().unwrap(), Path::new("."));
        assert_eq!(mistakes, Vec::<String>::new(), "{text}");
        let (default, _, _) = read(Table::new(), Path::new("."));
        assert_eq!(format!("{:?}", config.unwrap()), format!("{:?}", default.unwrap()));
    }

    #[test]
    fn every_key_says_what_is_allowed_and_why() {
        let text = example();
        for key in ["slots = 2", "timeout_ms = 10000", "[tasks.action]", "# [bridge]", "cloud = \"never\""] {
            assert!(text.contains(key), "{key} is not in\n{text}");
        }
    }
}
