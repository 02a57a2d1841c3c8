//! What the hub says of itself when it is asked: its part of the sheet, which parts work, what happened last.

use super::sheet::{COUNTER, GAUGE, Sheet};
use super::window::Hour;
use crate::up::hub::Hub;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_schemas::{JobId, LinkState};
use tidegate_spool::QueueClass;

/// Happenings that are remembered for the page: a screen of them.
const HAPPENINGS_MAX: usize = 30;

/// Something that an operator wants to know of.
#[derive(Debug, Clone, Serialize)]
pub(in crate::up) struct Happening {
    /// What kind: `link`, `engine`, `drop`, `dead`, …
    pub(in crate::up) kind: &'static str,
    /// One sentence, without text of prompts or answers.
    pub(in crate::up) message: String,
    /// When, in milliseconds since 1970 by the system clock.
    pub(in crate::up) at_ms: u64,
}

/// The last happenings, the newest first.
#[derive(Debug, Default)]
pub(in crate::up) struct Happenings(VecDeque<Happening>);

impl Happenings {
    /// Something happened now.
    pub(in crate::up) fn add(&mut self, kind: &'static str, message: String) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.0.truncate(HAPPENINGS_MAX - 1);
        self.0.push_front(Happening { kind, message, at_ms });
    }
}

/// Whether a part of the gateway works.
#[derive(Debug, Clone, Serialize)]
pub(in crate::up) struct Part {
    /// `door`, `spool`, `engine`, `link`.
    pub(in crate::up) name: &'static str,
    /// Whether it works.
    pub(in crate::up) ok: bool,
    /// How it is, in words.
    pub(in crate::up) words: String,
}

/// What the hub knows, at one moment.
#[derive(Debug)]
pub(in crate::up) struct Facts {
    /// Numbers.
    pub(in crate::up) sheet: Sheet,
    /// Door, engine, link; the spool is judged with the disk.
    pub(in crate::up) parts: Vec<Part>,
    /// What the page shows besides: names, faults, the last hour.
    pub(in crate::up) about: Value,
    /// The oldest outcome that no session acknowledged.
    pub(in crate::up) oldest_outcome: Option<JobId>,
    /// The engine's process, 0 without one.
    pub(in crate::up) engine_pid: u32,
    /// Changes that the disk refused and that wait to be tried again.
    pub(in crate::up) disk_retries: usize,
    /// Whether the disk became read-only under the store.
    pub(in crate::up) read_only: bool,
    /// Whether new prompts are taken at all.
    pub(in crate::up) draining: bool,
}

impl Hub {
    /// Everything that the page, Prometheus and the probes want to know of the hub.
    pub(in crate::up) fn facts(&self) -> Facts {
        let mut sheet = Sheet::default();
        self.write_state(&mut sheet);
        self.write_queues(&mut sheet);
        self.meter.write(&mut sheet, self.second());
        self.write_shells(&mut sheet);
        Facts {
            sheet,
            parts: self.parts(),
            about: self.about(),
            oldest_outcome: self.pending.oldest(),
            engine_pid: self.view.engine_pid,
            disk_retries: self.retries.len(),
            read_only: self.view.ailing.is_read_only(),
            draining: self.view.draining,
        }
    }

    /// Seconds of the hub's life.
    pub(in crate::up) fn second(&self) -> u64 {
        self.view.started.elapsed().as_secs()
    }

