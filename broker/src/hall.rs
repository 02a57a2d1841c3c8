//! The hall: one task that knows which sessions there are, where they are, and who hears of which device.
//!
//! Invariants: a client id is online at most once, and a new connection gets the session only after the old one gave it
//! back (takeover is serialised); wills are held here until they are due; nothing here waits for a client.

use crate::audience::{Audience, Crowd};
use crate::backend::{Statement, StatementKind};
use crate::codec::Will;
use crate::keeper::{Ephemeral, Outgoing};
use crate::rights::Reach;
use crate::session::Session;
use crate::stats::{Counters, count};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate_schemas::{DeviceId, Reply};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Connections that may wait for one client id: a client that races itself has two or three.
const WAITING_MAX: usize = 8;
/// How exactly expiries and will delays are kept; both are given in whole seconds.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(crate) type ConnId = u64;

/// What the hall is told.
pub(crate) enum Mail {
    Attach(Attach),
    Detach(Box<Detach>),
    /// The devices that a connection hears of, all of them.
    Reaches {
        conn: ConnId,
        reaches: Vec<Reach>,
    },
    Note {
        device: DeviceId,
        note: Note,
        except: Option<ConnId>,
    },
    /// Something was lost on the way to the hall: everybody looks into the store.
    LookAgain,
    /// The rights file changed: everybody looks whether its subscriptions still stand.
    Rights,
    Shutdown {
        done: oneshot::Sender<()>,
    },
}

/// A connection that wants the session of a client id.
pub(crate) struct Attach {
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    pub(crate) wire: Wire,
    pub(crate) reply: oneshot::Sender<Attached>,
}

/// How a connection is reached.
pub(crate) struct Wire {
    pub(crate) notes: mpsc::Sender<Note>,
    pub(crate) end: oneshot::Sender<Notice>,
    /// Set when a note was lost because the connection was slow.
    pub(crate) stale: Arc<AtomicBool>,
}

pub(crate) struct Attached {
    pub(crate) conn: ConnId,
    pub(crate) session: Session,
    pub(crate) present: bool,
}

/// A connection that gives its session back.
pub(crate) struct Detach {
    pub(crate) conn: ConnId,
    pub(crate) session: Session,
    pub(crate) will: Option<Will>,
}

/// Why a connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    TakenOver,
    Shutdown,
}

/// What a connection is told.
#[derive(Clone)]
pub(crate) enum Note {
    Frame {
        device: DeviceId,
        payload: Bytes,
        how: Ephemeral,
        reply: Reply,
    },
    Outcome {
        device: DeviceId,
        outgoing: Outgoing,
    },
    LookAgain,
    /// The rights file changed.
    Rights,
}

impl Note {
    /// Whether it goes to a topic of its own.
    fn is_elsewhere(&self) -> bool {
        match self {
            Self::Frame { reply, .. } | Self::Outcome { outgoing: Outgoing { reply, .. }, .. } => reply.topic.is_some(),
            Self::LookAgain | Self::Rights => false,
        }
    }
}

struct Online {
    client_id: String,
    wire: Option<oneshot::Sender<Notice>>,
    notes: mpsc::Sender<Note>,
    stale: Arc<AtomicBool>,
    reaches: Vec<Reach>,
    waiting: VecDeque<Attach>,
}

struct Away {
    session: Session,
    since: Instant,
    until: Instant,
    will: Option<(Instant, Will)>,
}

pub(crate) struct Hall {
    sessions_max: usize,
    counters: Arc<Counters>,
    statements: mpsc::Sender<Statement>,
    online: HashMap<ConnId, Online>,
    by_client: HashMap<String, ConnId>,
    audience: Audience,
    away: HashMap<String, Away>,
    slots_free: Vec<u32>,
    slots_made: u32,
    conns_made: ConnId,
}

impl Hall {
    pub(crate) fn new(
        sessions_max: usize,
        counters: Arc<Counters>,
        statements: mpsc::Sender<Statement>,
        crowd: Arc<Crowd>,
    ) -> Self {
        Self {
            sessions_max,
            counters,
            statements,
            online: HashMap::new(),
            by_client: HashMap::new(),
            audience: Audience::new(crowd),
            away: HashMap::new(),
            slots_free: Vec::new(),
            slots_made: 0,
            conns_made: 0,
        }
    }

