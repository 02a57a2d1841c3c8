//! Who may do what: the design's rights, written down once more, case by case.

use super::Who;
use crate::door::peers::{origin, topic};
use crate::door::wire::Version;
use tidegate_schemas::{DeviceTopic, Topic};

/// What is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// At QoS 1 or 2.
    Publish {
        qos: u8,
        retain: bool,
    },
    Subscribe,
    Will,
    /// A publish with this Response Topic.
    Respond(String),
}

/// What the door says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Yes,
    No,
}

/// One case, and what has to be said.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) action: Action,
    pub(super) topic: String,
    pub(super) expect: Word,
}

impl Case {
    /// A payload that is well for the topic.
    pub(super) fn payload(&self) -> &'static [u8] {
        if self.topic.contains("/control/") {
            br#"{"op":"cancel","id":"none"}"#
        } else {
            br#"{"input":"how warm is it"}"#
        }
    }
}

/// Logins that open nothing: user and password, and the code of the refusal.
pub(super) const STRANGERS: [((&str, &str), Version, u8); 3] = [
    (("d7", "wrong"), Version::V5, 0x86),
    (("nobody", super::PASSWORD), Version::V5, 0x86),
    (("nobody", "wrong"), Version::V4, 4),
];

/// The answer topic of an identity's own device.
pub(super) fn answers(who: Who) -> anyhow::Result<String> {
    topic(DeviceTopic::Answer, who.device())
}

fn below(rest: &str) -> String {
    let origin = origin();
    format!("tg/v1/{}/{}/{rest}", origin.site, origin.gateway)
}

/// Every case of one identity.
pub(super) fn cases(who: Who) -> anyhow::Result<Vec<Case>> {
    let mut cases = publishes(who)?;
    cases.extend(subscriptions(who)?);
    cases.extend(wills(who)?);
    cases.extend(responses(who)?);
    Ok(cases)
}

fn publishes(who: Who) -> anyhow::Result<Vec<Case>> {
    let (own, other) = (who.device(), who.other());
    let mut table = vec![
        (topic(DeviceTopic::Prompt, own)?, Word::Yes),
        (topic(DeviceTopic::Control, own)?, Word::Yes),
        ("plant/7".to_owned(), Word::Yes),
        ("tgx/1".to_owned(), Word::Yes),
    ];
    let denied = [
        topic(DeviceTopic::Prompt, other)?,
        topic(DeviceTopic::Control, other)?,
        topic(DeviceTopic::Answer, own)?,
        topic(DeviceTopic::Answer, other)?,
        below("state/health"),
        below("event/drop"),
        below(&format!("escalate/{own}")),
        below(&format!("resolve/{own}")),
        below("prompt"),
        below(&format!("prompt/{own}/x")),
        format!("tg/v1/elsewhere/door/prompt/{own}"),
        format!("tg/v2/rigs/door/prompt/{own}"),
        "tg".to_owned(),
        "$SYS/x".to_owned(),
    ];
    table.extend(denied.map(|topic| (topic, Word::No)));
    if who == Who::Local {
        table.push((topic(DeviceTopic::Prompt, "local-b")?, Word::Yes));
    }
    let mut cases = Vec::new();
    for (topic, expect) in table {
        for qos in [1, 2] {
            cases.push(Case { action: Action::Publish { qos, retain: false }, topic: topic.clone(), expect });
        }
    }
    for what in [DeviceTopic::Prompt, DeviceTopic::Control] {
        let action = Action::Publish { qos: 1, retain: true };
        cases.push(Case { action, topic: topic(what, own)?, expect: Word::No });
    }
    Ok(cases)
}

fn subscriptions(who: Who) -> anyhow::Result<Vec<Case>> {
    let (own, other) = (who.device(), who.other());
    let allowed =
        [answers(who)?, below("answer/+"), below("state/+"), below("event/+"), "plant/#".to_owned(), "#".to_owned()];
    let denied = [
        topic(DeviceTopic::Answer, other)?,
        topic(DeviceTopic::Prompt, own)?,
        below("prompt/+"),
        topic(DeviceTopic::Control, own)?,
        below("escalate/+"),
        "tg/v1/+/+/escalate/+".to_owned(),
        below("resolve/+"),
        format!("tg/v1/elsewhere/door/answer/{own}"),
        "$SYS/#".to_owned(),
        "$share/g/plant/7".to_owned(),
        "a/#/b".to_owned(),
    ];
    let case = |topic, expect| Case { action: Action::Subscribe, topic, expect };
    let allowed = allowed.into_iter().map(|topic| case(topic, Word::Yes));
    Ok(allowed.chain(denied.map(|topic| case(topic, Word::No))).collect())
}

fn wills(who: Who) -> anyhow::Result<Vec<Case>> {
    let (own, other) = (who.device(), who.other());
    let denied = [
        topic(DeviceTopic::Prompt, own)?,
        topic(DeviceTopic::Prompt, other)?,
        topic(DeviceTopic::Control, own)?,
        topic(DeviceTopic::Answer, other)?,
        below("state/health"),
        below(&format!("resolve/{own}")),
        "$SYS/x".to_owned(),
        "plant/+".to_owned(),
    ];
    let case = |topic, expect| Case { action: Action::Will, topic, expect };
    let allowed = std::iter::once(case("plant/will".to_owned(), Word::Yes));
    Ok(allowed.chain(denied.map(|topic| case(topic, Word::No))).collect())
}

fn responses(who: Who) -> anyhow::Result<Vec<Case>> {
    let (own, other) = (who.device(), who.other());
    let prompt = topic(DeviceTopic::Prompt, own)?;
    let denied = [
        topic(DeviceTopic::Answer, other)?,
        topic(DeviceTopic::Prompt, other)?,
        prompt.clone(),
        below("state/health"),
        below(&format!("resolve/{own}")),
        "plant/7".to_owned(),
    ];
    let case = |response, expect| Case { action: Action::Respond(response), topic: prompt.clone(), expect };
    let allowed = std::iter::once(case(answers(who)?, Word::Yes));
    Ok(allowed.chain(denied.map(|response| case(response, Word::No))).collect())
}

/// What a subscription to everything may bring to an identity.
pub(super) fn may_hear(who: Who, name: &str) -> anyhow::Result<bool> {
    if name != "tg" && !name.starts_with("tg/") {
        return Ok(true);
    }
    let state = below("state/");
    let event = below("event/");
    if name.starts_with(&state) || name.starts_with(&event) {
        return Ok(true);
    }
    let answer = matches!(Topic::parse(name), Ok(Topic::Device { what: DeviceTopic::Answer, .. }));
    let own = match who {
        Who::Local => name.starts_with(&below("answer/local-")),
        Who::User | Who::Certificate => name == answers(who)?,
    };
    Ok(answer && own)
}
