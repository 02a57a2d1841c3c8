//! Who may do what. A device touches only its own topics; nobody speaks for the gateway or the cloud.

mod pattern;
mod rules;

use crate::codec::reason;
use crate::topic;
use std::fmt;
use std::sync::Arc;
use tidegate_schemas::{DeviceId, DeviceTopic, Origin, Topic};

use pattern::covers;
pub(crate) use pattern::{Names, Pattern};
pub(crate) use rules::{Action, Rights};

/// Who speaks on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Without a name, on loopback: the devices `local-*`.
    Local,
    /// By certificate or password: the device of that name.
    Named(Arc<str>),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Named(name) => write!(f, "{name:?}"),
        }
    }
}

/// Devices whose frames a session gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    One(DeviceId),
    AllLocal,
    /// A copy of every device's, by a rule of the rights file.
    All,
    /// Outcomes with a Response Topic, of whatever device.
    Replies,
}

impl Reach {
    pub(crate) fn covers(&self, device: &DeviceId) -> bool {
        match self {
            Self::One(one) => one == device,
            Self::AllLocal => device.as_str().starts_with(LOCAL_PREFIX),
            Self::All => true,
            Self::Replies => false,
        }
    }
}

/// What decides about a client's filters and topics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) rights: &'a Rights,
    pub(crate) reply_topics: &'a [Pattern],
    pub(crate) client_id: &'a str,
}

/// What a topic name is, for one who publishes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Prompt(DeviceId),
    Control(DeviceId),
    /// Below `tg`, and not the publisher's.
    Denied(&'static str),
    General,
}

/// What becomes of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) reach: Option<Reach>,
    /// Whether outcomes with a Response Topic may match it.
    pub(crate) replies: bool,
    /// Whether the backend can have something for it.
    pub(crate) forward: bool,
}

const LOCAL_PREFIX: &str = "local-";

impl Principal {
    /// The name in rules and patterns.
    pub(crate) fn identity(&self) -> &str {
        match self {
            Self::Local => "local",
            Self::Named(name) => name,
        }
    }

    /// The one device that it is, if it is one.
    pub(crate) fn device(&self) -> Option<DeviceId> {
        match self {
            Self::Local => None,
            Self::Named(name) => name.parse().ok(),
        }
    }

    pub(crate) fn may_use(&self, device: &DeviceId) -> bool {
        match self {
            Self::Local => device.as_str().starts_with(LOCAL_PREFIX),
            Self::Named(name) => device.as_str() == &**name,
        }
    }

    /// Where a publish goes.
    pub(crate) fn target(&self, origin: &Origin, name: &str) -> Target {
        if name != "tg" && !name.starts_with("tg/") {
            return Target::General;
        }
        let Ok(Topic::Device { origin: of, what, device }) = Topic::parse(name) else {
            return Target::Denied("nobody publishes to this topic below tg");
        };
        match what {
            _ if of != *origin => Target::Denied("the topic belongs to another gateway"),
            DeviceTopic::Prompt | DeviceTopic::Control if !self.may_use(&device) => {
                Target::Denied("the topic belongs to another device")
            }
            DeviceTopic::Prompt => Target::Prompt(device),
            DeviceTopic::Control => Target::Control(device),
            _ => Target::Denied("only the gateway or the cloud publishes to this topic"),
        }
    }

    /// What a checked filter gives, or the reason code of its refusal.
    pub(crate) fn grant(&self, reading: Reading<'_>, filter: &str) -> Result<Grant, u8> {
        let names = Names { identity: self.identity(), client_id: reading.client_id };
        let levels: Vec<&str> = filter.split('/').collect();
        let what = if levels[0] == "tg" { levels.get(4).copied().unwrap_or("") } else { "" };
        if matches!(what, "prompt" | "control" | "escalate" | "resolve") {
            return Err(reason::NOT_AUTHORISED);
        }
        let reach = self.reach(reading.origin, filter, levels.last().copied().unwrap_or(""));
        if what == "answer" {
            let all = || reading.rights.allow_ours(names, filter).then_some(Reach::All);
            let reach = all().or(reach).ok_or(reason::NOT_AUTHORISED)?;
            return Ok(Grant { reach: Some(reach), replies: false, forward: false });
        }
        let own_reply = |p: &Pattern| p.filled(names).is_some_and(|own| covers(&own, filter));
        if !reading.rights.allow_filter(names, filter) && !reading.reply_topics.iter().any(own_reply) {
            return Err(reason::NOT_AUTHORISED);
        }
        let replies = reading.reply_topics.iter().any(|pattern| pattern.overlaps(filter));
        Ok(Grant { reach, replies, forward: true })
    }

