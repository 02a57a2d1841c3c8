//! Link, central broker and workers: publishes that do not count, resolutions that are late, doubled, wrong or missing.

use crate::devices::site;
use crate::world::{Due, World};
use rand::Rng;
use std::collections::BTreeMap;
use tidegate_core::Event;
use tidegate_schemas::{Body, ErrorCode, Escalation, JobId, Resolution, ResolvedOutcome, SiteId, Timing, Usage};

/// `told`: what the dispatcher was told of the link.
#[derive(Default)]
pub(crate) struct Cloud {
    pub(crate) up: bool,
    pub(crate) told: bool,
    pub(crate) in_flight: BTreeMap<JobId, u32>,
    session: Vec<Resolution>,
}

impl Cloud {
    pub(crate) fn process_died(&mut self) {
        self.in_flight.clear();
        self.told = false;
    }
}

impl World {
    /// The link goes up and down, and stays up in the calm.
    pub(crate) fn plan_link(&mut self) {
        let mut at = 0;
        let mut up = true;
        while at < 110_000 {
            at += self.rng.random_range(200..40_000);
            self.later(at, Due::Link(up));
            up = !up;
        }
        self.later(155_000, Due::Link(true));
    }

    pub(crate) fn link_changes(&mut self, up: bool) -> Option<Event> {
        let told = std::mem::replace(&mut self.cloud.told, up);
        self.cloud.up = up;
        if !up {
            self.met.note("link down");
            return told.then_some(Event::LinkDown);
        }
        for resolution in std::mem::take(&mut self.cloud.session) {
            self.later(5, Due::Resolution(Box::new(resolution)));
        }
        (!told).then_some(Event::LinkUp)
    }

    pub(crate) fn publish(&mut self, escalation: &Escalation) {
        self.cloud.in_flight.insert(escalation.job, escalation.attempt);
        let takes = self.rng.random_range(5..400);
        self.later(takes, Due::Published(escalation.job, escalation.attempt));
    }

    /// The acknowledgement, or what stands for its absence. The worker may have the publish in either case.
    pub(crate) fn publish_ends(&mut self, job: JobId, attempt: u32) -> Event {
        self.cloud.in_flight.remove(&job);
        if !self.cloud.up || self.unlucky(0.15) {
            self.met.note("0x10");
            if self.cloud.up && self.rng.random_bool(0.3) {
                self.work(job, attempt);
            }
            return Event::EscalationUnsent { job, attempt };
        }
        self.work(job, attempt);
        Event::EscalationSent { job, attempt }
    }

    fn work(&mut self, job: JobId, attempt: u32) {
        let soon = self.rng.random_range(20..3_000);
        let behaviour = if self.calm() { 99 } else { self.rng.random_range(0..100) };
        match behaviour {
            0..15 => {}
            15..30 => {
                self.met.note("late resolution");
                let late = self.rng.random_range(20_000..150_000);
                self.later(late, Due::Resolution(Box::new(answer(job, attempt))));
            }
            30..40 => {
                self.met.note("error resolution");
                let code = ErrorCode::Unresolved;
                let outcome = ResolvedOutcome::Error { code, message: "no slot".to_owned() };
                self.later(soon, Due::Resolution(Box::new(Resolution { outcome, ..answer(job, attempt) })));
            }
            40..45 => {
                let mut foreign = answer(job, attempt);
                foreign.origin.site = "elsewhere".parse::<SiteId>().unwrap();
                self.later(soon, Due::Resolution(Box::new(foreign)));
            }
            45..60 => {
                self.met.note("answered twice");
                self.later(soon, Due::Resolution(Box::new(answer(job, attempt))));
                self.later(soon + 7, Due::Resolution(Box::new(answer(job, attempt))));
            }
            _ => self.later(soon, Due::Resolution(Box::new(answer(job, attempt)))),
        }
    }

    /// Without a link it waits in the session.
    pub(crate) fn resolution_comes(&mut self, resolution: Box<Resolution>) -> Option<Event> {
        if self.cloud.told {
            return Some(Event::Resolved(resolution));
        }
        self.cloud.session.push(*resolution);
        None
    }
}

fn answer(job: JobId, attempt: u32) -> Resolution {
    Resolution {
        v: 1,
        job,
        origin: site().origin,
        attempt,
        outcome: ResolvedOutcome::Answer(Body::Text("cloud".into())),
        confidence: Some(0.9),
        model: "tide-cloud".parse().unwrap(),
        usage: Usage::default(),
        timing: Timing::default(),
        traceparent: None,
    }
}
