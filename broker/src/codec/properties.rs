//! Properties of MQTT 5: those of messages whole, those of connections that the door acts on or sets. The others are
//! checked and passed over.

use super::packet::{Malformed, QoS};
use super::reader::Reader;
use bytes::{BufMut, Bytes, BytesMut};

/// Where properties stand, as bits, for the table of what is allowed where (MQTT 5.0, table 2-4).
pub(super) mod place {
    pub(in crate::codec) const PUBLISH: u16 = 1;
    pub(in crate::codec) const WILL: u16 = 2;
    pub(in crate::codec) const CONNECT: u16 = 4;
    pub(in crate::codec) const CONNACK: u16 = 8;
    pub(in crate::codec) const SUBSCRIBE: u16 = 16;
    pub(in crate::codec) const UNSUBSCRIBE: u16 = 32;
    pub(in crate::codec) const ACK: u16 = 64;
    pub(in crate::codec) const DISCONNECT: u16 = 128;
}
use place::{ACK, CONNACK, CONNECT, DISCONNECT, PUBLISH, SUBSCRIBE, WILL};

const USER_PROPERTY: u8 = 0x26;
const SUBSCRIPTION_ID: u8 = 0x0b;
const REASON_STRING: u8 = 0x1f;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Properties {
    pub(crate) message_expiry_s: Option<u32>,
    pub(crate) response_topic: Option<String>,
    pub(crate) correlation: Option<Bytes>,
    pub(crate) topic_alias: Option<u16>,
    /// Payload Format Indicator: 1 is UTF-8.
    pub(crate) payload_format: Option<u8>,
    pub(crate) content_type: Option<String>,
    /// User properties, in their order (MQTT 5.0, 3.3.2.3.7).
    pub(crate) user: Vec<(String, String)>,
    /// One in SUBSCRIBE; as many as subscriptions matched in a PUBLISH of a server.
    pub(crate) subscription_ids: Vec<u32>,
    pub(crate) session_expiry_s: Option<u32>,
    pub(crate) receive_max: Option<u16>,
    pub(crate) packet_bytes_max: Option<u32>,
    pub(crate) topic_alias_max: Option<u16>,
    pub(crate) problem_wanted: Option<u8>,
    pub(crate) auth_method: Option<String>,
    pub(crate) will_delay_s: Option<u32>,
    pub(crate) assigned_client_id: Option<String>,
    pub(crate) server_keep_alive_s: Option<u16>,
    pub(crate) qos_max: Option<u8>,
    pub(crate) retain_available: Option<u8>,
    pub(crate) wildcard_available: Option<u8>,
    pub(crate) shared_available: Option<u8>,
    pub(crate) subscription_ids_available: Option<u8>,
    pub(crate) reason_string: Option<String>,
}

fn set<T>(slot: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed::protocol("a property stands twice")),
    }
}

fn flag(reader: &mut Reader) -> Result<u8, Malformed> {
    match reader.u8()? {
        value @ (0 | 1) => Ok(value),
        _ => Err(Malformed::protocol("a flag property is neither 0 nor 1")),
    }
}

fn nonzero<T: PartialEq + From<u8>>(value: T) -> Result<T, Malformed> {
    if value == T::from(0) { Err(Malformed::protocol("a property is 0 that must not be")) } else { Ok(value) }
}

fn allowed(id: u8) -> u16 {
    match id {
        0x01..=0x03 | 0x08 | 0x09 => PUBLISH | WILL,
        0x23 => PUBLISH,
        SUBSCRIPTION_ID => PUBLISH | SUBSCRIBE,
        0x11 => CONNECT | CONNACK | DISCONNECT,
        0x15 | 0x16 | 0x21 | 0x22 | 0x27 => CONNECT | CONNACK,
        0x17 | 0x19 => CONNECT,
        0x18 => WILL,
        0x12 | 0x13 | 0x1a | 0x24 | 0x25 | 0x28..=0x2a => CONNACK,
        0x1c => CONNACK | DISCONNECT,
        REASON_STRING => CONNACK | ACK | DISCONNECT,
        USER_PROPERTY => u16::MAX,
        _ => 0,
    }
}

