//! What the gateway says about itself: retained state on both brokers, and the answer to `status`.

use super::ailing::Ailing;
use super::certificates::Certificates;
use super::gauges::Happenings;
use super::hub::Hub;
use super::message::{BridgeFacts, ToBridge};
use super::page::Turned;
use super::reloads::Reloads;
use super::succession::Serving;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_core::Event;
use tidegate_schemas::{
    Card, CardModel, CardTask, Health, JobId, LinkState, Load, Origin, PROMPT_BYTES_MAX, QueueDepth, StateKind, Topic,
};
use tidegate_spool::{Counts, OutcomeRecord};
use tokio::sync::watch;

/// Version of this gateway.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How often all numbers cross the link: some 8 KB, so less than 1 MB of a day.
const NUMBERS_CROSS_EVERY: Duration = Duration::from_secs(900);

/// What is known of the shells.
pub(super) struct View {
    pub(super) origin: Origin,
    pub(super) tasks: Vec<CardTask>,
    pub(super) limits: tidegate_core::Limits,
    pub(super) spool_limits: tidegate_spool::Limits,
    pub(super) link: LinkState,
    /// When the link became what it is.
    pub(super) link_since: Instant,
    /// Number of the engine child that is up.
    pub(super) child: Option<u64>,
    pub(super) engine_pid: u32,
    pub(super) engine_restarts: u64,
    pub(super) engine_fault: Option<String>,
    pub(super) model: Option<CardModel>,
    /// Its file, and who named it.
    pub(super) serving: Serving,
    pub(super) counts: Counts,
    /// Resolutions that did not fit their task.
    pub(super) misfits: u64,
    /// Where the store lies.
    pub(super) data_dir: PathBuf,
    /// What ails the machine.
    pub(super) ailing: Ailing,
    /// Whom the page turned away.
    pub(super) turned: Arc<Turned>,
    /// What was found broken at start.
    pub(super) faults: Vec<String>,
    pub(super) started: Instant,
    pub(super) draining: bool,
    /// Asks the process to stop.
    pub(super) stop: watch::Sender<bool>,
    /// What the bridge knows of its link.
    pub(super) bridge: BridgeFacts,
    /// Which promises the intake's broker weakens.
    pub(super) weakened: Vec<String>,
    /// Why the broker of the intake is not there, if it is not.
    pub(super) intake_fault: Option<String>,
    /// Ends of certificates.
    pub(super) certificates: Certificates,
    /// What was announced of files that the door reads again.
    pub(super) reloads: Reloads,
    /// Events so far, by kind.
    pub(super) events: BTreeMap<&'static str, u64>,
    /// What happened last, for the page.
    pub(super) happenings: Happenings,
    /// When the numbers went to the central broker last.
    pub(super) numbers_crossed: Option<Instant>,
    /// What was told last, by kind.
    pub(super) told: [Option<Bytes>; 3],
}

impl View {
    /// What is wrong, one sentence each.
    pub(super) fn faults(&self, door: Vec<String>) -> Vec<String> {
        let engine = self.engine_fault.iter().map(|why| format!("engine: {why}"));
        let intake = self.intake_fault.iter().cloned();
        let bridge = self.bridge.refused.iter().map(|why| format!("the central broker refuses us: {why}"));
        let papers = self.certificates.faults();
        let machine = self.faults.iter().cloned().chain(self.ailing.faults());
        machine.chain(engine).chain(bridge).chain(intake).chain(papers).chain(door).collect()
    }

    fn health(&self, door: Vec<String>) -> Health {
        Health {
            online: !self.draining,
            link: self.link,
            engine_ready: self.child.is_some(),
            faults: self.faults(door),
            version: VERSION.to_owned(),
            budget: self.bridge.budget,
            weakened: self.weakened.clone(),
        }
    }

    fn card(&self) -> Card {
        Card {
            models: self.model.iter().cloned().collect(),
            tasks: self.tasks.clone(),
            prompt_bytes_max: PROMPT_BYTES_MAX,
            version: VERSION.to_owned(),
        }
    }
}

/// The health of a gateway that is not there: its will.
pub(super) fn gone(origin: &Origin, link: LinkState) -> (String, Bytes) {
    let health = Health {
        online: false,
        link,
        engine_ready: false,
        faults: Vec::new(),
        version: VERSION.to_owned(),
        budget: None,
        weakened: Vec::new(),
    };
    (topic(origin, StateKind::Health), payload(&health))
}

fn topic(origin: &Origin, kind: StateKind) -> String {
    Topic::State { origin: origin.clone(), kind }.name()
}

pub(super) fn payload(state: &impl Serialize) -> Bytes {
    serde_json::to_vec(state).expect("our states have text keys and finite numbers").into()
}