    fn parts(&self) -> Vec<Part> {
        let view = &self.view;
        let mut door: Vec<String> = self.hands.front.faults();
        door.extend(view.intake_fault.clone());
        let since = view.link_since.elapsed().as_secs();
        let (linked, link) = match view.link {
            LinkState::None => (true, "no central broker is configured".to_owned()),
            LinkState::Up => (true, format!("up since {since} s, {}", view.bridge.broker)),
            LinkState::Down => {
                let why = view.bridge.refused.as_ref().or(view.bridge.away.as_ref());
                let why = why.map_or_else(String::new, |why| format!(": {why}"));
                (false, format!("down since {since} s{why}; local answers go on, escalations wait"))
            }
        };
        let engine = match (&view.engine_fault, view.child) {
            (_, Some(_)) => "answers".to_owned(),
            (Some(why), None) => format!("not ready: {why}; prompts are kept and wait"),
            (None, None) => "starts".to_owned(),
        };
        let told = |name, ok, words| Part { name, ok, words };
        vec![
            told("door", door.is_empty(), if door.is_empty() { "open".to_owned() } else { door.join("; ") }),
            told("engine", view.child.is_some(), engine),
            told("link", linked, link),
        ]
    }

    fn about(&self) -> Value {
        let (view, hour) = (&self.view, self.meter.hour(self.second()));
        let Hour { ways, p50_ms, p95_ms, confidence } = hour;
        let ways: serde_json::Map<String, Value> =
            super::meter::Way::ALL.iter().map(|way| (way.word().to_owned(), ways[*way as usize].into())).collect();
        json!({ "version": super::super::view::VERSION, "site": view.origin.site, "gateway": view.origin.gateway,
            "uptime_s": self.second(), "draining": view.draining, "model": view.model, "tasks": view.tasks,
            "link": { "state": view.link, "since_s": view.link_since.elapsed().as_secs(),
                "broker": view.bridge.broker, "mqtt": view.bridge.version },
            "faults": view.faults(self.hands.front.faults()),
            "hour": { "ways": ways, "p50_ms": p50_ms, "p95_ms": p95_ms, "confidence": confidence },
            "budget": view.bridge.budget, "events": view.happenings.0 })
    }

    fn write_state(&self, sheet: &mut Sheet) {
        let view = &self.view;
        let version = [(super::super::view::VERSION, 1_u64)];
        sheet.each(GAUGE, "tidegate_build_info", "The version that runs.", "version", version);
        let started =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(view.started.elapsed());
        let help = "When the gateway started, since 1970.";
        sheet.one(GAUGE, "process_start_time_seconds", help, started.as_secs());
        sheet.one(GAUGE, "tidegate_draining", "Whether it is stopping and takes no new prompts.", view.draining);
        let configured = view.link != LinkState::None;
        sheet.one(GAUGE, "tidegate_link_configured", "Whether there is a central broker.", configured);
        sheet.one(GAUGE, "tidegate_link_up", "Whether the link to it is up.", view.link == LinkState::Up);
        let since = view.link_since.elapsed().as_secs();
        sheet.one(GAUGE, "tidegate_link_state_seconds", "How long the link has been as it is.", since);
        if let Some(budget) = view.bridge.budget {
            let help = "Bytes of a day over the link.";
            sheet.one(GAUGE, "tidegate_link_budget_bytes", help, budget.bytes_max);
            let used = f64::from(budget.percent_used) / 100.0;
            sheet.one(GAUGE, "tidegate_link_budget_used_ratio", "Part of the day's bytes that is used.", used);
        }
        let faults = view.faults(self.hands.front.faults()).len() as u64;
        sheet.one(GAUGE, "tidegate_faults", "What is wrong; the page and state/health say what.", faults);
        let events = view.events.iter().map(|(kind, count)| (*kind, *count));
        sheet.each(COUNTER, "tidegate_events_total", "Events announced.", "kind", events);
    }