impl Properties {
    pub(super) fn read(reader: &mut Reader, place: u16) -> Result<Self, Malformed> {
        let len = reader.varint()? as usize;
        let mut reader = Reader::new(reader.take(len)?);
        let mut properties = Self::default();
        let mut passed = Passed::default();
        while !reader.is_empty() {
            let id = reader.u8()?;
            if allowed(id) & place == 0 {
                return Err(Malformed::protocol("a property stands where it is not allowed"));
            }
            if !properties.read_publish(id, &mut reader)? && !properties.read_connect(id, &mut reader)? {
                passed.read(id, &mut reader)?;
            }
        }
        Ok(properties)
    }

    fn read_publish(&mut self, id: u8, r: &mut Reader) -> Result<bool, Malformed> {
        match id {
            0x02 => set(&mut self.message_expiry_s, r.u32()?)?,
            0x08 => set(&mut self.response_topic, r.text()?)?,
            0x09 => set(&mut self.correlation, r.bytes()?)?,
            0x23 => set(&mut self.topic_alias, r.u16()?)?,
            0x01 => set(&mut self.payload_format, flag(r)?)?,
            0x03 => set(&mut self.content_type, r.text()?)?,
            SUBSCRIPTION_ID => self.subscription_ids.push(nonzero(r.varint()?)?),
            USER_PROPERTY => self.user.push((r.text()?, r.text()?)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn read_connect(&mut self, id: u8, r: &mut Reader) -> Result<bool, Malformed> {
        match id {
            0x11 => set(&mut self.session_expiry_s, r.u32()?)?,
            0x21 => set(&mut self.receive_max, nonzero(r.u16()?)?)?,
            0x27 => set(&mut self.packet_bytes_max, nonzero(r.u32()?)?)?,
            0x22 => set(&mut self.topic_alias_max, r.u16()?)?,
            0x17 => set(&mut self.problem_wanted, flag(r)?)?,
            0x15 => set(&mut self.auth_method, r.text()?)?,
            0x18 => set(&mut self.will_delay_s, r.u32()?)?,
            0x12 => set(&mut self.assigned_client_id, r.text()?)?,
            0x13 => set(&mut self.server_keep_alive_s, r.u16()?)?,
            0x24 => set(&mut self.qos_max, flag(r)?)?,
            0x25 => set(&mut self.retain_available, flag(r)?)?,
            0x28 => set(&mut self.wildcard_available, flag(r)?)?,
            0x2a => set(&mut self.shared_available, flag(r)?)?,
            0x29 => set(&mut self.subscription_ids_available, flag(r)?)?,
            REASON_STRING => set(&mut self.reason_string, r.text()?)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What a message says of itself, without what belongs to one connection: alias and subscription identifiers.
    pub(crate) fn of_message(self) -> Self {
        Self { topic_alias: None, subscription_ids: Vec::new(), ..self }
    }

    /// Bytes of all of them, encoded.
    pub(crate) fn encoded_bytes(&self) -> usize {
        let mut bytes = BytesMut::new();
        self.write(&mut bytes);
        bytes.len()
    }

    /// The first user property `traceparent` (W3C Trace Context for MQTT).
    pub(crate) fn traceparent(&self) -> Option<&str> {
        self.first("traceparent")
    }

    /// The first user property `tidegate-via`: the gateways that forwarded this publish.
    pub(crate) fn via(&self) -> Option<&str> {
        self.first("tidegate-via")
    }

    fn first(&self, wanted: &str) -> Option<&str> {
        self.user.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    pub(super) fn write(&self, out: &mut BytesMut) {
        let mut body = BytesMut::new();
        let w = &mut body;
        put_u32(w, 0x02, self.message_expiry_s);
        put_text(w, 0x08, self.response_topic.as_deref());
        put_bytes(w, 0x09, self.correlation.as_deref());
        put_u16(w, 0x23, self.topic_alias);
        put_u8(w, 0x01, self.payload_format);
        put_text(w, 0x03, self.content_type.as_deref());
        for (name, value) in &self.user {
            put_text(w, USER_PROPERTY, Some(name));
            write_bytes(w, value.as_bytes());
        }
        for id in &self.subscription_ids {
            w.put_u8(SUBSCRIPTION_ID);
            write_varint(w, *id);
        }
        put_u32(w, 0x11, self.session_expiry_s);
        put_u16(w, 0x21, self.receive_max);
        put_u32(w, 0x27, self.packet_bytes_max);
        put_u16(w, 0x22, self.topic_alias_max);
        put_u8(w, 0x17, self.problem_wanted);
        put_text(w, 0x15, self.auth_method.as_deref());
        put_u32(w, 0x18, self.will_delay_s);
        put_text(w, 0x12, self.assigned_client_id.as_deref());
        put_u16(w, 0x13, self.server_keep_alive_s);
        put_u8(w, 0x24, self.qos_max);
        put_u8(w, 0x25, self.retain_available);
        put_u8(w, 0x28, self.wildcard_available);
        put_u8(w, 0x2a, self.shared_available);
        put_u8(w, 0x29, self.subscription_ids_available);
        put_text(w, REASON_STRING, self.reason_string.as_deref());
        write_varint(out, u32::try_from(body.len()).unwrap_or(u32::MAX));
        out.put_slice(&body);
    }
}

/// Properties that the door checks and passes over.
#[derive(Default)]
struct Passed {
    seen: u64,
}

impl Passed {
    fn read(&mut self, id: u8, r: &mut Reader) -> Result<(), Malformed> {
        let bit = 1_u64 << (id & 63);
        if self.seen & bit != 0 {
            return Err(Malformed::protocol("a property stands twice"));
        }
        self.seen |= bit;
        match id {
            0x19 => flag(r).map(drop),
            0x1a | 0x1c => r.text().map(drop),
            0x16 => r.bytes().map(drop),
            _ => Err(Malformed::packet("an unknown property")),
        }
    }
}

fn put_u8(w: &mut BytesMut, id: u8, value: Option<u8>) {
    if let Some(value) = value {
        w.put_u8(id);
        w.put_u8(value);
    }
}

fn put_u16(w: &mut BytesMut, id: u8, value: Option<u16>) {
    if let Some(value) = value {
        w.put_u8(id);
        w.put_u16(value);
    }
}

fn put_u32(w: &mut BytesMut, id: u8, value: Option<u32>) {
    if let Some(value) = value {
        w.put_u8(id);
        w.put_u32(value);
    }
}

fn put_text(w: &mut BytesMut, id: u8, value: Option<&str>) {
    put_bytes(w, id, value.map(str::as_bytes));
}

fn put_bytes(w: &mut BytesMut, id: u8, value: Option<&[u8]>) {
    if let Some(value) = value {
        w.put_u8(id);
        write_bytes(w, value);
    }
}

/// A field with a two-byte length; what is longer than that allows is cut, our own fields never are.
pub(super) fn write_bytes(w: &mut BytesMut, value: &[u8]) {
    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
    w.put_u16(len);
    w.put_slice(&value[..usize::from(len)]);
}

pub(super) fn write_varint(w: &mut BytesMut, mut value: u32) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            w.put_u8(low);
            return;
        }
        w.put_u8(low | 0x80);
    }
}

/// Subscription options: QoS and the rest, reserved bits and retain handling 3 refused.
pub(super) fn options(byte: u8) -> Result<(QoS, u8), Malformed> {
    if byte & 0xc0 != 0 || (byte >> 4) & 3 == 3 {
        return Err(Malformed::protocol("subscription options have a reserved value"));
    }
    Ok((QoS::from_bits(byte & 3)?, byte & 0x3c))
}
