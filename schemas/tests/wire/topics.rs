//! Topics: names, filters, and that nothing else is taken for one.

use proptest::prelude::*;
use tidegate_schemas::{DeviceTopic, IdError, Origin, StateKind, Topic, TopicError};

fn origin() -> Origin {
    Origin { site: "mill".parse().unwrap(), gateway: "gw-3".parse().unwrap() }
}

#[test]
fn names_are_those_of_the_design() {
    let device = |what| Topic::device(&origin(), what, &"press-7".parse().unwrap()).name();
    assert_eq!(device(DeviceTopic::Prompt), "tg/v1/mill/gw-3/prompt/press-7");
    assert_eq!(device(DeviceTopic::Answer), "tg/v1/mill/gw-3/answer/press-7");
    assert_eq!(device(DeviceTopic::Control), "tg/v1/mill/gw-3/control/press-7");
    assert_eq!(device(DeviceTopic::Escalate), "tg/v1/mill/gw-3/escalate/press-7");
    assert_eq!(device(DeviceTopic::Resolve), "tg/v1/mill/gw-3/resolve/press-7");
    let state = |kind| Topic::State { origin: origin(), kind }.name();
    assert_eq!(state(StateKind::Health), "tg/v1/mill/gw-3/state/health");
    assert_eq!(state(StateKind::Card), "tg/v1/mill/gw-3/state/card");
    assert_eq!(state(StateKind::Load), "tg/v1/mill/gw-3/state/load");
    assert_eq!(state(StateKind::Metrics), "tg/v1/mill/gw-3/state/metrics");
    let event = Topic::Event { origin: origin(), kind: "drop".to_owned() };
    assert_eq!(event.name(), "tg/v1/mill/gw-3/event/drop");
}

#[test]
fn filters_are_those_of_the_design() {
    assert_eq!(Topic::filter_of_gateway(&origin(), DeviceTopic::Resolve), "tg/v1/mill/gw-3/resolve/+");
    assert_eq!(Topic::worker_filter(), "$share/tidegate/tg/v1/+/+/escalate/+");
}

#[test]
fn other_names_are_refused_with_the_reason() {
    let long = format!("tg/v1/mill/gw-3/prompt/{}", "d".repeat(65));
    let table = [
        ("", TopicError::Foreign),
        ("tg/v1", TopicError::Foreign),
        ("tg/v10/mill/gw-3/prompt/d", TopicError::Foreign),
        ("/tg/v1/mill/gw-3/prompt/d", TopicError::Foreign),
        ("sensors/temperature", TopicError::Foreign),
        ("tg/v1/", TopicError::Shape),
        ("tg/v1/mill/gw-3/prompt", TopicError::Shape),
        ("tg/v1/mill/gw-3/prompt/d/e", TopicError::Shape),
        ("tg/v1/mill/gw-3/Prompt/d", TopicError::Shape),
        ("tg/v1/mill/gw-3/state/mood", TopicError::Shape),
        ("tg/v1/mill/gw-3/prompt/", TopicError::Id(IdError::Empty { what: "device" })),
        ("tg/v1/mill/gw-3/prompt/+", TopicError::Id(IdError::Character { what: "device", found: '+' })),
        ("tg/v1/+/gw-3/prompt/d", TopicError::Id(IdError::Character { what: "site", found: '+' })),
        ("tg/v1/mill/#/prompt/d", TopicError::Id(IdError::Character { what: "gateway", found: '#' })),
        ("tg/v1/mill/gw-3/event/", TopicError::Id(IdError::Empty { what: "event kind" })),
        (long.as_str(), TopicError::Id(IdError::TooLong { what: "device", len: 65 })),
    ];
    for (name, error) in table {
        assert_eq!(Topic::parse(name), Err(error), "{name}");
    }
}

fn topics() -> impl Strategy<Value = Topic> {
    let id = "[A-Za-z0-9_.-]{1,64}";
    let origin = (id, id).prop_map(|(s, g)| Origin { site: s.parse().unwrap(), gateway: g.parse().unwrap() });
    let what = prop::sample::select(vec![
        DeviceTopic::Prompt,
        DeviceTopic::Answer,
        DeviceTopic::Control,
        DeviceTopic::Escalate,
        DeviceTopic::Resolve,
    ]);
    let kind = prop::sample::select(vec![StateKind::Health, StateKind::Card, StateKind::Load, StateKind::Metrics]);
    (origin, what, kind, id, 0..3).prop_map(|(origin, what, kind, last, shape)| match shape {
        0 => Topic::Device { origin, what, device: last.parse().unwrap() },
        1 => Topic::State { origin, kind },
        _ => Topic::Event { origin, kind: last },
    })
}

proptest! {
    #[test]
    fn a_name_parses_to_its_topic(topic in topics()) {
        prop_assert_eq!(Topic::parse(&topic.name()), Ok(topic));
    }

    #[test]
    fn what_parses_has_the_name_that_it_was_parsed_from(name in "tg/v1(/[a-z+#]{0,6}){3,5}|[ -~]{0,40}") {
        if let Ok(topic) = Topic::parse(&name) {
            prop_assert_eq!(topic.name(), name);
        }
    }
}
