//! Topics: the only place where `tg/v1/…` is spelt. `Topic::parse(topic.name()) == topic`.

use crate::ids::{self, DeviceId, GatewayId, IdError, SiteId};
use std::fmt;

const ROOT: &str = "tg/v1";

/// The gateway that a topic belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// The site.
    pub site: SiteId,
    /// The gateway at the site.
    pub gateway: GatewayId,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.site, self.gateway)
    }
}

/// What is said on a device's topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceTopic {
    /// Device to gateway: a prompt.
    Prompt,
    /// Gateway to device: frames.
    Answer,
    /// Device to gateway: cancel, fetch.
    Control,
    /// Gateway to cloud: a prompt that should be answered there.
    Escalate,
    /// Cloud to gateway: what became of an escalation.
    Resolve,
}

impl DeviceTopic {
    const ALL: [Self; 5] = [Self::Prompt, Self::Answer, Self::Control, Self::Escalate, Self::Resolve];

    fn word(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Answer => "answer",
            Self::Control => "control",
            Self::Escalate => "escalate",
            Self::Resolve => "resolve",
        }
    }
}

/// The retained topics by which a gateway describes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StateKind {
    /// Alive, and what is wrong; has a will.
    Health,
    /// Models, tasks, limits.
    Card,
    /// Queues and rates.
    Load,
    /// All numbers of `/metrics`: one flat object, the same names.
    Metrics,
}

impl StateKind {
    const ALL: [Self; 4] = [Self::Health, Self::Card, Self::Load, Self::Metrics];

    fn word(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Card => "card",
            Self::Load => "load",
            Self::Metrics => "metrics",
        }
    }
}

/// A topic name of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A topic of one device.
    Device {
        /// Whose gateway.
        origin: Origin,
        /// What is said there.
        what: DeviceTopic,
        /// The device.
        device: DeviceId,
    },
    /// A retained topic of the gateway.
    State {
        /// Whose gateway.
        origin: Origin,
        /// Which of them.
        kind: StateKind,
    },
    /// Something happened at the gateway; the kind is an identifier such as `drop`.
    Event {
        /// Whose gateway.
        origin: Origin,
        /// What happened.
        kind: String,
    },
}

/// Why a topic name is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Outside `tg/v1/`.
    #[error("topic is not below {ROOT}")]
    Foreign,
    /// Below `tg/v1/`, but no shape that we know.
    #[error("topic below {ROOT} has an unknown shape, known is {ROOT}/SITE/GATEWAY/WHAT/NAME")]
    Shape,
    /// A level that should be an identifier is none.
    #[error(transparent)]
    Id(#[from] IdError),
}

impl Topic {
    /// A topic of one device.
    #[must_use]
    pub fn device(origin: &Origin, what: DeviceTopic, device: &DeviceId) -> Self {
        Self::Device { origin: origin.clone(), what, device: device.clone() }
    }

    /// The topic name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Device { origin, what, device } => format!("{ROOT}/{origin}/{}/{device}", what.word()),
            Self::State { origin, kind } => format!("{ROOT}/{origin}/state/{}", kind.word()),
            Self::Event { origin, kind } => format!("{ROOT}/{origin}/event/{kind}"),
        }
    }

    /// Reads a topic name.
    ///
    /// # Errors
    /// [`TopicError::Foreign`] outside `tg/v1/`, else what is wrong with it.
    pub fn parse(name: &str) -> Result<Self, TopicError> {
        let rest = name.strip_prefix(ROOT).and_then(|r| r.strip_prefix('/')).ok_or(TopicError::Foreign)?;
        let levels: Vec<&str> = rest.split('/').collect();
        let [site, gateway, what, last] = levels[..] else { return Err(TopicError::Shape) };
        let origin = Origin { site: site.parse()?, gateway: gateway.parse()? };
        if let Some(what) = DeviceTopic::ALL.into_iter().find(|t| t.word() == what) {
            return Ok(Self::Device { origin, what, device: last.parse()? });
        }
        match what {
            "event" => {
                ids::check("event kind", last)?;
                Ok(Self::Event { origin, kind: last.to_owned() })
            }
            "state" => {
                let kind = StateKind::ALL.into_iter().find(|k| k.word() == last).ok_or(TopicError::Shape)?;
                Ok(Self::State { origin, kind })
            }
            _ => Err(TopicError::Shape),
        }
    }

    /// The filter that matches one kind of device topic of one gateway, all devices.
    #[must_use]
    pub fn filter_of_gateway(origin: &Origin, what: DeviceTopic) -> String {
        format!("{ROOT}/{origin}/{}/+", what.word())
    }

    /// The shared subscription of the workers: escalations of all gateways.
    #[must_use]
    pub fn worker_filter() -> String {
        format!("$share/tidegate/{ROOT}/+/+/escalate/+")
    }
}
