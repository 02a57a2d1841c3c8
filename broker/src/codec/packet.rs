//! What a packet says.

use super::properties::Properties;
use bytes::Bytes;

/// The protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V5,
}

/// Quality of service, in the words of the specification.
#[allow(clippy::enum_variant_names)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum QoS {
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl QoS {
    pub(crate) fn from_bits(bits: u8) -> Result<Self, Malformed> {
        match bits {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            _ => Err(Malformed::packet("QoS is 3, allowed are 0 to 2")),
        }
    }
}

/// Reason codes of MQTT 5 (section 2.4) that the door uses.
pub(crate) mod reason {
    pub(crate) const SUCCESS: u8 = 0x00;
    pub(crate) const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    pub(crate) const DISCONNECT_WITH_WILL: u8 = 0x04;
    pub(crate) const UNSPECIFIED: u8 = 0x80;
    pub(crate) const MALFORMED: u8 = 0x81;
    pub(crate) const PROTOCOL: u8 = 0x82;
    pub(crate) const BAD_VERSION: u8 = 0x84;
    pub(crate) const BAD_CLIENT_ID: u8 = 0x85;
    pub(crate) const BAD_LOGIN: u8 = 0x86;
    pub(crate) const NOT_AUTHORISED: u8 = 0x87;
    pub(crate) const SERVER_BUSY: u8 = 0x89;
    pub(crate) const SHUTTING_DOWN: u8 = 0x8B;
    pub(crate) const BAD_AUTH_METHOD: u8 = 0x8C;
    pub(crate) const KEEP_ALIVE: u8 = 0x8D;
    pub(crate) const TAKEN_OVER: u8 = 0x8E;
    pub(crate) const FILTER_INVALID: u8 = 0x8F;
    pub(crate) const TOPIC_INVALID: u8 = 0x90;
    pub(crate) const ID_NOT_FOUND: u8 = 0x92;
    pub(crate) const ALIAS_INVALID: u8 = 0x94;
    pub(crate) const TOO_LARGE: u8 = 0x95;
    pub(crate) const QUOTA: u8 = 0x97;
    pub(crate) const RETAIN_UNSUPPORTED: u8 = 0x9A;
    pub(crate) const QOS_UNSUPPORTED: u8 = 0x9B;
    pub(crate) const SHARED_UNSUPPORTED: u8 = 0x9E;
    pub(crate) const SUBSCRIPTION_ID: u8 = 0xA1;
}

/// Bytes that are no packet: the MQTT 5 reason code, and the fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) reason: u8,
    pub(crate) what: &'static str,
}

impl Malformed {
    pub(crate) fn packet(what: &'static str) -> Self {
        Self { reason: reason::MALFORMED, what }
    }

    pub(crate) fn protocol(what: &'static str) -> Self {
        Self { reason: reason::PROTOCOL, what }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Packet {
    Connect(Box<Connect>),
    ConnAck(Box<ConnAck>),
    Publish(Box<Publish>),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe { id: u16, filters: Vec<Filter>, properties: Box<Properties> },
    SubAck { id: u16, codes: Vec<u8> },
    Unsubscribe { id: u16, filters: Vec<String> },
    UnsubAck { id: u16, codes: Vec<u8> },
    PingReq,
    PingResp,
    Disconnect { reason: u8, properties: Box<Properties> },
    Auth,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_s: u16,
    pub(crate) client_id: String,
    pub(crate) will: Option<Will>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Bytes>,
    pub(crate) properties: Properties,
}

/// What is published when a client ends without goodbye.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) properties: Properties,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConnAck {
    pub(crate) session_present: bool,
    pub(crate) code: u8,
    pub(crate) properties: Properties,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Publish {
    pub(crate) dup: bool,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    /// Zero at QoS 0.
    pub(crate) id: u16,
    pub(crate) properties: Properties,
    pub(crate) payload: Bytes,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ack {
    pub(crate) id: u16,
    pub(crate) reason: u8,
    pub(crate) reason_string: Option<String>,
}

impl Ack {
    pub(crate) fn success(id: u16) -> Self {
        Self { id, reason: reason::SUCCESS, reason_string: None }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Filter {
    pub(crate) filter: String,
    pub(crate) qos: QoS,
    /// The other options of MQTT 5, as bits 2 to 5; zero in 3.1.1.
    pub(crate) options: u8,
}
