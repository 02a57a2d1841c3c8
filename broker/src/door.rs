//! The open door: starts its tasks, passes on what the gateway says, closes.

use crate::audience::Crowd;
use crate::auth::Logins;
use crate::backend::{self, Statement, StatementKind};
use crate::codec::QoS;
use crate::config::DoorConfig;
use crate::error::{DoorError, DoorFailure};
use crate::hall::{Hall, Mail, Note};
use crate::keeper::{Ephemeral, Keeper, Outgoing};
use crate::listen;
use crate::meter::Meters;
use crate::reload::{Reload, Reloading};
use crate::rights::Pattern;
use crate::shared::Shared;
use crate::stats::{Counters, DoorStats, count};
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate_schemas::{DeviceId, JobId, Reply};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

/// Mail that waits for the hall, in number. Beyond, lossy frames are dropped and outcomes come from the store.
const MAIL_MAX: usize = 4_096;
/// How long closing may take before the connections are dropped as they are.
const CLOSING: Duration = Duration::from_secs(8);

/// The open door. Its methods return at once, but for [`Door::shutdown`] and [`Door::failed`].
pub struct Door {
    addrs: Vec<SocketAddr>,
    shared: Arc<Shared>,
    open: watch::Sender<bool>,
    reloading: Reloading,
    /// Outcomes were lost on the way to the hall: everybody has to look into the store.
    overflowed: AtomicBool,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("addrs", &self.addrs).finish_non_exhaustive()
    }
}

impl Door {
    /// Opens the door on the running tokio runtime: sockets are bound, rumqttd answers.
    ///
    /// # Errors
    /// What cannot be listened on, read, or started.
    pub async fn start(config: DoorConfig, keeper: Arc<dyn Keeper>) -> Result<Self, DoorError> {
        if config.listeners.is_empty() {
            return Err(DoorError::NoListener);
        }
        let reply_topics = reply_topics(&config)?;
        let mut reload = Reload::new();
        let mut bound = Vec::with_capacity(config.listeners.len());
        for listener in &config.listeners {
            bound.push(listen::bind(listener, &mut reload).await?);
        }
        let users = config.users.as_deref().map(|path| reload.users(path)).transpose()?;
        let logins = users.map(Logins::start).transpose()?;
        let rights = reload.rights(config.rights.as_deref())?;
        let reloading = reload.start()?;
        let counters = Arc::new(Counters::default());
        let backend = backend::start(&config.backend, &config.limits, counters.clone()).await?;
        let (hall, mail) = mpsc::channel(MAIL_MAX);
        let crowd = Arc::<Crowd>::default();
        let (statements, away_max) = (backend.statements.clone(), config.limits.sessions_max);
        let sessions = Hall::new(away_max, counters.clone(), statements, Arc::clone(&crowd));
        tokio::spawn(sessions.run(mail));
        let DoorConfig { origin, limits, anonymous, .. } = config;
        let meters = Meters::new(&limits);
        let handshakes = Arc::new(Semaphore::new(limits.handshakes_max));
        let shared = Arc::new(Shared {
            origin,
            limits,
            anonymous,
            keeper,
            hall,
            crowd,
            counters,
            meters,
            handshakes,
            backend,
            logins,
            rights,
            reply_topics,
        });
        tokio::spawn(tell_of_rights(shared.clone()));
        let (open, opened) = watch::channel(true);
        let addrs = bound.iter().map(|b| b.addr).collect();
        for bound in bound {
            tokio::spawn(listen::accept(bound, shared.clone(), opened.clone()));
        }
        Ok(Self { addrs, shared, open, reloading, overflowed: AtomicBool::new(false) })
    }

    /// Reads certificates, revocation lists, users and rights again, as it does by itself within seconds of a change.
    /// What cannot be read leaves the old in use.
    pub fn reload(&self) {
        self.reloading.now();
    }

