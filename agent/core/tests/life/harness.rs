//! One dispatcher, a clock that is set by hand, and short words for what goes in and what comes out.

use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_core::knowledge::Knowledge;
use tidegate_core::{
    Arrival, Bridge, Calibration, Command, Completion, Consent, Dispatcher, Event, Keep, Learning, Limits, Now,
    Provisional, Signals, Site, Task, Ticket,
};
use tidegate_schemas::{
    Answer, Body, Control, ControlOp, DeadlineMs, Encoding, ErrorCode, Escalation, Frame, JobId, Origin, Prompt,
    Reason, Resolution, ResolvedOutcome, TaskSpec, Timing, Usage,
};

pub(crate) struct Life {
    pub(crate) core: Dispatcher,
    pub(crate) now: Now,
    tickets: u64,
}

fn site(limits: Limits) -> Site {
    let spec = |name: &str| TaskSpec {
        name: name.parse().unwrap(),
        sha256: String::new(),
        system: String::new(),
        schema: None,
        max_tokens: 64,
        max_bytes: 4096,
    };
    let task = |name: &str, consent: Consent| {
        let spec = Arc::new(spec(name));
        let task = Task {
            spec,
            consent,
            keep: Keep::Threshold(0.8),
            learning: Learning::On { audit_share: 0.0 },
            value: 1.0,
            provisional: Provisional::Give,
            expected_tokens: 10,
        };
        (name.parse().unwrap(), task)
    };
    Site {
        origin: Origin { site: "plant".parse().unwrap(), gateway: "g1".parse().unwrap() },
        default_task: "open".parse().unwrap(),
        tasks: [task("open", Consent::Allowed), task("closed", Consent::Never)].into(),
        bridge: Bridge::Configured,
        limits,
    }
}

impl Life {
    pub(crate) fn new() -> Self {
        Self::with(Limits { slots: 1, ..Limits::default() })
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let core = Dispatcher::new(
            site(limits),
            BTreeMap::from([("open".parse().unwrap(), Calibration::identity().into())]),
            JobId(1),
        );
        Self { core, now: Now(10_000), tickets: 0 }
    }

    /// One whose tasks know and wish this.
    pub(crate) fn knowing(known: Knowledge, keep: Keep, learning: Learning) -> Self {
        let mut site = site(Limits { slots: 1, ..Limits::default() });
        for task in site.tasks.values_mut() {
            (task.keep, task.learning) = (keep, learning);
        }
        let known = ["open", "closed"].map(|name| (name.parse().unwrap(), known.clone()));
        Self { core: Dispatcher::new(site, known.into(), JobId(1)), now: Now(10_000), tickets: 0 }
    }

    pub(crate) fn up(mut self) -> Self {
        self.feed(Event::EngineReady { model: "edge".parse().unwrap(), context_tokens: 1024 });
        self.feed(Event::LinkUp);
        self
    }

    pub(crate) fn feed(&mut self, event: Event) -> Vec<Command> {
        self.core.handle(event, self.now)
    }

    pub(crate) fn wait(&mut self, ms: u64) -> Vec<Command> {
        self.now = self.now.after(ms);
        self.feed(Event::Tick)
    }

    pub(crate) fn send(&mut self, prompt: Prompt, encoding: Encoding) -> Vec<Command> {
        self.tickets += 1;
        let (ticket, device) = (Ticket(self.tickets), "d1".parse().unwrap());
        self.feed(Event::Arrived(Arrival { ticket, device, prompt: Arc::new(prompt), encoding, bytes: 50 }))
    }

    /// A prompt that is accepted and, where a slot is free, runs.
    pub(crate) fn accept(&mut self, prompt: Prompt) -> (JobId, Vec<Command>) {
        let job = self.send(prompt, Encoding::Json).iter().find_map(kept).expect("the prompt was not kept");
        (job, self.feed(Event::Kept(job)))
    }

