//! Packets to bytes.

use super::packet::{Ack, Connect, Packet, Publish, QoS, Version};
use super::properties::{Properties, write_bytes, write_varint};
use bytes::{BufMut, BytesMut};

/// Appends one packet to `out`.
pub(crate) fn encode(packet: &Packet, version: Version, out: &mut BytesMut) {
    if encode_short(packet, version, out) {
        return;
    }
    let mut body = BytesMut::new();
    let first = write_body(packet, version, &mut body);
    let payload: &[u8] = if let Packet::Publish(publish) = packet { &publish.payload } else { &[] };
    out.put_u8(first);
    write_varint(out, u32::try_from(body.len() + payload.len()).unwrap_or(u32::MAX));
    out.put_slice(&body);
    out.put_slice(payload);
}

/// Appends one packet that is at most `bytes_max` long; a reason string that would make it longer is left out (MQTT 5.0,
/// 3.2.2.3.9, 3.4.2.2.2, 3.14.2.2.3). Says whether it fits; else nothing is appended.
pub(crate) fn encode_within(packet: &Packet, version: Version, bytes_max: usize, out: &mut BytesMut) -> bool {
    let before = out.len();
    encode(packet, version, out);
    if out.len() - before <= bytes_max {
        return true;
    }
    out.truncate(before);
    let Some(shorter) = without_reason_string(packet) else { return false };
    encode(&shorter, version, out);
    let fits = out.len() - before <= bytes_max;
    if !fits {
        out.truncate(before);
    }
    fits
}

/// The packet without its reason string, if it has one.
fn without_reason_string(packet: &Packet) -> Option<Packet> {
    let mut packet = packet.clone();
    let string = match &mut packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            &mut ack.reason_string
        }
        Packet::ConnAck(ack) => &mut ack.properties.reason_string,
        Packet::Disconnect { properties, .. } => &mut properties.reason_string,
        _ => return None,
    };
    string.take().map(|_| packet)
}

/// The packets that make up most of all traffic, without a buffer of their own: acknowledgements without a reason, and
/// publishes of 3.1.1. Says whether it was one.
fn encode_short(packet: &Packet, version: Version, out: &mut BytesMut) -> bool {
    let (first, ack) = match packet {
        Packet::PubAck(ack) => (0x40, ack),
        Packet::PubRec(ack) => (0x50, ack),
        Packet::PubRel(ack) => (0x62, ack),
        Packet::PubComp(ack) => (0x70, ack),
        Packet::Publish(publish) if version == Version::V4 => {
            encode_publish(publish, out);
            return true;
        }
        _ => return false,
    };
    let short = version == Version::V4 || (ack.reason == 0 && ack.reason_string.is_none());
    if short {
        let [high, low] = ack.id.to_be_bytes();
        out.put_slice(&[first, 2, high, low]);
    }
    short
}

/// Appends one PUBLISH of 3.1.1.
fn encode_publish(publish: &Publish, out: &mut BytesMut) {
    let id_bytes = if publish.qos == QoS::AtMostOnce { 0 } else { 2 };
    let bytes = 2 + publish.topic.len() + id_bytes + publish.payload.len();
    out.reserve(5 + bytes);
    out.put_u8(first_of(publish));
    write_varint(out, u32::try_from(bytes).unwrap_or(u32::MAX));
    write_publish(publish, Version::V4, out);
    out.put_slice(&publish.payload);
}

fn first_of(publish: &Publish) -> u8 {
    0x30 | u8::from(publish.dup) << 3 | (publish.qos as u8) << 1 | u8::from(publish.retain)
}

fn write_body(packet: &Packet, version: Version, w: &mut BytesMut) -> u8 {
    match packet {
        Packet::Connect(connect) => write_connect(connect, w),
        Packet::ConnAck(ack) => {
            w.put_u8(u8::from(ack.session_present));
            w.put_u8(ack.code);
            write_properties(&ack.properties, version, w);
            0x20
        }
        Packet::Publish(publish) => write_publish(publish, version, w),
        Packet::PubAck(ack) => write_ack(0x40, ack, version, w),
        Packet::PubRec(ack) => write_ack(0x50, ack, version, w),
        Packet::PubRel(ack) => write_ack(0x62, ack, version, w),
        Packet::PubComp(ack) => write_ack(0x70, ack, version, w),
        Packet::Subscribe { id, filters, properties } => {
            w.put_u16(*id);
            write_properties(properties, version, w);
            for filter in filters {
                write_bytes(w, filter.filter.as_bytes());
                w.put_u8(filter.qos as u8 | filter.options);
            }
            0x82
        }
        Packet::SubAck { id, codes } => write_codes(0x90, *id, codes, version, w),
        Packet::Unsubscribe { id, filters } => {
            w.put_u16(*id);
            write_properties(&Properties::default(), version, w);
            filters.iter().for_each(|filter| write_bytes(w, filter.as_bytes()));
            0xa2
        }
        Packet::UnsubAck { id, codes } => {
            let codes: &[u8] = if version == Version::V5 { codes } else { &[] };
            write_codes(0xb0, *id, codes, version, w)
        }
        Packet::PingReq => 0xc0,
        Packet::PingResp => 0xd0,
        Packet::Disconnect { reason, properties } => {
            if version == Version::V5 {
                w.put_u8(*reason);
                properties.write(w);
            }
            0xe0
        }
        Packet::Auth => 0xf0,
    }
}

fn write_properties(properties: &Properties, version: Version, w: &mut BytesMut) {
    if version == Version::V5 {
        properties.write(w);
    }
}

fn write_connect(connect: &Connect, w: &mut BytesMut) -> u8 {
    let v5 = connect.version == Version::V5;
    write_bytes(w, b"MQTT");
    w.put_u8(if v5 { 5 } else { 4 });
    let mut flags = u8::from(connect.clean_start) << 1;
    if let Some(will) = &connect.will {
        flags |= 4 | (will.qos as u8) << 3 | u8::from(will.retain) << 5;
    }
    flags |= u8::from(connect.password.is_some()) << 6 | u8::from(connect.user.is_some()) << 7;
    w.put_u8(flags);
    w.put_u16(connect.keep_alive_s);
    write_properties(&connect.properties, connect.version, w);
    write_bytes(w, connect.client_id.as_bytes());
    if let Some(will) = &connect.will {
        write_properties(&will.properties, connect.version, w);
        write_bytes(w, will.topic.as_bytes());
        write_bytes(w, &will.payload);
    }
    connect.user.iter().for_each(|user| write_bytes(w, user.as_bytes()));
    connect.password.iter().for_each(|password| write_bytes(w, password));
    0x10
}

fn write_publish(publish: &Publish, version: Version, w: &mut BytesMut) -> u8 {
    write_bytes(w, publish.topic.as_bytes());
    if publish.qos != QoS::AtMostOnce {
        w.put_u16(publish.id);
    }
    write_properties(&publish.properties, version, w);
    first_of(publish)
}

fn write_ack(first: u8, ack: &Ack, version: Version, w: &mut BytesMut) -> u8 {
    w.put_u16(ack.id);
    if version == Version::V5 && (ack.reason != 0 || ack.reason_string.is_some()) {
        w.put_u8(ack.reason);
        Properties { reason_string: ack.reason_string.clone(), ..Properties::default() }.write(w);
    }
    first
}

fn write_codes(first: u8, id: u16, codes: &[u8], version: Version, w: &mut BytesMut) -> u8 {
    w.put_u16(id);
    write_properties(&Properties::default(), version, w);
    w.put_slice(codes);
    first
}
