//! Devices: prompts of every kind, repeated, reused, cancelled and fetched; connections that are lost with the process.

use crate::world::{Due, World};
use rand::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_core::{Arrival, Bridge, Consent, Event, Keep, Learning, Limits, Provisional, Site, Task, Ticket};
use tidegate_schemas::{
    Control, ControlOp, DeadlineMs, DeviceId, Encoding, Input, Origin, Priority, Prompt, PromptText, TaskName, TaskSpec,
};

/// Prompts of one life.
const PROMPTS: usize = 30;

/// What a device does with one of its prompts.
#[derive(Clone, Copy)]
pub(crate) enum Act {
    Send(usize),
    Reuse(usize),
    Control(usize, ControlOp),
}

/// What a publish that waits for its acknowledgement was about.
pub(crate) enum Asked {
    Prompt(usize),
    Control,
}

#[derive(Clone)]
pub(crate) struct Planned {
    pub(crate) device: DeviceId,
    pub(crate) prompt: Arc<Prompt>,
    pub(crate) encoding: Encoding,
    pub(crate) reused: bool,
}

#[derive(Default)]
pub(crate) struct Devices {
    pub(crate) plans: Vec<Planned>,
    pub(crate) open: BTreeMap<Ticket, Asked>,
    tickets: u64,
}

impl Devices {
    fn ticket(&mut self, asked: Asked) -> Ticket {
        self.tickets += 1;
        self.open.insert(Ticket(self.tickets), asked);
        Ticket(self.tickets)
    }

    pub(crate) fn answered(&mut self, ticket: Ticket) {
        assert!(self.open.remove(&ticket).is_some(), "{ticket:?} was answered twice");
    }
}

/// Which prompt of the life this is: its text says so.
pub(crate) fn content(prompt: &Prompt) -> usize {
    match &prompt.input {
        Input::Input(text) => text.reveal().parse().unwrap(),
        Input::Messages(_) => panic!("the simulation sends no chats"),
    }
}

pub(crate) fn poisonous(content: usize) -> bool {
    content % 19 == 7
}

pub(crate) fn task(name: &str) -> TaskName {
    name.parse().unwrap()
}

pub(crate) fn site() -> Site {
    let spec = |name: &str| TaskSpec {
        name: task(name),
        sha256: String::new(),
        system: "answer".to_owned(),
        schema: None,
        max_tokens: 32,
        max_bytes: 4096,
    };
    let make = |name: &str, consent: Consent, provisional: Provisional| {
        (
            task(name),
            Task {
                spec: Arc::new(spec(name)),
                consent,
                keep: Keep::Threshold(0.8),
                learning: Learning::On { audit_share: 0.0 },
                value: 1.0,
                provisional,
                expected_tokens: 8,
            },
        )
    };
    Site {
        origin: Origin { site: "plant".parse().unwrap(), gateway: "g1".parse().unwrap() },
        default_task: task("open"),
        tasks: [
            make("open", Consent::Allowed, Provisional::Give),
            make("quiet", Consent::Allowed, Provisional::Withhold),
            make("closed", Consent::Never, Provisional::Give),
        ]
        .into(),
        bridge: Bridge::Configured,
        limits: Limits {
            inbox_entries_max: 20,
            device_entries_max: 9,
            outbox_entries_max: 6,
            cloud_wait_ms: 60_000,
            escalations_in_flight_max: 3,
            ..Limits::default()
        },
    }
}

impl World {
    pub(crate) fn plan_devices(&mut self) {
        for n in 0..PROMPTS {
            let plan = self.plan(n);
            self.devices.plans.push(plan);
            let at = if self.rng.random_bool(0.4) { 5_000 } else { self.rng.random_range(0..115_000) };
            self.later(at, Due::Device(Act::Send(n)));
            self.plan_more(n, at);
        }
    }

    fn plan(&mut self, n: usize) -> Planned {
        let device = format!("d{}", self.rng.random_range(0..4)).parse().unwrap();
        let encoding = [Encoding::Cbor, Encoding::Json, Encoding::Text][self.rng.random_range(0..3)];
        let mut prompt = Prompt::bare(&n.to_string());
        if encoding != Encoding::Text {
            prompt.id = self.rng.random_bool(0.8).then(|| format!("b3f1-{n}").parse().unwrap());
            prompt.task = [None, Some(task("quiet")), Some(task("closed"))][self.rng.random_range(0..3)].clone();
            prompt.deadline_ms = self.rng.random_bool(0.5).then(|| self.deadline());
            prompt.stream = self.rng.random_bool(0.3);
            prompt.local = self.rng.random_bool(0.1);
            prompt.priority = Priority::new(self.rng.random_range(0..10)).unwrap();
        }
        Planned { device, prompt: Arc::new(prompt), encoding, reused: false }
    }

    fn deadline(&mut self) -> DeadlineMs {
        let ms = if self.rng.random_bool(0.5) { 200..4_000 } else { 4_000..90_000 };
        DeadlineMs::new(self.rng.random_range(ms)).unwrap()
    }

    /// Repeats, reuses, cancels, fetches: soon after, while the first is being written, or much later.
    fn plan_more(&mut self, n: usize, at: u64) {
        if self.devices.plans[n].prompt.id.is_none() {
            return;
        }
        for _ in 0..self.rng.random_range(0..3) {
            let wait =
                [self.rng.random_range(0..15), self.rng.random_range(0..5_000), self.rng.random_range(0..90_000)];
            let wait = wait[self.rng.random_range(0..3)];
            let act = match self.rng.random_range(0..10) {
                0 => {
                    self.devices.plans[n].reused = true;
                    Act::Reuse(n)
                }
                1..3 => Act::Control(n, ControlOp::Cancel),
                3..5 => Act::Control(n, ControlOp::Fetch),
                _ => Act::Send(n),
            };
            self.later(at + wait, Due::Device(act));
        }
    }

    pub(crate) fn device_acts(&mut self, act: Act) -> Option<Event> {
        let (Act::Send(n) | Act::Reuse(n) | Act::Control(n, _)) = act;
        let Planned { device, prompt, encoding, .. } = self.devices.plans[n].clone();
        match act {
            Act::Send(n) => Some(self.arrival(n, device, prompt, encoding)),
            Act::Reuse(_) => {
                let other = self.devices.plans.len();
                let input = Input::Input(PromptText::from(other.to_string()));
                let prompt = Arc::new(Prompt { input, ..(*prompt).clone() });
                let plan = Planned { device: device.clone(), prompt: Arc::clone(&prompt), encoding, reused: true };
                self.devices.plans.push(plan);
                Some(self.arrival(other, device, prompt, encoding))
            }
            Act::Control(_, op) => {
                let control = Control { op, id: prompt.id.clone()? };
                let ticket = self.devices.ticket(Asked::Control);
                Some(Event::Controlled { ticket, device, control, encoding })
            }
        }
    }

    fn arrival(&mut self, n: usize, device: DeviceId, prompt: Arc<Prompt>, encoding: Encoding) -> Event {
        let ticket = self.devices.ticket(Asked::Prompt(n));
        Event::Arrived(Arrival { ticket, device, prompt, encoding, bytes: 60 })
    }

    /// Whoever waited for an acknowledgement sends again, if its id allows it.
    pub(crate) fn devices_lost_connection(&mut self) {
        for (_, asked) in std::mem::take(&mut self.devices.open) {
            if let Asked::Prompt(n) = asked
                && self.devices.plans[n].prompt.id.is_some()
            {
                let wait = self.rng.random_range(10..5_000);
                self.later(wait, Due::Device(Act::Send(n)));
            }
        }
    }
}
