//! The codec: tables, round trips, mutated bytes.
#![allow(clippy::unwrap_used)]

use super::*;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use rand::{Rng, SeedableRng};

const MAX: usize = 1024;

fn decode_all(bytes: &[u8], version: Version) -> Result<Option<Packet>, Malformed> {
    decode(&mut BytesMut::from(bytes), version, MAX)
}

#[test]
fn what_is_malformed_has_its_reason_code() {
    use Version::{V4, V5};
    for (bytes, version, reason) in [
        (&[0x30, 0xff, 0xff, 0xff, 0xff][..], V4, reason::MALFORMED),
        (&[0x30, 0xff, 0xff, 0x7f], V4, reason::TOO_LARGE),
        (&[0x30, 0x80, 0x00], V4, reason::MALFORMED),
        (&[0x36, 3, 0, 1, b'a'], V4, reason::MALFORMED),
        (&[0x38, 3, 0, 1, b'a'], V4, reason::MALFORMED),
        (&[0x32, 5, 0, 1, b'a', 0, 0], V4, reason::PROTOCOL),
        (&[0x30, 3, 0, 1, 0xff], V4, reason::MALFORMED),
        (&[0x30, 3, 0, 1, 0], V4, reason::MALFORMED),
        (&[0x30, 3, 0, 9, b'a'], V4, reason::MALFORMED),
        (&[0x80, 6, 0, 1, 0, 1, b'a', 0], V4, reason::MALFORMED),
        (&[0x82, 2, 0, 1], V4, reason::PROTOCOL),
        (&[0x82, 6, 0, 1, 0, 1, b'a', 3], V4, reason::MALFORMED),
        (&[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x30], V5, reason::PROTOCOL),
        (&[0xa2, 2, 0, 1], V4, reason::PROTOCOL),
        (&[0xc0, 1, 0], V4, reason::MALFORMED),
        (&[0xc1, 0], V4, reason::MALFORMED),
        (&[0x60, 2, 0, 1], V4, reason::MALFORMED),
        (&[0xa0, 5, 0, 1, 0, 1, b'a'], V4, reason::MALFORMED),
        (&[0xe1, 0], V4, reason::MALFORMED),
        (&[0xe1, 0], V5, reason::MALFORMED),
        (&[0xf1, 0], V5, reason::MALFORMED),
        (&[0x82, 6, 0, 1, 0, 1, 0xff, 0], V4, reason::MALFORMED),
        (&[0xa2, 5, 0, 1, 0, 1, 0xff], V4, reason::MALFORMED),
        (&[0x30, 11, 0, 1, b'a', 7, 0x26, 0, 1, 0xff, 0, 1, b'b'], V5, reason::MALFORMED),
        (&[0x30, 7, 0, 1, b'a', 4, 3, 0, 1, 0xff], V5, reason::MALFORMED),
        (&[0x30, 7, 0, 1, b'a', 4, 8, 0, 1, 0xff], V5, reason::MALFORMED),
        (&[0xf0, 0], V4, reason::MALFORMED),
        (&[0x00, 0], V5, reason::MALFORMED),
        (&[0x10, 7, 0, 4, b'M', b'Q', b'T', b'T', 3], V4, reason::BAD_VERSION),
        (&[0x10, 8, 0, 6, b'M', b'Q', b'I', b's', b'd', b'p'], V4, reason::BAD_VERSION),
        (&[0x30, 9, 0, 1, b'a', 5, 0x23, 0, 1, 0x23, 0], V5, reason::MALFORMED),
        (&[0x30, 10, 0, 1, b'a', 6, 0x23, 0, 1, 0x23, 0, 1], V5, reason::PROTOCOL),
        (&[0x30, 9, 0, 1, b'a', 5, 0x11, 0, 0, 0, 1], V5, reason::PROTOCOL),
    ] {
        assert_eq!(decode_all(bytes, version).unwrap_err().reason, reason, "{bytes:02x?}");
    }
}

