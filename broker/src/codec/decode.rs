//! Bytes to packets.

use super::packet::{Ack, ConnAck, Connect, Filter, Malformed, Packet, Publish, QoS, Version, Will, reason};
use super::properties::{Properties, options, place};
use super::reader::{Reader, varint};
use bytes::{Buf, Bytes, BytesMut};

/// Takes one packet off the front of `buffer`; `None` while bytes are missing. `bytes_max` bounds the whole packet.
///
/// # Errors
/// What is wrong with it; the connection cannot go on.
pub(crate) fn decode(buffer: &mut BytesMut, version: Version, bytes_max: usize) -> Result<Option<Packet>, Malformed> {
    let Some(&first) = buffer.first() else { return Ok(None) };
    let Some((len, digits)) = varint(&buffer[1..])? else { return Ok(None) };
    let (len, head) = (len as usize, 1 + digits);
    if head + len > bytes_max {
        return Err(Malformed { reason: reason::TOO_LARGE, what: "packet is larger than the limit" });
    }
    if buffer.len() < head + len {
        return Ok(None);
    }
    buffer.advance(head);
    let body = buffer.split_to(len).freeze();
    packet(first, Reader::new(body), version).map(Some)
}

/// The protocol version of a CONNECT that is still in the buffer, where one can be told.
pub(crate) fn peek_version(buffer: &[u8]) -> Option<Version> {
    let (_, digits) = varint(buffer.get(1..)?).ok()??;
    match buffer.get(1 + digits + 6)? {
        5 => Some(Version::V5),
        _ => Some(Version::V4),
    }
}

/// What stands at the front of a PUBLISH whose payload need not be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublishHead {
    /// Bytes of the whole packet.
    pub(crate) bytes: usize,
    pub(crate) qos: QoS,
    /// Zero at QoS 0.
    pub(crate) id: u16,
}

/// Reads it; `None` while bytes are missing.
///
/// # Errors
/// What starts here is no PUBLISH.
pub(crate) fn publish_head(buffer: &[u8]) -> Result<Option<PublishHead>, Malformed> {
    let Some((first, rest)) = buffer.split_first() else { return Ok(None) };
    if first >> 4 != 3 {
        return Err(Malformed { reason: reason::TOO_LARGE, what: "a packet that is no PUBLISH is over the limit" });
    }
    let qos = QoS::from_bits((first >> 1) & 3)?;
    let Some((len, digits)) = varint(rest)? else { return Ok(None) };
    let mut r = Reader::new(Bytes::copy_from_slice(&rest[digits..rest.len().min(digits + HEAD_BYTES_MAX)]));
    let Ok(_topic) = r.bytes() else { return Ok(None) };
    let id = if qos == QoS::AtMostOnce { Ok(0) } else { r.u16() };
    Ok(id.ok().map(|id| PublishHead { bytes: 1 + digits + len as usize, qos, id }))
}

/// Topic with its length, and packet identifier, at most, in bytes.
const HEAD_BYTES_MAX: usize = 2 + u16::MAX as usize + 2;

fn packet(first: u8, mut r: Reader, version: Version) -> Result<Packet, Malformed> {
    let (kind, flags) = (first >> 4, first & 0x0f);
    let flags_due = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
    if kind != 3 && flags != flags_due {
        return Err(Malformed::packet("fixed header has wrong flags"));
    }
    let decoded = match kind {
        1 => Packet::Connect(Box::new(connect(&mut r)?)),
        2 => Packet::ConnAck(Box::new(connack(&mut r, version)?)),
        3 => Packet::Publish(Box::new(publish(&mut r, flags, version)?)),
        4 => Packet::PubAck(ack(&mut r, version)?),
        5 => Packet::PubRec(ack(&mut r, version)?),
        6 => Packet::PubRel(ack(&mut r, version)?),
        7 => Packet::PubComp(ack(&mut r, version)?),
        8 => subscribe(&mut r, version)?,
        9 => Packet::SubAck { id: r.id()?, codes: codes(&mut r, version)? },
        10 => unsubscribe(&mut r, version)?,
        // 3.1.1 has no codes here; bytes after the identifier are left over.
        11 if version == Version::V4 => Packet::UnsubAck { id: r.id()?, codes: Vec::new() },
        11 => Packet::UnsubAck { id: r.id()?, codes: codes(&mut r, version)? },
        12 => Packet::PingReq,
        13 => Packet::PingResp,
        14 => disconnect(&mut r, version)?,
        15 if version == Version::V5 => {
            r.rest();
            Packet::Auth
        }
        _ => return Err(Malformed::packet("packet type is reserved")),
    };
    if r.is_empty() { Ok(decoded) } else { Err(Malformed::packet("packet has bytes left over")) }
}

fn properties(r: &mut Reader, version: Version, place: u16) -> Result<Properties, Malformed> {
    match version {
        Version::V4 => Ok(Properties::default()),
        Version::V5 => Properties::read(r, place),
    }
}

