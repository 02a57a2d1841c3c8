//! What a line hears, in words that both protocol versions share, and what their reason codes ask us to do.

use super::line::Version;
use bytes::Bytes;
use rumqttc::v5::ConnectionError as Error5;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode as Code5, DisconnectReasonCode as Bye, Packet as Packet5, PubAckReason,
    Publish as Publish5, SubscribeReasonCode,
};
use rumqttc::v5::{Event as Event5, StateError as State5};
use rumqttc::{ConnectReturnCode as Code3, ConnectionError as Error3, Event as Event3, Outgoing, Packet as Packet3};
use std::io::ErrorKind;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// No CONNACK yet.
    Greeting,
    /// The broker took us.
    Open,
}

/// What a line says. Not `Debug`: messages hold payloads.
pub(crate) enum Heard {
    /// The broker took us.
    Welcome(Welcome),
    /// The oldest open subscription was granted, or refused with this reason.
    Subscribed(Result<(), String>),
    /// A publish got its packet id; 0 at QoS 0.
    Sent(u16),
    /// The broker's word about the publish with this packet id.
    Acked(u16, Ack),
    /// A message of a subscription.
    Message(Box<Incoming>),
    /// Something else: the broker lives.
    Alive,
    /// The connection is over.
    Down(Down),
}

/// What a broker says when it takes us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// The version that is spoken.
    pub(crate) version: Version,
    /// QoS 1 publishes that it takes before the first is acknowledged; none in MQTT 3.1.1.
    pub(crate) receive_max: Option<u16>,
    /// Largest packet that it takes, in bytes; none in MQTT 3.1.1.
    pub(crate) packet_bytes_max: Option<u32>,
}

/// What became of a publish. In MQTT 3.1.1 always [`Ack::Taken`]: it has no other word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ack {
    /// The broker has it.
    Taken,
    /// The broker threw it away, because nobody subscribes its topic (0x10).
    Nobody,
    /// Not now: too much, or a passing fault (0x80, 0x83, 0x91, 0x97).
    Later(&'static str),
    /// Never: not allowed, or not acceptable as it is (0x87, 0x90, 0x99).
    Never(&'static str),
}

impl Ack {
    fn of(reason: PubAckReason) -> Self {
        match reason {
            PubAckReason::Success => Self::Taken,
            PubAckReason::NoMatchingSubscribers => Self::Nobody,
            PubAckReason::UnspecifiedError => Self::Later("unspecified error (0x80)"),
            PubAckReason::ImplementationSpecificError => Self::Later("implementation specific error (0x83)"),
            PubAckReason::PacketIdentifierInUse => Self::Later("packet identifier in use (0x91)"),
            PubAckReason::QuotaExceeded => Self::Later("quota exceeded (0x97)"),
            PubAckReason::NotAuthorized => Self::Never("not authorised (0x87)"),
            PubAckReason::TopicNameInvalid => Self::Never("topic name invalid (0x90)"),
            PubAckReason::PayloadFormatInvalid => Self::Never("payload format invalid (0x99)"),
        }
    }
}

/// Why a connection is over, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Down {
    /// The fact.
    pub(crate) why: String,
    /// What to do about it.
    pub(crate) cause: Cause,
}

/// What the end of a connection asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Try again soon, or elsewhere.
    Broken,
    /// The peer may not speak this version: try the other one first.
    Version,
    /// The broker asks for patience: not soon, but elsewhere at once.
    Busy,
    /// The broker does not want us: a person has to mend it. Elsewhere at once, here seldom.
    Refused,
}

impl Down {
    /// It broke.
    pub(crate) fn broken(why: impl Into<String>) -> Self {
        Self { why: why.into(), cause: Cause::Broken }
    }
}

/// A message of a subscription. Not `Debug`: it holds a payload.
pub(crate) struct Incoming {
    /// Topic name.
    pub(crate) topic: String,
    /// The bytes.
    pub(crate) payload: Bytes,
    /// Message Expiry, in milliseconds.
    pub(crate) expiry_ms: Option<u64>,
    /// Correlation Data.
    pub(crate) correlation: Option<Bytes>,
    /// The user property `traceparent`.
    pub(crate) traceparent: Option<String>,
    /// Whether the broker had kept it for whoever subscribes.
    pub(crate) retained: bool,
    pub(super) raw: Raw,
}

