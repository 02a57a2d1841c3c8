//! What every task of the door holds.

use crate::audience::Crowd;
use crate::auth::Logins;
use crate::backend::Backend;
use crate::config::{Anonymous, DoorLimits};
use crate::hall::Mail;
use crate::keeper::Keeper;
use crate::link::Kind;
use crate::meter::Meters;
use crate::rights::{Pattern, Reading, Rights};
use crate::stats::Counters;
use crate::topic::{Bounds, First};
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::Origin;
use tokio::sync::{Semaphore, mpsc, watch};

pub(crate) struct Shared {
    pub(crate) origin: Origin,
    pub(crate) limits: DoorLimits,
    pub(crate) anonymous: Anonymous,
    pub(crate) keeper: Arc<dyn Keeper>,
    pub(crate) hall: mpsc::Sender<Mail>,
    pub(crate) crowd: Arc<Crowd>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) meters: Meters,
    pub(crate) handshakes: Arc<Semaphore>,
    pub(crate) backend: Backend,
    pub(crate) logins: Option<Logins>,
    pub(crate) rights: watch::Receiver<Arc<Rights>>,
    pub(crate) reply_topics: Vec<Pattern>,
}

impl Shared {
    /// Bounds of topic names and filters.
    pub(crate) fn topics(&self) -> Bounds {
        let first = match self.backend.kind {
            Kind::Rumqttd => First::Ascii,
            Kind::Whole => First::Any,
        };
        Bounds { bytes_max: self.limits.topic_bytes_max, levels_max: self.limits.levels_max, first }
    }

    /// What decides about a client's topics, by these rights.
    pub(crate) fn reading<'a>(&'a self, rights: &'a Rights, client_id: &'a str) -> Reading<'a> {
        Reading { origin: &self.origin, rights, reply_topics: &self.reply_topics, client_id }
    }
}

impl DoorLimits {
    /// A Session Expiry Interval of MQTT 5, within the limit.
    pub(crate) fn expiry(&self, seconds: u32) -> Duration {
        Duration::from_secs(seconds.into()).min(Duration::from_millis(self.session_expiry_max_ms))
    }
}