fn protocol(r: &mut Reader) -> Result<Version, Malformed> {
    let unsupported = |what| Malformed { reason: reason::BAD_VERSION, what };
    if r.bytes()?.as_ref() != b"MQTT" {
        return Err(unsupported("protocol name is not MQTT"));
    }
    match r.u8()? {
        4 => Ok(Version::V4),
        5 => Ok(Version::V5),
        _ => Err(unsupported("protocol level is neither 4 nor 5")),
    }
}

fn connect(r: &mut Reader) -> Result<Connect, Malformed> {
    let version = protocol(r)?;
    let flags = r.u8()?;
    if flags & 1 != 0 {
        return Err(Malformed::packet("connect flags have the reserved bit"));
    }
    let keep_alive_s = r.u16()?;
    let properties = properties(r, version, place::CONNECT)?;
    let client_id = r.text()?;
    let will = will(r, flags, version)?;
    let user = if flags & 0x80 == 0 { None } else { Some(r.text()?) };
    let password = if flags & 0x40 == 0 { None } else { Some(r.bytes()?) };
    if version == Version::V4 && user.is_none() && password.is_some() {
        return Err(Malformed::packet("password without user name"));
    }
    Ok(Connect { version, clean_start: flags & 2 != 0, keep_alive_s, client_id, will, user, password, properties })
}

fn will(r: &mut Reader, flags: u8, version: Version) -> Result<Option<Will>, Malformed> {
    let qos = QoS::from_bits((flags >> 3) & 3)?;
    let retain = flags & 0x20 != 0;
    if flags & 4 == 0 {
        let clean = qos == QoS::AtMostOnce && !retain;
        return if clean { Ok(None) } else { Err(Malformed::packet("will flags without a will")) };
    }
    let properties = properties(r, version, place::WILL)?;
    Ok(Some(Will { topic: r.text()?, payload: r.bytes()?, qos, retain, properties }))
}

fn connack(r: &mut Reader, version: Version) -> Result<ConnAck, Malformed> {
    let flags = r.u8()?;
    if flags > 1 {
        return Err(Malformed::packet("connack flags have a reserved bit"));
    }
    Ok(ConnAck { session_present: flags == 1, code: r.u8()?, properties: properties(r, version, place::CONNACK)? })
}

fn publish(r: &mut Reader, flags: u8, version: Version) -> Result<Publish, Malformed> {
    let qos = QoS::from_bits((flags >> 1) & 3)?;
    let dup = flags & 8 != 0;
    if dup && qos == QoS::AtMostOnce {
        return Err(Malformed::packet("DUP at QoS 0"));
    }
    let topic = r.text()?;
    let id = if qos == QoS::AtMostOnce { 0 } else { r.id()? };
    let properties = properties(r, version, place::PUBLISH)?;
    Ok(Publish { dup, qos, retain: flags & 1 != 0, topic, id, properties, payload: r.rest() })
}

fn ack(r: &mut Reader, version: Version) -> Result<Ack, Malformed> {
    let mut ack = Ack::success(r.id()?);
    if version == Version::V5 && !r.is_empty() {
        ack.reason = r.u8()?;
        if !r.is_empty() {
            ack.reason_string = Properties::read(r, place::ACK)?.reason_string;
        }
    }
    Ok(ack)
}

fn subscribe(r: &mut Reader, version: Version) -> Result<Packet, Malformed> {
    let id = r.id()?;
    let properties = Box::new(properties(r, version, place::SUBSCRIBE)?);
    let mut filters = Vec::new();
    while !r.is_empty() {
        let filter = r.text()?;
        let byte = r.u8()?;
        if version == Version::V4 && byte > 2 {
            return Err(Malformed::packet("requested QoS is above 2"));
        }
        let (qos, options) = options(byte)?;
        filters.push(Filter { filter, qos, options });
    }
    if filters.is_empty() {
        return Err(Malformed::protocol("SUBSCRIBE without a filter"));
    }
    Ok(Packet::Subscribe { id, filters, properties })
}

fn unsubscribe(r: &mut Reader, version: Version) -> Result<Packet, Malformed> {
    let id = r.id()?;
    properties(r, version, place::UNSUBSCRIBE)?;
    let mut filters = Vec::new();
    while !r.is_empty() {
        filters.push(r.text()?);
    }
    if filters.is_empty() {
        return Err(Malformed::protocol("UNSUBSCRIBE without a filter"));
    }
    Ok(Packet::Unsubscribe { id, filters })
}

fn codes(r: &mut Reader, version: Version) -> Result<Vec<u8>, Malformed> {
    properties(r, version, place::ACK)?;
    let rest: Bytes = r.rest();
    Ok(rest.to_vec())
}

fn disconnect(r: &mut Reader, version: Version) -> Result<Packet, Malformed> {
    let (mut reason, mut properties) = (reason::SUCCESS, Properties::default());
    if version == Version::V5 && !r.is_empty() {
        reason = r.u8()?;
        if !r.is_empty() {
            properties = Properties::read(r, place::DISCONNECT)?;
        }
    }
    Ok(Packet::Disconnect { reason, properties: Box::new(properties) })
}