/// The packet, for its acknowledgement.
pub(super) enum Raw {
    Three(rumqttc::Publish),
    Five(Publish5),
}

impl Incoming {
    fn three(publish: rumqttc::Publish) -> Self {
        Self {
            topic: publish.topic.clone(),
            payload: publish.payload.clone(),
            expiry_ms: None,
            correlation: None,
            traceparent: None,
            retained: publish.retain,
            raw: Raw::Three(publish),
        }
    }

    fn five(publish: Publish5) -> Self {
        let properties = publish.properties.as_ref();
        let user = properties.map(|p| p.user_properties.as_slice()).unwrap_or_default();
        Self {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload.clone(),
            expiry_ms: properties.and_then(|p| p.message_expiry_interval).map(|s| u64::from(s) * 1000),
            correlation: properties.and_then(|p| p.correlation_data.clone()),
            traceparent: user.iter().find(|(name, _)| name == "traceparent").map(|(_, value)| value.clone()),
            retained: publish.retain,
            raw: Raw::Five(publish),
        }
    }
}

pub(super) fn three(event: Event3) -> Option<Heard> {
    Some(match event {
        Event3::Incoming(Packet3::ConnAck(_)) => {
            Heard::Welcome(Welcome { version: Version::Three, receive_max: None, packet_bytes_max: None })
        }
        Event3::Incoming(Packet3::SubAck(ack)) => Heard::Subscribed(match ack.return_codes.first() {
            Some(rumqttc::SubscribeReasonCode::Success(_)) => Ok(()),
            _ => Err("the broker refuses the subscription".to_owned()),
        }),
        Event3::Incoming(Packet3::PubAck(ack)) => Heard::Acked(ack.pkid, Ack::Taken),
        Event3::Incoming(Packet3::Publish(publish)) => Heard::Message(Box::new(Incoming::three(publish))),
        Event3::Incoming(_) => Heard::Alive,
        Event3::Outgoing(Outgoing::Publish(packet)) => Heard::Sent(packet),
        Event3::Outgoing(_) => return None,
    })
}

pub(super) fn five(event: Event5, stage: &mut Stage) -> Option<Heard> {
    Some(match event {
        Event5::Incoming(Packet5::ConnAck(ack)) => {
            *stage = Stage::Open;
            Heard::Welcome(welcome(&ack))
        }
        Event5::Incoming(Packet5::SubAck(ack)) => Heard::Subscribed(match ack.return_codes.first() {
            Some(SubscribeReasonCode::Success(_)) => Ok(()),
            other => Err(format!("the broker refuses the subscription: {other:?}")),
        }),
        Event5::Incoming(Packet5::PubAck(ack)) => Heard::Acked(ack.pkid, Ack::of(ack.reason)),
        Event5::Incoming(Packet5::Publish(publish)) => Heard::Message(Box::new(Incoming::five(publish))),
        Event5::Incoming(_) => Heard::Alive,
        Event5::Outgoing(Outgoing::Publish(packet)) => Heard::Sent(packet),
        Event5::Outgoing(_) => return None,
    })
}

fn welcome(ack: &ConnAck) -> Welcome {
    let properties = ack.properties.as_ref();
    Welcome {
        version: Version::Five,
        receive_max: properties.and_then(|p| p.receive_max),
        packet_bytes_max: properties.and_then(|p| p.max_packet_size),
    }
}

pub(super) fn down_three(error: &Error3) -> Down {
    let cause = match error {
        Error3::ConnectionRefused(code) => match code {
            Code3::ServiceUnavailable => Cause::Busy,
            Code3::RefusedProtocolVersion => Cause::Version,
            Code3::BadClientId | Code3::BadUserNamePassword | Code3::NotAuthorized => Cause::Refused,
            Code3::Success => Cause::Broken,
        },
        _ => Cause::Broken,
    };
    let why = match error {
        Error3::NotConnAck(_) => "the broker answered CONNECT with another packet".to_owned(),
        other => other.to_string(),
    };
    Down { why, cause }
}