    pub(crate) fn complete(&mut self, job: JobId, probability: f64) -> Vec<Command> {
        let sum_logprob = probability.ln();
        let signals = Signals {
            sum_logprob,
            min_logprob: 0.0,
            mean_logprob: 0.0,
            first_margin: 0.0,
            first_entropy: 0.0,
            tokens: 10,
            ..Signals::default()
        };
        let usage = Usage { prompt_tokens: 20, completion_tokens: 10 };
        let timing = Timing { prefill_ms: 40, decode_ms: 100, ..Timing::default() };
        let body = Body::Text("on".into());
        self.feed(Event::Completed { job, completion: Box::new(Completion { body, signals, usage, timing }) })
    }

    pub(crate) fn control(&mut self, op: ControlOp) -> Vec<Command> {
        self.control_of(op, "b-1")
    }

    pub(crate) fn control_of(&mut self, op: ControlOp, id: &str) -> Vec<Command> {
        let (device, control) = ("d1".parse().unwrap(), Control { op, id: id.parse().unwrap() });
        self.feed(Event::Controlled { ticket: Ticket(900), device, control, encoding: Encoding::Json })
    }

    pub(crate) fn resolve(&mut self, job: JobId, outcome: ResolvedOutcome) -> Vec<Command> {
        self.resolve_as(job, outcome, 0.95)
    }

    pub(crate) fn resolve_as(&mut self, job: JobId, outcome: ResolvedOutcome, confidence: f64) -> Vec<Command> {
        self.feed(Event::Resolved(Box::new(Resolution {
            v: 1,
            job,
            origin: site(Limits::default()).origin,
            attempt: 1,
            outcome,
            confidence: Some(confidence),
            model: "cloud".parse().unwrap(),
            usage: Usage::default(),
            timing: Timing::default(),
            traceparent: None,
        })))
    }
}

pub(crate) fn prompt() -> Prompt {
    Prompt { id: Some("b-1".parse().unwrap()), ..Prompt::bare("lights on") }
}

pub(crate) fn deadline(ms: u64) -> Prompt {
    Prompt { deadline_ms: DeadlineMs::new(ms), ..prompt() }
}

pub(crate) fn kept(command: &Command) -> Option<JobId> {
    if let Command::Keep(keepsake) = command { Some(keepsake.job) } else { None }
}

pub(crate) fn outcome(commands: &[Command]) -> Frame {
    let conclude =
        |c: &Command| if let Command::Conclude { outcome, .. } = c { Some((**outcome).clone()) } else { None };
    commands.iter().find_map(conclude).unwrap_or_else(|| panic!("no outcome in {commands:?}"))
}

pub(crate) fn answer(commands: &[Command]) -> Answer {
    let Frame::Answer(answer) = outcome(commands) else { panic!("no answer in {commands:?}") };
    answer
}

pub(crate) fn code(commands: &[Command]) -> ErrorCode {
    let Frame::Error(error) = outcome(commands) else { panic!("no error in {commands:?}") };
    error.code
}

pub(crate) fn refused(commands: &[Command]) -> ErrorCode {
    let refuse = |c: &Command| if let Command::Refuse { error, .. } = c { Some(error.code) } else { None };
    commands.iter().find_map(refuse).unwrap_or_else(|| panic!("no refusal in {commands:?}"))
}

pub(crate) fn runs(commands: &[Command]) -> Option<u32> {
    commands.iter().find_map(|c| if let Command::Infer(i) = c { Some(i.attempt) } else { None })
}

pub(crate) fn published(commands: &[Command]) -> Option<Escalation> {
    commands.iter().find_map(|c| if let Command::Publish(e) = c { Some((**e).clone()) } else { None })
}

pub(crate) fn escalates(commands: &[Command]) -> Option<Reason> {
    let keep =
        |c: &Command| if let Command::KeepEscalation { escalation, .. } = c { Some(escalation.reason) } else { None };
    commands.iter().find_map(keep)
}
