//! The link to the central broker: escalations and what crosses by rule out, resolutions in, state retained there too.
//!
//! One connection at a time ([`session`]); what outlives it is the [`shore`]. Which address and version comes next says
//! [`Search`], whether a link that seems up is dead [`watch`], how much goes at once [`pace`], how much of a day
//! [`budget`], and what crosses by rule comes from the [`feed`].

mod budget;
mod feed;
#[cfg(test)]
mod outbox;
mod pace;
mod past;
mod session;
mod shore;
mod watch;

use super::message::{Report, ToBridge};
use crate::config::BridgeConfig;
use crate::link::{Backoff, Broker, Cause, Down, Line, Pause, Search, Terms};
use budget::Budget;
use bytes::Bytes;
pub(super) use feed::{Feed, VIA};
pub(super) use past::{Past, Wait};
use session::Session;
use shore::Shore;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use tidegate_schemas::{DEADLINE_MS_MAX, Origin};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::{info, warn};
use watch::{Patience, Watch};

/// First wait before a reconnect.
const RECONNECT_LEAST: Duration = Duration::from_millis(500);
/// Longest wait before a reconnect: a mended link is used half a minute later at the latest.
const RECONNECT_MOST: Duration = Duration::from_secs(30);
/// A connection that held so long was no accident.
const RECONNECT_STABLE: Duration = Duration::from_secs(10);
/// What a broker that says it is busy gets at least.
const BUSY_LEAST: Duration = Duration::from_secs(5);
/// Resolutions that the broker may send before the first is acknowledged.
const RECEIVE_MAX: u16 = 32;
/// How long the broker keeps our subscription while we are away, in seconds: longer than any escalation lives.
const SESSION_EXPIRY_S: u32 = (DEADLINE_MS_MAX / 1000) as u32 + 3600;
/// Longest goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// How often files of certificates and the bytes of the day are looked after.
const CHORES_EVERY: Duration = Duration::from_secs(10);
/// File of the bytes of the day, in the data directory.
const BUDGET_FILE: &str = "bridge-bytes";

/// The bridge and what outlives a connection.
pub(super) struct Bridge {
    config: BridgeConfig,
    orders: mpsc::Receiver<ToBridge>,
    shore: Shore,
    search: Search,
    backoff: Backoff,
    patience: Patience,
    terms: Terms,
    /// When the files of the present connection were last changed.
    files: Option<SystemTime>,
}

enum End {
    /// Told to.
    Stop,
    /// Certificates were renewed: a new connection at once.
    Renewed,
    /// It broke, after it was of use or before.
    Lost(Down, Was),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Was {
    Up,
    Down,
}

impl Bridge {
    /// A bridge that connects when it runs.
    pub(super) fn new(
        config: BridgeConfig,
        (origin, data_dir): (Origin, &Path),
        (orders, reports): (mpsc::Receiver<ToBridge>, mpsc::UnboundedSender<Report>),
        feed: Feed,
        will: (String, Bytes),
    ) -> Self {
        let budget = Budget::open(config.daily_bytes_max, data_dir.join(BUDGET_FILE));
        let terms = Terms {
            session_expiry_s: SESSION_EXPIRY_S,
            receive_max: RECEIVE_MAX,
            keep_alive: config.keep_alive,
            will: Some(will),
        };
        Self {
            search: Search::new(config.addresses.clone(), config.protocol),
            patience: Patience::new(config.keep_alive),
            shore: Shore::new(origin, feed, budget, reports),
            backoff: Backoff::new(RECONNECT_LEAST, RECONNECT_MOST, RECONNECT_STABLE),
            config,
            orders,
            terms,
            files: None,
        }
    }

