//! `tidegate bridge inspect` and `tidegate bridge test`: which rule takes a topic and where to, and whether a message
//! goes to each address of the central broker and back. Neither needs the gateway to run; both use its configuration.

mod trip;

pub(crate) use trip::{Trip, all as trips};

use crate::cli::BridgeCommand;
use crate::config::{self, BridgeConfig, Config, Source};
use crate::failure::Failure;
use crate::link::{Delivery, Rules, Taken};
use crate::terminal::print;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tidegate_schemas::Topic;

/// Runs the command.
pub(crate) fn run(command: &BridgeCommand) -> Result<(), Failure> {
    match command {
        BridgeCommand::Inspect { topic, config, json } => {
            let (_, bridge) = load(config.as_deref())?;
            let (text, crosses) = inspect(&bridge.rules, topic);
            print(&if *json { pairs(&text, crosses) } else { text })?;
            if crosses { Ok(()) } else { Err(Failure::other(format!("{topic:?} stays on the gateway"))) }
        }
        BridgeCommand::Test { config, timeout, json } => {
            let (config, bridge) = load(config.as_deref())?;
            let limit = Duration::from_secs(*timeout);
            let trips = crate::runtime::start()?.block_on(trip::all(&config, &bridge, limit));
            print(&if *json { trip::json(&trips) } else { trip::table(&trips) })?;
            let works = trips.iter().any(|trip| trip.fault.is_none());
            let next = "`tidegate doctor` says what each fault means; meanwhile prompts are answered here";
            if works { Ok(()) } else { Err(Failure::other("no address of the central broker works").next(next)) }
        }
    }
}

/// The lines of [`inspect`] for a script.
fn pairs(text: &str, crosses: bool) -> String {
    let pair = |line: &str| line.split_once(' ').map(|(key, value)| (key.to_owned(), Value::from(value.trim_start())));
    let crosses = ("crosses".to_owned(), Value::from(crosses));
    let found: serde_json::Map<String, Value> = text.lines().filter_map(pair).chain([crosses]).collect();
    format!("{}\n", Value::from(found))
}

fn load(file: Option<&Path>) -> Result<(Config, BridgeConfig), Failure> {
    let config = config::load(&file.map_or(Source::Default, |file| Source::File(file.to_path_buf())))?;
    match config.bridge.clone() {
        Some(bridge) => Ok((config, bridge)),
        None => Err(Failure::config("no bridge is configured: [bridge] is missing")
            .next("add [bridge] with the url of the central broker, or name another file with --config")),
    }
}

/// What becomes of a topic, and whether it crosses.
fn inspect(rules: &Rules, topic: &str) -> (String, bool) {
    if let Ok(ours) = Topic::parse(topic) {
        let what = match ours {
            Topic::State { .. } | Topic::Event { .. } => "the gateway tells it on both brokers, by no rule",
            Topic::Device { .. } => "prompts, answers and control messages never cross by a rule",
        };
        return (format!("topic    {topic}\nstays    {what}\n"), false);
    }
    match rules.take(topic) {
        Taken::Stays => (format!("topic    {topic}\nstays    no rule matches it\n"), false),
        Taken::Barred(rule, why) => {
            (format!("topic    {topic}\nrule     filter {:?}\nstays    {why}\n", rule.name()), false)
        }
        Taken::Crosses(rule, crossing) => {
            let qos = if crossing.delivery == Delivery::Acknowledged { 1 } else { 0 };
            let ttl = crossing.ttl.map_or("as long as there is room".to_owned(), |ttl| format!("{} s", ttl.as_secs()));
            let text = format!(
                "topic    {topic}\nrule     filter {:?}\nto       {}\nqos      {qos}\nclass    {} (priority {})\nwaits    {ttl}\n",
                rule.name(),
                crossing.topic,
                crossing.class.word(),
                crossing.class.priority(),
            );
            (text, true)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::link::{Class, Rule};

    #[test]
    fn a_topic_is_followed_to_where_it_goes() {
        let rule = Rule {
            filter: "sensors/#".parse().unwrap(),
            strip: "sensors/".to_owned(),
            add: "quay/".to_owned(),
            delivery: Delivery::Acknowledged,
            class: Class::Bulk,
            ttl: Some(Duration::from_secs(60)),
        };
        let rules = Rules::new(vec![rule]);
        let (text, crosses) = inspect(&rules, "sensors/7/t");
        assert!(crosses);
        let json: Value = serde_json::from_str(&pairs(&text, crosses)).unwrap();
        assert_eq!((&json["to"], &json["crosses"]), (&"quay/7/t".into(), &true.into()));
        for expect in ["to       quay/7/t", "class    bulk (priority 1)", "waits    60 s", "filter \"sensors/#\""] {
            assert!(text.contains(expect), "{text} lacks {expect}");
        }
        for (topic, expect) in [
            ("other", "no rule matches"),
            ("sensors", "shorter than what the rule strips"),
            ("tg/v1/s/g/prompt/d", "never cross by a rule"),
            ("tg/v1/s/g/state/health", "on both brokers"),
        ] {
            let (text, crosses) = inspect(&rules, topic);
            assert!(!crosses && text.contains(expect), "{text} lacks {expect}");
        }
    }
}