    /// Whether outcomes may go to this Response Topic; the own answer topic needs no asking.
    pub(crate) fn may_have_replies(&self, reading: Reading<'_>, name: &str) -> bool {
        let names = Names { identity: self.identity(), client_id: reading.client_id };
        let filled = reading.reply_topics.iter().filter_map(|pattern| pattern.filled(names));
        topic::check_name(name, topic::Bounds::WIDEST).is_ok() && filled.into_iter().any(|f| topic::matches(&f, name))
    }

    fn reach(&self, origin: &Origin, filter: &str, last: &str) -> Option<Reach> {
        let hit = |device: DeviceId| topic::matches(filter, &answer_topic(origin, &device)).then_some(device);
        match self {
            Self::Named(name) => hit(name.parse().ok()?).map(Reach::One),
            Self::Local if last == "+" || last == "#" => hit("local-1".parse().ok()?).map(|_| Reach::AllLocal),
            Self::Local => hit(last.parse().ok()?).filter(|device| self.may_use(device)).map(Reach::One),
        }
    }
}

pub(crate) fn answer_topic(origin: &Origin, device: &DeviceId) -> String {
    Topic::device(origin, DeviceTopic::Answer, device).name()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin { site: "s".parse().unwrap(), gateway: "g".parse().unwrap() }
    }

    fn grant(who: &Principal, filter: &str) -> Result<Grant, u8> {
        let reading = Reading { origin: &origin(), rights: &Rights::open(), reply_topics: &[], client_id: "c" };
        who.grant(reading, filter)
    }

    #[test]
    fn a_device_publishes_only_its_own_prompts_and_control() {
        let d7 = Principal::Named("d7".into());
        let device: DeviceId = "d7".parse().unwrap();
        assert_eq!(d7.target(&origin(), "tg/v1/s/g/prompt/d7"), Target::Prompt(device.clone()));
        assert_eq!(d7.target(&origin(), "tg/v1/s/g/control/d7"), Target::Control(device));
        assert_eq!(d7.target(&origin(), "plant/7"), Target::General);
        for denied in [
            "tg/v1/s/g/prompt/d8",
            "tg/v1/s/other/prompt/d7",
            "tg/v1/s/g/answer/d7",
            "tg/v1/s/g/state/health",
            "tg/v1/s/g/event/drop",
            "tg/v1/s/g/escalate/d7",
            "tg/v1/s/g/resolve/d7",
            "tg",
            "tg/v2/x",
            "tg/v1/s/g/prompt/d7/x",
        ] {
            assert!(matches!(d7.target(&origin(), denied), Target::Denied(_)), "{denied}");
            if !denied.starts_with("tg/v1/s/g/prompt/d8") {
                assert!(matches!(Principal::Local.target(&origin(), denied), Target::Denied(_)), "{denied}");
            }
        }
        assert!(matches!(Principal::Local.target(&origin(), "tg/v1/s/g/prompt/d7"), Target::Denied(_)));
        assert!(matches!(Principal::Local.target(&origin(), "tg/v1/s/g/prompt/local-1"), Target::Prompt(_)));
    }

    #[test]
    fn a_filter_reaches_only_own_answers() {
        let d7 = Principal::Named("d7".into());
        let own = Some(Reach::One("d7".parse().unwrap()));
        for (filter, reach, forward) in [
            ("tg/v1/s/g/answer/d7", own.clone(), false),
            ("tg/v1/s/g/answer/+", own.clone(), false),
            ("#", own, true),
            ("tg/v1/s/g/state/+", None, true),
            ("plant/#", None, true),
        ] {
            assert_eq!(grant(&d7, filter), Ok(Grant { reach, replies: false, forward }), "{filter}");
        }
        for filter in ["tg/v1/s/g/answer/d8", "tg/v1/s/g/prompt/d7", "tg/v1/+/+/escalate/+", "tg/v1/s/x/answer/d7"] {
            assert_eq!(grant(&d7, filter), Err(reason::NOT_AUTHORISED), "{filter}");
        }
        let all = grant(&Principal::Local, "tg/v1/+/+/answer/+").unwrap();
        assert_eq!(all.reach, Some(Reach::AllLocal));
        assert_eq!(grant(&Principal::Local, "tg/v1/s/g/answer/d7"), Err(reason::NOT_AUTHORISED));
    }
    #[test]
    fn a_response_topic_fits_a_pattern_of_the_own_name() {
        let patterns = [Pattern::new("replies/{identity}/#").unwrap()];
        let rights = Rights::open();
        let reading = Reading { origin: &origin(), rights: &rights, reply_topics: &patterns, client_id: "c" };
        let d7 = Principal::Named("d7".into());
        for (name, expect) in
            [("replies/d7/1", true), ("replies/d8/1", false), ("replies/d7/+", false), ("tg/v1/s/g/prompt/d7", false)]
        {
            assert_eq!(d7.may_have_replies(reading, name), expect, "{name}");
        }
        assert!(d7.grant(reading, "replies/#").unwrap().replies);
        assert!(!d7.grant(reading, "plant/#").unwrap().replies);
    }
}