#[test]
fn a_part_of_a_packet_waits_for_the_rest_and_holds_only_what_came() {
    let whole = [0x32, 6, 0, 1, b'a', 0, 7, b'x'];
    for end in 0..whole.len() {
        let mut buffer = BytesMut::from(&whole[..end]);
        assert_eq!(decode(&mut buffer, Version::V4, MAX), Ok(None));
        assert_eq!(buffer, whole[..end]);
    }
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/é+#]{1,20}"
}

fn properties() -> impl Strategy<Value = Properties> {
    let id = proptest::option::of(any::<u32>());
    let blob = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from));
    (id, proptest::option::of(text()), blob, proptest::option::of(1..99_u16), proptest::option::of(text())).prop_map(
        |(message_expiry_s, response_topic, correlation, topic_alias, user)| Properties {
            message_expiry_s,
            response_topic,
            correlation,
            topic_alias,
            user: user.iter().map(|value| ("name".to_owned(), value.clone())).collect(),
            content_type: user,
            payload_format: message_expiry_s.map(|s| (s & 1) as u8),
            ..Properties::default()
        },
    )
}

fn packet() -> impl Strategy<Value = Packet> {
    let payload = proptest::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::from);
    let publish = (text(), 0..3_u8, any::<bool>(), 1..u16::MAX, properties(), payload).prop_map(
        |(topic, qos, retain, id, properties, payload)| {
            let qos = QoS::from_bits(qos).unwrap();
            let id = if qos == QoS::AtMostOnce { 0 } else { id };
            Packet::Publish(Box::new(Publish { dup: false, qos, retain, topic, id, properties, payload }))
        },
    );
    let filters = proptest::collection::vec((text(), 0..3_u8), 1..4);
    let subscribe = (1..u16::MAX, filters).prop_map(|(id, filters)| {
        let filter = |(filter, qos)| Filter { filter, qos: QoS::from_bits(qos).unwrap(), options: 0 };
        let filters = filters.into_iter().map(filter).collect();
        Packet::Subscribe { id, filters, properties: Box::default() }
    });
    let ack = (1..u16::MAX, any::<u8>(), proptest::option::of(text()))
        .prop_map(|(id, reason, reason_string)| Packet::PubAck(Ack { id, reason, reason_string }));
    let connect = (text(), any::<bool>(), any::<u16>(), proptest::option::of(text()), properties()).prop_map(
        |(client_id, clean_start, keep_alive_s, user, p)| {
            let expiry = Properties { session_expiry_s: p.message_expiry_s, ..Properties::default() };
            let payload = Bytes::from_static(b"w");
            let properties = Properties { topic_alias: None, ..p };
            let will = Will { topic: "w".to_owned(), payload, qos: QoS::AtLeastOnce, retain: true, properties };
            Packet::Connect(Box::new(Connect {
                version: Version::V5,
                clean_start,
                keep_alive_s,
                client_id,
                will: Some(will),
                user,
                password: None,
                properties: expiry,
            }))
        },
    );
    prop_oneof![publish, subscribe, ack, connect]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(packet in packet()) {
        let mut out = BytesMut::new();
        encode(&packet, Version::V5, &mut out);
        prop_assert_eq!(decode(&mut out, Version::V5, MAX).unwrap(), Some(packet));
        prop_assert!(out.is_empty());
    }
}

/// 200,000 packets that were fine before some bytes changed.
#[test]
fn mutated_packets_never_panic() {
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut refused = 0;
    for _ in 0..2_000 {
        let packet = packet().new_tree(&mut runner).unwrap().current();
        let mut bytes = BytesMut::new();
        encode(&packet, Version::V5, &mut bytes);
        for _ in 0..100 {
            let mut mutated = bytes.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..mutated.len());
                mutated[at] = rng.random();
            }
            let version = if rng.random() { Version::V4 } else { Version::V5 };
            let _version_of_connect = peek_version(&mutated);
            refused += usize::from(decode_all(&mutated, version).is_err());
        }
    }
    assert!(refused > 10_000, "mutation leads to refusals, got {refused}");
}
