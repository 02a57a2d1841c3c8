//! The engine: takes its time, speaks, ends well or badly, dies by chance or by a poisonous prompt.

use crate::devices::{content, poisonous};
use crate::world::{Due, World};
use rand::Rng;
use std::collections::BTreeMap;
use tidegate_core::{Completion, EngineFault, Event, Inference, Now, Signals};
use tidegate_schemas::{Body, JobId, Timing, Usage};

#[derive(Clone, Copy)]
enum Ending {
    Answer,
    Cut,
    TooLong,
    Other,
    Death,
    Aborted,
}

struct Run {
    number: u64,
    generation: u32,
    tokens_left: u32,
    ending: Ending,
}

#[derive(Default)]
pub(crate) struct Engine {
    pub(crate) ready: bool,
    /// How often another model took over.
    generation: u32,
    running: BTreeMap<JobId, Run>,
    runs: u64,
    /// What ended last, and when: the dispatcher may hear of it after a deadline of the same moment.
    ended: Option<(Now, Vec<JobId>)>,
}

impl Engine {
    pub(crate) fn runs(&self, job: JobId) -> bool {
        self.running.contains_key(&job)
    }

    pub(crate) fn busy(&self) -> usize {
        self.running.len()
    }

    /// All runs of an engine end with it.
    fn dies(&mut self, generation: u32, now: Now) -> Vec<JobId> {
        let of_it = |run: &Run| run.generation == generation;
        let lost: Vec<JobId> = self.running.iter().filter(|(_, run)| of_it(run)).map(|(job, _)| *job).collect();
        self.running.retain(|_, run| !of_it(run));
        self.ended = Some((now, lost.clone()));
        lost
    }

    /// Whether a job runs, or ran until this very moment.
    pub(crate) fn ran(&self, job: JobId, now: Now) -> bool {
        self.runs(job) || self.ended.as_ref().is_some_and(|(at, jobs)| *at == now && jobs.contains(&job))
    }
}

impl World {
    pub(crate) fn engine_comes_up(&mut self) -> Event {
        self.engine.ready = true;
        Event::EngineReady { model: "tide-edge".parse().unwrap(), context_tokens: 2048 }
    }

    /// Another model takes over, beside what still runs; not while a third would be needed for that.
    pub(crate) fn engine_is_replaced(&mut self) -> Option<Event> {
        let again = self.rng.random_range(1_000..40_000);
        if !self.calm() {
            self.later(again, Due::Replacement);
        }
        let current = self.engine.generation;
        let old_runs = self.engine.running.values().any(|run| run.generation != current);
        if !self.engine.ready || old_runs {
            return None;
        }
        self.met.note(if self.engine.running.is_empty() { "replaced while idle" } else { "replaced in mid answer" });
        self.engine.generation += 1;
        Some(Event::EngineReplaced { model: "tide-cloud".parse().unwrap(), known: Box::default() })
    }

    pub(crate) fn engine_runs(&mut self, inference: Inference) {
        let ending = match self.rng.random_range(0..100) {
            _ if poisonous(content(&inference.prompt)) => Ending::Death,
            0..4 if !self.calm() => Ending::Death,
            4..10 => Ending::Cut,
            10..13 => Ending::TooLong,
            13..16 => Ending::Other,
            _ => Ending::Answer,
        };
        self.engine.runs += 1;
        let tokens_left = self.rng.random_range(0..6);
        let run = Run { number: self.engine.runs, generation: self.engine.generation, tokens_left, ending };
        self.engine.running.insert(inference.job, run);
        self.engine_goes_on(inference.job, self.engine.runs);
    }

    fn engine_goes_on(&mut self, job: JobId, run: u64) {
        let takes = self.rng.random_range(1..600);
        self.later(takes, Due::EngineStep(job, run));
    }

    /// Stopped at the next step, unless it was faster.
    pub(crate) fn engine_aborts(&mut self, job: JobId) {
        let faster = self.rng.random_bool(0.3);
        if let Some(run) = self.engine.running.get_mut(&job).filter(|_| !faster) {
            run.ending = Ending::Aborted;
            run.tokens_left = 0;
        }
    }

    pub(crate) fn engine_steps(&mut self, job: JobId, number: u64) -> Option<Event> {
        let run = self.engine.running.get_mut(&job).filter(|run| run.number == number)?;
        if run.tokens_left > 0 {
            run.tokens_left -= 1;
            self.engine_goes_on(job, number);
            return Some(Event::Token { job, text: "a ".into() });
        }
        let (ending, generation) = (run.ending, run.generation);
        if matches!(ending, Ending::Death) {
            let lost = self.engine.dies(generation, self.now);
            self.checks.engine_died(&lost);
            if generation != self.engine.generation {
                self.met.note("old engine died");
                return Some(Event::OldEngineGone);
            }
            self.met.note("engine died");
            self.engine.ready = false;
            self.later(400, Due::EngineReady);
            return Some(Event::EngineGone);
        }
        self.engine.running.remove(&job);
        self.engine.ended = Some((self.now, vec![job]));
        let fault = match ending {
            Ending::Answer | Ending::Death => return Some(self.completed(job)),
            Ending::Cut => EngineFault::Cut,
            Ending::TooLong => EngineFault::TooLong { tokens: 3_000, context_tokens: 2_048 },
            Ending::Other => EngineFault::Other("no memory for the batch".to_owned()),
            Ending::Aborted => EngineFault::Aborted,
        };
        Some(Event::InferenceFailed { job, fault })
    }

    fn completed(&mut self, job: JobId) -> Event {
        let sum_logprob = match self.rng.random_range(0..10) {
            0 => f64::NAN,
            1..6 => -3.0,
            _ => -0.01,
        };
        let signals = Signals {
            sum_logprob,
            min_logprob: -1.0,
            mean_logprob: -0.1,
            first_margin: 0.5,
            first_entropy: 0.5,
            tokens: 6,
            ..Signals::default()
        };
        let usage = Usage { prompt_tokens: 40, completion_tokens: 6 };
        let timing = Timing { prefill_ms: self.rng.random_range(10..300), decode_ms: 600, ..Timing::default() };
        let body = Body::Text("local".into());
        Event::Completed { job, completion: Box::new(Completion { body, signals, usage, timing }) }
    }
}