impl Hub {
    fn load(&self) -> Load {
        let load = self.dispatcher.load();
        let limits = &self.view.limits;
        let (entries_max, bytes_max) =
            (self.view.spool_limits.outcomes_entries_max, self.view.spool_limits.outcomes_bytes_max);
        let depth =
            |entries, bytes, max: u32, bytes_max| QueueDepth { entries, entries_max: max.into(), bytes, bytes_max };
        Load {
            inbox: depth(load.inbox_entries, load.inbox_bytes, limits.inbox_entries_max, limits.inbox_bytes_max),
            outbox: depth(load.outbox_entries, load.outbox_bytes, limits.outbox_entries_max, limits.outbox_bytes_max),
            outcomes: QueueDepth {
                entries: self.view.counts.pending,
                entries_max,
                bytes: self.view.counts.outcomes.bytes,
                bytes_max,
            },
            answered_local: load.answered_local,
            answered_cloud: load.answered_cloud,
            errors: load.errors,
            engine_restarts: self.view.engine_restarts,
        }
    }

    /// Publishes what changed since it was told last.
    pub(super) fn tell(&mut self) {
        let states = [
            (StateKind::Health, payload(&self.view.health(self.hands.front.faults()))),
            (StateKind::Card, payload(&self.view.card())),
            (StateKind::Load, payload(&self.load())),
        ];
        for (place, (kind, payload)) in states.into_iter().enumerate() {
            if self.view.told[place].as_ref() == Some(&payload) {
                continue;
            }
            let name = topic(&self.view.origin, kind);
            self.hands.front.state(name.clone(), payload.clone());
            if let Some(bridge) = &self.hands.bridge {
                // A full channel means that the link is busy; the next change tells it.
                let _ = bridge.try_send(ToBridge::State(name, payload.clone()));
            }
            self.view.told[place] = Some(payload);
        }
    }

    /// Takes what an event says about the link.
    pub(super) fn note_link(&mut self, event: &Event) {
        let (link, message) = match event {
            Event::LinkUp => (LinkState::Up, format!("the link is up, {}", self.view.bridge.broker)),
            Event::LinkDown => (LinkState::Down, "the link is down".to_owned()),
            _ => return,
        };
        (self.view.link, self.view.link_since) = (link, Instant::now());
        self.view.happenings.add("link", message);
    }

    /// Tells the numbers of `/metrics`: to the local broker as they come, over the link now and then.
    pub(super) fn tell_numbers(&mut self, numbers: Bytes) {
        let name = topic(&self.view.origin, StateKind::Metrics);
        self.hands.front.state(name.clone(), numbers.clone());
        let due = self.view.numbers_crossed.is_none_or(|at| at.elapsed() >= NUMBERS_CROSS_EVERY);
        if let Some(bridge) = self.hands.bridge.as_ref().filter(|_| due) {
            self.view.numbers_crossed = Some(Instant::now());
            // A full channel means that the link is busy; the next ones tell it.
            let _ = bridge.try_send(ToBridge::State(name, numbers));
        }
    }

    /// Takes what the bridge knows of its link.
    pub(super) fn bridged(&mut self, facts: BridgeFacts) {
        if self.view.bridge != facts {
            self.view.bridge = facts;
            self.tell();
        }
    }

    /// The broker of the intake came or went.
    pub(super) fn intake(&mut self, fault: Option<String>) {
        if self.view.intake_fault != fault {
            self.view.intake_fault = fault;
            self.tell();
        }
    }

    /// The answer to `status`.
    pub(super) fn status(&self) -> Value {
        let (view, load, door) = (&self.view, self.dispatcher.load(), self.hands.front.stats());
        json!({
            "version": VERSION,
            "site": view.origin.site,
            "gateway": view.origin.gateway,
            "uptime_ms": u64::try_from(view.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "draining": view.draining,
            "bridge": { "connected": view.bridge.connected, "broker": view.bridge.broker, "mqtt": view.bridge.version },
            "health": view.health(self.hands.front.faults()),
            "engine": { "ready": view.child.is_some(), "pid": view.engine_pid, "restarts": view.engine_restarts,
                "file": view.serving.file, "named_by": view.serving.named_by,
                "model": view.model, "decode_tokens_per_s": load.decode_tokens_per_s },
            "load": self.load(),
            "queues": crate::queue::counts(&view.counts),
            "queued": load.queued, "running": load.running, "escalated": load.escalated,
            "answered": { "local": load.answered_local, "cloud": load.answered_cloud,
                "provisional": load.provisional, "errors": load.errors, "refused": load.refused },
            "escalations": { "made": load.escalations, "published": load.publishes,
                "stray_resolutions": load.stray_resolutions, "unfit_resolutions": view.misfits },
            "door": { "addresses": self.hands.front.addresses(), "connections": door.connections,
                "publishes": door.publishes, "refused": door.refused, "dropped_frames": door.dropped_frames,
                "throttled": door.throttled,
                "backend_restarts": door.backend_restarts },
            "certificates": view.certificates.json(),
            "page": { "turned_away": view.turned.json() },
            "tasks": view.tasks,
        })
    }
}

/// The answer to `record`: everything but the text.
pub(super) fn record(job: JobId, record: Option<OutcomeRecord>) -> Value {
    match record {
        None => json!({ "error": format!("no outcome of job {job} is stored") }),
        Some(r) => json!({ "job": r.job, "device": r.device, "id": r.id, "encoding": r.encoding,
            "bytes": r.frame.len(), "released": r.released, "too_large": r.notice.is_some() }),
    }
}