    /// Connects again and again until told to stop.
    pub(super) async fn run(mut self) {
        loop {
            let (address, version) = self.search.target();
            let broker = self.config.broker.at(&address);
            self.shore.at(address.to_string(), version);
            self.files = broker.files_changed();
            let end = match Line::open(&broker, version, &self.terms) {
                Ok(line) => self.connection(line, &broker).await,
                Err(error) => End::Lost(Down { why: error.to_string(), cause: Cause::Refused }, Was::Down),
            };
            match end {
                End::Stop => return,
                End::Renewed => info!("certificates were renewed, connecting with the new ones"),
                End::Lost(down, was) => {
                    let down = Down { why: address.unresolved(&down.why).unwrap_or(down.why), ..down };
                    let wait = self.wait(&down, was);
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    warn!(broker = %address, version = version.word(), why = %down.why, wait_ms,
                        "the central broker is not there");
                    self.shore.down(format!("{address}: {}", down.why), down.cause);
                    if !self.rest(wait).await {
                        return;
                    }
                }
            }
        }
    }

    /// How long to wait after a connection ended so.
    fn wait(&mut self, down: &Down, was: Was) -> Duration {
        let pause = match was {
            Was::Up => self.search.lost(down.cause),
            Was::Down => self.search.failed(down.cause),
        };
        match pause {
            Pause::None => Duration::ZERO,
            Pause::Usual => self.backoff.next(),
            Pause::Busy => self.backoff.next().max(BUSY_LEAST),
            Pause::Refused => self.backoff.next().max(RECONNECT_MOST / 2),
        }
    }

    /// Waits, and says of every publish that it was not sent. False when it is told to stop.
    async fn rest(&mut self, wait: Duration) -> bool {
        let until = tokio::time::Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(until) => return true,
                order = self.orders.recv() => match order {
                    Some(ToBridge::Publish(e, _)) => self.shore.unsent(e.job, e.attempt),
                    Some(ToBridge::State(topic, payload)) => self.shore.remember(topic, payload),
                    // An event that nobody hears over there is in the log and on the local broker.
                    Some(ToBridge::Settled(_) | ToBridge::Event(..)) => {}
                    Some(ToBridge::Stop(..)) | None => return false,
                },
            }
        }
    }

    async fn connection(&mut self, line: Line, broker: &Broker) -> End {
        let watch = Watch::new(self.config.keep_alive, self.config.canary, self.patience, Instant::now());
        let mut session = Session::new(line, watch);
        let end = self.lead(&mut session, broker).await;
        if session.stalled() {
            self.patience.grow();
        } else if session.is_up() {
            self.patience = Patience::new(self.config.keep_alive);
        }
        session.end(&mut self.shore);
        end
    }

    async fn lead(&mut self, session: &mut Session, broker: &Broker) -> End {
        let mut chores_at = Instant::now() + CHORES_EVERY;
        loop {
            let wake = session.wake(Instant::now()).min(chores_at);
            let was_up = session.is_up();
            let done = tokio::select! {
                heard = session.next() => session.hear(heard, &mut self.shore),
                order = self.orders.recv() => match order {
                    Some(ToBridge::Stop(topic, payload)) => {
                        session.goodbye(Some((topic, payload)), &mut self.shore, GOODBYE_MAX).await;
                        return End::Stop;
                    }
                    None => return End::Stop,
                    Some(order) => session.order(order, &mut self.shore),
                },
                () = self.shore.feed.wait() => session.pump(&mut self.shore),
                () = sleep_until(wake.into()) => session.tick(&mut self.shore),
            };
            if let Err(down) = done {
                return End::Lost(down, if session.is_up() { Was::Up } else { Was::Down });
            }
            if session.is_up() && !was_up {
                self.backoff.works();
                info!(broker = %broker.address, "connected to the central broker");
            }
            if Instant::now() >= chores_at {
                chores_at = Instant::now() + CHORES_EVERY;
                if self.chores(broker) {
                    session.goodbye(None, &mut self.shore, GOODBYE_MAX).await;
                    return End::Renewed;
                }
            }
        }
    }

    /// What is to be done now and then. True if certificates or the password were renewed and can be used: a file that
    /// is half written, or whose key does not fit, leaves the connection as it is.
    fn chores(&mut self, broker: &Broker) -> bool {
        self.shore.budget.turn(SystemTime::now());
        self.shore.budget.save(Instant::now());
        self.shore.feed.tick();
        self.shore.tell();
        let changed = broker.files_changed();
        if changed == self.files {
            return false;
        }
        match broker.usable(&self.terms) {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, "renewed certificates cannot be used, the old ones stay");
                false
            }
        }
    }
}