    /// What could not be read again, one sentence each; empty when all is well.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.reloading.faults.borrow().clone()
    }

    /// Where the door listens, in the order of the configuration.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.addrs.clone()
    }

    /// An outcome just became durable; [`Keeper::pending`] has it already.
    pub fn outcome_ready(&self, device: &DeviceId, job: JobId, payload: Bytes) {
        self.deliver(device, Outgoing::new(job, payload));
    }

    /// The same for one that says where it goes and with what.
    pub fn deliver(&self, device: &DeviceId, outgoing: Outgoing) {
        if self.overflowed.load(Ordering::Relaxed) && self.tell(Mail::LookAgain) {
            self.overflowed.store(false, Ordering::Relaxed);
        }
        let note = Note::Outcome { device: device.clone(), outgoing };
        if !self.tell(Mail::Note { device: device.clone(), note, except: None }) {
            self.overflowed.store(true, Ordering::Relaxed);
        }
    }

    /// Sends a frame to the sessions of a device that are online. Counted as dropped when the door is too busy.
    pub fn send(&self, device: &DeviceId, payload: Bytes, how: Ephemeral) {
        self.send_to(device, payload, how, Reply::default());
    }

    /// The same for a frame that says where it goes and with what.
    pub fn send_to(&self, device: &DeviceId, payload: Bytes, how: Ephemeral, reply: Reply) {
        let note = Note::Frame { device: device.clone(), payload, how, reply };
        if !self.tell(Mail::Note { device: device.clone(), note, except: None }) {
            count(&self.shared.counters.dropped_frames);
        }
    }

    fn tell(&self, mail: Mail) -> bool {
        self.shared.hall.try_send(mail).is_ok()
    }

    /// Publishes on the general side, retained, and again whenever rumqttd was replaced.
    pub fn publish_state(&self, topic: String, payload: Bytes) {
        let statement = Statement { topic, payload, kind: StatementKind::State };
        if self.shared.backend.statements.try_send(statement).is_err() {
            count(&self.shared.counters.dropped_frames);
        }
    }

    /// Publishes on the general side, once.
    pub fn publish_event(&self, topic: String, payload: Bytes) {
        // Said once like a will, and like one it waits for a backend that is away.
        let kind = StatementKind::Will { qos: QoS::AtLeastOnce, retain: false, properties: Box::default() };
        let statement = Statement { topic, payload, kind };
        if self.shared.backend.statements.try_send(statement).is_err() {
            count(&self.shared.counters.dropped_frames);
        }
    }

    /// The door's counters.
    #[must_use]
    pub fn stats(&self) -> DoorStats {
        self.shared.counters.view()
    }

    /// Resolves when the door cannot go on and the process should be started anew.
    pub async fn failed(&self) -> DoorFailure {
        let mut failure = self.shared.backend.failure.clone();
        match failure.wait_for(Option::is_some).await.ok().and_then(|failure| failure.clone()) {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Closes: no new connections, DISCONNECT 0x8B to MQTT 5 clients, no wills. What is with the keeper is waited for,
    /// within bounds.
    pub async fn shutdown(self) {
        self.open.send_replace(false);
        let (done, closed) = oneshot::channel();
        let close = async {
            if self.shared.hall.send(Mail::Shutdown { done }).await.is_ok() {
                // The hall ends by itself when the last connection has gone.
                let _ = closed.await;
            }
        };
        if timeout(CLOSING, close).await.is_err() {
            tracing::warn!("connections did not end in time and are dropped");
        }
    }
}

/// The patterns of Response Topics.
fn reply_topics(config: &DoorConfig) -> Result<Vec<Pattern>, DoorError> {
    let read = |text: &String| reply_topic(text, &config.reserved).map_err(|what| DoorError::ReplyTopic { what });
    config.reply_topics.iter().map(read).collect()
}

/// Whether a text can stand in [`DoorConfig::reply_topics`]: a filter over `{identity}` and `{client_id}` that overlaps
/// neither what is below `tg` nor what is `reserved`.
///
/// # Errors
/// What is wrong with it.
pub fn check_reply_topic(text: &str, reserved: &[String]) -> Result<(), String> {
    reply_topic(text, reserved).map(drop)
}

fn reply_topic(text: &str, reserved: &[String]) -> Result<Pattern, String> {
    let pattern = Pattern::new(text)?;
    match reserved.iter().map(String::as_str).chain(["tg/#"]).find(|reserved| pattern.overlaps(reserved)) {
        Some(reserved) => Err(format!("{text:?} overlaps {reserved:?}, which is reserved")),
        None => Ok(pattern),
    }
}

/// Passes on that the rights file changed; ends with the thread that reads it.
async fn tell_of_rights(shared: Arc<Shared>) {
    let mut rights = shared.rights.clone();
    while rights.changed().await.is_ok() && shared.hall.send(Mail::Rights).await.is_ok() {}
}