    /// Ends after `Shutdown`, when the last connection gave its session back.
    pub(crate) async fn run(mut self, mut mail: mpsc::Receiver<Mail>) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closing: Option<oneshot::Sender<()>> = None;
        while closing.is_none() || !self.online.is_empty() {
            tokio::select! {
                mail = mail.recv() => match mail {
                    Some(Mail::Shutdown { done }) => {
                        closing = Some(done);
                        self.online.values_mut().for_each(|o| tell_end(o, Notice::Shutdown));
                    }
                    // New connections are turned away by the dropped reply.
                    Some(Mail::Attach(_)) if closing.is_some() => {}
                    Some(mail) => self.take(mail),
                    None => return,
                },
                _ = look.tick() => self.look(),
            }
        }
        if let Some(done) = closing {
            // Nobody waits for it any more when the time for closing ran out.
            let _ = done.send(());
        }
    }

    fn take(&mut self, mail: Mail) {
        match mail {
            Mail::Attach(attach) => self.attach(attach),
            Mail::Detach(detach) => self.detach(*detach),
            Mail::Reaches { conn, reaches } => {
                self.set_reaches(conn, reaches);
                self.audience.crowd.moved();
            }
            Mail::Note { device, note, except } => self.pass(&device, &note, except),
            Mail::LookAgain => self.tell_all(&Note::LookAgain),
            Mail::Rights => self.tell_all(&Note::Rights),
            Mail::Shutdown { .. } => {}
        }
    }

    fn attach(&mut self, attach: Attach) {
        let holder = self.by_client.get(&attach.client_id).and_then(|conn| self.online.get_mut(conn));
        if let Some(online) = holder {
            tell_end(online, Notice::TakenOver);
            if online.waiting.len() < WAITING_MAX {
                online.waiting.push_back(attach);
            }
            return;
        }
        let away = self.away.remove(&attach.client_id);
        match away {
            Some(away) if !attach.clean_start => {
                // A delayed will whose client came back in time is not published (MQTT 5.0, 3.1.3.2.2).
                self.let_in(attach, away.session, true);
            }
            away => {
                if let Some(away) = away {
                    self.end(away);
                }
                let session = Session::new(self.slot());
                self.let_in(attach, session, false);
            }
        }
    }

    fn let_in(&mut self, attach: Attach, session: Session, present: bool) {
        let Attach { client_id, wire, reply, .. } = attach;
        self.conns_made += 1;
        let conn = self.conns_made;
        let Wire { notes, end, stale } = wire;
        let online = Online {
            client_id: client_id.clone(),
            wire: Some(end),
            notes,
            stale,
            reaches: Vec::new(),
            waiting: VecDeque::new(),
        };
        self.online.insert(conn, online);
        self.by_client.insert(client_id, conn);
        self.set_reaches(conn, session.reaches());
        count(&self.counters.connections);
        if let Err(Attached { session, .. }) = reply.send(Attached { conn, session, present }) {
            self.detach(Detach { conn, session, will: None });
        }
    }

    fn detach(&mut self, detach: Detach) {
        let Detach { conn, session, will } = detach;
        let expiry = session.expiry;
        self.set_reaches(conn, Vec::new());
        let Some(online) = self.online.remove(&conn) else { return };
        self.counters.connections.fetch_sub(1, Ordering::Relaxed);
        self.by_client.remove(&online.client_id);
        let now = Instant::now();
        let until = now + expiry;
        let delay = |will: &Will| Duration::from_secs(will.properties.will_delay_s.unwrap_or(0).into());
        let will = will.map(|will| ((now + delay(&will)).min(until), will));
        let mut away = Away { session, since: now, until, will };
        self.publish_due(&mut away, now);
        if expiry.is_zero() {
            self.end(away);
        } else {
            self.make_room();
            self.away.insert(online.client_id, away);
        }
        for attach in online.waiting {
            self.attach(attach);
        }
    }

    fn make_room(&mut self) {
        if self.away.len() < self.sessions_max {
            return;
        }
        let oldest = self.away.iter().min_by_key(|(_, away)| away.since).map(|(client, _)| client.clone());
        if let Some(away) = oldest.and_then(|client| self.away.remove(&client)) {
            tracing::warn!(sessions_max = self.sessions_max, "the session that is longest away is forgotten");
            self.end(away);
        }
    }

    fn slot(&mut self) -> u32 {
        self.slots_free.pop().unwrap_or_else(|| {
            self.slots_made += 1;
            self.slots_made
        })
    }

    /// The session ends, and with it every delay of its will.
    fn end(&mut self, away: Away) {
        self.slots_free.push(away.session.slot);
        if let Some((_, will)) = away.will {
            self.publish(will);
        }
    }

    fn publish_due(&mut self, away: &mut Away, now: Instant) {
        if away.will.as_ref().is_some_and(|(due, _)| *due <= now)
            && let Some((_, will)) = away.will.take()
        {
            self.publish(will);
        }
    }

    fn publish(&mut self, will: Will) {
        let properties = Box::new(crate::codec::Properties { will_delay_s: None, ..will.properties });
        let kind = StatementKind::Will { qos: will.qos, retain: will.retain, properties };
        let statement = Statement { topic: will.topic, payload: will.payload, kind };
        if self.statements.try_send(statement).is_err() {
            count(&self.counters.dropped_frames);
        }
    }

    fn look(&mut self) {
        let now = Instant::now();
        let mut away = std::mem::take(&mut self.away);
        for away in away.values_mut() {
            self.publish_due(away, now);
        }
        for (_, ended) in away.extract_if(|_, away| away.until <= now) {
            self.end(ended);
        }
        self.away = away;
    }

    fn set_reaches(&mut self, conn: ConnId, reaches: Vec<Reach>) {
        let Some(online) = self.online.get_mut(&conn) else { return };
        self.audience.leave(conn, &online.reaches);
        self.audience.join(conn, &reaches);
        online.reaches = reaches;
    }

    fn tell_all(&self, note: &Note) {
        self.online.values().for_each(|online| tell(online, note, &self.counters));
    }

    /// Each connection decides by its filters; here it is only found.
    fn pass(&self, device: &DeviceId, note: &Note, except: Option<ConnId>) {
        for conn in self.audience.of(device, note.is_elsewhere()).filter(|conn| Some(*conn) != except) {
            if let Some(online) = self.online.get(&conn) {
                tell(online, note, &self.counters);
            }
        }
    }
}

fn tell(online: &Online, note: &Note, counters: &Counters) {
    if online.notes.try_send(note.clone()).is_ok() {
        return;
    }
    match note {
        Note::Frame { .. } => count(&counters.dropped_frames),
        Note::Outcome { .. } | Note::LookAgain | Note::Rights => online.stale.store(true, Ordering::Relaxed),
    }
}

fn tell_end(online: &mut Online, notice: Notice) {
    if let Some(end) = online.wire.take() {
        // A connection that is already ending needs no notice.
        let _ = end.send(notice);
    }
}