pub(super) fn down_five(error: &Error5, stage: Stage) -> Down {
    let cause = match error {
        Error5::ConnectionRefused(code) | Error5::MqttState(State5::ConnFail { reason: code }) => refused(*code),
        Error5::MqttState(State5::ServerDisconnect { reason_code, .. }) => bye(*reason_code),
        // A peer of 3.1.1 answers with a CONNACK that is none in MQTT 5, or only closes.
        Error5::MqttState(State5::Deserialization(_)) if stage == Stage::Greeting => Cause::Version,
        Error5::Io(error) | Error5::MqttState(State5::Io(error)) if stage == Stage::Greeting => match error.kind() {
            ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::UnexpectedEof
            | ErrorKind::InvalidData => Cause::Version,
            _ => Cause::Broken,
        },
        Error5::MqttState(State5::ConnectionAborted) if stage == Stage::Greeting => Cause::Version,
        _ => Cause::Broken,
    };
    let why = match error {
        Error5::NotConnAck(_) => "the broker answered CONNECT with another packet".to_owned(),
        other => other.to_string(),
    };
    Down { why, cause }
}

fn refused(code: Code5) -> Cause {
    match code {
        Code5::RefusedProtocolVersion | Code5::UnsupportedProtocolVersion => Cause::Version,
        Code5::ServiceUnavailable
        | Code5::ServerUnavailable
        | Code5::ServerBusy
        | Code5::QuotaExceeded
        | Code5::ConnectionRateExceeded => Cause::Busy,
        Code5::BadClientId
        | Code5::ClientIdentifierNotValid
        | Code5::BadUserNamePassword
        | Code5::NotAuthorized
        | Code5::Banned
        | Code5::BadAuthenticationMethod => Cause::Refused,
        _ => Cause::Broken,
    }
}

fn bye(code: Bye) -> Cause {
    match code {
        Bye::ServerBusy | Bye::QuotaExceeded | Bye::MessageRateTooHigh | Bye::ConnectionRateExceeded => Cause::Busy,
        Bye::NotAuthorized | Bye::AdministrativeAction => Cause::Refused,
        _ => Cause::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_not_dead_and_a_refusal_is_not_busy() {
        for code in [Code5::ServerBusy, Code5::QuotaExceeded, Code5::ConnectionRateExceeded, Code5::ServerUnavailable] {
            assert_eq!(down_five(&Error5::ConnectionRefused(code), Stage::Greeting).cause, Cause::Busy, "{code:?}");
        }
        assert_eq!(down_five(&Error5::ConnectionRefused(Code5::NotAuthorized), Stage::Greeting).cause, Cause::Refused);
        let busy = State5::ServerDisconnect { reason_code: Bye::ServerBusy, reason_string: None };
        assert_eq!(down_five(&Error5::MqttState(busy), Stage::Open).cause, Cause::Busy);
        assert_eq!(down_three(&Error3::ConnectionRefused(Code3::ServiceUnavailable)).cause, Cause::Busy);
        assert_eq!(down_three(&Error3::ConnectionRefused(Code3::NotAuthorized)).cause, Cause::Refused);
    }

    #[test]
    fn a_peer_that_only_closes_on_connect_may_speak_the_older_version() {
        let closed = || Error5::Io(std::io::Error::from(ErrorKind::ConnectionAborted));
        assert_eq!(down_five(&closed(), Stage::Greeting).cause, Cause::Version);
        assert_eq!(down_five(&closed(), Stage::Open).cause, Cause::Broken);
        let nobody = Error5::Io(std::io::Error::from(ErrorKind::ConnectionRefused));
        assert_eq!(down_five(&nobody, Stage::Greeting).cause, Cause::Broken);
        let old = Error5::ConnectionRefused(Code5::UnsupportedProtocolVersion);
        assert_eq!(down_five(&old, Stage::Greeting).cause, Cause::Version);
    }

    #[test]
    fn quota_waits_and_what_is_not_allowed_never_comes() {
        assert!(matches!(Ack::of(PubAckReason::QuotaExceeded), Ack::Later(_)));
        assert!(matches!(Ack::of(PubAckReason::NotAuthorized), Ack::Never(_)));
        assert_eq!(Ack::of(PubAckReason::NoMatchingSubscribers), Ack::Nobody);
    }
}
