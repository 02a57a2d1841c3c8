//! The world around one dispatcher: agenda, clock, crashes, and the carrying out of commands.

use crate::checks::Checks;
use crate::cloud::Cloud;
use crate::devices::{self, Devices};
use crate::disk::{Change, Disk};
use crate::engine::Engine;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use tidegate_core::{Calibration, Command, Dispatcher, Event, Now};
use tidegate_schemas::{JobId, Resolution};

/// Faults happen in the first two minutes.
const FAULTS_UNTIL: u64 = 120_000;
/// Everything has its outcome by then: the longest wait for the cloud, four leases, and a restart.
const OVER_AT: u64 = FAULTS_UNTIL + 900_000;
/// Steps of one life, far above what any needs: a loop in zero time ends here.
const STEPS_MAX: u32 = 60_000;

/// What will happen. Those of the process end with it; the others go on over a restart.
pub(crate) enum Due {
    /// A device or its network acts.
    Device(devices::Act),
    /// A resolution reaches the gateway's session.
    Resolution(Box<Resolution>),
    /// The link changes.
    Link(bool),
    /// The oldest write ends.
    Disk,
    /// The engine child is up.
    EngineReady,
    /// Another model takes over.
    Replacement,
    /// An inference makes a step; the number is that of the run.
    EngineStep(JobId, u64),
    /// A publish ends.
    Published(JobId, u32),
}

impl Due {
    fn of_process(&self) -> bool {
        matches!(self, Self::Disk | Self::EngineReady | Self::EngineStep(..) | Self::Published(..))
    }
}

/// How often a fault was met, over all lives: a simulation that never meets one proves nothing about it.
#[derive(Default, Debug)]
pub(crate) struct Met(BTreeMap<&'static str, u64>);

impl Met {
    pub(crate) fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, n)| *self.0.entry(what).or_default() += n);
    }

    pub(crate) fn assert_all(&self) {
        for what in [
            "restart",
            "engine died",
            "old engine died",
            "replaced while idle",
            "replaced in mid answer",
            "link down",
            "not kept",
            "escalation not kept",
            "0x10",
            "answered twice",
            "error resolution",
            "late resolution",
            "stored again",
            "cancelled",
            "id_reused",
            "expired",
            "dead",
            "cloud_silent",
            "outbox_full",
            "too_slow",
            "cut",
            "provisional",
            "busy",
        ] {
            assert!(self.0.get(what).is_some_and(|n| *n >= 20), "{what} was met too rarely: {self:?}");
        }
    }
}