    fn write_queues(&self, sheet: &mut Sheet) {
        let (load, counts, view) = (self.dispatcher.load(), &self.view.counts, &self.view);
        let (limits, spool) = (&view.limits, &view.spool_limits);
        let rows = [
            (QueueClass::Prompts, load.inbox_entries, load.inbox_bytes),
            (QueueClass::Escalations, load.outbox_entries, load.outbox_bytes),
            (QueueClass::Outcomes, counts.pending, counts.outcomes.bytes),
            (QueueClass::Telemetry, counts.telemetry.entries, counts.telemetry.bytes),
            (QueueClass::Dead, counts.dead.entries, counts.dead.bytes),
        ];
        let bounds = [
            (u64::from(limits.inbox_entries_max), limits.inbox_bytes_max),
            (u64::from(limits.outbox_entries_max), limits.outbox_bytes_max),
            (spool.outcomes_entries_max, spool.outcomes_bytes_max),
            (spool.telemetry.entries_max, spool.telemetry.bytes_max),
            (spool.dead.entries_max, spool.dead.bytes_max),
        ];
        let names = QueueClass::ALL.map(QueueClass::name);
        let help = "Entries of a class; of outcomes those that no session acknowledged.";
        sheet.each(GAUGE, "tidegate_queue_entries", help, "class", rows.map(|(class, n, _)| (class.name(), n)));
        let most = names.into_iter().zip(bounds.map(|(entries, _)| entries));
        sheet.each(GAUGE, "tidegate_queue_entries_max", "Entries that fit.", "class", most);
        let bytes = rows.map(|(class, _, bytes)| (class.name(), bytes));
        sheet.each(GAUGE, "tidegate_queue_bytes", "Bytes of a class.", "class", bytes);
        let most = names.into_iter().zip(bounds.map(|(_, bytes)| bytes));
        sheet.each(GAUGE, "tidegate_queue_bytes_max", "Bytes that fit.", "class", most);
        let now = [("queued", load.queued), ("running", load.running), ("escalated", load.escalated)];
        sheet.each(GAUGE, "tidegate_prompts", "Prompts without outcome by where they stand.", "stage", now);
        let dropped = [
            ("full", counts.dropped_full),
            ("expired", counts.dropped_expired + counts.dropped),
            ("operator", counts.dropped_operator),
        ];
        let help = "Entries that went without being delivered.";
        sheet.each(COUNTER, "tidegate_spool_dropped_total", help, "reason", dropped);
        sheet.one(COUNTER, "tidegate_spool_syncs_total", "Syncs of the store's file.", counts.syncs);
        sheet.one(GAUGE, "tidegate_spool_file_bytes", "Size of the store's file.", counts.file_bytes);
        let retries = self.retries.len() as u64;
        sheet.one(GAUGE, "tidegate_spool_waiting_changes", "Changes that the disk refused and that wait.", retries);
    }

    fn write_shells(&self, sheet: &mut Sheet) {
        let (load, view, door) = (self.dispatcher.load(), &self.view, self.hands.front.stats());
        let mut counter = |name: &str, help: &str, value: u64| sheet.one(COUNTER, name, help, value);
        counter("tidegate_provisional_answers_total", "Provisional answers sent.", load.provisional);
        counter("tidegate_escalation_publishes_total", "Publishes of escalations, repeats included.", load.publishes);
        let help = "Resolutions that belonged to nothing open.";
        counter("tidegate_resolutions_stray_total", help, load.stray_resolutions);
        counter("tidegate_resolutions_unfit_total", "Resolutions that did not fit their task.", view.misfits);
        counter("tidegate_engine_restarts_total", "Engines that were lost.", view.engine_restarts);
        counter("tidegate_engine_suspects_total", "Inferences that ran while the engine died.", load.suspects);
        counter("tidegate_door_publishes_total", "Publishes taken from clients.", door.publishes);
        let help = "Publishes, subscriptions and connections that were refused.";
        counter("tidegate_door_refused_total", help, door.refused);
        let help = "Frames and QoS 0 messages dropped because a client was slow.";
        counter("tidegate_door_dropped_frames_total", help, door.dropped_frames);
        counter("tidegate_door_throttled_total", "Times a client was not read because of a rate.", door.throttled);
        counter("tidegate_door_backend_restarts_total", "Times the backend was lost.", door.backend_restarts);
        sheet.one(GAUGE, "tidegate_door_connections", "Clients that are connected.", door.connections);
        sheet.one(GAUGE, "tidegate_engine_ready", "Whether the engine answers.", view.child.is_some());
    }
}
