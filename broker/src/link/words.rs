//! The door's packets in rumqttd's own types, and back.

use super::Memory;
use crate::codec::{Filter, Properties, Publish, QoS};
use bytes::Bytes;
use rumqttd::protocol::{
    Filter as Wanted, Packet as Word, PubAck, PubAckReason, Publish as Message, QoS as Grade, RetainForwardRule,
    Subscribe, SubscribeReasonCode, Unsubscribe,
};

/// SUBACK failure of 3.1.1, the only one it has.
const FAILURE: u8 = 0x80;
/// Header, packet identifier and length of the topic in rumqttd's own form of a publish, in bytes.
const HEAD_BYTES: usize = 5;

/// How the QoS of a subscription is spoken of with rumqttd. It has at most 100 messages at QoS 1 on the way to a
/// connection, and each acknowledgement is work for its one thread; at QoS 0 it sends what it has and then pauses until it
/// is asked to go on, which holds it back as well. In a session that ends with its connection nobody will ask for a
/// message again, so nothing is lost if QoS 1 goes as QoS 0 inside the process; QoS 0 then goes as QoS 1, so that the
/// two are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deal {
    Straight,
    Swapped,
}

impl Deal {
    /// The first subscription decides for the connection; mostly all are alike.
    pub(super) fn for_filters(memory: Memory, filters: &[Filter]) -> Self {
        let first = filters.first().map(|filter| filter.qos);
        if memory == Memory::None && first == Some(QoS::AtLeastOnce) { Self::Swapped } else { Self::Straight }
    }

    /// There and back.
    pub(super) fn of(self, qos: QoS) -> QoS {
        match (self, qos) {
            (Self::Swapped, QoS::AtMostOnce) => QoS::AtLeastOnce,
            (Self::Swapped, QoS::AtLeastOnce) => QoS::AtMostOnce,
            (_, qos) => qos,
        }
    }
}

fn grade(qos: QoS) -> Grade {
    match qos {
        QoS::AtMostOnce => Grade::AtMostOnce,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Grade::AtLeastOnce,
    }
}

/// A copy, so that a small message in rumqttd's log does not keep a read buffer alive.
pub(super) fn publish(publish: &Publish) -> Word {
    let (topic, payload) = (publish.topic.as_bytes(), &publish.payload);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + topic.len() + payload.len());
    let qos = publish.qos.min(QoS::AtLeastOnce);
    bytes.push(u8::from(publish.retain) | (qos as u8) << 1);
    bytes.extend_from_slice(&publish.id.to_be_bytes());
    bytes.extend_from_slice(&u16::try_from(topic.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(topic);
    bytes.extend_from_slice(payload);
    Word::Publish(Message::deserialize(Bytes::from(bytes)), None)
}

/// A message of rumqttd with its packet identifier, 0 at QoS 0.
pub(super) fn message(mut message: Message) -> (Publish, QoS) {
    let topic = std::mem::take(&mut message.topic);
    let payload = std::mem::take(&mut message.payload);
    // Its public length counts the identifier, which only QoS 0 does not have; else the head tells it.
    let head = if message.len() > 2 { message.serialize() } else { Bytes::new() };
    let (qos, id) = match head[..] {
        [_, high, low, ..] => (QoS::AtLeastOnce, u16::from_be_bytes([high, low])),
        _ => (QoS::AtMostOnce, 0),
    };
    let topic = String::from_utf8(topic.into()).unwrap_or_default();
    let (dup, retain, properties) = (false, message.retain, Properties::default());
    (Publish { dup, qos, retain, topic, id, properties, payload }, qos)
}

pub(super) fn acknowledged(id: u16) -> Word {
    Word::PubAck(PubAck { pkid: id, reason: PubAckReason::Success }, None)
}

pub(super) fn subscribe(id: u16, filters: &[Filter], deal: Deal) -> Word {
    let wanted = |filter: &Filter| Wanted {
        path: filter.filter.clone(),
        qos: grade(deal.of(filter.qos.min(QoS::AtLeastOnce))),
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: RetainForwardRule::OnEverySubscribe,
    };
    Word::Subscribe(Subscribe { pkid: id, filters: filters.iter().map(wanted).collect() }, None)
}

pub(super) fn unsubscribe(id: u16, filters: &[String]) -> Word {
    Word::Unsubscribe(Unsubscribe { pkid: id, filters: filters.to_vec() }, None)
}

/// The reason code of a SUBACK.
pub(super) fn code(code: SubscribeReasonCode, deal: Deal) -> u8 {
    match code {
        SubscribeReasonCode::QoS0 | SubscribeReasonCode::Success(Grade::AtMostOnce) => deal.of(QoS::AtMostOnce) as u8,
        SubscribeReasonCode::QoS1 | SubscribeReasonCode::Success(Grade::AtLeastOnce) => deal.of(QoS::AtLeastOnce) as u8,
        _ => FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sent: &Publish) {
        let Word::Publish(carried, None) = publish(sent) else { panic!("not a publish") };
        assert_eq!(carried.topic, sent.topic);
        let (back, qos) = message(carried);
        assert_eq!((&back, qos), (sent, sent.qos));
    }

    #[test]
    fn publishes_come_back_as_they_went() {
        let (properties, payload) = (Properties::default(), Bytes::from_static(b"21.5"));
        let (dup, retain, topic) = (false, false, "plant/7/é".to_owned());
        let sent = Publish { dup, qos: QoS::AtLeastOnce, retain, topic, id: 65_535, properties, payload };
        check(&sent);
        check(&Publish { id: 258, retain: true, ..sent.clone() });
        check(&Publish { qos: QoS::AtMostOnce, id: 0, payload: Bytes::new(), ..sent });
    }

    #[test]
    fn only_a_session_that_ends_with_its_connection_swaps() {
        let filters = |qos| [Filter { filter: "n/+".to_owned(), qos, options: 0 }];
        let check = |memory, qos, expect| assert_eq!(Deal::for_filters(memory, &filters(qos)), expect);
        check(Memory::None, QoS::AtLeastOnce, Deal::Swapped);
        check(Memory::None, QoS::AtMostOnce, Deal::Straight);
        check(Memory::Fresh, QoS::AtLeastOnce, Deal::Straight);
        check(Memory::Resume, QoS::AtLeastOnce, Deal::Straight);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            assert_eq!(Deal::Swapped.of(Deal::Swapped.of(qos)), qos);
            assert_ne!(Deal::Swapped.of(qos), qos);
            assert_eq!(Deal::Straight.of(qos), qos);
        }
    }
}
