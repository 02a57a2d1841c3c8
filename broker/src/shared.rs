//! What every task of the door holds.

use crate::auth::Logins;
use crate::backend::Backend;
use crate::config::{Anonymous, DoorLimits};
use crate::hall::Mail;
use crate::keeper::Keeper;
use crate::stats::Counters;
use std::sync::Arc;
use std::time::Duration;
use tidegate_schemas::Origin;
use tokio::sync::mpsc;

pub(crate) struct Shared {
    pub(crate) origin: Origin,
    pub(crate) limits: DoorLimits,
    pub(crate) anonymous: Anonymous,
    pub(crate) keeper: Arc<dyn Keeper>,
    pub(crate) hall: mpsc::Sender<Mail>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) backend: Backend,
    pub(crate) logins: Option<Logins>,
}

impl DoorLimits {
    /// A Session Expiry Interval of MQTT 5, within the limit.
    pub(crate) fn expiry(&self, seconds: u32) -> Duration {
        Duration::from_secs(seconds.into()).min(Duration::from_millis(self.session_expiry_max_ms))
    }
}