pub(crate) struct World {
    pub(crate) rng: StdRng,
    pub(crate) now: Now,
    core: Dispatcher,
    agenda: BTreeMap<(Now, u64), Due>,
    entries: u64,
    pub(crate) disk: Disk,
    pub(crate) engine: Engine,
    pub(crate) cloud: Cloud,
    pub(crate) devices: Devices,
    pub(crate) checks: Checks,
    pub(crate) met: Met,
    disk_busy_until: Now,
    restarts_left: u32,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            now: Now(1_000),
            core: fresh(JobId(1)),
            agenda: BTreeMap::new(),
            entries: 0,
            disk: Disk::default(),
            engine: Engine::default(),
            cloud: Cloud::default(),
            devices: Devices::default(),
            checks: Checks::default(),
            met: Met::default(),
            disk_busy_until: Now(0),
            restarts_left: 3,
        };
        world.plan_devices();
        world.plan_link();
        world.later(300, Due::EngineReady);
        let replaced = world.rng.random_range(1_000..40_000);
        world.later(replaced, Due::Replacement);
        world
    }

    /// From the first prompt to the last outcome.
    pub(crate) fn live(mut self) -> Met {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps < STEPS_MAX, "{steps} steps and no end at {:?}", self.now);
        }
        self.check_end();
        self.met
    }

    pub(crate) fn calm(&self) -> bool {
        self.now.0 > FAULTS_UNTIL
    }

    /// Chance of a fault, none in the calm.
    pub(crate) fn unlucky(&mut self, share: f64) -> bool {
        let draw = self.rng.random_bool(share);
        draw && !self.calm()
    }

    pub(crate) fn later(&mut self, ms: u64, due: Due) {
        self.entries += 1;
        self.agenda.insert((self.now.after(ms), self.entries), due);
    }

    fn step(&mut self) -> bool {
        let planned = self.agenda.first_key_value().map(|(key, _)| key.0);
        let tick = self.core.next_deadline();
        let Some(at) = planned.into_iter().chain(tick).min() else { return false };
        if at.0 > OVER_AT {
            return false;
        }
        self.now = at.max(self.now);
        let due = if planned == Some(at) { self.agenda.pop_first().map(|(_, due)| due) } else { None };
        let event = match due {
            Some(due) => self.happen(due),
            None => Some(Event::Tick),
        };
        if let Some(event) = event {
            self.feed(event);
        }
        true
    }

    fn happen(&mut self, due: Due) -> Option<Event> {
        match due {
            Due::Device(act) => self.device_acts(act),
            Due::Resolution(resolution) => self.resolution_comes(resolution),
            Due::Link(up) => self.link_changes(up),
            Due::Disk => {
                let fails = self.unlucky(0.06);
                Some(self.disk.end_one(fails, self.now))
            }
            Due::EngineReady => Some(self.engine_comes_up()),
            Due::Replacement => self.engine_is_replaced(),
            Due::EngineStep(job, run) => self.engine_steps(job, run),
            Due::Published(job, attempt) => Some(self.publish_ends(job, attempt)),
        }
    }

    /// Hands an event over and carries out what comes back; a crash may cut that short anywhere.
    pub(crate) fn feed(&mut self, event: Event) {
        self.checks.reported(&event, &mut self.met);
        let commands = self.core.handle(event, self.now);
        let crash_after =
            (self.restarts_left > 0 && self.unlucky(0.01)).then(|| self.rng.random_range(0..=commands.len()));
        for (index, command) in commands.into_iter().enumerate() {
            if crash_after == Some(index) {
                break;
            }
            self.carry_out(command);
        }
        if crash_after.is_some() {
            self.restart();
        }
        self.check_step();
    }

    fn carry_out(&mut self, command: Command) {
        self.check_command(&command);
        match command {
            Command::Keep(keepsake) => self.write(Change::Keep(keepsake)),
            Command::MarkAttempt { job, attempt } => self.write(Change::Mark { job, attempt }),
            Command::KeepEscalation { job, escalation, provisional } => {
                self.write(Change::Escalate { job, escalation, provisional });
            }
            Command::Conclude { job, device, outcome, .. } => self.write(Change::Conclude { job, device, outcome }),
            Command::Infer(inference) => self.engine_runs(inference),
            Command::Abort(job) => self.engine_aborts(job),
            Command::Publish(escalation) => self.publish(&escalation),
            Command::Acknowledge { ticket, .. } | Command::SendStored { ticket, .. } => self.devices.answered(ticket),
            Command::Refuse { ticket, .. } => self.devices.answered(ticket),
            Command::Deliver { .. } | Command::Send { .. } | Command::Note(_) => {}
        }
    }

    fn write(&mut self, change: Change) {
        let slow = self.unlucky(0.02);
        let takes = if slow { self.rng.random_range(500..4_000) } else { self.rng.random_range(1..20) };
        self.disk_busy_until = self.disk_busy_until.max(self.now).after(takes);
        self.disk.submit(change);
        self.later(self.disk_busy_until.since(self.now), Due::Disk);
    }

    /// The gateway dies and starts again from what is on disk.
    fn restart(&mut self) {
        self.met.note("restart");
        self.restarts_left -= 1;
        let durable = self.rng.random_range(0..4);
        self.disk.crash(durable, self.now);
        self.agenda.retain(|_, due| !due.of_process());
        self.disk_busy_until = self.now;
        let open: Vec<JobId> = self.disk.inbox.keys().copied().collect();
        self.checks.process_died(&open);
        self.engine = Engine::default();
        self.cloud.process_died();
        self.devices_lost_connection();
        self.core = fresh(JobId(self.disk.last_job() + 1));
        let (jobs, seen) = self.disk.recover();
        let commands = self.core.restore(jobs, seen, self.now);
        commands.into_iter().for_each(|command| self.carry_out(command));
        self.later(300, Due::EngineReady);
        if self.cloud.up {
            self.later(50, Due::Link(true));
        }
    }

    pub(crate) fn load(&self) -> tidegate_core::LoadView {
        self.core.load()
    }
}

fn fresh(next_job: JobId) -> Dispatcher {
    let calibration = [(devices::task("open"), Calibration::new(vec![(0.0, 0.0), (0.5, 0.4), (1.0, 0.95)]).unwrap())];
    Dispatcher::new(devices::site(), calibration.map(|(task, map)| (task, map.into())).into(), next_job)
}
