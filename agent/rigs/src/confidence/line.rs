//! A gateway that serves prompts in order, in simulated time, with the core's own predictor beside it. Invariant: no
//! real time passes; what happens follows from the seed.

use rand::{Rng as _, rngs::StdRng};
use tidegate_core::interval::{Interval, Spread};
use tidegate_core::predict::{Measured, Predictor, Work};
use tidegate_schemas::TaskName;

/// Speeds of a 0.5B shape on two slow cores, as `models` measured such a file: milliseconds per byte read and per token
/// written.
pub(crate) const HALF_BILLION: Speed = Speed { ms_per_byte: 1.6, ms_per_token: 37.0 };
/// Standard deviation of the logarithm of a run's time: other work on the same cores.
const JITTER: f64 = 0.06;

/// How fast a model reads and writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speed {
    pub(crate) ms_per_byte: f64,
    pub(crate) ms_per_token: f64,
}

/// What a prompt takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) bytes: u32,
    pub(crate) tokens: u32,
}

/// What waits or runs: who finds it learns when it is done.
struct Ahead {
    work: Work,
    begins_ms: f64,
    ends_ms: f64,
}

/// What a run teaches when it ends: predicted and actual time, in all and in the slot.
struct Lesson {
    ends_ms: f64,
    measured: Measured,
    whole: (f64, f64),
    own: (f64, f64),
}

/// One server.
pub(crate) struct Line {
    predictor: Predictor,
    pub(crate) spread: Spread,
    /// The same of the time in the slot alone.
    own: Spread,
    task: TaskName,
    ahead: Vec<Ahead>,
    /// Runs to learn from when they end.
    learning: Vec<Lesson>,
}

impl Line {
    pub(crate) fn new() -> Self {
        let task: TaskName = "action".parse().expect("a valid name");
        let predictor = Predictor::new([(task.clone(), 12)]);
        Self {
            predictor,
            spread: Spread::default(),
            own: Spread::default(),
            task,
            ahead: Vec::new(),
            learning: Vec::new(),
        }
    }

    /// What ended until now is learned from and leaves the line.
    fn pass(&mut self, now_ms: f64) {
        self.ahead.retain(|ahead| ahead.ends_ms > now_ms);
        let (over, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.learning).into_iter().partition(|l| l.ends_ms <= now_ms);
        self.learning = rest;
        for lesson in over {
            self.predictor.measure(&self.task, lesson.measured);
            self.spread.add(lesson.whole.0, lesson.whole.1);
            self.own.add(lesson.own.0, lesson.own.1);
        }
    }

    /// When the turn of a prompt comes that is taken in now.
    pub(crate) fn turn(&self, now_ms: f64) -> f64 {
        self.ahead.iter().map(|a| a.ends_ms).fold(now_ms, f64::max)
    }

    /// Predicted time of a prompt in the slot.
    pub(crate) fn own(&self, job: Job) -> Interval {
        let work = self.predictor.work(&self.task, u64::from(job.bytes), 128);
        self.own.around_or_near(self.predictor.own_ms(work) as f64)
    }

    /// Predicted time of a prompt that comes now: the bare prediction, and the interval.
    pub(crate) fn predict(&mut self, job: Job, now_ms: f64) -> (f64, Interval) {
        self.pass(now_ms);
        let queued = self.ahead.iter().filter(|a| a.begins_ms > now_ms).fold(Work::default(), |sum, a| sum + a.work);
        let left = |a: &Ahead| self.predictor.left_ms(a.work, (now_ms - a.begins_ms) as u64);
        let running: Vec<u64> = self.ahead.iter().filter(|a| a.begins_ms <= now_ms).map(left).collect();
        let work = self.predictor.work(&self.task, u64::from(job.bytes), 128);
        let total = self.predictor.wait_ms(queued, &running, 1) + self.predictor.own_ms(work);
        (total as f64, self.spread.around_or_near(total as f64))
    }

    /// Takes a prompt in at the end of the line; when it is done.
    pub(crate) fn run(&mut self, job: Job, now_ms: f64, speed: Speed, random: &mut StdRng) -> f64 {
        let (predicted, _) = self.predict(job, now_ms);
        let work = self.predictor.work(&self.task, u64::from(job.bytes), 128);
        let noise = (JITTER * normal(random)).exp();
        let prefill = speed.ms_per_byte * f64::from(job.bytes) * noise;
        let decode = speed.ms_per_token * f64::from(job.tokens) * noise;
        let begins_ms = self.turn(now_ms);
        let ends_ms = begins_ms + prefill + decode;
        self.ahead.push(Ahead { work, begins_ms, ends_ms });
        let measured = Measured {
            bytes: u64::from(job.bytes),
            tokens: job.tokens,
            prefill_ms: prefill as u64,
            decode_ms: decode as u64,
        };
        let own = (self.predictor.own_ms(work) as f64, ends_ms - begins_ms);
        self.learning.push(Lesson { ends_ms, measured, whole: (predicted, ends_ms - now_ms), own });
        ends_ms
    }
}

/// Box and Muller.
pub(crate) fn normal(random: &mut StdRng) -> f64 {
    let (u, v): (f64, f64) = (random.random_range(1e-12..1.0), random.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Time to the next arrival of a Poisson stream with this mean, in milliseconds.
pub(crate) fn pause(mean_ms: f64, random: &mut StdRng) -> f64 {
    -mean_ms * random.random_range(1e-12..1.0_f64).ln()
}
