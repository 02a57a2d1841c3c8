//! The rules for EMQX grant what the rules for Mosquitto grant, which are tried out at a real one in `rights.rs`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

/// Role, action, topic with the user's name as `USER`.
type Granted = BTreeSet<(String, String, String)>;

fn deploy(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)).unwrap()
}

fn mosquitto() -> Granted {
    let (mut granted, mut role) = (Granted::new(), String::new());
    for line in deploy("mosquitto/acl").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let action = |word: &str| if word == "read" { "subscribe" } else { "publish" }.to_owned();
        match words[..] {
            ["user", name] => role = name.to_owned(),
            ["pattern", access, topic] => {
                granted.insert(("gateway".to_owned(), action(access), topic.replace("%u", "USER")));
            }
            ["topic", access, topic] => {
                granted.insert((role.clone(), action(access), topic.to_owned()));
            }
            _ => assert!(line.is_empty() || line.starts_with('#'), "{line}"),
        }
    }
    granted
}

fn emqx() -> Granted {
    let (mut granted, mut last) = (Granted::new(), "");
    let text = deploy("emqx/acl.conf");
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("%%")) {
        last = line;
        if line == "{deny, all}." {
            continue;
        }
        let rest = line.strip_prefix("{allow, {username, ").unwrap();
        let (who, rest) = rest.split_once("}, ").map(|(who, rest)| (who.trim_end_matches('}'), rest)).unwrap();
        let role = match who.strip_prefix("{re, ") {
            Some(pattern) => {
                assert!(pattern.starts_with("\"^[A-Za-z0-9_.-]") && pattern.ends_with("$\""), "{pattern}");
                "gateway".to_owned()
            }
            None => who.trim_matches('"').to_owned(),
        };
        let (action, topics) = rest.split_once(", [").unwrap();
        for topic in topics.strip_suffix("]}.").unwrap().split(", ") {
            let topic = topic.trim_matches('"').replace("${username}", "USER");
            granted.insert((role.clone(), action.to_owned(), topic));
        }
    }
    assert_eq!(last, "{deny, all}.", "what no rule allows is denied");
    granted
}

#[test]
fn both_brokers_grant_the_three_roles_the_same() {
    assert_eq!(emqx(), mosquitto());
    assert_eq!(emqx().len(), 9);
}
