//! How the steps of an ask end, and what follows from a packet.

use crate::board::{End, Outcome};
use rust_mqtt::types::{MqttString, PacketIdentifier, ReasonCode};

/// How one connection ended.
pub(crate) enum Step {
    Decided(End),
    Lost(&'static str),
}

/// What a publish means.
pub(crate) enum Verdict {
    More,
    End(End),
    Again(u32),
}

/// What follows a packet.
pub(crate) enum Next {
    Nothing,
    Acknowledge(PacketIdentifier, Option<End>),
    End(End),
    Again(u32),
}

pub(crate) fn text(text: &str) -> Result<MqttString<'_>, Step> {
    MqttString::from_str(text).map_err(|_| unfit())
}

pub(crate) fn unfit() -> Step {
    Step::Decided(End { outcome: Outcome::Usage, why: "the prompt or a name does not fit" })
}

/// What a CONNACK that says no means; some reasons pass.
pub(crate) fn refusal(reason: ReasonCode) -> Step {
    let why = match reason {
        ReasonCode::BadUserNameOrPassword => "wrong user name or password",
        ReasonCode::NotAuthorized => "not authorised",
        ReasonCode::ServerBusy | ReasonCode::ServerUnavailable => return Step::Lost("the broker is not available"),
        _ => "connection refused",
    };
    Step::Decided(End { outcome: Outcome::Refused, why })
}
